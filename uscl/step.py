"""One optimiser step: a batch in, its loss, terms and gradient norm out, the weights moved.

The same code runs three ways: as it stands; compiled by torch.compile (the network, or all of it from stored frames to the loss); and, on a
GPU, recorded once in a CUDA graph and replayed, since at small batches a step is thousands of launches that take longer than the work. How
it runs changes no batch and no draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from uscl import batch_norm, distributed
from uscl.augment import Augmentations
from uscl.average import Average
from uscl.config import Config
from uscl.feed import Batch
from uscl.gradient_cache import cached_gradients
from uscl.methods import find_method
from uscl.methods.method import Method, without_graph
from uscl.methods.own import one_line
from uscl.optimizers import set_learning_rate
from uscl.views import batch_views
from usdata.errors import UserError

GRAPH_UP_TO = 64  # videos in a batch: beyond, a GPU has work enough to hide its launches
EAGER_BEFORE_GRAPH = 3  # steps of each kind: lazily made handles, workspaces and compiled kernels must be there before anything is recorded
MOST_GRAPHS = 4  # each holds the activations of a whole step; kinds of batches beyond (by flips and blurs) are stepped as they stand


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
        method: Method,
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
        if config.compile != "off":
            torch._dynamo.reset()  # else a process of many runs, a sweep, would reach the limit of what is compiled anew
        # Compiled code calls the module's forward; its parameters and their names stay those of the module itself.
        self._network: Callable[..., Any] = torch.compile(method) if config.compile == "model" else method
        self._forward: Callable[..., Any] = torch.compile(self._outcome) if config.compile == "step" else self._outcome
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._taken: dict[tuple[Any, ...], int] = {}
        self._buffers = list(method.buffers())
        self._use_graphs = graphs

    def __call__(self, batch: Batch, rate: float) -> dict[str, Any]:
        """Take a step.

        Args:
            batch: On the device.
            rate: Learning rate.

        Returns:
            The method's outcome (`loss`, `terms`, `features`, `projections`) with `grad_norm`, a scalar, before any clipping. On the CPU a
            step whose loss or gradient is not finite leaves the weights as they were; on a GPU nobody waits to look.

        Raises:
            RecipeError: The code of a method of a user's own fails.
        """
        with one_line(self._config.method, "a step with it"):
            return self._step(batch, rate)

    def _step(self, batch: Batch, rate: float) -> dict[str, Any]:
        set_learning_rate(self._optimizer, rate)
        if self._use_graphs and len(batch.videos) == self._config.batch_size:
            # Other batches (the last of an epoch) come in many sizes: they are stepped as they stand.
            kind = (batch.augmentations.any_vertical_flip, batch.augmentations.blur_radius)
            taken = self._taken[kind] = self._taken.get(kind, 0) + 1
            if kind in self._graphs or (taken > EAGER_BEFORE_GRAPH and len(self._graphs) < MOST_GRAPHS):
                if kind not in self._graphs:
                    self._graphs[kind] = _Graph(batch, self._whole)
                return self._graphs[kind](batch)
        if self._device.type == "cuda":
            learnt = self.learn_first(batch, rate)
            return learnt.told(self._whole(batch))
        before = [buffer.clone() for buffer in self._buffers]
        learnt = self.learn_first(batch, rate)
        outcome = learnt.told(self._gradients(batch))
        if bool(torch.isfinite(outcome["loss"]) & torch.isfinite(outcome["grad_norm"])):
            self._move()
        else:
            for buffer, value in zip(self._buffers, before, strict=True):
                buffer.copy_(value)  # BatchNorm has seen the pass
            learnt.undo(self._optimizer)
        return outcome

    def _views(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        return batch_views(batch, self._config)

    def _autocast(self) -> torch.autocast:
        # A graph must not read casts of weights that were kept from before it was recorded.
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16, cache_enabled=not self._use_graphs)

    def _outcome(self, batch: Batch) -> dict[str, Any]:
        views = self._views(batch)
        with self._autocast():
            outcome: dict[str, Any] = self._network(views, batch.facts)
        return outcome

    def learn_first(self, batch: Batch, rate: float) -> _Learnt:
        """Step what the method steps before everything else, where there is such a part."""
        if not self._method.learns_first:
            return _Learnt()
        assert batch.meta is not None  # the feed asks the same question
        self._optimizer.zero_grad(set_to_none=True)
        views, meta_views = self._views(batch), self._views(batch.meta)
        terms = self._method.learn_first(views, batch.facts, meta_views, batch.meta.facts, rate, self._autocast)
        learners = [parameter for parameter in self._parameters if parameter.grad is not None]
        norm = self._clipped(learners)
        before = [_Before(parameter, self._optimizer) for parameter in learners] if self._device.type == "cpu" else []
        decays = [group["weight_decay"] for group in self._optimizer.param_groups]
        self._settle(self._method.first_rate or rate, [0.0] * len(decays))
        self._optimizer.step()
        self._settle(rate, decays)
        return _Learnt(terms, norm, before)

    def _settle(self, rate: float, decays: list[float]) -> None:
        set_learning_rate(self._optimizer, rate)
        for group, decay in zip(self._optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay

    def _gradients(self, batch: Batch) -> dict[str, Any]:
        with _single_videos_told():
            return self._gradients_of(batch)

    def _gradients_of(self, batch: Batch) -> dict[str, Any]:
        self._optimizer.zero_grad(set_to_none=True)
        part = self._config.micro_batch_size
        if part is not None and part < len(batch.frames):
            outcome = cached_gradients(self._method, self._views(batch), batch.facts, part, self._autocast)
        else:
            outcome = self._forward(batch)
            outcome["loss"].backward()
            # Whoever keeps the outcome must not keep the graph of autograd: a CUDA graph could not be recorded beside it.
            outcome = without_graph(outcome)
        distributed.average_gradients(self._method)
        batch_norm.average_statistics(self._method, len(batch.videos))
        outcome["grad_norm"] = self._clipped(self._parameters)
        return outcome

    def _clipped(self, parameters: list[nn.Parameter]) -> torch.Tensor:
        """The norm of their gradients before they are clipped, where they are."""
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self._config.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self._config.optimizer.clip_norm, norm)
        return norm

    def _move(self) -> None:
        self._optimizer.step()
        with torch.no_grad():
            self._method.after_step()
        if self._average is not None:
            self._average.update(self._method)

    def _whole(self, batch: Batch) -> dict[str, Any]:
        outcome = self._gradients(batch)
        self._move()
        return outcome


@contextmanager
def _single_videos_told() -> Iterator[None]:
    """Say in one line what it is that torch's BatchNorm refuses.

    Raises:
        UserError: A part of a batch has a single value a channel.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        reason = "or the number of processes leaves a part of one video, whose values BatchNorm cannot normalise"
        raise UserError("micro_batch_size", reason, "choose parts of two videos and more, or a larger image_size") from None


