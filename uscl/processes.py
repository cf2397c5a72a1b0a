"""The processes that torchrun starts: how they meet, who writes and speaks, and that what ends one of them ends all, with one line.

In comes torchrun's environment; out comes a process group, by gloo on CPUs and by NCCL between GPUs. With one process nothing here does
anything. What the processes exchange while they train stands in `uscl.distributed`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec

import torch
import torch.distributed as dist
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


def first_only(function: Callable[P, None]) -> Callable[P, None]:
    """Make a function that writes do nothing in any process but the first."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        if is_first():
            function(*args, **kwargs)

    return wrapped


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
