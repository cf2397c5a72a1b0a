"""Optimisers: torch's own Adam, AdamW and SGD, fused where they can be, and LARS, which torch has not.

In come a configuration and a network; out comes an optimiser whose parameter groups say which parameters decay. The learning rate is set by
the loop at every step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from uscl.config import Config


def make_optimizer(config: Config, network: nn.Module, *, capturable: bool = False) -> torch.optim.Optimizer:
    """The configured optimiser over a network's parameters.

    Args:
        config: Its `optimizer`, `learning_rate` and `weight_decay` are read.
        network: Whose parameters are trained; on the device where it trains.
        capturable: The step is recorded in a CUDA graph: the learning rate lives in a tensor on the GPU.
    """
    settings = config.optimizer
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [{"params": parameters, "weight_decay": config.weight_decay}]
    if not settings.decay_all:
        # Biases and normalisation have one axis or none; decay would only pull them towards turning their layer off.
        split = ([parameter for parameter in parameters if (parameter.ndim > 1) is weights] for weights in (True, False))
        groups = [{"params": part, "weight_decay": decay} for part, decay in zip(split, (config.weight_decay, 0.0), strict=True) if part]
    if capturable:
        # Its first steps are taken before the graph is recorded, as they must be.
        warnings.filterwarnings("ignore", message=".*capturable=True.*", category=UserWarning)
    rate: Any = torch.tensor(config.learning_rate, device=parameters[0].device) if capturable else config.learning_rate
    if settings.name in ("adam", "adamw"):
        kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
        return kind(groups, lr=rate, betas=settings.betas, fused=True, **({"capturable": True} if capturable else {}))
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=True)
    return LARS(groups, lr=rate, momentum=settings.momentum, trust=settings.trust)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group, in place where it is a tensor (a CUDA graph reads it there)."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman, Ginsburg 2017: Large batch training of convolutional networks, algorithm 1).

    v <- m v + lr * trust * |w| / (|g| + decay |w|) * (g + decay w);  w <- w - v. Parameters with fewer than two axes (biases,
    normalisation) are stepped as SGD steps them, as is usual since SimCLR; so is a layer whose weights or gradient are zero.

    Args:
        params: Parameters or groups, each with its `weight_decay`.
        lr: Learning rate, a number or a tensor.
        momentum: m.
        trust: The trust coefficient.
    """

    def __init__(self, params: Iterable[Any], lr: float | torch.Tensor, momentum: float = 0.9, trust: float = 0.001) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step. Nothing here waits for a GPU."""
        if closure is not None:
            raise ValueError("LARS takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = parameter.grad.add(parameter, alpha=group["weight_decay"])
                if parameter.ndim > 1:
                    weight, gradient = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(parameter.grad)
                    ratio = group["trust"] * weight / (gradient + group["weight_decay"] * weight)
                    update = update * torch.where((weight > 0) & (gradient > 0), ratio, torch.ones_like(ratio))
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(update * group["lr"])
                parameter.sub_(buffer)
