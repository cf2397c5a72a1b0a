"""The build: a recipe and a folder of raw clips in, a data set folder out.

List the clips, run the per-video step over them in worker processes, once more over those to which a field of view of their device's other
clips is offered, then do what needs all of them (duplicates, groups, labels, folds) and write the tables. Everything happens in a staging
folder beside the target, which is renamed when it is whole: a data set folder exists entirely or not at all. Each finished clip is
journalled there, so a build that was stopped goes on where it was, and a build of other settings or more files does only the steps that
they touch. Equal raw bytes and an equal recipe give equal bytes, whatever the workers, the order of files, the place, the interruptions, or
what stood there before.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from usdata import manifest
from usdata.building.consensus import offered
from usdata.building.identity import files_digest, identity, published_names, steps_digest
from usdata.building.staging import (
    OVERWRITE,
    STEPS,
    adds_only,
    disk_errors,
    existing,
    is_whole,
    journal_name,
    journalled,
    locked,
    put_in_place,
    recover,
    refuse_nested,
    refuse_occupied,
    remove_strays,
    taken_over,
)
from usdata.building.stepping import take_steps
from usdata.building.tables import decoder_versions, source_counts, unexpected_counts, write_tables
from usdata.cataloguing.overlaps import known_overlaps
from usdata.console import progress, say
from usdata.duplicates.index import is_installed
from usdata.duplicates.kept_matches import compared_clips, kept_matches
from usdata.duplicates.search import VERSION as DUPLICATES_VERSION
from usdata.duplicates.search import Clips, rows_of, same_scans
from usdata.engines import Runner, runner
from usdata.errors import ReadError, UserError
from usdata.files import canonical_json, sha256_text
from usdata.layouts import RawVideo, list_videos, listed
from usdata.readers.archives import size_of
from usdata.recipe import Answer, Recipe, Source
from usdata.recipe_files import load_recipe
from usdata.seeing import Seeing
from usdata.signals import StopFlag, stop_signals
from usdata.storage import bring, cache_folder, is_remote, refuse_occupied_address, send
from usdata.video_step import VideoTask, no_result, raw_digest

STEP_VERSION = 16  # raised when the per-video step's output changes, so that old journals are done again


@dataclass(frozen=True)
class BuildResult:
    """What a build made, or found already made.

    Attributes:
        out: The data set folder; of a remote target the one here that was sent there.
        counts: `found`, `ok`, `excluded`, `failed` (files or clips; the last three add up to the first) and `frames`.
        sources: A row a source: `source`, `clips`, `frames` (kept), `clips_expected`, `frames_expected` (of a whole copy; None = unknown).
        failed: Path and reason of each clip that could not be read.
        excluded: Path and reason of each file that was left out.
        notes: What a person should know of the result, such as folds that could not be made.
        unchanged: The data set was there already, from the same raw bytes and recipe.
        waiting: Clips that a person must look at.
        held_back: Those of them that are left out until then.
        reused: Clips whose finished step was taken over, from an interrupted build or from the data set that stood there.
    """

    out: Path
    name: str
    digest: str
    counts: dict[str, int]
    sources: list[dict[str, Any]]
    failed: list[tuple[str, str]]
    notes: list[str]
    unchanged: bool
    reused: int
    seconds: float
    excluded: list[tuple[str, str]] = field(default_factory=list)
    waiting: int = 0
    held_back: int = 0


@dataclass(frozen=True)
class BuildPlan:
    """What a build would do.

    Attributes:
        clips: By source, clips to be read.
        bytes_to_read: Their size together.
        excluded: By reason, files or clips that would not be read.
        excluded_paths: By the same reasons, which they are.
        patients: How many of the clips to be read are of each patient whose id is known, the most first.
        labels: By label, clips to be read; those without one are in none.
    """

    name: str
    clips: dict[str, int]
    bytes_to_read: int
    excluded: dict[str, int]
    excluded_paths: dict[str, list[str]]
    patients: list[int]
    labels: dict[str, int]


def plan(recipe: str | Path | Recipe, *, raw: str | Path, overrides: Sequence[str] = ()) -> BuildPlan:
    """What `build` would read and leave out, without decoding anything."""
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if is_remote(raw):
        raise UserError(raw, "a plan is made of files that are here", "build it, or mirror the folder and name the mirror")
    folder = Path(raw)
    rows = list_videos(resolved, folder)
    read = [row for row in rows if row.status == "ok"]
    size = sum(size_of(folder / member) for row in read for member in row.members)
    left_out: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: (row.reason or "", row.public_path)):
        if row.status != "ok":  # one line for all rows of a table that are missing alike
            left_out.setdefault(re.sub(r" \(line \d+\)", "", row.reason or ""), []).append(row.public_path)
    return BuildPlan(
        name=resolved.name,
        clips=dict(sorted(Counter(row.source for row in read).items())),
        bytes_to_read=size,
        excluded={reason: len(paths) for reason, paths in sorted(left_out.items())},
        excluded_paths=dict(sorted(left_out.items())),
        patients=sorted(Counter((row.source, row.patient_id) for row in read if row.patient_id is not None).values(), reverse=True),
        labels=dict(sorted(Counter(row.facts["label"] for row in read if row.facts.get("label")).items())),
    )


def build(
    recipe: str | Path | Recipe,
    *,
    raw: str | Path,
    out: str | Path,
    workers: int | None = None,
    engine: str = "local",
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    cache: str | Path | None = None,
    answers: Mapping[str, Answer] | None = None,
) -> BuildResult:
    """Build a data set.

    Args:
        recipe: A shipped recipe's name, a YAML file, or a `Recipe`.
        raw: Folder of raw clips; it is only read. It may be an address that fsspec reads (`s3://bucket/raw`), and `out` too.
        out: The data set folder to make; it must not exist, be empty, or hold this data set already: the same, or one without some of the
            raw files that there are now.
        workers: Processes; all processors by default.
        engine: Where the per-video step runs: "local" or "ray" (extra `ray`; RAW and OUT must be paths that all its machines share).
        overrides: `a.b=c` changes of the recipe.
        overwrite: Replace another data set that stands at `out`; it stays until the new one is whole, and steps that are the same in both
            are not done again.
        cache: Where remote folders are mirrored; by default in the user's cache folder.
        answers: Of a review, by video_id; they go before those of the recipe.

    Raises:
        UserError: The recipe, RAW or OUT is not what it should be.
        Stopped: SIGINT or SIGTERM came; the same command goes on.
    """
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if answers:
        resolved = resolved.model_copy(update={"review": {**resolved.review, **answers}})
    run = runner(engine, workers)
    place = None if cache is None else Path(cache)
    remote = str(out) if is_remote(out) else None
    target = cache_folder(remote, place) / "set" if remote is not None else _where(Path(out))
    with stop_signals() as stop, disk_errors(target):
        if remote is not None:
            refuse_occupied_address(remote, target, overwrite=overwrite)
        folder = bring(str(raw), cache_folder(str(raw), place)) if is_remote(raw) else Path(raw)
        result = _build(resolved, folder, target, run, overwrite, stop)
        if remote is not None:
            send(result.out, remote)
    return result


def answers_of(about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The answers of a review that a data set was built with, from its dataset.json: video_id to answer."""
    return dict(about.get("recipe", {}).get("review", {}))


