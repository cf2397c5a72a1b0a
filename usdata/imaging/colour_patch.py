"""What a patch of colour over B-mode means: flow (or tissue velocity), or stiffness. One RGB picture and its field of view in, a word out.

Doppler maps have two hues with a gap between (red to yellow, blue to cyan) or one (power: orange); they colour vessels, or the heart's
wall. Elastography fills its box nearly all over with hues that go into each other: blue, cyan, green, yellow, red. One hue a gray level
over all of the picture is a tint, lines are graphics: both are None. Counts of pixels decide.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

SATURATED = 40  # largest minus smallest colour component, as in usdata.imaging.mode
LEAST_PATCH = 0.01  # of the field of view, as there
LEAST_FILL = 0.25  # of the patch's box, as there
LEAST_SIDE = 6  # working pixels, of the patch's box: an upright line along the edge fills its box too, and is 3 wide after lossy colour
LEAST_CORE = 0.65  # of the coloured pixels outlast an opening 3 wide: of text 0.62 at most, of patches 0.85 and more
# Measured with benchmarks/modes.py (drawn over real B-modes, seeds 0 and 1); there was no real elastography to measure.
BOX_FILL = 0.8  # of its hull, with holes counted as filled: fluid inside a box may stay uncoloured
LEAST_BOX = 0.04  # of the field of view: the box of an elastogram is no spot
HUE_SHARE = 0.04  # of the coloured pixels: a hue that so many have is there
GREEN_SHARE = 0.04  # of the coloured pixels: elastography 0.04 and more; Doppler maps have none, but where a variance is coded
ELASTIC_HUES = 3  # of six sectors of hue, at least
TINTED_SHARE = 0.75  # of what is lit in the field of view
TINT = 6  # a sixth of the brightness: a tint that has saturated pixels at all is as coloured everywhere
LIT_LEVEL = 60  # gray below has larger errors of chroma, for its brightness, in lossy files
_SECTORS = 6  # red, yellow, green, cyan, blue, magenta: 60 degrees each, about the pure colour
_GREEN = 2


def patch_kind(picture_rgb: NDArray[np.uint8], inside: NDArray[np.bool_]) -> Literal["doppler", "elastography"] | None:
    """What is coloured in the field of view.

    Args:
        picture_rgb: (H, W, 3) uint8 at working size.
        inside: The field of view, (H, W).

    Returns:
        None where nothing but graphics is coloured, or the whole picture is tinted.
    """
    red, green, blue = cv2.split(picture_rgb)
    brightest = cv2.max(cv2.max(red, green), blue)
    chroma = cv2.subtract(brightest, cv2.min(cv2.min(red, green), blue))
    coloured = ((chroma > SATURATED) & inside).astype(np.uint8)
    least = LEAST_PATCH * np.count_nonzero(inside)
    count = int(coloured.sum())
    if count < least:
        return None
    # Lines of text and traces are a pixel or two wide at working size: they do not outlast this.
    core = cv2.morphologyEx(coloured, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    if core.sum() < LEAST_CORE * count:
        return None
    hues = _hues(picture_rgb, core)
    sectors = np.flatnonzero(hues >= HUE_SHARE * hues.sum())
    lit = (brightest > LIT_LEVEL) & inside
    tinted = np.count_nonzero(lit & (chroma > brightest // TINT))
    one_hue = sectors.size == 1 or (sectors.size == 2 and sectors[1] - sectors[0] in (1, _SECTORS - 1))
    if one_hue and tinted > TINTED_SHARE * np.count_nonzero(lit):
        return None
    closed = cv2.morphologyEx(core, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    areas = boxes[1:, cv2.CC_STAT_AREA]
    if not areas.size:
        return None
    widths, heights = boxes[1:, cv2.CC_STAT_WIDTH].astype(np.int64), boxes[1:, cv2.CC_STAT_HEIGHT]
    filled = (widths * heights * LEAST_FILL <= areas) & (np.minimum(widths, heights) >= LEAST_SIDE)
    if not (filled & (areas >= least)).any():
        return None
    largest = (labels == 1 + int(areas.argmax())).astype(np.uint8)
    hue_rich = sectors.size >= ELASTIC_HUES and hues[_GREEN] >= GREEN_SHARE * hues.sum()
    boxed = int(areas.max()) >= LEAST_BOX / LEAST_PATCH * least and _hull_fill(largest) >= BOX_FILL
    return "elastography" if hue_rich and boxed else "doppler"


def _hues(picture_rgb: NDArray[np.uint8], where: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels in each sector of hue."""
    hue = cv2.cvtColor(picture_rgb, cv2.COLOR_RGB2HSV)[..., 0][where > 0].astype(np.int64)  # 0 to 179
    return np.bincount((hue + 15) // 30 % _SECTORS, minlength=_SECTORS)


def _hull_fill(part: NDArray[np.uint8]) -> float:
    """Which part of its convex hull lies within its outline: a sector's box is convex but for its upper arc."""
    outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(outlines))
    filled, solid = (cv2.fillPoly(np.zeros_like(part), shapes, 1) for shapes in (outlines, [hull]))
    return np.count_nonzero(filled) / max(np.count_nonzero(solid), 1)
