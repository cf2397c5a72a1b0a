"""The nearest clips of each clip by comparing all pairs: whole pictures against every cell, in blocks of bounded size.

Time grows with the square of the number of clips. What comes out may hold a few pairs more than the nearest, never one fewer.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from usdata.duplicates.bands import BAND, Bands, Descriptors
from usdata.duplicates.descriptors import CELLS, NUMBERS
from usdata.duplicates.nearest import NearPairs, Pairs, joined
from usdata.duplicates.setting_up import EVEN, ODD
from usdata.engines import default_workers

WHOLES, CELLED = 256, 16  # clips whose whole pictures, and clips whose cells, are multiplied at once: products of 1.2 MB stay in the cache

Floats = NDArray[np.float32]


def near_pairs(first: Bands, second: Bands, most: int, *, within: bool) -> Pairs:
    """The pairs that may be among the `most` nearest of either clip, by place.

    Args:
        first: Descriptors of one set.
        second: Of the other, or the same.
        most: Clips that one is looked at with.
        within: Pairs within one set, each once.
    """
    found = NearPairs(len(first), len(second), most, within=within)
    # Threads that each take whole blocks; within a product they would wait for one another.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(default_workers()) as threads:
        for number_a in range(first.number):
            band_a = first.band(number_a)
            for number_b in range(number_a if within else 0, second.number):
                band_b = second.band(number_b)
                at, same = (number_a * BAND, number_b * BAND), within and number_a == number_b
                compare = partial(_of_row, band_a, band_b, found, at=at, same=same)
                for pairs in threads.map(compare, range(0, len(band_a), WHOLES)):
                    found.add(pairs)
    return found.found()


def _of_row(a: Descriptors, b: Descriptors, found: NearPairs, row: int, *, at: tuple[int, int], same: bool) -> Pairs:
    """The pairs of WHOLES clips of `a` with those of `b` that may be wanted; each once where both are the same."""
    wholes_b, parts = _units(b[:, 0]), []
    rows = a[row : row + WHOLES]
    wholes_a, cells_a = _units(rows[:, 0]), _units(rows)
    for column in range(row if same else 0, len(b), WHOLES):
        columns = b[column : column + WHOLES]
        likeness = np.maximum(_best(wholes_a, _units(columns)), _best(wholes_b[column : column + WHOLES], cells_a).T)
        if same and row == column:
            likeness[np.tril_indices(len(likeness))] = -1
        places_a, places_b = at[0] + row, at[1] + column
        least_a = found.least_a[places_a : places_a + len(rows)]
        least_b = found.least_b[places_b : places_b + len(columns)]
        near = np.nonzero(likeness >= np.minimum(least_a[:, None], least_b))
        parts.append(Pairs(near[0] + places_a, near[1] + places_b, likeness[near]))
    return joined(parts)


def _best(wholes: Floats, cells: Floats) -> Floats:
    """(wholes, clips): the best cell, plain or mirrored; unit vectors, (clips, NUMBERS) and (clips, len(CELLS), NUMBERS)."""
    best = np.empty((len(wholes), len(cells)), np.float32)
    even, odd = np.ascontiguousarray(wholes[:, EVEN]), np.ascontiguousarray(wholes[:, ODD])
    for start in range(0, len(cells), CELLED):
        some = cells[start : start + CELLED].reshape(-1, NUMBERS)
        products = odd @ some[:, ODD].T
        np.abs(products, out=products)
        products += even @ some[:, EVEN].T
        best[:, start : start + CELLED] = products.reshape(len(wholes), -1, len(CELLS)).max(axis=2)
    return best


def _units(descriptors: Descriptors) -> Floats:
    values = descriptors.astype(np.float32)
    return np.asarray(values / np.sqrt(np.maximum(np.sum(values * values, axis=-1, keepdims=True), 1)), np.float32)
