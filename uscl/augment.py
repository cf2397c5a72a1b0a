"""Augmentation: batched on the device, with parameters of its own for every view, drawn on the CPU from counters.

In come stored frames (uint8) and mixing coefficients; out come the two normalised views (videos, 1, size, size). The operations are
torchvision's: random resized crop, flips, brightness and contrast in random order, Gaussian blur. Hue and saturation jitter, which USCL
also asks for, are identities on gray frames and are left out. Gray levels stay floating-point from the store to the network, where the
published code rounds to whole ones after each operation. This module is the plain path: it runs on every device, and the faster paths
(augment_fast.py on the CPU, augment_triton.py on a GPU) are held to it; views.py chooses.

Shapes: N samples, S stored size, P size of a view.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch.nn import functional

from uscl import sections
from uscl.draws import Stream, uniform
from uscl.models import PIXEL_MEAN, PIXEL_STD

CROP_ATTEMPTS = 10
_CROP_DRAWS_FROM = 9
_DRAWS = _CROP_DRAWS_FROM + 2 * CROP_ATTEMPTS


# One row of parameters each. Crop: first row and column, rows and columns, in whole stored pixels. Flips and order: 0 or 1.
# Brightness and contrast: factors, 1 = unchanged. Blur: standard deviation in pixels of the view, 0 = none.
PARAMETERS = (
    "top",
    "left",
    "height",
    "width",
    "horizontal_flip",
    "vertical_flip",
    "brightness",
    "contrast",
    "contrast_first",
    "blur_sigma",
)


@dataclass(frozen=True)
class Augmentations:
    """The parameters of N augmentations.

    Attributes:
        values: (parameters, N) float32, a row for each of `PARAMETERS`; one tensor, so that it moves to a GPU at once.
        any_vertical_flip: Whether any sample is flipped so; known here, so that nobody waits for a GPU to ask.
        blur_radius: Pixels that the widest blur reaches; 0 = no sample is blurred.
    """

    values: torch.Tensor
    any_vertical_flip: bool
    blur_radius: int

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.values[PARAMETERS.index(name)]

    def to(self, device: torch.device) -> Self:
        """The same parameters on a device."""
        return replace(self, values=self.values.to(device, non_blocking=True))

    def each(self, name: str) -> torch.Tensor:
        """A parameter as (N, 1, 1, 1)."""
        return self[name][:, None, None, None]


def draw_augmentations(
    settings: sections.Augment,
    *,
    seed: int,
    epoch: int,
    videos: np.ndarray,
    views: int,
    store_size: int,
    boxes: np.ndarray | None = None,
) -> Augmentations:
    """The parameters for `views` views of each video, view after view: sample v * len(videos) + i is view v of `videos[i]`.

    The crop is torchvision's: area and logarithm of the aspect ratio evenly drawn until the crop fits, ten times at most; then the largest
    crop whose ratio is allowed (the whole frame where 1 is). What a sample gets depends on (seed, epoch, its video, its view) alone.

    Inside a box everything is drawn as if the frame had been cut to the box and then stretched to a square: areas are shares of the box's
    area, and ratios are relative to the box's own.

    Args:
        settings: Ranges and probabilities.
        seed: The run's.
        epoch: 0-based.
        videos: (N,) video numbers.
        views: Views a video.
        store_size: S.
        boxes: (N, 4) top, left, height and width, in whole stored pixels, of what each video's crops stay inside, or (views, N, 4) where
            its views are of several videos; None = the whole picture.
    """
    if boxes is None:
        boxes = np.array([0, 0, store_size, store_size])
    box_top, box_left, box_height, box_width = np.broadcast_to(boxes, (views, len(videos), 4)).reshape(-1, 4).T
    u = np.concatenate([uniform(seed, stream=Stream.AUGMENT, epoch=epoch, item=videos, view=view, draws=_DRAWS) for view in range(views)])
    height, width = _crop_sizes(u[:, _CROP_DRAWS_FROM:], settings, box_height, box_width)
    low, high = settings.blur_sigma
    blur_sigma = np.where(u[:, 5] < settings.blur, low + (high - low) * u[:, 6], 0)
    vertical_flip = u[:, 1] < settings.vertical_flip
    drawn = {
        "top": box_top + np.floor(u[:, 7] * (box_height - height + 1)),
        "left": box_left + np.floor(u[:, 8] * (box_width - width + 1)),
        "height": height,
        "width": width,
        "horizontal_flip": u[:, 0] < settings.horizontal_flip,
        "vertical_flip": vertical_flip,
        "brightness": 1 + settings.brightness * (2 * u[:, 2] - 1),
        "contrast": 1 + settings.contrast * (2 * u[:, 3] - 1),
        "contrast_first": u[:, 4] < 0.5,
        "blur_sigma": blur_sigma,
    }
    values = np.stack([drawn[name].astype(np.float32) for name in PARAMETERS])
    return Augmentations(
        torch.from_numpy(values), bool(vertical_flip.any()), int(np.ceil(3 * blur_sigma.astype(np.float32).max(initial=0)))
    )


def _crop_sizes(
    u: np.ndarray, settings: sections.Augment, box_heights: np.ndarray, box_widths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths (N,) of random resized crops in boxes (N,) by (N,), from (N, 2 * CROP_ATTEMPTS) uniform numbers."""
    shares = settings.scale[0] + (settings.scale[1] - settings.scale[0]) * u[:, 0::2]
    low, high = np.log(settings.ratio[0]), np.log(settings.ratio[1])
    ratios = np.exp(low + (high - low) * u[:, 1::2])
    tall, wide = box_heights[:, None], box_widths[:, None]
    widths, heights = np.rint(np.sqrt(wide * wide * shares * ratios)), np.rint(np.sqrt(tall * tall * shares / ratios))
    fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= tall)
    first = fits.argmax(axis=1)[:, None]
    largest_width = box_widths if settings.ratio[1] >= 1 else np.maximum(1, np.rint(box_widths * settings.ratio[1]))
    largest_height = box_heights if settings.ratio[0] <= 1 else np.maximum(1, np.rint(box_heights / settings.ratio[0]))
    none = ~fits.any(axis=1)
    height = np.where(none, largest_height, np.take_along_axis(heights, first, axis=1)[:, 0])
    width = np.where(none, largest_width, np.take_along_axis(widths, first, axis=1)[:, 0])
    return height, width


