"""The digest of a video's coded pictures, equal whichever container holds them.

In: the payloads of a stream's packets, in stream order. Out: 64 hexadecimal digits. Guarantees: copying a stream into another container
leaves it, as far as the copy leaves the coded pictures; where a stream is cut into packets does not matter; memory does not grow.

Of H.264 and H.265 only the slices count (ITU-T H.264 and H.265, 7.4.1 and 7.4.2): parameter sets and supplementary information move between
stream and header from container to container, access unit delimiters come and go, and a unit begins with its length (mp4, Matroska; ISO/IEC
14496-15) or with a start code (transport streams, raw streams; annex B). Of every other codec the
payloads count as they are, but for padding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

# Slices, with their partitions and extensions.
_H264_SLICES = frozenset({1, 2, 3, 4, 5, 19, 20, 21})
_HEVC_SLICES = frozenset(range(32))
_START_CODE = b"\0\0\1"
# Zeros after a picture are no part of it, and DICOM adds one where a length is odd.
_ENDS_BEFORE_ZEROS = frozenset({"mjpeg", "mpeg1video", "mpeg2video"})


class PacketDigest:
    """Takes the packets of one stream in order.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: The codec's header as the container keeps it; it says how h264 and hevc packets are framed.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._codec = codec
        self._in_units = codec in ("h264", "hevc")
        self._length_bytes = _length_bytes(codec, extradata or b"")
        self._digest = hashlib.sha256(f"{codec}\n".encode("ascii"))
        self._anything = False

    def add(self, payload: bytes | memoryview) -> None:
        """See the next packet's payload."""
        if not self._in_units:
            payload = bytes(payload).rstrip(b"\0") if self._codec in _ENDS_BEFORE_ZEROS else payload
            self._anything |= len(payload) > 0
            self._digest.update(payload)
            return
        coded = bytes(payload)
        for start, end in _by_length(coded, self._length_bytes) if self._length_bytes else _by_start_code(coded):
            if self._is_slice(coded[start]):
                # A unit ends with a bit that is 1: zeros after it belong to the next start code, or are padding.
                unit = coded[start:end].rstrip(b"\0")
                self._digest.update(len(unit).to_bytes(8, "little"))
                self._digest.update(unit)
                self._anything = True

    def _is_slice(self, first: int) -> bool:
        return first & 31 in _H264_SLICES if self._codec == "h264" else first >> 1 & 63 in _HEVC_SLICES

    def hexdigest(self) -> str | None:
        """The digest of the packets so far, 64 hexadecimal digits; None where they held nothing."""
        return self._digest.hexdigest() if self._anything else None


def _length_bytes(codec: str, extradata: bytes) -> int:
    """Bytes of the length before each unit, as the header says; 0 where units begin with start codes."""
    place = {"h264": 4, "hevc": 21}.get(codec)
    # A header in annex B begins with a start code, a configuration record with its version, 1 (of early writers of hevc: 0).
    if place is None or len(extradata) <= place or extradata.startswith((_START_CODE, b"\0" + _START_CODE)):
        return 0
    return (extradata[place] & 3) + 1


def _by_length(coded: bytes, length_bytes: int) -> Iterator[tuple[int, int]]:
    """Where units begin and end; what a length that reaches beyond the packet leaves of it is one."""
    place = 0
    while place + length_bytes < len(coded):
        start = place + length_bytes
        place = min(start + int.from_bytes(coded[place:start], "big"), len(coded))
        if place > start:
            yield start, place


def _by_start_code(coded: bytes) -> Iterator[tuple[int, int]]:
    """Where units begin and end; a packet without a start code is one."""
    code = coded.find(_START_CODE)
    if code < 0 < len(coded):
        yield 0, len(coded)
    while code >= 0:
        start = code + len(_START_CODE)
        code = coded.find(_START_CODE, start)
        end = len(coded) if code < 0 else code
        if end > start:
            yield start, end
