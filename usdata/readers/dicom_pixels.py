"""From the samples of one DICOM frame to 8-bit gray and RGB pictures.

In: a frame's samples, or its bytes where it is not compressed (`dicom_codecs` has the rest), and the header's image attributes (PS3.3
C.7.6.3). Out: a `Picture`, gray now and RGB on demand. Guarantees: gray values are scaled by the header alone, never by a frame's own
extremes. pydicom parses the header and applies its tables (palette, modality, VOI).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi

from usdata.errors import ReadError
from usdata.readers.base import check_size, reading
from usdata.readers.dicom_facts import decimals, text_of, value_of, whole_number
from usdata.readers.video import luma_table

_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
# What decodes to RGB, and what to luma and two colour differences.
_RGB = ("RGB", "YBR_ICT", "YBR_RCT", "XYB")
YBR = ("YBR_FULL", "YBR_FULL_422")
_PARTIAL = ("YBR_PARTIAL_422", "YBR_PARTIAL_420")
_PHOTOMETRICS = (*_MONOCHROME, "PALETTE COLOR", *_RGB, *YBR, *_PARTIAL)
_ADVICE = "get the file again, or leave it out"


@dataclass(frozen=True)
class Layout:
    """How the header says that pixels are stored (PS3.3 C.7.6.3.1).

    Attributes:
        rows: Height.
        columns: Width.
        samples: 1 or 3 a pixel.
        bits_allocated: 8 or 16.
        bits_stored: At most as many.
        high_bit: The place of the highest stored bit.
        signed: Two's complement.
        planar: Colour planes one after another.
        photometric: One of the standard's words.
    """

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    planar: bool
    photometric: str

    @property
    def plain(self) -> bool:
        """Stored values are the gray levels or colours themselves."""
        return self.bits_stored == 8 and not self.signed

    @property
    def frame_bytes(self) -> int:
        """Bytes of a native frame; two pixels of 4:2:2 share their colour differences."""
        samples = 2 if self.photometric.endswith("_422") else self.samples
        return self.rows * self.columns * samples * (self.bits_allocated // 8)


class Picture(NamedTuple):
    """One decoded frame: (rows, columns) uint8, and (rows, columns, 3) uint8 for those who ask; None where the source is gray."""

    gray: Callable[[], np.ndarray]
    rgb: Callable[[], np.ndarray] | None = None


Render = Callable[[np.ndarray], Picture]
Decoder = Callable[[bytes], Picture]


def layout_of(path: Path, dataset: Dataset) -> Layout:
    """The image attributes, checked against each other.

    Raises:
        ReadError: They are missing, contradict each other, or are of a kind that is not read.
    """
    rows, columns = (whole_number(path, dataset, keyword) for keyword in ("Rows", "Columns"))
    if rows is None or columns is None:
        raise ReadError(path, "is DICOM that does not say how large its picture is", _ADVICE)
    check_size(path, columns, rows)
    samples = whole_number(path, dataset, "SamplesPerPixel") or 1
    photometric = _photometric(path, dataset, samples)
    allocated = whole_number(path, dataset, "BitsAllocated")
    if allocated not in (8, 16):
        what = "does not say how many bits its pixels have" if allocated is None else f"stores {allocated}-bit pixels"
        raise ReadError(path, f"{what}; 8 and 16 bits are read", "leave it out, or convert it first")
    stored = whole_number(path, dataset, "BitsStored") or allocated
    high = whole_number(path, dataset, "HighBit")
    high = stored - 1 if high is None else high
    signed = whole_number(path, dataset, "PixelRepresentation") == 1
    if not (stored <= high + 1 <= allocated):
        raise ReadError(path, f"its header says that bit {high} is the highest of {stored} stored in {allocated}", _ADVICE)
    if signed and photometric not in _MONOCHROME:
        raise ReadError(path, f"its {photometric} pixels are signed, which has no meaning", _ADVICE)
    planar = samples == 3 and whole_number(path, dataset, "PlanarConfiguration") == 1
    return Layout(rows, columns, samples, allocated, stored, high, signed, planar, photometric)


def _photometric(path: Path, dataset: Dataset, samples: int) -> str:
    word = text_of(path, dataset, "PhotometricInterpretation")
    if word is None and samples == 1:
        word = "MONOCHROME2"
    if word not in _PHOTOMETRICS:
        named = f"in {word}" if word and re.fullmatch(r"[A-Z0-9_]{2,16}", word) else "in a way that is none of the standard's"
        raise ReadError(path, f"its pixels are coloured {named}, which is not read", "convert it to RGB first")
    expected = 1 if word in (*_MONOCHROME, "PALETTE COLOR") else 3
    if samples != expected:
        raise ReadError(path, f"its header says {word} with {samples} samples a pixel instead of {expected}", _ADVICE)
    return word


def renderer(path: Path, dataset: Dataset, layout: Layout, codec: str) -> Render:
    """What makes a picture of a frame's samples, (rows, columns) or (rows, columns, 3).

    Raises:
        ReadError: The header's tables cannot be applied, or this photometric interpretation does not occur with this codec.
    """
    if layout.photometric in _MONOCHROME:
        return partial(_monochrome, layout=layout, table=_gray_table(path, dataset, layout))
    if layout.photometric == "PALETTE COLOR":
        colours = _palette(path, dataset, layout)
        return partial(_paletted, colours=colours, grays=cv2.cvtColor(colours[None], cv2.COLOR_RGB2GRAY)[0])
    if layout.photometric == "YBR_PARTIAL_420" or (layout.photometric == "YBR_PARTIAL_422" and codec != "native"):
        raise ReadError(path, f"its {codec} pixels are {layout.photometric}, which exists in video only", "convert it to RGB first")
    return partial(coloured_picture, layout=layout, is_ybr=layout.photometric in (*YBR, *_PARTIAL))


def _monochrome(samples: np.ndarray, *, layout: Layout, table: np.ndarray | None) -> Picture:
    if table is None:
        return Picture(partial(samples.astype, np.uint8, copy=False))
    return Picture(partial(np.take, table, _codes(samples, layout.bits_stored)))


def _paletted(samples: np.ndarray, *, colours: np.ndarray, grays: np.ndarray) -> Picture:
    codes = np.minimum(samples, len(grays) - 1)
    return Picture(partial(np.take, grays, codes), partial(np.take, colours, codes, axis=0))


def coloured_picture(samples: np.ndarray, *, layout: Layout, is_ybr: bool) -> Picture:
    """(rows, columns, 3) samples, RGB or luma and two colour differences, as a picture."""
    if not layout.plain:
        samples = np.take(_linear(np.arange(1 << layout.bits_stored)), _codes(samples, layout.bits_stored))
    if not is_ybr:
        return Picture(partial(cv2.cvtColor, samples, cv2.COLOR_RGB2GRAY), lambda: samples)
    partial_range = layout.photometric in _PARTIAL
    luma = samples[..., 0]
    # Y is the gray value by definition. The gray of the RGB picture differs by a level of rounding, and more only where the colour lies
    # outside RGB and was clipped.
    return Picture(
        partial(np.take, luma_table(8, False), luma) if partial_range else lambda: luma,
        partial(ybr_to_rgb, samples, partial_range=partial_range),
    )


def ybr_to_rgb(ybr: np.ndarray, *, partial_range: bool = False) -> np.ndarray:
    """(rows, columns, 3) uint8 Y, Cb, Cr to RGB by PS3.3 C.7.6.3.1.2, rounded to nearest.

    By tables, since vector code of libraries gives other last bits on other machines.
    """
    red, green, blue = _chroma_tables(partial_range)
    luma, cb, cr = ybr[..., 0], ybr[..., 1], ybr[..., 2]
    y = (luma_table(8, False)[luma] if partial_range else luma).astype(np.int16)
    rgb = np.empty_like(ybr)
    for place, chroma in enumerate((red[cr], green[cb, cr], blue[cb])):
        np.add(chroma, y, out=chroma)
        rgb[..., place] = np.clip(chroma, 0, 255, out=chroma)
    return rgb


@lru_cache(maxsize=2)
def _chroma_tables(partial_range: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the colour differences add to Y: red by Cr, green by (Cb, Cr), blue by Cb."""
    difference = (np.arange(256) - 128) * (255 / 224 if partial_range else 1.0)
    green = -(0.114 * 1.772 / 0.587) * difference[:, None] - (0.299 * 1.402 / 0.587) * difference[None, :]
    red, blue = 1.402 * difference, 1.772 * difference
    return _nearest(red), _nearest(green), _nearest(blue)


