"""USCL (Chen et al., MICCAI 2021): contrast between the two views of a video, and cross-entropy where its label is known.

In come normalised views and labels; out come the loss, its terms, features and projections. SimCLR is this method on pairs of one frame
(`pairs.policy: same-frame`) without labels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from uscl.config import Config
from uscl.distributed import gather
from uscl.losses import masked_cross_entropy, nt_xent
from uscl.models import PROJECTION_WIDTH, Backbone, projector


class USCL(nn.Module):
    """Backbone, projector, and, where there are labels, a linear classifier.

    Args:
        config: Its `backbone`, `temperature` and `labels` are read.
        classes: How many classes the labels have; 0 = no classifier.
    """

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.label_weight = config.labels.weight
        self.classifier_on = config.labels.classifier_on
        self.backbone = Backbone(config.backbone)
        self.projector = projector(self.backbone.width)
        read = self.backbone.width if self.classifier_on == "features" else PROJECTION_WIDTH
        self.classifier = nn.Linear(read, classes) if classes else None

    def forward(
        self, view_a: torch.Tensor, view_b: torch.Tensor, labels: torch.Tensor, same_group: torch.Tensor | None = None
    ) -> dict[str, Any]:
        """One pass of both views together through the network: `embed`, then `compare`."""
        return self.compare(*self.embed(view_a, view_b), labels, same_group)

    def embed(self, view_a: torch.Tensor, view_b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What of a video does not depend on the others.

        Args:
            view_a: (n, 1, H, W), of this process' part of the batch's N videos (n = N where there is one process).
            view_b: (n, 1, H, W).

        Returns:
            Features (2n, width) and projections (2n, D), view a before view b.
        """
        features = self.backbone(torch.cat([view_a, view_b]))
        return features, self.projector(features)

    def compare(
        self, features: torch.Tensor, own_projections: torch.Tensor, labels: torch.Tensor, same_group: torch.Tensor | None = None
    ) -> dict[str, Any]:
        """The loss of the whole batch.

        Args:
            features: From `embed`.
            own_projections: From `embed`.
            labels: (N,) int64, -1 = unlabelled; of the whole batch.
            same_group: (N, N) bool, see `nt_xent`; of the whole batch.

        Returns:
            `loss` = contrast + weight * cross_entropy, where `cross_entropy` is the sum of the two views'; both are those of the whole
            batch in every process. `features` are of this process' part, `projections` of the whole.
        """
        projections = gather(own_projections, len(labels), views=2)
        z_a, z_b = projections.chunk(2)
        loss = contrast = nt_xent(z_a, z_b, self.temperature, same_group=same_group)
        terms = {"contrast": contrast.detach()}
        if self.classifier is not None:
            logits = self.classifier(features if self.classifier_on == "features" else own_projections)
            o_a, o_b = gather(logits, len(labels), views=2).chunk(2)
            cross_entropy = masked_cross_entropy(o_a, labels) + masked_cross_entropy(o_b, labels)
            loss = contrast + self.label_weight * cross_entropy
            terms["cross_entropy"] = cross_entropy.detach()
        return {"loss": loss, "terms": terms, "features": features, "projections": projections}
