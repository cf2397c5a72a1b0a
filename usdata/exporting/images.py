"""The stored image of a frame, as bytes to be passed on.

In: a data set folder and a path of its manifest. Out: the PNG file's bytes. Guarantees: the path stays in the folder, the file is a whole
PNG (every chunk's checksum holds), and it has the size that the manifest names; anything else is one line that names the file.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from usdata.errors import DataSetError
from usdata.manifest import FRAMES, is_inside

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK_FRAME_BYTES = 12  # length, type and checksum of a chunk
_BUILD_AGAIN = "build the set again with 'usdata build --overwrite'"


def stored_png(folder: Path, path: str, width: int, height: int) -> bytes:
    """The bytes of a frame's image.

    The checksums find what a full decoding would find in a file that was cut or changed after it was written, at a fraction of the time.

    Args:
        folder: The data set.
        path: Of the image, as the manifest has it.
        width: Pixels, as the manifest has them.
        height: Pixels, as the manifest has them.

    Raises:
        DataSetError: The path leaves the data set, or the image is missing, damaged, or of another size.
    """
    if not is_inside(path):
        raise DataSetError(
            folder / FRAMES, f"the image path '{path}' leaves the data set", "do not trust this set; build it from its clips"
        )
    place = folder / path
    try:
        content = place.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise DataSetError(place, "this image of the data set is missing", "build the set again with 'usdata build'") from None
    size = _png_size(content)
    if size is None:
        raise DataSetError(place, "this image of the data set is damaged (no whole PNG)", _BUILD_AGAIN)
    if size != (width, height):
        told = f"this image of the data set is {size[0]} x {size[1]} pixels, and its manifest says {width} x {height}"
        raise DataSetError(place, told, _BUILD_AGAIN)
    return content


def _png_size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG of which every chunk up to the last is there and has its checksum; None where one is not so."""
    if content[:16] != _SIGNATURE + b"\x00\x00\x00\x0dIHDR":
        return None
    view, at = memoryview(content), len(_SIGNATURE)
    while at + _CHUNK_FRAME_BYTES <= len(content):
        end = at + _CHUNK_FRAME_BYTES + int.from_bytes(view[at : at + 4], "big")
        if end > len(content) or zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return None
        if view[at + 4 : at + 8] == b"IEND":
            return int.from_bytes(view[16:20], "big"), int.from_bytes(view[20:24], "big")
        at = end
    return None
