"""Per-video steps, run over many clips: by a build, and by whoever makes a build's pictures again.

Comes in: tasks and an engine. Goes out: each clip's result; a clip that cost its workers is a failed one. Guarantees: results do not depend
on the order in which they are done, and a signal stops after the steps that are under way, with everything done journalled.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from usdata.console import progress
from usdata.engines import Failure, Runner
from usdata.errors import Stopped
from usdata.recipe import Reading
from usdata.signals import StopFlag
from usdata.video_step import VideoTask, no_result, process_video


def take_steps(tasks: Sequence[VideoTask], title: str, read: Reading, run: Runner, stop: StopFlag) -> dict[str, dict[str, Any]]:
    """Run per-video steps; video_id to result.

    Args:
        tasks: What to do; long clips are begun first, so that no worker is left with one at the end.
        title: What is being done, for the progress ("reading clips").
        read: The limits of time and memory for one clip.
        run: The engine.
        stop: Tells of a signal.

    Raises:
        Stopped: A signal came before all were done.
    """
    results: dict[str, dict[str, Any]] = {}
    if not tasks:
        return results
    ordered = sorted(tasks, key=lambda task: (-task.bytes, task.video_id))
    with (
        stop.deferred(),
        progress(title, len(ordered), "clips") as advance,
        closing(run(process_video, ordered, timeout_s=read.timeout_s, memory_mb=read.memory_mb)) as done,
    ):
        for position, outcome in done:
            results[ordered[position].video_id] = no_result("failed", outcome.reason) if isinstance(outcome, Failure) else outcome
            advance(1)
            if stop.name is not None and len(results) < len(ordered):
                told = f"stopped with {len(results)} of {len(ordered)} clips done and saved"
                raise Stopped(f"{told}; run the same command again to go on")
    return results
