"""An exponential moving average of a network's weights (Polyak and Juditsky 1992; the "EMA" of self-supervised training).

In comes a network after every step; out goes a second network of averaged parameters, which is what a run then hands out. BatchNorm's
running statistics are averaged likewise, its counters copied.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

_PREFIX = "average."


class Average:
    """The average of a network.

    Attributes:
        network: The averaged one, in evaluation mode and without gradients.
        decay: Share of the average that stays at each step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """average <- decay * average + (1 - decay) * network."""
        kept, new = self.network.state_dict(), network.state_dict()
        floating = [name for name, value in kept.items() if value.is_floating_point()]
        torch._foreach_lerp_([kept[name] for name in floating], [new[name].detach() for name in floating], 1 - self.decay)
        for name in kept.keys() - set(floating):
            kept[name].copy_(new[name])

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds of it."""
        return {f"{_PREFIX}{name}": value for name, value in self.network.state_dict().items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on with what `tensors` gave; other names are passed over."""
        self.network.load_state_dict({name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)})
