"""MetaImage: `.mha`, `.mhd` with its data beside it, and the tracked sequences of PlusToolkit (`.igs.mha`).

In: a file whose header is `key = value` lines. Out: a `Clip` with the sequence's own time stamps, frames marked as not valid, turned to
orientation MF. The header is parsed here and the pixels are streamed: SimpleITK, which knows the format best, holds a compressed sequence
whole (1.2 GB for 500 colour frames) and adds 260 MB to an installation; the tests hold this reader to it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import Clip, reading
from usdata.readers.raw_data import RawData, check_companion, check_shape, companion, start_from_end, stored_pictures
from usdata.readers.raw_frames import Stack, StackClip
from usdata.readers.raw_headers import decimals, declared_range, header_lines, one_axis_of_frames, plain_word, spacing, whole_numbers
from usdata.readers.tracked import TrackedFields, check_is_pictures

_ADVICE = "get the file again, or leave it out"
# MetaIO's value types; its LONG has four bytes.
_TYPES = {
    "MET_CHAR": "i1", "MET_ASCII_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
# What is asked of a header here; everything else in it is passed over.
_FIELDS = {
    "objecttype", "ndims", "dimsize", "elementtype", "elementnumberofchannels", "elementspacing", "elementsize", "elementmin", "elementmax",
    "binarydata", "binarydatabyteordermsb", "elementbyteordermsb", "compresseddata", "compresseddatasize", "headersize", "kinds",
    "ultrasoundimageorientation", "ultrasoundimagetype", "elementdatafile",
}  # fmt: skip


class _Header(NamedTuple):
    """The fields by their names in lower case, those of single frames, and the byte after the header."""

    fields: dict[str, str]
    tracked: TrackedFields
    end: int


def open_metaimage(path: Path, *, colour: bool = False) -> Clip:
    """A clip of a MetaImage's pictures.

    Args:
        path: The `.mha` or `.mhd` file.
        colour: True for RGB frames.

    Raises:
        ReadError: The header cannot be, it holds no pictures, or its data are missing.
    """
    with reading(path, "cannot be read as MetaImage"):
        header = _header(path)
        fields = header.fields
        sizes = _sizes(path, fields)
        check_is_pictures(path, header.tracked, fields.get("ultrasoundimagetype", ""), sizes)
        _check_kinds(path, fields)
        width, height, frames = sizes[0], sizes[1], one_axis_of_frames(path, sizes)
        channels = _number(path, fields, "ElementNumberOfChannels", 1)
        check_shape(path, width, height, frames, channels)
        dtype = _dtype(path, fields)
        data = _data(path, header, width * height * frames * channels * dtype.itemsize)
        pictures = partial(stored_pictures, data, width, height, frames, channels, dtype)
        scale = declared_range(fields.get("elementmin"), fields.get("elementmax"))
        facts = header.tracked.facts(frames, fields.get("ultrasoundimageorientation", ""))
        mm_per_pixel, notes = spacing(decimals(fields.get("elementspacing") or fields.get("elementsize") or ""))
        stack = Stack(width, height, frames, channels, dtype, pictures, scale)
        return StackClip(
            path,
            stack,
            facts,
            container="metaimage",
            codec=data.encoding,
            times_from="timestamps",
            notes=notes,
            mm_per_pixel=mm_per_pixel,
            colour=colour,
        )


def data_files(path: Path) -> tuple[str, ...]:
    """The name of the file that holds the pixels; nothing where they follow the header.

    Raises:
        ReadError: It lies elsewhere, or the header cannot be read.
    """
    with reading(path, "cannot be read as MetaImage"):
        file = _data_file(path, _header(path).fields)
        return () if file is None else (file.name,)


def _header(path: Path) -> _Header:
    fields: dict[str, str] = {}
    tracked = TrackedFields()
    with path.open("rb") as file:
        for line in header_lines(path, file):
            name, equals, value = line.partition("=")
            name, value = name.strip(), value.strip()
            if not equals or tracked.add(path, name, value):
                continue
            if name.lower() in _FIELDS:
                fields[name.lower()] = value
            if name.lower() == "elementdatafile":
                return _Header(fields, tracked, file.tell())
    raise ReadError(path, "its header does not say where the pixels are (ElementDataFile): it is cut short or damaged", _ADVICE)


def _sizes(path: Path, fields: dict[str, str]) -> list[int]:
    if fields.get("objecttype", "Image").lower() != "image":
        raise ReadError(path, f"holds a MetaIO object of the kind {plain_word(fields['objecttype'])}, not an image", "leave it out")
    sizes = whole_numbers(path, "DimSize", fields.get("dimsize", ""))
    axes = _number(path, fields, "NDims", len(sizes))
    if not 2 <= axes <= 5 or axes != len(sizes):
        raise ReadError(path, f"its header gives {len(sizes)} sizes for {axes} axes (DimSize, NDims); a clip has 2 to 5", _ADVICE)
    return sizes


def _check_kinds(path: Path, fields: dict[str, str]) -> None:
    kinds = fields.get("kinds", "").lower().split()
    if any(kind in ("list", "time") for kind in kinds[:2]):
        raise ReadError(path, "its frames do not lie one after another: their axis is not the last", "save it with that axis last")


def _number(path: Path, fields: dict[str, str], name: str, default: int) -> int:
    if not fields.get(name.lower()):
        return default
    numbers = whole_numbers(path, name, fields[name.lower()])
    if len(numbers) != 1:
        raise ReadError(path, f"its header gives {len(numbers)} numbers for '{name}'", _ADVICE)
    return numbers[0]


def _dtype(path: Path, fields: dict[str, str]) -> np.dtype[Any]:
    name = fields.get("elementtype", "").upper()
    code = _TYPES.get(name.removesuffix("_ARRAY"))
    if code is None:
        raise ReadError(path, f"its pixels are of a type that is not read (ElementType is {plain_word(name)})", _ADVICE)
    big = _true(fields.get("binarydatabyteordermsb") or fields.get("elementbyteordermsb") or "False")
    return np.dtype((">" if big else "<") + code)


def _data(path: Path, header: _Header, size: int) -> RawData:
    """Where the pixels lie; `size` is their bytes, unpacked."""
    fields = header.fields
    if not _true(fields.get("binarydata") or "True"):
        raise ReadError(path, "its pixels are written as text (BinaryData = False), which is not read", "convert it to binary data first")
    packed = _true(fields.get("compresseddata") or "False")
    file = _data_file(path, fields)
    if file is None and header.end == path.stat().st_size:
        what = "a tracked sequence of transforms alone" if header.tracked.numbers else "a header alone"
        raise ReadError(path, f"is {what}: no pixels follow it", "leave it out, or get the file again")
    if file is not None:
        check_companion(path, file)
    start = _number(path, fields, "HeaderSize", 0)
    if start == 0 and file is None:
        start = header.end
    if start < 0:  # the pixels are what the file ends with
        if packed:
            size = _number(path, fields, "CompressedDataSize", 0)
            if size <= 0:
                raise ReadError(path, "its packed pixels are said to be what the file ends with, and their size is not given", _ADVICE)
        start = start_from_end(path, file or path, size, 0 if file else header.end)
    return RawData(file or path, start, "zlib" if packed else "raw")


def _data_file(path: Path, fields: dict[str, str]) -> Path | None:
    """The file that holds the pixels; None where they follow the header."""
    name = fields["elementdatafile"]
    if name.upper() == "LOCAL":
        return None
    if name.upper().split()[:1] == ["LIST"] or "%" in name:
        raise ReadError(
            path, "its pixels lie in a list of files, which is not read", "join them into one file, or read that folder's images"
        )
    return companion(path, name)


def _true(text: str) -> bool:
    return text.lower() in ("true", "t", "1", "yes", "y")
