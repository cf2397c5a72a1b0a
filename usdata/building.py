"""The build: a recipe and a folder of raw clips in, a data set folder out.

List the clips, run the per-video step over them in worker processes, then do what needs all of them (duplicates, groups, labels, folds) and
write the tables. Everything happens in a staging folder beside the target, which is renamed when it is whole: a data set folder exists
entirely or not at all. Each finished clip is journalled there, so a build that was stopped goes on where it was. Equal raw bytes and an
equal recipe give equal bytes, whatever the workers, the order of files, the place or the interruptions.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from usdata import manifest
from usdata.console import progress, say
from usdata.duplicates.exact import exact_duplicates
from usdata.engines import Failure, default_workers, run_local
from usdata.errors import ReadError, Stopped, UserError
from usdata.files import canonical_json, sha256_file, sha256_text
from usdata.layouts import RawVideo, assign_groups, list_videos
from usdata.readers.archives import size_of
from usdata.recipe import Recipe, Source
from usdata.recipe_files import load_recipe
from usdata.signals import StopFlag, stop_signals
from usdata.splits import fold_of_groups, label_counts, split_of_groups
from usdata.video_step import VideoTask, no_result, process_video, raw_digest

JOURNAL = ".journal"
STEP_VERSION = 4  # raised when the per-video step's output changes, so that old journals are done again


@dataclass(frozen=True)
class BuildResult:
    """What a build made, or found already made.

    Attributes:
        out: The data set folder.
        counts: `found`, `ok`, `excluded`, `failed` (files or clips; the last three add up to the first) and `frames`.
        sources: A row a source: `source`, `clips`, `frames` (kept), `clips_expected`, `frames_expected` (of a whole copy; None = unknown).
        failed: Path and reason of each clip that could not be read.
        notes: What a person should know of the result, such as folds that could not be made.
        unchanged: The data set was there already, from the same raw bytes and recipe.
        reused: Clips whose finished step was taken over from an interrupted build.
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


@dataclass(frozen=True)
class BuildPlan:
    """What a build would do.

    Attributes:
        clips: By source, clips to be read.
        bytes_to_read: Their size together.
        excluded: By reason, files or clips that would not be read.
    """

    name: str
    clips: dict[str, int]
    bytes_to_read: int
    excluded: dict[str, int]


def plan(recipe: str | Path | Recipe, *, raw: str | Path, overrides: Sequence[str] = ()) -> BuildPlan:
    """What `build` would read and leave out, without decoding anything."""
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    raw = Path(raw)
    rows = list_videos(resolved, raw)
    read = [row for row in rows if row.status == "ok"]
    size = sum(size_of(raw / member) for row in read for member in row.members)
    reasons = Counter(row.reason or "" for row in rows if row.status != "ok")
    return BuildPlan(resolved.name, dict(sorted(Counter(row.source for row in read).items())), size, dict(sorted(reasons.items())))


