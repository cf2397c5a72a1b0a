"""The `uscl` command line, put together: `uscl.commands` has the verbs."""

from __future__ import annotations

from typing import Annotated

import typer

from uscl.commands import judging, training, using
from uscl.commands.options import AsJson, print_json
from usdata.console import one_line_errors

app = typer.Typer(
    name="uscl",
    help="Contrastive pretraining on ultrasound video, and evaluation that holds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("usdata-uscl"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Contrastive pretraining on ultrasound video, and evaluation that holds."""


@one_line_errors
def doctor(as_json: AsJson = False) -> None:
    """Tell what this machine can train with, what each extra gives, and what to install for the rest.

    \b
    uscl doctor
    uscl doctor --json
    """
    from uscl.doctor import examine, print_examination

    examined = examine()
    if as_json:
        print_json(examined.to_json())
    else:
        print_examination(examined)


# In the order in which they are met.
for verb in (
    training.pretrain,
    training.recipes,
    training.runs,
    training.bench,
    judging.evaluate,
    judging.report,
    judging.segment,
    using.embed,
    using.fit,
    using.predict,
    judging.validate,
    using.export,
    doctor,
):
    app.command()(verb)
