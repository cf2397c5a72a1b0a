"""Which pixels of a clip look like tissue, by what moves in it: scanners' surroundings stand still.

Clips in which nothing moves (stills, frozen scans) are judged by what is lit.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.evidence import Evidence

Floats = NDArray[np.float32]

LEAST_ACTIVITY = 0.35  # gray levels: below it nothing moves, whatever the noise
LIT = 6  # gray levels above the background
LEAST_AREA = 0.05  # a smaller share of the picture is no field of view
EDGE_SHARE = 0.2  # of the typical activity: less is what codecs smear over the edge
LIT_SHARE = 0.2  # of the typical brightness, likewise
GROUND = (11, 21)  # working pixels: sides of the squares that enlarge the hull of what moves to the inner and outer edge of a ring around
LEAST_RING = 200  # pixels of the ring that tell its level
DIM = (1.5, 40.0)  # gray levels beside the ground's: shadows and weak flanks


def tissue_mask(evidence: Evidence) -> tuple[NDArray[np.bool_], bool]:
    """Working pixels that look like tissue, and whether that was judged without any movement."""
    graphics = _graphics(evidence)
    moving = _moving(evidence, graphics)
    if evidence.frames > 2 and np.count_nonzero(moving) >= LEAST_AREA * moving.size:
        return moving, False
    background = _mode(_border(evidence.mean))
    lit = np.abs(evidence.mean - background) > LIT
    return _solid(lit & ~graphics, max(1, min(lit.shape) // 60)), True


def _moving(evidence: Evidence, graphics: NDArray[np.bool_]) -> NDArray[np.bool_]:
    activity = cv2.blur(evidence.activity, (3, 3))
    # The quieter half of the border: a field of view may reach the picture's edge on some sides.
    border = np.sort(_border(activity))
    quiet = border[: max(1, border.size // 2)]
    middle = quiet[quiet.size // 2]
    floor = float(middle + 3 * np.median(np.abs(quiet - middle)))
    # A level above the noise, or a part of what the moving part typically does: codecs smear movement over the edge.
    moves = max(LEAST_ACTIVITY, 1.5 * floor)
    some, lit = activity[::4, ::4], evidence.brightest[::4, ::4]  # enough to know what is typical
    bound = max(moves, EDGE_SHARE * _typical(some, some > moves))
    # Codecs also carry movement a few pixels beyond the edge, faintly: what never gets bright there is not tissue.
    level = 4 + LIT_SHARE * _typical(lit, some > bound)
    return _solid((activity > bound) & (evidence.brightest > level) & ~graphics, max(1, min(activity.shape) // 80))


def _typical(values: NDArray[Any], where: NDArray[np.bool_]) -> float:
    """The median of the values there; 0 of none."""
    chosen = values[where]
    return float(np.median(chosen)) if chosen.size else 0.0


def _border(picture: NDArray[Any]) -> NDArray[Any]:
    """The outermost two pixels on every side, in a row."""
    return np.concatenate([picture[:2].ravel(), picture[-2:].ravel(), picture[:, :2].ravel(), picture[:, -2:].ravel()])


def _solid(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """What is left without thin lines and letters and far-off specks, with small holes filled."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    # At half the size, for speed: this only says which parts are meant, not where they end.
    half = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * ((reach + 1) // 2) + 1,) * 2)
    opened = cv2.morphologyEx(np.ascontiguousarray(closed[::2, ::2]), cv2.MORPH_OPEN, half)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    if count < 2:
        return np.zeros(mask.shape, bool)
    areas = boxes[1:, cv2.CC_STAT_AREA]
    large = np.flatnonzero(areas >= 0.04 * areas.max()) + 1
    # Opening rounds corners off: what was there before and touches is given back.
    near = cv2.dilate(np.isin(labels, large).astype(np.uint8), half)
    near = cv2.resize(near, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray((closed > 0) & (near > 0))


def _graphics(evidence: Evidence) -> NDArray[np.bool_]:
    """Strongly coloured parts that are small or thin within their box: interface, not tissue; a Doppler box is neither."""
    if evidence.chroma is None:
        return np.zeros(evidence.mean.shape, bool)
    strong = cv2.morphologyEx((evidence.chroma > 40).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
    areas = boxes[:, cv2.CC_STAT_AREA]
    fill = areas / np.maximum(boxes[:, cv2.CC_STAT_WIDTH] * boxes[:, cv2.CC_STAT_HEIGHT], 1)
    small = (areas < 0.004 * strong.size) | (fill < 0.25)
    small[0] = False
    return np.asarray(small[labels]) if count > 1 else np.zeros(strong.shape, bool)


def ground_level(mean: Floats, hull: NDArray[np.uint8]) -> float:
    """The gray level around what moves: scanners draw it on a ground of one level, which need not be that of the panels around."""
    far = cv2.dilate(hull, np.ones((GROUND[1],) * 2, np.uint8))
    near = cv2.dilate(hull, np.ones((GROUND[0],) * 2, np.uint8))
    ring = mean[(far > 0) & (near == 0)]
    return _mode(ring) if ring.size >= LEAST_RING else _mode(_border(mean))


def _mode(levels: NDArray[Any]) -> float:
    """The most frequent gray level, rounded; 0 where there is none that stands out: tissue all over, so black is meant."""
    counts = np.bincount(np.rint(levels).astype(np.uint8), minlength=256)
    level = int(counts.argmax())
    return float(level) if counts[max(0, level - 1) : level + 2].sum() > 0.3 * levels.size else 0.0


def hull_of(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The convex hull of a mask that is not empty, (H, W), 1 inside."""
    # The ends of each row have the same convex hull as all its pixels.
    rows = np.flatnonzero(inside.any(axis=1))
    first, last = inside[rows].argmax(axis=1), inside.shape[1] - 1 - inside[rows, ::-1].argmax(axis=1)
    points = np.concatenate([np.stack([first, rows], axis=1), np.stack([last, rows], axis=1)]).astype(np.int32)
    hull = np.zeros(inside.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return hull


def dim_pixels(level: Floats, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that are a little brighter than the ground, or darker, and touch what moves: shadows and weak flanks of the tissue.

    Args:
        level: Mean gray level over time, less the ground's, (H, W).
        inside: What moves.
    """
    # At half the size, for speed.
    level, moving = np.asarray(cv2.blur(level, (3, 3)), np.float32)[::2, ::2], inside[::2, ::2]
    dim = ((level > DIM[0]) & (level < DIM[1])) | (level < -DIM[0])
    opened = cv2.morphologyEx((dim | moving).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels = cv2.connectedComponents(opened, connectivity=4, ltype=cv2.CV_16U)
    touching = np.zeros(count, np.uint8)
    touching[np.unique(labels[moving & (opened > 0)])] = 1
    touching[0] = 0
    whole = cv2.resize(touching[labels], (inside.shape[1], inside.shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(whole > 0)


def is_dual(inside: NDArray[np.bool_]) -> bool:
    """Two parts of like size and height side by side, with a gap between them."""
    columns = inside.sum(axis=0)
    used = np.flatnonzero(columns > 0.1 * columns.max())
    gaps = np.flatnonzero(np.diff(used) > max(2, inside.shape[1] // 100))
    if gaps.size != 1:
        return False
    left, right = inside[:, : used[gaps[0]] + 1], inside[:, used[gaps[0] + 1] :]
    areas = sorted((int(left.sum()), int(right.sum())))
    heights = sorted((int(left.any(axis=1).sum()), int(right.any(axis=1).sum())))
    return areas[0] > 0.5 * areas[1] and heights[0] > 0.8 * heights[1]
