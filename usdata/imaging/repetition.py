"""Whether a clip repeats itself: frozen, up-converted, a loop, a palindrome; and whether it begins or ends with a title.

Each decoded frame is thinned to a grid of single pixels, so that differences keep the size that they have between whole frames (an average
over blocks would shrink noise and not motion). After the pass, distances between all pairs of frames answer the questions:

- loop: frames a lag apart are alike, and frames less than that lag apart are not. (Alike against random pairs alone would call every slow
  sweep a loop: there, near frames are alike.)
- palindrome: frames mirrored about a point in time are alike, compared with pairs that lie as far apart in time.
- Both must be sharp: a few frames beside the lag, or the point, the likeness is gone. A heart or a breath comes back gradually, a copy at
  once: on 330 real clips a mirrored point keeps 0.85 and more of the distance beside it, and a copy, re-encoded, less than 0.5.
- up-converted: the change from frame to frame falls close to nothing again and again, beside full changes.
- title: the clip begins or ends with frames that stand still, and a cut parts them from what moves.

Pixels are compared in 7 bits, so that every sum of products below is a whole number that float32 holds exactly: the answer does not depend
on the processor or on threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

MOST_FRAMES = 1024  # that are compared with one another; a longer clip is judged by its first ones
GRID_SIDE = 48  # pixels of the grid along each side, at most
MOST_PIXELS = 1024  # of the grid that are compared: those that vary most; 1024 x 127^2 is below 2^24
LEAST_LAG = 8  # frames; also the shortest stretch that counts as repeated
ALIKE = 0.45  # of the distance between frames that are no copies; low bit rates leave a third of it between copies
BESIDE = 6  # frames beside a lag or a mirror where the likeness must be gone
SHARP_LAG = 0.5  # of the distance there
SHARP_MIRROR = 0.7
LEAST_MIRRORED_SHARE = 0.25  # of the clip that lies on the mirrored arms
STILL_DIFFERENCE = 0.5  # gray levels, mean over what is lit: below it nothing has happened
LIT_GRAY_LEVEL = 4
AROUND = 6  # changes before and after one, which say what is usual there
DIP = 0.25  # a change below this part of the usual one is none
LARGEST_DIP = 1.5  # gray levels: what a codec may add to none
LEAST_DIPS = 0.12  # of all changes; 25 frames a second shown as 30 have 0.17
LONGEST_DIPS = 4  # changes that are none, in a row; of more frames, a picture rests
FROZEN_SHARE = 0.95  # of the changes that are none
CUT = 3.0  # times the usual change: another scene
LEAST_SLIDE = 3  # frames
REST = 0.3  # of the usual change: a slide, as a codec leaves it


@dataclass(frozen=True)
class Repetition:
    """What was found.

    Attributes:
        flags: Sorted, of frozen, loop, palindrome, title, upconverted.
        period: Frames after which a loop begins again, or of a palindrome's way forth and back; None = neither.
        unique_until: Position (among the frames offered) from which on frames repeat earlier ones; None = none do.
        repeated_until: First position after that stretch; a clip may go on with something new.
        still_share: Of the changes from frame to frame, those that are nothing.
    """

    flags: tuple[str, ...] = ()
    period: int | None = None
    unique_until: int | None = None
    repeated_until: int | None = None
    still_share: float = 0.0


class RepetitionCollector:
    """Takes all frames of a clip in order."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.uint8]] = []
        self._offered = 0

    def offer(self, pixels: NDArray[np.uint8]) -> None:
        """See one frame (H, W) uint8."""
        self._offered += 1
        if len(self._rows) == MOST_FRAMES:
            return
        step = max(1, -(-max(pixels.shape) // GRID_SIDE))
        self._rows.append(pixels[step // 2 :: step, step // 2 :: step].ravel())

    def found(self) -> Repetition:
        """What the frames seen so far show."""
        if len(self._rows) < LEAST_LAG:
            return Repetition()
        grid = np.stack(self._rows)
        changes = _changes(grid)
        still = changes < STILL_DIFFERENCE
        still_share = float(still.mean())
        if still_share >= FROZEN_SHARE:
            return Repetition(("frozen",), still_share=still_share)
        flags = ["upconverted"] if _is_upconverted(changes) else []
        distance = _distances(grid)
        first, last = _scene(distance, still)
        if (first, last) != (0, len(grid)):
            flags.append("title")
        distance = distance[first:last, first:last]
        count = len(distance)
        period = _loop(distance)
        turning = _palindrome(distance[: 2 * period, : 2 * period] if period is not None else distance)
        until = end = None
        if turning is not None:
            # Played again and again, a palindrome is a loop too, and called by the narrower name.
            flags.append("palindrome")
            until, end = turning // 2 + 1, min(turning + 1, count) if period is None else count
        elif period is not None:
            flags.append("loop")
            until, end = period, count
        if until is not None and end is not None:
            # What was not looked at is taken to go on alike.
            until, end = first + until, self._offered if first + end == len(grid) else first + end
        return Repetition(tuple(sorted(flags)), period or turning, until, end, still_share)


def _changes(grid: NDArray[np.uint8]) -> NDArray[np.float64]:
    """From frame to frame, the mean absolute difference over pixels lit in either."""
    before, after = grid[:-1], grid[1:]
    total = np.abs(before.astype(np.int16) - after).sum(axis=1, dtype=np.int64)
    lit = np.count_nonzero(np.maximum(before, after) > LIT_GRAY_LEVEL, axis=1)
    return np.asarray(total / np.maximum(lit, 1), np.float64)


def _distances(grid: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Root mean squared difference of each frame to each, over the pixels that vary most: (T, T)."""
    spread = grid.max(axis=0).astype(np.int16) - grid.min(axis=0)
    if spread.size > MOST_PIXELS:
        grid = grid[:, np.sort(np.argsort(-spread, kind="stable")[:MOST_PIXELS])]
    halves = (grid >> 1).astype(np.float32)
    products = (halves @ halves.T).astype(np.float64)
    norms = np.diagonal(products)
    squared = norms[:, None] + norms[None, :] - 2 * products
    return np.asarray(2 * np.sqrt(squared / grid.shape[1]), np.float64)


def _by_lag(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean distance of frames 0, 1, 2, ... apart, (T,)."""
    count = len(distance)
    place = np.arange(count)
    sums = np.bincount((place[None, :] - place[:, None] + count).ravel(), weights=distance.ravel(), minlength=2 * count)
    return np.asarray(sums[count:] / (count - place), np.float64)


def _loop(distance: NDArray[np.float64]) -> int | None:
    """The period in frames, or None."""
    residual = _by_lag(distance)
    before = np.maximum.accumulate(residual)
    last = len(residual) - LEAST_LAG
    for lag in range(LEAST_LAG, last + 1):  # of a multiple of the period too: the first one is it
        near = residual[lag - BESIDE : lag + BESIDE + 1]
        beside = min(near[0], near[-1]) if lag + BESIDE < len(residual) else near[0]
        if residual[lag] < ALIKE * before[lag - 1] and residual[lag] < SHARP_LAG * beside and residual[lag] == near.min():
            return lag
    return None


def _palindrome(distance: NDArray[np.float64]) -> int | None:
    """Twice the turning point in frames, of the first clearly mirrored point; None where there is none.

    Frames i and j mirror each other about s / 2 where i + j = s.
    """
    count = len(distance)
    residual = _by_lag(distance)
    place = np.arange(count)
    # Both halves of the matrix count each pair, and a frame is at distance 0 from itself.
    found = np.bincount((place[:, None] + place[None, :]).ravel(), weights=distance.ravel()) / 2
    # The pairs of one sum lie 1, 3, 5, ... or 2, 4, 6, ... frames apart, up to the shorter arm's end.
    by_parity = residual.copy()
    by_parity[0] = 0.0
    for parity in (0, 1):
        by_parity[parity::2] = np.cumsum(by_parity[parity::2])
    totals = np.arange(2 * count - 1)
    expected = by_parity[np.minimum(totals, 2 * (count - 1) - totals)]
    ratios = np.where(expected > 0, found / np.where(expected > 0, expected, 1.0), 1.0)
    ratios[:LEAST_LAG] = ratios[2 * (count - 1) - LEAST_LAG + 1 :] = 1.0
    for total in range(2 * LEAST_LAG, len(ratios) - 2 * LEAST_LAG):
        arms = min(total, 2 * (count - 1) - total) + 1
        near = ratios[total - BESIDE : total + BESIDE + 1]
        if (
            arms >= LEAST_MIRRORED_SHARE * count
            and ratios[total] < ALIKE
            and ratios[total] < SHARP_MIRROR * min(near[0], near[-1])
            and ratios[total] == near.min()
        ):
            return total
    return None


def _is_upconverted(changes: NDArray[np.float64]) -> bool:
    """Whether changes fall to nothing in a cadence.

    A change is measured against the third largest of those around it: the largest may be a cut, and the next a key frame of a sparing
    codec, which comes every dozen frames or less often.
    """
    if len(changes) < 2 * AROUND + 1:
        return False
    around = sliding_window_view(np.pad(changes, AROUND, mode="reflect"), 2 * AROUND + 1)
    usual = np.sort(around, axis=1)[:, -3]
    dips = (changes < DIP * usual) & (changes < LARGEST_DIP)
    # Longer runs are pauses of the picture, not of its rate.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], dips, [False]]).astype(np.int8)))
    runs = edges[1::2] - edges[::2]
    return bool(runs[runs <= LONGEST_DIPS].sum() >= LEAST_DIPS * len(changes))


def _scene(distance: NDArray[np.float64], still: NDArray[np.bool_]) -> tuple[int, int]:
    """The part of the clip, from and to a frame, that is no slide before or after it, parted from it by a cut."""
    count = len(distance)
    steps = np.diagonal(distance, 1)
    moving = steps[~still]
    first, last = 0, count
    if not moving.size:
        return first, last
    usual = float(np.median(moving))
    for cut in np.flatnonzero(steps > CUT * usual):
        before, after = steps[:cut], steps[cut + 1 :]
        if len(before) >= LEAST_SLIDE - 1 and len(after) >= LEAST_LAG and np.median(before) < REST * usual:
            first = max(first, int(cut) + 1)
        if len(after) >= LEAST_SLIDE - 1 and len(before) >= LEAST_LAG and np.median(after) < REST * usual:
            last = min(last, int(cut) + 1)
    return (first, last) if last - first >= LEAST_LAG else (0, count)
