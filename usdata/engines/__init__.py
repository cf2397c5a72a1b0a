"""Where the per-video step runs: worker processes on this machine, or a Ray cluster.

Every engine takes a step, tasks and limits, and gives (position of a task, its result) as they are done; the caller puts them in order, so
no engine can change a result. A step that crashes, hangs or takes too much memory costs its task and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Protocol

from usdata.engines.local import Failure, default_workers, run_local
from usdata.errors import UserError, nearest

__all__ = ["ENGINES", "Failure", "Runner", "default_workers", "run_local", "runner"]

ENGINES = ("local", "ray")


class Runner(Protocol):
    """An engine with its number of workers chosen."""

    def __call__(
        self, step: Callable[[Any], Any], tasks: Sequence[Any], *, timeout_s: float, memory_mb: int | None = None
    ) -> Generator[tuple[int, Any], None, None]:
        """Run a step over tasks; see `run_local`."""


def runner(engine: str, workers: int | None) -> Runner:
    """The engine of that name.

    Args:
        engine: "local" or "ray".
        workers: Processes; None: all processors of this machine, or of the cluster.

    Raises:
        UserError: There is no such engine, its packages are missing, or the number is none.
    """
    if workers is not None and workers < 1:
        raise UserError("--workers", f"{workers} is no number of workers", "give 1 or more")
    if engine == "local":
        return partial(run_local, workers=default_workers() if workers is None else workers)
    if engine == "ray":
        from usdata.engines.ray_cluster import require_ray, run_ray

        require_ray()
        return partial(run_ray, workers=workers)
    raise UserError("--engine", f"knows no '{engine}'", nearest(engine, ENGINES))
