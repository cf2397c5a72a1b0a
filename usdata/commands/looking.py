"""Verbs that look at data sets, and have a person look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usdata.commands.options import AsJson, counted, print_json
from usdata.console import one_line_errors, safe_text, say
from usdata.errors import EXIT_FINDINGS, UserError


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
        print_json(result.to_json())
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
        print_json(result.to_json())
    else:
        print_validation(result)
    if not result.holds:
        raise typer.Exit(EXIT_FINDINGS)


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
        print_json(vars(drawn))
        return
    if drawn.said:
        print(safe_text(drawn.said))
    elif drawn.unsure:
        print(f"{drawn.unsure:,} of {drawn.tiles:,} clips have no field of view")
    for page in drawn.pages:
        print(page)


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
            print_json({"answers": count, "csv": str(save)})
            return
        print(f"{counted(count, 'answer')} in {save}; give it to a build with --answers")
        return
    if raw is None:
        raise UserError("--raw", "is missing", "name the folder of raw clips that the set was built from")
    if answers is None:
        written = reviewing.write_page(dataset, raw=raw, out=out, everything=everything)
        if as_json:
            print_json(vars(written))
            return
        print(f"{counted(written.clips, 'clip')} to look at: open {written.page} in a browser; it shows raw pictures and must not leave")
        print(f"next: usdata review {dataset} --raw {raw} --answers answers.csv")
        return
    if out is not None or everything:
        raise UserError("--out and --all", "are for the page, not for answers", "leave them out")
    built, given = reviewing.take_answers(dataset, answers, raw=raw, workers=workers)
    if as_json:
        print_json({"answers": given, **vars(built), "out": str(built.out)})
        return
    print(f"{counted(given['accept'], 'clip')} accepted, {given['reject']:,} rejected; {built.counts['ok']:,} kept in {dataset}")


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
        print_json(result.to_json())
    else:
        print_comparison(result)
    if fail and result.differs:
        say("the sets differ")
        raise typer.Exit(EXIT_FINDINGS)


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
        print_json(result.to_json())
    else:
        print_overlap(result)
        if out is not None:
            print(out)
    if fail and (result.pairs or result.unread):
        say("clips show the same scan" if result.pairs else "not all clips could be compared")
        raise typer.Exit(EXIT_FINDINGS)
