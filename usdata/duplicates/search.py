"""All pairs of clips that show the same scan, within a data set or between two.

Three steps over Parquet rows and key frames: describe each clip, find candidates among all, verify each candidate. The first and the last
run in worker processes, or on a cluster, in chunks. Descriptors, 5 kB a clip, lie in a Parquet file until candidates are found, where
there is more than a band of them; in memory are a few bands, the candidates, and one chunk.
Guarantee: the answer depends on the clips alone, not on their order, the workers or what was asked before.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from usdata.console import progress
from usdata.duplicates.bands import BAND, Bands, Descriptors, write_bands
from usdata.duplicates.candidates import MOST, MOST_HINTED, Candidate, candidates
from usdata.duplicates.content import LEAST_COARSE, Match, coarse_match, verified
from usdata.duplicates.descriptors import CELLS, NUMBERS, describe
from usdata.duplicates.key_frames import KeyFrames, read_key_frames
from usdata.engines import Failure, Runner
from usdata.errors import ReadError, Stopped
from usdata.signals import StopFlag

VERSION = 1  # raised when other pairs may be found, so that what was found before is known to be old
COLUMNS = ("video_id", "key_frames_path", "key_frames", "key_frames_box")
CLIPS_IN_CHUNK, PAIRS_IN_CHUNK = 64, 64
AT_ONCE = 48  # chunks smaller than this many clips or pairs altogether are done here, without processes
TIMEOUT_S = 600.0
MANY = 10  # other clips that one without motion is like: a template, and no scan

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Clips:
    """Clips of one data set.

    Attributes:
        folder: The data set, or where it is being made.
        rows: Of videos.parquet, COLUMNS of them at least, in the order of their ids; those without key frames are passed over.
    """

    folder: Path
    rows: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, folder: Path, rows: Sequence[Mapping[str, Any]]) -> Clips:
        """Those that have key frames, sorted."""
        kept = [{column: row[column] for column in COLUMNS} for row in rows if row["key_frames_path"] is not None]
        return cls(folder, tuple(sorted(kept, key=lambda row: str(row["video_id"]))))


@dataclass(frozen=True)
class Pairs:
    """Candidates to be verified; it travels between processes."""

    first: Clips
    second: Clips
    candidates: tuple[Candidate, ...]


def same_scans(
    first: Clips, second: Clips | None, run: Runner, *, hinted: bool = False, indexed: bool | None = None, stop: StopFlag | None = None
) -> list[Match]:
    """The verified pairs, sorted by both ids.

    Args:
        first: Clips of a data set.
        second: Of another; None: pairs within the first, each once.
        run: Where the clips are described and the candidates verified.
        hinted: The two are known to hold the same scans: more candidates are looked at.
        indexed: See `candidates`. A build says what its recipe says: equal bytes must not depend on whether faiss is installed.
        stop: Looked at after each chunk.

    Raises:
        Stopped: A signal came.
        DataSetError: Key frames cannot be read.
        ReadError: A worker died of a clip.
    """
    with tempfile.TemporaryDirectory(prefix="usdata-descriptors-") as folder:
        described = _described(first, run, Path(folder) / "first.parquet")
        other = None if second is None else _described(second, run, Path(folder) / "second.parquet")
        found = candidates(described, other, most=MOST_HINTED if hinted else MOST, indexed=indexed)
    matches = [match for part in _verified(first, first if second is None else second, found, run, stop) for match in part]
    return sorted(without_templates(matches, within=second is None), key=lambda match: (match.a, match.b))


def without_templates(matches: Sequence[Match], *, within: bool) -> list[Match]:
    """The matches but for those of pictures that stand in many clips and never move: title cards, report pages, test patterns.

    Such a picture, with another name written on it each time, is like every other of its kind; the neighbours of a still in a sequence are
    few.
    """
    still = [match for match in matches if match.motion is None]
    of_a, of_b = Counter(match.a for match in still), Counter(match.b for match in still)
    if within:
        of_a = of_b = of_a + of_b
    return [match for match in matches if match.motion is not None or min(of_a[match.a], of_b[match.b]) < MANY]


def _described(clips: Clips, run: Runner, path: Path) -> Bands:
    """The clips' descriptors: an array where it is small, else in a file at that path."""
    chunks = [Clips(clips.folder, clips.rows[start : start + CLIPS_IN_CHUNK]) for start in range(0, len(clips.rows), CLIPS_IN_CHUNK)]
    parts = _run(describe_clips, chunks, [len(chunk.rows) for chunk in chunks], "the same scan twice? describing clips", "clips", run)
    if len(clips.rows) <= BAND:
        return Bands(np.concatenate([*parts, np.zeros((0, len(CELLS), NUMBERS), np.int8)]))
    ids = ([str(row["video_id"]) for row in chunk.rows] for chunk in chunks)
    return write_bands(path, zip(ids, parts, strict=True))


