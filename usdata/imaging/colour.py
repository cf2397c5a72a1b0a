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
_SIDE = 120


class ColourKind:
    """Collects frames; `word` tells the kind of all that were seen."""

    def __init__(self) -> None:
        self._frames = 0
        self._pixels = 0
        self._coloured = 0
        self._sum = np.zeros(3)
        self._products = np.zeros((3, 3))

    def offer(self, rgb: Callable[[], NDArray[np.uint8]]) -> None:
        """Look at the 1st, 2nd, 3rd, 5th, 9th, 17th, ... frame offered: enough to see colour that comes late, and cheap in long clips.

        Args:
            rgb: Makes the frame, (H, W, 3) uint8, if it is looked at.
        """
        before = self._frames - 1
        self._frames += 1
        if before <= 0 or before & (before - 1) == 0:
            self._see(rgb())

    def _see(self, rgb: NDArray[np.uint8]) -> None:
        step = max(1, max(rgb.shape[:2]) // _SIDE)
        size = max(1, rgb.shape[1] // step), max(1, rgb.shape[0] // step)
        # Averages: lossy codecs store colour at half the resolution of brightness, so single pixels have the colour of their neighbours.
        small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8).reshape(-1, 3)
        chroma = small.max(axis=1) - small.min(axis=1)
        self._pixels += len(small)
        self._coloured += int(np.count_nonzero(chroma > CHROMA_LEVELS))
        # Sums of integers below 2^53 are exact in float64, in any order.
        values = small.astype(np.float64)
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
        return "tinted" if variances[-1] >= TINT_VARIANCE * variances.sum() else "colour"
