"""USCL (Chen et al., MICCAI 2021, arXiv 2011.13066): contrast between the two views of a video, and cross-entropy where its label is known.

What distinguishes its presets (the paper's figure, the published code, positive-pair interpolation) are the pairs and where the classifier
reads. SimCLR (Chen et al., ICML 2020, arXiv 2002.05709) is this method on pairs of one frame (`pairs.policy: same-frame`) without labels.
"""

from __future__ import annotations

import math

import torch

from uscl.losses import nt_xent
from uscl.methods.method import Facts, Method, Outcome


class USCL(Method):
    """NT-Xent at `temperature` between the projections of view a and view b, plus the classifier's cross-entropy."""

    uses = frozenset({"pair_weights"})

    def compare(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """The loss of the whole batch; where pairs are weighted, so is the loss of a collapsed network."""
        outcome = super().compare(embedded, facts)
        if facts.pair_weights is not None:
            outcome["collapsed_loss"] = facts.pair_weights.mean() * math.log(2 * len(facts) - 1)
        return outcome

    def loss(self, projections: torch.Tensor, facts: Facts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """NT-Xent of the whole batch."""
        z_a, z_b = projections.chunk(2)
        contrast = nt_xent(z_a, z_b, self.temperature, same_group=facts.same_group, weights=facts.pair_weights)
        return contrast, {"contrast": contrast}