def augment(frames: torch.Tensor, parameters: Augmentations, size: int) -> torch.Tensor:
    """Augment and normalise gray frames.

    Resampling is bilinear inside the crop (its edge pixels repeat), without the averaging that shrinking would need: keep the stored size
    near the view's. With both equal, crops are only ever enlarged, and the result is torchvision's.

    Args:
        frames: (N, S, S) floating-point gray levels, 0 to 1.
        parameters: Of N augmentations, on the same device.
        size: P.

    Returns:
        (N, 1, P, P) gray levels with 0.5 taken off, over 0.25.
    """
    views = _resized_crops(frames, parameters, size)
    views = torch.where(parameters.each("horizontal_flip") > 0, views.flip(3), views)
    if parameters.any_vertical_flip:
        views = torch.where(parameters.each("vertical_flip") > 0, views.flip(2), views)
    views = _jittered(views, parameters)
    if parameters.blur_radius:
        views = blurred(views, parameters["blur_sigma"], parameters.blur_radius)
    return (views - PIXEL_MEAN) / PIXEL_STD


def two_views(
    frames: torch.Tensor, coefficients: torch.Tensor, parameters: Augmentations, *, order: str, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two views of each video from its three frames.

    Args:
        frames: (videos, 3, S, S) uint8: x1, anchor, x3.
        coefficients: (videos, 2) shares of x1 in view a and of x3 in view b.
        parameters: Of 2 views a video for 'mix-then-augment'; of 3 (one a frame; both views share the augmented anchor) for
            'augment-then-mix'.
        order: One of the two.
        size: P.

    Returns:
        Two tensors (videos, 1, P, P), normalised.
    """
    outer = frames[:, ::2].float().transpose(0, 1) / 255
    anchor = frames[:, 1].float() / 255
    share = coefficients.float().transpose(0, 1)[:, :, None, None]
    if order == "mix-then-augment":
        mixed = share * outer + (1 - share) * anchor
        view_a, view_b = augment(mixed.flatten(0, 1), parameters, size).chunk(2)
        return view_a, view_b
    first, middle, third = augment(torch.cat([outer[0], anchor, outer[1]]), parameters, size).chunk(3)
    share = share[:, :, None]
    return share[0] * first + (1 - share[0]) * middle, share[1] * third + (1 - share[1]) * middle


def _resized_crops(frames: torch.Tensor, parameters: Augmentations, size: int) -> torch.Tensor:
    """(N, S, S) to (N, 1, P, P): one bilinear sampling of each sample's crop."""
    stored = frames.shape[-1]
    centres = (torch.arange(size, device=frames.device, dtype=frames.dtype) + 0.5) / size
    grids = []
    for start, extent in ((parameters["left"], parameters["width"]), (parameters["top"], parameters["height"])):
        position = start[:, None] + centres * extent[:, None] - 0.5
        position = torch.maximum(torch.minimum(position, (start + extent - 1)[:, None]), start[:, None])
        grids.append((2 * position + 1) / stored - 1)
    columns, rows = grids
    grid = torch.stack([columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)], dim=-1)
    return functional.grid_sample(frames[:, None], grid, mode="bilinear", padding_mode="border", align_corners=False)


