"""What training methods share: how they are called, what they return, and the parts that most of them have.

In come normalised views of a batch of videos and what is known of those videos; out comes an `Outcome` with the loss. Where several
processes train, views are those of a process' own part of the batch and facts those of the whole: what a loss compares is gathered from all
of them with its gradient, and every process computes the loss of the whole batch.

Shapes: N videos of the batch, n of this process (n = N where there is one), V views a video, W features, D components of a projection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NotRequired, Self, TypedDict

import torch
from torch import nn

from uscl.backbones import make_backbone
from uscl.config import Config
from uscl.distributed import gather
from uscl.losses import masked_cross_entropy
from uscl.models import projector


@dataclass(frozen=True)
class Facts:
    """What is known of a batch's N videos beside their views, the same in every process.

    Attributes:
        labels: (N,) int64, -1 = unlabelled.
        groups: (N,) int64 numbers of the groups (patients, where known).
        views: V: 2, and with `pairs.policy=hard-negatives` two more, of far frames of the same video.
        same_group: (N, N) bool where videos i and j are no negatives of each other; None: all are. The diagonal is not looked at.
        pair_weights: (N,) float32 weights of the pairs, or None.
        keys: (N,) int64 numbers of the values in `pairs.column`, -1 = it has none; None where no column is named.
        hard: (N, 2) bool, where there are views c and d: whether each is a far frame, and a negative; where not, it is to be ignored.
        partner_labels: (N,) int64 labels of the videos that view b is of, -1 = unlabelled; None where both views are of one video.
        partner_groups: (N,) int64 groups of those videos, likewise.
    """

    labels: torch.Tensor
    groups: torch.Tensor
    views: int = 2
    same_group: torch.Tensor | None = None
    pair_weights: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    hard: torch.Tensor | None = None
    partner_labels: torch.Tensor | None = None
    partner_groups: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Those fields that are tensors."""
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    def copied(self) -> Self:
        """The same facts in tensors of their own."""
        copies: dict[str, Any] = {name: tensor.clone() for name, tensor in self.tensors().items()}
        return replace(self, **copies)


class Outcome(TypedDict):
    """What a method returns.

    Keys:
        loss: Scalar with a gradient, of the whole batch.
        terms: Its parts by name, without their weights and detached. `contrast` is a loss among negatives.
        features: (2n, W) of the backbone, view a before view b, of this process' videos.
        projections: (2N, D), in the same order, of the whole batch, as the loss sees them: their cosines say whether it has collapsed.
        collapsed_loss: What `contrast` is where all projections are equal; where it is not given, ln(2N - 1). A scalar tensor where it
            depends on the batch.
    """

    loss: torch.Tensor
    terms: dict[str, torch.Tensor]
    features: torch.Tensor
    projections: torch.Tensor
    collapsed_loss: NotRequired[float | torch.Tensor]


