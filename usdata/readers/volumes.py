"""NIfTI and HDF5 stacks of pictures, through nibabel and h5py (the extra `volumes`).

In: a `.nii`, `.nii.gz` or `.h5` file. Out: a `Clip`. nibabel understands the header; the pixels are streamed from where it says they lie,
in one pass, since slices of a compressed file would each be sought anew. h5py reads some frames at a time. Nothing outside the file
is opened: HDF5's external links are not followed, external storage and virtual data sets are refused.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import Clip, reading
from usdata.readers.raw_data import Finding, RawData, check_shape, stored_pictures
from usdata.readers.raw_frames import FrameFacts, Stack, StackClip
from usdata.readers.raw_headers import one_axis_of_frames, spacing, usable_range

_ADVICE = "get the file again, or leave it out"
_INSTALL = "pip install 'usdata-uscl[volumes]'"
# Units of NIfTI's field xyzt_units (nifti1.h): the low three bits are of space, the next three of time. Unknown space is millimetres.
_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_SECONDS = {8: Fraction(1), 16: Fraction(1, 1000), 24: Fraction(1, 1_000_000)}
# Smaller arrays in an HDF5 file are labels, matrices and tables, not pictures.
SMALLEST_SIDE = 16
_SHOWN = 5
_MAX_OBJECTS = 10_000
# What may be unpacked at once: h5py unpacks whole chunks.
_MAX_CHUNK_BYTES = 256 << 20
_FRAMES_AT_ONCE_BYTES = 32 << 20
_DEFLATE_RATIO = 1032
# What h5py raises of damaged data.
_HDF5_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError)


def open_nifti(path: Path, *, colour: bool = False) -> Clip:
    """A clip of a NIfTI file's pictures: x and y are its first two axes, the one other axis that is longer than 1 counts the frames.

    Args:
        path: The file, compressed or not.
        colour: True for RGB frames.

    Raises:
        ReadError: nibabel is not installed, the header cannot be, or it holds volumes over time.
    """
    with reading(path, "cannot be read as NIfTI"):
        encoding = _encoding(path)
        header = _nifti_header(path, encoding)
        width, height, *others = _nifti_sizes(path, header)
        frames = one_axis_of_frames(path, (width, height, *others))
        dtype, channels = _nifti_type(path, header)
        check_shape(path, width, height, frames, channels)
        first = max(int(header["vox_offset"]), int(header["sizeof_hdr"]) + 4)
        data = RawData(path, first) if encoding == "raw" else RawData(path, 0, encoding, first)
        slope, intercept = (1.0, 0.0) if channels == 3 else (1.0 if each is None else float(each) for each in header.get_slope_inter())
        if header.get_slope_inter()[0] is None:
            intercept = 0.0
        facts = _nifti_times(header, others, frames)
        mm_per_pixel, notes = _nifti_spacing(header)
        stack = Stack(
            width,
            height,
            frames,
            channels,
            dtype,
            partial(stored_pictures, data, width, height, frames, channels, dtype),
            usable_range(float(header["cal_min"]), float(header["cal_max"])),
            slope,
            intercept,
        )
        rate = None if facts.time_base is None else 1 / facts.time_base
        return StackClip(
            path,
            stack,
            facts,
            container="nifti",
            codec=encoding,
            times_from="pixdim",
            declared_rate=rate,
            notes=notes,
            mm_per_pixel=mm_per_pixel,
            colour=colour,
        )


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "gzip" if file.read(2) == b"\x1f\x8b" else "raw"


def _nifti_header(path: Path, encoding: str) -> Any:
    """The header alone, whatever the file is called: nibabel's own `load` would go by the name."""
    try:
        import nibabel
    except ImportError:
        raise ReadError(path, "is NIfTI, and nibabel, which reads it, is not installed", _INSTALL) from None
    with path.open("rb") as file:
        head = file.read(540 if encoding == "raw" else 1 << 16)
    if encoding != "raw":
        head = zlib.decompressobj(31).decompress(head, 540)
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise ReadError(path, "is the header of a NIfTI pair, and its pixels lie in an .img file", "save it as one .nii file")
    for kind, length in ((nibabel.Nifti1Header, 348), (nibabel.Nifti2Header, 540)):
        for order, sign in (("little", "<"), ("big", ">")):
            if head[:4] == length.to_bytes(4, order) and len(head) >= length:  # type: ignore[arg-type]
                # Unchecked: its checks print, and mend what they should refuse.
                return kind(head[:length], endianness=sign, check=False)
    raise ReadError(path, "its header is not one of NIfTI", _ADVICE)