def _where(out: Path) -> Path:
    """The folder that is meant: a link's own target, which is what is to be replaced."""
    return out.resolve() if out.is_symlink() else out.absolute()


def _build(recipe: Recipe, raw: Path, out: Path, run: Runner, overwrite: bool, stop: StopFlag) -> BuildResult:
    start = time.monotonic()
    if recipe.duplicates.index and not is_installed():
        raise UserError("duplicates.index", "needs faiss, which is not installed", "pip install 'usdata-uscl[index]', or set it to false")
    refuse_nested(raw, out)
    recover(out)
    refuse_occupied(out)
    listing = listed(recipe, raw)
    hashes, rows = _hash_raw(listing.rows, raw)
    inputs = identity(
        recipe.digest, steps_digest(STEP_VERSION, DUPLICATES_VERSION, decoder_versions(), listing.private.mark), files_digest(hashes)
    )
    inputs |= {"step_version": str(STEP_VERSION)}
    shown = {row.public_path: hashes[row.path] for row in rows if row.path in hashes}
    found = existing(out)
    same = found is not None and found.get("input_digest") == inputs["input_digest"]
    if found is not None and same and is_whole(out, found):
        told = [f"it keeps the published {name}" for name in published_names(found)]
        return _result(out, recipe, found, told, unchanged=True, reused=0, seconds=time.monotonic() - start)
    if out.exists() and any(out.iterdir()) and not overwrite and not (found and adds_only(found, out, inputs["input_key"], shown)):
        other = "holds a data set of another recipe, other raw files or other decoders"
        raise UserError(out, "holds this data set, but files of it are missing or changed" if same else other, OVERWRITE)

    published = [] if found is None else published_names(found)
    if published and not overwrite:
        advice = f"give another --out, or --overwrite and then 'usdata split {out.name} --published FILE --apply' again"
        raise UserError(out, f"holds the published {published[0]}, which this build would undo", advice)
    if found is not None and (lost := sorted(answers_of(found).keys() - recipe.review.keys())):
        what = f"holds {len(lost)} answers of a review that would be lost (the first: {lost[0]})"
        raise UserError(out, what, f"save them with 'usdata review {out.name} --save answers.csv' and build with --answers answers.csv")
    staging = out.parent / f".{out.name}.building"
    with locked(staging):
        results, reused = _run_steps(rows, hashes, recipe, raw, staging, None if found is None else out, run, stop)
        known = known_overlaps([source.name for source in recipe.sources])
        scans = (
            _same_scans(rows, results, staging, out, run, stop, hinted=bool(known), indexed=recipe.duplicates.index)
            if recipe.duplicates.content
            else []
        )
        about, notes = write_tables(rows, results, hashes, recipe, staging, inputs, listing.private.identifiers, scans)
        remove_strays(staging, [row.video_id for row in rows if results[row.video_id]["kept"]], [row.video_id for row in rows])
        os.sync()  # before the rename says that everything is there
        put_in_place(staging, out)
    notes += [f"the published {name} is gone: apply it again with 'usdata split {out.name} --published FILE --apply'" for name in published]
    notes += [f"the catalogue knows of {each.a} and {each.b}: {each.what}; see duplicates.parquet for what was found" for each in known]
    notes += _unmatched(recipe, [row.video_id for row in rows])
    return _result(out, recipe, about, notes, unchanged=False, reused=reused, seconds=time.monotonic() - start)


