"""Whether two clips show the same scan: candidates by their mean pictures, each verified by laying frames on one another.

A candidate's pictures are aligned (scale and shift, mirrored or not), then every key frame of one is compared with every one of the other
where both show something. Two clips of one patient, or of two patients whose layers lie alike, agree in what stands still; only the same
recording agrees in what changes as well. So a frame is found again only if its picture correlates at LIKE or more, and what is left of it
when the clip's mean is taken away, at MOVES_LIKE or more. Only pairs of frames of which each is the other's best count: breathing moves the
layers of two patients to and fro alike, and then many frames of one find the same few of the other. The clips are the same scan where the
pairs are enough, fill the interval between the first and the last, which is enough of one clip, where time runs evenly from pair to pair
(forwards or backwards), and where the medians of both correlations together reach TOGETHER.

Where a side has too few frames to know what changes, or nothing changes, the pictures alone must agree, at SAME.

Two clips that agree in nothing that moves, but in what stands still at VIEW and more, are no copies: they are two moments of one recording,
or of one exam with the probe in one place. They are told apart from copies (kind "view") and belong together like these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from usdata.duplicates.alignment import AROUND, Placement, align_coarsely, align_finely
from usdata.duplicates.descriptors import CELLS, Floats, band
from usdata.duplicates.key_frames import SIDE, KeyFrames

CONTENT_KINDS = ("content", "view")

LEAST_COARSE, LEAST_FINE = 0.5, 0.4  # correlation of the means, aligned
LIKE, MOVES_LIKE, TOGETHER, SAME, VIEW = 0.40, 0.35, 1.16, 0.75, 0.82
SURELY = 1.6  # both medians together, where time need not run evenly: a loop shows its frames more than once
MOVES = 0.15  # length of what changes, of a frame's picture of length 1
LEAST_FRAMES = 4  # with which a clip's mean says what stands still
LEAST_FOUND, HALF_OF = 6, 12  # pairs of frames; of a clip of fewer than HALF_OF frames half, of three and fewer all
LEAST_SHARE = 0.3  # of the frames of either clip that lie in the interval
LEAST_FILLED = 0.5  # of the frames in the interval, on the side that has fewer there, that are found
EVENLY, NEAR = 0.7, 1.5  # share of the pairs that lie on one line of time, and how near to it, in steps between key frames


@dataclass(frozen=True)
class Match:
    """Two clips that show the same scan.

    Attributes:
        a: video_id of the one.
        b: video_id of the other.
        kind: content (a copy), or view (the probe in the same place, at another moment).
        score: Median correlation of the frames that are found in one another, 0 to 1.
        motion: The same of what changes in them; None where that cannot be told.
        share: Of the key frames of that clip of which more is found, those between the first and the last that are found.
        flip: One is the other's mirror image.
        scale_x: Raw pixels of b to one of a, along the width.
        scale_y: Along the height.
        shift_x: Where a's left edge lies in b, in raw pixels of b.
        shift_y: Where a's top lies in b.
        frames: Pairs of frame_index, of a and of b, that show the same, by a's.
        best: The pair of them that is most alike.
    """

    a: str
    b: str
    kind: Literal["content", "view"]
    score: float
    motion: float | None
    share: float
    flip: bool
    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float
    frames: tuple[tuple[int, int], ...]
    best: tuple[int, int]

    @property
    def frames_a(self) -> tuple[int, int]:
        """First and last frame_index of a that are found in b."""
        indices = [pair[0] for pair in self.frames]
        return min(indices), max(indices)

    @property
    def frames_b(self) -> tuple[int, int]:
        """Likewise of b."""
        indices = [pair[1] for pair in self.frames]
        return min(indices), max(indices)


@dataclass(frozen=True)
class Start:
    """From where two clips are aligned: a's whole picture is like a cell of b's, or b's whole like a cell of a's.

    Attributes:
        flip: b is mirrored.
        around: The second way round.
        cell: Number of the cell.
    """

    flip: bool
    around: bool
    cell: int

    @property
    def placement(self) -> Placement:
        """Of the one whose whole picture is meant in the other."""
        return Placement.of_cell(CELLS[self.cell])


def coarse_match(a: KeyFrames, b: KeyFrames, starts: Sequence[Start]) -> tuple[float, bool, Placement]:
    """The best alignment of two clips' means at half the side: correlation, mirrored, placement of a in b.

    The one that shows less is always sought in the one that shows more, where all of it is to be found.
    """
    found = []
    for flip, around in sorted({(start.flip, start.around) for start in starts}):
        mean_b = np.ascontiguousarray(b.mean[:, ::-1]) if flip else b.mean
        placements = [start.placement for start in starts if (start.flip, start.around) == (flip, around)]
        less, more = (mean_b, a.mean) if around else (a.mean, mean_b)
        correlation, placement = align_coarsely(less, more, placements)
        found.append((correlation, flip, placement.inverse if around else placement))
    return max(found, key=lambda each: each[0])


def verified(a: KeyFrames, b: KeyFrames, *, flip: bool, placement: Placement) -> Match | None:
    """The match of two clips; None where they are not the same scan.

    Args:
        a: One clip.
        b: The other.
        flip: Whether `b` is taken mirrored.
        placement: Of a in b, roughly.
    """
    pictures = b.pictures[:, :, ::-1] if flip else b.pictures
    around = placement.enlarges
    less, more = (pictures, a.pictures) if around else (a.pictures, pictures)
    mean_of_less, mean_of_more = (np.ascontiguousarray(each.mean(axis=0, dtype=np.float32)) for each in (less, more))
    correlation, placement = align_finely(mean_of_less, mean_of_more, placement.inverse if around else placement)
    if correlation < LEAST_FINE:
        return None
    placement = placement.rounded()
    # One thread: sums in another order would round otherwise.
    with threadpool_limits(1):
        likeness, motion = _tables(less, more, placement)
    if around:
        likeness, motion, placement = likeness.T, None if motion is None else motion.T, placement.inverse
    kind: Literal["content", "view"] = "content"
    same = _copied(likeness, motion, a.frame_index, b.frame_index)
    if same is None:
        kind, same = "view", _viewed(likeness, motion)
    if same is None:
        return None
    rows, columns, share = same
    found = likeness[rows, columns]
    top = int(found.argmax())
    scale_x, scale_y, shift_x, shift_y = _in_raw_pixels(a.box, b.box, placement, flip=flip)
    return Match(
        a=a.video_id,
        b=b.video_id,
        kind=kind,
        score=_median(found),
        motion=None if motion is None else _median(motion[rows, columns]),
        share=share,
        flip=flip,
        scale_x=scale_x,
        scale_y=scale_y,
        shift_x=shift_x,
        shift_y=shift_y,
        frames=tuple((int(a.frame_index[row]), int(b.frame_index[column])) for row, column in zip(rows, columns, strict=True)),
        best=(int(a.frame_index[rows[top]]), int(b.frame_index[columns[top]])),
    )


Found = tuple[NDArray[np.intp], NDArray[np.intp], float]


def _copied(likeness: Floats, motion: Floats | None, index_a: NDArray[np.int64], index_b: NDArray[np.int64]) -> Found | None:
    """Places of the frames by which one clip is a copy of the other, and the share of it; None where it is none."""
    rows, columns = _found(likeness, motion)
    share = _share(rows, columns, likeness.shape)
    if share is None:
        return None
    if motion is None:
        return rows, columns, share
    together = _median(likeness[rows, columns]) + _median(motion[rows, columns])
    if together < TOGETHER or (together < SURELY and not _evenly(index_a, index_b, rows, columns)):
        return None
    return rows, columns, share


def _viewed(likeness: Floats, motion: Floats | None) -> Found | None:
    """Places of the frames of that clip which finds more, each with its best; None where they do not show one place."""
    if motion is None:
        return None
    of_a, of_b = _median(likeness.max(axis=1)), _median(likeness.max(axis=0))
    if max(of_a, of_b) < VIEW:
        return None
    if of_a >= of_b:
        return np.arange(len(likeness)), likeness.argmax(axis=1), 1.0
    rows, columns = likeness.argmax(axis=0), np.arange(likeness.shape[1])
    order = np.lexsort((columns, rows))
    return rows[order], columns[order], 1.0


def _median(values: Floats) -> float:
    return round(float(np.median(values)), 4)


def _tables(a: NDArray[np.uint8], b: NDArray[np.uint8], placement: Placement) -> tuple[Floats, Floats | None]:
    """Correlation of each key frame with each, (N, M), of the pictures and of what changes in them; None where that cannot be told."""
    common = placement.common(SIDE)
    units_a = _units([band(picture.astype(np.float32), AROUND)[common] for picture in a])
    units_b = _units([band(placement.seen_in(picture, SIDE), AROUND)[common] for picture in b])
    likeness = units_a @ units_b.T
    if max(len(a), len(b)) < LEAST_FRAMES:
        return likeness, None
    # A still is compared with what stands still in the clip.
    mean_a, mean_b = units_a.mean(axis=0), units_b.mean(axis=0)
    moving_a = units_a - (mean_a if len(a) >= LEAST_FRAMES else mean_b)
    moving_b = units_b - (mean_b if len(b) >= LEAST_FRAMES else mean_a)
    lengths = [np.sqrt(np.sum(moving * moving, axis=1)) for moving in (moving_a, moving_b)]
    if min(float(np.median(length)) for length in lengths) < MOVES:
        return likeness, None
    return likeness, (moving_a @ moving_b.T) / np.maximum(np.outer(*lengths), 1e-9)


def _units(vectors: Sequence[Floats]) -> Floats:
    rows = np.stack(vectors)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.sqrt(np.sum(rows * rows, axis=1, keepdims=True)), 1e-9), np.float32)


def _found(likeness: Floats, motion: Floats | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of frames that are the same, and of which each is the other's best; by a's."""
    # What changes says better which frame it is.
    together = likeness if motion is None else likeness + motion
    best = together.argmax(axis=1)
    rows = np.arange(len(likeness))
    # Where nothing changes, each frame is as good as any other.
    mutual = (motion is None) | (together.argmax(axis=0)[best] == rows)
    like = likeness[rows, best]
    same = like >= SAME if motion is None else (like >= LIKE) & (motion[rows, best] >= MOVES_LIKE)
    found = np.flatnonzero(mutual & same)
    return found, best[found]


