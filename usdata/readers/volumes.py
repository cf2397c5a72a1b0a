"""NIfTI and HDF5 stacks of pictures, through nibabel and h5py (the extra `volumes`).

In: a `.nii`, `.nii.gz` or `.h5` file. Out: a `Clip`. nibabel reads the header and says where the data lie; the pixels are streamed from
there, since its own slicing of a compressed file starts from the front for every frame. h5py reads one frame at a time. Nothing outside the
file is opened: HDF5's external links and external storage are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import Clip, ClipInfo, reading
from usdata.readers.raw_frames import (
    EndsEarlyError,
    FrameFacts,
    RawData,
    Stack,
    StackClip,
    checked_shape,
    plausible_spacing,
    stored_pictures,
)

_ADVICE = "get the file again, or leave it out"
_INSTALL = "pip install 'usdata-uscl[volumes]'"
SMALLEST_SIDE = 16
_SHOWN = 5
_TO_MM = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
_TO_SECONDS = {"sec": Fraction(1), "msec": Fraction(1, 1000), "usec": Fraction(1, 1_000_000)}


def open_nifti(path: Path, *, colour: bool = False) -> Clip:
    """A clip of a NIfTI file's pictures: x and y are its first two axes, the one other axis that is longer than 1 counts the frames.

    Args:
        path: The file, compressed or not.
        colour: True for RGB frames.

    Raises:
        ReadError: nibabel is not installed, the header cannot be, or it holds volumes over time.
    """
    try:
        import nibabel
    except ImportError:
        raise ReadError(path, "is NIfTI, and nibabel, which reads it, is not installed", _INSTALL) from None
    with reading(path, "cannot be read as NIfTI"):
        encoding = _encoding(path)
        header = _nifti_header(path, nibabel, encoding)
        shape = [int(size) for size in header.get_data_shape()]
        if len(shape) < 2:
            raise ReadError(path, f"its header gives {len(shape)} sizes; pictures have 2 and more", _ADVICE)
        if len([size for size in shape[2:] if size != 1]) > 1:
            raise ReadError(path, "holds volumes over time, not a clip of pictures", "save each plane as a clip of its own")
        dtype, channels = header.get_data_dtype(), 1
        if dtype.names == ("R", "G", "B"):
            dtype, channels = np.dtype("u1"), 3
        if dtype.kind not in "iuf":
            raise ReadError(path, f"its pixels are {dtype}, which are not read", "convert it first")
        width, height, frames = shape[0], shape[1], math.prod(shape[2:])
        checked_shape(path, width, height, frames, channels)
        data = RawData(path, int(header["vox_offset"]) if encoding == "raw" else 0, encoding)
        skip = int(header["vox_offset"]) if encoding != "raw" else 0
        slope, intercept = header.get_slope_inter()
        pictures = partial(_nifti_pictures, data, skip, width, height, frames, channels, dtype, slope, intercept)
        rescaled = slope not in (None, 1.0) or intercept not in (None, 0.0)
        stack = Stack(width, height, frames, channels, np.dtype("f8") if rescaled else dtype, pictures, _display_range(header))
        space, time = header.get_xyzt_units()
        zooms = [float(zoom) * _TO_MM.get(space, math.nan) for zoom in header.get_zooms()[:2]]
        mm_x, mm_y = plausible_spacing(zooms)
        facts = _nifti_times(header, shape, frames, time)
        info = ClipInfo(
            container="nifti",
            codec=encoding,
            pixel_format=dtype.name + (f" x{channels}" if channels > 1 else ""),
            width=width,
            height=height,
            time_base=None,
            frames_declared=frames,
            declared_rate=None if facts.time_base is None else 1 / facts.time_base,
            backend="nifti",
            rate_source=None if facts.time_base is None else "pixdim",
            mm_per_pixel_x=mm_x,
            mm_per_pixel_y=mm_y,
        )
        return StackClip(path, stack, facts, info, colour=colour)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "gzip" if file.read(2) == b"\x1f\x8b" else "raw"


def _nifti_header(path: Path, nibabel: Any, encoding: str) -> Any:
    """The header alone, whatever the file is called: nibabel would go by the name."""
    import gzip

    with gzip.open(path) if encoding == "gzip" else path.open("rb") as file:
        head = file.read(540)
    two = head[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise ReadError(path, "is one half of a NIfTI pair (.hdr and .img)", "save it as one .nii file")
    kind = nibabel.Nifti2Header if two else nibabel.Nifti1Header
    return kind(head[:540] if two else head[:348], check=False)


def _nifti_pictures(
    data: RawData,
    skip: int,
    width: int,
    height: int,
    frames: int,
    channels: int,
    dtype: np.dtype[Any],
    slope: float | None,
    intercept: float | None,
) -> Iterator[np.ndarray]:
    for picture in stored_pictures(data, width, height, frames, channels, dtype, skip=skip):
        if slope in (None, 1.0) and intercept in (None, 0.0):
            yield picture
        else:
            yield picture.astype(np.float64) * (1.0 if slope is None else slope) + (intercept or 0.0)


def _display_range(header: Any) -> tuple[float, float] | None:
    low, high = float(header["cal_min"]), float(header["cal_max"])
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def _nifti_times(header: Any, shape: list[int], frames: int, unit: str) -> FrameFacts:
    """The period of the fourth axis, where it counts the frames and its unit is one of time."""
    if frames == 1:
        return FrameFacts()
    period = float(header["pixdim"][4]) if len(shape) > 3 and shape[3] == frames else 0.0
    if unit not in _TO_SECONDS or not (math.isfinite(period) and 0 < period < 1e6):
        return FrameFacts(notes=("the header gives no time of its frames",))
    base = Fraction(repr(round(period, 6))) * _TO_SECONDS[unit]
    if base <= 0:
        return FrameFacts(notes=("the header gives no time of its frames",))
    return FrameFacts(base, tuple(range(frames)))


def open_hdf5(path: Path, *, colour: bool = False) -> Clip:
    """A clip of the one stack of pictures in an HDF5 file: (frames, height, width), with a last axis of 3 for RGB.

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
            name, shape, dtype = _stack_in(path, file, h5py)
        channels = 3 if len(shape) > 2 and shape[-1] == 3 else 1
        if len(shape) == 4 or channels == 3:
            shape = shape[:-1]
        frames, height, width = shape if len(shape) == 3 else (1, *shape)
        checked_shape(path, width, height, frames, channels)
        pictures = partial(_hdf5_pictures, path, name, channels, height, width)
        stack = Stack(width, height, frames, channels, dtype, pictures)
        info = ClipInfo(
            container="hdf5",
            codec="hdf5",
            pixel_format=dtype.name + (f" x{channels}" if channels > 1 else ""),
            width=width,
            height=height,
            time_base=None,
            frames_declared=frames,
            declared_rate=None,
            backend="hdf5",
            notes=("the file gives no time of its frames",) if frames > 1 else (),
        )
        return StackClip(path, stack, FrameFacts(), info, colour=colour)


