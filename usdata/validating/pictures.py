"""Are the pictures that a manifest names there, no others, and the pixels those that it has digests of?

Comes in: the tables and the folder. Goes out: promises. Guarantees: no path is followed out of the folder; without `deep` no picture is
opened, with it every one is decoded, in worker processes.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from usdata.console import progress
from usdata.engines import Failure, Runner
from usdata.errors import DataSetError
from usdata.manifest import FRAMES, VIDEOS
from usdata.stored_pixels import stored_pixels
from usdata.validating.promise import Promise
from usdata.validating.schema import places

MISSING = "build the set again: what is there stays, what is missing is made"
OTHER = "build the set again with --overwrite; such files are made anew"
SECONDS_PER_CLIP, MEMORY_MB = 600.0, 1024
BESIDE = ("overlay", "key_frames")


def check_paths(tables: Mapping[str, pa.Table]) -> Promise:
    """Every path leads to the clip's own folder, and to one picture each."""
    videos, frames = tables[VIDEOS], tables[FRAMES]
    broken = []
    named = [(frames.column("path"), frames.column("video_id"))]
    named += [(videos.column(f"{what}_path"), videos.column("video_id")) for what in BESIDE]
    for paths, ids in named:
        prefix = pc.binary_join_element_wise(pa.scalar("images/"), ids, pa.scalar("/"), "")
        name = pc.replace_substring_regex(paths, r"^.*/", "")
        inside = pc.equal(paths, pc.binary_join_element_wise(prefix, name, ""))
        for place in places(pc.and_(pc.is_valid(paths), pc.invert(inside))):
            broken.append(f"{paths[place]}: does not lie in the folder of its clip, {prefix[place]}")
        odd = pc.match_substring_regex(paths, r"(^|/)\.\.?(/|$)|\\|//|\x00")
        broken += [f"{paths[place]}: is no plain path" for place in places(odd)]
    every = pa.chunked_array([chunk for paths, _ in named for chunk in paths.drop_null().chunks], pa.string())
    counts = pc.value_counts(every)
    broken += [f"{entry['values']}: is named twice" for entry in counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist()]
    text = "Each picture has a path of its own, in its clip's folder, and none leaves the data set."
    return Promise("paths", text, len(every), "paths", tuple(broken), MISSING)


def check_pictures(folder: Path, tables: Mapping[str, pa.Table]) -> Promise:
    """Every picture that the manifest names is there as a file, and no file is there that it does not name."""
    text = "Every picture that the tables name is there, and no other file."
    wanted = _named(tables)
    if not (folder / "images").exists():
        return Promise("pictures", text, 0, "files", unseen=f"there is no images folder: a manifest without its {len(wanted):,} pictures")
    there = set(_files(folder, "images"))
    broken = [f"{path}: is missing" for path in sorted(wanted - there)]
    broken += [f"{path}: no row names it" for path in sorted(there - wanted)]
    return Promise("pictures", text, len(wanted), "files", tuple(broken), MISSING)


def _named(tables: Mapping[str, pa.Table]) -> set[str]:
    paths = set(tables[FRAMES].column("path").to_pylist())
    for what in BESIDE:
        paths.update(tables[VIDEOS].column(f"{what}_path").drop_null().to_pylist())
    return paths


def _files(folder: Path, inside: str) -> Iterator[str]:
    """Paths of everything below a folder that is no folder; links to elsewhere are no pictures and are left out."""
    for entry in os.scandir(folder / inside):
        path = f"{inside}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _files(folder, path)
        elif entry.is_file(follow_symlinks=False) or (entry.is_symlink() and _stays(folder, path)):
            yield path


def _stays(folder: Path, path: str) -> bool:
    return (folder / path).resolve().is_relative_to(folder.resolve()) and (folder / path).is_file()


@dataclass(frozen=True)
class _Wanted:
    """Pictures of one clip: path and digest."""

    folder: Path
    pictures: tuple[tuple[str, str], ...]


def check_pixels(folder: Path, tables: Mapping[str, pa.Table], run: Runner) -> Promise:
    """Every picture decodes to the pixels (and so the size) that its digest is of."""
    of_clip: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in tables[FRAMES].select(["video_id", "path", "pixel_sha256"]).to_pylist():
        of_clip[row["video_id"]].append((row["path"], row["pixel_sha256"]))
    unknown = 0
    for what in BESIDE:
        for row in tables[VIDEOS].select(["video_id", f"{what}_path", f"{what}_sha256"]).to_pylist():
            if row[f"{what}_path"] is not None and row[f"{what}_sha256"] is not None:
                of_clip[row["video_id"]].append((row[f"{what}_path"], row[f"{what}_sha256"]))
            unknown += row[f"{what}_path"] is not None and row[f"{what}_sha256"] is None
    tasks = [_Wanted(folder, tuple(of_clip[video])) for video in sorted(of_clip)]
    broken: list[str] = []
    with (
        progress("decoding pictures", len(tasks), "clips") as advance,
        closing(run(other_pictures, tasks, timeout_s=SECONDS_PER_CLIP, memory_mb=MEMORY_MB)) as done,
    ):
        for position, outcome in done:
            advance(1)
            broken += [f"{sorted(of_clip)[position]}: {outcome.reason}"] if isinstance(outcome, Failure) else outcome
    text = "Every picture decodes, to the pixels that its digest is of."
    unseen = f"{unknown} pictures have no digest in the tables" if unknown else ""
    return Promise("pixels", text, sum(len(task.pictures) for task in tasks), "pictures", tuple(sorted(broken)), OTHER, unseen)


def other_pictures(task: _Wanted) -> list[str]:
    """Which pictures of a clip are not what the tables say, with how."""
    broken = []
    for path, digest in task.pictures:
        try:
            stored_pixels(task.folder, path, pixel_sha256=digest)
        except DataSetError as error:
            broken.append(f"{path}: {error.reason}")
    return broken
