"""What a file is, by its content; its name is never asked.

In: a path. Out: one word for the kind. Guarantees: reads at most the first 4 KiB; every path that exists gets a word, "unknown" at worst.
"""

from __future__ import annotations

import re
from pathlib import Path

HEAD_BYTES = 4096

VIDEO_KINDS = frozenset({"mp4", "avi", "matroska", "gif", "mpegps", "mpegts", "mpegvideo", "asf", "flv", "ogg"})
STILL_KINDS = frozenset({"png", "jpeg", "tiff", "bmp", "webp"})
# Real formats of medical images and archives: named for what they are, so that a user is not told that such a file is broken.
KNOWN_BUT_UNREAD = {
    "dicom": "DICOM",
    "metaimage": "MetaImage (mha, mhd)",
    "nrrd": "NRRD",
    "heif": "HEIF/AVIF",
    "hdf5": "HDF5",
}
ARCHIVE_KINDS = {"zip": "a ZIP archive", "gzip": "a gzip archive", "tar": "a tar archive"}

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
    (0, b"\x1f\x8b", "gzip"),
    (257, b"ustar", "tar"),
    (0, b"%PDF-", "pdf"),
)
# First atoms of ISO base media and QuickTime files; old QuickTime files have no "ftyp".
_MOVIE_ATOMS = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_IMAGE_BRANDS = frozenset({b"heic", b"heix", b"heif", b"mif1", b"msf1", b"avif", b"avis"})
# The first tag of a MetaImage header; a file of another kind does not begin with one of these keys and "=".
_METAIMAGE = re.compile(rb"\A\s*(ObjectType|NDims)\s*=\s*\w", re.IGNORECASE)
# DICOM without its 128-byte preamble begins with an element of group 0002 or 0008; the explicit form names its value representation.
_BARE_DICOM = re.compile(rb"\A[\x02\x08]\x00[\x00-\x20]\x00[A-Z]{2}")


def identify(path: Path) -> str:
    """The kind of a file by its content.

    Returns:
        "mp4" (mov too), "avi", "matroska" (webm too), "gif", "mpegps", "mpegts", "mpegvideo", "asf" (wmv), "flv", "ogg", "png", "jpeg",
        "tiff", "bmp", "webp", "dicom", "metaimage", "nrrd", "heif", "hdf5", "text", "zip", "gzip", "tar", "pdf", "empty", "folder" or
        "unknown".

    Raises:
        OSError: The path does not exist or may not be read.
    """
    if path.is_dir():
        return "folder"
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return identify_bytes(head)


def identify_bytes(head: bytes) -> str:
    """The kind of a file by its first bytes (4 KiB are enough)."""
    if not head:
        return "empty"
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
    if _BARE_DICOM.match(head):
        return "dicom"
    return "text" if _is_text(head) else "unknown"


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
