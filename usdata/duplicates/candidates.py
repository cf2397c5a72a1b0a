"""Which pairs of clips are worth a closer look: each clip with those whose descriptors come nearest.

A clip's whole picture is compared with every cell of every other clip, as it is and mirrored. All pairs are compared, in blocks of bounded
size; products of whole numbers below 2**24 are exact in float32, so the answer is the same on any machine.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usdata.duplicates.alignment import Placement
from usdata.duplicates.content import Start
from usdata.duplicates.descriptors import CELLS, MIRRORED, NUMBERS

MOST, MOST_HINTED = 12, 36  # clips that one is looked at with; where the two sets are known to hold the same scans
LEAST_LIKE = 0.5
STARTS, APART = 4, 0.05  # of a pair, and how far from one another
BLOCK = 256  # clips whose whole pictures, and as many whose cells, are compared at once

Descriptors = NDArray[np.int8]


@dataclass(frozen=True)
class Candidate:
    """A pair of clips, by their places, and from where to align them, the likeliest first."""

    a: int
    b: int
    likeness: float
    starts: tuple[Start, ...]


def candidates(a: Descriptors, b: Descriptors | None = None, *, most: int = MOST) -> list[Candidate]:
    """Pairs that may show the same scan, by place.

    Args:
        a: (clips, len(CELLS), NUMBERS) of one set.
        b: Of another; None: pairs within `a`, each once.
        most: Clips that one is looked at with.
    """
    other = a if b is None else b
    pairs = _nearest(a, other, most, within=b is None)
    return [_candidate(place_a, place_b, likeness, a[place_a], other[place_b]) for (place_a, place_b), likeness in sorted(pairs.items())]


def _nearest(a: Descriptors, b: Descriptors, most: int, *, within: bool) -> dict[tuple[int, int], float]:
    """Of each clip, on either side, so many nearest ones of the other that are LEAST_LIKE alike."""
    best_of_a: dict[int, list[tuple[float, int]]] = defaultdict(list)
    best_of_b: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for start in range(0, len(a), BLOCK):
        for other in range(start if within else 0, len(b), BLOCK):
            likeness = _likeness(a[start : start + BLOCK], b[other : other + BLOCK])
            if within and other == start:
                likeness[np.tril_indices(len(likeness))] = -1
            for row, column in np.argwhere(likeness >= LEAST_LIKE).tolist():
                value = float(likeness[row, column])
                _keep(best_of_a[start + row], (value, -(other + column)), most)
                _keep((best_of_a if within else best_of_b)[other + column], (value, -(start + row)), most)
    pairs: dict[tuple[int, int], float] = {}
    for place, nearest in best_of_a.items():
        pairs |= {((min(place, -other), max(place, -other)) if within else (place, -other)): value for value, other in nearest}
    for place, nearest in best_of_b.items():
        pairs |= {(-other, place): value for value, other in nearest}
    return pairs


def _keep(nearest: list[tuple[float, int]], found: tuple[float, int], most: int) -> None:
    if len(nearest) < most:
        heapq.heappush(nearest, found)
    elif found > nearest[0]:
        heapq.heapreplace(nearest, found)


def _likeness(a: Descriptors, b: Descriptors) -> NDArray[np.float32]:
    """(len(a), len(b)): the best of whole against cells, either way round, plain or mirrored; to four decimals."""
    best = np.full((len(a), len(b)), -1, np.float32)
    for one, other, turned in ((a, b, False), (b, a, True)):
        whole, cells = one[:, 0].astype(np.float32), other.reshape(-1, NUMBERS).astype(np.float32)
        lengths = _lengths(whole)[:, None], _lengths(cells).reshape(len(other), -1)
        for sign in (np.ones(NUMBERS, np.float32), MIRRORED.astype(np.float32)):
            products = ((whole * sign) @ cells.T).reshape(len(one), len(other), len(CELLS)) / lengths[1]
            found = np.asarray(products.max(axis=2) / lengths[0], np.float32)
            np.maximum(best, found.T if turned else found, out=best)
    return np.asarray(np.round(best, 4), np.float32)


def _lengths(rows: NDArray[Any]) -> NDArray[Any]:
    """Of each row; of an even picture, which is nothing, 1."""
    return np.maximum(np.sqrt((rows * rows).sum(axis=1)), 1)


def _candidate(place_a: int, place_b: int, likeness: float, a: Descriptors, b: Descriptors) -> Candidate:
    """The pair with its starts."""
    found = []
    for around, (one, other) in enumerate(((a, b), (b, a))):
        whole, cells = one[0].astype(np.int64), other.astype(np.int64)
        lengths, length = _lengths(cells), _lengths(whole[None])[0]
        for flip in (False, True):
            products = cells @ (whole * MIRRORED if flip else whole) / lengths / length
            found += [(-round(float(value), 4), flip, bool(around), cell) for cell, value in enumerate(products)]
    starts = (Start(flip, around, cell) for _, flip, around, cell in sorted(found))
    return Candidate(place_a, place_b, likeness, tuple(_apart(starts)))


def _apart(starts: Iterator[Start]) -> Sequence[Start]:
    """The first of them that are not nearly the same."""
    kept: list[tuple[Start, Placement]] = []
    for start in starts:
        placement = start.placement
        if all(other.flip != start.flip or placement.distance(known) > APART for other, known in kept):
            kept.append((start, placement))
            if len(kept) == STARTS:
                break
    return [start for start, _ in kept]