def _nearest(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 0.5).astype(np.int16)


def _codes(samples: np.ndarray, bits: int) -> np.ndarray:
    """The stored bits of each sample as an index, whatever its sign."""
    unsigned = samples.astype(np.uint16 if samples.dtype.itemsize > 1 else np.uint8, copy=False)
    return np.bitwise_and(unsigned, (1 << bits) - 1)


def _linear(values: np.ndarray) -> np.ndarray:
    """Values spread from their lowest to their highest over 0..255."""
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (255 / (high - low) if high > low else 0.0)).astype(np.uint8)


def _gray_table(path: Path, dataset: Dataset, layout: Layout) -> np.ndarray | None:
    """The gray level of each stored code; None where codes are gray levels.

    8-bit unsigned pixels are shown as stored: scanners write them for display, and a window over them says what a viewer last had set.
    """
    inverted = layout.photometric == "MONOCHROME1"
    if layout.plain:
        return np.arange(255, -1, -1, dtype=np.uint8) if inverted else None
    codes = np.arange(1 << layout.bits_stored)
    values = np.where(codes >= 1 << (layout.bits_stored - 1), codes - (1 << layout.bits_stored), codes) if layout.signed else codes
    with reading(path, "its tables of gray values cannot be applied"):
        values = apply_modality_lut(values, dataset)
        table = _windowed(path, dataset, values)
    return 255 - table if inverted else table