def _share(rows: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, ...]) -> float | None:
    """Share of that clip of which most lies in the interval that is found; None where the pairs are too few or too loose."""
    frames = min(shape)
    if len(rows) < (LEAST_FOUND if frames >= HALF_OF else max(frames // 2, min(frames, 3))):
        return None
    spans = [int(np.ptp(places)) + 1 for places in (rows, columns)]
    share = max(span / frames for span, frames in zip(spans, shape, strict=True))
    if share < LEAST_SHARE or len(rows) < LEAST_FILLED * min(spans):
        return None
    return round(share, 4)


def _evenly(index_a: NDArray[np.int64], index_b: NDArray[np.int64], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> bool:
    """Whether most pairs lie on one line, b's frame_index over a's: another rate changes its slope, a part of a clip its start.

    The line is that of Theil and Sen: the median of the slopes between all pairs, then the median of what is left.
    """
    if len(rows) < 2:
        return True
    x, y = index_a[rows].astype(float), index_b[columns].astype(float)
    one, other = np.triu_indices(len(x), 1)
    slope = float(np.median((y[other] - y[one]) / (x[other] - x[one])))
    off = y - slope * x
    steps = [float(np.median(np.diff(index))) if len(index) > 1 else 1.0 for index in (index_a, index_b)]
    near = np.abs(off - np.median(off)) <= NEAR * max(steps[1], abs(slope) * steps[0])
    return bool(np.count_nonzero(near) >= EVENLY * len(x))


def _in_raw_pixels(
    box_a: tuple[int, int, int, int], box_b: tuple[int, int, int, int], placement: Placement, *, flip: bool
) -> tuple[float, float, float, float]:
    """Scale along the width and the height, shift of a's origin in b."""
    left_a, top_a, width_a, height_a = box_a
    left_b, top_b, width_b, height_b = box_b
    scale_x, scale_y = placement.width * width_b / width_a, placement.height * height_b / height_a
    left = left_b + placement.x * width_b - left_a * scale_x
    if flip:
        left = left_b + width_b - placement.x * width_b + left_a * scale_x
    top = top_b + placement.y * height_b - top_a * scale_y
    return round(scale_x, 4), round(scale_y, 4), round(left, 2), round(top, 2)
