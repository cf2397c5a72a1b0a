"""HiCo (Zhang, Chen, Li Liu, Qiong Liu and Zhou, ACCV 2022, arXiv 2210.04477): contrast at three depths of the network, and across them.

From the paper: local, medium and global features are each contrasted within their level ("peer-level semantic alignment") and across levels
("cross-level semantic alignment"), and hard labels are softened. That much its abstract says, and no more of the paper could be consulted
for this module; its published code is GPL and was not looked at. So these are this module's own, and nobody has held them against the
paper's equations: which maps the levels are, their pooling, which levels meet, that means are taken, and the size of the softening.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from uscl.backbones import ResNet
from uscl.config import Config
from uscl.distributed import gather
from uscl.losses import soft_info_nce, soft_targets
from uscl.methods.method import Facts, Method, Outcome
from uscl.models import projector
from usdata.errors import RecipeError


class HiCo(Method):
    """Soft InfoNCE at `temperature` within and across the levels, plus the classifier's cross-entropy.

    Levels are a ResNet's maps after its second (local), third (medium) and last residual stage (global), each averaged over positions, so
    that its projector is as small as USCL's. With S(q, k) the soft InfoNCE of both views' rows q against rows k, and
    w = `hico.cross_weight`:

        contrast = (S(local, local) + S(medium, medium) + S(global, global)) / 3 + w (S(global, medium) + S(global, local)) / 2

    The positive is the other view of the same video at the level of the keys. The same view of it there is left out, as a row's own place
    is in NT-Xent: it is no negative, and two levels agree about one picture too easily for it to teach anything. Videos of one group are
    left out in every term. Targets are 1 - `hico.softening` for the positive, and that share spread evenly over the negatives, so they
    sum to 1; those of the published code do not. Without softening, S of one level is NT-Xent.

    Raises:
        RecipeError: The backbone has no stages, or `projector.layers` is 0, and levels of different widths cannot be compared.
    """

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        if not isinstance(self.backbone, ResNet):
            reason = f"is {config.backbone}, which has no residual stages, and method 'hico' contrasts their maps"
            raise RecipeError("backbone", reason, "use a ResNet, for example backbone=resnet18, or another method")
        if not config.projector.layers:
            reason = "is 0, and method 'hico' compares levels of different widths"
            raise RecipeError("projector.layers", reason, "use --set projector.layers=1 or more")
        self.softening = config.hico.softening
        self.cross_weight = config.hico.cross_weight
        local, medium, _ = self.backbone.stage_widths
        self.local_projector = projector(local, config.projector)
        self.medium_projector = projector(medium, config.projector)

    def embed(self, views: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """All views in one pass.

        Returns:
            Features (V * n, W), and the global, medium and local projections (V * n, D), view after view.
        """
        assert isinstance(self.backbone, ResNet)
        maps = self.backbone.stages(torch.cat(tuple(views)))
        # As the backbone's own pooling does it, so that the features are those of its forward, bit for bit.
        local, medium, features = (functional.adaptive_avg_pool2d(each, 1).flatten(1) for each in maps)
        return features, self.projector(features), self.medium_projector(medium), self.local_projector(local)

    def compare(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """The loss of the whole batch; `terms` hold `peer`, `cross` without its weight, and `contrast`, their weighted sum."""
        features, own_projections, *_ = embedded
        levels = [gather(own, len(facts), views=facts.views) for own in embedded[1:]]
        top = levels[0]
        targets, left_out = soft_targets(len(facts), self.softening, same_group=facts.same_group, device=top.device)

        def mean(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
            losses = [soft_info_nce(queries, keys, targets, self.temperature, left_out=left_out) for queries, keys in pairs]
            return torch.stack(losses).mean()

        peer = mean([(level, level) for level in levels])
        cross = mean([(top, level) for level in levels[1:]])
        contrast = peer + self.cross_weight * cross
        terms = {"contrast": contrast, "peer": peer, "cross": cross}
        outcome = self.outcome(contrast, terms, features, own_projections, top, facts)
        # Of equal rows: the logarithm of how many keys each meets, in every term alike.
        outcome["collapsed_loss"] = (1 + self.cross_weight) * (~left_out).sum(dim=1).log().mean()
        return outcome

    def extra_repr(self) -> str:
        """The method's own settings."""
        return f"temperature={self.temperature}, softening={self.softening}, cross_weight={self.cross_weight}"
