"""Pixels that lie one after another in a file, plain or packed: a pass over them, picture by picture.

In: where they lie and how they are stored, as a header claims it. Out: whole pictures, and in words what is missing, damaged or left over.
Guarantees: a claim costs no memory before it is checked; of data that end early the whole pictures are given; a header opens no file but
one that lies beside it.
"""

from __future__ import annotations

import bz2
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import check_size

# 92 hours at 30 Hz; a header that claims more is damaged.
MAX_FRAMES = 10_000_000
# Deflate packs at most 1032 bytes into one (zlib's technical notes).
_DEFLATE_RATIO = 1032
_BLOCK = 1 << 16
# So much of packed data beyond the last frame is unpacked to reach their check sum; some 0.1 s.
_LOOK_BEYOND_BYTES = 32 << 20
_ADVICE = "get the file again, or leave it out"


class Finding(NamedTuple):
    """What a pass over stored pictures met in place of a picture.

    Attributes:
        text: In words.
        error: True for damage; False for what is odd and costs nothing, which becomes a note.
        cut_short: The data end before their end.
    """

    text: str
    error: bool = True
    cut_short: bool = False


@dataclass(frozen=True)
class RawData:
    """Where stored pictures lie.

    Attributes:
        path: The file that holds them.
        offset: First byte in the file.
        encoding: "raw", "zlib", "gzip" or "bzip2".
        skip: Unpacked bytes before the first picture.
    """

    path: Path
    offset: int
    encoding: str = "raw"
    skip: int = 0


def check_shape(path: Path, width: int, height: int, frames: int, channels: int) -> None:
    """Refuse what no header may claim.

    Raises:
        ReadError: A side, the number of frames or of channels cannot be.
    """
    check_size(path, width, height)
    if channels not in (1, 3):
        raise ReadError(path, f"its pixels have {channels} values each; 1 (gray) and 3 (RGB) are read", "convert it first")
    if not 0 < frames <= MAX_FRAMES:
        raise ReadError(path, f"the header claims {frames} frames", "the file is damaged; get it again or leave it out")


def stored_pictures(
    data: RawData, width: int, height: int, frames: int, channels: int, dtype: np.dtype[Any]
) -> Iterator[np.ndarray | Finding]:
    """The pictures of a file, x running fastest, then y, then the frames; RGB values of a pixel lie together.

    Yields:
        Each whole picture; at the end a `Finding` where data are missing, damaged or left over.

    Raises:
        OSError: The file cannot be read.
    """
    shape = (height, width) if channels == 1 else (height, width, channels)
    size = math.prod(shape) * dtype.itemsize
    with data.path.open("rb") as file:
        held = max(0, os.fstat(file.fileno()).st_size - data.offset)
        if data.encoding in ("zlib", "gzip"):
            held *= _DEFLATE_RATIO
        # bzip2 packs a million to one: no claim of its header can be refused by its size.
        enough = size + data.skip <= held or data.encoding == "bzip2"
        file.seek(data.offset)
        unpacked = _Unpacked(file, data.encoding)
        unpacked.pass_over(data.skip if enough else 0)
        for number in range(frames):
            picture = np.empty(shape if enough else 0, dtype)
            if not enough or unpacked.read_into(picture.reshape(-1).view(np.uint8).data) < size:
                yield Finding(unpacked.damage or f"the data end within frame {number + 1} of {frames}", cut_short=True)
                return
            yield picture
        yield from unpacked.check_end()


class _Unpacked:
    """A file's bytes from where it stands, unpacked as far as they are asked for.

    Attributes:
        damage: Why no more can be unpacked; None while all is well, and at a plain end.
    """

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._encoding = encoding
        self._unpacker = self._fresh()
        self._waiting = b""
        self._ended = False
        self.damage: str | None = None

    def _fresh(self) -> Any:
        if self._encoding == "bzip2":
            return bz2.BZ2Decompressor()
        # zlib's own header and gzip's are told apart by zlib.
        return None if self._encoding == "raw" else zlib.decompressobj(47)

    def read_into(self, target: memoryview) -> int:
        """Fill the target; fewer bytes than it holds come only at the end or at damage."""
        done = 0
        while done < len(target):
            piece = self._piece(len(target) - done)
            if not piece:
                break
            target[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def pass_over(self, size: int) -> None:
        """Unpack and forget so many bytes."""
        while size > 0 and (piece := self._piece(min(size, _BLOCK))):
            size -= len(piece)

    def check_end(self) -> Iterator[Finding]:
        """After the last picture: are there data left, and do packed ones end as they should?"""
        more = bool(self._piece(1))
        if more and self._unpacker is not None:
            # Damage may make data of nothing: only the check sum at the end tells.
            self.pass_over(_LOOK_BEYOND_BYTES)
        if self.damage is not None:
            yield Finding(self.damage, cut_short=self._ended)
        elif more:
            yield Finding("the file holds more data than its header declares; they are not read", error=False)

    def _piece(self, size: int) -> bytes:
        """1 to `size` bytes; none at the end or at damage."""
        if self._unpacker is None:
            return self._file.read(min(size, _BLOCK * 16))
        while self.damage is None:
            if self._unpacker.eof and not self._next_member():
                break
            if not self._waiting and not self._ended and getattr(self._unpacker, "needs_input", True):
                self._waiting = self._file.read(_BLOCK)
                self._ended = not self._waiting
            try:
                piece: bytes = self._unpacker.decompress(self._waiting, size)
            except (zlib.error, OSError, EOFError, ValueError) as error:
                self.damage = f"the compressed data are damaged ({' '.join(str(error).split())[:100]})"
                break
            self._waiting = getattr(self._unpacker, "unconsumed_tail", b"")
            if piece:
                return piece
            if self._ended and not self._unpacker.eof:
                self.damage = "the compressed data break off"
        return b""

    def _next_member(self) -> bool:
        """Go on with a further member (gzip and bzip2 files may be several joined); what else follows is padding."""
        rest: bytes = self._unpacker.unused_data
        if len(rest) < 3:
            rest += self._file.read(_BLOCK)
        if not rest.startswith({"gzip": b"\x1f\x8b", "bzip2": b"BZh"}.get(self._encoding, b"no")):
            return False
        self._unpacker = self._fresh()
        self._waiting = rest
        return True


def start_from_end(path: Path, file: Path, size: int, least: int) -> int:
    """Where data start of which is said only that they end with the file, after its first `least` bytes.

    Raises:
        ReadError: The file is shorter than they are, and then nobody knows where they start.
    """
    start = file.stat().st_size - size
    if start < least:
        raise ReadError(path, "its pixels are said to be what the data file ends with, and the file is shorter than they are", _ADVICE)
    return start


def companion(path: Path, name: str) -> Path:
    """A data file that a header names, which must lie beside it.

    Raises:
        ReadError: The name leads elsewhere.
    """
    name = name.removeprefix("./")
    if not name or name in (".", "..") or any(mark in name for mark in ("/", "\\", "\0")) or name[1:2] == ":":
        advice = "put the data beside the header, and their plain name into it"
        raise ReadError(path, "refers to data that do not lie beside it, which are not opened", advice)
    return path.parent / name


def check_companion(path: Path, file: Path) -> None:
    """Refuse a data file that is not there, or is no plain file.

    Raises:
        ReadError: So it is.
    """
    if not file.is_file():
        raise ReadError(path, "the file that holds its pixels is missing: the header names one that does not lie beside it", "put it there")
