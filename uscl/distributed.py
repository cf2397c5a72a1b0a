"""Several processes train one network as one would: which videos are whose, and what is exchanged.

In come parts of batches and their rows; out come rows gathered with their gradient, gradients averaged over the processes, and agreement:
all stop after the same step. With one process every function here changes nothing.

The scaling. W processes share the parameters p; process r turns its part of the batch into rows z_r(p), gathers z = (z_0 .. z_{W-1}) and
computes a loss L_r(z, p). `gather` hands back the sum over processes of the gradients with respect to z, and `average_gradients` takes the
mean over processes of those with respect to p. What comes out is the gradient of the mean of the losses, (L_0 + .. + L_{W-1}) / W, exactly,
whether a parameter acts before the gather, after it, or on both sides. Every process computes the same loss L, that of the whole batch, so
it is the gradient of L: the one of a single process. A gather without the sum gives the same loss and another gradient.

Gradients are averaged in one flat all-reduce after the backward pass, not by DistributedDataParallel: the network keeps its own names,
attributes and forward, several passes a step or none (no video of a small last batch) need no special case, and the step can be captured in
one CUDA graph. What that gives up is the overlap of the exchange with the backward pass: 45 MB a step for ResNet-18.
"""

from __future__ import annotations

import hashlib
import signal
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from uscl.processes import exchange, rank, world_size
from usdata.errors import UserError


def own_part(videos: int, *, of: tuple[int, int] | None = None) -> slice:
    """Which of a batch's videos a process takes: consecutive ones, as many as the others take or one more.

    Args:
        videos: In the whole batch. Fewer than there are processes leaves the last ones none.
        of: Number of the process and how many there are; by default this process and its group.
    """
    number, world = of or (rank(), world_size())
    each, more = divmod(videos, world)
    start = number * each + min(number, more)
    return slice(start, start + each + (number < more))


def gather(rows: torch.Tensor, videos: int, *, views: int = 1) -> torch.Tensor:
    """The rows of all processes, as one process would hold them, with a gradient that reaches every process.

    Every process must call it, in the same order. With one process it returns `rows`.

    Args:
        rows: (views * n, ...), view after view, of this process' n = `own_part(videos)` videos.
        videos: N of the whole batch, the same number in every process.
        views: How many rows a video has.

    Returns:
        (views * N, ...), view after view, in at least float32; its gradient is summed over the processes (see the module's scaling).

    Raises:
        ValueError: There are not as many rows as this process has videos.
        UserError: Another process has ended.
    """
    if world_size() == 1:
        return rows
    part = own_part(videos)
    if len(rows) != views * (part.stop - part.start):
        raise ValueError(f"{len(rows)} rows for {views} views of {part.stop - part.start} videos")
    gathered: torch.Tensor = _Gather.apply(rows.to(torch.promote_types(rows.dtype, torch.float32)), videos, views)
    return gathered


class _Gather(torch.autograd.Function):
    """All-gather of parts of unequal length; its adjoint is `_SumOwnPart`, so it can be differentiated any number of times."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, videos: int, views: int) -> torch.Tensor:
        ctx.videos, ctx.views = videos, views
        world = world_size()
        parts = [own_part(videos, of=(number, world)) for number in range(world)]
        own, most = own_part(videos), parts[0].stop
        padded = rows.new_zeros(views, most, *rows.shape[1:])
        padded[:, : own.stop - own.start] = rows.reshape(views, own.stop - own.start, *rows.shape[1:])
        received = rows.new_empty(world, *padded.shape)
        exchange(dist.all_gather, list(received.unbind()), padded)
        whole = torch.cat([received[number, :, : part.stop - part.start] for number, part in enumerate(parts)], dim=1)
        return whole.flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _SumOwnPart.apply(gradient, ctx.videos, ctx.views), None, None


class _SumOwnPart(torch.autograd.Function):
    """The sum over processes, of which this process keeps the rows of its own videos."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, videos: int, views: int) -> torch.Tensor:
        ctx.videos, ctx.views = videos, views
        total = rows.clone(memory_format=torch.contiguous_format)
        exchange(dist.all_reduce, total)
        return total.reshape(views, videos, *rows.shape[1:])[:, own_part(videos)].flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _Gather.apply(gradient, ctx.videos, ctx.views), None, None


