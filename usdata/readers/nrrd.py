"""NRRD: attached and detached headers, raw, gzip and bzip2 data; tracked sequences of PlusToolkit and 3D Slicer among them.

In: a file whose header is `field: value` and `key:=value` lines (the format's definition: teem.sourceforge.net/nrrd/format.html). Out: a
`Clip`. Parsed and streamed here for the reasons given in metaimage.py: SimpleITK holds a compressed sequence whole and is large to install.
"""

from __future__ import annotations

import math
import re
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
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_CODES = {name: code for code, names in _TYPES.items() for name in names}
_ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
# Kinds of an axis that holds the values of one pixel. ITK writes "vector" for RGB.
_RGB_KINDS = frozenset({"rgb-color", "3-color", "3-vector", "vector"})
_VALUE_KINDS = _RGB_KINDS | {"rgba-color", "4-color", "4-vector", "hsv-color", "xyz-color", "2-vector", "complex", "covariant-vector"}
_MILLIMETRES = frozenset({"", "mm", "millimeter", "millimeters", "millimetre", "millimetres"})
# What is asked of a header here. A space in a name may be left out ("data file", "datafile").
_FIELDS = {
    "type", "dimension", "sizes", "endian", "encoding", "datafile", "lineskip", "byteskip", "kinds", "spacings", "spacedirections",
    "spaceunits", "units", "min", "max",
}  # fmt: skip


class _Header(NamedTuple):
    """The fields by their names in lower case and without spaces, key/value pairs that matter, and the byte after the header."""

    fields: dict[str, str]
    tracked: TrackedFields
    orientation: str
    image_type: str
    end: int


class _Axes(NamedTuple):
    """Values of a pixel, the sizes of the other axes, and how many axes come before them."""

    channels: int
    sizes: list[int]
    before: int


