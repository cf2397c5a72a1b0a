"""USCL (Chen et al., MICCAI 2021, arXiv 2011.13066): contrast between the two views of a video, and cross-entropy where its label is known.

What distinguishes its presets (the paper's figure, the published code, positive-pair interpolation) are the pairs and where the classifier
reads. SimCLR (Chen et al., ICML 2020, arXiv 2002.05709) is this method on pairs of one frame (`pairs.policy: same-frame`) without labels.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from uscl.losses import nt_xent
from uscl.methods.method import Facts, Method, Outcome, hard_negatives, with_collapsed_loss


class USCL(Method):
    """NT-Xent at `temperature` between the projections of view a and view b, plus the classifier's cross-entropy.

    Views beyond the second are hard negatives of their own video, by the same network.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"hard_negatives", "pair_weights"})

    def loss(self, projections: torch.Tensor, facts: Facts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """NT-Xent of the whole batch."""
        z_a, z_b = projections[: 2 * len(facts)].chunk(2)
        hard = hard_negatives(projections, facts)
        contrast = nt_xent(z_a, z_b, self.temperature, same_group=facts.same_group, weights=facts.pair_weights, **hard)
        return contrast, {"contrast": contrast}

    def compare(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """As every method's, with the loss of a collapsed network."""
        return with_collapsed_loss(self, super().compare(embedded, facts), facts)