class _Before:
    """A parameter and its state in the optimiser, as they are now."""

    def __init__(self, parameter: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        self._parameter, self._value = parameter, parameter.detach().clone()
        self._state = {name: _own(value) for name, value in optimizer.state.get(parameter, {}).items()}

    @torch.no_grad()
    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        self._parameter.copy_(self._value)
        optimizer.state.pop(self._parameter, None)
        if self._state:
            optimizer.state[self._parameter] = self._state


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


@dataclass(frozen=True)
class _Learnt:
    """What was stepped before everything else; by default nothing.

    Attributes:
        terms: To tell beside those of the step.
        norm: Of its gradient, before any clipping.
        before: What it was.
    """

    terms: dict[str, torch.Tensor] = field(default_factory=dict)
    norm: torch.Tensor | None = None
    before: list[_Before] = field(default_factory=list)

    def told(self, outcome: dict[str, Any]) -> dict[str, Any]:
        """The step's outcome with these terms; its gradient is not finite where this one was not."""
        if self.norm is None:
            return outcome
        norm = torch.where(torch.isfinite(self.norm), outcome["grad_norm"], self.norm)
        return outcome | {"terms": outcome["terms"] | self.terms, "grad_norm": norm}

    def undo(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave it as it was."""
        for each in self.before:
            each.restore(optimizer)


class _Graph:
    """A recorded step: fixed places in GPU memory for its batch and its outcome."""

    def __init__(self, batch: Batch, step: Callable[[Batch], dict[str, Any]]) -> None:
        self._batch = _copied(batch)
        self._graph = torch.cuda.CUDAGraph()
        # Records, and runs nothing. Meanwhile the feed's thread may go on with the next batch.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outcome = step(self._batch)

    def __call__(self, batch: Batch) -> dict[str, Any]:
        for place, value in zip(_tensors(self._batch), _tensors(batch), strict=True):
            place.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outcome


def _tensors(batch: Batch) -> list[torch.Tensor]:
    return [batch.frames, batch.coefficients, batch.augmentations.values, *batch.facts.tensors().values()]


def _copied(batch: Batch) -> Batch:
    augmentations: Augmentations = replace(batch.augmentations, values=batch.augmentations.values.clone())
    return replace(
        batch,
        frames=batch.frames.clone(),
        coefficients=batch.coefficients.clone(),
        augmentations=augmentations,
        facts=batch.facts.copied(),
    )


def wants_graphs(config: Config, device: torch.device) -> bool:
    """Whether steps are to be recorded: on a GPU, if asked for or if batches are small; never compiled code, which may compile anew, nor
    methods that take two steps of two rates."""
    if device.type != "cuda" or config.compile != "off" or find_method(config.method).learns_first:
        return False
    return config.batch_size <= GRAPH_UP_TO if config.cuda_graph is None else config.cuda_graph
