"""What a DICOM header tells of a clip beside its pixels: times, regions, spacing, device.

In: a pydicom dataset. Out: exact times, `Region`s in our words, spacing in mm, and a sentence for each claim that was not believed.
Guarantees: no text of the header leaves but manufacturer and model; a value that is missing, malformed or absurd is None with a reason.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from usdata.errors import ReadError
from usdata.readers.base import Region, reading

# From 100,000 frames a second (the fastest plane-wave systems stay below 20,000) to one a minute; beyond is no cine.
SHORTEST_FRAME_S = Fraction(1, 100_000)
LONGEST_FRAME_S = Fraction(60)
_CENTIMETRES = 3
_FRAME_TIME_VECTOR = 0x00181065
# A decimal string of 16 characters has at most 15 places; a file that breaks that rule is rounded to as many, so that ticks fit 64 bits.
_MOST_PLACES = 15
_DECIMAL = re.compile(r"[+-]?(?=\.?\d)\d{0,15}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,2})?")
# PS3.3 C.8.5.5.1.1 and C.8.5.5.1.2.
_REGION_KINDS = {0: "none", 1: "2d", 2: "m_mode", 3: "spectral", 4: "waveform", 5: "graphics"}
_REGION_DATA = {
    0: "none",
    1: "tissue",
    2: "colour_flow",
    3: "pw_doppler",
    4: "cw_doppler",
    5: "doppler_mean_trace",
    6: "doppler_mode_trace",
    7: "doppler_max_trace",
    8: "volume_trace",
    9: "volume_change_trace",
    10: "ecg",
    11: "pulse",
    12: "phonocardiogram",
    13: "gray_bar",
    14: "colour_bar",
    15: "integrated_backscatter",
    16: "area_trace",
    17: "area_change_trace",
}
_BOUNDS = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


class Timing(NamedTuple):
    """When the frames of a clip are shown.

    Attributes:
        time_base: Seconds a tick; None where there is no time.
        ticks: The tick of each frame; None where it is the frame's number.
        rate: Frames a second, the mean rate where frames are not evenly spaced.
        source: Name of the attribute.
        notes: What was not believed.
    """

    time_base: Fraction | None = None
    ticks: tuple[int, ...] | None = None
    rate: Fraction | None = None
    source: str | None = None
    notes: tuple[str, ...] = ()

    def pts(self, number: int) -> int | None:
        """The tick of the frame with this number in the file."""
        if self.time_base is None:
            return None
        if self.ticks is None:
            return number
        return self.ticks[number] if number < len(self.ticks) else None


class Places(NamedTuple):
    """The regions of a picture and the spacing of its tissue, with what was not believed."""

    regions: tuple[Region, ...]
    mm_per_pixel_x: float | None
    mm_per_pixel_y: float | None
    notes: tuple[str, ...]


def value_of(path: Path, dataset: Dataset, keyword: str) -> Any:
    """An attribute's value, None where it is missing or cannot be understood."""
    try:
        with reading(path, f"{keyword} cannot be understood"):
            return dataset.get(keyword)
    except ReadError:
        return None


def whole_number(path: Path, dataset: Dataset, keyword: str) -> int | None:
    """A binary integer, None where it is missing or several."""
    value = value_of(path, dataset, keyword)
    return int(value) if isinstance(value, int) else None


def decimals(path: Path, dataset: Dataset, keyword: str) -> list[Fraction | None]:
    """The numbers of a decimal or integer string, exact; None for each that is no number; empty where the attribute is missing.

    They are read from the bytes: pydicom's own values are floats, and it raises at the first that is malformed.
    """
    try:
        with reading(path, f"{keyword} cannot be understood"):
            element = dataset.get_item(keyword)
    except ReadError:
        return [None]
    if not isinstance(element, RawDataElement):
        return []
    text = (element.value or b"").decode("latin-1").strip(" \0")
    return [_exact(part) for part in text.split("\\")] if text else []


def text_of(path: Path, dataset: Dataset, keyword: str) -> str | None:
    """A short text on one line, None where it is missing or empty."""
    value = value_of(path, dataset, keyword)
    words = " ".join(str(value or "").replace("\0", " ").split())
    return words[:64] or None


def frame_times(path: Path, dataset: Dataset, frames: int) -> Timing:
    """The frames' times as the header gives them (PS3.3 C.7.6.5).

    Args:
        path: The file, for errors.
        dataset: Its header.
        frames: How many frames it declares.

    Returns:
        The first of these that can be true: FrameTimeVector where FrameIncrementPointer names it, FrameTime, CineRate,
        RecommendedDisplayFrameRate. A single frame has no time.
    """
    if frames <= 1:
        return Timing()
    notes: list[str] = []
    if _points_to_vector(path, dataset):
        increments = decimals(path, dataset, "FrameTimeVector")
        reason = _why_no_vector(increments, frames)
        if reason is None:
            return _vector_timing([each for each in increments if each is not None])
        notes.append(f"FrameTimeVector {reason}: not used")
    for keyword in ("FrameTime", "CineRate", "RecommendedDisplayFrameRate"):
        numbers = decimals(path, dataset, keyword)
        if not numbers:
            continue
        number = numbers[0]
        if number is None or len(numbers) > 1:
            notes.append(f"{keyword} is not a number: not used")
        elif not _plausible(number, keyword == "FrameTime"):
            notes.append(f"{keyword} is {float(number):g}, which no clip has: not used")
        else:
            base = number / 1000 if keyword == "FrameTime" else 1 / number
            return Timing(base, None, 1 / base, keyword, tuple(notes))
    notes.append("the header gives no time of its frames")
    return Timing(notes=tuple(notes))


