"""The gradient of a loss of the whole batch, with only a part of the batch in the network at a time (GradCache: Gao, Zhang, Han and Callan
2021, Scaling deep contrastive learning batch size under memory limited setup).

Adding up the losses of parts is another loss: each video would meet the negatives of its own part alone. Here every part is embedded
without its graph, the loss and its gradient by embedding are taken over all of them, and every part is embedded once more to carry that
gradient to the weights. The gradient is exact; it costs a second forward pass. BatchNorm normalises by each part, as it would in several
processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from uscl.methods.method import Facts, Method, Outcome, without_graph


def cached_gradients(
    method: Method,
    views: Sequence[torch.Tensor],
    facts: Facts,
    part: int,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    compare: Callable[[tuple[torch.Tensor, ...], Facts], Outcome] | None = None,
) -> dict[str, Any]:
    """Add a batch's gradients to a method's parameters; gives its outcome, which has no graph any more.

    Args:
        method: Its `embed` and `compare` are called.
        views: As for the method's `forward`.
        facts: Likewise.
        part: Videos that pass the network at once.
        autocast: Around every forward pass; gradients are taken outside of it, as always.
        compare: Takes the place of the method's `compare`.
    """
    parts = list(zip(*(view.split(part) for view in views), strict=True))
    statistics = [buffer.clone() for buffer in method.buffers()]
    with torch.no_grad():
        with autocast():
            found = [method.embed(each) for each in parts]
        # Running statistics see each part once, in the pass that is kept.
        for buffer, before in zip(method.buffers(), statistics, strict=True):
            buffer.copy_(before)
    leaves = [tuple(value.detach().requires_grad_() for value in part_of) for part_of in found]
    joined = tuple(join_parts([leaf[place] for leaf in leaves], len(views)) for place in range(len(leaves[0])))
    with autocast():
        outcome = (compare or method.compare)(joined, facts)
    outcome["loss"].backward()
    for each, leaf in zip(parts, leaves, strict=True):
        with autocast():
            embedded = method.embed(each)
        kept = [(value, known.grad) for value, known in zip(embedded, leaf, strict=True) if known.grad is not None]
        torch.autograd.backward([value for value, _ in kept], [gradient for _, gradient in kept])
    return without_graph(outcome)


def join_parts(parts: list[torch.Tensor], views: int) -> torch.Tensor:
    """Parts of (V * m, ...), view after view in each, as (V * n, ...) in the same order."""
    return torch.cat([part.unflatten(0, (views, -1)) if len(part) else part.unflatten(0, (views, 0)) for part in parts], dim=1).flatten(
        0, 1
    )
