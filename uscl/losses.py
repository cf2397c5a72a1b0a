"""Losses: NT-Xent, its supervised form, InfoNCE with hard and soft targets on projections, and cross-entropy on labelled videos.

In come projections or logits of one batch; out comes one number with a gradient that is always finite. All are computed in at least
float32, whatever the network computes in.
"""

from __future__ import annotations

import torch
from torch.nn import functional

UNLABELLED = -1
# Below this length a projection has no direction: it is divided by this instead, and its cosines are 0 where it is the zero vector.
_SHORTEST = 1e-8


def nt_xent(
    z_a: torch.Tensor,
    z_b: torch.Tensor,
    temperature: float,
    *,
    same_group: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    hard: torch.Tensor | None = None,
    hard_known: torch.Tensor | None = None,
) -> torch.Tensor:
    """The normalised temperature-scaled cross-entropy (Chen et al.: A simple framework for contrastive learning, ICML 2020, equation 1).

    Row i of one view is the positive of row i of the other; all other rows of both views are negatives.

    Args:
        z_a: (N, D) projections of view a, any length.
        z_b: (N, D) projections of view b.
        temperature: Greater than 0.
        same_group: (N, N) bool; videos i and j that share a group are no negatives of each other. The diagonal is not looked at.
        weights: (N,) what the terms of a pair's two rows are multiplied with; None: 1. The sum is still divided by 2N and not by the sum of
            the weights: IVPP's authors divide by the number of pairs alike, N (VanBerlo et al. 2024, arXiv 2403.07715, by the first
            author's repository), so that their loss is twice this one.
        hard: (N, H, D) projections of each video's own hard negatives, which are negatives of both its rows and of no other.
        hard_known: (N, H) bool, which of them there are; None: all.

    Returns:
        The mean over the 2N rows; without hard negatives 0 for N = 1, ln(2N - 1) when all rows are equal (times the mean weight).

    Example:
        >>> nt_xent(torch.eye(4), torch.eye(4), 0.5)
        tensor(0.5944)
    """
    with torch.autocast(z_a.device.type, enabled=False):
        similarity, positive = _similarities(z_a, z_b, temperature, same_group, hard, hard_known)
        if weights is None:
            return functional.cross_entropy(similarity, positive)
        rows = functional.cross_entropy(similarity, positive, reduction="none")
        return (rows * weights.to(rows.dtype).repeat(2)).mean()


def nt_xent_rows(z_a: torch.Tensor, z_b: torch.Tensor, temperature: float, *, same_group: torch.Tensor | None = None) -> torch.Tensor:
    """The terms whose mean is `nt_xent`, with its first arguments: (2N,), those of view a's rows before those of view b's."""
    with torch.autocast(z_a.device.type, enabled=False):
        return functional.cross_entropy(*_similarities(z_a, z_b, temperature, same_group), reduction="none")


