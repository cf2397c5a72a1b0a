"""Small DICOM files for the tests, written by pydicom from frames that the test knows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

STANDARD = "1.2.840.10008.1.2"
IMPLICIT, EXPLICIT, BIG_ENDIAN, RLE = STANDARD, f"{STANDARD}.1", f"{STANDARD}.2", f"{STANDARD}.5"
HTJ2K = f"{STANDARD}.4.201"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.3.1"
PATIENT = "Hopkins^Secret"


def smooth(count: int, height: int, width: int, *, colour: bool = False, bits: int = 8, seed: int = 0) -> np.ndarray:
    """(count, height, width[, 3]) unsigned frames that span all values of their bits."""
    noise = np.random.default_rng(seed).normal(size=(count, height, width, 3 if colour else 1)).astype(np.float32)
    values = np.stack([cv2.GaussianBlur(frame, (0, 0), 2).reshape(frame.shape) for frame in noise])
    shares = (values - values.min()) / (values.max() - values.min())
    frames = np.rint(shares * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)
    return frames if colour else frames[..., 0]


def header(frames: np.ndarray, photometric: str, **attributes: Any) -> Dataset:
    """The header of (count, height, width[, 3]) frames; attributes replace what they name, and None removes it."""
    colour = frames.ndim == 4
    bits = 8 * frames.dtype.itemsize
    dataset = Dataset()
    dataset.SOPClassUID = UID(ULTRASOUND)
    dataset.SOPInstanceUID = "1.2.3"
    dataset.PatientName = PATIENT
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(frames.dtype.kind == "i")
    if colour:
        dataset.PlanarConfiguration = 0
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    if attributes.get("BitsStored"):
        dataset.HighBit = attributes["BitsStored"] - 1
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def write(path: Path, dataset: Dataset, pixels: bytes | None, syntax: str = EXPLICIT, *, vr: str | None = None) -> Path:
    """The dataset with these bytes as its pixel data."""
    native = syntax in (IMPLICIT, EXPLICIT, BIG_ENDIAN)
    meta = FileMetaDataset()
    # pydicom writes no syntax that it does not know; one of the same length stands in until the file is written.
    unknown = not UID(syntax).is_transfer_syntax
    meta.TransferSyntaxUID = UID(HTJ2K if unknown else syntax)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.file_meta = meta
    if pixels is not None:
        dataset.add_new(0x7FE00010, vr or ("OB" if not native or dataset.BitsAllocated == 8 else "OW"), pixels)
        dataset["PixelData"].is_undefined_length = not native
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of these files are wrong on purpose
        dataset.save_as(path, enforce_file_format=True, implicit_vr=syntax == IMPLICIT, little_endian=syntax != BIG_ENDIAN)
    if unknown:
        path.write_bytes(path.read_bytes().replace(HTJ2K.encode(), syntax.encode(), 1))
    return path


def native(path: Path, frames: np.ndarray, photometric: str = "MONOCHROME2", *, syntax: str = EXPLICIT, **attributes: Any) -> Path:
    """Uncompressed frames, in the order of bytes that the syntax asks for."""
    stored = frames.astype(frames.dtype.newbyteorder(">" if syntax == BIG_ENDIAN else "<"))
    pixels = stored.tobytes()
    return write(path, header(frames, photometric, **attributes), pixels + b"\0" * (len(pixels) % 2), syntax)


def packed(
    path: Path,
    streams: list[bytes],
    frames: np.ndarray,
    photometric: str,
    syntax: str,
    *,
    table: bool = True,
    split: int = 1,
    **attributes: Any,
) -> Path:
    """Encapsulated codestreams, in `split` fragments each."""
    return write(path, header(frames, photometric, **attributes), encapsulate(streams, fragments_per_frame=split, has_bot=table), syntax)


def rle(frame: np.ndarray) -> bytes:
    """One frame by PS3.5 G: literal runs of at most 128 bytes, or repeats of 2 and more."""
    planes = frame[..., None] if frame.ndim == 2 else frame
    segments = []
    for place in range(planes.shape[-1]):
        plane = planes[..., place]
        for byte in reversed(range(frame.dtype.itemsize)):
            segments.append(_packbits(((plane >> (8 * byte)) & 255).astype(np.uint8).tobytes()))
    starts = [64]
    for segment in segments[:-1]:
        starts.append(starts[-1] + len(segment))
    counts = [len(segments), *starts] + [0] * (15 - len(starts))
    return b"".join(number.to_bytes(4, "little") for number in counts) + b"".join(segments)


def _packbits(data: bytes) -> bytes:
    out, position = b"", 0
    while position < len(data):
        run = 1
        while run < 128 and data[position + run : position + run + 1] == data[position : position + 1]:
            run += 1
        if run > 1:
            out += bytes([257 - run, data[position]])
            position += run
        else:
            end = position + 1
            while end < len(data) and end - position < 128 and data[end - 1] != data[end]:
                end += 1
            out += bytes([end - position - 1]) + data[position:end]
            position = end
    return out + b"\0" * (len(out) % 2)


def region(left: int, top: int, right: int, bottom: int, **attributes: Any) -> Dataset:
    """A region of tissue with 0.02 cm a pixel, inclusive bounds."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = 1, 1
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX = item.PhysicalDeltaY = 0.02
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item
