"""Verbs that make data sets, of clips, of published manifests, of older sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usdata.commands.options import AsJson, Overrides, Overwrite, counted, print_json
from usdata.completion import recipe_names, source_names
from usdata.console import one_line_errors, safe_text, say
from usdata.errors import EXIT_FINDINGS, UserError


@one_line_errors
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to make; it must be empty or missing.")],
    videos: Annotated[int | None, typer.Option(help="Clips to make (40); from 10 on, faulty ones are planted besides.")] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal clips.")] = 0,
    masks: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write what each pixel shows besides, as PNGs into this empty or missing folder.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="us4", help="Instead: 1,051 tiny clips in the number and the layouts of US-4's four parts.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make ultrasound-like clips with known truth, some of them faulty.

    \b
    usdata phantom demo/raw
    usdata phantom raw --masks masks
    usdata phantom tree --like us4
    """
    from usdata.phantoms import phantom as make

    if like is not None and videos is not None:
        raise UserError("--videos", f"does not go with --like {like}, which has a number of its own", "leave one of them out")
    made = make(out, videos=40 if videos is None else videos, seed=seed, masks=masks, like=like)
    if as_json:
        print_json({"out": str(made.out), "videos": made.videos, "faults": made.faults, "patients": made.patients})
        return
    if like is None:
        print(f"{made.videos} clips of {made.patients} patients, {made.faults} of them with a planted fault (truth.csv lists them)")
    else:
        print(f"{made.videos:,} clips in four parts; truth.csv says how many frames the recipe '{like}' takes of each")
    print(f"next: usdata build {like or 'phantom'} --raw {made.out} --out SET")


