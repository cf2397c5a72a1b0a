"""Graphics inside the field of view: what is bright, thin and stands still where tissue moves.

In the darkest value that a pixel takes over a clip, speckle is gone and burned-in ink is left. Ink that crosses the field of view's edge is
found by its part outside, where the background is even, as well as by its part inside. Nothing is painted over: words, a share and a mask
come out. A release asks whether there may be a name, and is told of more (`wary`): bright structures that hardly move are held back too.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.geometry import Geometry, box_of

INK_CONTRAST = 36  # gray levels above the surroundings, in the darkest value over time
INK_CHANGE = 32  # gray levels that ink may change over time, by the codec
LEAST_INK = 10  # pixels of one piece of writing; a dot of a caliper has as many
LEAST_LETTERS = 3
FEWEST_FRAMES = 3
STROKE = 15  # pixels: side of what may surround a stroke


LEAST_CHANGE = 8  # gray levels
STILL_SHARE = 0.15  # of what tissue typically changes
LEAST_STROKE = 5  # pixels


@dataclass(frozen=True)
class Overlays:
    """What was found.

    Attributes:
        words: Sorted kinds: text (three letters or more in a row), graphics (anything else); "unknown" where too few frames tell.
        share: Of the field of view that they cover, 0 to 1.
        mask: (H, W) bool in source pixels.
    """

    words: tuple[str, ...]
    share: float
    mask: NDArray[np.bool_]


def overlays_inside(collector: EvidenceCollector, geometry: Geometry, *, wary: bool = False) -> Overlays:
    """Graphics in a field of view, or across its edge.

    Args:
        collector: That saw the clip.
        geometry: The field of view in source pixels.
        wary: Rather too much than too little: for a release, where a bright reflector that hardly moves is worth a second look.
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
    change = cv2.subtract(brightest[part], low)
    stroke = cv2.morphologyEx(low, cv2.MORPH_TOPHAT, np.ones((STROKE, STROKE), np.uint8))
    # How much tissue changes here says what stands still: ink changes by the codec alone.
    typical = float(np.median(change[inside > 0])) if inside.any() else 0.0
    bound = INK_CHANGE if wary else min(INK_CHANGE, max(LEAST_CHANGE, STILL_SHARE * typical))
    ink = ((stroke > INK_CONTRAST) & (change < bound)).astype(np.uint8)
    ink = ink if wary else _without_specks(ink)
    # Letters of a line are joined: as far as they stand apart, which grows with the picture.
    reach = max(9, min(height, width) // 40) | 1
    lines = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, np.ones((5, reach), np.uint8))
    count, labels, _, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    # Two pixels more: an edge is known to about one.
    near = cv2.dilate(inside, np.ones((5, 5), np.uint8)) > 0
    touching = np.bincount(labels[near & (ink > 0)], minlength=count)
    amount = np.bincount(labels[ink > 0], minlength=count)
    chosen = np.flatnonzero((touching > 0) & (amount >= LEAST_INK))
    chosen = chosen[chosen > 0]
    if not chosen.size:
        return Overlays((), 0.0, nothing)
    mask = nothing
    mask[part] = np.isin(labels, chosen) & (ink > 0)
    letters, letter_labels = cv2.connectedComponents(ink, connectivity=8)
    first_of = np.zeros(letters, np.int64)
    first_of[letter_labels[ink > 0]] = labels[ink > 0]
    in_line = np.bincount(first_of[1:], minlength=count)
    words = {"text" if in_line[line] >= LEAST_LETTERS else "graphics" for line in chosen}
    covered = int(np.count_nonzero(mask[part] & (inside > 0)))
    return Overlays(tuple(sorted(words)), round(covered / max(int(inside.sum()), 1), 6), mask)


def _without_specks(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    large = boxes[:, cv2.CC_STAT_AREA] >= LEAST_STROKE
    large[0] = False
    return np.asarray(large[labels], np.uint8)