def places(path: Path, dataset: Dataset, width: int, height: int) -> Places:
    """The regions that lie within the picture (PS3.3 C.8.5.5), and the spacing on which its regions of tissue agree.

    Where the file describes no region, PixelSpacing gives the spacing; where it describes some and none serves, there is none.
    """
    described = value_of(path, dataset, "SequenceOfUltrasoundRegions")
    if not described:
        y, x = _pixel_spacing(path, dataset)
        return Places((), x, y, ())
    regions: list[Region] = []
    notes: list[str] = []
    for number, item in enumerate(described):
        found = _region(path, item, width, height)
        if isinstance(found, str):
            notes.append(f"region {number} {found}: ignored")
        else:
            regions.append(found)
    tissue = [region for region in regions if (region.kind, region.data) == ("2d", "tissue")]
    x, y = (_agreed([getattr(region, name) for region in tissue]) for name in ("mm_per_pixel_x", "mm_per_pixel_y"))
    return Places(tuple(regions), x, y, tuple(notes))


def _exact(text: str) -> Fraction | None:
    text = text.strip(" \0")
    # Fraction itself would expand 1e999999999.
    if not _DECIMAL.fullmatch(text):
        return None
    return round(Fraction(text), _MOST_PLACES)


def _plausible(number: Fraction, is_milliseconds: bool) -> bool:
    if number <= 0:
        return False
    return SHORTEST_FRAME_S <= (number / 1000 if is_milliseconds else 1 / number) <= LONGEST_FRAME_S


def _points_to_vector(path: Path, dataset: Dataset) -> bool:
    pointer = value_of(path, dataset, "FrameIncrementPointer")
    tags = [pointer] if isinstance(pointer, int) else list(pointer or [])
    return _FRAME_TIME_VECTOR in tags


def _why_no_vector(increments: list[Fraction | None], frames: int) -> str | None:
    if len(increments) != frames:
        return f"holds {len(increments)} values for {frames} frames"
    # The first is no increment: it belongs to the first frame, which is at 0.
    if any(each is None or not _plausible(each, True) for each in increments[1:]):
        return "holds values that no clip has"
    return None


def _vector_timing(increments: list[Fraction]) -> Timing:
    tick_ms = Fraction(1, math.lcm(*(each.denominator for each in increments[1:])))
    ticks = [0]
    for each in increments[1:]:
        ticks.append(ticks[-1] + int(each / tick_ms))
    base = tick_ms / 1000
    return Timing(base, tuple(ticks), (len(ticks) - 1) / (ticks[-1] * base), "FrameTimeVector")


def _region(path: Path, item: Dataset, width: int, height: int) -> Region | str:
    """The region, or why it is ignored."""
    bounds = [whole_number(path, item, keyword) for keyword in _BOUNDS]
    left, top, right, bottom = bounds
    if left is None or top is None or right is None or bottom is None:
        return "has no place"
    if left >= right or top >= bottom:
        return "is empty"
    # The bounds are inclusive, and some scanners write the size of the picture in place of its last pixel.
    if left < 0 or top < 0 or right > width or bottom > height:
        return "reaches beyond the picture"
    right, bottom = min(right, width - 1), min(bottom, height - 1)
    return Region(
        x=left,
        y=top,
        width=right - left + 1,
        height=bottom - top + 1,
        kind=_REGION_KINDS.get(_number(path, item, "RegionSpatialFormat"), "other"),
        data=_REGION_DATA.get(_number(path, item, "RegionDataType"), "other"),
        mm_per_pixel_x=_delta_mm(path, item, "X"),
        mm_per_pixel_y=_delta_mm(path, item, "Y"),
    )


def _number(path: Path, item: Dataset, keyword: str) -> int:
    number = whole_number(path, item, keyword)
    return -1 if number is None else number


def _delta_mm(path: Path, item: Dataset, axis: str) -> float | None:
    if whole_number(path, item, f"PhysicalUnits{axis}Direction") != _CENTIMETRES:
        return None
    delta = value_of(path, item, f"PhysicalDelta{axis}")
    # A negative one only says that the axis points left or up.
    return 10 * abs(delta) if isinstance(delta, float) and math.isfinite(delta) and delta != 0 else None


def _agreed(spacings: list[float | None]) -> float | None:
    first = spacings[0] if spacings else None
    if first is None or any(each is None or not math.isclose(each, first, rel_tol=1e-6) for each in spacings):
        return None
    return first


def _pixel_spacing(path: Path, dataset: Dataset) -> tuple[float | None, float | None]:
    """(between rows, between columns) in mm: the standard's order, the vertical distance first."""
    numbers = decimals(path, dataset, "PixelSpacing")
    if len(numbers) != 2 or any(each is None or each <= 0 for each in numbers):
        return None, None
    rows, columns = (float(each) for each in numbers if each is not None)
    return rows, columns
