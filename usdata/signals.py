"""Stopping by signal: while work is under way a signal sets a flag that the work looks at; otherwise it stops the program at once.

`with stop_signals() as stop:` goes around everything, `with stop.deferred():` around what must come to a good end first. `stop.name` is the
signal's name once there was one. `uscl` uses it too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from usdata.errors import Stopped


class StopFlag:
    """Whether a signal asked to stop; installed as the handler of SIGTERM and SIGINT."""

    def __init__(self, how_to_go_on: str) -> None:
        self.name: str | None = None
        self._how_to_go_on = how_to_go_on
        self._deferred = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        first = self.name is None
        self.name = signal.Signals(number).name
        if not self._deferred:
            raise Stopped(f"stopped by {self.name} with nothing left to save: {self._how_to_go_on}")
        if not first and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C means now

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals only set the flag while this lasts."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False


@contextmanager
def stop_signals(how_to_go_on: str = "run the same command again") -> Iterator[StopFlag]:
    """Handle SIGTERM and SIGINT while this lasts. In a thread, where Python lets nobody handle signals, nothing changes.

    Inside another such block, a signal that came is told to the outer one at the end: what was done here may have ended well all the same.
    """
    flag = StopFlag(how_to_go_on)
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
            if isinstance(handler, StopFlag) and flag.name is not None:
                handler.name = flag.name