def _nifti_sizes(path: Path, header: Any) -> list[int]:
    axes = int(header["dim"][0])
    if not 2 <= axes <= 7:
        raise ReadError(path, f"its header gives {axes} axes; a clip has 2 and more", _ADVICE)
    sizes = [int(size) for size in header["dim"][1 : axes + 1]]
    if any(size > 1 for size in sizes[4:]):
        raise ReadError(path, "holds several values a pixel, each as a volume of its own (its fifth axis)", "save it as RGB or as gray")
    return sizes


def _nifti_type(path: Path, header: Any) -> tuple[np.dtype[Any], int]:
    """The type of a value, and how many a pixel has."""
    dtype = header.get_data_dtype()
    if dtype.names == ("R", "G", "B"):
        return np.dtype("u1"), 3
    if dtype.kind not in "iuf":
        what = "RGB with transparency" if dtype.names else dtype.name
        raise ReadError(path, f"its pixels are {what}, which is not read", "convert them to gray or RGB first")
    return dtype, 1


def _nifti_spacing(header: Any) -> tuple[tuple[float | None, float | None], tuple[str, ...]]:
    factor = _MILLIMETRES.get(int(header["xyzt_units"]) & 7)
    if factor is None:
        return (None, None), ("the unit of its spacing is not known",)
    return spacing(_shortest(size) * factor for size in header["pixdim"][1:3])


def _nifti_times(header: Any, others: list[int], frames: int) -> FrameFacts:
    """The period of the fourth axis, where it counts the frames and its unit is one of time."""
    if frames == 1:
        return FrameFacts()
    if others[0] > 1:
        return FrameFacts(notes=("its frames lie along the third axis, for which NIfTI gives no time",))
    unit = _SECONDS.get(int(header["xyzt_units"]) & 56)
    period = _shortest(header["pixdim"][4])
    if unit is None or not 1e-6 <= period < 1e9:
        return FrameFacts(notes=("its header gives no time between frames, or not its unit",))
    return FrameFacts(Fraction(repr(period)) * unit, range(frames))


def _shortest(value: Any) -> float:
    """What was meant by a 32-bit number: 0.04 where the nearest such number is 0.0399999991."""
    return float(str(value))


# HDF5


class _Pictures(NamedTuple):
    """The data set of a file that holds its pictures."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: str
    frames_at_once: int


def open_hdf5(path: Path, *, colour: bool = False) -> Clip:
    """A clip of the one stack of pictures in an HDF5 file: (height, width) or (frames, height, width), with a last axis of 3 for RGB.

    Args:
        path: The file.
        colour: True for RGB frames.

    Raises:
        ReadError: h5py is not installed, or the file holds no such stack, or several.
    """
    try:
        import h5py
    except ImportError:
        raise ReadError(path, "is HDF5, and h5py, which reads it, is not installed", _INSTALL) from None
    with reading(path, "cannot be read as HDF5"):
        with h5py.File(path, "r") as file:
            found = _pictures_in(path, file)
        frames, height, width, channels = _split(found.shape)
        check_shape(path, width, height, frames, channels)
        pictures = partial(_hdf5_pictures, path, found, frames, height, width, channels)
        stack = Stack(width, height, frames, channels, found.dtype, pictures)
        notes = ("the file gives no time of its frames",) if frames > 1 else ()
        return StackClip(path, stack, FrameFacts(), container="hdf5", codec=found.codec, notes=notes, colour=colour)


def _pictures_in(path: Path, file: Any) -> _Pictures:
    """The one data set that looks like pictures."""
    import h5py

    found: list[_Pictures] = []
    seen = elsewhere = 0

    def look(name: str, item: Any) -> None:
        nonlocal seen, elsewhere
        seen += 1
        if seen > _MAX_OBJECTS:
            raise ReadError(path, f"holds more than {_MAX_OBJECTS} objects", "save the pictures in a file of their own")
        if not isinstance(item, h5py.Dataset):
            return
        # Asked first: the very shape of a virtual data set may have other files opened.
        if item.is_virtual or item.external:
            elsewhere += 1
        elif _looks_like_pictures(item):
            found.append(_Pictures(name, tuple(item.shape), item.dtype, _codec(item), 1))

    # `visititems` passes over soft and external links.
    file.visititems(look)
    if elsewhere and not found:
        raise ReadError(path, "keeps its pixels in other files, which are not opened", "copy them into one file first")
    if not found:
        raise ReadError(
            path, "holds no stack of pictures (frames, height, width) itself; links to other files are not followed", "leave it out"
        )
    if len(found) > 1:
        named = ", ".join(each.name for each in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise ReadError(path, f"holds {len(found)} stacks of pictures ({named}), and a clip is one", "save each in a file of its own")
    return found[0]._replace(frames_at_once=_frames_at_once(path, file[found[0].name]))


def _looks_like_pictures(item: Any) -> bool:
    shape = item.shape
    if shape is None or item.dtype.kind not in "iuf" or not 2 <= len(shape) <= 4 or (len(shape) == 4 and shape[-1] not in (1, 3)):
        return False
    frames, height, width, _ = _split(shape)
    return frames > 0 and min(height, width) >= SMALLEST_SIDE


def _split(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Frames, height, width and channels of an array's shape."""
    channels = shape[-1] if len(shape) == 4 or (len(shape) == 3 and shape[-1] == 3) else 1
    sizes = shape[:-1] if len(shape) == 4 or channels == 3 else shape
    return (*sizes, channels) if len(sizes) == 3 else (1, *sizes, channels)  # type: ignore[return-value]


