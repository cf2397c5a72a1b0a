"""One optimiser step: a batch in, its loss, terms and gradient norm out, the weights moved.

The same code runs three ways: as it stands; compiled by torch.compile (the network, or all of it from stored frames to the loss); and, on a
GPU, recorded once in a CUDA graph and replayed, since at small batches a step is thousands of launches that take longer than the work. How
it runs changes no batch and no draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from uscl import batch_norm, distributed
from uscl.augment import Augmentations
from uscl.average import Average
from uscl.config import Config
from uscl.feed import Batch
from uscl.gradient_cache import cached_gradients
from uscl.optimizers import set_learning_rate
from uscl.views import two_views

GRAPH_UP_TO = 64  # videos in a batch: beyond, a GPU has work enough to hide its launches
EAGER_BEFORE_GRAPH = 3  # steps: lazily made handles and workspaces must be there before anything is recorded


class Step:
    """Steps of one run.

    Args:
        config: The run's configuration.
        method: The network with its loss, on its device.
        optimizer: Over its parameters; made with `capturable` where `graphs` holds.
        device: Where both are.
        precision: "float32" or "bfloat16".
        average: The moving average to keep, or None.
        graphs: Record and replay (a GPU alone).
    """

    def __init__(
        self,
        config: Config,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        precision: str,
        average: Average | None = None,
        *,
        graphs: bool = False,
    ) -> None:
        self._config, self._method, self._optimizer, self._device = config, method, optimizer, device
        self._bfloat16, self._average = precision == "bfloat16", average
        self._parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
        # Compiled code calls the module's forward; its parameters and their names stay those of the module itself.
        self._network: Callable[..., Any] = torch.compile(method) if config.compile == "model" else method
        self._forward: Callable[..., Any] = torch.compile(self._outcome) if config.compile == "step" else self._outcome
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._eager_left = EAGER_BEFORE_GRAPH
        self._use_graphs = graphs

    def __call__(self, batch: Batch, rate: float) -> dict[str, Any]:
        """Take a step.

        Args:
            batch: On the device.
            rate: Learning rate.

        Returns:
            The method's outcome (`loss`, `terms`, `features`, `projections`) with `grad_norm`, a scalar, before any clipping. On the CPU a
            step whose loss or gradient is not finite leaves the weights as they were; on a GPU nobody waits to look.
        """
        set_learning_rate(self._optimizer, rate)
        if self._use_graphs and self._eager_left == 0:
            return self._replayed(batch)
        outcome = self._gradients(batch)
        self._eager_left = max(0, self._eager_left - 1)
        if self._device.type == "cuda" or bool(torch.isfinite(outcome["loss"]) & torch.isfinite(outcome["grad_norm"])):
            self._move()
        return outcome

    def _views(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        config = self._config
        return two_views(
            batch.frames,
            batch.coefficients,
            batch.augmentations,
            order=config.pairs.order,
            size=config.image_size,
            path=config.augment.path,
        )

    def _autocast(self) -> torch.autocast:
        # A graph must not read casts of weights that were kept from before it was recorded.
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16, cache_enabled=not self._use_graphs)

    def _outcome(self, batch: Batch) -> dict[str, Any]:
        views = self._views(batch)
        with self._autocast():
            outcome: dict[str, Any] = self._network(*views, batch.labels, same_group=batch.same_group)
        return outcome

    def _gradients(self, batch: Batch) -> dict[str, Any]:
        self._optimizer.zero_grad(set_to_none=True)
        part = self._config.micro_batch_size
        if part is not None and part < len(batch.frames):
            with self._autocast():
                outcome = cached_gradients(self._method, *self._views(batch), batch.labels, batch.same_group, part)
        else:
            outcome = self._forward(batch)
            outcome["loss"].backward()
        distributed.average_gradients(self._method)
        batch_norm.average_statistics(self._method, len(batch.videos))
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        outcome["grad_norm"] = torch.nn.utils.get_total_norm(gradients)
        if self._config.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._config.optimizer.clip_norm, outcome["grad_norm"])
        return outcome

    def _move(self) -> None:
        self._optimizer.step()
        if self._average is not None:
            self._average.update(self._method)

    def _replayed(self, batch: Batch) -> dict[str, Any]:
        """Replay the graph of batches of this kind; record it first where there is none."""
        key = (batch.frames.shape, batch.augmentations.any_vertical_flip, batch.augmentations.blur_radius, batch.same_group is None)
        if key not in self._graphs:
            self._graphs[key] = _Graph(batch, self._whole)
        return self._graphs[key](batch)

    def _whole(self, batch: Batch) -> dict[str, Any]:
        outcome = self._gradients(batch)
        self._move()
        return outcome


class _Graph:
    """A recorded step: fixed places in GPU memory for its batch and its outcome."""

    def __init__(self, batch: Batch, step: Callable[[Batch], dict[str, Any]]) -> None:
        self._batch = _copied(batch)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):  # records, and runs nothing
            self._outcome = step(self._batch)

    def __call__(self, batch: Batch) -> dict[str, Any]:
        for place, value in zip(_tensors(self._batch), _tensors(batch), strict=True):
            place.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outcome


def _tensors(batch: Batch) -> list[torch.Tensor]:
    found = [batch.frames, batch.coefficients, batch.augmentations.values, batch.labels]
    return found if batch.same_group is None else [*found, batch.same_group]


def _copied(batch: Batch) -> Batch:
    augmentations: Augmentations = replace(batch.augmentations, values=batch.augmentations.values.clone())
    return replace(
        batch,
        frames=batch.frames.clone(),
        coefficients=batch.coefficients.clone(),
        augmentations=augmentations,
        labels=batch.labels.clone(),
        same_group=None if batch.same_group is None else batch.same_group.clone(),
    )


def wants_graphs(config: Config, device: torch.device) -> bool:
    """Whether steps are to be recorded: on a GPU, where it was asked for or batches are small."""
    if device.type != "cuda":
        return False
    return config.batch_size <= GRAPH_UP_TO if config.cuda_graph is None else config.cuda_graph