def _same_scans(
    rows: Sequence[RawVideo],
    results: Mapping[str, Mapping[str, Any]],
    staging: Path,
    out: Path,
    run: Runner,
    stop: StopFlag,
    *,
    hinted: bool,
    indexed: bool,
) -> list[dict[str, Any]]:
    """Rows of duplicates.parquet of the clips that show the same scan; of the very clips of the set that stands there they are known."""
    kept = [
        {"video_id": row.video_id, "key_frames_path": None, **results[row.video_id]["video"]}
        for row in rows
        if results[row.video_id]["status"] == "ok"
    ]
    with stop.deferred():
        clips = Clips.of(staging, kept)
        question = compared_clips(kept, None, hinted=hinted, indexed=indexed)
        find = partial(same_scans, clips, None, run, hinted=hinted, indexed=indexed, stop=stop)
        return list(rows_of(kept_matches(staging, question, find, before=out)))


def _unmatched(recipe: Recipe, video_ids: Sequence[str]) -> list[str]:
    """What the recipe says of clips that are not there: most likely a slip of the pen."""
    known = set(video_ids)
    notes = []
    for key, given in (("field_of_view.overrides", recipe.field_of_view.overrides), ("review", recipe.review)):
        for video_id in sorted(set(given) - known):
            close = difflib.get_close_matches(video_id, video_ids, n=1)
            notes.append(f"{key} names '{video_id}', which is no clip here" + (f"; did you mean '{close[0]}'?" if close else ""))
    return notes


def _hash_raw(rows: Sequence[RawVideo], raw: Path) -> tuple[dict[str, tuple[str, int]], list[RawVideo]]:
    """Path to digest and size of everything that can be read, and the rows, failed where their files cannot."""
    hashes: dict[str, tuple[str, int]] = {}
    result = []
    with progress("hashing raw files", len(rows), "files") as advance:
        for row in rows:
            try:
                if row.members:
                    hashes[row.path] = raw_digest(raw, row.path, row.members)
            except (OSError, ReadError) as error:
                if row.status == "ok":
                    reason = error.reason if isinstance(error, ReadError) else f"cannot be read ({error.strerror})"
                    row = replace(row, status="failed", reason=reason)
            result.append(row)
            advance(1)
    return hashes, result


