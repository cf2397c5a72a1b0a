"""What each frame that decodes is: invalid, damaged, blank, a near-repeat of the last unique frame, or unique."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.readers.base import Clip, Frame
from usdata.recipe import Hygiene

LIT_GRAY_LEVEL = 4


@dataclass(frozen=True)
class Look:
    """What one decoded frame turned out to be.

    Attributes:
        reason: Why it cannot be kept; null = unique.
        repeats: frame_index of the last unique frame, which a near-repeat repeats.
        difference: To that frame.
    """

    frame: Frame
    reason: str | None = None
    repeats: int | None = None
    difference: float | None = None


def look_at(clip: Clip, hygiene: Hygiene) -> Iterator[Look]:
    """Every frame that decodes, judged invalid, damaged, blank, near_repeat (of the last unique frame) or unique."""
    last: Frame | None = None
    for frame in clip.frames():
        if frame.invalid:
            yield Look(frame, "invalid")
            continue
        if frame.damaged and not hygiene.keep_damaged:
            yield Look(frame, "damaged")
            continue
        if is_blank(frame.pixels, hygiene):
            yield Look(frame, "blank")
            continue
        difference = None if last is None else difference_below(hygiene.near_repeat_difference, last.pixels, frame.pixels)
        if last is not None and difference is not None:
            yield Look(frame, "near_repeat", last.index, difference)
        else:
            last = frame
            yield Look(frame)


def is_blank(pixels: NDArray[np.uint8], hygiene: Hygiene) -> bool:
    """Whether a frame (H, W) uint8 has a mean or a standard deviation below the bounds.

    Every fourth row is looked at first. Of n pixels of which a part of m has mean μ and variance v, the mean is at least μ·m/n and the
    variance at least v·m/n: in most frames that settles it.
    """
    rows = pixels[::4]
    share = rows.size / pixels.size
    mean, std = (float(value[0, 0]) for value in cv2.meanStdDev(rows))
    if mean * share >= hygiene.blank_mean and std * std * share >= hygiene.blank_std**2:
        return False
    mean, std = (float(value[0, 0]) for value in cv2.meanStdDev(pixels))
    return mean < hygiene.blank_mean or std < hygiene.blank_std


def difference_below(bound: float, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float | None:
    """The `frame_difference` of two frames (H, W) where it is below a bound; None where it is not.

    A mean over all pixels is never larger than one over the lit ones: where it reaches the bound already, those need not be counted.
    """
    if float(cv2.norm(a, b, cv2.NORM_L1)) >= bound * a.size:
        return None
    difference = frame_difference(a, b)
    return difference if difference < bound else None


def frame_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean absolute difference in gray levels over the pixels that are lit in either frame.

    Black surroundings would dilute a mean over the whole picture, by a factor that differs from scanner to scanner.

    Args:
        a: (H, W) uint8.
        b: (H, W) uint8.
    """
    lit = cv2.countNonZero(cv2.threshold(cv2.max(a, b), LIT_GRAY_LEVEL, 1, cv2.THRESH_BINARY)[1])
    return float(cv2.norm(a, b, cv2.NORM_L1)) / max(lit, 1)
