"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

READ_BLOCK_BYTES = 1 << 20


@contextmanager
def atomic(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends well, and vanishes when it does not.

    Args:
        path: The file to be written; its folder is made where it is missing.
        durable: Flush to the disk before the rename (images, which can be made again, need not).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix + ".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        if durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, name):
            error.filename = str(path)  # what the caller knows it by; an OSError with words of its own keeps them
        raise


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file at once or not at all."""
    with atomic(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON (sorted keys, two spaces, a last newline) at once or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces. Digests are made of it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256_text(text: str) -> str:
    """The sha256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal, read block by block."""
    with path.open("rb") as file:
        return sha256_stream(file)[0]


def sha256_stream(file: IO[bytes]) -> tuple[str, int]:
    """The sha256 of what is left to read, in hexadecimal, and the number of its bytes."""
    digest = hashlib.sha256()
    size = 0
    while block := file.read(READ_BLOCK_BYTES):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size