class Method(nn.Module):
    """A method with a backbone, a projector, and, where labels are used, a linear classifier.

    A subclass gives `loss`, and overrides `embed` and `compare` where it has more networks than these. Losses are computed in at least
    float32, whatever the network computes in.

    Args:
        config: Its `backbone`, `projector`, `temperature` and `labels` are read here.
        classes: How many classes the labels have; 0 = they are not used.

    Attributes:
        uses: Which of `pair_weights`, `keys` and `hard_negatives` (views beyond the second) the method reads; what it does not read is
            refused before the training.
        ignores: Keys of a recipe that change nothing here, such as `temperature`; values of theirs that are not the default are refused.
        learns_first: A part of the method is stepped before all else is, by the gradients of `learn_first`.
        first_rate: Learning rate of that part; None: the run's.
        backbone: What is trained and exported.
        projector: (n, W) to (n, D).
        classifier: To logits, or None.
        class_weights: (classes,) of the cross-entropy, or None.
    """

    uses: ClassVar[frozenset[str]] = frozenset()
    ignores: ClassVar[frozenset[str]] = frozenset()
    learns_first: ClassVar[bool] = False
    first_rate: float | None = None

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.label_weight = config.labels.weight
        self.classifier_on = config.labels.classifier_on
        self.backbone = make_backbone(config.backbone, config.image_size)
        self.projector = projector(self.backbone.width, config.projector)
        self.projection_width = config.projector.width if config.projector.layers else self.backbone.width
        read = self.backbone.width if self.classifier_on == "features" else self.projection_width
        self.classifier = nn.Linear(read, classes) if classes else None
        self.register_buffer("class_weights", None, persistent=False)
        self.class_weights: torch.Tensor | None

    def forward(self, views: Sequence[torch.Tensor], facts: Facts) -> Outcome:
        """The loss of a batch.

        Args:
            views: V tensors (n, 1, H, W): view a, view b, and perhaps more.
            facts: Of the whole batch.
        """
        return self.compare(self.embed(views), facts)

    def embed(self, views: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """What of a video does not depend on the others: all views in one pass.

        Returns:
            Features (V * n, W) and projections (V * n, D), view after view; a subclass may add more tensors like them.
        """
        features = self.backbone(torch.cat(tuple(views)))
        return features, self.projector(features)

    def compare(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """The loss of the whole batch from what `embed` gave of this process' part of it."""
        features, own_projections = embedded
        projections = gather(own_projections, len(facts), views=facts.views)
        loss, terms = self.loss(projections, facts)
        return self.outcome(loss, terms, features, own_projections, projections, facts)

    def loss(self, projections: torch.Tensor, facts: Facts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """A method's own loss and its terms.

        Args:
            projections: (V * N, D), view after view, of the whole batch.
            facts: Of the whole batch.
        """
        raise NotImplementedError

    def outcome(
        self,
        loss: torch.Tensor,
        terms: dict[str, torch.Tensor],
        features: torch.Tensor,
        own_projections: torch.Tensor,
        projections: torch.Tensor,
        facts: Facts,
    ) -> Outcome:
        """The outcome of a method's own loss; where labels are used, with the cross-entropy of the two views, each weighted with
        `labels.weight`."""
        own = 2 * (len(features) // facts.views)
        terms = {name: term.detach() for name, term in terms.items()}
        if self.classifier is not None:
            read = features if self.classifier_on == "features" else own_projections
            o_a, o_b = gather(self.classifier(read[:own]), len(facts), views=2).chunk(2)
            labels_b = facts.labels if facts.partner_labels is None else facts.partner_labels
            cross_entropy = masked_cross_entropy(o_a, facts.labels, self.class_weights)
            cross_entropy = cross_entropy + masked_cross_entropy(o_b, labels_b, self.class_weights)
            loss = loss + self.label_weight * cross_entropy
            terms["cross_entropy"] = cross_entropy.detach()
        return {"loss": loss, "terms": terms, "features": features[:own], "projections": projections[: 2 * len(facts)]}

    def begin(self, steps: int) -> None:
        """Called once where a run begins anew, after the backbone has its initial weights: momentum encoders copy them here. A resumed run
        has what this left in parameters and buffers.

        Args:
            steps: Of the whole run.
        """

    def learn_first(
        self,
        views: Sequence[torch.Tensor],
        facts: Facts,
        meta_views: Sequence[torch.Tensor],
        meta_facts: Facts,
        rate: float,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> dict[str, torch.Tensor]:
        """Set the gradients of what learns before the step of everything else; called before each step where `learns_first` holds.

        Parameters and buffers are left as they were. The optimiser then steps what has a gradient, and nothing else, at `first_rate` and
        without weight decay: these gradients are small, and a decay beside them would be all that is learnt.

        Args:
            views: Of the batch that is stepped on.
            facts: Of that batch.
            meta_views: Of another batch, with pairs that no step is taken on.
            meta_facts: Of that one.
            rate: The run's learning rate at this step.
            autocast: Around every forward pass.

        Returns:
            Terms to tell beside those of the step.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after every step of the optimiser, without gradients: momentum encoders follow here."""

    def extra_repr(self) -> str:
        """The method's own settings."""
        return f"temperature={self.temperature}"


def hard_negatives(projections: torch.Tensor, facts: Facts) -> dict[str, torch.Tensor | None]:
    """The hard negatives among the projections (V * N, D) of a whole batch, as `uscl.losses` takes them: those of the views beyond the
    second, and which of them are of real far frames."""
    if facts.views == 2:
        return {"hard": None, "hard_known": None}
    far = projections.unflatten(0, (facts.views, len(facts)))[2:]
    return {"hard": far.transpose(0, 1), "hard_known": facts.hard}


def with_collapsed_loss(method: Method, outcome: Outcome, facts: Facts) -> Outcome:
    """An outcome with the loss of equal projections, where it is not ln(2N - 1): with hard negatives, without those of equal groups, or of
    weighted pairs."""
    if facts.views > 2 or facts.same_group is not None or facts.pair_weights is not None:
        constant = outcome["projections"].detach().new_ones(facts.views * len(facts), 1)
        outcome["collapsed_loss"] = method.loss(constant, facts)[0]
    return outcome


def without_graph(outcome: Outcome) -> dict[str, Any]:
    """An outcome without autograd's graph."""
    return {key: value.detach() if isinstance(value, torch.Tensor) else value for key, value in outcome.items()}
