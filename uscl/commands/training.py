"""Verbs that train, and tell of trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uscl.commands.options import AsJson, DataSetArgument, Overwrite, print_json
from uscl.completion import recipe_names
from uscl.completion import weights as weight_names
from usdata.console import one_line_errors


@one_line_errors
def pretrain(
    dataset: DataSetArgument,
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="A shipped recipe's name ('uscl recipes' lists them) or a YAML file; uscl by default; may be given again.",
            autocompletion=recipe_names,
        ),
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key; may be given again.")] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(metavar="A.B=C,D", help="A run for each of these values, below --out; may be given again.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="A run for each of the seeds 0 to N-1, below --out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Start from: a run folder, a file (.safetensors, .pth), 'imagenet', or 'random'.",
            autocompletion=weight_names,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and the arithmetic, and stop.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Pretrain a backbone on a data set's clips; a run that was stopped goes on with --resume, a sweep of runs by the same command.

    \b
    uscl pretrain demo/set --out demo/run --recipe demo
    uscl pretrain set --out run --set epochs=100 --set image_size=112
    uscl pretrain set --out runs --sweep temperature=0.1,0.5 --seeds 3
    uscl pretrain set --out runs --recipe uscl --recipe simclr --sweep "augment.scale=[0.2,1.0],[0.8,1.0]" --dry-run
    torchrun --standalone --nproc-per-node 4 -m uscl pretrain set --out run
    """
    recipes = recipe or ["uscl"]
    if sweep or seeds is not None or len(recipes) > 1:
        _sweep(dataset, out, recipes, overrides or [], sweep or [], seeds, init_from, dry_run, overwrite, as_json)
        return
    from uscl.processes import is_first
    from uscl.train import pretrain as train

    result = train(
        dataset,
        out=out,
        recipe=recipes[0],
        overrides=overrides or (),
        resume=resume,
        overwrite=overwrite,
        init_from=init_from,
        dry_run=dry_run,
    )
    if not is_first():  # of the processes of torchrun
        return
    if as_json:
        print_json({**vars(result), "out": str(result.out)})
    elif not dry_run:
        print(f"weights: {result.out}/export/backbone.safetensors; report: {result.out}/report.html")
        if len(result.classes) > 1:
            print(f"next: uscl evaluate linear SET --weights random --weights {result.out} --out EVALUATION")
        else:
            print(f"next: uscl embed {dataset} --weights {result.out} --out features.parquet; uscl evaluate needs a set with labels")


def _sweep(
    dataset: Path,
    out: Path,
    recipes: list[str],
    overrides: list[str],
    values: list[str],
    seeds: int | None,
    init_from: str | None,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    from uscl.sweeping import print_sweep, sweep
    from usdata.errors import EXIT_USER_ERROR, UserError

    if overwrite:
        raise UserError("--overwrite", "is not for a sweep", "delete the folders of those runs that are to be made anew")
    result = sweep(dataset, out=out, sweep=values, seeds=seeds, recipe=recipes, overrides=overrides, init_from=init_from, dry_run=dry_run)
    if as_json:
        print_json(result.to_json())
    else:
        print_sweep(result, dry_run=dry_run)
    if result.failed:
        raise typer.Exit(EXIT_USER_ERROR)


@one_line_errors
def runs(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder with runs in it or below it.")] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Show runs side by side: how far each came, its last figures, and the settings in which they differ.

    \b
    uscl runs
    uscl runs experiments --json
    """
    from uscl.run_list import print_runs
    from uscl.run_list import runs as read

    rows = read(folder)
    if as_json:
        print_json([vars(row) for row in rows])
    else:
        print_runs(rows)


@one_line_errors
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one, to copy.", autocompletion=recipe_names)] = None,
    as_json: AsJson = False,
) -> None:
    """List the training recipes that come with the package, or print one.

    \b
    uscl recipes
    uscl recipes uscl > mine.yaml
    """
    from uscl.config import load_config, recipe_text
    from uscl.recipe_list import list_recipes, print_recipes

    if name is not None:
        text = recipe_text(name)
        if as_json:
            print_json(load_config(name).model_dump(mode="json"))
        else:
            print(text, end="")
    elif as_json:
        print_json([vars(row) for row in list_recipes()])
    else:
        print_recipes(list_recipes())


@one_line_errors
def bench(
    dataset: Annotated[Path | None, typer.Argument(metavar="[SET]", help="Data set folder; without one, frames are made up.")] = None,
    recipe: Annotated[str, typer.Option(help="A shipped recipe's name or a YAML file.", autocompletion=recipe_names)] = "uscl",
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key; may be given again.")] = None,
    seconds: Annotated[float, typer.Option(help="About how long to measure.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Measure how fast this machine trains: views a second by stage, from the store to the optimiser.

    \b
    uscl bench
    uscl bench set --set image_size=112 --set precision=bfloat16 --json
    """
    from uscl.benchmark import bench as measure
    from uscl.benchmark import print_bench

    result = measure(dataset, recipe=recipe, overrides=overrides or (), seconds=seconds)
    if as_json:
        print_json(result.to_json())
    else:
        print_bench(result)
