"""Meta-USCL (Chen et al.: Generating and weighting semantically consistent sample pairs for ultrasound contrastive learning, IEEE TMI
2022, arXiv 2212.04097): USCL's contrast on interpolated pairs, each weighted by a small network that learns what helps other pairs.

The weights' network, CMW-Net, reads the two features of a pair and gives it a weight v_i; over the 2N rows of NT-Xent weights add up to 1.
In each step (1) a copy of the network w takes one step of gradient descent on the weighted loss, w' = w - a d/dw sum_i v_i l_i(w); (2) the
mean, unweighted loss M(w') of the copy on another batch is differentiated by the parameters t of CMW-Net, which are then stepped; (3) the
network itself is stepped on the weighted loss, with the new weights fixed.

The derivative in (2) is exact and of first order. CMW-Net reads features that carry no gradient, so t acts on w' through v alone:

    dM/dt = u' dw'/dt = -a sum_i (dv_i/dt) (u' dl_i/dw),        u = dM/dw at w'

and u' dl_i/dw, for all rows at once, is the derivative of the row losses along u: one forward-mode pass. The published code differentiates
through the step of the copy instead, a second backward pass through everything, and lets the gradient of step (1) flow through the
features into the weights too; here they are fixed in it, as they are in the step (3) that it imitates. The copy's step has neither the
optimiser's momentum nor weight decay.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from uscl import distributed
from uscl.config import Config
from uscl.distributed import gather
from uscl.gradient_cache import cached_gradients, join_parts
from uscl.losses import nt_xent, nt_xent_rows
from uscl.methods.method import Facts, Method, Outcome, without_graph

with warnings.catch_warnings():
    # torch would import them at the first forward-mode derivative; some are scripted, which torch itself calls deprecated by now.
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch._decomp.decompositions_for_jvp

Autocast = Callable[[], AbstractContextManager[Any]]


class MetaUSCL(Method):
    """NT-Xent with its rows weighted by CMW-Net, and how CMW-Net learns.

    Attributes:
        weigher: CMW-Net but for its sigmoid: Linear(2W, `meta.hidden`), ReLU, Linear(`meta.hidden`, 1).
    """

    learns_first = True

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        width = self.backbone.width
        self.weigher = nn.Sequential(nn.Linear(2 * width, config.meta.hidden), nn.ReLU(), nn.Linear(config.meta.hidden, 1))
        self.first_rate, self.inner_rate, self.part = config.meta.rate, config.meta.inner_rate, config.micro_batch_size

    def compare(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """The weighted loss of the whole batch, its weights fixed: no gradient reaches CMW-Net, nor the features through it."""
        features, own_projections = embedded
        projections = gather(own_projections, len(facts), views=facts.views)
        z_a, z_b = projections.chunk(2)
        rows = nt_xent_rows(z_a, z_b, self.temperature, same_group=facts.same_group)
        with torch.no_grad():
            weights = self.weights(gather(features, len(facts), views=facts.views))
        loss = (weights * rows).sum()  # autocast would take a product of vectors in bfloat16
        terms = {"contrast": rows.mean(), "weighted_contrast": loss, "effective_rows": 1 / weights.square().sum()}
        outcome = self.outcome(loss, terms, features, own_projections, projections, facts)
        constant = projections.detach().new_ones(len(facts), 1)
        outcome["collapsed_loss"] = nt_xent(constant, constant, self.temperature, same_group=facts.same_group)
        return outcome

    def weights(self, features: torch.Tensor) -> torch.Tensor:
        """The weights of the 2N rows, which add up to 1; both rows of a pair have the same.

        Args:
            features: (2N, W), view a before view b, of the whole batch.
        """
        with torch.autocast(features.device.type, enabled=False):
            wide = features.detach().to(torch.promote_types(features.dtype, torch.float32))
            both = torch.cat(wide.chunk(2), dim=1)
            # A softmax of logarithms: sigmoids over their sum, and no division by zero where all sigmoids vanish.
            return functional.logsigmoid(self.weigher(both)).flatten().repeat(2).softmax(0)

    def learn_first(
        self,
        views: Sequence[torch.Tensor],
        facts: Facts,
        meta_views: Sequence[torch.Tensor],
        meta_facts: Facts,
        rate: float,
        autocast: Autocast,
    ) -> dict[str, torch.Tensor]:
        """The gradient of CMW-Net: dM/dt of the module's first lines."""
        rate = self.inner_rate or rate
        learners = list(self.weigher.parameters())
        network = [each for each in self.parameters() if each.requires_grad and not any(each is learner for learner in learners)]
        buffers = [buffer.clone() for buffer in self.buffers()]
        before = [parameter.detach().clone() for parameter in network]
        outcome = self._gradients(views, facts, self.compare, autocast)
        try:
            with torch.no_grad():
                for parameter in network:
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad, alpha=rate)
            meta = self._gradients(meta_views, meta_facts, self._unweighted, autocast)
        finally:
            with torch.no_grad():
                for parameter, value in zip(network, before, strict=True):
                    parameter.copy_(value)
        along = {name: parameter.grad for name, parameter in self.named_parameters() if parameter.grad is not None}
        self.zero_grad(set_to_none=True)
        derivatives = self.row_derivatives(views, facts, along, autocast)
        weights = self.weights(gather(outcome["features"], len(facts), views=facts.views))
        for learner, gradient in zip(learners, torch.autograd.grad(-rate * (weights * derivatives).sum(), learners), strict=True):
            learner.grad = gradient
        with torch.no_grad():
            for buffer, value in zip(self.buffers(), buffers, strict=True):
                buffer.copy_(value)  # BatchNorm has seen the passes
        distributed.average_gradients(self)
        return {"meta_loss": meta["loss"]}

    @torch.no_grad()
    def row_derivatives(
        self, views: Sequence[torch.Tensor], facts: Facts, along: dict[str, torch.Tensor], autocast: Autocast
    ) -> torch.Tensor:
        """(2N,) derivatives of the rows of NT-Xent when the network's parameters move along a direction, of the whole batch.

        Args:
            views: As for `forward`.
            facts: Likewise.
            along: The direction, by the names of the parameters; those left out stay where they are.
            autocast: Around the forward pass.
        """
        embed = _Embedding(self)
        found = []
        # The quick kernels of attention have no forward-mode derivative.
        with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            duals = {f"method.{name}": forward_ad.make_dual(self.get_parameter(name).detach(), value) for name, value in along.items()}
            for part in zip(*(view.split(self.part or max(len(view), 1)) for view in views), strict=True):
                with autocast():
                    dual = forward_ad.unpack_dual(functional_call(embed, duals, (part,)))
                found.append((dual.primal, dual.tangent if dual.tangent is not None else torch.zeros_like(dual.primal)))
            # Processes exchange values, and each goes on with those of the whole batch.
            z, direction = (gather(join_parts(list(rows), facts.views), len(facts), views=facts.views) for rows in zip(*found, strict=True))
            z_a, z_b = forward_ad.make_dual(z, direction).chunk(2)
            rows = nt_xent_rows(z_a, z_b, self.temperature, same_group=facts.same_group)
            derivatives = forward_ad.unpack_dual(rows).tangent
        assert derivatives is not None
        return derivatives

    def _unweighted(self, embedded: tuple[torch.Tensor, ...], facts: Facts) -> Outcome:
        """The mean loss, which the copy is judged by."""
        features, own_projections = embedded
        projections = gather(own_projections, len(facts), views=facts.views)
        z_a, z_b = projections.chunk(2)
        loss = nt_xent(z_a, z_b, self.temperature, same_group=facts.same_group)
        return {"loss": loss, "terms": {}, "features": features, "projections": projections}

    def _gradients(
        self,
        views: Sequence[torch.Tensor],
        facts: Facts,
        compare: Callable[[tuple[torch.Tensor, ...], Facts], Outcome],
        autocast: Autocast,
    ) -> dict[str, Any]:
        """Set every parameter's gradient of the loss that `compare` gives, the same in all processes; its outcome without the graph."""
        self.zero_grad(set_to_none=True)
        if self.part is not None and self.part < len(views[0]):
            outcome = cached_gradients(self, views, facts, self.part, autocast, compare)
        else:
            with autocast():
                kept = compare(self.embed(views), facts)
            kept["loss"].backward()
            outcome = without_graph(kept)
        distributed.average_gradients(self)
        return outcome


class _Embedding(nn.Module):
    """A method's projections as a module's `forward`, which is what can be called with other tensors as parameters."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.method.embed(views)[1]
