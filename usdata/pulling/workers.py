"""Several transfers at once, in threads, that a signal ends without losing what they have.

In: pieces of work. Out: their results in order, errors among them. Guarantees: one that fails does not end the others; after a signal no
new one begins, those under way are told to stop, and the caller gets `Stopped` within seconds, even where a server is silent.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from usdata.errors import Stopped, UserError
from usdata.signals import StopFlag

R = TypeVar("R")

# A thread that waits for a silent server sees the stop only when its time is up; what it has is on the disk already.
GRACE_S = 5.0
_LOOK_S = 0.1


def run_all(work: Sequence[Callable[[], R]], jobs: int, stop: threading.Event, signal: StopFlag) -> list[R | UserError]:
    """Do all of the work.

    Args:
        work: Functions that return a result or raise; each looks at `stop` by itself.
        jobs: How many at once.
        stop: Is set when a signal came.
        signal: Says whether one came.

    Raises:
        Stopped: A signal came.
        Exception: What a piece of work raised that is no `UserError`; the others were told to stop.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, R | BaseException]] = queue.SimpleQueue()
    for position in range(len(work)):
        todo.put(position)

    def labour() -> None:
        while not stop.is_set():
            try:
                position = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((position, work[position]()))
            except BaseException as error:  # noqa: BLE001 - it travels to the thread that waits
                done.put((position, error))

    threads = [threading.Thread(target=labour, daemon=True, name=f"pull {number}") for number in range(min(jobs, len(work)))]
    for thread in threads:
        thread.start()
    try:
        return _gather(len(work), done, signal)
    finally:
        stop.set()
        end = time.monotonic() + GRACE_S
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))


def _gather(count: int, done: queue.SimpleQueue[tuple[int, R | BaseException]], signal: StopFlag) -> list[R | UserError]:
    results: dict[int, R | UserError] = {}
    while len(results) < count:
        if signal.name is not None:
            raise Stopped(f"stopped by {signal.name}; what was downloaded is kept: run the same command again")
        try:
            position, result = done.get(timeout=_LOOK_S)
        except queue.Empty:
            continue
        if isinstance(result, BaseException) and not isinstance(result, UserError):
            raise result
        results[position] = result
    return [results[position] for position in range(count)]
