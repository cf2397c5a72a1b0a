"""Strips that are drawn over time (M-mode, spectral Doppler, ECG), told from how their columns change. Gray frames in, one box out.

A strip sweeps (a cursor runs rightwards, what lies behind it stays until it comes round again: between two frames one band of columns
changes, and the next band begins where this one ends) or scrolls (all of it moves left by equally many columns). Tissue changes everywhere
all the time. Where more than about 0.8 of a round passes between two sampled frames nothing can be told, and the answer is None; a strip
that stands still is None as well. What decides are sums of integers; only the candidate shift of a scroll comes from a Fourier transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

FEWEST_FRAMES = 6
# Measured with benchmarks/modes.py (drawn strips, seeds 0 and 1) and on 350 real clips, see the test: drawn strips are far on one side of
# each, real B-modes on the other.
CHANGED_LEVELS = 16  # gray levels, of any pixel of a cell
OFTEN = 0.65  # of the pairs of frames: cells that change more often are tissue
STEADY_SHARE = 0.75  # of the pairs whose bands follow each other: strips 0.8 and more, B-mode 0.55 at most
PURE_SHARE = 0.7  # of the changes lie in the bands: strips 0.82 and more
LEAST_TRAVEL = 0.2  # of the strip's width: a pointer does not go so far rightwards
SHIFTED_RESIDUAL = 0.8  # of the unshifted difference: scrolling strips 0.45 at most, B-modes 0.7 and more in a fifth of the pairs
MOST_GROWTH = 3  # times the rows that tell it
LEAST_AREA = 0.25  # of the lit picture
MOST_SCROLLED = 0.85  # of the picture: a display stands around its strip
TRACE_HEIGHT = 0.22  # of the picture: an ECG is lower, a strip is higher
TRACE_LIT = 0.25  # of the box: a line fills less
LIT_LEVEL = 24
LAYER_LEVEL = 0.35  # of the 99th percentile
LAYERED = 0.33  # of what is lit, weighted by how much of its row is dark: nine M-modes of ten are below
BEATING = 0.44  # all drawn spectra reach it
SPECTRAL_LIT = 0.3  # of a spectrum at most
_CELLS = 160  # columns of cells at most, and
_ROWS = 20  # rows of cells at least: a cell is some 2 x 12 working pixels, of which every second row is looked at


@dataclass(frozen=True)
class Sweep:
    """A strip, in working pixels.

    Attributes:
        x: Left edge.
        y: Upper edge.
        width: Of the strip.
        height: Of the strip.
        style: How it is drawn; a trace is a thin line that sweeps in a low strip: an ECG.
        kind: What it shows, where that is certain.
    """

    x: int
    y: int
    width: int
    height: int
    style: Literal["sweep", "scroll", "trace"]
    kind: Literal["m_mode", "spectral"] | None = None


@dataclass(frozen=True)
class _Found:
    """A strip in cells: rows top to bottom - 1, columns left to right - 1."""

    top: int
    bottom: int
    left: int
    right: int
    style: Literal["sweep", "scroll"]


def sweep_of(frames: Sequence[NDArray[np.uint8]]) -> Sweep | None:
    """The strip that is drawn over time in a clip; None where there is none, or none that is certain.

    Args:
        frames: Evenly spaced unique frames in order of time, (H, W) uint8 of one shape, the longer side 240 to 480.
    """
    if len(frames) < FEWEST_FRAMES:
        return None
    height, width = frames[0].shape
    wide, step = -(-width // _CELLS), max(1, height // 120)
    tall = height // (_ROWS * step) * step
    if tall == 0:
        return None
    rows, columns = height // tall, width // wide
    # Every second row tells as much: rows are alike in a strip's cursor, and a layer is thicker than a row.
    sparse = np.stack([frame[: rows * tall : step, : columns * wide] for frame in frames]).reshape(-1, columns * wide)
    found = [*_sweeping(_changes(sparse, len(frames), rows, columns))]
    for candidate in found:
        strip = _named(candidate, frames, tall, wide)
        if strip is not None and strip.style != "trace":
            return strip
    scrolled = _scrolling(sparse, len(frames), rows, columns)
    strip = None if scrolled is None else _named(scrolled, frames, tall, wide)
    if strip is not None and strip.style != "trace":
        return strip
    return next((trace for candidate in found if (trace := _named(candidate, frames, tall, wide)) is not None), None)


def _changes(sparse: NDArray[np.uint8], count: int, rows: int, columns: int) -> NDArray[np.bool_]:
    """Which cells change from frame to frame, (count - 1, rows, columns)."""
    high, wide = len(sparse) // count, sparse.shape[1] // columns
    moved = cv2.absdiff(sparse[high:], sparse[:-high]).reshape(count - 1, rows, high // rows, columns * wide).max(axis=2)
    cells = moved[..., ::wide]
    for place in range(1, wide):
        cells = np.maximum(cells, moved[..., place::wide])
    return np.asarray(cells > CHANGED_LEVELS)


def _sweeping(changed: NDArray[np.bool_]) -> list[_Found]:
    """Strips with a cursor, the highest first."""
    pairs, _, columns = changed.shape
    times = changed.view(np.uint8).sum(axis=0, dtype=np.uint8)
    seldom = (times > 0) & (times <= OFTEN * pairs)
    likely = np.flatnonzero(seldom.sum(axis=1) >= 0.15 * columns)
    if not likely.size:
        return []
    banded = _bandedness(changed[::2, likely], seldom[likely])
    runs: list[tuple[int, int]] = []
    for least in (0.85, 0.6):  # a strip beside tissue shares some of its rows
        chosen = likely[banded >= least]
        parts = np.split(chosen, np.flatnonzero(np.diff(chosen) > 2) + 1) if chosen.size else []
        runs += [(int(part[0]), int(part[-1]) + 1) for part in sorted(parts, key=len, reverse=True)[:2]]
    followed = [_follow(changed, seldom, *run) for run in dict.fromkeys(runs)]
    return sorted((strip for strip in followed if strip is not None), key=lambda strip: strip.top - strip.bottom)


def _bandedness(changed: NDArray[np.bool_], seldom: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How much of each row's changes lie in one band of columns a pair, between 0 and 1."""
    score = np.where(seldom, 2 * changed.view(np.int8) - 1, 0).astype(np.int16)
    total = np.cumsum(score, axis=2, dtype=np.int16)
    rise = (total - np.minimum(np.minimum.accumulate(total, axis=2), 0)).max(axis=2)
    fall = (total - np.maximum(np.maximum.accumulate(total, axis=2), 0)).min(axis=2)
    best = np.maximum(rise, total[..., -1] - fall)
    return np.asarray(best.sum(axis=0) / np.maximum((changed & seldom).sum(axis=(0, 2)), 1))


