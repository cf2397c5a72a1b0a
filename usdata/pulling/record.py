"""What was pulled of a source: `RAW/<name>/.usdata-pull.json`, and the lock that keeps two pulls out of one folder.

In and out: a row a file. Guarantees: the record is replaced at once or not at all; threads of one pull may write to it; the lock ends with
the process, however that ends, and not before the last thread that works under it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from usdata.errors import UserError
from usdata.files import write_json

RECORD_NAME = ".usdata-pull.json"
LOCK_NAME = ".usdata-pull.lock"


@dataclass(frozen=True)
class Listing:
    """The files of a folder: how many, their bytes together, and a digest of their names and sizes."""

    files: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class Row:
    """What is known of a file that was pulled: its size, its sha256, where it came from, and what it was unpacked to."""

    bytes: int
    sha256: str
    location: str
    unpacked: Listing | None = None


class Record:
    """The record of one source.

    Raises:
        UserError: There is a record and it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD_NAME
        self._lock = threading.Lock()
        self._rows = _read(self.path)

    def __getitem__(self, path: str) -> Row | None:
        return self._rows.get(path)

    def put(self, path: str, row: Row) -> None:
        """Write down what is known of a file."""
        with self._lock:
            self._rows[path] = row
            write_json(self.path, {"files": {name: asdict(row) for name, row in self._rows.items()}})


def _read(path: Path) -> dict[str, Row]:
    try:
        rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {name: Row(**(row | {"unpacked": row["unpacked"] and Listing(**row["unpacked"])})) for name, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"is no record of a pull ({' '.join(str(error).split())})"
        raise UserError(path, reason, "remove it; what stands beside it is then taken as it is") from error


class SourceLock:
    """A source's folder for one pull alone, until every one of its holders has let go.

    Raises:
        UserError: Another pull works there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LOCK_NAME
        self._counting = threading.Lock()
        self._holders = 1
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(self._handle), self._path.stat())
        except OSError:
            ours = False
        if not ours:
            os.close(self._handle)
            raise UserError(folder, "another pull works in this folder", "wait for it to end")

    def held(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """Work that holds the lock from its beginning to its end, even where nobody waits for it any more."""

        def holding() -> Any:
            with self._counting:
                self._holders += 1
            try:
                return work()
            finally:
                self.let_go()

        return holding

    def let_go(self) -> None:
        """One holder less; the last one removes the lock."""
        with self._counting:
            self._holders -= 1
            if self._holders == 0:
                self._path.unlink(missing_ok=True)
                os.close(self._handle)
