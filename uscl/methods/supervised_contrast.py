"""Supervised contrast: videos with an equal value in a column of the data set are positives of each other.

SupCon (Khosla et al., NeurIPS 2020, arXiv 2004.11362) with the value in `pairs.column` as label. AWCL (Fu et al., Anatomy-aware contrastive
representation learning for fetal ultrasound, ECCV workshops 2022, arXiv 2208.10642) is this loss with the anatomy as label, and plain
contrast where the anatomy is not known. Its published code decides that for a batch as a whole, by its first image; here it is decided for
each video: one without a value has no positive but its own other view, and is a negative of the others. (SupCon's published code multiplies
the loss by temperature / 0.07, which neither paper's formula has; with Adam it makes no difference.)
"""

from __future__ import annotations

from typing import ClassVar

import torch

from uscl.config import Config
from uscl.losses import supervised_contrast
from uscl.methods.method import Facts, Method, Outcome, hard_negatives, with_collapsed_loss
from usdata.errors import RecipeError


class SupervisedContrast(Method):
    """SupCon's L_out at `temperature` among all views of the batch, plus the classifier's cross-entropy where labels are used.

    Raises:
        RecipeError: No column is named.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"keys", "hard_negatives"})

    def __init__(self, config: Config, classes: int) -> None:
        if config.pairs.column is None:
            reason = f"is null, and method '{config.method}' takes its positives from a column of the data set"
            raise RecipeError("pairs.column", reason, "use --set pairs.column=label, or organ, view, ...")
        super().__init__(config, classes)

    def loss(self, projections: torch.Tensor, facts: Facts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """SupCon of the whole batch.

        Raises:
            ValueError: The facts have no keys.
        """
        if facts.keys is None:
            raise ValueError("supervised contrast needs the videos' keys")
        z_a, z_b = projections[: 2 * len(facts)].chunk(2)
        hard = hard_negatives(projections, facts)
        contrast = supervised_contrast(z_a, z_b, facts.keys, self.temperature, same_group=facts.same_group, **hard)
        return contrast, {"contrast": contrast}

    def compare(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """As every method's, with the loss of a collapsed network."""
        return with_collapsed_loss(self, super().compare(embedded, facts), facts)
