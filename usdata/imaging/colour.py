"""Is a clip gray, tinted or in colour? Some of its frames in RGB in, one word out.

A tint maps gray levels to colours along one curve, so one principal component holds nearly all of the variance of its colours; colour
Doppler, elastography and coloured graphics need more than one. Sums of integers only: the word does not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

# Colours of gray clips that went through lossy chroma stay within a few levels; see tests/usdata/imaging/test_colour.py.
CHROMA_LEVELS = 16
# Below this share of coloured pixels a clip is gray: a logo or an ECG line does not make it a colour clip.
COLOURED_SHARE = 0.002
# ULTRASOUND practice: the first component of a tinted B-mode holds at least this much.
TINT_VARIANCE = 0.995
# Strongly coloured parts smaller than this share of the picture, or filling less of their box, are graphics and not tissue.
GRAPHICS_CHROMA = 40
GRAPHICS_AREA = 0.004
GRAPHICS_FILL = 0.25
# Of the lit pixels of a tinted picture at least this share is visibly coloured (real tints: a quarter and more).
TINTED_SHARE = 0.1
LIT_LEVEL = 32
_SIDE = 120


def _graphics(chroma: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where coloured graphics are: strongly coloured parts that are small, or thin within their box. A Doppler box is neither.

    Args:
        chroma: Largest minus smallest component of each pixel, (H, W).
    """
    strong = cv2.threshold(chroma, GRAPHICS_CHROMA, 1, cv2.THRESH_BINARY)[1]
    closed = cv2.morphologyEx(strong, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    graphics = np.zeros(count, dtype=bool)
    for part in range(1, count):
        width, height, area = (int(boxes[part, column]) for column in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
        graphics[part] = area < GRAPHICS_AREA * closed.size or area < GRAPHICS_FILL * width * height
    return np.asarray(graphics[labels] & (strong > 0), dtype=np.bool_)


class ColourKind:
    """Collects frames; `word` tells the kind of all that were seen."""

    def __init__(self) -> None:
        self._frames = 0
        self._pixels = 0
        self._coloured = 0
        self._lit = 0
        self._sum = np.zeros(3)
        self._products = np.zeros((3, 3))

    def offer(self, picture: Callable[[], NDArray[np.uint8]]) -> None:
        """Look at the 1st, 2nd, 5th, 17th, 65th, ... frame offered: enough to see colour that comes late, and cheap in long clips.

        Args:
            picture: Makes the frame if it is looked at: (H, W, 3) uint8, or (H, W) where it is gray for certain.
        """
        before = self._frames
        self._frames += 1
        if before == 0 or (before & (before - 1) == 0 and before.bit_length() % 2):  # 0 or a power of 4
            self._see(picture())

    def _see(self, whole: NDArray[np.uint8]) -> None:
        step = max(1, max(whole.shape[:2]) // _SIDE)
        size = max(1, whole.shape[1] // step), max(1, whole.shape[0] // step)
        # Averages: lossy codecs store colour at half the resolution of brightness, so single pixels have the colour of their neighbours.
        picture = np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8)
        # Sums of integers below 2^53 are exact in float64, in any order.
        if picture.ndim == 2:
            values = picture.astype(np.int64)
            self._pixels += picture.size
            self._lit += int(np.count_nonzero(picture > LIT_LEVEL))
            self._sum += float(values.sum())
            self._products += float((values * values).sum())
            return
        channels = cv2.split(picture)
        brightest = cv2.max(cv2.max(channels[0], channels[1]), channels[2])
        chroma = brightest - cv2.min(cv2.min(channels[0], channels[1]), channels[2])
        if int(chroma.max()) > GRAPHICS_CHROMA:
            kept = ~_graphics(chroma)
            picture, chroma, brightest = picture[kept], chroma[kept], brightest[kept]
        self._pixels += chroma.size
        self._coloured += int(np.count_nonzero(chroma > CHROMA_LEVELS))
        self._lit += int(np.count_nonzero(brightest > LIT_LEVEL))
        values = picture.reshape(-1, 3).astype(np.float64)
        self._sum += values.sum(axis=0)
        self._products += values.T @ values

    @property
    def word(self) -> str | None:
        """gray, tinted or colour; None where no frame was seen."""
        if not self._pixels:
            return None
        if self._coloured < COLOURED_SHARE * self._pixels:
            return "gray"
        mean = self._sum / self._pixels
        covariance = self._products / self._pixels - np.outer(mean, mean)
        variances = np.linalg.eigvalsh(covariance)
        if variances[-1] < TINT_VARIANCE * variances.sum():
            return "colour"
        # A tint colours what is lit; a coloured line over a gray picture does not.
        return "tinted" if self._coloured >= TINTED_SHARE * self._lit else "gray"