def _codec(item: Any) -> str:
    if item.id.get_create_plist().get_nfilters() == 0:
        return "raw"
    return str(item.compression or "filtered")


def _frames_at_once(path: Path, item: Any) -> int:
    """How many frames one reading takes: those of a chunk, so that none is unpacked twice, as far as memory allows.

    Raises:
        ReadError: A chunk is too large to be unpacked, or the data set declares far more than the file holds.
    """
    frames, height, width, channels = _split(item.shape)
    if not item.id.get_storage_size():
        raise ReadError(path, "declares pictures and holds none: its data set was never written", _ADVICE)
    if item.size * item.dtype.itemsize > item.id.get_storage_size() * _DEFLATE_RATIO * 2:
        raise ReadError(path, f"declares {frames} frames and holds far less than they need", _ADVICE)
    count = item.chunks[0] if item.chunks is not None and item.shape[0] == frames else 1
    if item.chunks is not None and math.prod(item.chunks) * item.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise ReadError(
            path, f"its pixels are packed in chunks of more than {_MAX_CHUNK_BYTES >> 20} MB", "save it in smaller chunks (a frame each)"
        )
    return max(1, min(count, _FRAMES_AT_ONCE_BYTES // (height * width * channels * item.dtype.itemsize), frames))


def _hdf5_pictures(path: Path, found: _Pictures, frames: int, height: int, width: int, channels: int) -> Iterator[np.ndarray | Finding]:
    import h5py

    shape = (height, width) if channels == 1 else (height, width, channels)
    stacked = len(found.shape) == 4 or (len(found.shape) == 3 and channels == 1)
    with h5py.File(path, "r") as file:
        item = file[found.name]
        for start in range(0, frames, found.frames_at_once):
            several = range(start, min(start + found.frames_at_once, frames))
            block = _slice(item, several, stacked)
            for number in several:
                # Where a chunk is damaged, the frames that lie in others are still to be had.
                one = _slice(item, range(number, number + 1), stacked) if block is None and len(several) > 1 else block
                if one is None:
                    yield Finding(f"frame {number + 1} of {frames} cannot be read: its data are damaged or missing")
                else:
                    yield one[number - start if one is block else 0].reshape(shape).copy()


def _slice(item: Any, numbers: range, stacked: bool) -> np.ndarray | None:
    """Some frames, or None where they cannot be read."""
    try:
        if not stacked:
            return None if _bursts(item, slice(None)) else np.asarray(item[()])[None]
        chosen = slice(numbers.start, numbers.stop)
        return None if _bursts(item, chosen) else np.asarray(item[chosen])
    except _HDF5_ERRORS:
        # The library's words name the file's whole path, and are not repeated.
        return None


def _bursts(item: Any, chosen: slice) -> bool:
    """Whether a large chunk of these frames does not unpack to what it may hold: HDF5 itself would take memory for all of a bomb."""
    if item.compression != "gzip":
        return False
    limit = math.prod(item.chunks) * item.dtype.itemsize + 4096
    first = range(*chosen.indices(item.shape[0]))
    starts = [range(first.start // item.chunks[0] * item.chunks[0], first.stop, item.chunks[0])]
    starts += [range(0, size, chunk) for size, chunk in zip(item.shape[1:], item.chunks[1:], strict=True)]
    for place in product(*starts):
        packed = item.id.get_chunk_info_by_coord(place)
        if packed.byte_offset is None or packed.size * _DEFLATE_RATIO <= _MAX_CHUNK_BYTES:
            continue
        unpacker = zlib.decompressobj()
        try:
            unpacker.decompress(item.id.read_direct_chunk(place)[1], limit)
        except zlib.error:
            return True
        if not unpacker.eof:
            return True
    return False
