"""The process pool: results complete, a killed or hanging step costs its task alone, our own faults are raised."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from usdata.engines import Failure, run_local


def act(task: tuple[str, str]) -> str:
    """A step that does as it is told."""
    what, detail = task
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "kill once" and not Path(detail).exists():
        Path(detail).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "hang":
        time.sleep(600)
    if what == "raise":
        raise ValueError(detail)
    if what == "disk full":
        raise OSError(28, "No space left on device", detail)
    return f"did {what}"


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_has_its_result(workers: int) -> None:
    tasks = [(f"task {number}", "") for number in range(7)]
    assert sorted(run_local(act, tasks, workers=workers, timeout_s=60)) == [(number, f"did task {number}") for number in range(7)]


def test_death_and_hanging_cost_one_task_each(tmp_path: Path) -> None:
    tasks = [("a", ""), ("kill", ""), ("b", ""), ("hang", ""), ("exit", ""), ("kill once", str(tmp_path / "mark")), ("c", "")]
    results = dict(run_local(act, tasks, workers=2, timeout_s=4))
    assert results[1] == Failure("the decoder was killed (SIGKILL), 2 times")
    assert results[3] == Failure("took longer than 4 s, 2 times")
    assert results[4] == Failure("the decoder died (exit 3), 2 times")
    assert [results[position] for position in (0, 2, 5, 6)] == ["did a", "did b", "did kill once", "did c"]


def test_a_fault_of_ours_is_raised_with_the_workers_traceback() -> None:
    with pytest.raises(ValueError, match="planted") as caught:
        list(run_local(act, [("raise", "planted")], workers=1, timeout_s=60))
    assert "in act" in caught.value.__notes__[0]


def test_a_full_disk_is_raised_as_such() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        list(run_local(act, [("disk full", "somewhere")], workers=1, timeout_s=60))
    assert caught.value.filename == "somewhere"


def test_closing_ends_the_workers() -> None:
    running = run_local(act, [("a", ""), ("hang", "")], workers=2, timeout_s=60)
    assert next(running) == (0, "did a")
    start = time.monotonic()
    running.close()
    assert time.monotonic() - start < 10


def test_a_worker_that_dies_while_idle_costs_nothing() -> None:
    """The first worker is killed between two results; its next task goes to a new one."""
    tasks = [(f"task {number}", "") for number in range(4)]
    running = run_local(act, tasks, workers=1, timeout_s=60)
    results = dict([next(running)])
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    results |= dict(running)
    assert results == {number: f"did task {number}" for number in range(4)}
