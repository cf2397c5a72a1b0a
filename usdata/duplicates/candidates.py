"""Which pairs of clips are worth a closer look: each clip with those whose descriptors come nearest.

A clip's whole picture is compared with every cell of every other clip, as it is and mirrored: of all pairs where clips are few, of those
that an index finds where they are many. Whichever found a pair, how like it is and from where it is aligned are computed exactly,
and nothing depends on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usdata.console import say
from usdata.duplicates import index
from usdata.duplicates.all_pairs import near_pairs
from usdata.duplicates.bands import Bands, Descriptors
from usdata.duplicates.content import Start
from usdata.duplicates.nearest import LEAST_LIKE, Pairs, nearest
from usdata.duplicates.setting_up import all_starts, set_up

MOST, MOST_HINTED = 12, 36  # clips that one is looked at with; where the two sets are known to hold the same scans
INDEXED = 10_000  # clips, geometric mean of two sets, up to which all pairs take less than a minute, and nothing is missed
SLOW = 20_000  # from which it says so where the index is missing

__all__ = ["INDEXED", "LEAST_LIKE", "MOST", "MOST_HINTED", "Candidate", "Descriptors", "candidates"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair of clips, by their places, and from where to align them, the likeliest first."""

    a: int
    b: int
    likeness: float
    starts: tuple[Start, ...]


def candidates(
    a: Descriptors | Bands, b: Descriptors | Bands | None = None, *, most: int = MOST, indexed: bool | None = None
) -> list[Candidate]:
    """Pairs that may show the same scan, by place: of each clip, on either side, the nearest ones of the other that are LEAST_LIKE alike.

    Args:
        a: (clips, len(CELLS), NUMBERS) of one set, or bands of them.
        b: Of another; None: pairs within `a`, each once.
        most: Clips that one is looked at with.
        indexed: Search by the index, which may miss a pair in a hundred; None: where there are many clips and faiss is installed.
    """
    first = a if isinstance(a, Bands) else Bands(a)
    second = first if b is None else b if isinstance(b, Bands) else Bands(b)
    within = b is None
    if by_index(len(first), len(second), indexed):
        found = index.near_pairs(first, second, most, within=within)
    else:
        found = near_pairs(first, second, most, within=within)
    likeness, starts = set_up(first, second, found.a, found.b)
    kept = nearest(Pairs(found.a, found.b, likeness), most, within=within)
    every = (*all_starts(), None)  # the last for NO_START
    return [
        Candidate(place_a, place_b, value, tuple(start for number in numbers if (start := every[number]) is not None))
        for place_a, place_b, value, numbers in zip(
            found.a[kept].tolist(), found.b[kept].tolist(), likeness[kept].tolist(), starts[kept].tolist(), strict=True
        )
    ]


def by_index(clips_a: int, clips_b: int, indexed: bool | None) -> bool:
    """Whether so many clips of two sets (or twice of one) are searched by the index; `indexed` as of `candidates`."""
    clips = float(np.sqrt(clips_a * clips_b))
    if indexed is not None or clips < INDEXED:
        return bool(indexed)
    if index.is_installed():
        return True
    if clips >= SLOW:
        say(f"comparing all pairs of {max(clips_a, clips_b)} clips takes long; for an index: pip install 'usdata-uscl[index]'")
    return False
