"""The fast path of augmentation on the CPU: one resampling and a handful of passes a view, each view in the cache from first to last.

In come stored frames on the CPU and the parameters of augment.py; out come the same normalised views, within `TOLERANCE` of the plain path.
Every view is made by itself, by the same operations in the same order, so that the result does not depend on threads or on the batch.

Brightness b and contrast c have one formula for their two orders: with x = b * gray levels (cut at 1 where brightness comes first) and m
its mean, both are clip(c * x + m * (1 - c), 0, u), where u is 1, and min(b, 1) where contrast comes first; the normalisation is folded in.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from uscl.augment import PARAMETERS, Augmentations
from uscl.models import PIXEL_MEAN, PIXEL_STD

# By how much a normalised gray level (-2 to 2) may differ from the plain path's: float32 rounding of sampling positions (up to 2e-4 on the
# plain path, which scales them to -1..1), times brightness and contrast of up to 1.8 each.
TOLERANCE = 1e-3
_SPAN = 1 / PIXEL_STD
_TOP, _LEFT, _HEIGHT, _WIDTH, _FLIP_X, _FLIP_Y, _BRIGHTNESS, _CONTRAST, _CONTRAST_FIRST, _SIGMA = range(len(PARAMETERS))


def two_views_fast(
    frames: torch.Tensor, coefficients: torch.Tensor, parameters: Augmentations, *, order: str, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two views of each video from its three frames; arguments and result are those of `uscl.augment.two_views`, on the CPU."""
    videos = len(frames)
    pictures = frames.numpy()
    rows = parameters.values.numpy().T.tolist()
    shares = coefficients.tolist()
    view_a, view_b = torch.empty(2, videos, 1, size, size)
    views = view_a[:, 0].numpy(), view_b[:, 0].numpy()

    def mix_then_augment(some: range) -> None:
        buffers = _Buffers(pictures.shape[-1], size)
        for video in some:
            x1, anchor, x3 = pictures[video]
            _augment(x1, anchor, shares[video][0], rows[video], buffers, views[0][video])
            _augment(x3, anchor, shares[video][1], rows[videos + video], buffers, views[1][video])

    def augment_then_mix(some: range) -> None:
        buffers, augmented = _Buffers(pictures.shape[-1], size), np.empty((3, size, size), dtype=np.float32)
        for video in some:
            for place, picture in enumerate(pictures[video]):
                _augment(picture, picture, 1.0, rows[place * videos + video], buffers, augmented[place])
            for view, outer, share in zip(views, augmented[::2], shares[video], strict=True):
                cv2.addWeighted(outer, share, augmented[1], 1 - share, 0, dst=view[video])

    _in_threads(mix_then_augment if order == "mix-then-augment" else augment_then_mix, videos)
    return view_a, view_b


class _Buffers:
    """Memory that one thread uses again for every view: a crop of a stored frame, and two views."""

    def __init__(self, stored: int, size: int) -> None:
        self.crop = np.empty(stored * stored, dtype=np.float32)
        self.views = np.empty((2, size, size), dtype=np.float32)


def _augment(outer: np.ndarray, anchor: np.ndarray, share: float, row: list[float], buffers: _Buffers, out: np.ndarray) -> None:
    """One view (P, P) of two frames (S, S) uint8, into `out`."""
    top, left, height, width = int(row[_TOP]), int(row[_LEFT]), int(row[_HEIGHT]), int(row[_WIDTH])
    crop = (slice(top, top + height), slice(left, left + width))
    brightness, contrast = row[_BRIGHTNESS], row[_CONTRAST]
    size = len(out)
    levels = buffers.crop[: height * width].reshape(height, width)
    cv2.addWeighted(outer[crop], share * brightness / 255, anchor[crop], (1 - share) * brightness / 255, 0, dst=levels, dtype=cv2.CV_32F)
    view, spare = buffers.views
    cv2.resize(levels, (size, size), dst=view, interpolation=cv2.INTER_LINEAR)
    if row[_FLIP_X] or row[_FLIP_Y]:
        cv2.flip(view, 1 if not row[_FLIP_Y] else -1 if row[_FLIP_X] else 0, dst=spare)
        view, spare = spare, view
    upper = 1.0
    if row[_CONTRAST_FIRST]:
        upper = min(brightness, 1.0)
    else:
        np.clip(view, np.float32(0), np.float32(1), out=view)
    shift = (cv2.mean(view)[0] * (1 - contrast) - PIXEL_MEAN) * _SPAN
    np.multiply(view, np.float32(contrast * _SPAN), out=view)
    np.add(view, np.float32(shift), out=view)
    low, high = np.float32(-PIXEL_MEAN * _SPAN), np.float32((upper - PIXEL_MEAN) * _SPAN)
    if not row[_SIGMA]:
        np.clip(view, low, high, out=out)
        return
    np.clip(view, low, high, out=view)
    radius = min(int(np.ceil(np.float32(3) * np.float32(row[_SIGMA]))), size - 1)
    kernel = np.exp(-((np.arange(-radius, radius + 1) / row[_SIGMA]) ** 2) / 2)
    kernel /= kernel.sum()
    cv2.sepFilter2D(view, cv2.CV_32F, kernel, kernel, dst=spare, borderType=cv2.BORDER_REFLECT_101)
    out[...] = spare


def _in_threads(make: Callable[[range], None], videos: int) -> None:
    """Make the views of all videos, in as many threads as torch computes with; OpenCV and numpy leave Python's lock while they work."""
    threads = min(torch.get_num_threads(), videos)
    if threads == 1:
        make(range(videos))
        return
    bounds = np.linspace(0, videos, threads + 1).astype(int).tolist()
    list(_pool(threads).map(make, (range(*pair) for pair in itertools.pairwise(bounds))))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="augment")
