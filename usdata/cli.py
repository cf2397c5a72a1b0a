"""The `usdata` command line: parse, call the function of the same name, print. No logic lives here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from usdata.completion import recipe_names, source_names
from usdata.console import one_line_errors, safe_text, say
from usdata.errors import EXIT_FINDINGS, UserError

app = typer.Typer(
    name="usdata",
    help="Ultrasound video data sets: raw clips in; frames, Parquet manifests and an audit out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)

Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key of the recipe; may be given again.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what stands at the target.")]


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


@app.command()
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
        _print_json({"out": str(made.out), "videos": made.videos, "faults": made.faults, "patients": made.patients})
        return
    if like is None:
        print(f"{made.videos} clips of {made.patients} patients, {made.faults} of them with a planted fault (truth.csv lists them)")
    else:
        print(f"{made.videos:,} clips in four parts; truth.csv says how many frames the recipe '{like}' takes of each")
    print(f"next: usdata build {like or 'phantom'} --raw {made.out} --out SET")


@app.command()
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
        _print_json([entry.model_dump(mode="json") for entry in entries])
    elif name is None:
        print_entries(entries)
    else:
        print_entry(entries[0])


@app.command()
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
        _print_json(result.to_json())
    else:
        print_pull(result)


@app.command()
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
        _print_json(result.to_json())
    else:
        print_scan(result)
    if write_recipe is not None:
        advice = write_first_recipe(result, write_recipe)
        say(f"wrote {write_recipe}: {advice}")
        say(f"next: usdata build {write_recipe} --raw {raw} --out SET")


@app.command()
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
        _print_json(examined.to_json())
    else:
        print_examination(examined)


@app.command()
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
    from usdata.building.terminal import print_plan, print_sources

    if dry_run:
        planned = building.plan(recipe, raw=raw, overrides=overrides or ())
        if as_json:
            _print_json(vars(planned))
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
        _print_json({**vars(built), "out": str(built.out)})
        return
    counts = built.counts
    if built.unchanged:
        print(f"{out} holds this data set already: nothing to do")
    print(f"{built.name}: {counts['found']} files found = {counts['ok']} kept + {counts['excluded']} excluded + {counts['failed']} failed")
    told = print_sources(built.sources)
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
        print(f"{_counted(built.waiting, 'clip')} for a person to look at{held}: usdata review {out} --raw {raw}")
    print(f"next: usdata audit {built.out if '://' in out else out}")


@app.command()
@one_line_errors
def view(
    target: Annotated[Path, typer.Argument(metavar="SET|CLIP", help="Data set folder, or a raw clip.")],
    out: Annotated[Path | None, typer.Option(help="PNG to write; NAME-view.png in this folder by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw contact sheets with the field of view: of a set one frame a clip, of a clip some of its frames.

    \b
    usdata view demo/set
    usdata view demo/raw/clips/clip_000.mp4 --out clip.png
    """
    from usdata.viewing import view as viewing

    drawn = viewing(target, out=out)
    if as_json:
        _print_json(vars(drawn))
        return
    if drawn.said:
        print(safe_text(drawn.said))
    elif drawn.unsure:
        print(f"{drawn.unsure:,} of {drawn.tiles:,} clips have no field of view")
    for page in drawn.pages:
        print(page)


