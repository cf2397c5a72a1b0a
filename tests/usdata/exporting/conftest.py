"""The awkward data set that every format must carry, and a folder's bytes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.usdata.exporting.odd_set import odd_set


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd_set(tmp_path_factory.mktemp("odd") / "set")


@pytest.fixture(scope="session")
def bytes_of() -> Callable[[Path], dict[str, bytes]]:
    return lambda folder: {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
