"""A pointer that moves over the picture: the same small bright shape, here in one frame and there in the next.

Frames are compared with their two neighbours in time: what is far brighter in one than in both is a candidate. Tissue changes all the time,
but does not show one shape again and again; so a pointer is told by candidates whose outlines, laid on each other, agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

BRIGHTER = 70  # gray levels above both neighbours in time
AREAS = (6, 160)  # working pixels
SIDE = 21  # working pixels: of the patch in which outlines are compared
ALIKE = 0.55  # intersection over union of two outlines
FEWEST = 5  # frames in which it stands elsewhere
FIRST_LOOK, FEWEST_AT_FIRST = 9, 3  # after so many frames so many alike are asked for
MOST_TRIED = 6  # pieces of one frame, the largest
LEAST_SHARE = 0.5  # of the frames with a candidate show the same shape


def pointer_in(frames: Sequence[NDArray[np.uint8]]) -> list[tuple[int, int]]:
    """Where a pointer was seen, (x, y) in working pixels, one place a frame; empty where there is none.

    Args:
        frames: Evenly spaced unique frames in order of time, (H, W) uint8 of one shape.
    """
    outlines: list[NDArray[np.uint8]] = []
    places: list[tuple[int, int]] = []
    for number, (before, frame, after) in enumerate(zip(frames, frames[1:], frames[2:], strict=False), 1):
        found = _candidate(cv2.subtract(frame, cv2.max(before, after)))
        if found is not None:
            outlines.append(found[0])
            places.append(found[1])
        # Tissue is left early: of its candidates hardly two are alike.
        if number == FIRST_LOOK and (len(outlines) < FEWEST_AT_FIRST or _same_shape(outlines).sum() < FEWEST_AT_FIRST):
            return []
    if len(outlines) < FEWEST:
        return []
    same = _same_shape(outlines)
    if same.sum() < max(FEWEST, LEAST_SHARE * len(outlines)):
        return []
    seen = [place for place, counts in zip(places, same, strict=True) if counts]
    return seen if len(set(seen)) >= FEWEST else []


def _same_shape(outlines: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_]:
    """Which outlines agree with the one that most agree with."""
    stack = np.stack(outlines).reshape(len(outlines), -1).astype(np.float32)
    both = stack @ stack.T
    areas = stack.sum(axis=1)
    alike = both / (areas[:, None] + areas[None] - both) >= ALIKE
    return np.asarray(alike[int(alike.sum(axis=1).argmax())], bool)


def _candidate(brighter: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
    """The outline (SIDE, SIDE) of the piece that is brighter by the most, centred on it, and its place; None where none is as small."""
    pieces = cv2.threshold(brighter, BRIGHTER, 1, cv2.THRESH_BINARY)[1]
    left, top, width, height = cv2.boundingRect(pieces)
    if not width:
        return None
    part = np.s_[top : top + height, left : left + width]
    _, labels, boxes, centres = cv2.connectedComponentsWithStats(pieces[part], connectivity=8)
    areas = boxes[:, cv2.CC_STAT_AREA]
    fits = (areas >= AREAS[0]) & (areas <= AREAS[1]) & (boxes[:, cv2.CC_STAT_WIDTH : cv2.CC_STAT_HEIGHT + 1].max(axis=1) <= SIDE - 2)
    fits[0] = False
    best, most = 0, 0
    for piece in np.flatnonzero(fits)[np.argsort(-areas[fits], kind="stable")][:MOST_TRIED].tolist():
        x, y, wide, high = (int(value) for value in boxes[piece, :4])
        box = np.s_[y : y + high, x : x + wide]
        amount = int(brighter[part][box][labels[box] == piece].sum())
        best, most = (piece, amount) if amount > most else (best, most)
    if not best:
        return None
    x, y = (round(float(value)) for value in centres[best])
    padded = cv2.copyMakeBorder((labels == best).astype(np.uint8), SIDE, SIDE, SIDE, SIDE, cv2.BORDER_CONSTANT, value=0)
    row, column = y + SIDE - SIDE // 2, x + SIDE - SIDE // 2
    return padded[row : row + SIDE, column : column + SIDE], (left + x, top + y)