def _stack_in(path: Path, file: Any, h5py: Any) -> tuple[str, tuple[int, ...], np.dtype[Any]]:
    """The one data set that looks like pictures."""
    found: list[tuple[str, tuple[int, ...], np.dtype[Any]]] = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and _looks_like_pictures(item):
            if item.external or item.is_virtual:
                raise ReadError(path, "keeps its pixels in other files, which are not opened", "copy them into one file first")
            found.append((name, tuple(item.shape), item.dtype))

    # Links to other files are not followed: `visititems` passes over soft and external ones.
    file.visititems(look)
    if not found:
        raise ReadError(path, "is HDF5 without a stack of pictures (frames, height, width)", "leave it out")
    if len(found) > 1:
        named = ", ".join(name for name, _, _ in found[:_SHOWN])
        raise ReadError(path, f"holds {len(found)} stacks of pictures ({named}), and a clip is one", "save each as a file of its own")
    return found[0]


def _looks_like_pictures(item: Any) -> bool:
    shape = item.shape
    if shape is None or item.dtype.kind not in "iuf" or not 2 <= len(shape) <= 4:
        return False
    if len(shape) == 4 and shape[-1] not in (1, 3):
        return False
    sides = shape[:-1][-2:] if len(shape) == 4 or (len(shape) == 3 and shape[-1] == 3) else shape[-2:]
    return min(sides) >= SMALLEST_SIDE


def _hdf5_pictures(path: Path, name: str, channels: int, height: int, width: int) -> Iterator[np.ndarray]:
    import h5py

    shape = (height, width) if channels == 1 else (height, width, channels)
    with h5py.File(path, "r") as file:
        item = file[name]
        single = item.size == math.prod(shape)
        for number in range(1 if single else item.shape[0]):
            try:
                picture = item[()] if single else item[number]
            except (OSError, RuntimeError, ValueError, KeyError):
                # The library's words name the file's whole path.
                raise EndsEarlyError(f"frame {number} cannot be read: its data are damaged or missing") from None
            yield np.asarray(picture).reshape(shape)
