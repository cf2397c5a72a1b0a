"""The gradient of a loss of the whole batch, with only a part of the batch in the network at a time (GradCache: Gao, Zhang, Han and Callan
2021, Scaling deep contrastive learning batch size under memory limited setup).

Adding up the losses of parts is another loss: each video would meet the negatives of its own part alone. Here every part is embedded
without its graph, the loss and its gradient by embedding are taken over all of them, and every part is embedded once more to carry that
gradient to the weights. The gradient is exact; it costs a second forward pass. BatchNorm normalises by each part, as it would in several
processes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn


def cached_gradients(
    method: nn.Module,
    view_a: torch.Tensor,
    view_b: torch.Tensor,
    labels: torch.Tensor,
    same_group: torch.Tensor | None,
    part: int,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, Any]:
    """Add a batch's gradients to a method's parameters; gives its outcome, which has no graph any more.

    Args:
        method: With `embed` and `compare` (see `uscl.methods`).
        view_a: (n, 1, H, W).
        view_b: (n, 1, H, W).
        labels: As for the method's `forward`.
        same_group: Likewise.
        part: Videos that pass the network at once.
        autocast: Around every forward pass; gradients are taken outside of it, as always.
    """
    views = list(zip(view_a.split(part), view_b.split(part), strict=True))
    statistics = [buffer.clone() for buffer in method.buffers()]
    with torch.no_grad():
        with autocast():
            found = [method.embed(*pair) for pair in views]  # type: ignore[operator]
        # Running statistics see each part once, in the pass that is kept.
        for buffer, before in zip(method.buffers(), statistics, strict=True):
            buffer.copy_(before)
    leaves = [tuple(value.detach().requires_grad_() for value in part_of) for part_of in found]
    features, projections = (_joined([leaf[place] for leaf in leaves]) for place in (0, 1))
    with autocast():
        outcome: dict[str, Any] = method.compare(features, projections, labels, same_group)  # type: ignore[operator]
    outcome["loss"].backward()
    for pair, leaf in zip(views, leaves, strict=True):
        with autocast():
            embedded = method.embed(*pair)  # type: ignore[operator]
        kept = [(value, known.grad) for value, known in zip(embedded, leaf, strict=True) if known.grad is not None]
        torch.autograd.backward([value for value, _ in kept], [gradient for _, gradient in kept])
    return {key: value.detach() if isinstance(value, torch.Tensor) else value for key, value in outcome.items()}


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Parts of (2m, W), view a before view b in each, as (2n, W) in the same order."""
    halves = [part.chunk(2) if len(part) else (part, part) for part in parts]
    return torch.cat([half[0] for half in halves] + [half[1] for half in halves])
