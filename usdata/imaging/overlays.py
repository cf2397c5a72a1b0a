"""Graphics inside the field of view: letters, calipers, pointers at rest; what is bright, narrow and there in every frame.

In the darkest value that a pixel takes over a clip, speckle is gone and burned-in ink is left: a stroke stands out of what surrounds it by
a hundred gray levels and more, tissue by thirty (medians over 4,700 pieces in 180 clips of benchmarks/planted_names.py); fainter ink must
stand still as well. Ink that crosses the field of view's edge is joined to its part outside. What is longer and flatter than letters is
passed over (a layer of tissue, but a thin drawn line too), unless it glares. Nothing is painted over: words, a share and a mask come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.geometry import Geometry, box_of

CONTRAST = 60  # gray levels above the surroundings, in the darkest value over time: mean of a piece that is ink
LEVELS = (32, 100)  # least contrast of each pixel of a piece: tried in turn
LEAST_HIGH = 6  # pixels of a piece at the higher level, where layers of tissue fall into flat crumbs
FLATTEST = 3.0  # width to height of a letter, or of some that touch; layers of tissue lie flatter
SPECKLE_PERCENTILE = 90.0  # of the contrast in the field of view: ink covers less, even of a small one
ABOVE_SPECKLE = 1.6  # of a piece
PIXEL_ABOVE_SPECKLE = 1.2
STILL_CONTRAST = 40  # mean contrast of fainter ink, which must stand still:
STILL_AGAINST_RING = 0.4  # of the change over time right around it,
STILL_AGAINST_TISSUE = 0.5  # and of the change that is usual in the field of view
GLARING = 110  # mean contrast of ink that may have any shape: small letters that touch are long and flat
LEAST_PIXELS = 6  # of one piece: a dot of a caliper has as many
LEAST_LETTERS = 3
LONGEST_SHARE = 0.15  # of the field of view's width: longer than a letter
FEWEST_FRAMES = 3
RIM = 3  # pixels along the field of view's edge, on both sides, which is known to about one
RELEASE_MARGIN = RIM + 5  # pixels that a release makes black: what reaches farther in has been looked at
TOUCHING = 3  # pixels beyond the rim in which a letter ends that may go on inside
LIT_INK = 90  # gray levels of what joins ink on both sides of the rim
CROSS_SIDES = (5, 41)  # pixels
LEAST_BAR, LEAST_IN_BARS = 0.8, 0.85  # of a cross's bars are there, of its ink lies in them
STROKE = 9  # pixels: side of the square that a stroke must not fill; larger in pictures of more than 720 rows


@dataclass(frozen=True)
class Overlays:
    """What was found.

    Attributes:
        words: Sorted kinds: text (three letters or more in a row), caliper (a small cross), graphics (anything else); "unknown" where too
            few frames tell.
        share: Of the field of view that they cover, 0 to 1.
        mask: (H, W) bool in source pixels.
    """

    words: tuple[str, ...]
    share: float
    mask: NDArray[np.bool_]


def overlays_inside(collector: EvidenceCollector, geometry: Geometry) -> Overlays:
    """Graphics in a field of view, or across its edge.

    Args:
        collector: That saw the clip.
        geometry: The field of view in source pixels.
    """
    darkest, brightest = collector.darkest, collector.brightest
    if darkest is None or brightest is None:
        raise ValueError("no frame was seen")
    height, width = darkest.shape
    nothing = np.zeros((height, width), bool)
    if collector.frames_seen < FEWEST_FRAMES:
        return Overlays(("unknown",), 0.0, nothing)
    x, y, box_width, box_height = box_of(geometry, height, width)
    band = max(12, min(height, width) // 12)
    left, top, right, bottom = max(0, x - band), max(0, y - band), min(width, x + box_width + band), min(height, y + box_height + band)
    part = np.s_[top:bottom, left:right]
    inside = geometry.moved(-left, -top).mask(bottom - top, right - left).astype(np.uint8)
    low = np.ascontiguousarray(darkest[part])
    stroke = max(STROKE, min(height, width) // 80) | 1
    # Each side is judged by itself: against black surroundings, a bright layer of tissue along the edge would look like a stroke.
    margin = np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)
    within = cv2.erode(inside, margin, borderValue=1)
    beyond = 1 - cv2.dilate(inside, margin)
    change = cv2.subtract(brightest[part], low)
    usual = _percentile(change, inside, 50)
    longest = round(LONGEST_SHARE * box_width)
    ink_within, doubtful = _ink(low, change, within, usual, stroke, longest)
    ink_beyond, _ = _ink(low, change, np.asarray(beyond, np.uint8), None, stroke, longest)
    sure = np.asarray(ink_within | ink_beyond, np.uint8)
    if not sure.any():
        return Overlays((), 0.0, nothing)
    between = ((within + beyond) == 0) & (low > LIT_INK)
    ink = (sure | doubtful | between).astype(np.uint8)
    # Letters of a line are joined: as far as they stand apart, which grows with the picture.
    reach = max(9, min(height, width) // 40) | 1
    lines = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, np.ones((5, reach), np.uint8))
    count, labels = cv2.connectedComponents(lines, connectivity=8)
    inner = np.bincount(labels[ink_within > 0], minlength=count)
    outer = np.bincount(labels[ink_beyond > 0], minlength=count)
    edge = np.bincount(labels[between], minlength=count)
    perhaps = np.bincount(labels[doubtful > 0], minlength=count)
    letters, letter_labels, boxes, _ = cv2.connectedComponentsWithStats(sure, connectivity=8)
    first_of = np.zeros(letters, np.int64)
    first_of[letter_labels[sure > 0]] = labels[sure > 0]
    in_line = np.bincount(first_of[1:], minlength=count)
    # Across the edge, what alone would be too small or faint belongs to the name that begins outside; and a name that ends at the edge may
    # go on over tissue as bright as it is. Fringes of tissue beyond the edge have no letters farther out.
    at_edge = (cv2.dilate(inside, np.ones((2 * (RIM + TOUCHING) + 1,) * 2, np.uint8)) > 0) & (ink_beyond > 0)
    touching = np.bincount(labels[at_edge], minlength=count)
    farther = np.bincount(first_of[np.bincount(letter_labels[at_edge], minlength=letters) == 0], minlength=count)
    ends_there = (touching > 0) & (farther >= LEAST_LETTERS - 1)
    chosen = np.flatnonzero((inner > 0) | ((outer > 0) & (edge > 0) & (perhaps > 0)) | ends_there)
    chosen = chosen[chosen > 0]
    if not chosen.size:
        return Overlays((), 0.0, nothing)
    mask = nothing
    mask[part] = np.isin(labels, chosen) & (ink > 0)
    words = {"text" for line in chosen if in_line[line] >= LEAST_LETTERS}
    for line in chosen[in_line[chosen] < LEAST_LETTERS]:
        pieces = np.flatnonzero(first_of[1:] == line) + 1
        crosses = [_is_cross(letter_labels == piece, boxes[piece]) for piece in pieces]
        words.add("caliper" if crosses and all(crosses) else "graphics")
    covered = int(np.count_nonzero(mask[part] & (inside > 0)))
    return Overlays(tuple(sorted(words)), round(covered / max(int(inside.sum()), 1), 6), mask)


def _is_cross(piece: NDArray[np.bool_], box: NDArray[np.int32]) -> bool:
    """Whether a piece is an upright or a slanted cross: two thin bars through the middle of a square box, and little besides.

    Args:
        piece: (H, W).
        box: Left, top, width, height and area of it, as OpenCV gives them.
    """
    x, y, width, height, area = (int(value) for value in box)
    side = max(width, height)
    if not CROSS_SIDES[0] <= side <= CROSS_SIDES[1] or min(width, height) < 0.75 * side:
        return False
    cut = piece[y : y + height, x : x + width]
    row, column = np.mgrid[0:height, 0:width]
    right, down = (column - (width - 1) / 2) / width, (row - (height - 1) / 2) / height
    bar = max(1.5 / side, 0.1)
    level, upright = np.abs(down) <= bar, np.abs(right) <= bar
    falling, rising = np.abs(right - down) <= bar * math.sqrt(2), np.abs(right + down) <= bar * math.sqrt(2)
    # Each bar is there along most of its length, and nearly all of the ink is in the two.
    for one, other, axis in ((level, upright, 1), (falling, rising, 0)):
        lengths = (cut & one).any(axis=0).mean(), (cut & other).any(axis=axis).mean()
        if min(lengths) >= LEAST_BAR and np.count_nonzero(cut & (one | other)) >= LEAST_IN_BARS * area:
            return True
    return False


def _ink(
    low: NDArray[np.uint8], change: NDArray[np.uint8], where: NDArray[np.uint8], usual: float | None, stroke: int, longest: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Masks of the pieces that are ink, in a part of the picture, and of those that might be.

    Args:
        low: Darkest value over time, (H, W).
        change: Brightest minus darkest.
        where: 1 in the part that is judged; what lies around it counts as if it were not there.
        usual: Change that is usual in it; None: it holds no tissue.
        stroke: Side of the square that a stroke must not fill.
        longest: A longer piece is no letter, and neither is a flat one, if it does not glare.
    """
    alone = np.where(where > 0, low, np.uint8(255))
    contrast = cv2.morphologyEx(alone, cv2.MORPH_TOPHAT, np.ones((stroke, stroke), np.uint8))
    # Where tissue hardly moves, its speckle stays, and ink is what stands out of that.
    speckle = 0.0 if usual is None else _percentile(contrast, where, SPECKLE_PERCENTILE)
    ink, perhaps = np.zeros_like(low), np.zeros_like(low)
    # Letters that touch a bright layer part from it at a higher level.
    for level in sorted({max(float(each), PIXEL_ABOVE_SPECKLE * speckle) for each in LEVELS}):
        pieces = cv2.threshold(contrast, level, 1, cv2.THRESH_BINARY)[1] & where
        count, labels, boxes, _ = cv2.connectedComponentsWithStats(pieces, connectivity=8)
        if count == 1:
            break
        lit = pieces > 0
        of_lit = labels[lit]
        area, wide, high = (boxes[:, column] for column in (cv2.CC_STAT_AREA, cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT))
        mean = np.bincount(of_lit, weights=contrast[lit], minlength=count) / area
        narrow = np.maximum(wide, high) <= longest
        narrow[0] = False
        short = narrow & (wide <= FLATTEST * high)
        is_ink = (short & (mean > max(CONTRAST, ABOVE_SPECKLE * speckle))) | (mean > max(GLARING, ABOVE_SPECKLE * speckle))
        if usual is not None and level == max(LEVELS[0], PIXEL_ABOVE_SPECKLE * speckle):
            still = _stands_still(labels, count, lit, change, usual)
            is_ink |= short & still & (mean > max(STILL_CONTRAST, ABOVE_SPECKLE * speckle))
            perhaps[lit] = narrow[of_lit]
        is_ink &= (area >= LEAST_PIXELS) & ((high >= LEAST_HIGH) | (level < LEVELS[-1]))
        is_ink[0] = False
        ink[lit] |= is_ink[of_lit]
    return ink, perhaps | ink


