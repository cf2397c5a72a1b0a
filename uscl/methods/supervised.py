"""Supervised pretraining, a baseline of USCL's paper (Chen et al., MICCAI 2021): cross-entropy on the videos' labels and nothing else."""

from __future__ import annotations

from typing import ClassVar

import torch

from uscl.config import Config
from uscl.methods.method import Facts, Method
from uscl.sections import Projector
from usdata.errors import RecipeError


class Supervised(Method):
    """The cross-entropy of both views' features, each weighted with `labels.weight`: at 0.5, which the recipe has, their mean.

    There is no projector: projections are the features, and settings of `projector` and `labels.classifier_on` are refused. A batch without
    a label costs nothing and has a zero gradient.

    Raises:
        RecipeError: There are no labels to learn from.
    """

    ignores: ClassVar[frozenset[str]] = frozenset({"temperature", "pairs.exclude_same_group", "projector", "labels.classifier_on"})

    def __init__(self, config: Config, classes: int) -> None:
        if not classes:
            reason = f"is '{config.method}', and there are no labels"
            if config.labels.weight == 0:
                raise RecipeError("method", f"{reason}, because labels.weight is 0", "use --set labels.weight=0.5, or another method")
            if config.labels.share == 0:
                raise RecipeError("method", f"{reason}, because labels.share is 0", "use --set labels.share=1, or another method")
            raise RecipeError("method", f"{reason} in the data set's splits that are trained on", "use another method, such as uscl")
        super().__init__(config.model_copy(update={"projector": Projector(layers=0)}), classes)

    def loss(self, projections: torch.Tensor, facts: Facts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Nothing: cross-entropy is added by `outcome`."""
        return projections.new_zeros((), dtype=torch.promote_types(projections.dtype, torch.float32)), {}

    def extra_repr(self) -> str:
        """The method's own settings."""
        return f"label_weight={self.label_weight}"
