"""What of a clip is compared with other clips: some frames, evenly over its length, shrunk to SIDE x SIDE.

They show what is lit of the field of view. They are cut while the clip is built, since stored frames are often too few and too far apart
for speckle to be recognised; they are kept as one picture a clip, the frames one below another, beside the stored frames.

Guarantees: dark and flat frames are not among them, since they are all alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.errors import DataSetError
from usdata.imaging.evidence import Evidence, EvidenceCollector
from usdata.imaging.geometry import Geometry, box_of

SIDE = 64
MOST_KEY_FRAMES = 48  # twice what the evidence samples
LIT_LEVEL, LEAST_LINE = 16, 0.02  # gray levels; share of a row or column that must be lit, or move
LEAST_TO_MOVE, LEAST_MOVING = 5, 0.1  # frames; share of the picture
LEAST_MOVED, MOVED_SHARE = 0.7, 0.1  # gray levels from frame to frame; of what the liveliest pixels do
LEAST_CONTRAST = 6.0  # standard deviation in gray levels of the shrunk picture

Pictures = NDArray[np.uint8]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class KeyFrames:
    """Of one clip.

    Attributes:
        video_id: Whose.
        frame_index: Of each, (N,), rising.
        box: What they were cut from: x, y, width, height in pixels of the raw picture.
        pictures: (N, SIDE, SIDE) uint8.
    """

    video_id: str
    frame_index: NDArray[np.int64]
    box: Box
    pictures: Pictures

    @property
    def mean(self) -> NDArray[np.float32]:
        """The mean over time, (SIDE, SIDE)."""
        return np.asarray(self.pictures.mean(axis=0, dtype=np.float32), np.float32)


def cut(frames: Sequence[NDArray[np.uint8]], box: Box, inside: NDArray[np.bool_] | None = None) -> tuple[list[int], Pictures]:
    """The key frames that some frames give: places of those that are not too dark or flat, and their pictures (N, SIDE, SIDE).

    Args:
        frames: (H, W) uint8, of one size.
        box: x, y, width, height in their pixels.
        inside: (H, W), the field of view: what is outside is made black; None: nothing is.
    """
    x, y, width, height = box
    shape = None if inside is None else inside[y : y + height, x : x + width].astype(np.uint8)
    places, pictures = [], []
    for place, frame in enumerate(frames):
        cutting = frame[y : y + height, x : x + width]
        small = cv2.resize(cutting if shape is None else cutting * shape, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        if float(small.std()) >= LEAST_CONTRAST:
            places.append(place)
            pictures.append(np.asarray(small, np.uint8))
    return places, np.stack(pictures) if pictures else np.zeros((0, SIDE, SIDE), np.uint8)


def moving_box(evidence: Evidence) -> Box | None:
    """The box (x, y, width, height) of what moves: bars, words and frames around a picture do not; None where too little does."""
    if evidence.frames < LEAST_TO_MOVE:
        return None
    least = max(LEAST_MOVED, MOVED_SHARE * float(np.percentile(evidence.activity, 99)))
    moved = cv2.blur(evidence.activity, (5, 5)) >= least
    box = _box_of(moved)
    return box if box is not None and box[2] * box[3] >= LEAST_MOVING * moved.size else None


def lit_box(brightest: NDArray[np.uint8]) -> Box:
    """The box (x, y, width, height) of what is lit at any time; the whole picture where nothing is.

    Args:
        brightest: Highest gray level over time, (H, W) uint8.
    """
    return _box_of(brightest > LIT_LEVEL) or (0, 0, brightest.shape[1], brightest.shape[0])


def _overlap(a: Box, b: Box) -> Box:
    left, top = max(a[0], b[0]), max(a[1], b[1])
    right, bottom = min(a[0] + a[2], b[0] + b[2]), min(a[1] + a[3], b[1] + b[3])
    return (left, top, right - left, bottom - top) if right > left and bottom > top else a


def _box_of(mask: NDArray[np.bool_]) -> Box | None:
    rows, columns = (np.flatnonzero(mask.mean(axis=axis) >= LEAST_LINE) for axis in (1, 0))
    if not rows.size or not columns.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1


def key_frames_of(
    collector: EvidenceCollector, geometry: Geometry | None, video_id: str = "", *, hidden: NDArray[np.bool_] | None = None, margin: int = 0
) -> KeyFrames | None:
    """The key frames of a clip that has passed; None where all are too dark or flat.

    Args:
        collector: That saw the clip's unique frames.
        hidden: (H, W) of the source picture: what is made black, down to every small pixel that any of it went into; None: nothing.
        margin: Source pixels along the field of view's edge that are made black too.
        geometry: The field of view in source pixels; None: what moves is taken for it, or what is lit at any time where too little moves.
        video_id: The clip.
    """
    evidence = collector.evidence
    if evidence is None:
        return None
    indices, frames = collector.key_frames
    height, width = frames[0].shape
    inside = None if geometry is None else evidence.mask_of(geometry)
    if geometry is None or inside is None or not inside.any():
        inside, box = None, moving_box(evidence) or lit_box(evidence.brightest)
    else:
        # Of a copy whose field of view is not found only what is lit is known: the dark end of a scan is left out here too.
        lit = lit_box(np.where(inside, evidence.brightest, np.uint8(0)))
        box = _overlap(box_of(evidence.at_working_size(geometry), height, width), lit)
        if margin:
            reach = -(-margin // evidence.factor)
            inside = cv2.erode(inside.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8), borderValue=1) > 0
    if hidden is not None:
        ink = cv2.resize(hidden.astype(np.uint8) * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA) > 0
        shown = cv2.dilate(ink.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
        inside = shown if inside is None else inside & shown
    places, pictures = cut(frames, box, inside)
    if not places:
        return None
    x, y, across, down = (value * evidence.factor for value in box)
    return KeyFrames(video_id, np.asarray([indices[place] for place in places], np.int64), (x, y, across, down), pictures)


def as_strip(pictures: Pictures) -> NDArray[np.uint8]:
    """One picture of all, one below another, (N * SIDE, SIDE)."""
    return pictures.reshape(-1, SIDE)


def read_key_frames(folder: Path, video: Mapping[str, Any]) -> KeyFrames | None:
    """The key frames of a clip of a data set; None where it has none.

    Args:
        folder: The data set, or where it is being made.
        video: Row of videos.parquet, or the columns video_id, key_frames_path, key_frames and key_frames_box of it.

    Raises:
        DataSetError: The picture cannot be read, or is another one.
    """
    if video["key_frames_path"] is None:
        return None
    path = folder / video["key_frames_path"]
    if not path.is_file():
        raise DataSetError(path, "this picture of key frames is missing", "build the set again with --overwrite: what is there stays")
    strip = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    index = np.asarray(video["key_frames"], np.int64)
    if strip is None or strip.shape != (len(index) * SIDE, SIDE):
        advice = "remove it and build the set again with --overwrite: what is there stays"
        raise DataSetError(path, "holds no key frames, or not those that were written", advice)
    x, y, width, height = video["key_frames_box"]
    pictures = np.asarray(strip, np.uint8).reshape(-1, SIDE, SIDE)
    return KeyFrames(video["video_id"], index, (x, y, width, height), pictures)
