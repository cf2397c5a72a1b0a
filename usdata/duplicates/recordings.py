"""Frames of which nobody says what clip they are of: which show the same recording, as far as pictures tell.

In: frames in numbers, their fine structure at 64 x 64. Out: a recording's number a frame. Two frames are of one recording where each is
among the NEIGHBOURS nearest ones of the other and they are SAME_RECORDING alike, or where they are near copies. All sums are of whole
numbers and exact, so equal frames give equal recordings on any machine.

On 1,919 frames of 112 POCUS clips of 30 groups (three a second) no recording holds frames of two groups, a clip falls into 1.7 of them,
and frames of two groups are nowhere more than 0.80 alike (`python benchmarks/recordings.py SET`). So a recording is the least that belongs
together: a clip may be in several, and a patient's clips mostly are.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from usdata.duplicates.descriptors import AROUND, band

SIDE = 64
NEIGHBOURS = 6
SAME_RECORDING = 0.40
NEAR_COPY = 0.85  # above all that frames of two groups were
WHOLE_NUMBERS = 60.0  # what the band, within 2 of 0, is multiplied with; its distance from its mean fits into a byte
ROWS = 256  # compared with all others at once


@dataclass(frozen=True)
class Recordings:
    """What is of one recording.

    Attributes:
        number: (n,) the recording of each frame, numbered from 0 by their first frames.
        copied: (n,) whether a near copy of the frame stands in another part.
        likeness: (n,) how like each frame's nearest one of another part is, -1 to 1; -1 where there is no other part.
    """

    number: NDArray[np.int64]
    copied: NDArray[np.bool_]
    likeness: NDArray[np.float64]


def describe_frame(gray: NDArray[np.uint8]) -> NDArray[np.int8]:
    """(SIDE * SIDE,) numbers of a gray frame (H, W): its fine structure over its local contrast, about its mean; zeros where it is flat."""
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = band(small, AROUND)
    return np.clip(np.rint((fine - fine.mean()) * WHOLE_NUMBERS), -127, 127).astype(np.int8).ravel()


def nearest_frames(frames: NDArray[np.int8], others: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(n,) the place of the nearest one of others for each frame, of equally near ones the first, and (n,) how like it is, -1 to 1."""
    values, theirs = frames.astype(np.float64), others.astype(np.float64)
    place, best = np.zeros(len(frames), np.int64), np.zeros(len(frames))
    for start in range(0, len(frames), ROWS):
        rows = slice(start, start + ROWS)
        likeness = values[rows] @ theirs.T / (_lengths(values[rows])[:, None] * _lengths(theirs))
        place[rows], best[rows] = likeness.argmax(axis=1), likeness.max(axis=1)
    return place, best


def _lengths(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.maximum((values * values).sum(axis=1), 1)))


def find_recordings(frames: NDArray[np.int8], parts: NDArray[np.int64]) -> Recordings:
    """Join frames to recordings.

    Args:
        frames: (n, SIDE * SIDE) of `describe_frame`.
        parts: (n,) the part (fold) that each stands in; it decides nothing about recordings.
    """
    count = len(frames)
    values = frames.astype(np.float64)
    lengths = _lengths(values)
    nearest = np.full((count, NEIGHBOURS), -1, np.int64)
    elsewhere = np.full(count, -1.0)
    copies: list[NDArray[np.int64]] = [np.zeros((2, 0), np.int64)]
    for start in range(0, count, ROWS):
        rows = np.arange(start, min(start + ROWS, count))
        likeness = values[rows] @ values.T / (lengths[rows, None] * lengths)
        likeness[np.arange(len(rows)), rows] = -np.inf
        near = np.nonzero(likeness >= NEAR_COPY)
        copies.append(np.stack([rows[near[0]], near[1]]))
        other = parts[rows, None] != parts
        elsewhere[rows] = np.where(other, likeness, -1).max(axis=1)
        # Of equally near ones the first.
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :NEIGHBOURS]
        alike = np.take_along_axis(likeness, order, axis=1) >= SAME_RECORDING
        nearest[rows, : order.shape[1]] = np.where(alike, order, -1)
    there = np.flatnonzero(nearest.ravel() >= 0)
    a, b = np.repeat(np.arange(count), NEIGHBOURS)[there], nearest.ravel()[there]
    both = np.isin(a * count + b, b * count + a)
    joined = np.concatenate([np.stack([a[both], b[both]]), *copies], axis=1)
    graph = coo_matrix((np.ones(joined.shape[1], np.int8), (joined[0], joined[1])), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return Recordings(rank[inverse].astype(np.int64), elsewhere >= NEAR_COPY, elsewhere)
