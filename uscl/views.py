"""The two views of each video, by the path that suits the machine.

In come a batch's frames and everything that was drawn for it; out come two normalised views. The plain path (augment.py) runs everywhere
and says what is right; the fast ones (augment_fast.py on the CPU, augment_triton.py on a GPU) equal it within their stated tolerance.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from uscl import augment
from uscl.augment import Augmentations
from usdata.console import say
from usdata.errors import UserError

if TYPE_CHECKING:
    from uscl.config import Config
    from uscl.feed import Batch


# Frames are mixed and augmented two views at a time.
VIEWS_A_PAIR = 2


def frames_augmented(config: Config) -> int:
    """How many augmentations a pair of views takes: one a view, or one a frame where frames are augmented before they are mixed."""
    return VIEWS_A_PAIR if config.pairs.order == "mix-then-augment" else 3


def batch_views(batch: Batch, config: Config) -> tuple[torch.Tensor, ...]:
    """All views of a batch: (n, 1, P, P) each, view a, view b, and two more for each further pair."""
    views: list[torch.Tensor] = []
    pairs = batch.facts.views // VIEWS_A_PAIR
    augmentations = batch.augmentations.values.chunk(pairs, dim=1) if pairs > 1 else (batch.augmentations.values,)
    for pair, values in enumerate(augmentations):
        views += two_views(
            batch.frames[:, 3 * pair : 3 * pair + 3],
            batch.coefficients[:, 2 * pair : 2 * pair + 2],
            replace(batch.augmentations, values=values),
            order=config.pairs.order,
            size=config.image_size,
            path=config.augment.path,
        )
    return tuple(views)


def two_views(
    frames: torch.Tensor, coefficients: torch.Tensor, parameters: Augmentations, *, order: str, size: int, path: str = "auto"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two views of each video from its three frames.

    Args:
        frames: (videos, 3, S, S) uint8: x1, anchor, x3.
        coefficients: As for `uscl.augment.two_views`, like the rest.
        parameters: On the same device.
        order: 'mix-then-augment' or 'augment-then-mix'.
        size: P.
        path: 'plain', 'fast', or 'auto': fast where there is a fast path (on a GPU, where it has been compared with the plain path first).

    Returns:
        Two tensors (videos, 1, P, P), normalised.

    Raises:
        UserError: The fast path is asked for, and this machine has none.
    """
    if path == "plain":
        return augment.two_views(frames, coefficients, parameters, order=order, size=size)
    if frames.device.type == "cpu":
        from uscl.augment_fast import two_views_fast

        return two_views_fast(frames, coefficients, parameters, order=order, size=size)
    reason = _no_fast_path_on_gpu(frames.device, frames.shape[-1], size)
    if reason and path == "fast":
        raise UserError("augment.path", f"is fast, and {reason}", "use --set augment.path=auto")
    if reason:
        return augment.two_views(frames, coefficients, parameters, order=order, size=size)
    from uscl.augment_triton import two_views_triton

    return two_views_triton(frames, coefficients, parameters, order=order, size=size)


@functools.cache
def _no_fast_path_on_gpu(device: torch.device, stored: int, size: int) -> str:
    """Why the GPU's fast path is not used, said once; '' = it gave the plain path's views of a drawn batch, and is used.

    Looked at once a process, outside of any CUDA graph: the first call waits for the GPU.
    """
    reason = _compared(device, stored, size)
    if reason:
        say(f"augmentation: the plain path, because {reason}")
    return reason


def _compared(device: torch.device, stored: int, size: int) -> str:
    try:
        from uscl.augment_triton import TOLERANCE, two_views_triton
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    import numpy as np

    from uscl.sections import Augment

    videos = 8
    settings = Augment(vertical_flip=0.5)
    drawn = augment.draw_augmentations(settings, seed=0, epoch=0, videos=np.arange(videos), views=2, store_size=stored).to(device)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (videos, 3, stored, stored), dtype=torch.uint8, generator=generator).to(device)
    shares = torch.rand(videos, 2, generator=generator).to(device)
    order = "mix-then-augment"
    plain = torch.cat(augment.two_views(frames, shares, drawn, order=order, size=size))
    try:
        fast = torch.cat(two_views_triton(frames, shares, drawn, order=order, size=size))
    except Exception as error:  # noqa: BLE001 - a compiler that fails is a reason to take the plain path, whatever it raises; it is said
        return f"the kernel does not run here ({type(error).__name__})"
    off = (fast - plain).abs().max().item()
    return "" if off <= TOLERANCE else f"the kernel differs from it by {off:.3g}"
