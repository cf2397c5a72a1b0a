"""Losses: NT-Xent on two views' projections, and cross-entropy on those videos that have a label.

In come projections or logits of one batch; out comes one number with a gradient that is always finite. Both are computed in at least
float32, whatever the network computes in.
"""

from __future__ import annotations

import torch
from torch.nn import functional

UNLABELLED = -1
# Below this length a projection has no direction: it is divided by this instead, and its cosines are 0 where it is the zero vector.
_SHORTEST = 1e-8


def nt_xent(z_a: torch.Tensor, z_b: torch.Tensor, temperature: float, *, same_group: torch.Tensor | None = None) -> torch.Tensor:
    """The normalised temperature-scaled cross-entropy (Chen et al.: A simple framework for contrastive learning, ICML 2020, equation 1).

    Row i of one view is the positive of row i of the other; all other rows of both views are negatives.

    Args:
        z_a: (N, D) projections of view a, any length.
        z_b: (N, D) projections of view b.
        temperature: Greater than 0.
        same_group: (N, N) bool; videos i and j that share a group are no negatives of each other. The diagonal is not looked at.

    Returns:
        The mean over the 2N rows; 0 for N = 1, ln(2N - 1) when all rows are equal.

    Example:
        >>> nt_xent(torch.eye(4), torch.eye(4), 0.5)
        tensor(0.5944)
    """
    with torch.autocast(z_a.device.type, enabled=False):
        return functional.cross_entropy(*_similarities(z_a, z_b, temperature, same_group))


def nt_xent_rows(z_a: torch.Tensor, z_b: torch.Tensor, temperature: float, *, same_group: torch.Tensor | None = None) -> torch.Tensor:
    """The terms whose mean is `nt_xent`, with the same arguments: (2N,), those of view a's rows before those of view b's."""
    with torch.autocast(z_a.device.type, enabled=False):
        return functional.cross_entropy(*_similarities(z_a, z_b, temperature, same_group), reduction="none")


def _similarities(
    z_a: torch.Tensor, z_b: torch.Tensor, temperature: float, same_group: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(2N, 2N) cosines over the temperature, -inf where two rows are no pair at all, and the (2N,) places of the positives."""
    count = len(z_a)
    dtype = torch.promote_types(torch.promote_types(z_a.dtype, z_b.dtype), torch.float32)
    z = functional.normalize(torch.cat([z_a, z_b]).to(dtype), dim=1, eps=_SHORTEST)
    similarity = z @ z.T / temperature
    row = torch.arange(2 * count, device=z.device)
    positive = row.roll(count)
    left_out = row[:, None] == row
    if same_group is not None:
        left_out = left_out | same_group.repeat(2, 2)
        left_out[row, positive] = False
    return similarity.masked_fill(left_out, float("-inf")), positive


def masked_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross-entropy over the labelled rows, weighted by their classes where weights are given.

    Args:
        logits: (N, classes).
        labels: (N,) int64, -1 = unlabelled.
        class_weights: (classes,), each above 0; None: all equal.

    Returns:
        The mean; 0, with a zero gradient, where no row has a label.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    with torch.autocast(logits.device.type, enabled=False):
        weights = None if class_weights is None else class_weights.to(dtype)
        total = functional.cross_entropy(logits.to(dtype), labels, weights, ignore_index=UNLABELLED, reduction="sum")
        labelled = labels != UNLABELLED
        if weights is None:
            return total / labelled.sum().clamp(min=1)
        return total / torch.where(labelled, weights[labels.clamp(min=0)], 0).sum().clamp(min=weights.min())