def _windowed(path: Path, dataset: Dataset, values: np.ndarray) -> np.ndarray:
    """Values through the VOI table or the first window (PS3.3 C.11.2.1), else over their whole range."""
    tables = value_of(path, dataset, "VOILUTSequence")
    if tables:
        bits = int(tables[0].LUTDescriptor[2])
        looked_up = apply_voi(np.rint(values).astype(np.int64), dataset).astype(np.float64)
        return np.rint(np.clip(looked_up / ((1 << bits) - 1), 0, 1) * 255).astype(np.uint8)
    centres, widths = (decimals(path, dataset, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    function = text_of(path, dataset, "VOILUTFunction") or "LINEAR"
    if not centres or not widths or centres[0] is None or widths[0] is None:
        return _linear(values)
    centre, width = float(centres[0]), float(widths[0])
    if width <= 0 or (function == "LINEAR" and width < 1):
        return _linear(values)
    if function == "SIGMOID":
        shares = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    elif function == "LINEAR_EXACT":
        shares = (values - centre) / width + 0.5
    else:
        # A width of 1 is a threshold, which the limits alone draw.
        shares = (values - (centre - 0.5)) / (width - 1) + 0.5 if width > 1 else (values > centre - 0.5).astype(np.float64)
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _palette(path: Path, dataset: Dataset, layout: Layout) -> np.ndarray:
    """(codes, 3) uint8: the colour of each stored value."""
    codes = np.arange(1 << layout.bits_stored, dtype=np.uint16)[None]
    with reading(path, "its palette cannot be applied"):
        colours = apply_color_lut(codes, _swapped_palette(dataset))[0, :, :3]
        bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    # Entries said to have 16 bits that all fit 8: written so by mistake, else the whole picture would be black.
    if colours.dtype.itemsize > 1 and bits > 8 and colours.max() > 255:
        colours = colours >> 8
    return np.ascontiguousarray(colours.astype(np.uint8))


def _swapped_palette(dataset: Dataset) -> Dataset:
    """The dataset with tables in this machine's order of bytes, which pydicom takes them to be in."""
    if dataset.original_encoding[1]:
        return dataset
    swapped = Dataset()
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTable"
        setattr(swapped, f"{keyword}Descriptor", dataset[f"{keyword}Descriptor"].value)
        setattr(swapped, f"{keyword}Data", np.frombuffer(dataset[f"{keyword}Data"].value, ">u2").astype("<u2").tobytes())
    return swapped


def native_picture(data: bytes, layout: Layout, render: Render, *, little_endian: bool) -> Picture:
    """A frame of uncompressed pixels."""
    if layout.photometric.endswith("_422"):
        return _shared_chroma(np.frombuffer(data, np.uint8).reshape(layout.rows, layout.columns // 2, 4), layout)
    samples = np.frombuffer(data, "u1" if layout.bits_allocated == 8 else "<u2" if little_endian else ">u2")
    samples = high_bits_dropped(samples, layout)
    if layout.samples == 1:
        return render(samples.reshape(layout.rows, layout.columns))
    if layout.planar:
        return render(np.ascontiguousarray(np.moveaxis(samples.reshape(3, layout.rows, layout.columns), 0, -1)))
    return render(samples.reshape(layout.rows, layout.columns, 3))


def _shared_chroma(pairs: np.ndarray, layout: Layout) -> Picture:
    """4:2:2 as PS3.3 C.7.6.3.1.2 stores it: Y Y Cb Cr of each two pixels in a row."""
    partial_range = layout.photometric in _PARTIAL
    luma = pairs[..., :2].reshape(layout.rows, layout.columns)

    def rgb() -> np.ndarray:
        ybr = np.empty((layout.rows, layout.columns // 2, 2, 3), np.uint8)
        ybr[..., 0] = pairs[..., :2]
        ybr[..., 1:] = pairs[..., None, 2:]
        return ybr_to_rgb(ybr.reshape(layout.rows, layout.columns, 3), partial_range=partial_range)

    return Picture(partial(np.take, luma_table(8, False), luma) if partial_range else lambda: luma, rgb)


def high_bits_dropped(samples: np.ndarray, layout: Layout) -> np.ndarray:
    """The stored bits alone: others may hold an overlay, and are no part of the value."""
    shift = layout.high_bit + 1 - layout.bits_stored
    if layout.bits_stored == layout.bits_allocated:
        return samples
    return (samples >> shift) & samples.dtype.type((1 << layout.bits_stored) - 1)
