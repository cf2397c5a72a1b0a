"""The per-video step on a Ray cluster (extra `ray`).

Ray carries batches of tasks to its machines; on each, one worker process of ours does them one after the other, with the same limits on
time and memory and the same second try as on one machine. So a clip that crashes or hangs its decoder costs the same row everywhere, and
Ray never sees a failure of a clip. Tasks name files by path: the raw clips and the data set's folder must lie where all machines see them.

A cluster that runs is found by the variable RAY_ADDRESS; without it Ray is started on this machine and ended afterwards.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from usdata.engines.local import Failure, run_local
from usdata.errors import UserError

BATCH = 8  # tasks that one start of a worker process pays for
BATCHES_A_WORKER = 4  # at least, so that no machine is left with a long one at the end


def require_ray() -> None:
    """Refuse when Ray is not installed.

    Raises:
        UserError: It is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("--engine ray", "the package 'ray' is not installed", "pip install 'usdata-uscl[ray]', or leave --engine out")


def run_ray(
    step: Callable[[Any], Any], tasks: Sequence[Any], *, workers: int | None = None, timeout_s: float, memory_mb: int | None = None
) -> Generator[tuple[int, Any | Failure], None, None]:
    """Run a step over tasks on Ray; see `run_local` for what is given and what comes.

    Args:
        workers: Batches that run at once; None: as many as the cluster has processors.

    Raises:
        UserError: The cluster that RAY_ADDRESS names cannot be reached.
    """
    if not tasks:
        return
    # Ray would report its use over the network, and print its own news.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    started = not ray.is_initialized()
    if started:
        _start(ray, workers)
    try:
        at_once = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        size = max(1, min(BATCH, len(tasks) // (at_once * BATCHES_A_WORKER)))
        waiting = [range(start, min(start + size, len(tasks))) for start in range(0, len(tasks), size)]
        remote = ray.remote(num_cpus=1, max_retries=2)(_run_batch)
        running: dict[Any, range] = {}
        while waiting or running:
            while waiting and len(running) < at_once:
                positions = waiting.pop(0)
                running[remote.remote(step, [tasks[position] for position in positions], timeout_s, memory_mb)] = positions
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                positions = running.pop(reference)
                try:
                    outcomes = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    # As the step raised it on the other machine: a full disk or a fault of ours, never a bad clip's doing.
                    raise error.as_instanceof_cause() from None
                yield from zip(positions, outcomes, strict=True)
    finally:
        if started:
            ray.shutdown()


def _start(ray: Any, workers: int | None) -> None:
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address is None:
        # "local": without it Ray joins whatever cluster happens to run on this machine, another build's perhaps, that ends under our feet.
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except ConnectionError as error:
        raise UserError(f"RAY_ADDRESS={address}", f"no Ray cluster answers there ({error})", "start one, or unset the variable") from None


def _run_batch(step: Callable[[Any], Any], tasks: list[Any], timeout_s: float, memory_mb: int | None) -> list[Any]:
    """On one of the cluster's machines: the tasks of a batch, in their order."""
    outcomes: dict[int, Any] = {}
    with closing(run_local(step, tasks, workers=1, timeout_s=timeout_s, memory_mb=memory_mb)) as done:
        outcomes.update(done)
    return [outcomes[position] for position in range(len(tasks))]
