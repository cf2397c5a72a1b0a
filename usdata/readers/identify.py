"""What a file is, by its content; its name is never asked.

In: a path. Out: one word for the kind. Guarantees: reads at most the first 4 KiB, and unpacks at most as much of a compressed file; every
path that exists gets a word, "unknown" at worst.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAD_BYTES = 4096

VIDEO_KINDS = frozenset({"mp4", "avi", "matroska", "gif", "mpegps", "mpegts", "mpegvideo", "asf", "flv", "ogg"})
STILL_KINDS = frozenset({"png", "jpeg", "tiff", "bmp", "webp"})
MEDICAL_KINDS = frozenset({"dicom", "metaimage", "nrrd", "nifti", "hdf5"})
# Everything that may be a clip: reading it will tell.
CLIP_KINDS = VIDEO_KINDS | STILL_KINDS | MEDICAL_KINDS
# Real formats that are not read: named for what they are, so that a user is not told that such a file is broken.
KNOWN_BUT_UNREAD = {"heif": "HEIF/AVIF"}
ARCHIVE_KINDS = {"zip": "a ZIP archive", "tar": "a tar archive"}

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"II*\x00", "tiff"),
    (0, b"MM\x00*", "tiff"),
    (0, b"II+\x00", "tiff"),
    (0, b"MM\x00+", "tiff"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"\x00\x00\x01\xba", "mpegps"),
    (0, b"\x00\x00\x01\xb3", "mpegvideo"),
    (0, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    (0, b"FLV\x01", "flv"),
    (0, b"OggS", "ogg"),
    (128, b"DICM", "dicom"),
    (0, b"NRRD000", "nrrd"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
    (344, b"n+1\0", "nifti"),
    (344, b"ni1\0", "nifti"),
    (4, b"n+2\0\r\n\x1a\n", "nifti"),
    (4, b"ni2\0\r\n\x1a\n", "nifti"),
    (257, b"ustar", "tar"),
    (0, b"%PDF-", "pdf"),
)
_COMPRESSIONS: dict[bytes, tuple[str, Callable[[], Any]]] = {
    b"\x1f\x8b": ("gzip", lambda: zlib.decompressobj(31)),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zXZ\x00": ("xz", lambda: lzma.LZMADecompressor(memlimit=256 << 20)),
}
_BZIP2_BLOCK = 1_000_000  # bzip2 gives nothing before a whole block of 900 kB has been read
# First atoms of ISO base media and QuickTime files; old QuickTime files have no "ftyp".
_MOVIE_ATOMS = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_IMAGE_BRANDS = frozenset({b"heic", b"heix", b"heif", b"mif1", b"msf1", b"avif", b"avis"})
# The first tag of a MetaImage header; a file of another kind does not begin with one of these keys and "=".
_METAIMAGE = re.compile(rb"\A\s*(ObjectType|NDims)\s*=\s*\w", re.IGNORECASE)
# DICOM without its 128-byte preamble begins with an element of group 0002 or 0008; the explicit form names its value representation.
_BARE_DICOM = re.compile(rb"\A[\x02\x08]\x00[\x00-\x20]\x00[A-Z]{2}")
# The implicit form begins with group 0008 and a short even length, and what follows that value is of group 0008 again.
_BARE_IMPLICIT_DICOM = re.compile(rb"\A\x08\x00[\x00-\x18]\x00([\x00-\x40])\x00\x00\x00", re.DOTALL)


def identify(path: Path) -> str:
    """The kind of a file by its content.

    Returns:
        "mp4" (mov too), "avi", "matroska" (webm too), "gif", "mpegps", "mpegts", "mpegvideo", "asf" (wmv), "flv", "ogg", "png", "jpeg",
        "tiff", "bmp", "webp", "dicom", "metaimage", "nrrd", "nifti" (compressed too), "hdf5", "heif", "text", "zip", "tar" (compressed
        too), "gzip", "bzip2", "xz", "7z", "rar", "pdf", "empty", "folder" or "unknown".

    Raises:
        OSError: The path does not exist or may not be read.
    """
    if path.is_dir():
        return "folder"
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if head.startswith(b"BZh"):
            head += file.read(_BZIP2_BLOCK)
    return identify_bytes(head)


def identify_bytes(head: bytes) -> str:
    """The kind of a file by its first bytes (4 KiB are enough)."""
    if not head:
        return "empty"
    for signature, (name, unpacker) in _COMPRESSIONS.items():
        if head.startswith(signature):
            # One layer only: there are compressed files that unpack to themselves.
            inside = _identify_plain(_unpacked(head, unpacker))
            return inside if inside == "tar" or (inside == "nifti" and name == "gzip") else name
    return _identify_plain(head)


def _identify_plain(head: bytes) -> str:
    for offset, signature, kind in _SIGNATURES:
        if head.startswith(signature, offset):
            return kind
    if head[:4] in (b"RIFF", b"RIFX"):
        return {b"AVI ": "avi", b"WEBP": "webp"}.get(head[8:12], "unknown")
    if head[4:8] in _MOVIE_ATOMS:
        return "heif" if head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS else "mp4"
    # "BM" alone begins many texts: the size of the header that follows must be one that exists.
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124):
        return "bmp"
    if _is_transport_stream(head):
        return "mpegts"
    if _METAIMAGE.match(head):
        return "metaimage"
    if _BARE_DICOM.match(head) or _is_bare_implicit_dicom(head):
        return "dicom"
    return "text" if _is_text(head) else "unknown"


def _unpacked(head: bytes, unpacker: Callable[[], Any]) -> bytes:
    """The first bytes of what a compressed file holds; nothing where its beginning is damaged."""
    try:
        return unpacker().decompress(head, HEAD_BYTES)
    except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError):
        return b""


def _is_bare_implicit_dicom(head: bytes) -> bool:
    match = _BARE_IMPLICIT_DICOM.match(head)
    if match is None:
        return False
    after = 8 + match[1][0]
    return match[1][0] % 2 == 0 and head[after : after + 2] == b"\x08\x00" and head[after + 3 : after + 4] == b"\x00"


def _is_transport_stream(head: bytes) -> bool:
    """The sync byte 0x47 at the start of three packets of 188 bytes, or of 192 with a time code before each (Blu-ray, AVCHD)."""
    return any(
        len(head) > offset + 2 * size and all(head[offset + number * size] == 0x47 for number in range(3))
        for offset, size in ((0, 188), (4, 192))
    )


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return False
    # Latin-1 tables and notes are text too, so bytes above 127 need not be valid UTF-8; random bytes always hold control characters.
    return len(head) >= 16 or all(byte < 127 for byte in head)
