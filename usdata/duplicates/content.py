"""Clips that show the same scan, by what their frames look like: between two data sets, or within one.

Each clip gives KEY_FRAMES signatures. Two clips are candidates where the frames of one find, in the median, a frame of the other that
correlates at CANDIDATE or more; all pairs are compared, block by block, at half the side, as they are and mirrored. A candidate is then
verified with all stored frames: the median over the frames of the shorter clip must reach SAME, and the frames that they find must come in
the same order.

Measured in benchmarks/overlap.py and docs/results/overlap.md. Not found in this version: copies that were cropped inside the field of view.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from usdata.duplicates.signatures import ClipSignature, Floats, coarser, correlations, flipped

KEY_FRAMES = 12
CANDIDATE = 0.45
SAME = 0.7
IN_ORDER = 0.6  # of the frames that find another, where there are ORDERED and more
ORDERED = 5
BLOCK = 64  # clips whose signatures are multiplied at once


@dataclass(frozen=True)
class Match:
    """Two clips that show the same scan.

    Attributes:
        a: video_id in the first set.
        b: video_id in the second.
        score: Median correlation of the shorter clip's frames with those that they find, 0 to 1.
        flip: One is the other's mirror image.
        frames_a: frame_index of the frames that were matched, first and last.
        frames_b: Likewise.
        best: Paths of the images that are most alike, of the first and of the second set.
    """

    a: str
    b: str
    score: float
    flip: bool
    frames_a: tuple[int, int]
    frames_b: tuple[int, int]
    best: tuple[str, str]


def candidates(a: Sequence[ClipSignature], b: Sequence[ClipSignature], *, within: bool) -> Iterator[tuple[int, int, bool]]:
    """Pairs (place in a, place in b, mirrored) that may be the same, in order.

    Args:
        a: Signatures of one set's clips.
        b: Of the other's.
        within: Both are the same set: each pair is looked at once, and no clip with itself.
    """
    small_a = [coarser(clip.vectors) for clip in a]
    small_b = small_a if within else [coarser(clip.vectors) for clip in b]
    for start in range(0, len(a), BLOCK):
        for other in range(start if within else 0, len(b), BLOCK):
            yield from _in_block(small_a[start : start + BLOCK], small_b[other : other + BLOCK], start, other, within)


def _in_block(a: Sequence[Floats], b: Sequence[Floats], first_a: int, first_b: int, within: bool) -> Iterator[tuple[int, int, bool]]:
    left, right = np.concatenate(a), np.concatenate(b)
    ends_a, ends_b = (np.cumsum([0] + [len(vectors) for vectors in side]) for side in (a, b))
    plain, mirrored = (_clip_scores(correlations(left, way), ends_a, ends_b) for way in (right, flipped(right)))
    for place_a, place_b in np.argwhere(np.maximum(plain, mirrored) >= CANDIDATE).tolist():
        if not within or first_b + place_b > first_a + place_a:
            yield first_a + place_a, first_b + place_b, bool(mirrored[place_a, place_b] > plain[place_a, place_b])


def _clip_scores(found: Floats, ends_a: NDArray[np.int64], ends_b: NDArray[np.int64]) -> Floats:
    """Of each clip with each: median over frames of the best correlation, from the side that finds more.

    Of a part of a clip all frames find one in the whole.

    Args:
        found: Correlation of each frame with each.
        ends_a: Where the frames of the rows' clips begin, and the end.
        ends_b: Likewise of the columns'.
    """
    from_a = np.maximum.reduceat(found, ends_b[:-1], axis=1)
    from_b = np.maximum.reduceat(found, ends_a[:-1], axis=0)
    by_a = [np.median(from_a[first:end], axis=0) for first, end in pairwise(ends_a.tolist())]
    by_b = [np.median(from_b[:, first:end], axis=1) for first, end in pairwise(ends_b.tolist())]
    return np.asarray(np.maximum(np.stack(by_a), np.stack(by_b, axis=1)), np.float32)


def verified(a: ClipSignature, b: ClipSignature, *, flip: bool) -> Match | None:
    """The match of two clips by all their frames; None where they are not the same.

    Args:
        a: One clip.
        b: The other.
        flip: Whether `b` is compared mirrored.
    """
    swapped = len(a.vectors) > len(b.vectors)
    table = correlations(a.vectors, flipped(b.vectors) if flip else b.vectors)
    table = table.T if swapped else table
    best = table.argmax(axis=1)
    found = table[np.arange(len(table)), best]
    score = float(np.median(found))
    sure = np.flatnonzero(found >= CANDIDATE)
    if score < SAME or not sure.size:
        return None
    if sure.size >= ORDERED and max(_rising(best[sure]), _rising(best[sure][::-1])) < IN_ORDER * sure.size:
        return None
    shorter, longer = (b, a) if swapped else (a, b)
    interval = _interval(shorter.frame_index[sure]), _interval(longer.frame_index[best[sure]])
    top = int(found.argmax())
    paths = shorter.paths[top], longer.paths[int(best[top])]
    if swapped:
        interval, paths = interval[::-1], paths[::-1]
    return Match(a.video_id, b.video_id, round(score, 4), flip, *interval, paths)


def matches(
    a: Sequence[ClipSignature],
    b: Sequence[ClipSignature],
    *,
    within: bool,
    whole: Callable[[int, int], tuple[ClipSignature, ClipSignature]],
) -> list[Match]:
    """All verified matches, by name.

    Args:
        a: Key signatures of one set's clips.
        b: Of the other's.
        within: Both are the same set.
        whole: Gives the signatures of all frames of a candidate's two clips, by their places.
    """
    found = []
    for place_a, place_b, flip in candidates(a, b, within=within):
        match = verified(*whole(place_a, place_b), flip=flip)
        if match is not None:
            found.append(match)
    return sorted(found, key=lambda match: (match.a, match.b))


def _interval(indices: NDArray[np.int64]) -> tuple[int, int]:
    return int(indices.min()), int(indices.max())


def _rising(numbers: NDArray[np.intp]) -> int:
    """Length of the longest run of numbers, not all neighbours, of which none is less than the one before (Fredman 1975)."""
    ends: list[int] = []
    for number in numbers.tolist():
        place = bisect_left(ends, number + 1)
        ends[place : place + 1] = [number]
    return len(ends)
