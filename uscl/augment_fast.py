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
    mix_first = order == "mix-then-augment"
    out = torch.empty((2 if mix_first else 3) * videos, 1, size, size)
    views = out[:, 0].numpy()

    def make(samples: range) -> None:
        mixed = np.empty(pictures.shape[-1] ** 2, dtype=np.float32)
        buffers = np.empty((2, size, size), dtype=np.float32)
        for sample in samples:
            view, video = divmod(sample, videos)
            if mix_first:
                _augment(pictures[video, 2 * view], pictures[video, 1], shares[video][view], rows[sample], mixed, buffers, views[sample])
            else:
                _augment(pictures[video, view], pictures[video, view], 1.0, rows[sample], mixed, buffers, views[sample])

    _in_threads(make, len(out))
    if mix_first:
        view_a, view_b = out.chunk(2)
        return view_a, view_b
    first, middle, third = out.chunk(3)
    share = coefficients.float().T[:, :, None, None, None]
    return share[0] * first + (1 - share[0]) * middle, share[1] * third + (1 - share[1]) * middle


def _augment(
    outer: np.ndarray, anchor: np.ndarray, share: float, row: list[float], mixed: np.ndarray, buffers: np.ndarray, out: np.ndarray
) -> None:
    """One view (P, P) of two frames (S, S) uint8, into `out`; the buffers are only there to be used again."""
    top, left, height, width = int(row[_TOP]), int(row[_LEFT]), int(row[_HEIGHT]), int(row[_WIDTH])
    crop = (slice(top, top + height), slice(left, left + width))
    brightness, contrast = row[_BRIGHTNESS], row[_CONTRAST]
    size = len(out)
    levels = mixed[: height * width].reshape(height, width)
    cv2.addWeighted(outer[crop], share * brightness / 255, anchor[crop], (1 - share) * brightness / 255, 0, dst=levels, dtype=cv2.CV_32F)
    view, spare = buffers
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


def _in_threads(make: Callable[[range], None], samples: int) -> None:
    """Make all samples, in as many threads as torch computes with; OpenCV and numpy leave Python's lock while they work."""
    threads = min(torch.get_num_threads(), samples)
    if threads == 1:
        make(range(samples))
        return
    bounds = np.linspace(0, samples, threads + 1).astype(int).tolist()
    list(_pool(threads).map(make, (range(*pair) for pair in itertools.pairwise(bounds))))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="augment")