def _follow(changed: NDArray[np.bool_], seldom: NDArray[np.bool_], top: int, bottom: int) -> _Found | None:
    """The strip around some rows, if their bands follow each other rightwards."""
    usable = seldom[top:bottom].view(np.uint8).sum(axis=0, dtype=np.int16)
    used = np.flatnonzero(4 * usable >= usable.max())
    left, right = int(used[0]), int(used[-1]) + 1
    wide = right - left
    votes = (changed[:, top:bottom, left:right] & seldom[top:bottom, left:right]).view(np.uint8).sum(axis=1, dtype=np.int16)
    start, length = _arcs(2 * votes - usable[left:right])
    band = (np.arange(wide) - start[:, None]) % wide < length[:, None]
    # A gap runs ahead of the cursor: each band reaches that far into the next. What does not change at the end of one is not seen.
    ahead = (start[:-1] + length[:-1] - start[1:] + wide // 2) % wide - wide // 2
    steps = length[:-1] - ahead
    told = (length[:-1] > 0) & (length[1:] > 0)
    steady = told & (ahead >= -0.08 * wide) & (ahead <= 0.08 * wide + 2) & (steps > 0) & (steps < 0.8 * wide)
    if steady.sum() < max(STEADY_SHARE * told.sum(), 4) or steps[steady].sum() < LEAST_TRAVEL * wide:
        return None
    if (votes * band).sum() < PURE_SHARE * votes.sum():
        return None
    # Rows that change in the bands alone belong to it, even those where little changes.
    part = changed[:, :, left:right]
    within = (part & band[:, None]).sum(axis=(0, 2))
    without = part.sum(axis=(0, 2)) - within
    held = int(band.sum())
    fits = (within >= 0.02 * held) & (within * (band.size - held) >= 4 * without * held)
    first, last = top, bottom
    while first > 0 and fits[max(first - 2, 0) : first].any():
        first -= 1
    while last < len(fits) and fits[last : last + 2].any():
        last += 1
    if last - first > MOST_GROWTH * (bottom - top) + 2:
        return None
    return _Found(first, last, left, right, "sweep")


def _arcs(score: NDArray[np.int16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row the circular run of columns with the greatest sum: where it starts, and how long it is."""
    total = np.zeros((len(score), score.shape[1] + 1), np.int32)
    np.cumsum(score, axis=1, out=total[:, 1:])
    each, wide = np.arange(len(score)), score.shape[1]
    lowest, highest = np.minimum.accumulate(total, axis=1), np.maximum.accumulate(total, axis=1)
    end, begin = (total - lowest).argmax(axis=1), (total - highest).argmin(axis=1)
    inner, outer = (total - lowest)[each, end], total[:, -1] - (total - highest)[each, begin]
    first = (total == lowest[each, end][:, None]).argmax(axis=1)
    last = (total == highest[each, begin][:, None]).argmax(axis=1) + wide
    wraps = outer > inner
    return np.where(wraps, begin, first) % wide, np.where(wraps, last - begin, end - first)


def _scrolling(sparse: NDArray[np.uint8], count: int, rows: int, columns: int) -> _Found | None:
    """A strip that moves left by equally many columns from frame to frame."""
    pictures = sparse.reshape(count, rows, -1, sparse.shape[1])
    chosen = np.unique(np.linspace(0, count - 2, 3).astype(int))
    shift, alike = _likely_shift(*(_edges(pictures[at, ::2], columns) for at in (chosen, chosen + 1)))
    if not alike.any():
        return None
    agreed = np.zeros(rows, bool)
    agreed[::2] = alike
    edges = _edges(pictures, columns).astype(np.int32)
    edges = edges * count - edges.sum(axis=0)  # nothing is left of what stands still
    slack = max(2, shift // 8)  # frames that repeat another are left out: intervals differ by some of them
    shifts = np.arange(max(1, shift - slack), min(shift + slack, edges.shape[2] - 16) + 1)
    kept = (edges.shape[2] - int(shifts[-1])) // 8 * 8
    still = np.abs(edges[1:, :, :kept] - edges[:-1, :, :kept])
    moved = np.stack([np.abs(edges[1:, :, :kept] - edges[:-1, :, by : by + kept]) for by in shifts.tolist()])
    best = moved[:, :, agreed].sum(axis=(2, 3), dtype=np.int64).argmin(axis=0)
    residual = moved[best, np.arange(count - 1)]
    after, before = (part.sum(axis=0, dtype=np.int64).reshape(rows, -1, 8).sum(axis=2) for part in (residual, still))
    fits = ((after <= SHIFTED_RESIDUAL * before) & (before > 8 * (count - 1) * count)).astype(np.uint8)
    fits |= cv2.morphologyEx(fits, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(fits)
    if len(boxes) < 2:
        return None
    left, top, wide, tall, area = (int(value) for value in boxes[1 + int(boxes[1:, cv2.CC_STAT_AREA].argmax())])
    inside = np.s_[:, top : top + tall, left * 8 : (left + wide) * 8]
    steady = residual[inside].sum(axis=(1, 2), dtype=np.int64) <= SHIFTED_RESIDUAL * still[inside].sum(axis=(1, 2), dtype=np.int64)
    steady &= np.abs(shifts[best] - np.median(shifts[best])) <= max(1, shift // 8)
    if area < 0.5 * wide * tall or steady.sum() < STEADY_SHARE * (count - 1):
        return None
    return _Found(top, top + tall, left * 8, min((left + wide) * 8 + shift, columns), "scroll")


def _edges(pictures: NDArray[np.uint8], columns: int) -> NDArray[np.int16]:
    """Steps along rows of cells, (pictures, rows, columns - 2): of sums of two cells each, which shifts by half a cell keep alike.

    Args:
        pictures: (pictures, rows of cells, rows of pixels in each, width).
        columns: How many cells a row has.
    """
    count, rows, _, wide = pictures.shape
    cells = cv2.resize(pictures.reshape(-1, wide), (columns, count * rows), interpolation=cv2.INTER_AREA)
    means = cells.reshape(count, rows, columns).astype(np.int16)
    return means[..., 2:] - means[..., :-2]


def _likely_shift(before: NDArray[np.int16], after: NDArray[np.int16]) -> tuple[int, NDArray[np.bool_]]:
    """The shift, in columns, that most rows of cells agree on, and which do. Some pairs of (pairs, rows, columns) in."""
    edges = np.stack([before, after]).astype(np.float32)
    edges -= edges.mean(axis=(0, 1))
    columns = cv2.getOptimalDFTSize(edges.shape[3])
    first, second = np.fft.rfft(edges, n=columns, axis=3)
    power = [np.square(np.abs(side)).sum(axis=(0, 2)) for side in (first, second)]
    alike = np.fft.irfft((first * second.conj()).sum(axis=0), n=columns, axis=1) * columns / 2 / np.sqrt(power[0] * power[1] + 1)[:, None]
    shifts = alike[:, 1 : columns // 2].argmax(axis=1) + 1
    sure = (alike[np.arange(len(alike)), shifts] > 0.4) & (shifts > 1)
    shift = int(np.bincount(shifts[sure], minlength=3).argmax())
    agreed = sure & (np.abs(shifts - shift) <= 1)
    return shift, agreed if agreed.sum() >= 2 else np.zeros_like(agreed)


def _named(found: _Found, frames: Sequence[NDArray[np.uint8]], tall: int, wide: int) -> Sweep | None:
    """The strip in working pixels with its style and kind; None where it is too small to make the clip one of its kind."""
    x, y, width, height = found.left * wide, found.top * tall, (found.right - found.left) * wide, (found.bottom - found.top) * tall
    picture = frames[-1]
    if found.style == "sweep":
        x, width = _widened(x, width, frames[0][y : y + height], picture[y : y + height])
    strip = picture[y : y + height, x : x + width]
    if height <= TRACE_HEIGHT * picture.shape[0] and np.count_nonzero(strip > LIT_LEVEL) <= TRACE_LIT * strip.size:
        return Sweep(x, y, width, height, "trace")
    lit = cv2.max(cv2.max(frames[0], frames[len(frames) // 2]), picture) > LIT_LEVEL
    lit[y : y + height, x : x + width] = True
    if strip.size < LEAST_AREA * np.count_nonzero(lit):
        return None
    if found.style == "scroll" and strip.size > MOST_SCROLLED * picture.size:
        return None  # the probe glides along, or the picture was drawn so
    return Sweep(x, y, width, height, found.style, _kind(strip))


def _widened(x: int, width: int, first: NDArray[np.uint8], last: NDArray[np.uint8]) -> tuple[int, int]:
    """The strip with what stood in its rows all the time: in a short clip the cursor does not come to all of it."""
    stands = (cv2.absdiff(first, last).max(axis=0) <= CHANGED_LEVELS) & (last.max(axis=0) > 2 * LIT_LEVEL)
    left = x - int(np.argmin(np.append(stands[:x][::-1], False)))
    right = x + width + int(np.argmin(np.append(stands[x + width :], False)))
    return left, right - left


def _kind(strip: NDArray[np.uint8]) -> Literal["m_mode", "spectral"] | None:
    """Layers are lit along their whole rows; the rows of a spectrum are lit beat by beat, over a dark ground."""
    drawn = strip[:, strip.max(axis=0) > 2 * LIT_LEVEL]
    if drawn.size < strip.size // 8:
        return None
    lit = np.count_nonzero(drawn > LAYER_LEVEL * np.partition(drawn, -(drawn.size // 100 + 1), axis=None)[-(drawn.size // 100 + 1)], axis=1)
    total, columns = int(lit.sum()), drawn.shape[1]
    intermittent = int((lit * (columns - lit)).sum()) / max(total * columns, 1)
    share = total / drawn.size
    if intermittent <= LAYERED and share >= SPECTRAL_LIT / 2:
        return "m_mode"
    return "spectral" if intermittent >= BEATING and share <= SPECTRAL_LIT else None
