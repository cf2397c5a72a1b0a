"""Files that take longest go first, so that no process is left with one of them when the others are done."""

import pytest

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort test files; inside a file the order stays."""
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(
        key=lambda item: min((number for name, number in place.items() if str(item.path).endswith(f"tests/{name}")), default=len(place))
    )