@one_line_errors
def catalog(
    name: Annotated[
        str | None, typer.Argument(help="A source's name; all of them in a table by default.", autocompletion=source_names)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what is known of public sources: what they hold, licence, access, faults, overlaps.

    \b
    usdata catalog
    usdata catalog pocus
    """
    from usdata.cataloguing import catalog as entries_of
    from usdata.cataloguing.terminal import print_entries, print_entry

    entries = entries_of(name)
    if as_json:
        print_json([entry.model_dump(mode="json") for entry in entries])
    elif name is None:
        print_entries(entries)
    else:
        print_entry(entries[0])


@one_line_errors
def pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Sources of the catalogue.", autocompletion=source_names)],
    to: Annotated[Path, typer.Option(metavar="RAW", help="Folder of raw clips; each source gets a folder of its name in it.")],
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="You have read the licences and keep to them.")] = False,
    allow_http: Annotated[bool, typer.Option("--allow-http", help="Follow addresses that are not protected by https.")] = False,
    mirrors: Annotated[
        list[str] | None,
        typer.Option("--mirror", metavar="NAME=PLACE", help="Ask this folder or address of a source's files first; may be given again."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Files at once.")] = 4,
    check: Annotated[bool, typer.Option("--check", help="Only look at what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch public sources, or tell how a person gets them; then check what is there.

    \b
    usdata pull hc18 --to raw
    usdata pull us4-clust --to raw --check
    """
    from usdata.pulling import mirrors_from, print_pull
    from usdata.pulling import pull as pulling

    result = pulling(
        names,
        to=to,
        accept_licence=accept_licence,
        allow_http=allow_http,
        mirrors=mirrors_from(mirrors or ()),
        jobs=jobs,
        check=check,
    )
    if as_json:
        print_json(result.to_json())
    else:
        print_pull(result)


@one_line_errors
def scan(
    raw: Annotated[Path, typer.Argument(help="Folder of raw files, or one file; it is only read.")],
    write_recipe: Annotated[
        Path | None, typer.Option("--write-recipe", metavar="FILE", help="Write a first recipe for what lies there.")
    ] = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Decode first frames alone: quick, but no true counts and no damage.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; all processors by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what lies in a folder: formats, counts, sizes, rates, damage.

    \b
    usdata scan clips
    usdata scan clips --write-recipe my-recipe.yaml
    """
    from usdata import scanning
    from usdata.scanning.first_recipe import refuse_existing, write_first_recipe
    from usdata.scanning.terminal import print_scan

    if write_recipe is not None:
        refuse_existing(write_recipe)  # before an hour's decoding
    result = scanning.scan(raw, workers=workers, headers_only=headers_only)
    if as_json:
        print_json(result.to_json())
    else:
        print_scan(result)
    if write_recipe is not None:
        advice = write_first_recipe(result, write_recipe)
        say(f"wrote {write_recipe}: {advice}")
        say(f"next: usdata build {write_recipe} --raw {raw} --out SET")


@one_line_errors
def build(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe's name (phantom, pocus-lung, ...) or a YAML file.", autocompletion=recipe_names)
    ],
    raw: Annotated[str, typer.Option(help="Folder of raw clips; it is only read. May be remote, as s3://bucket/raw.")],
    out: Annotated[str, typer.Option(help="Data set folder to make; may be remote.")],
    workers: Annotated[int | None, typer.Option(help="Processes; all processors by default.")] = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where clips are read: here, or on a Ray cluster (extra 'ray').")
    ] = "local",
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be read and left out, and stop.")] = False,
    overwrite: Overwrite = False,
    answers: Annotated[Path | None, typer.Option(help="CSV of answers of a review, as its page or 'review --save' wrote it.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where remote folders are mirrored; the user's cache folder by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build a data set from raw clips; started again after an interruption, it goes on.

    \b
    usdata build phantom --raw demo/raw --out demo/set
    usdata build my-recipe.yaml --raw clips --out set --set folds.count=3
    """
    from usdata import building
    from usdata.building.terminal import print_excluded, print_plan, print_sources

    if dry_run:
        planned = building.plan(recipe, raw=raw, overrides=overrides or ())
        if as_json:
            print_json(vars(planned))
            return
        print_plan(planned)
        return

    given = None
    if answers is not None:
        from usdata.reviewing import read_answers

        given = read_answers(answers)
    built = building.build(
        recipe, raw=raw, out=out, workers=workers, engine=engine, overrides=overrides or (), overwrite=overwrite, cache=cache, answers=given
    )
    if as_json:
        print_json({**vars(built), "out": str(built.out)})
        return
    counts = built.counts
    if built.unchanged:
        print(f"{out} holds this data set already: nothing to do")
    print(f"{built.name}: {counts['found']} files found = {counts['ok']} kept + {counts['excluded']} excluded + {counts['failed']} failed")
    told = print_sources(built.sources)
    print_excluded(built.excluded)
    for path, reason in built.failed[:10]:
        print(f"  failed: {safe_text(path)}: {safe_text(reason)}")
    if len(built.failed) > 10:
        print(f"  and {len(built.failed) - 10} more: see status and reason in {out}/videos.parquet")
    for note in built.notes:
        if note not in told:
            print(f"note: {note}")
    print(f"{counts['frames']} frames in {out} ({built.seconds:.1f} s); digest {built.digest[:16]}")
    if built.waiting:
        held = f", {built.held_back:,} held back until then" if built.held_back else ""
        print(f"{counted(built.waiting, 'clip')} for a person to look at{held}: usdata review {out} --raw {raw}")
    print(f"next: usdata audit {built.out if '://' in out else out}")


@one_line_errors
def rebuild(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Folder with dataset.json and the tables; pictures are not needed.")],
    raw: Annotated[Path, typer.Option(help="Folder of the raw clips, in any layout and under any names.")],
    out: Annotated[Path, typer.Option(help="Data set folder to make.")],
    workers: Annotated[int | None, typer.Option(help="Processes; all processors by default.")] = None,
    engine: Annotated[str, typer.Option(metavar="local|ray", help="Where the clips are read.")] = "local",
    partial: Annotated[
        bool, typer.Option("--partial", help="Write the set without clips that are missing or not equal; it gets a digest of its own.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a published data set's pictures again from the raw clips, and prove them equal; leave with 3 if they are not.

    \b
    usdata rebuild published --raw clips --out set
    usdata rebuild published --raw clips --out set --partial
    """
    from usdata.rebuilding import rebuild as rebuilding
    from usdata.rebuilding.terminal import print_rebuild

    result = rebuilding(manifest, raw=raw, out=out, workers=workers, engine=engine, partial=partial, overwrite=overwrite)
    if as_json:
        print_json({**vars(result), "equal": result.equal, "out": str(result.out)})
    else:
        print_rebuild(result)
    if not result.equal:
        raise typer.Exit(EXIT_FINDINGS)


@one_line_errors
def import_folds(
    folds: Annotated[list[Path], typer.Argument(metavar="FOLDS...", help="Pickles, one a fold, or the folder that holds them.")],
    out: Annotated[Path, typer.Option(help="Data set folder to make.")],
    classes: Annotated[
        str, typer.Option(metavar="A,B,...", help="What the labels 0, 1, ... mean; by default as the POCUS folds have them.")
    ] = "covid19,pneumonia,regular",
    clips: Annotated[
        Path | None, typer.Option(metavar="SET", help="A set of the clips that the folds were taken from: it tells their groups.")
    ] = None,
    raw: Annotated[Path | None, typer.Option(help="Keep the unpacked pictures here, with recipe.yaml and folds.csv.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; all processors by default.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a data set of published folds that are pickles of pictures; no program in them is run.

    \b
    usdata import-folds covid_5_fold --out pocus-folds
    usdata import-folds covid_5_fold --out pocus-folds --clips pocus --raw pictures
    """
    from usdata.fold_pickles import import_folds as importing
    from usdata.fold_pickles.terminal import print_import

    names = [name.strip() for name in classes.split(",")]
    result = importing(folds, out, classes=names, clips=clips, raw=raw, workers=workers, overwrite=overwrite)
    if as_json:
        print_json(result.to_json())
    else:
        print_import(result)


@one_line_errors
def migrate(
    dataset: Annotated[Path, typer.Argument(metavar="SET", help="Data set folder that an older usdata made.")],
    as_json: AsJson = False,
) -> None:
    """Bring a data set to the schema version of this usdata, in place; what cannot be known without the raw clips is told.

    \b
    usdata migrate set
    usdata migrate set --json
    """
    from usdata.migrating import migrate as migrating
    from usdata.migrating.terminal import print_migration

    result = migrating(dataset)
    if as_json:
        print_json(result.to_json())
    else:
        print_migration(result)
