"""DINO (Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021, arXiv 2104.14294): a student network
learns to say of one view what its own moving average, the teacher, says of the other. There are no negatives.

Two views, no smaller crops beside them (the paper's multi-crop), on any backbone. Facts of groups change nothing here but batches.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from uscl.config import Config
from uscl.distributed import gather
from uscl.methods.method import Facts, Method, Outcome


def self_distillation(
    student: torch.Tensor, teacher: torch.Tensor, centre: torch.Tensor, temperature: float, teacher_temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the student's distribution of a view under the teacher's of the other view (Caron et al. 2021, equations 1 to 3).

    With p = softmax(student / temperature) and q = softmax((teacher - centre) / teacher_temperature), view a before view b in both:
    the mean over the videos of (H(q_a, p_b) + H(q_b, p_a)) / 2, H(q, p) = -sum_k q_k ln p_k.

    Args:
        student: (2N, K) scores.
        teacher: (2N, K) scores; no gradient reaches them.
        centre: (K,).
        temperature: Of the student, greater than 0.
        teacher_temperature: Of the teacher, greater than 0.

    Returns:
        The loss, and the mean entropy of the teacher's distributions: 0 where it has collapsed to one component, ln K where to an even
        distribution. The loss is at least that entropy. Both in at least float32.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        said = (student.to(dtype) / temperature).log_softmax(dim=1)
        known = ((teacher.detach().to(dtype) - centre) / teacher_temperature).log_softmax(dim=1)
        targets = known.exp()
        loss = -(targets.roll(len(targets) // 2, 0) * said).sum(dim=1).mean()
        return loss, -(targets * known).sum(dim=1).mean()


class DINO(Method):
    """Self-distillation, plus the classifier's cross-entropy on the student.

    Student and teacher are each a backbone, a projector, and prototypes: the projection is scaled to length 1 (the paper's l2
    bottleneck, of `projector.width`), and its scores are the cosines with `dino.prototypes` vectors (the paper's weight-normalised last
    layer, with its lengths fixed at 1). The projector has ReLU where the paper has GELU.

    The teacher's parameters follow the student's after each step, t <- m t + (1 - m) s with m = `dino.teacher_momentum`, which rises to 1
    over the run along half a cosine; its BatchNorm keeps statistics of its own passes. The centre follows the mean of the teacher's
    scores over the whole batch (equation 4). The prototypes stay as they began for `dino.frozen_epochs`: they are put back after each
    step, so their gradient still counts in `grad_norm`. What of this depends on the run's length needs `begin`; without it m is constant
    and nothing is frozen.

    The backbone that is trained, looked at and exported is the student's, as with every method here. The paper evaluates the teacher; a run
    with `average.decay` exports an average of the student's weights, which is what a teacher of constant momentum is.

    `projections` of the outcome are the student's, before they are scaled to length 1. `terms` hold `distillation`, the loss, and
    `teacher_entropy`.
    """

    ignores: ClassVar[frozenset[str]] = frozenset({"pairs.exclude_same_group"})

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        self.settings = config.dino
        self.epochs = config.epochs
        self.prototypes = nn.Linear(self.projection_width, self.settings.prototypes, bias=False)
        self.teacher_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.teacher_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.teacher_prototypes = copy.deepcopy(self.prototypes).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(self.settings.prototypes))
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps_in_all", torch.zeros((), dtype=torch.int64))  # 0 = not known
        self.centre: torch.Tensor
        self.steps_taken: torch.Tensor
        self.steps_in_all: torch.Tensor

    @torch.no_grad()
    def begin(self, steps: int) -> None:
        """The teacher starts as the student; the run's length is kept."""
        for teacher, student in self._networks():
            teacher.load_state_dict(student.state_dict())
        self.steps_taken.zero_()
        self.steps_in_all.fill_(steps)

    def embed(self, views: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """All views in one pass of each network.

        Returns:
            The student's features (V * n, W) and projections (V * n, D), and the teacher's projections, view after view.
        """
        frames = torch.cat(tuple(views))
        features = self.backbone(frames)
        with torch.no_grad():
            told = self.teacher_projector(self.teacher_backbone(frames))
        return features, self.projector(features), told

    def compare(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """The loss of the whole batch. In training the centre moves on, once a call."""
        features, own_projections, own_told = embedded
        projections = gather(own_projections, len(facts), views=facts.views)
        told = gather(own_told, len(facts), views=facts.views)
        student = _scores(projections, self.prototypes.weight)
        with torch.no_grad():
            teacher = _scores(told, self.teacher_prototypes.weight)
        settings = self.settings
        loss, entropy = self_distillation(student, teacher, self.centre, self.temperature, settings.teacher_temperature)
        if self.training:
            with torch.no_grad():
                self.centre.lerp_(teacher.mean(dim=0).to(self.centre.dtype), 1 - settings.centre_momentum)
        terms = {"distillation": loss, "teacher_entropy": entropy}
        return self.outcome(loss, terms, features, own_projections, projections, facts)

    @torch.no_grad()
    def after_step(self) -> None:
        """Frozen prototypes are put back, and the teacher follows. All is computed in tensors, for a CUDA graph to record."""
        known = self.steps_in_all > 0
        done = torch.where(known, self.steps_taken.double() / self.steps_in_all.clamp(min=1), 0.0)
        frozen = known & (done * self.epochs < self.settings.frozen_epochs)
        # While they are frozen the teacher's prototypes are those of the beginning too.
        weight = self.prototypes.weight
        weight.copy_(torch.where(frozen, self.teacher_prototypes.weight, weight))
        moved = torch.full_like(done, 1 - self.settings.teacher_momentum)
        if self.settings.momentum_schedule == "cosine":
            moved = moved * (torch.cos(math.pi * done) + 1) / 2
        for teacher, student in self._networks():
            for kept, new in zip(teacher.parameters(), student.parameters(), strict=True):
                kept.lerp_(new, moved.to(kept.dtype))
        self.steps_taken += 1

    def _networks(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Each of the teacher's networks with the student's."""
        return (
            (self.teacher_backbone, self.backbone),
            (self.teacher_projector, self.projector),
            (self.teacher_prototypes, self.prototypes),
        )

    def extra_repr(self) -> str:
        """The method's own settings."""
        return f"temperature={self.temperature}, {self.settings}"


def _scores(projections: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Cosines (2N, K) of projections (2N, D) with prototypes (K, D), in at least float32; 0 for the zero vector."""
    with torch.autocast(projections.device.type, enabled=False):
        dtype = torch.promote_types(projections.dtype, prototypes.dtype)
        return functional.normalize(projections.to(dtype), dim=1) @ functional.normalize(prototypes, dim=1).to(dtype).T
