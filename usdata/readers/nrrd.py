"""NRRD: attached and detached headers, raw, gzip and bzip2 data; tracked sequences of PlusToolkit and 3D Slicer among them.

In: a file whose header is `field: value` and `key:=value` lines (the format's definition: teem.sourceforge.net/nrrd/format.html). Out: a
`Clip`, as for MetaImage and for the same reasons parsed and streamed here.
"""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path

import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import Clip, ClipInfo, reading
from usdata.readers.metaimage import MAX_HEADER_BYTES
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
_COLOUR_AXES = ("rgb-color", "3-color", "3-vector", "vector")


def open_nrrd(path: Path, *, colour: bool = False) -> Clip:
    """A clip of an NRRD file's pictures.

    Args:
        path: The `.nrrd` or `.nhdr` file.
        colour: True for RGB frames.

    Raises:
        ReadError: The header cannot be, it holds no pictures, or its data are missing.
    """
    with reading(path, "cannot be read as NRRD"):
        fields, pairs, local_start = _header(path)
        sizes = [int(size) for size in fields.get("sizes", "").split()]
        check_is_pictures(path, pairs, sizes)
        channels, sizes, axis = _channels(path, fields, sizes)
        if len(sizes) < 2:
            raise ReadError(path, f"its header gives {len(sizes)} sizes; pictures have 2 and more", _ADVICE)
        if len([size for size in sizes[2:] if size != 1]) > 1:
            raise ReadError(path, "holds volumes over time, not a clip of pictures", "save each plane as a clip of its own")
        width, height, frames = sizes[0], sizes[1], math.prod(sizes[2:])
        checked_shape(path, width, height, frames, channels)
        dtype = _dtype(path, fields)
        data = _data(path, fields, local_start, width * height * frames * channels * dtype.itemsize)
        pictures = partial(stored_pictures, data, width, height, frames, channels, dtype)
        facts = sequence_facts(pairs, frames)
        mm_x, mm_y = plausible_spacing(_spacings(fields, axis))
        info = ClipInfo(
            container="nrrd",
            codec=data.encoding,
            pixel_format=dtype.name + (f" x{channels}" if channels > 1 else ""),
            width=width,
            height=height,
            time_base=None,
            frames_declared=frames,
            declared_rate=None,
            backend="nrrd",
            rate_source="timestamps" if facts.time_base is not None else None,
            mm_per_pixel_x=mm_x,
            mm_per_pixel_y=mm_y,
        )
        stack = Stack(width, height, frames, channels, dtype, pictures, _declared_range(fields))
        return StackClip(path, stack, facts, info, colour=colour)


def data_files(path: Path) -> tuple[str, ...]:
    """The name of the file that holds the pixels; nothing where they follow the header.

    Raises:
        ReadError: It lies elsewhere, or the header cannot be read.
    """
    with reading(path, "cannot be read as NRRD"):
        fields, _, _ = _header(path)
        name = fields.get("data file", fields.get("datafile"))
        return () if name is None else (_data_file(path, name).name,)


def _header(path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    """The fields (names in lower case), the key/value pairs, and where the data start if they follow."""
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    with path.open("rb") as file:
        for raw in iter(partial(file.readline, MAX_HEADER_BYTES), b""):
            line = raw.decode("latin-1").strip("\r\n")
            if not line:
                return fields, pairs, file.tell()
            if file.tell() > MAX_HEADER_BYTES:
                raise ReadError(path, "its header does not end", _ADVICE)
            if line.startswith("#") or line.startswith("NRRD"):
                continue
            key, mark, value = line.partition(":=")
            if mark and ": " not in key:
                pairs[key.strip()] = value.strip()
                continue
            key, mark, value = line.partition(":")
            if mark:
                fields[key.strip().lower()] = value.strip()
        return fields, pairs, file.tell()


def _channels(path: Path, fields: dict[str, str], sizes: list[int]) -> tuple[int, list[int], int]:
    """Channels of a pixel, the sizes without their axis, and the first axis of space."""
    kinds = [kind.lower() for kind in fields.get("kinds", "").split()]
    if kinds and len(kinds) == len(sizes):
        if kinds[0] in _COLOUR_AXES or (kinds[0] == "list" and len(sizes) > 2 and sizes[0] in (1, 3)):
            return sizes[0], sizes[1:], 1
        if kinds[0] in ("list", "time", "rgba-color", "4-color", "4-vector"):
            reason = f"its fastest axis is of the kind '{kinds[0]}', so its frames do not lie one after another"
            raise ReadError(path, reason, "save it with that axis last")
    return 1, sizes, 0


def _dtype(path: Path, fields: dict[str, str]) -> np.dtype:
    name = fields.get("type", "").lower()
    if name not in _CODES:
        raise ReadError(path, f"its pixels are of the unknown type '{name[:40]}'", _ADVICE)
    return np.dtype((">" if fields.get("endian", "little").lower() == "big" else "<") + _CODES[name])


def _data(path: Path, fields: dict[str, str], local_start: int, size: int) -> RawData:
    written = fields.get("encoding", "").lower()
    if written not in _ENCODINGS:
        raise ReadError(path, f"its data are encoded as '{written[:40]}', which is not read", "save it as raw or gzip")
    encoding = _ENCODINGS[written]
    name = fields.get("data file", fields.get("datafile"))
    file = path if name is None else _data_file(path, name)
    if not file.is_file():
        raise ReadError(path, "the file that holds its pixels is missing ('data file')", "put it beside the header")
    start = local_start if name is None else 0
    lines, skip = int(fields.get("line skip", fields.get("lineskip", "0"))), int(fields.get("byte skip", fields.get("byteskip", "0")))
    if encoding != "raw" and (lines or skip):
        raise ReadError(path, "skips into compressed data, which is not read", "save it without 'line skip' and 'byte skip'")
    if skip < 0:
        return RawData(file, max(0, file.stat().st_size - size), encoding)
    if lines > 0:
        start = _after_lines(file, start, min(lines, 100_000))
    return RawData(file, start + skip, encoding)


def _after_lines(file: Path, start: int, lines: int) -> int:
    with file.open("rb") as opened:
        opened.seek(start)
        for _ in range(lines):
            opened.readline(MAX_HEADER_BYTES)
        return opened.tell()


def _data_file(path: Path, name: str) -> Path:
    if name.upper().startswith("LIST") or "%" in name:
        raise ReadError(path, "its pixels lie in a list of files, which is not read", "join them into one file")
    return companion(path, name)


def _spacings(fields: dict[str, str], axis: int) -> list[float]:
    """Spacing of x and y where its unit is known to be millimetres: NRRD's space directions are, by every known writer."""
    units = re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))
    if any(unit.lower() not in ("mm", "millimeter", "millimeters", "millimetre", "") for unit in units[:2]):
        return []
    vectors = re.findall(r"none|\([^)]*\)", fields.get("space directions", ""))
    if len(vectors) >= axis + 2:
        chosen = vectors[axis : axis + 2]
        if "none" in chosen:
            return []
        return [math.hypot(*(float(part) for part in vector.strip("()").split(","))) for vector in chosen]
    values = fields.get("spacings", "").split()
    return [float(value) for value in values[axis : axis + 2]] if units else []


def _declared_range(fields: dict[str, str]) -> tuple[float, float] | None:
    try:
        low, high = float(fields["min"]), float(fields["max"])
    except (KeyError, ValueError):
        return None
    return (low, high) if low < high else None