def _jittered(views: torch.Tensor, parameters: Augmentations) -> torch.Tensor:
    """Brightness and contrast, each clamped to 0..1, in each sample's order."""
    brightness, contrast, first = parameters.each("brightness"), parameters.each("contrast"), parameters.each("contrast_first") > 0
    one = torch.ones_like(brightness)
    views = _contrasted(views, torch.where(first, contrast, one))
    views = (views * brightness).clamp(0, 1)
    return _contrasted(views, torch.where(first, one, contrast))


def _contrasted(views: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    return (views * factor + mean * (1 - factor)).clamp(0, 1)


def blurred(views: torch.Tensor, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """A separable Gaussian blur, edges mirrored, each sample's kernel cut at three standard deviations, rounded up.

    Args:
        views: (N, 1, P, P).
        sigma: (N,) standard deviations in pixels, 0 = none.
        radius: Pixels that the widest blur reaches.
    """
    size = views.shape[-1]
    radius = min(radius, size - 1)
    offsets = torch.arange(-radius, radius + 1, device=views.device)
    kernel = torch.exp(-((offsets / sigma.clamp(min=1e-3)[:, None]) ** 2) / 2)
    # Cut by the sample and not by the batch, so that a view does not depend on what it is drawn beside.
    kernel = torch.where(offsets.abs() <= torch.ceil(3 * sigma)[:, None], kernel, 0)
    kernel = kernel / kernel.sum(1, keepdim=True)
    place = (torch.arange(size, device=views.device)[:, None] + offsets).abs()
    place = torch.where(place > size - 1, 2 * (size - 1) - place, place)
    matrix = torch.zeros(len(views), size, size, device=views.device, dtype=views.dtype)
    matrix.scatter_add_(2, place.expand(len(views), -1, -1), kernel[:, None, :].expand(-1, size, -1).to(views.dtype))
    blurred = matrix @ views[:, 0] @ matrix.transpose(1, 2)
    return torch.where((sigma > 0)[:, None, None, None], blurred[:, None], views)