def _run_steps(
    rows: Sequence[RawVideo],
    hashes: Mapping[str, tuple[str, int]],
    recipe: Recipe,
    raw: Path,
    staging: Path,
    standing: Path | None,
    run: Runner,
    stop: StopFlag,
) -> tuple[dict[str, dict[str, Any]], int]:
    """video_id to the per-video step's result, and how many of them were there already, here or in the data set that stands."""
    sources = {source.name: source for source in recipe.sources}
    results: dict[str, dict[str, Any]] = {}
    tasks: list[VideoTask] = []
    every: dict[str, VideoTask] = {}
    with progress("looking for finished clips", len(rows), "clips") as advance:
        for row in rows:
            advance(1)
            if row.status != "ok":
                results[row.video_id] = no_result(row.status, row.reason or "")
                continue
            task = every[row.video_id] = _task(row, hashes[row.path], sources[row.source], recipe, raw, staging)
            finished = journalled(task)
            if finished is None and standing is not None:
                finished = taken_over(task, standing)
            if finished is None:
                tasks.append(task)
            else:
                results[row.video_id] = finished
    reused = sum(row.status == "ok" for row in rows) - len(tasks)
    if reused:
        say(f"{reused:,} clips are done already and taken over, {len(tasks):,} to go")
    results |= take_steps(tasks, "reading clips", recipe.read, run, stop)
    shapes = offered(rows, results) if recipe.field_of_view.consensus else {}
    # A step that was done with the same shapes is done; the key of its journal is that of the step without any.
    again = [
        replace(task, seeing=replace(task.seeing, consensus=shapes.get(video_id, ())))
        for video_id, task in every.items()
        if tuple(results[video_id].get("consensus", ())) != shapes.get(video_id, ())
    ]
    results |= take_steps(again, "reading again, with what clips of one device agree on", recipe.read, run, stop)
    return results, reused


def _task(row: RawVideo, content: tuple[str, int], source: Source, recipe: Recipe, raw: Path, staging: Path) -> VideoTask:
    override = recipe.field_of_view.overrides.get(row.video_id)
    answer = recipe.review.get(row.video_id)
    seeing = Seeing(
        accept=recipe.field_of_view.accept,
        hold=recipe.field_of_view.unsure == "hold",
        release=recipe.release,
        modes=None if recipe.modes is None else tuple(recipe.modes),
        override=None if override is None else canonical_json(override),
        answer=None if answer is None else answer.answer,
        shown=None if answer is None else answer.geometry,
        crop=recipe.image.crop,
        max_side=recipe.image.max_side,
        paint=recipe.image.overlays,
        depth_mm=float(row.told["depth_mm"]) if "depth_mm" in row.told else None,
    )
    content_key = [STEP_VERSION, decoder_versions(), row.video_id, row.public_path, content[0]]
    settings = [section.model_dump(mode="json") for section in (source.sampling, recipe.read, recipe.hygiene)]
    return VideoTask(
        video_id=row.video_id,
        raw=raw / row.path,
        shown=row.shown,
        members=row.members,
        bytes=content[1],
        images=staging / "images" / row.video_id,
        images_path=f"images/{row.video_id}",
        journal=staging / STEPS / journal_name(row.video_id),
        key=sha256_text(canonical_json([*content_key, settings, asdict(seeing)])),
        sampling=source.sampling,
        read=recipe.read,
        hygiene=recipe.hygiene,
        image=recipe.image,
        seeing=seeing,
    )


def _result(
    out: Path, recipe: Recipe, about: Mapping[str, Any], notes: list[str], *, unchanged: bool, reused: int, seconds: float
) -> BuildResult:
    columns = ["source", "path", "status", "reason", "frames_kept", "review"]
    videos = manifest.read_table(out, manifest.VIDEOS).select(columns).to_pylist()
    failed, excluded = ([(row["path"], row["reason"]) for row in videos if row["status"] == status] for status in ("failed", "excluded"))
    kept: dict[str, list[int]] = {}
    for row in videos:
        if row["status"] == "ok":
            kept.setdefault(row["source"], []).append(row["frames_kept"])
    sources = source_counts(recipe, kept)
    notes = [*unexpected_counts(sources), *notes]
    waiting = [row["status"] for row in videos if row["review"] == "needed"]
    return BuildResult(
        out=out,
        name=about["name"],
        digest=about["digest"],
        counts=dict(about["counts"]),
        sources=sources,
        failed=failed,
        excluded=excluded,
        notes=notes,
        unchanged=unchanged,
        reused=reused,
        seconds=seconds,
        waiting=len(waiting),
        held_back=sum(status != "ok" for status in waiting),
    )
