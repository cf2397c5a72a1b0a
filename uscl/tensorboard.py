"""The figures of metrics.jsonl for TensorBoard, where it is installed: RUN/tensorboard/, an event file a session.

In come lines of metrics; out go scalars at their steps. A resumed run tells TensorBoard to forget the steps that it does again. The files
are written with TensorBoard's own record writer, not through torch.utils.tensorboard, which puts the machine's name into theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from uscl.processes import is_first
from usdata.console import say

FOLDER = "tensorboard"
# Beside the scalars of a line: where it stands, which is the horizontal axis.
_AXIS = "step"


class Scalars:
    """Takes lines of metrics.

    Args:
        put: Writes `step`, `wall_time` and `summary` (numbers by name); None: nothing is written.
    """

    def __init__(self, put: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._put = put

    def write(self, line: Mapping[str, Any]) -> None:
        """Write every number of a line under its name, at the line's step.

        A figure on a page is not worth a run: where the file cannot be written, that is said once, and the run goes on without it.
        """
        if self._put is None:
            return
        numbers = {key: float(value) for key, value in line.items() if key != _AXIS and isinstance(value, int | float)}
        try:
            self._put({"step": line[_AXIS], "wall_time": time.time(), "summary": numbers})
        except OSError as error:
            say(f"warning: TensorBoard's file cannot be written ({error.strerror or error}); metrics.jsonl has everything")
            self._put = None


def installed() -> bool:
    """Whether TensorBoard is there; it is not imported for that."""
    return find_spec("tensorboard") is not None


def open_scalars(out: Path, setting: str, step: int) -> Scalars:
    """Where a run's figures go.

    Args:
        out: The run's folder.
        setting: 'auto' or 'off'.
        step: That the run starts from; what earlier sessions wrote behind it is forgotten.
    """
    if setting == "off" or not installed() or not is_first():
        return Scalars()
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    path: Path | None = None

    def put(line: dict[str, Any]) -> None:
        nonlocal path
        events = []
        if path is None:
            path = _new_file(out / FOLDER)
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            events += [event_pb2.Event(wall_time=line["wall_time"], file_version="brain.Event:2")]
            events += [event_pb2.Event(wall_time=line["wall_time"], step=step + 1, session_log=start)]
        values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in line["summary"].items()]
        events += [event_pb2.Event(step=line["step"], wall_time=line["wall_time"], summary=summary_pb2.Summary(value=values))]
        with path.open("ab") as file:
            for event in events:
                RecordWriter(file).write(event.SerializeToString())

    return Scalars(put)


def _new_file(folder: Path) -> Path:
    """The next session's event file: TensorBoard knows one by the word in its name, and reads them in the order of their names."""
    folder.mkdir(exist_ok=True)
    sessions = [int(path.suffix[1:]) for path in folder.glob("events.out.tfevents.*") if path.suffix[1:].isdecimal()]
    return folder / f"events.out.tfevents.{1 + max(sessions, default=0):06d}"
