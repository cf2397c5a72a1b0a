"""MoCo v2 (He et al.: Momentum contrast, CVPR 2020, arXiv 1911.05722; Chen et al., arXiv 2003.04297), and with hard negatives UCL.

View a passes the network that is trained, view b its momentum copy; the positive of a query is the key of the other view, negatives are the
keys of earlier batches, which a queue holds. One direction, as in the papers: view b is no query.

UCL (Basu et al.: Unsupervised contrastive learning of image representations from ultrasound videos with hard negative mining, MICCAI 2022,
arXiv 2207.13148) is this method on pairs of near frames with far frames of the same video as hard negatives
(`pairs.policy: hard-negatives`). As in its published code these pass the network that is trained, with their gradient. That code's
curriculum, which lets hard negatives come nearer from epoch to epoch, is `pairs.harder_over_epochs`. Not taken over is its one negative of
other videos, a mean of the four most similar hard negatives of the batch, weighted by a softmax: here all keys of the queue are negatives.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from uscl.config import Config
from uscl.distributed import gather
from uscl.losses import info_nce
from uscl.methods.method import Facts, Method, Outcome, hard_negatives

_NO_KEY = -1


class MoCo(Method):
    """InfoNCE at `temperature` of view a's projections against view b's keys and a queue of keys.

    Keys of a query's own group are no negatives of it where `pairs.distinct_groups` or `pairs.exclude_same_group` asks for that; so are not
    places of the queue that are still empty.

    The other keys of the batch are negatives too, as if they had been put into the queue before. BatchNorm marks all keys of a batch alike,
    and by that mark a query could tell its own from those of other batches; MoCo shuffles its batch over several GPUs against that, which
    one process cannot. Key and query network each normalise by the batch and keep running statistics of their own.

    Where labels are used, the classifier reads the key network's view b too; its gradient ends at the classifier.

    Attributes:
        key_backbone: The backbone's momentum copy.
        key_projector: The projector's.
        queue: (K, D) normalised keys.
        queue_groups: (K,) their groups' numbers, -1 where there is no key yet.
        queue_values: (K,) numbers of their values in `pairs.column` where videos of one value are no negatives (policy `same-column`), else
            -1.
        queue_next: Where the next key goes.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"hard_negatives"})

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        self.momentum = config.moco.momentum
        self.mask_groups = config.pairs.distinct_groups or config.pairs.exclude_same_group
        self.key_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.queue: torch.Tensor
        self.queue_groups: torch.Tensor
        self.queue_values: torch.Tensor
        self.queue_next: torch.Tensor
        self.register_buffer("queue", torch.zeros(config.moco.queue, self.projection_width))
        self.register_buffer("queue_groups", torch.full((config.moco.queue,), _NO_KEY))
        self.register_buffer("queue_values", torch.full((config.moco.queue,), _NO_KEY))
        self.register_buffer("queue_next", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def begin(self, steps: int) -> None:
        """The key network starts as a copy."""
        for key, query in self._networks():
            key.load_state_dict(query.state_dict())

    def embed(self, views: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Features (V * n, W) and projections (V * n, D), view after view: view b's by the key network, without a gradient."""
        view_a, view_b, *far = views
        count = len(view_a)
        features = self.backbone(torch.cat([view_a, *far]))
        projections = self.projector(features)
        with torch.no_grad():
            key_features = self.key_backbone(view_b)
            keys = self.key_projector(key_features)
        return (
            torch.cat([features[:count], key_features, features[count:]]),
            torch.cat([projections[:count], keys, projections[count:]]),
        )

    def compare(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """InfoNCE of the whole batch; in training mode its keys then take the place of the oldest in the queue."""
        features, own_projections = embedded
        projections = gather(own_projections, len(facts), views=facts.views)
        left_out = self._left_out(facts)
        contrast = self._contrast(projections, self.queue.clone(), left_out, facts)  # of a copy: the queue changes before the backward pass
        outcome = self.outcome(contrast, {"contrast": contrast}, features, own_projections, projections, facts)
        constant = projections.detach().new_ones(len(projections), 1)
        outcome["collapsed_loss"] = self._contrast(constant, torch.ones_like(self.queue[:, :1]), left_out, facts)
        if self.training:
            self._enqueue(projections[len(facts) : 2 * len(facts)], *_of_keys(facts))
        return outcome

    @torch.no_grad()
    def after_step(self) -> None:
        """The key network follows: k <- m k + (1 - m) q, equation 2 of the paper."""
        for key, query in self._networks():
            for kept, new in zip(key.parameters(), query.parameters(), strict=True):
                kept.lerp_(new, 1 - self.momentum)

    def extra_repr(self) -> str:
        """The method's own settings."""
        return f"temperature={self.temperature}, momentum={self.momentum}, queue={len(self.queue)}, mask_groups={self.mask_groups}"

    def _networks(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        return (self.key_backbone, self.backbone), (self.key_projector, self.projector)

    def _contrast(self, projections: torch.Tensor, queue: torch.Tensor, left_out: torch.Tensor, facts: Facts) -> torch.Tensor:
        queries, keys = projections[: 2 * len(facts)].chunk(2)
        negatives = torch.cat([queue, keys.detach().to(queue.dtype)])
        return info_nce(queries, keys, negatives, self.temperature, left_out=left_out, **hard_negatives(projections, facts))

    def _left_out(self, facts: Facts) -> torch.Tensor:
        """Which keys of the queue and of the batch are no negatives of a query: (N, K + N)."""
        left_out = (self.queue_groups == _NO_KEY).expand(len(facts), -1)
        own = torch.eye(len(facts), dtype=torch.bool, device=left_out.device)
        left_out = torch.cat([left_out, own], dim=1)
        groups, values = _of_keys(facts)
        if self.mask_groups:
            left_out = left_out | (facts.groups[:, None] == torch.cat([self.queue_groups, groups]))
        own_values = values[:, None]
        left_out = left_out | ((own_values == torch.cat([self.queue_values, values])) & (own_values >= 0))
        if facts.same_group is not None:
            left_out = torch.cat([left_out[:, : len(self.queue)], left_out[:, len(self.queue) :] | facts.same_group], dim=1)
        return left_out

    @torch.no_grad()
    def _enqueue(self, keys: torch.Tensor, groups: torch.Tensor, values: torch.Tensor) -> None:
        size = len(self.queue)
        keys, groups, values = keys[-size:], groups[-size:], values[-size:]
        places = (self.queue_next + torch.arange(len(keys), device=self.queue.device)) % size
        self.queue.index_copy_(0, places, functional.normalize(keys.to(self.queue.dtype), dim=1))
        self.queue_groups.index_copy_(0, places, groups)
        self.queue_values.index_copy_(0, places, values)
        self.queue_next.copy_((self.queue_next + len(keys)) % size)


def _of_keys(facts: Facts) -> tuple[torch.Tensor, torch.Tensor]:
    """The groups (N,) of the videos that keys, view b, are of; and their values in `pairs.column` where equal ones are no negatives."""
    if facts.partner_groups is None:
        return facts.groups, torch.full_like(facts.groups, _NO_KEY)
    assert facts.keys is not None  # a partner has the value of its video
    return facts.partner_groups, facts.keys