def build(
    recipe: str | Path | Recipe,
    *,
    raw: str | Path,
    out: str | Path,
    workers: int | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> BuildResult:
    """Build a data set.

    Args:
        recipe: A shipped recipe's name, a YAML file, or a `Recipe`.
        raw: Folder of raw clips; it is only read.
        out: The data set folder to make; it must not exist, be empty, or hold the same data set already.
        workers: Processes; all processors by default.
        overrides: `a.b=c` changes of the recipe.
        overwrite: Replace another data set that stands at `out`; it stays until the new one is whole.

    Raises:
        UserError: The recipe, RAW or OUT is not what it should be.
        Stopped: SIGINT or SIGTERM came; the same command goes on.
    """
    with stop_signals() as stop:
        return _build(recipe, Path(raw), Path(out).absolute(), workers, overrides, overwrite, stop)


def _build(
    recipe: str | Path | Recipe, raw: Path, out: Path, workers: int | None, overrides: Sequence[str], overwrite: bool, stop: StopFlag
) -> BuildResult:
    start = time.monotonic()
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    workers = default_workers() if workers is None else workers
    if workers < 1:
        raise UserError("--workers", f"{workers} is no number of workers", "give 1 or more")
    _refuse_nested(raw, out)
    _refuse_occupied(out)
    rows = list_videos(resolved, raw)
    hashes, rows = _hash_raw(rows, raw)
    input_digest = sha256_text(canonical_json([resolved.digest, STEP_VERSION, decoder_versions(), sorted(hashes.items())]))
    found = _existing(out)
    if found is not None and found.get("input_digest") == input_digest and _is_whole(out, found):
        return _result(out, resolved, found, [], unchanged=True, reused=0, seconds=time.monotonic() - start)
    if out.exists() and any(out.iterdir()) and not overwrite:
        same = found is not None and found.get("input_digest") == input_digest
        other = "holds a data set of another recipe, other raw files or other decoders"
        raise UserError(out, "holds this data set, but files of it are missing or changed" if same else other, OVERWRITE)

    staging = out.parent / f".{out.name}.building"
    with _locked(staging):
        sources = {source.name: source for source in resolved.sources}
        results, reused = _run_steps(rows, hashes, sources, resolved, raw, staging, workers, stop)
        about, notes = _write_tables(rows, results, hashes, resolved, staging, input_digest)
        _remove_strays(staging, rows, results)
        shutil.rmtree(staging / JOURNAL, ignore_errors=True)
        os.sync()  # before the rename says that everything is there
        _put_in_place(staging, out)
    return _result(out, resolved, about, notes, unchanged=False, reused=reused, seconds=time.monotonic() - start)


OVERWRITE = "give another --out, or --overwrite to replace it"
CONTRACT_NAMES = {*manifest.SCHEMAS, manifest.DATASET_JSON, "images", "report.html", ".cache"}


def _refuse_nested(raw: Path, out: Path) -> None:
    target, source = out.resolve(), raw.resolve()
    if target == source or source in target.parents:
        raise UserError(out, "lies inside the folder of raw clips", "give an --out outside of it: raw data is only ever read")
    if target in source.parents:
        raise UserError(out, "holds the folder of raw clips", "give an --out that does not: an old data set there would be replaced")


def _refuse_occupied(out: Path) -> None:
    """Refuse a target that is no data set, or holds more than one: with --overwrite too, for nothing that was not made here may vanish."""
    if out.exists() and not out.is_dir():
        raise UserError(out, "is a file, not a folder", "give another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / manifest.DATASET_JSON).is_file():
        raise UserError(out, "is not empty and is not a data set", "give another --out, or empty the folder yourself")
    if foreign := sorted(path.name for path in out.iterdir() if path.name not in CONTRACT_NAMES):
        raise UserError(out, f"holds '{foreign[0]}' beside its data set", "move it elsewhere, or give another --out")


@contextmanager
def _locked(staging: Path) -> Iterator[None]:
    """The staging folder, for this build alone; the lock ends with the process, however that ends."""
    staging.mkdir(parents=True, exist_ok=True)
    handle = os.open(staging, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A build that ended between our opening and our locking has renamed the folder away.
            ours = os.path.samestat(os.fstat(handle), staging.stat())
        except OSError:
            ours = False
        if not ours:
            raise UserError(staging, "another build of this data set is running", "wait for it, or give another --out")
        yield
    finally:
        os.close(handle)


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


def _existing(out: Path) -> dict[str, Any] | None:
    """What stands at the target says of itself; None where nothing readable does."""
    try:
        return manifest.open_dataset(out).about if (out / manifest.DATASET_JSON).is_file() else None
    except UserError:
        return None


def _is_whole(out: Path, about: Mapping[str, Any]) -> bool:
    """Whether the tables are those that were written and every image is there."""
    if any(not (out / name).is_file() for name in manifest.SCHEMAS) or manifest.tables_digest(out) != about["digest"]:
        return False
    paths = manifest.read_table(out, manifest.FRAMES).column("path").to_pylist()
    return all((out / path).is_file() for path in paths)


def decoder_versions() -> dict[str, str]:
    """Versions of what decides about pixels and bytes; they are part of a build's identity."""
    packages = ("av", "decord", "h5py", "imagecodecs", "nibabel", "numpy", "opencv-python-headless", "pillow", "pyarrow", "pydicom")
    return {name: found for name in packages if (found := _version_of(name)) is not None}


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _run_steps(
    rows: Sequence[RawVideo],
    hashes: Mapping[str, tuple[str, int]],
    sources: Mapping[str, Source],
    recipe: Recipe,
    raw: Path,
    staging: Path,
    workers: int,
    stop: StopFlag,
) -> tuple[dict[str, dict[str, Any]], int]:
    """video_id to the per-video step's result, and how many came from an earlier, interrupted build."""
    results: dict[str, dict[str, Any]] = {}
    tasks: list[VideoTask] = []
    for row in rows:
        if row.status != "ok":
            results[row.video_id] = no_result(row.status, row.reason or "")
            continue
        task = _task(row, hashes[row.path], sources[row.source], recipe, raw, staging)
        finished = _journalled(task)
        if finished is None:
            tasks.append(task)
        else:
            results[row.video_id] = finished
    reused = sum(row.status == "ok" for row in rows) - len(tasks)
    if reused:
        say(f"going on with an interrupted build: {reused} clips are done, {len(tasks)} to go")
    # Long clips first, so that no worker is left with one at the end.
    tasks.sort(key=lambda task: (-task.bytes, task.video_id))
    with (
        stop.deferred(),
        progress("reading clips", len(tasks), "clips") as advance,
        closing(run_local(process_video, tasks, workers=workers, timeout_s=recipe.read.timeout_s, memory_mb=recipe.read.memory_mb)) as done,
    ):
        for position, outcome in done:
            task = tasks[position]
            results[task.video_id] = no_result("failed", outcome.reason) if isinstance(outcome, Failure) else outcome
            advance(1)
            if stop.name is not None and len(results) < len(rows):
                raise Stopped(f"stopped with {len(results)} of {len(rows)} files done and saved; run the same command again to go on")
    return results, reused


def _task(row: RawVideo, content: tuple[str, int], source: Source, recipe: Recipe, raw: Path, staging: Path) -> VideoTask:
    settings = [section.model_dump(mode="json") for section in (source.sampling, recipe.read, recipe.hygiene, recipe.image)]
    return VideoTask(
        video_id=row.video_id,
        raw=raw / row.path,
        bytes=content[1],
        images=staging / "images" / row.video_id,
        images_path=f"images/{row.video_id}",
        journal=staging / JOURNAL / f"{sha256_text(row.video_id)[:32]}.json",
        key=sha256_text(canonical_json([STEP_VERSION, decoder_versions(), row.video_id, row.path, content[0], settings])),
        sampling=source.sampling,
        read=recipe.read,
        hygiene=recipe.hygiene,
        image=recipe.image,
    )


def _journalled(task: VideoTask) -> dict[str, Any] | None:
    """The finished step of an interrupted build, if its settings are still these and its images are what was written."""
    try:
        finished = json.loads(task.journal.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if not isinstance(finished, dict) or finished.get("key") != task.key:
        return None
    for name, digest in finished["images"].items():
        path = task.images / name
        if not path.is_file() or sha256_file(path) != digest:
            return None
    return finished


def _write_tables(
    rows: Sequence[RawVideo],
    results: Mapping[str, dict[str, Any]],
    hashes: Mapping[str, tuple[str, int]],
    recipe: Recipe,
    folder: Path,
    input_digest: str,
) -> tuple[dict[str, Any], list[str]]:
    """What needs all clips: exact duplicates, groups, label indices, folds; then the four tables and, last, dataset.json. Also notes."""
    videos = [_video_row(row, results[row.video_id], hashes.get(row.path)) for row in rows]
    facts = {video["video_id"]: video for video in videos}
    frames = [
        {**frame, "frame_id": f"{video_id}/{frame['frame_index']}", "video_id": video_id}
        for video_id, result in results.items()
        if facts[video_id]["status"] == "ok"
        for frame in result["kept"]
    ]
    pairs, duplicate_group = exact_duplicates(videos, frames)
    same_scan = [pair for pair in pairs if pair["kind"] == "file" or pair["score"] >= recipe.duplicates.join_score]
    groups = assign_groups(rows, [(pair["video_id_a"], pair["video_id_b"]) for pair in same_scan])
    for video in videos:
        video["group_id"] = groups[video["video_id"]]
    classes = _classes(recipe, videos)
    counts = label_counts([(groups[frame["video_id"]], facts[frame["video_id"]]["label"]) for frame in frames])
    folds, splits = fold_of_groups(counts, recipe.folds), split_of_groups(counts, recipe.split)
    for frame in frames:
        video = facts[frame["video_id"]]
        shared = {key: video[key] for key in ("source", "patient_id", "group_id", "organ", "probe", "label")}
        frame |= shared | {
            "label_index": None if video["label"] is None else classes.index(video["label"]),
            "split": splits[video["group_id"]],
            "fold": folds[video["group_id"]],
            "duplicate_group": duplicate_group.get(frame["frame_id"]),
            **dict.fromkeys(("fov_x", "fov_y", "fov_width", "fov_height")),
        }
    excluded = [
        {**frame, "video_id": video_id, "source": facts[video_id]["source"]}
        for video_id, result in results.items()
        for frame in result["excluded"]
    ]
    tables = {manifest.VIDEOS: videos, manifest.FRAMES: frames, manifest.EXCLUDED: excluded, manifest.DUPLICATES: pairs}
    for name, table_rows in tables.items():
        manifest.write_table(folder, name, manifest.table_from_rows(name, table_rows), recipe_digest=recipe.digest)
    statuses = Counter(video["status"] for video in videos)
    about = {
        "name": recipe.name,
        "description": recipe.description,
        "recipe": recipe.model_dump(mode="json"),
        "recipe_digest": recipe.digest,
        "input_digest": input_digest,
        "classes": classes,
        "counts": {"found": len(videos), **{status: statuses[status] for status in manifest.STATUSES}, "frames": len(frames)},
        "licences": dict(sorted(Counter(video["licence"] or "unknown" for video in videos if video["status"] == "ok").items())),
        "versions": {**decoder_versions(), "python": platform.python_version(), "usdata": version("usdata-uscl")},
    }
    manifest.write_about(folder, about)
    return manifest.open_dataset(folder).about, _notes(recipe, counts, folds, splits)


def source_counts(recipe: Recipe, kept: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """What each source gives beside what a whole copy of it gives.

    Args:
        recipe: With its expectations.
        kept: Source to the frames kept of each of its clips.
    """
    return [
        {
            "source": source.name,
            "clips": len(kept.get(source.name, ())),
            "clips_expected": source.expected.videos,
            "frames": sum(kept.get(source.name, ())),
            "frames_expected": source.expected.frames,
        }
        for source in recipe.sources
    ]


def _unexpected(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where a source gives other numbers of clips or frames than a whole copy of it."""
    notes = []
    for row in sources:
        expected = {unit: row[f"{unit}_expected"] for unit in ("clips", "frames")}
        other = [f"{row[unit]:,} of {number:,} {unit}" for unit, number in expected.items() if number not in (None, row[unit])]
        if other:
            notes.append(f"source '{row['source']}' gives {' and '.join(other)} of a whole copy")
    return notes


def _notes(recipe: Recipe, groups: Mapping[str, object], folds: Mapping[str, int | None], splits: Mapping[str, str]) -> list[str]:
    """What was asked for and could not be made of the groups that there are."""
    notes = []
    if recipe.folds.count > 1 and None in folds.values():
        notes.append(f"no folds were made: {len(groups)} groups are too few for {recipe.folds.count}")
    for part, share in (("val", recipe.split.val), ("test", recipe.split.test)):
        if share and part not in splits.values():
            notes.append(f"split '{part}' is empty: {len(groups)} groups are too few for a share of {share:g}")
    return notes


def _video_row(row: RawVideo, result: Mapping[str, Any], raw: tuple[str, int] | None) -> dict[str, Any]:
    facts = dict(result["video"])
    # What the recipe says goes before what the file says.
    told = {key: facts.pop(key) for key in ("manufacturer", "mm_per_pixel_x", "mm_per_pixel_y")}
    told |= {key: float(row.facts[key]) for key in ("mm_per_pixel_x", "mm_per_pixel_y") if key in row.facts}
    told |= {key: row.facts[key] for key in ("manufacturer",) if key in row.facts}
    return {
        "video_id": row.video_id,
        "source": row.source,
        "patient_id": row.patient_id,
        "path": row.path,
        "sha256": raw[0] if raw else None,
        "bytes": raw[1] if raw else 0,
        **{key: row.facts.get(key) for key in ("organ", "probe", "view", "label", "licence")},
        **told,
        "labels": list(row.labels),
        **dict.fromkeys(("fov_kind", "fov_x", "fov_y", "fov_width", "fov_height", "fov_geometry")),
        **facts,
        "status": result["status"],
        "reason": result["reason"],
        "frames_kept": len(result["kept"]),
    }


def _classes(recipe: Recipe, videos: Sequence[Mapping[str, Any]]) -> list[str]:
    found = sorted({video["label"] for video in videos if video["label"] is not None and video["status"] == "ok"})
    if recipe.classes is None:
        return found
    if unknown := [label for label in found if label not in recipe.classes]:
        raise UserError(f"label '{unknown[0]}'", "is not among the recipe's classes", "add it to 'classes', or map it with 'label_map'")
    return list(recipe.classes)


def _remove_strays(folder: Path, rows: Sequence[RawVideo], results: Mapping[str, Mapping[str, Any]]) -> None:
    """Images and journals of clips that an earlier, interrupted build with another recipe left in the staging folder."""
    wanted = {f"images/{row.video_id}" for row in rows if results[row.video_id]["kept"]}
    for source in (folder / "images").glob("*"):
        for video in source.iterdir():
            if f"images/{source.name}/{video.name}" not in wanted:
                shutil.rmtree(video)
        if not any(source.iterdir()):
            source.rmdir()
    journals = {f"{sha256_text(row.video_id)[:32]}.json" for row in rows}
    for journal in (folder / JOURNAL).glob("*"):
        if journal.name not in journals:
            journal.unlink()


def _put_in_place(staging: Path, out: Path) -> None:
    """Rename the finished folder; a data set that stood there goes only when the new one stands."""
    if not out.exists() or not any(out.iterdir()):
        if out.exists():
            out.rmdir()
        staging.rename(out)
        return
    old = out.parent / f".{out.name}.replaced"
    shutil.rmtree(old, ignore_errors=True)
    out.rename(old)
    staging.rename(out)
    shutil.rmtree(old)


def _result(
    out: Path, recipe: Recipe, about: Mapping[str, Any], notes: list[str], *, unchanged: bool, reused: int, seconds: float
) -> BuildResult:
    columns = ["source", "path", "status", "reason", "frames_kept"]
    videos = manifest.read_table(out, manifest.VIDEOS).select(columns).to_pylist()
    failed = [(row["path"], row["reason"]) for row in videos if row["status"] == "failed"]
    kept: dict[str, list[int]] = {}
    for row in videos:
        if row["status"] == "ok":
            kept.setdefault(row["source"], []).append(row["frames_kept"])
    sources = source_counts(recipe, kept)
    notes = [*_unexpected(sources), *notes]
    return BuildResult(out, about["name"], about["digest"], dict(about["counts"]), sources, failed, notes, unchanged, reused, seconds)