def describe_clips(clips: Clips) -> Descriptors:
    """The descriptors of some clips, (clips, len(CELLS), NUMBERS)."""
    return np.stack([describe(_read(clips.folder, row).mean) for row in clips.rows])


def _verified(first: Clips, second: Clips, found: Sequence[Candidate], run: Runner, stop: StopFlag | None) -> Iterator[list[Match]]:
    tasks = chunked(first, second, found)
    for part in _run(verify_pairs, tasks, [len(task.candidates) for task in tasks], "the same scan twice? comparing clips", "pairs", run):
        yield part
        if stop is not None and stop.name is not None:
            raise Stopped("stopped while clips were compared; all that was read is saved: run the same command again to go on")


def chunked(first: Clips, second: Clips, found: Sequence[Candidate]) -> list[Pairs]:
    """Candidates in chunks, each with the rows of its clips: what verification is set up with."""
    tasks = []
    for start in range(0, len(found), PAIRS_IN_CHUNK):
        chunk = found[start : start + PAIRS_IN_CHUNK]
        places_a, places_b = sorted({each.a for each in chunk}), sorted({each.b for each in chunk})
        new_a, new_b = ({place: number for number, place in enumerate(places)} for places in (places_a, places_b))
        some = [
            Clips(clips.folder, tuple(clips.rows[place] for place in places)) for clips, places in ((first, places_a), (second, places_b))
        ]
        renumbered = tuple(Candidate(new_a[each.a], new_b[each.b], each.likeness, each.starts) for each in chunk)
        tasks.append(Pairs(some[0], some[1], renumbered))
    return tasks


def verify_pairs(pairs: Pairs) -> list[Match]:
    """Those of some candidates that show the same scan."""

    @lru_cache(maxsize=64)
    def read(second: bool, place: int) -> KeyFrames:
        clips = pairs.second if second else pairs.first
        return _read(clips.folder, clips.rows[place])

    found = []
    for candidate in pairs.candidates:
        a, b = read(False, candidate.a), read(True, candidate.b)
        correlation, flip, placement = coarse_match(a, b, candidate.starts)
        match = verified(a, b, flip=flip, placement=placement) if correlation >= LEAST_COARSE else None
        if match is not None:
            found.append(match)
    return found


def _read(folder: Path, row: Mapping[str, Any]) -> KeyFrames:
    found = read_key_frames(folder, row)
    assert found is not None
    return found


def _run(
    step: Callable[[Task], Result], tasks: Sequence[Task], sizes: Sequence[int], title: str, unit: str, run: Runner
) -> Generator[Result, None, None]:
    """The results of a step over tasks, in their order; where the work is little, in this process."""
    early: dict[int, Result] = {}
    position = 0
    with progress(title, sum(sizes), unit) as advance:
        if sum(sizes) <= AT_ONCE:
            yield from map(step, tasks)
            return
        with closing(run(step, tasks, timeout_s=TIMEOUT_S)) as done:
            for place, outcome in done:
                if isinstance(outcome, Failure):
                    raise ReadError("comparing clips", outcome.reason, "run the same command again; report this if it comes back")
                early[place] = outcome
                advance(sizes[place])
                while position in early:
                    yield early.pop(position)
                    position += 1


def rows_of(matches: Sequence[Match]) -> Iterator[dict[str, Any]]:
    """Matches as rows of duplicates.parquet."""
    for match in matches:
        yield {
            "video_id_a": match.a,
            "video_id_b": match.b,
            "kind": match.kind,
            "score": match.score,
            "motion": match.motion,
            "scale": match.scale_x,
            "scale_y": match.scale_y,
            "shift_x": match.shift_x,
            "shift_y": match.shift_y,
            "flip": match.flip,
            "first_frame_a": match.frames_a[0],
            "last_frame_a": match.frames_a[1],
            "first_frame_b": match.frames_b[0],
            "last_frame_b": match.frames_b[1],
        }
