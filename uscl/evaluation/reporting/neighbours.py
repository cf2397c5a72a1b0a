"""Which frames are alike to a network: the nearest ones of other groups, and how often they share a value.

In: features, and the group and video of each frame. Out: row numbers, or a share beside what chance would give. Frames of the same group
never count: that they are alike says nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

QUERY_BATCH = 512


def unit_rows(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, D) features at length 1; zeros stay zeros."""
    rows = features.astype(np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def nearest_videos(
    features: NDArray[np.float32], groups: NDArray[np.str_], videos: NDArray[np.str_], query: int, count: int
) -> list[tuple[int, float]]:
    """The frames nearest to one, each of another video, all of other groups than its own.

    Args:
        features: (n, D).
        groups: (n,) independent groups.
        videos: (n,).
        query: Row number.
        count: How many.

    Returns:
        Row numbers and cosines, the nearest first; of equally near frames the earlier one. Fewer where there are fewer videos.
    """
    units = unit_rows(features)
    cosines = units @ units[query]
    found: list[tuple[int, float]] = []
    taken: set[str] = set()
    for row in np.argsort(-cosines, kind="stable").tolist():
        if groups[row] != groups[query] and str(videos[row]) not in taken:
            taken.add(str(videos[row]))
            found.append((row, float(cosines[row])))
            if len(found) == count:
                break
    return found


def shared_by_neighbours(
    features: NDArray[np.float32], groups: NDArray[np.str_], values: NDArray[np.str_], count: int
) -> tuple[float, float] | None:
    """How often a frame's nearest frames of other groups have its value, and how often any frames of other groups have.

    Args:
        features: (n, D).
        groups: (n,).
        values: (n,).
        count: Neighbours of each frame (fewer where other groups have fewer frames).

    Returns:
        Two means over frames, 0 to 1; None where there is one group only.
    """
    units = unit_rows(features)
    near, chance = [], []
    for start in range(0, len(units), QUERY_BATCH):
        part = slice(start, start + QUERY_BATCH)
        other = groups[part, None] != groups[None, :]
        cosines = np.where(other, units[part] @ units.T, -np.inf)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        equal = values[part, None] == values[None, :]
        counted = np.take_along_axis(other, order, axis=1)
        some = counted.any(axis=1)
        near += (np.take_along_axis(equal & other, order, axis=1).sum(axis=1)[some] / counted.sum(axis=1)[some]).tolist()
        chance += ((equal & other).sum(axis=1)[some] / other.sum(axis=1)[some]).tolist()
    return (float(np.mean(near)), float(np.mean(chance))) if near else None
