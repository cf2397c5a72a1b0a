"""How many bytes of a video file are missing at its end, by what the container says of its own length.

FFmpeg passes over a missing end in silence where the last packet happens to be whole. Read here, a few header bytes each: the Segment size
of Matroska (RFC 8794, RFC 9559), the top-level boxes of ISO base media (ISO/IEC 14496-12), the RIFF chunks of AVI, the trailer of GIF, the
packet grid of MPEG transport streams (a cut between two packets cannot be seen). Other containers say nothing of their length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

_SEGMENT = 0x18538067
_EBML = 0x1A45DFA3
_MAX_BOXES = 100_000
_TRANSPORT_PACKETS = (188, 192)


def missing_bytes(path: Path, kind: str) -> int | None:
    """Bytes that the container declares and the file does not have; 0 for a whole file; None where the container does not tell.

    Args:
        path: The file.
        kind: What it is, as `identify` names it.
    """
    reader = {"matroska": _of_matroska, "mp4": _of_boxes, "avi": _of_riff, "gif": _of_gif, "mpegts": _of_transport_stream}.get(kind)
    if reader is None:
        return None
    size = path.stat().st_size
    with path.open("rb") as file:
        end = reader(file, size)
    return None if end is None else max(0, end - size)


def _of_matroska(file: BinaryIO, size: int) -> int | None:
    for identifier, start, length in islice(_elements(file), 8):
        if identifier == _SEGMENT:
            return None if length is None else start + length
        if length is None or identifier != _EBML:
            return None
        file.seek(start + length)
    return None


def _elements(file: BinaryIO) -> Iterator[tuple[int, int, int | None]]:
    """Identifier, first byte of the content and its length (None: unknown) of EBML elements; the caller seeks to the next one."""
    while True:
        identifier = _variable_integer(file, keep_marker=True)
        length = _variable_integer(file, keep_marker=False)
        if identifier is None or length is None:
            return
        value, width = length
        unknown = value == (1 << (7 * width)) - 1
        yield identifier[0], file.tell(), None if unknown else value


def _variable_integer(file: BinaryIO, *, keep_marker: bool) -> tuple[int, int] | None:
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    if len(rest) < width - 1:
        return None
    head = first[0] if keep_marker else first[0] & ((1 << (8 - width)) - 1)
    return int.from_bytes(bytes([head]) + rest, "big"), width


def _of_boxes(file: BinaryIO, size: int) -> int | None:
    place = 0
    for _ in range(_MAX_BOXES):
        if place >= size:
            return place
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            # A few bytes of padding after the last box are common, and no loss.
            return None
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        elif length == 0:  # to the end of the file
            return size
        if length < 8 or not head[4:8].isalnum():
            return None
        place += length
    return None


def _of_riff(file: BinaryIO, size: int) -> int | None:
    place = 0
    for _ in range(_MAX_BOXES):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[:4] != b"RIFF":
            return place or None
        length = int.from_bytes(head[4:], "little")
        if length in (0, 0xFFFFFFFF):  # written as a stream: the length was not known
            return None
        place += 8 + length + length % 2
    return None


def _of_gif(file: BinaryIO, size: int) -> int | None:
    file.seek(-1, os.SEEK_END)
    # Some writers add a zero byte after the trailer.
    return size if file.read(1) in (b"\x3b", b"\x00") else size + 1


def _of_transport_stream(file: BinaryIO, size: int) -> int | None:
    head = file.read(4 + 2 * max(_TRANSPORT_PACKETS))
    for offset, packet in zip((0, 4), _TRANSPORT_PACKETS, strict=True):
        if len(head) > offset + packet and head[offset] == head[offset + packet] == 0x47:
            return -(-size // packet) * packet
    return None
