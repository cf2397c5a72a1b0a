"""Frames of one clip that wait for the clip's end: in memory up to a bound, then in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

IN_MEMORY_BYTES = 192 << 20


class HeldFrames:
    """A queue of frames of one size; a context manager, for the file."""

    def __init__(self, folder: Path | None, in_memory: int = IN_MEMORY_BYTES) -> None:
        self._folder = folder
        self._room = in_memory
        self._frames: list[NDArray[np.uint8]] = []
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()
        self._in_file = 0

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Hold a copy of a frame (H, W) uint8."""
        if self._file is None and pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._frames.append(pixels.copy())
            return
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115  closed by __exit__
            self._shape = pixels.shape
        self._file.write(np.ascontiguousarray(pixels).data)
        self._in_file += 1

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """The frames in the order they came."""
        yield from self._frames
        if self._file is not None:
            self._file.seek(0)
            for _ in range(self._in_file):
                yield np.frombuffer(self._file.read(int(np.prod(self._shape))), np.uint8).reshape(self._shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._frames.clear()
        if self._file is not None:
            self._file.close()