def _similarities(
    z_a: torch.Tensor,
    z_b: torch.Tensor,
    temperature: float,
    same_group: torch.Tensor | None,
    hard: torch.Tensor | None = None,
    hard_known: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(2N, 2N + H) cosines over the temperature, -inf where two rows are no pair at all, and the (2N,) places of the positives."""
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
    similarity = similarity.masked_fill(left_out, float("-inf"))
    if hard is not None:
        similarity = torch.cat([similarity, _to_hard(z, hard, hard_known, temperature)], dim=1)
    return similarity, positive


def supervised_contrast(
    z_a: torch.Tensor,
    z_b: torch.Tensor,
    keys: torch.Tensor,
    temperature: float,
    *,
    same_group: torch.Tensor | None = None,
    hard: torch.Tensor | None = None,
    hard_known: torch.Tensor | None = None,
) -> torch.Tensor:
    """SupCon (Khosla et al.: Supervised contrastive learning, NeurIPS 2020, arXiv 2004.11362, equation 2, L_out).

    Positives of a row are the other view of its video and both views of all videos with its key; for each row, the mean over its positives
    of -ln softmax is taken, the softmax being over all rows but itself. Where no two keys are equal it is NT-Xent.

    Args:
        z_a: (N, D) projections of view a, any length.
        z_b: (N, D) projections of view b.
        keys: (N,) int64; -1 = the video has none, and no positive but its own other view.
        temperature: Greater than 0.
        same_group: (N, N) bool; videos i and j that share a group and no key are no negatives of each other. The diagonal is not looked at.
        hard: As for `nt_xent`.
        hard_known: As for `nt_xent`.

    Returns:
        The mean over the 2N rows; 0 for N = 1, ln(2N - 1) when all rows are equal (both without hard negatives).

    Example:
        >>> supervised_contrast(torch.eye(4), torch.eye(4), torch.tensor([0, 0, 1, -1]), 0.5)
        tensor(1.2611)
    """
    count = len(z_a)
    dtype = torch.promote_types(torch.promote_types(z_a.dtype, z_b.dtype), torch.float32)
    with torch.autocast(z_a.device.type, enabled=False):
        z = functional.normalize(torch.cat([z_a, z_b]).to(dtype), dim=1, eps=_SHORTEST)
        similarity = z @ z.T / temperature
        row = torch.arange(2 * count, device=z.device)
        itself = row[:, None] == row
        positive = ((keys[:, None] == keys) & (keys >= 0)).repeat(2, 2)
        positive = (positive | (row[:, None] == row.roll(count))) & ~itself
        left_out = itself if same_group is None else itself | (same_group.repeat(2, 2) & ~positive)
        similarity = similarity.masked_fill(left_out, float("-inf"))
        if hard is not None:
            similarity = torch.cat([similarity, _to_hard(z, hard, hard_known, temperature)], dim=1)
        shares = functional.log_softmax(similarity, dim=1)[:, : 2 * count]
        return -(shares.where(positive, 0).sum(dim=1) / positive.sum(dim=1)).mean()


def info_nce(
    queries: torch.Tensor,
    keys: torch.Tensor,
    negatives: torch.Tensor,
    temperature: float,
    *,
    left_out: torch.Tensor | None = None,
    hard: torch.Tensor | None = None,
    hard_known: torch.Tensor | None = None,
) -> torch.Tensor:
    """InfoNCE against a set of negatives (He et al.: Momentum contrast, CVPR 2020, arXiv 1911.05722, equation 1).

    -ln of the softmax's share of a query's own key, the softmax being over that key and the negatives.

    Args:
        queries: (N, D), any length.
        keys: (N, D), each the positive of the query in its row.
        negatives: (K, D), shared by all queries.
        temperature: Greater than 0.
        left_out: (N, K) bool, which of them are no negatives of a query; None: all are.
        hard: (N, H, D) negatives of one query each.
        hard_known: (N, H) bool, which of these there are; None: all.

    Returns:
        The mean over the queries; 0 where none has a negative, the mean of ln(1 + negatives) where all vectors are equal.

    Example:
        >>> info_nce(torch.eye(2), torch.eye(2), -torch.eye(2), 0.5)
        tensor(0.1429)
    """
    dtype = torch.promote_types(torch.promote_types(queries.dtype, keys.dtype), torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        q, k, others = (functional.normalize(z.to(dtype), dim=1, eps=_SHORTEST) for z in (queries, keys, negatives))
        similarity = q @ others.T / temperature
        if left_out is not None:
            similarity = similarity.masked_fill(left_out, float("-inf"))
        columns = [(q * k).sum(dim=1, keepdim=True) / temperature, similarity]
        if hard is not None:
            columns.append(_to_hard(q, hard, hard_known, temperature))
        return functional.cross_entropy(torch.cat(columns, dim=1), torch.zeros(len(q), dtype=torch.int64, device=q.device))


def _to_hard(z: torch.Tensor, hard: torch.Tensor, known: torch.Tensor | None, temperature: float) -> torch.Tensor:
    """Similarities of normalised rows (V * N, D), view after view, to their video's own hard negatives (N, H, D): (V * N, H)."""
    rows = z.unflatten(0, (-1, len(hard)))
    similarity = torch.einsum("vnd,nhd->vnh", rows, functional.normalize(hard.to(z.dtype), dim=2, eps=_SHORTEST)) / temperature
    if known is not None:
        similarity = similarity.masked_fill(~known, float("-inf"))
    return similarity.flatten(0, 1)


def soft_info_nce(
    queries: torch.Tensor, keys: torch.Tensor, targets: torch.Tensor, temperature: float, *, left_out: torch.Tensor | None = None
) -> torch.Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4) with a target distribution in place of the one positive.

    The mean over the queries of -sum_k t_k ln p_k, with p the softmax of their cosines with the keys over the temperature. Where queries
    and keys are the rows of both views and the targets those of `soft_targets` with no softening, it is `nt_xent`.

    Args:
        queries: (Q, D), any length.
        keys: (K, D).
        targets: (Q, K), rows that sum to 1, and 0 where a key is left out.
        temperature: Greater than 0.
        left_out: (Q, K) bool, keys that a query does not meet: never all of them. None: it meets all.

    Returns:
        The mean; where all rows are equal, the mean logarithm of how many keys a query meets, whatever the targets.
    """
    dtype = torch.promote_types(torch.promote_types(queries.dtype, keys.dtype), torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        queries = functional.normalize(queries.to(dtype), dim=1, eps=_SHORTEST)
        keys = functional.normalize(keys.to(dtype), dim=1, eps=_SHORTEST)
        similarity = queries @ keys.T / temperature
        if left_out is not None:
            similarity = similarity.masked_fill(left_out, float("-inf"))
        chances = similarity.log_softmax(dim=1)
        if left_out is not None:
            chances = chances.masked_fill(left_out, 0.0)  # zero times minus infinity is no number
        return -(targets.to(dtype) * chances).sum(dim=1).mean()


def soft_targets(
    videos: int, softening: float, *, same_group: torch.Tensor | None = None, device: torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of `soft_info_nce` where queries and keys are two views of each video, view a before view b.

    The positive, the other view of the same video, has 1 - softening, and the negatives share the rest evenly, so each row sums to 1. A row
    without negatives has its positive alone.

    Args:
        videos: N.
        softening: From 0 to below 1.
        same_group: (N, N) bool; videos i and j that share a group are no negatives of each other. The diagonal is not looked at.
        device: Where the targets go.

    Returns:
        The targets (2N, 2N) in float64, which the loss rounds to what it computes in, and the keys that are left out, (2N, 2N) bool: the
        query's own place, and those of its group.
    """
    row = torch.arange(2 * videos, device=device)
    positive = row[:, None].roll(videos, 0) == row
    left_out = row[:, None] == row
    if same_group is not None:
        left_out = (left_out | same_group.repeat(2, 2)) & ~positive
    negative = ~(left_out | positive)
    negatives = negative.sum(dim=1, keepdim=True)
    shared = (negatives > 0).double() * softening
    return positive * (1 - shared) + negative * shared / negatives.clamp(min=1), left_out


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
