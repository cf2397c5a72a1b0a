"""Verbs that divide data sets, and hand them on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usdata.commands.options import AsJson, print_json
from usdata.console import one_line_errors, say
from usdata.errors import EXIT_FINDINGS


@one_line_errors
def split(
    dataset: Annotated[Path, typer.Argument(metavar="SET", help="Data set folder.")],
    folds: Annotated[int | None, typer.Option(help="Number of folds; 0 for none. By default the recipe's.")] = None,
    val: Annotated[float | None, typer.Option(metavar="SHARE", help="Share of frames for val. By default the recipe's.")] = None,
    test: Annotated[float | None, typer.Option(metavar="SHARE", help="Share of frames for test. By default the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed draws another assignment.")] = None,
    published: Annotated[
        Path | None, typer.Option(metavar="FILE|FOLDER", help="Report instead on a published split: a table, lists or folders of names.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="The published table's column of parts, where it has several.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the published split into SET.")] = False,
    rest: Annotated[
        str | None, typer.Option(metavar="PART", help="Where frames go that it does not name: train, val, test; a fold or none.")
    ] = None,
    allow_leaks: Annotated[bool, typer.Option("--allow-leaks", help="Apply it although it leaks; dataset.json says how.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with 3 if something stands in two parts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make splits and folds anew by group and prove them, or look what leaks in published ones.

    \b
    usdata split set --folds 5 --seed 1
    usdata split set --published FileList.csv --fail
    """
    from usdata.splitting import split as splitting
    from usdata.splitting.terminal import print_split

    result = splitting(
        dataset,
        folds=folds,
        val=val,
        test=test,
        seed=seed,
        published=published,
        column=column,
        apply=apply,
        rest=rest,
        allow_leaks=allow_leaks,
    )
    if as_json:
        print_json(result.to_json())
    else:
        print_split(result)
        if result.written:
            print(f"written to {dataset}; digest {result.digest[:16]}")
        elif published is None:
            print(f"{dataset} holds these folds and splits already: nothing to do")
    if fail and result.leaking:
        say("something stands in two parts")
        raise typer.Exit(EXIT_FINDINGS)


@one_line_errors
def export(
    dataset: Annotated[Path, typer.Argument(metavar="SET", help="Data set folder.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="folders: one folder of frames a clip, as US-4 is published; huggingface: Parquet shards with the pictures in them; "
            "webdataset: tar shards, a sample a clip; coco: images and annotations; croissant: croissant.json, to publish beside the set; "
            "manifest: the tables and croissant.json, to publish without pictures.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make; it must be empty or missing.")],
    images: Annotated[
        str, typer.Option(metavar="png|jpg", help="png: as they are stored; jpg: smaller, a little is lost (folders alone).")
    ] = "png",
    as_json: AsJson = False,
) -> None:
    """Write a data set in the shape that other software reads.

    \b
    usdata export set --to folders --out frames
    usdata export set --to folders --out frames --images jpg
    usdata export set --to huggingface --out shards
    usdata export set --to manifest --out published
    """
    from usdata.exporting import export as exporting

    exported = exporting(dataset, to=to, out=out, images=images)
    if as_json:
        print_json(vars(exported))
        return
    print(f"{exported.frames:,} frames of {exported.clips:,} clips in {out} ({exported.seconds:.1f} s)")
    if exported.note is not None:
        print(f"note: {exported.note}")
    print(f"next: {exported.then}")
