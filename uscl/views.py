"""The two views of each video, by the path that suits the machine.

In come a batch's frames and everything that was drawn for it; out come two normalised views. The plain path (augment.py) runs everywhere
and says what is right; the fast ones (augment_fast.py on the CPU, augment_triton.py on a GPU) equal it within their stated tolerance.
"""

from __future__ import annotations

import functools

import torch

from uscl import augment
from uscl.augment import Augmentations
from usdata.console import say
from usdata.errors import UserError


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

    from uscl.config import Augment

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