@app.command()
@one_line_errors
def review(
    dataset: Annotated[Path, typer.Argument(metavar="SET", help="Data set folder.")],
    raw: Annotated[Path | None, typer.Option(help="Folder of raw clips that the set was built from.")] = None,
    answers: Annotated[Path | None, typer.Option(help="CSV of answers that the page saved: build the set again with them.")] = None,
    out: Annotated[Path | None, typer.Option(help="HTML page to write; SET-review.html in this folder by default.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every clip, not only those that wait.")] = False,
    save: Annotated[Path | None, typer.Option(metavar="CSV", help="Write the answers that the set holds, for another build.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes for the build; all processors by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at the clips that the build was not sure of, and take the answers into the data set.

    \b
    usdata review set --raw clips
    usdata review set --raw clips --answers answers.csv
    """
    from usdata import reviewing

    if save is not None:
        count = reviewing.save_answers(dataset, save)
        if as_json:
            _print_json({"answers": count, "csv": str(save)})
            return
        print(f"{_counted(count, 'answer')} in {save}; give it to a build with --answers")
        return
    if raw is None:
        raise UserError("--raw", "is missing", "name the folder of raw clips that the set was built from")
    if answers is None:
        written = reviewing.write_page(dataset, raw=raw, out=out, everything=everything)
        if as_json:
            _print_json(vars(written))
            return
        print(f"{_counted(written.clips, 'clip')} to look at: open {written.page} in a browser; it shows raw pictures and must not leave")
        print(f"next: usdata review {dataset} --raw {raw} --answers answers.csv")
        return
    if out is not None or everything:
        raise UserError("--out and --all", "are for the page, not for answers", "leave them out")
    built, given = reviewing.take_answers(dataset, answers, raw=raw, workers=workers)
    if as_json:
        _print_json({"answers": given, **vars(built), "out": str(built.out)})
        return
    print(f"{_counted(given['accept'], 'clip')} accepted, {given['reject']:,} rejected; {built.counts['ok']:,} kept in {dataset}")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@app.command()
@one_line_errors
def validate(
    dataset: Annotated[Path, typer.Argument(metavar="SET", help="Data set folder, or a published manifest without pictures.")],
    deep: Annotated[bool, typer.Option("--deep", help="Decode every picture; with --raw, make every clip's pictures again.")] = False,
    raw: Annotated[Path | None, typer.Option(help="Folder of raw clips: make some clips' pictures again and compare their pixels.")] = None,
    samples: Annotated[int, typer.Option(help="How many clips --raw makes again.")] = 20,
    workers: Annotated[int | None, typer.Option(help="Processes; all processors by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check every promise of the contract on a data set; leave with 3 if one is broken.

    \b
    usdata validate set
    usdata validate set --deep --raw clips
    """
    from usdata.validating import validate as validating
    from usdata.validating.terminal import print_validation

    result = validating(dataset, deep=deep, raw=raw, samples=samples, workers=workers)
    if as_json:
        _print_json(result.to_json())
    else:
        print_validation(result)
    if not result.holds:
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
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
        _print_json({**vars(result), "equal": result.equal, "out": str(result.out)})
    else:
        print_rebuild(result)
    if not result.equal:
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
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
        _print_json(vars(exported))
        return
    print(f"{exported.frames:,} frames of {exported.clips:,} clips in {out} ({exported.seconds:.1f} s)")
    print(f"next: {exported.then}")


@app.command()
@one_line_errors
def overlap(
    dataset: Annotated[Path, typer.Argument(metavar="SET", help="Data set folder.")],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[OTHER]", help="Another, or a folder of raw clips; without it, SET is compared with itself."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="HTML page to write, the clips side by side.")] = None,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with 3 if a clip stands in both, or could not be read.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; all processors by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find clips that show the same scan, by their pictures: of two data sets, or twice in one.

    \b
    usdata overlap pretraining-set test-set --out overlap.html
    usdata overlap set --json --fail
    """
    from usdata.overlapping import overlap as compare
    from usdata.overlapping.terminal import print_overlap

    result = compare(dataset, other, page=out, workers=workers)
    if as_json:
        _print_json(result.to_json())
    else:
        print_overlap(result)
        if out is not None:
            print(out)
    if fail and (result.pairs or result.unread):
        say("clips show the same scan" if result.pairs else "not all clips could be compared")
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
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
        _print_json(result.to_json())
    else:
        print_split(result)
        if result.written:
            print(f"written to {dataset}; digest {result.digest[:16]}")
        elif published is None:
            print(f"{dataset} holds these folds and splits already: nothing to do")
    if fail and result.leaking:
        say("something stands in two parts")
        raise typer.Exit(EXIT_FINDINGS)


@app.command("import-folds")
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
        _print_json(result.to_json())
    else:
        print_import(result)


@app.command()
@one_line_errors
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The earlier version's folder; tables and dataset.json are enough.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The later one's.")],
    fail: Annotated[bool, typer.Option("--fail", help="Exit with 3 if anything differs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what differs between two versions of a data set: clips, labels, patients, splits, frames, recipe.

    \b
    usdata compare set-1 set-2
    usdata compare set rebuilt --json --fail
    """
    from usdata.comparing import compare as comparing
    from usdata.comparing.terminal import print_comparison

    result = comparing(a, b)
    if as_json:
        _print_json(result.to_json())
    else:
        print_comparison(result)
    if fail and result.differs:
        say("the sets differ")
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
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
        _print_json(result.to_json())
    else:
        print_migration(result)


@app.command()
@one_line_errors
def audit(
    dataset: Annotated[Path, typer.Argument(metavar="SET", help="Data set folder.")],
    against: Annotated[Path | None, typer.Option(metavar="OTHER", help="Another data set: what of SET stands in it too.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the report; SET itself by default.")] = None,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Look at no image file: for very large sets, and manifests without images.")
    ] = False,
    fail_on: Annotated[
        str | None, typer.Option(help="Leave with 3 if there are findings of this level (note, warning, error) or above, or of this id.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count what is in a data set, find what is wrong with it, and write SET/report.html, .json, .md and ATTRIBUTION.md.

    With --json a data set that may only be read is audited too: nothing is written then.

    \b
    usdata audit demo/set
    usdata audit demo/set --json --fail-on error
    usdata audit pretraining-set --against test-set --out audit
    """
    from usdata.auditing import LEVELS, check_fail_on, print_audit, writable
    from usdata.auditing import audit as auditing

    if fail_on is not None:
        check_fail_on(fail_on)
    write_report = not as_json or writable(out or dataset)
    if not write_report:
        say(f"{out or dataset} cannot be written: the report is printed and stands nowhere; --out DIR puts it elsewhere")
    result = auditing(dataset, against=against, out=out, pictures=not no_pictures, write_report=write_report)
    if as_json:
        _print_json(result.to_json())
    else:
        print_audit(result)
    if fail_on is None:
        return
    if fail_on in LEVELS:
        hit = any(LEVELS.index(finding.level) >= LEVELS.index(fail_on) for finding in result.findings)
    else:
        hit = any(finding.id == fail_on or finding.id.startswith(f"{fail_on}-") for finding in result.findings)
    if hit:
        say(f"there are findings at or above '{fail_on}'")
        raise typer.Exit(EXIT_FINDINGS)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))
