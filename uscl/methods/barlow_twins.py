"""Barlow Twins (Zbontar et al., ICML 2021, arXiv 2103.03230): the cross-correlation of the two views' components is driven to the identity.

There are no negatives, so videos of one patient may share a batch without harm, and `pairs.exclude_same_group` has nothing to exclude. Nor
is there a temperature. What is compared are components over the batch: small batches know little of them.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from uscl.config import Config
from uscl.methods.method import Facts, Method, Outcome

# The paper's equation 2 has none; this is that of the BatchNorm by which its published code standardises.
EPSILON = 1e-5


def barlow_twins(z_a: torch.Tensor, z_b: torch.Tensor, *, weights: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The two terms of Barlow Twins' loss (Zbontar et al. 2021, equations 1 and 2), which is their sum, the second one times lambda.

    C = 1/N sum_n za_n zb_n^T of projections whose components are standardised over the batch: mean 0, variance 1.

    Weights of pairs enter the means and variances that standardise, and nothing else: IVPP (VanBerlo et al. 2024, arXiv 2403.07715) by the
    first author's repository, the only place where we could read it. There the variance is the unbiased one; ours divides by N, so that
    equal weights give equations 1 and 2.

    Args:
        z_a: (N, D) projections of view a.
        z_b: (N, D) projections of view b.
        weights: (N,), each above 0, or None: all equal.

    Returns:
        Invariance, sum_i (1 - C_ii)^2, and redundancy, sum over i != j of C_ij^2. Where a component is constant, as all are for N = 1, its
        row and column of C are 0: D and 0 where all are. Gradients are finite.

    Example:
        >>> barlow_twins(torch.eye(4), torch.eye(4))
        (tensor(1.1371e-08), tensor(1.3332))
    """
    with torch.autocast(z_a.device.type, enabled=False):
        z_a, z_b = standardised(z_a, weights), standardised(z_b, weights)
        correlation = z_a.T @ z_b / len(z_a)
        itself = torch.eye(len(correlation), dtype=torch.bool, device=z_a.device)
        return (1 - correlation.diagonal()).square().sum(), correlation.masked_fill(itself, 0).square().sum()


def standardised(z: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Components with mean 0 and variance 1 over the batch, in at least float32; a constant one is 0.

    Args:
        z: (N, D).
        weights: (N,) of the mean and the variance, or None: all equal.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    centred = z - z.mean(dim=0)
    if weights is None:
        variance = centred.square().mean(dim=0)
    else:
        shares = weights.to(z.dtype)[:, None] / weights.sum()
        # Of what is centred already, so that a constant component stays one though the shares add up to 1 but for rounding.
        centred = centred - (shares * centred).sum(dim=0)
        variance = (shares * centred.square()).sum(dim=0)
    return centred * torch.rsqrt(variance + EPSILON)


class BarlowTwins(Method):
    """Invariance plus `barlow_twins.off_diagonal` times redundancy, of the projections of the whole batch."""

    uses: ClassVar[frozenset[str]] = frozenset({"pair_weights"})
    ignores: ClassVar[frozenset[str]] = frozenset({"temperature", "pairs.exclude_same_group"})

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        self.off_diagonal, self.scale = config.barlow_twins.off_diagonal, config.barlow_twins.scale

    def compare(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """The loss of the whole batch. The projections are handed out standardised: their own means and lengths are nothing to the loss."""
        outcome = super().compare(embedded, facts)
        with torch.no_grad():
            outcome["projections"] = torch.cat([standardised(z, facts.pair_weights) for z in outcome["projections"].chunk(2)])
        return outcome

    def loss(self, projections: torch.Tensor, facts: Facts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Barlow Twins' loss of the whole batch, times `barlow_twins.scale`."""
        invariance, redundancy = barlow_twins(*projections.chunk(2), weights=facts.pair_weights)
        loss = self.scale * (invariance + self.off_diagonal * redundancy)
        return loss, {"invariance": invariance, "redundancy": redundancy}

    def extra_repr(self) -> str:
        """The method's own settings."""
        return f"off_diagonal={self.off_diagonal}, scale={self.scale}"
