"""Files that take longest go first, so that no process is left with one of them when the others are done; workers start ready."""

import multiprocessing
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from usdata import reviewing
from usdata.engines import local

LONGEST_FIRST = (
    "usdata/test_promises.py",
    "uscl/test_distributed.py",
    "usdata/duplicates/test_search.py",
    "usdata/validating/test_validating.py",
    "uscl/test_train.py",
    "usdata/test_damaged_inputs.py",
    "uscl/test_survival.py",
    "usdata/auditing/test_report_in_browser.py",
    "usdata/splitting/test_splitting.py",
    "usdata/rebuilding/test_rebuilding.py",
    "uscl/evaluation/test_evaluate.py",
    "uscl/evaluation/test_guard.py",
    "test_cli.py",
)

# What workers of a build, a scan, a validation, a review and the phantoms import, and what `python -m pytest` has them import beside it.
WORKERS_IMPORT = ["pytest", "usdata.building", "usdata.scanning", "usdata.validating", "usdata.rebuilding", "usdata.phantoms.us4"]
WORKERS_IMPORT += ["usdata.reviewing"]
# Here the worker's own life is the subject, so that each is spawned as a user's are. So are those of all programs that tests start.
SPAWNED = ("usdata/test_engines.py", "usdata/test_limits.py", "usdata/test_memory.py", "usdata/test_damaged_inputs.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort test files; inside a file the order stays."""
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(
        key=lambda item: min((number for name, number in place.items() if str(item.path).endswith(f"tests/{name}")), default=len(place))
    )


@pytest.fixture(scope="module", autouse=True)
def ready_workers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Worker processes are forks of one that has imported everything: a second of a processor less for each.

    A worker still is a process of its own that knows nothing of this one, and that can be killed, limited and timed.
    """
    with pytest.MonkeyPatch.context() as patched:
        if not str(request.path).endswith(tuple(f"tests/{name}" for name in SPAWNED)):
            multiprocessing.set_forkserver_preload(WORKERS_IMPORT)
            forks = multiprocessing.get_context("forkserver")
            patched.setattr(local, "multiprocessing", SimpleNamespace(get_context=lambda _: forks))
            patched.setattr(reviewing, "get_context", lambda _: forks)
        yield
