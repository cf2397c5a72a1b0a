"""Where the per-video step runs: a pool of spawned processes on this machine.

Each worker is a process of its own with a pipe, so a decoder that crashes or hangs takes down its worker and costs one task: the task is
tried once more in a new worker, then given up with the reason. Results come as they are done; the caller puts them in order.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from usdata.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

TRIES = 2
PR_SET_PDEATHSIG = 1  # from Linux' prctl.h


@dataclass(frozen=True)
class Failure:
    """A task that killed or outlasted its worker each time it was tried."""

    reason: str


@dataclass(frozen=True)
class _Raised:
    """An exception on its way from a worker to the parent, which raises it: a full disk or a fault of ours, never a bad clip's doing."""

    error: BaseException
    traceback: str


@dataclass
class _Worker(Generic[Task]):
    process: BaseProcess
    pipe: Connection
    position: int | None = None
    deadline: float = float("inf")


def default_workers() -> int:
    """The number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def run_local(
    step: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int, timeout_s: float, memory_mb: int | None = None
) -> Generator[tuple[int, Result | Failure], None, None]:
    """Run a step over tasks in spawned processes.

    Args:
        step: A module-level function; task and result travel between processes.
        tasks: What to do.
        workers: Number of processes.
        timeout_s: Wall-clock limit for one task.
        memory_mb: Memory that a worker may take beyond what it has when it starts; a step then meets a MemoryError, or its worker dies and
            the task with it. None: no limit. Linux only: elsewhere the operating system has no such limit.

    Yields:
        Position of a task and its result, in the order in which they are done. The generator's close ends the workers.
    """
    waiting = deque(range(len(tasks)))
    tries = [0] * len(tasks)
    pool: list[_Worker[Task]] = []
    try:
        while waiting or any(worker.position is not None for worker in pool):
            busy = sum(worker.position is not None for worker in pool)
            started = [_start(step, memory_mb) for _ in range(min(workers, len(waiting) + busy) - len(pool))]
            pool += started
            for worker in started:
                _await_ready(worker)
            for worker in [worker for worker in pool if worker.position is None]:
                if not waiting:
                    break
                position = waiting.popleft()
                try:
                    worker.pipe.send(tasks[position])
                except OSError:  # it died while it was idle, which is no task's fault
                    waiting.appendleft(position)
                    worker.process.join()
                    worker.pipe.close()
                    pool.remove(worker)
                    continue
                worker.position, worker.deadline = position, time.monotonic() + timeout_s
                tries[position] += 1
            if not any(worker.position is not None for worker in pool):
                continue
            yield from _collect(pool, waiting, tries, timeout_s)
    finally:
        for worker in pool:
            worker.process.terminate()
        for worker in pool:
            worker.process.join()
            worker.pipe.close()


def _collect(pool: list[_Worker[Any]], waiting: deque[int], tries: Sequence[int], timeout_s: float) -> Iterator[tuple[int, Any]]:
    """Wait until something happens: a result, a dead worker or a deadline."""
    busy = [worker for worker in pool if worker.position is not None]
    soonest = min(worker.deadline for worker in busy)
    ready = wait([worker.pipe for worker in busy], timeout=max(0.0, soonest - time.monotonic()))
    for worker in busy:
        assert worker.position is not None
        position = worker.position
        if worker.pipe in ready:
            try:
                outcome = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join()
                code = worker.process.exitcode
                reason = (
                    f"the decoder was killed ({_signal_name(-code)})"
                    if code is not None and code < 0
                    else f"the decoder died (exit {code})"
                )
            else:
                worker.position, worker.deadline = None, float("inf")
                if isinstance(outcome, _Raised):
                    if not isinstance(outcome.error, OSError | UserError):
                        outcome.error.add_note(f"in a worker process:\n{outcome.traceback}")
                    raise outcome.error
                yield position, outcome
                continue
        elif time.monotonic() >= worker.deadline:
            reason = f"took longer than {timeout_s:g} s"
            worker.process.kill()
            worker.process.join()
        else:
            continue
        worker.pipe.close()
        pool.remove(worker)
        if tries[position] < TRIES:
            waiting.appendleft(position)
        else:
            yield position, Failure(f"{reason}, {TRIES} times")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _start(step: Callable[[Task], Result], memory_mb: int | None) -> _Worker[Task]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(step, theirs, memory_mb), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process=process, pipe=ours)


def _await_ready(worker: _Worker[Any]) -> None:
    """Wait until a new worker has imported what it needs; one that dies before that would die at every task alike."""
    try:
        worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        advice = "in a script, call it below 'if __name__ == \"__main__\":' (workers import the script anew); see the lines above for more"
        raise UserError("worker processes", f"do not start (exit {worker.process.exitcode})", advice) from None


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent is gone, so that no orphan writes beside a build that goes on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(megabytes: int) -> None:
    """Bound what this process may still allocate: heap and private maps, not the libraries' code."""
    if sys.platform != "linux":
        return
    import resource

    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    used = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _work(step: Callable[[Any], Any], pipe: Connection, memory_mb: int | None) -> None:
    """A worker's life: tasks in, results out. Ctrl-C is the parent's to handle."""
    # Decoders print on stderr by themselves, whole paths among it. What goes wrong comes back as a value or as the worker's death.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent()
    if memory_mb is not None:
        _limit_memory(memory_mb)
    pipe.send("ready")
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            outcome = step(task)
        except Exception as error:  # noqa: BLE001 - handed whole to the parent, which raises it there
            outcome = _Raised(error, traceback.format_exc())
        pipe.send(outcome)