def open_nrrd(path: Path, *, colour: bool = False) -> Clip:
    """A clip of an NRRD file's pictures.

    Args:
        path: The `.nrrd` or `.nhdr` file.
        colour: True for RGB frames.

    Raises:
        ReadError: The header cannot be, it holds no pictures, or its data are missing.
    """
    with reading(path, "cannot be read as NRRD"):
        header = _header(path)
        fields = header.fields
        sizes = whole_numbers(path, "sizes", fields.get("sizes", ""))
        dimension = whole_numbers(path, "dimension", fields.get("dimension", ""))
        if dimension != [len(sizes)]:
            raise ReadError(path, f"its header gives {len(sizes)} sizes, and another number of them as 'dimension'", _ADVICE)
        check_is_pictures(path, header.tracked, header.image_type, sizes)
        channels, sizes, before = _axes(path, fields, sizes)
        width, height, frames = sizes[0], sizes[1], one_axis_of_frames(path, sizes)
        check_shape(path, width, height, frames, channels)
        dtype = _dtype(path, fields)
        data = _data(path, header, width * height * frames * channels * dtype.itemsize)
        pictures = partial(stored_pictures, data, width, height, frames, channels, dtype)
        facts = header.tracked.facts(frames, header.orientation)
        mm_per_pixel, notes = _spacing(fields, before)
        stack = Stack(width, height, frames, channels, dtype, pictures, declared_range(fields.get("min"), fields.get("max")))
        return StackClip(
            path,
            stack,
            facts,
            container="nrrd",
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
    with reading(path, "cannot be read as NRRD"):
        file = _data_file(path, _header(path).fields)
        return () if file is None else (file.name,)


def _header(path: Path) -> _Header:
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    tracked = TrackedFields()
    with path.open("rb") as file:
        if re.fullmatch(rb"NRRD000[1-5]\s*", file.readline(16)) is None:
            raise ReadError(path, "its first line is not that of NRRD, versions 1 to 5", _ADVICE)
        for line in header_lines(path, file):
            if not line:
                break
            name, colon, value = line.partition(":")
            if line.startswith("#") or not colon:
                continue
            if value.startswith("="):
                name, value = name.strip(), value[1:].strip()
                if not tracked.add(path, name, value) and name in ("UltrasoundImageOrientation", "UltrasoundImageType"):
                    pairs[name] = value
            elif (name := name.lower().replace(" ", "")) in _FIELDS:
                fields[name] = value.strip()
        return _Header(fields, tracked, pairs.get("UltrasoundImageOrientation", ""), pairs.get("UltrasoundImageType", ""), file.tell())


def _axes(path: Path, fields: dict[str, str], sizes: list[int]) -> _Axes:
    """Which axes are those of the picture."""
    kinds = fields.get("kinds", "").lower().split()
    if len(kinds) != len(sizes):
        kinds = ["???"] * len(sizes)
    axes = _Axes(1, sizes, 0)
    # Without a word on it, a fastest axis of 3 holds RGB: no picture is 3 pixels wide.
    if len(sizes) > 2 and (kinds[0] in _VALUE_KINDS or (kinds[0] not in ("domain", "space", "time", "list") and sizes[0] in (1, 3))):
        if sizes[0] == 3 and kinds[0] in ("hsv-color", "xyz-color"):
            raise ReadError(path, f"its pixels are {kinds[0]}, which is not read", "convert it to RGB first")
        axes = _Axes(sizes[0], sizes[1:], 1)
    if len(axes.sizes) < 2:
        raise ReadError(path, f"its header gives {len(sizes)} sizes; pictures have 2 and more", _ADVICE)
    rest = kinds[axes.before :]
    if any(kind in ("list", "time") and size > 1 for kind, size in zip(rest[:2], axes.sizes, strict=False)):
        raise ReadError(path, "its frames do not lie one after another: their axis is not the last", "save it with that axis last")
    if any(kind in _VALUE_KINDS for kind in rest):
        raise ReadError(path, "the values of a pixel do not lie together: their axis is not the first", "save it with that axis first")
    return axes


def _dtype(path: Path, fields: dict[str, str]) -> np.dtype[Any]:
    name = " ".join(fields.get("type", "").lower().split())
    if name not in _CODES:
        raise ReadError(path, f"its pixels are of a type that is not read ({plain_word(name)})", _ADVICE)
    dtype = np.dtype(_CODES[name])
    endian = fields.get("endian", "").lower()
    if dtype.itemsize > 1 and endian not in ("little", "big"):
        raise ReadError(path, "its header does not say in which order the bytes of a value are ('endian')", _ADVICE)
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _data(path: Path, header: _Header, size: int) -> RawData:
    """Where the pixels lie; `size` is their bytes, unpacked."""
    fields = header.fields
    written = fields.get("encoding", "").lower()
    if written not in _ENCODINGS:
        raise ReadError(path, f"its encoding is {plain_word(written)}, which is not read", "save it as raw or gzip")
    encoding = _ENCODINGS[written]
    file = _data_file(path, fields)
    if file is not None:
        check_companion(path, file)
    lines, skip = (_skip(path, fields, name) for name in ("line skip", "byte skip"))
    if skip == -1 and encoding == "raw":  # the pixels are what the file ends with
        return RawData(file or path, start_from_end(path, file or path, size, 0 if file else header.end))
    if lines < 0 or skip < 0:
        raise ReadError(path, "its header skips backwards, which it can in raw data alone, and by -1", _ADVICE)
    start = _after_lines(file or path, 0 if file else header.end, lines)
    # Lines are skipped in the file, bytes in the unpacked data: so does teem.
    return RawData(file or path, start, encoding, skip) if encoding != "raw" else RawData(file or path, start + skip)


def _skip(path: Path, fields: dict[str, str], name: str) -> int:
    numbers = whole_numbers(path, name, fields.get(name.replace(" ", ""), "0"))
    if len(numbers) != 1:
        raise ReadError(path, f"its header gives {len(numbers)} numbers for '{name}'", _ADVICE)
    return numbers[0]


def _after_lines(file: Path, start: int, lines: int) -> int:
    with file.open("rb") as opened:
        opened.seek(start)
        while lines > 0 and (part := opened.readline(1 << 16)):
            lines -= part.endswith(b"\n")
        return opened.tell()


def _data_file(path: Path, fields: dict[str, str]) -> Path | None:
    """The file that holds the pixels; None where they follow the header."""
    name = fields.get("datafile")
    if name is None:
        return None
    if name.upper().split()[:1] == ["LIST"] or "%" in name:
        raise ReadError(path, "its pixels lie in a list of files, which is not read", "join them into one file")
    return companion(path, name)


def _spacing(fields: dict[str, str], before: int) -> tuple[tuple[float | None, float | None], tuple[str, ...]]:
    """Spacing of x and y where its unit is millimetres or not given; every known writer then means millimetres."""
    vectors = re.findall(r"none|\([^()]*\)", fields.get("spacedirections", ""))[before : before + 2]
    # Units of space are one an axis of space, the others one an axis of the array.
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))[:2] if vectors else []
    units = units or re.findall(r'"([^"]*)"', fields.get("units", ""))[before : before + 2]
    if any(unit.strip().lower() not in _MILLIMETRES for unit in units):
        return (None, None), ("its spacing is not in millimetres and was not used",)
    if vectors:
        if "none" in vectors:
            return (None, None), ()
        return spacing(math.hypot(*decimals(vector.strip("()").replace(",", " "))) for vector in vectors)
    return spacing(decimals(fields.get("spacings", ""))[before : before + 2])
