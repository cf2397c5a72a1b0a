"""Of pairs of clips and how like they are: those that are among the nearest ones of either clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_LIKE = 0.5
MARGIN = 2e-4  # more than rounding to four decimals and float32 sums can move a likeness
MOST_HELD = 4_000_000  # pairs between two prunings, 80 MB


@dataclass(frozen=True)
class Pairs:
    """Pairs of clips by their places: `a` and `b` (pairs,) int64, `likeness` (pairs,) float32."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    likeness: NDArray[np.float32]

    def __len__(self) -> int:
        """Pairs."""
        return len(self.a)

    def __getitem__(self, places: NDArray[np.generic]) -> Pairs:
        """Some of them."""
        return Pairs(self.a[places], self.b[places], self.likeness[places])


def joined(parts: Iterable[Pairs]) -> Pairs:
    """Pairs one part after the other."""
    empty = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    every = [empty, *parts]
    return Pairs(*(np.concatenate([getattr(part, name) for part in every]) for name in ("a", "b", "likeness")))


class NearPairs:
    """Collects pairs whose likeness is known to within MARGIN / 2, and keeps those that may be among the nearest.

    Attributes:
        least_a: Likeness below which a pair is no use to each clip of the first set, (clips,) float32.
        least_b: Of the second set; the same array where there is one set.
    """

    def __init__(self, clips_a: int, clips_b: int, most: int, *, within: bool) -> None:
        self._most, self._within = most, within
        self.least_a = np.full(clips_a, LEAST_LIKE - MARGIN, np.float32)
        self.least_b = self.least_a if within else np.full(clips_b, LEAST_LIKE - MARGIN, np.float32)
        self._parts: list[Pairs] = []
        self._held = 0
        self._kept = 0

    def add(self, pairs: Pairs) -> None:
        """Add some pairs; none of them twice."""
        self._parts.append(pairs)
        self._held += len(pairs)
        if self._held > max(MOST_HELD, 2 * self._kept):
            self._prune()

    def found(self) -> Pairs:
        """All that may be among the nearest, by place."""
        pairs = self._prune()
        return pairs[np.lexsort((pairs.b, pairs.a))]

    def _prune(self) -> Pairs:
        pairs = joined(self._parts)
        sides = [(np.concatenate([pairs.a, pairs.b]), self.least_a)] if self._within else [(pairs.a, self.least_a), (pairs.b, self.least_b)]
        for places, least in sides:
            likeness = np.tile(pairs.likeness, len(places) // max(len(pairs), 1))
            order = np.lexsort((-likeness, places))
            last = order[_ranks(places[order]) == self._most - 1]
            least[places[last]] = np.maximum(least[places[last]], likeness[last] - MARGIN)
        pairs = pairs[np.flatnonzero((pairs.likeness >= self.least_a[pairs.a]) | (pairs.likeness >= self.least_b[pairs.b]))]
        self._parts, self._held, self._kept = [pairs], len(pairs), len(pairs)
        return pairs


def nearest(pairs: Pairs, most: int, *, within: bool) -> NDArray[np.int64]:
    """Places in `pairs` of those that are LEAST_LIKE alike and among the `most` nearest of either clip; of equal ones the first by place.

    Args:
        pairs: Sorted by place, each once.
        most: Clips that one is looked at with.
        within: Both places are of one set.
    """
    like = np.flatnonzero(pairs.likeness >= np.float32(LEAST_LIKE))
    some = pairs[like]
    clips = np.concatenate([some.a, some.b + (0 if within else some.a.max(initial=0) + 1)])
    order = np.lexsort((np.concatenate([some.b, some.a]), -np.tile(some.likeness, 2), clips))
    kept = np.zeros(2 * len(some), bool)
    kept[order[_ranks(clips[order]) < most]] = True
    return np.asarray(like[kept[: len(some)] | kept[len(some) :]], np.int64)


def _ranks(clips: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of sorted numbers, how many equal ones stand before each."""
    places = np.arange(len(clips))
    starts = np.concatenate([[True], clips[1:] != clips[:-1]])[: len(clips)]
    return np.asarray(places - np.maximum.accumulate(np.where(starts, places, 0)), np.int64)
