"""Several processes train one network as one would: who is here, which videos are whose, and what is exchanged.

In comes torchrun's environment; out come parts of batches, rows gathered with their gradient, and gradients averaged over the processes.
With one process every function here changes nothing. The first process alone writes and speaks; all of them stop after the same step, and
whatever ends one of them ends all, with one line.

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
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous

from usdata.errors import EXIT_OUR_FAULT, UserError

# How long a process waits for another: the first one may decode a large store meanwhile. A process that ends is noticed at once.
_PATIENCE = timedelta(days=1)
_PATIENCE_TO_MEET = timedelta(minutes=5)
# The launcher ends all processes once one has ended. The ones that say nothing wait so long, so that the one that speaks is heard.
_LAST_WORD_S = 0.5
# Where the processes meet, kept for the next time, and how often they have met.
_meeting_place: dist.Store | None = None
_meetings = 0

P = ParamSpec("P")


def world_size() -> int:
    """How many processes train together; 1 outside `joined`."""
    return dist.get_world_size() if _is_joined() else 1


def rank() -> int:
    """The number of this process, 0-based."""
    return dist.get_rank() if _is_joined() else 0


def is_first() -> bool:
    """Whether this process is the one that writes and speaks; outside `joined`, the launcher's environment says it."""
    return rank() == 0 if _is_joined() else _launched()[0] == 0


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


def first_only(function: Callable[P, None]) -> Callable[P, None]:
    """Make a function that writes do nothing in any process but the first."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        if is_first():
            function(*args, **kwargs)

    return wrapped


def wait_for_all() -> None:
    """Return once every process has come here."""
    if world_size() > 1:
        exchange(dist.all_reduce, torch.zeros(1))


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through this block before the others."""
    if not is_first():
        wait_for_all()
    yield
    if is_first():
        wait_for_all()


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


def own_gpu() -> torch.device:
    """The GPU of this process: the local number that the launcher gave it.

    Raises:
        UserError: This machine has not that many.
    """
    if world_size() == 1:
        return torch.device("cuda")
    number, found = int(os.environ.get("LOCAL_RANK", rank())), torch.cuda.device_count()
    if number >= found:
        raise UserError("the number of processes", f"on this machine is over its {found} GPUs", f"use --nproc-per-node {found}")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that the launcher started (torchrun's environment), and leave them at the end; alone, this does nothing.

    All but the first process are silent meanwhile. Where an error ends one of them, the process that failed first passes it on and so says
    it; the others end silently, with the same or a general exit code.

    Raises:
        UserError: The environment is incomplete, or the processes do not find each other.
        SystemExit: Another process failed first.
    """
    if _is_joined():  # by the caller, who also leaves
        with _silent_unless_first():
            yield
        return
    number, world = _launched()
    if world == 1:
        yield
        return
    store = _meet(number, world)
    try:
        with _silent_unless_first():
            yield
    except BaseException as error:
        if _another_failed_first(store):
            time.sleep(_LAST_WORD_S)
            raise SystemExit(getattr(error, "exit_code", EXIT_OUR_FAULT)) from None
        raise
    finally:
        dist.destroy_process_group()


def exchange(operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function of torch.distributed.

    Raises:
        UserError: Another process has ended, so that no exchange is possible.
    """
    try:
        return operation(*arguments, **options)
    except RuntimeError as error:
        # Gloo's errors have no class of their own: they begin with the place in its source.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = "has ended without a word (killed, or out of memory?)"
        raise UserError(
            "another process of this run", reason, "checkpoints are intact: run the same command again with --resume"
        ) from error


def _is_joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _launched() -> tuple[int, int]:
    """Rank and world size as torchrun's environment has them; (0, 1) where nobody launched anything.

    Raises:
        UserError: A number is none.
    """
    if any(name not in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        return 0, 1
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        if not os.environ[name].isdecimal():
            raise UserError(name, f"is '{os.environ[name]}' in the environment, and must be a whole number", "start with torchrun")
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def _meet(number: int, world: int) -> dist.Store:
    """Make the process group; the store that it met by."""
    global _meeting_place, _meetings
    gpu = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        if _meeting_place is None:
            _meeting_place, _, _ = next(rendezvous("env://", number, world, timeout=_PATIENCE_TO_MEET))
        # Who meets again must not read what was written the last time.
        _meetings += 1
        store = dist.PrefixStore(f"uscl-{_meetings}", _meeting_place)
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=world, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = f"do not find each other ({str(error).splitlines()[0]})"
        raise UserError("the processes of this run", reason, "start them with torchrun --standalone --nproc-per-node N") from None
    return store


def _another_failed_first(store: dist.Store) -> bool:
    try:
        return int(store.add("failed", 1)) > 1
    except RuntimeError:
        return True  # the process that kept the store has ended


@contextmanager
def _silent_unless_first() -> Iterator[None]:
    if rank() == 0:
        yield
        return
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(nowhere))
        stack.enter_context(redirect_stderr(nowhere))
        yield
