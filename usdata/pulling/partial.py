"""A download that is not finished: `<file>.part`, and beside it `<file>.part.json`, which says of which version of which file it is.

In: bytes in order. Out: the file under its own name, at once, or a part that a later run goes on with. Guarantees: the part never holds
bytes of two versions, because it is emptied before what is said of it changes; killed at any instant, it is short and never wrong.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from usdata.files import write_json


@dataclass(frozen=True)
class Version:
    """What a server said of the bytes that it sends.

    Attributes:
        url: The address that was asked, before redirects.
        etag: Its ETag, weak ones too.
        last_modified: Its Last-Modified.
        validator: What may stand in If-Range: a strong ETag, or a Last-Modified that is strong; None forbids going on.
        total: Bytes of the whole file; None where it did not say.
    """

    url: str
    etag: str | None = None
    last_modified: str | None = None
    validator: str | None = None
    total: int | None = None


class Partial:
    """The part of one file, open for writing.

    Attributes:
        path: Where it is.
        size: Bytes in it.
        version: What they are of; None for an empty part or one that nothing is known of.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._state = target.with_name(f"{target.name}.part.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("r+b" if self.path.exists() else "w+b")
        self.size = self._file.seek(0, os.SEEK_END)
        self.version = _read_state(self._state)

    def length_to_go_on_from(self, url: str) -> int:
        """How many bytes of this address may be kept; 0 where nothing proves that the rest would fit."""
        version = self.version
        if version is None or version.url != url or version.validator is None:
            return 0
        return self.size if version.total is None or self.size <= version.total else 0

    def begin(self, version: Version) -> None:
        """Empty it, then say what it will be of."""
        self._empty()
        write_json(self._state, asdict(version))
        self.version = version

    def write(self, block: bytes) -> None:
        """Append bytes."""
        self._file.write(block)
        self.size += len(block)

    def discard(self) -> None:
        """Empty it and forget what it was of."""
        self._empty()
        self._state.unlink(missing_ok=True)
        self.version = None

    def flush(self) -> None:
        """Hand everything to the operating system, so that others can read it."""
        self._file.flush()

    def place(self) -> None:
        """Give the whole file its own name, durably."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.path.replace(self._target)
        self._state.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave it for a later run; an empty one goes."""
        if self._file.closed:
            return
        try:
            self._file.close()
        finally:
            if self.path.stat().st_size == 0:
                self.path.unlink()
                self._state.unlink(missing_ok=True)

    def _empty(self) -> None:
        self._file.seek(0)
        self._file.truncate(0)
        self.size = 0


def _read_state(path: Path) -> Version | None:
    """What the state says; None where it is missing or not ours, for then the download begins anew."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        version = Version(**state)
    except (OSError, ValueError, TypeError):
        return None
    texts = (version.url, version.etag, version.last_modified, version.validator)
    sound = isinstance(version.url, str) and all(text is None or isinstance(text, str) for text in texts)
    return version if sound and (version.total is None or type(version.total) is int) else None
