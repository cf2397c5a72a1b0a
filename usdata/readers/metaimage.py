"""MetaImage: `.mha`, `.mhd` with its data beside it, and the tracked sequences of PlusToolkit (`.igs.mha`).

In: a file whose header is `key = value` lines. Out: a `Clip` with the sequence's own time stamps, frames marked as not valid, turned to
orientation MF. The header is parsed here and the pixels are streamed: SimpleITK, the format's own library, holds a compressed sequence
whole (1.2 GB for 500 colour frames) and adds 260 MB to an installation; the tests hold this reader to it.
"""

from __future__ import annotations

from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import Clip, ClipInfo, reading
from usdata.readers.raw_frames import (
    RawData,
    Stack,
    StackClip,
    check_is_pictures,
    checked_shape,
    companion,
    plausible_spacing,
    sequence_facts,
    stored_pictures,
)

MAX_HEADER_BYTES = 16 << 20
_ADVICE = "get the file again, or leave it out"
# MetaIO's value types; its LONG has four bytes.
_TYPES = {
    "MET_CHAR": "i1", "MET_ASCII_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


def open_metaimage(path: Path, *, colour: bool = False) -> Clip:
    """A clip of a MetaImage's pictures.

    Args:
        path: The `.mha` or `.mhd` file.
        colour: True for RGB frames.

    Raises:
        ReadError: The header cannot be, it holds no pictures, or its data are missing.
    """
    with reading(path, "cannot be read as MetaImage"):
        fields, local_start = _header(path)
        sizes = [int(size) for size in fields.get("DimSize", "").split()]
        if len(sizes) < 2 or len(sizes) > 5:
            raise ReadError(path, f"its header gives {len(sizes)} sizes (DimSize); pictures have 2 and more", _ADVICE)
        check_is_pictures(path, fields, sizes)
        if len([size for size in sizes[2:] if size != 1]) > 1:
            raise ReadError(path, "holds volumes over time, not a clip of pictures", "save each plane as a clip of its own")
        channels = int(fields.get("ElementNumberOfChannels", "1"))
        width, height, frames = sizes[0], sizes[1], prod(sizes[2:])
        checked_shape(path, width, height, frames, channels)
        dtype = _dtype(path, fields)
        if not _true(fields.get("BinaryData", "True")):
            raise ReadError(path, "its pixels are written as text (BinaryData = False), which is not read", "convert it to binary first")
        data = _data(path, fields, local_start, width * height * frames * channels * dtype.itemsize)
        pictures = partial(stored_pictures, data, width, height, frames, channels, dtype)
        stack = Stack(width, height, frames, channels, dtype, pictures, _declared_range(fields))
        facts = sequence_facts(fields, frames)
        spacing = [float(value) for value in (fields.get("ElementSpacing") or fields.get("ElementSize") or "").split()]
        mm_x, mm_y = plausible_spacing(spacing)
        info = ClipInfo(
            container="metaimage",
            codec=data.encoding,
            pixel_format=dtype.name + (f" x{channels}" if channels > 1 else ""),
            width=width,
            height=height,
            time_base=None,
            frames_declared=frames,
            declared_rate=None,
            backend="metaimage",
            rate_source="timestamps" if facts.time_base is not None else None,
            mm_per_pixel_x=mm_x,
            mm_per_pixel_y=mm_y,
        )
        return StackClip(path, stack, facts, info, colour=colour)


def data_files(path: Path) -> tuple[str, ...]:
    """The name of the file that holds the pixels; nothing where they follow the header.

    Raises:
        ReadError: It lies elsewhere, or the header cannot be read.
    """
    with reading(path, "cannot be read as MetaImage"):
        name = _header(path)[0]["ElementDataFile"]
        if name.upper() == "LOCAL":
            return ()
        _refuse_several(path, name)
        return (companion(path, name).name,)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The fields, and where the data start if they follow."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for line in iter(partial(file.readline, MAX_HEADER_BYTES), b""):
            key, equals, value = line.decode("latin-1").partition("=")
            if not equals or file.tell() > MAX_HEADER_BYTES:
                break
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                return fields, file.tell()
    raise ReadError(path, "its header does not say where the pixels are (ElementDataFile)", _ADVICE)


def _dtype(path: Path, fields: dict[str, str]) -> np.dtype:
    name = fields.get("ElementType", "").split("_ARRAY")[0]
    if name not in _TYPES:
        raise ReadError(path, f"its pixels are of the unknown type '{name[:40]}' (ElementType)", _ADVICE)
    big = _true(fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")))
    return np.dtype((">" if big else "<") + _TYPES[name])


def _data(path: Path, fields: dict[str, str], local_start: int, size: int) -> RawData:
    encoding = "zlib" if _true(fields.get("CompressedData", "False")) else "raw"
    name = fields["ElementDataFile"]
    if name.upper() == "LOCAL":
        return RawData(path, local_start, encoding)
    _refuse_several(path, name)
    file = companion(path, name)
    if not file.is_file():
        raise ReadError(path, "the file that holds its pixels is missing (ElementDataFile)", "put it beside the header")
    skip = int(fields.get("HeaderSize", "0"))
    if skip < 0:  # the pixels are what the file ends with
        skip = max(0, file.stat().st_size - size)
    return RawData(file, skip, encoding)


def _refuse_several(path: Path, name: str) -> None:
    if name.upper().startswith("LIST") or "%" in name:
        raise ReadError(path, "its pixels lie in a list of files, which is not read", "join them into one file, or read the list's images")


def _declared_range(fields: dict[str, str]) -> tuple[float, float] | None:
    try:
        low, high = float(fields["ElementMin"]), float(fields["ElementMax"])
    except (KeyError, ValueError):
        return None
    return (low, high) if low < high else None


def _true(text: str) -> bool:
    return text.strip().lower() in ("true", "t", "1", "yes", "y")
