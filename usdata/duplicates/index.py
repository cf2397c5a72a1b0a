"""The nearest clips of each clip by an index: an inverted file of cells, searched with whole pictures (faiss, the extra `index`).

Cells of all clips are sorted into lists, each around a centre; a whole picture, plain and mirrored, is compared with the cells of the few
lists whose centres are nearest to it (Jegou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search", 2011, without the
quantisation: cells stay as they are, 64 bytes each). Lists are filled and searched a shard at a time, so that memory stays bounded.

Centres, cells and wholes are whole numbers, so that every product is exact in float32: the answer is the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usdata.duplicates.bands import BAND, Bands
from usdata.duplicates.descriptors import CELLS, MIRRORED, NUMBERS, WHOLE_NUMBERS
from usdata.duplicates.nearest import LEAST_LIKE, NearPairs, Pairs, joined

SHARD = 16 * BAND  # clips whose cells are in lists at once: 300 MB
CELLS_IN_LIST, MOST_LISTS = 1000, 4096
TRAINED_ON, ROUNDS = 48, 8  # cells a list, and rounds of k-means, by which its centre is found
VISITED = 96  # lists that a whole picture is compared with
FOUND = 64  # cells that are nearest to it; those of one clip are many, since cells overlap
SLACK = 0.02  # by which a likeness that the index finds may lie below the exact one: rounded cells are not quite of length WHOLE_NUMBERS
SPARE = 2  # times so many clips as asked for are scored exactly
QUERIES = 16_384  # wholes at once

HELD = np.arange(0, len(CELLS), 2)  # cells that lists hold, a checkerboard: the others lie between them, and are compared in the end

Floats = NDArray[np.float32]
WIDTH = 64  # of a vector in the index: NUMBERS, and a zero, since faiss wants multiples of 8


def is_installed() -> bool:
    """Whether faiss can be imported."""
    return find_spec("faiss") is not None


def near_pairs(first: Bands, second: Bands, most: int, *, within: bool) -> Pairs:
    """Pairs that are likely among the `most` nearest of either clip, by place, each once; their likeness is a lower bound.

    Args:
        first: Descriptors of one set.
        second: Of the other, or the same.
        most: Clips that one is looked at with.
        within: Pairs within one set.
    """
    sides = [_search(first.wholes, second, within=within)]
    if not within:
        sides += [Pairs(pairs.b, pairs.a, pairs.likeness) for pairs in [_search(second.wholes, first, within=False)]]
    both = joined(sides)
    a, b = (np.minimum(both.a, both.b), np.maximum(both.a, both.b)) if within else (both.a, both.b)
    order = np.lexsort((-both.likeness, b, a))
    once = np.concatenate([[True], (np.diff(a[order]) != 0) | (np.diff(b[order]) != 0)])[: len(order)]
    found = NearPairs(len(first), len(second), SPARE * most, within=within)
    found.add(Pairs(a, b, both.likeness)[order[once]])
    return found.found()


def _search(wholes: NDArray[np.int8], cells: Bands, *, within: bool) -> Pairs:
    """Of each whole, the clips whose cells come nearest; `a` is the whole's place."""
    import faiss

    centres = faiss.IndexFlatIP(WIDTH)
    centres.add(_centres(cells))
    parts = []
    for start in range(0, len(cells), SHARD):
        shard = _shard(centres, cells, start)
        for query in range(0, len(wholes), QUERIES):
            parts.append(_searched(shard, wholes[query : query + QUERIES], query, start, within=within))
    return joined(parts)


def _searched(shard: Any, wholes: NDArray[np.int8], place: int, start: int, *, within: bool) -> Pairs:
    """The clips of a shard, from place `start` on, that are nearest to some wholes, from `place` on."""
    lengths = np.sqrt(np.maximum(np.sum(wholes.astype(np.float32) ** 2, axis=1), 1))
    values, clips = [], []
    for signs in (1, MIRRORED):
        products, cells = shard.search(_vectors(wholes * signs), FOUND)
        values.append(np.where(cells >= 0, products, -np.inf) / (lengths[:, None] * WHOLE_NUMBERS))
        clips.append(np.where(cells >= 0, cells // len(HELD) + start, -1))
    value, clip = np.concatenate(values, axis=1).astype(np.float32), np.concatenate(clips, axis=1)
    # Of the cells of one clip, the nearest alone.
    order = np.lexsort((-value, clip), axis=1)
    value, clip = np.take_along_axis(value, order, axis=1), np.take_along_axis(clip, order, axis=1)
    whole = np.broadcast_to(np.arange(len(wholes))[:, None] + place, clip.shape)
    kept = (clip >= 0) & (np.diff(clip, axis=1, prepend=-1) != 0) & (value >= LEAST_LIKE - SLACK)
    if within:
        kept &= clip != whole
    return Pairs(whole[kept], clip[kept], value[kept])


def _shard(centres: Any, cells: Bands, start: int) -> Any:
    """An inverted file of the cells of SHARD clips, from place `start` on."""
    import faiss

    lists = faiss.IndexIVFScalarQuantizer(
        centres, WIDTH, centres.ntotal, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT, False
    )
    lists.is_trained = True
    lists.nprobe = min(VISITED, centres.ntotal)
    for number in range(start // BAND, min(cells.number, (start + SHARD) // BAND)):
        lists.add(_vectors(cells.band(number)[:, HELD].reshape(-1, NUMBERS)))
    return lists


def _centres(cells: Bands) -> Floats:
    """(lists, WIDTH): spherical k-means of evenly drawn cells, rounded to whole numbers in each round."""
    import faiss

    number = int(min(MOST_LISTS, max(1, min(len(cells), SHARD) * len(HELD) // CELLS_IN_LIST)))
    sample = _vectors(np.concatenate(list(_drawn(cells, number * TRAINED_ON))))
    centres = sample[np.linspace(0, len(sample) - 1, number).astype(int)]
    for _ in range(ROUNDS):
        lists = faiss.IndexFlatIP(WIDTH)
        lists.add(centres)
        nearest = lists.search(sample, 1)[1][:, 0]
        order = np.argsort(nearest, kind="stable")
        held, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order].astype(np.float64), starts, axis=0)
        lengths = np.sqrt(np.maximum(np.sum(sums * sums, axis=1, keepdims=True), 1))
        centres[held] = np.rint(sums / lengths * WHOLE_NUMBERS)
    return centres


def _drawn(cells: Bands, number: int) -> Iterator[NDArray[np.int8]]:
    """About so many cells, evenly over all bands."""
    step = max(1, len(cells) * len(HELD) // number)
    step += step % len(HELD) == 0  # not the same cell of each clip
    for band in range(cells.number):
        yield cells.band(band)[:, HELD].reshape(-1, NUMBERS)[(-band * BAND * len(HELD)) % step :: step]


def _vectors(descriptors: NDArray[np.int8]) -> Floats:
    """(n, WIDTH) float32, with the zero."""
    vectors = np.zeros((len(descriptors), WIDTH), np.float32)
    vectors[:, :NUMBERS] = descriptors
    return vectors