def _percentile(levels: NDArray[np.uint8], where: NDArray[np.uint8], percent: float) -> float:
    """The least gray level at or below which that share of the pixels lies, where the mask is not 0; 0 of none."""
    totals = np.cumsum(cv2.calcHist([levels], [0], where, [256], [0, 256]).ravel(), dtype=np.float64)
    return float(np.searchsorted(totals, percent / 100 * totals[-1])) if totals[-1] else 0.0


def _stands_still(
    labels: NDArray[np.int32], count: int, lit: NDArray[np.bool_], change: NDArray[np.uint8], usual: float
) -> NDArray[np.bool_]:
    """Which pieces change less than what is around them, and than tissue usually does."""
    amount = np.maximum(np.bincount(labels[lit], minlength=count), 1)
    of_piece = np.bincount(labels[lit], weights=change[lit], minlength=count) / amount
    # Two pixels around each piece; where two pieces are so close, the pixel counts for the one with the higher number.
    around = np.where(lit, 0, cv2.dilate(labels.astype(np.float32), np.ones((5, 5), np.uint8))).astype(np.int64)
    ring = around > 0
    of_ring = np.bincount(around[ring], weights=change[ring], minlength=count) / np.maximum(np.bincount(around[ring], minlength=count), 1)
    return np.asarray((of_piece < STILL_AGAINST_RING * of_ring) & (of_piece < STILL_AGAINST_TISSUE * usual), bool)
