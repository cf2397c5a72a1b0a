"""Kept frames of two sets: which came, went, or have other pixels, and which other columns differ.

In: both tables of frames and the matched clips. Out: counts by clip and by column. Guarantees: frames are matched by clip and frame_index;
work is done on whole columns, a column at a time, so a million frames take seconds and no table is held twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from usdata import manifest
from usdata.comparing.clips import Flags, Matching, Places, differing, whole
from usdata.comparing.result import Change, ClipFrames, ColumnChange
from usdata.errors import DataSetError

FIRST = 5
# Told elsewhere, or another one wherever the clip has another name.
_KEYS = {"frame_id", "video_id", "source", "frame_index", "pixel_sha256"}
# Column of frames to the clip's column that it follows.
_OF_CLIP = {name: name for name in ("patient_id", "group_id", "organ", "probe", "label")} | {"label_index": "label"}


@dataclass(frozen=True)
class FramesOf:
    """The frames of one set, by clip.

    Attributes:
        clip: Place of each frame's clip in the table of videos; -1 where that has no such clip.
        index: Its frame_index.
    """

    clip: Places
    index: Places


@dataclass(frozen=True)
class MatchedFrames:
    """Rows of both tables that are the same frame of the same clip.

    Attributes:
        a: Rows of A.
        b: Rows of B.
        pair: Of which pair of clips each is.
    """

    a: Places
    b: Places
    pair: Places


def read_frames(folder: Path, ids: NDArray[np.object_]) -> FramesOf:
    """Which clip each row of frames.parquet belongs to.

    Args:
        folder: The data set.
        ids: video_id of the clips, in the order of the table of videos.
    """
    table = manifest.read_table(folder, manifest.FRAMES, columns=["video_id", "frame_index"])
    encoded = whole(table.column("video_id")).dictionary_encode()
    place = {video_id: number for number, video_id in enumerate(ids)}
    places = np.array([place.get(video_id, -1) for video_id in encoded.dictionary.to_pylist()], dtype=np.int64)
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return FramesOf(places[codes] if len(codes) else np.zeros(0, np.int64), table.column("frame_index").to_numpy())


def match_frames(frames: tuple[FramesOf, FramesOf], matching: Matching, folders: tuple[Path, Path]) -> MatchedFrames:
    """Lay the frames of the clips that both sets have on one another, by frame_index.

    Raises:
        DataSetError: A frame stands twice in a set.
    """
    keys, rows = [], []
    for side, of_pairs, size, folder in zip(
        frames, (matching.a, matching.b), (len(matching.ids_a), len(matching.ids_b)), folders, strict=True
    ):
        pair_of = np.full(size + 1, -1, np.int64)  # the last place is that of frames without a clip
        pair_of[of_pairs] = np.arange(len(of_pairs))
        pair = pair_of[side.clip]
        shared = np.flatnonzero(pair >= 0)
        key = (pair[shared] << 40) + side.index[shared]
        if len(np.unique(key)) != len(key):
            raise DataSetError(folder / manifest.FRAMES, "holds a frame twice", "build the set again with 'usdata build'")
        keys.append(key)
        rows.append(shared)
    common, in_a, in_b = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    order = np.argsort(rows[0][in_a], kind="stable")
    return MatchedFrames(rows[0][in_a][order], rows[1][in_b][order], (common >> 40)[order])


def column_differs(folders: tuple[Path, Path], matched: MatchedFrames, column: str) -> Flags:
    """Which of the frames that both sets have differ in a column."""
    taken = []
    for folder, rows in zip(folders, (matched.a, matched.b), strict=True):
        values = manifest.read_table(folder, manifest.FRAMES, columns=[column]).column(column)
        every = len(rows) == len(values) and bool((rows == np.arange(len(rows))).all())
        taken.append(values if every else values.take(pa.array(rows)))
    return differing(*taken)


def by_clip(frames: tuple[FramesOf, FramesOf], matching: Matching, matched: MatchedFrames, other_pixels: Flags) -> tuple[ClipFrames, ...]:
    """Clips in both sets whose frames came, went or have other pixels."""
    pairs = len(matching.a)
    stay = np.bincount(matched.pair, minlength=pairs)
    have = []
    for side, places, size in zip(frames, (matching.a, matching.b), (len(matching.ids_a), len(matching.ids_b)), strict=True):
        have.append(np.bincount(side.clip[side.clip >= 0], minlength=size)[places])
    pixels = np.bincount(matched.pair[other_pixels], minlength=pairs)
    removed, added = have[0] - stay, have[1] - stay
    touched = np.flatnonzero((removed > 0) | (added > 0) | (pixels > 0))
    return tuple(ClipFrames(str(matching.names[pair]), int(added[pair]), int(removed[pair]), int(pixels[pair])) for pair in touched)


def frame_columns(
    folders: tuple[Path, Path], matching: Matching, matched: MatchedFrames, clip_changed: dict[str, Flags], *, equal_classes: bool
) -> Iterator[ColumnChange]:
    """All columns of frames that nothing else tells of.

    Args:
        folders: The data sets.
        matching: Their clips.
        matched: Their frames.
        clip_changed: Column of the clip's facts to whether it changed for each pair of clips, which is told of the clip and not again.
        equal_classes: Both number the labels alike, so that label_index can be compared.
    """
    names = None
    for column in manifest.FRAMES_SCHEMA.names:
        if column in _KEYS or column in ("split", "fold") or (column == "label_index" and not equal_classes):
            continue
        flags = column_differs(folders, matched, column)
        if column in _OF_CLIP:
            flags &= ~clip_changed[_OF_CLIP[column]][matched.pair]
        if column in ("path", "duplicate_group"):  # both hold the clip's name
            flags &= ~matching.renamed[matched.pair]
        if not flags.any():
            continue
        if names is None:
            names = manifest.read_table(folders[1], manifest.FRAMES, columns=["frame_id"]).column("frame_id")
        first = names.take(pa.array(matched.b[np.flatnonzero(flags)[:FIRST]])).to_pylist()
        yield ColumnChange("frames", column, int(flags.sum()), tuple(first))


def excluded_reasons(folders: tuple[Path, Path]) -> tuple[tuple[Change, ...], bool]:
    """Reasons for which frames are not kept, where their numbers differ; and whether the tables' rows differ in any way."""
    counts: Sequence[dict[str, int]] = [_reasons(folder) for folder in folders]
    reasons = sorted(counts[0].keys() | counts[1].keys())
    changes = tuple(
        Change(reason, counts[0].get(reason, 0), counts[1].get(reason, 0))
        for reason in reasons
        if counts[0].get(reason) != counts[1].get(reason)
    )
    return changes, bool(changes) or not _equal_rows(folders, manifest.EXCLUDED)


def _reasons(folder: Path) -> dict[str, int]:
    counted = pc.value_counts(manifest.read_table(folder, manifest.EXCLUDED, columns=["reason"]).column("reason"))
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}


def _equal_rows(folders: tuple[Path, Path], name: str) -> bool:
    """Whether two tables hold equal rows; a column at a time, so that large ones need little memory."""
    if (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes():
        return True
    for column in manifest.SCHEMAS[name].names:
        one, other = (manifest.read_table(folder, name, columns=[column]).column(column) for folder in folders)
        if len(one) != len(other) or differing(one, other).any():
            return False
    return True