def average_gradients(method: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, in place; afterwards all processes hold the same bits.

    A parameter must have a gradient in all processes or in none.
    """
    average([parameter.grad for parameter in method.parameters() if parameter.grad is not None], 1 / world_size())


@torch.no_grad()
def average(tensors: list[torch.Tensor], weight: float) -> None:
    """Replace tensors by their weighted sum over the processes, in place, in one exchange.

    Args:
        tensors: Of the same shapes in every process, all of one dtype.
        weight: Of this process' tensors; the weights of all processes add up to 1. A process of weight 0 adds nothing, even where it holds
            numbers that are not finite.
    """
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    flat = flat.mul_(weight) if weight else flat.zero_()
    exchange(dist.all_reduce, flat)
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view(tensor.shape))


@torch.no_grad()
def share_weights(method: nn.Module) -> None:
    """Give every process the first one's parameters and buffers, bit for bit."""
    if world_size() > 1:
        for tensor in method.state_dict().values():
            contiguous = tensor.contiguous()  # a copy where the weights are channels_last
            exchange(dist.broadcast, contiguous, 0)
            tensor.copy_(contiguous)


def check_agreement(**facts: object) -> None:
    """Refuse to go on where the processes do not hold the same facts; waits for all of them.

    Raises:
        UserError: They differ; it names them.
    """
    if world_size() == 1:
        return
    own = torch.tensor([list(hashlib.sha256(repr(fact).encode()).digest()) for fact in facts.values()], dtype=torch.uint8)
    all_of_them = [torch.empty_like(own) for _ in range(world_size())]
    exchange(dist.all_gather, all_of_them, own)
    different = [name for row, name in enumerate(facts) if any(not torch.equal(other[row], own[row]) for other in all_of_them)]
    if different:
        advice = "every machine must see the same data set, recipe and run folder"
        raise UserError("the processes of this run", f"do not agree about the {' and the '.join(different)}", advice)


class StopAgreement:
    """Which signal stops all processes, after the same step, though it came to one of them or to each at another moment.

    The answer is exchanged while the next step is computed, so it costs no waiting, and a signal is obeyed one step later.
    """

    def __init__(self) -> None:
        self._asked: tuple[dist.Work, torch.Tensor] | None = None

    def __call__(self, own: str | None) -> str | None:
        """The name of the signal that stops this run, or None; to be called once a step, in every process.

        Args:
            own: The name of the signal that came to this process.
        """
        if world_size() == 1:
            return own
        agreed = 0
        if self._asked is not None:
            work, answer = self._asked
            exchange(work.wait)
            agreed = int(answer)
        number = torch.tensor(signal.Signals[own].value if own else 0)
        self._asked = exchange(dist.all_reduce, number, dist.ReduceOp.MAX, async_op=True), number
        return signal.Signals(agreed).name if agreed else None


def check_world(largest_batch: int) -> None:
    """Refuse more processes than a batch has videos.

    Raises:
        UserError: There are more.
    """
    if world_size() > largest_batch:
        reason = f"is {world_size()}, and the largest batch has {largest_batch} videos"
        raise UserError("the number of processes", reason, "start fewer, or use a larger batch_size")


def describe(largest_batch: int, sync_batchnorm: bool) -> list[str]:
    """What a person wants to know about the processes: a line, or none with one process."""
    world = world_size()
    if world == 1:
        return []
    sizes = sorted({part.stop - part.start for part in (own_part(largest_batch, of=(number, world)) for number in range(world))})
    norm = "of the whole batch" if sync_batchnorm else "of each process' own videos (sync_batchnorm=true: of the whole batch)"
    return [f"processes: {world}, {' or '.join(map(str, sizes))} videos of a batch each; BatchNorm statistics {norm}"]


def changed_sentence(before: int, sync_batchnorm: bool) -> str:
    """What it means that a run goes on with another number of processes than it had."""
    difference = "sums are rounded otherwise" if sync_batchnorm else "BatchNorm sees other parts of them"
    return f"trained by {before} processes so far and by {world_size()} from here: the batches are the same, but {difference}"
