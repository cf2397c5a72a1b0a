"""What is known exactly of given pairs of clips before their pictures are read: how like they are, and from where to align them.

Pairs are taken in blocks, those of two bands together, so that memory stays bounded. A mirrored product differs from a plain one in the
sign of its odd part alone, so both cost one. Products of whole numbers below 2**24 are exact in float32: the answer is the same on any
machine.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from usdata.duplicates.bands import BAND, Bands, Descriptors
from usdata.duplicates.content import Start
from usdata.duplicates.descriptors import CELLS, MIRRORED, NUMBERS

STARTS, APART = 4, 0.05  # of a pair, and how far from one another
BLOCK = 512  # pairs at once, 20 MB
NO_START = -1

ODD = np.flatnonzero(MIRRORED < 0)
EVEN = np.flatnonzero(MIRRORED > 0)

Places = NDArray[np.int64]


@cache
def all_starts() -> tuple[Start, ...]:
    """Every start there is, in the order in which equal ones are tried: plain before mirrored, a in b before b in a."""
    return tuple(Start(flip, around, cell) for flip in (False, True) for around in (False, True) for cell in range(len(CELLS)))


@cache
def _near() -> NDArray[np.bool_]:
    """(starts, starts): which are nearly the same."""
    starts = all_starts()
    # Of a in b, whichever of the two is the cell.
    placements = [start.placement.inverse if start.around else start.placement for start in starts]
    numbers = np.array([[each.x, each.y, each.width, each.height] for each in placements])
    flips = np.array([start.flip for start in starts])
    distances = np.abs(numbers[:, None] - numbers).max(axis=2)
    return np.asarray((distances <= APART) & (flips[:, None] == flips))


def set_up(first: Bands, second: Bands, a: Places, b: Places) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Of pairs of clips by their places, likeness (pairs,) to four decimals, and starts (pairs, STARTS), the likeliest first.

    Args:
        first: Descriptors of one set.
        second: Of the other, or the same.
        a: Place in the first of each pair, (pairs,).
        b: In the second.

    Returns:
        Likeness: the best of whole against cells, either way round, plain or mirrored. Starts: numbers in `all_starts`; NO_START where
        there are no more that lie apart.
    """
    likeness, starts = np.zeros(len(a), np.float32), np.full((len(a), STARTS), NO_START, np.int16)
    bands_a, bands_b = a // BAND, b // BAND
    order = np.lexsort((a, bands_b, bands_a))
    changes = np.flatnonzero(np.diff(bands_a[order]) | np.diff(bands_b[order])) + 1
    held = -1
    band_a: Descriptors = np.zeros((0, len(CELLS), NUMBERS), np.int8)
    for together in np.split(order, changes) if len(order) else []:
        if bands_a[together[0]] != held:
            held = int(bands_a[together[0]])
            band_a = first.band(held)
        band_b = second.band(int(bands_b[together[0]]))
        for start in range(0, len(together), BLOCK):
            some = together[start : start + BLOCK]
            likeness[some], starts[some] = _of_block(band_a[a[some] % BAND], band_b[b[some] % BAND])
    return likeness, starts


def _of_block(a: Descriptors, b: Descriptors) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """The same of pairs side by side, (pairs, len(CELLS), NUMBERS) each."""
    best = np.zeros(len(a), np.float32)
    exact = np.empty((len(a), 2, 2, len(CELLS)))
    for around, (one, other) in enumerate(((a, b), (b, a))):
        cells = other.astype(np.float32)
        whole = one[:, 0].astype(np.float32)
        split = np.zeros((len(a), NUMBERS, 2), np.float32)
        split[:, EVEN, 0], split[:, ODD, 1] = whole[:, EVEN], whole[:, ODD]
        even, odd = np.moveaxis(cells @ split, 2, 0)
        squares = np.maximum(np.einsum("pcn,pcn->pc", cells, cells), 1), np.maximum(np.einsum("pn,pn->p", whole, whole), 1)
        lengths = np.sqrt(squares[0]), np.sqrt(squares[1])
        np.maximum(best, ((even + np.abs(odd)) / lengths[0]).max(axis=1) / lengths[1], out=best)
        lengths_64 = np.sqrt(squares[0], dtype=np.float64), np.sqrt(squares[1], dtype=np.float64)[:, None]
        for flip, products in enumerate((even + odd, even - odd)):
            exact[:, flip, around] = products / lengths_64[0] / lengths_64[1]
    return np.round(best, 4), _apart(np.round(exact.reshape(len(a), -1), 4))


def _apart(values: NDArray[np.float64]) -> NDArray[np.int16]:
    """(pairs, STARTS): the best of `all_starts`, of equal ones the first, without those that are near a better one.

    Args:
        values: Likeness from each start, (pairs, starts); overwritten.
    """
    found = np.full((len(values), STARTS), NO_START, np.int16)
    rows = np.arange(len(values))
    for place in range(STARTS):
        best = values.argmax(axis=1)
        left = values[rows, best] > -np.inf
        found[left, place] = best[left]
        values[_near()[best]] = -np.inf
    return found
