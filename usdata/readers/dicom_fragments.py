"""Where the frames of compressed DICOM pixel data lie (PS3.5 A.4).

In: a file, and where its pixel data begin. Out: the place of each packet ("fragment"), which of them begins a frame, and all of them as one
file for a video inside. Guarantees: lengths and offset tables are claims, checked against the file before they are followed; nothing is
read but the packets' headers until a frame is asked for.
"""

from __future__ import annotations

import io
import os
from array import array
from bisect import bisect_right
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from pydicom.dataset import FileDataset

from usdata.errors import ReadError
from usdata.readers.dicom_codecs import STARTS
from usdata.readers.dicom_facts import value_of

UNDEFINED_LENGTH = 0xFFFFFFFF
# More than a day of video at 10 Hz; an index of them takes 16 MB.
_MAX_FRAGMENTS = 1_000_000
_ADVICE = "get the file again, or leave it out"


class PixelElement(NamedTuple):
    """Where the pixel data lie: the first byte of the value, its declared length, and whether it is written as 16-bit words."""

    start: int
    length: int
    in_words: bool


class Fragments(NamedTuple):
    """The packets of encapsulated pixel data.

    Attributes:
        starts: Offset in the file of each packet's first byte.
        lengths: Bytes of each.
        table: The basic offset table's entries.
        fault: Why the list ends before its end.
        whole: It ends behind a packet: nothing but the end mark need be missing.
    """

    starts: array[int]
    lengths: array[int]
    table: array[int]
    fault: str | None
    whole: bool


def find_fragments(path: Path, file: BinaryIO, element: PixelElement, *, partial_packet: bool = False) -> Fragments:
    """The packets by their headers alone (PS3.5 A.4).

    One that reaches beyond the file is left out, or with `partial_packet` taken to the file's end, as the one packet of a video must be.
    """
    if element.length != UNDEFINED_LENGTH:
        raise ReadError(path, "its header says that its pixels are compressed, and they are not in packets", _ADVICE)
    end = os.fstat(file.fileno()).st_size
    starts, lengths, table = array("Q"), array("Q"), array("I")
    position, is_table, fault = element.start, True, None
    while True:
        file.seek(position)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"\xfe\xff\xdd\xe0":
            break
        if len(head) < 8 or head[:4] != b"\xfe\xff\x00\xe0":
            fault = "the pixel data break off" if len(head) < 8 else "a packet of the pixel data has no header"
            break
        if position + 8 + length > end:
            fault = "the last packet of the pixel data is cut short"
            if partial_packet and not is_table:
                starts.append(position + 8)
                lengths.append(end - position - 8)
            break
        if len(starts) >= _MAX_FRAGMENTS:
            fault = f"the pixel data hold more than {_MAX_FRAGMENTS} packets"
            break
        if is_table:
            table.frombytes(file.read(length - length % 4) if length <= 4 * _MAX_FRAGMENTS else b"")
            is_table = False
        else:
            starts.append(position + 8)
            lengths.append(length)
        position += 8 + length
    return Fragments(starts, lengths, table, fault, not head)


def first_fragments(path: Path, file: BinaryIO, dataset: FileDataset, fragments: Fragments, declared: int | None, codec: str) -> list[int]:
    """The number of each frame's first packet.

    By the first of these that can be true: one packet a frame, as RLE always is; an offset table of which every entry is the start of a
    packet; the packets that begin with a codestream's first bytes; all packets as one frame.
    """
    packets = len(fragments.starts)
    if codec == "rle" or packets == declared or packets <= 1:
        return list(range(packets))
    items = {start - 8: number for number, start in enumerate(fragments.starts)}
    base, end = fragments.starts[0] - 8, fragments.starts[-1] + fragments.lengths[-1]
    extended = value_of(path, dataset, "ExtendedOffsetTable")
    for offsets in (fragments.table, np.frombuffer(extended, "<u8").tolist() if extended and len(extended) % 8 == 0 else []):
        # A cut file lacks the packets of its last frames.
        numbers = [items.get(base + offset, -1) for offset in offsets if fragments.fault is None or base + offset < end]
        if numbers and numbers[0] == 0 and all(one < other for one, other in pairwise(numbers)):
            return numbers
    starts = STARTS.get(codec, ())
    heads = [
        number
        for number in range(packets)
        if read_at(file, fragments.starts[number], min(fragments.lengths[number], 12)).startswith(starts)
    ]
    return heads if heads and heads[0] == 0 else [0]


def read_at(file: BinaryIO, start: int, size: int) -> bytes:
    """Bytes of a place in a file."""
    file.seek(start)
    return file.read(size)


class JoinedFragments(io.RawIOBase):
    """The packets of a video as one seekable file, read where it is asked for."""

    def __init__(self, file: BinaryIO, fragments: Fragments) -> None:
        super().__init__()
        self._file = file
        self._starts = fragments.starts
        # Where each packet begins in the whole, and where the last ends.
        self._places = array("Q", accumulate(fragments.lengths, initial=0))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._places[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        if self._position >= self._places[-1]:
            return 0
        packet = bisect_right(self._places, self._position) - 1
        inside = self._position - self._places[packet]
        size = min(len(buffer), self._places[packet + 1] - self._position)
        data = read_at(self._file, self._starts[packet] + inside, size)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
