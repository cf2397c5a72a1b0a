"""VICReg (Bardes, Ponce and LeCun, ICLR 2022, arXiv 2105.04906): the views of a video lie near each other, every component varies over the
batch, and no two vary together.

There are no negatives, so videos of one patient may share a batch without harm, and `pairs.exclude_same_group` has nothing to exclude. Nor
is there a temperature. What varies is judged by the batch: small batches know little of it.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from uscl.config import Config
from uscl.methods.method import Facts, Method, Outcome

# The paper's gamma and epsilon (section 4.1): each component's standard deviation is to reach 1.
_TARGET = 1.0
_EPSILON = 1e-4


def vicreg(z_a: torch.Tensor, z_b: torch.Tensor, *, weights: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three terms of VICReg's loss (Bardes et al. 2022, equations 1 to 6), which is their weighted sum.

    As in the published code, with which the published weights 25, 25 and 1 were found: the squared distance is the mean over components,
    where equation 5 has their sum, and the variance term the mean of the two views', where equation 6 has their sum.

    Weights of pairs multiply the squared distances, and no other term; the sum is still divided by N and not by the sum of the weights:
    IVPP (VanBerlo et al. 2024, arXiv 2403.07715) by the first author's repository, the only place where we could read it.

    Args:
        z_a: (N, D) projections of view a.
        z_b: (N, D) projections of view b.
        weights: (N,), or None: all 1.

    Returns:
        Invariance: the mean of w (z_a - z_b)^2. Variance: the mean of max(0, 1 - sqrt(var + 1e-4)) over components and views, with the
        unbiased variance. Covariance: the sum of the squared covariances of different components over D, of both views together. For N = 1
        variances and covariances are 0. Gradients are finite.

    Example:
        >>> vicreg(torch.eye(4), torch.eye(4))
        (tensor(0.), tensor(0.4999), tensor(0.0417))
    """
    dtype = torch.promote_types(torch.promote_types(z_a.dtype, z_b.dtype), torch.float32)
    with torch.autocast(z_a.device.type, enabled=False):
        z_a, z_b = z_a.to(dtype), z_b.to(dtype)
        distances = (z_a - z_b).square()
        invariance = (distances if weights is None else weights.to(dtype)[:, None] * distances).mean()
        (variance_a, covariance_a), (variance_b, covariance_b) = _spread(z_a), _spread(z_b)
        return invariance, (variance_a + variance_b) / 2, covariance_a + covariance_b


def _spread(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The variance and the covariance term of one view."""
    count, width = z.shape
    centred = centre(z)
    variance = centred.square().sum(dim=0) / max(count - 1, 1)
    covariance = centred.T @ centred / max(count - 1, 1)
    itself = torch.eye(width, dtype=torch.bool, device=z.device)
    hinge = torch.relu(_TARGET - torch.sqrt(variance + _EPSILON)).mean()
    return hinge, covariance.masked_fill(itself, 0).square().sum() / width


def centre(z: torch.Tensor) -> torch.Tensor:
    """Components (N, D) with mean 0 over the batch, in at least float32."""
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    return z - z.mean(dim=0)


class VICReg(Method):
    """Invariance, variance and covariance with the weights of `vicreg`, of the projections of the whole batch."""

    uses: ClassVar[frozenset[str]] = frozenset({"pair_weights"})
    ignores: ClassVar[frozenset[str]] = frozenset({"temperature", "pairs.exclude_same_group"})

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        self.weights = config.vicreg

    def compare(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """The loss of the whole batch. The projections are handed out centred: a mean that both views share is nothing to the loss."""
        outcome = super().compare(embedded, facts)
        with torch.no_grad():
            outcome["projections"] = torch.cat([centre(z) for z in outcome["projections"].chunk(2)])
        return outcome

    def loss(self, projections: torch.Tensor, facts: Facts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """VICReg's loss of the whole batch."""
        invariance, variance, covariance = vicreg(*projections.chunk(2), weights=facts.pair_weights)
        loss = self.weights.invariance * invariance + self.weights.variance * variance + self.weights.covariance * covariance
        return loss, {"invariance": invariance, "variance": variance, "covariance": covariance}

    def extra_repr(self) -> str:
        """The method's own settings."""
        return ", ".join(f"{name}={value}" for name, value in self.weights)
