"""The `usdata` command line, put together: `usdata.commands` has the verbs."""

from __future__ import annotations

from typing import Annotated

import typer

from usdata.commands import handing_on, looking, making
from usdata.commands.options import AsJson, print_json
from usdata.console import one_line_errors

app = typer.Typer(
    name="usdata",
    help="Ultrasound video data sets: raw clips in; frames, Parquet manifests and an audit out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
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
    """Ultrasound video data sets: raw clips in; frames, Parquet manifests and an audit out."""


@one_line_errors
def doctor(as_json: AsJson = False) -> None:
    """Tell what can be read here, by which library, and what to install for the rest.

    \b
    usdata doctor
    usdata doctor --json
    """
    from usdata.doctor import examine, print_examination

    examined = examine()
    if as_json:
        print_json(examined.to_json())
    else:
        print_examination(examined)


# In the order in which they are met.
for verb in (
    making.phantom,
    making.catalog,
    making.pull,
    making.scan,
    making.build,
    looking.view,
    looking.review,
    looking.audit,
    looking.validate,
    looking.overlap,
    handing_on.split,
    handing_on.export,
    looking.compare,
    making.rebuild,
    making.import_folds,
    making.migrate,
    doctor,
):
    app.command()(verb)
