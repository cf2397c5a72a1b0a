"""Pictures that lie one after another in a file, as a `Clip`: what MetaImage, NRRD, NIfTI and HDF5 have in common.

In: where the pixels lie, how they are stored, and what the header says of each frame. Out: 8-bit frames, one in memory at a time, also of
compressed data. Guarantees: of data that end early the whole frames are given; wider pixels are scaled by one rule for the whole clip,
never frame by frame, and the rule is among the notes. `raw_data` reads the pixels, `raw_headers` a header's fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import MAX_CONSECUTIVE_ERRORS, Clip, ClipInfo, Decoded
from usdata.readers.raw_data import Finding
from usdata.readers.raw_headers import usable_range

# A clip of 8-bit values that never exceed this shows nothing: its values are of another range (floats from 0 to 1, most often).
_LEAST_WHITE = 32
_VALUES_AT_ONCE = 1 << 20
_ADVICE = "get the file again, or leave it out"


@dataclass(frozen=True)
class Stack:
    """Pictures as a header describes them.

    Attributes:
        width: Pixels a row, as stored.
        height: Rows, as stored.
        frames: How many pictures the header declares.
        channels: 1, or 3 for RGB.
        dtype: Of a value as `pictures` gives it.
        pictures: Starts a pass over the stored pictures, (height, width) or (height, width, 3); a second call starts anew.
        declared_range: The values that are shown as black and white, where the header tells; 8-bit unsigned pictures have no need of it.
        slope: Factor from a stored value to the true one.
        intercept: What is added then.
    """

    width: int
    height: int
    frames: int
    channels: int
    dtype: np.dtype[Any]
    pictures: Callable[[], Iterator[np.ndarray | Finding]]
    declared_range: tuple[float, float] | None = None
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def pixel_format(self) -> str:
        """The stored type in numpy's words, and the values of a pixel where there are several: "uint8", "uint8 x3"."""
        return self.dtype.name + (f" x{self.channels}" if self.channels > 1 else "")


@dataclass(frozen=True)
class FrameFacts:
    """What a header says of single frames, and how its pictures are to be turned.

    Attributes:
        time_base: Seconds a tick; None without times.
        pts: Ticks of each frame that has a time, by its index.
        invalid: Indices of frames that are marked as not valid.
        transpose: Exchange rows and columns; the flips come after it.
        flip_x: Mirror left to right.
        flip_y: Mirror top to bottom.
        notes: What was not believed.
    """

    time_base: Fraction | None = None
    pts: Mapping[int, int] | Sequence[int] = field(default_factory=dict)
    invalid: frozenset[int] = frozenset()
    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False
    notes: tuple[str, ...] = ()

    def pts_of(self, index: int) -> int | None:
        """The time of a frame in ticks, None where it has none."""
        if isinstance(self.pts, Mapping):
            return self.pts.get(index)
        return self.pts[index] if index < len(self.pts) else None

    def turned(self, pixels: np.ndarray) -> np.ndarray:
        """The picture as a person should see it."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


class StackClip(Clip):
    """A stack of pictures, passed through once (twice where the range of its values has to be found first).

    Args:
        path: The file.
        stack: Its pictures; their claims have passed `check_shape`.
        facts: What is known of single frames.
        container: The kind of file; its reader has the same name.
        codec: How the pixels are packed.
        times_from: Where the times of frames come from, if they have any.
        declared_rate: Frames a second by the header; None where it gives no rate.
        notes: What else was not believed.
        mm_per_pixel: Spacing of the stored x and y.
        colour: True for RGB frames.

    Raises:
        ReadError: Not one picture is whole, or their values have no range.
    """

    def __init__(
        self,
        path: Path,
        stack: Stack,
        facts: FrameFacts,
        *,
        container: str,
        codec: str,
        times_from: str | None = None,
        declared_rate: Fraction | None = None,
        notes: tuple[str, ...] = (),
        mm_per_pixel: tuple[float | None, float | None] = (None, None),
        colour: bool,
    ) -> None:
        super().__init__(path)
        self._facts, self._colour = facts, colour
        self._to_uint8, note = _scaling(path, stack)
        (width, height), (mm_x, mm_y) = (stack.width, stack.height), mm_per_pixel
        if facts.transpose:
            width, height, mm_x, mm_y = height, width, mm_y, mm_x
        self.info = ClipInfo(
            container=container,
            codec=codec,
            pixel_format=stack.pixel_format,
            width=width,
            height=height,
            time_base=facts.time_base,
            frames_declared=stack.frames,
            declared_rate=declared_rate,
            backend=container,
            rate_source=None if facts.time_base is None else times_from,
            mm_per_pixel_x=mm_x,
            mm_per_pixel_y=mm_y,
            notes=(*notes, *facts.notes, *([note] if note else [])),
        )
        self._pictures: Iterator[np.ndarray] = self._counted(stack.pictures())
        # The first picture is read now: a header alone is no clip.
        self._first = next(self._pictures, None)
        if self._first is None:
            raise ReadError(path, f"no frame of it is whole ({self.first_error or 'there are no data'})", _ADVICE)

    def _counted(self, pictures: Iterator[np.ndarray | Finding]) -> Iterator[np.ndarray]:
        failures = 0
        try:
            for picture in pictures:
                if not isinstance(picture, Finding):
                    failures = 0
                    yield picture
                elif picture.error:
                    self._count_error(picture.text)
                    self.cut_short |= picture.cut_short
                    failures += 1
                    if failures >= MAX_CONSECUTIVE_ERRORS:
                        return
                else:
                    self.info = replace(self.info, notes=(*self.info.notes, picture.text))
        except OSError as error:
            self._count_error(f"cannot be read on: {error.strerror or 'the disk or the file fails'}")
            self.cut_short = True
        finally:
            _close(pictures)

    def _decode(self) -> Iterator[Decoded]:
        index = 0
        picture, self._first = self._first, None
        while picture is not None:
            pixels = np.ascontiguousarray(self._facts.turned(self._to_uint8(picture)))
            yield self._delivered(pixels, self._facts.pts_of(index), index in self._facts.invalid)
            index += 1
            picture = next(self._pictures, None)

    def _delivered(self, pixels: np.ndarray, pts: int | None, invalid: bool) -> Decoded:
        if pixels.ndim == 2:
            return Decoded(pts, cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if self._colour else pixels, invalid=invalid)
        if self._colour:
            return Decoded(pts, pixels, invalid=invalid)
        return Decoded(pts, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), invalid=invalid, rgb=partial(np.asarray, pixels))

    def close(self) -> None:
        _close(self._pictures)
        self._first = None


def _close(iterator: object) -> None:
    """Leave a generator, so that the file it holds is given back now."""
    close = getattr(iterator, "close", None)
    if close is not None:
        close()


def _scaling(path: Path, stack: Stack) -> tuple[Callable[[np.ndarray], np.ndarray], str | None]:
    """How stored values become 0 to 255, and a note that says so."""
    rescaled = (stack.slope, stack.intercept) != (1.0, 0.0)
    if stack.dtype == np.uint8 and not rescaled:
        return np.asarray, None
    if stack.declared_range is not None:
        low, high = stack.declared_range
        note = f"{stack.dtype.name} values, scaled from {low:g}..{high:g} (the header's range) to 0..255"
    else:
        low, high = _own_range(path, stack)
        if low >= 0 and _LEAST_WHITE <= high <= 255:
            low, high, note = 0.0, 255.0, f"{stack.dtype.name} values, all of them within 0..255: kept as they are"
        else:
            note = f"{stack.dtype.name} values, scaled from {low:g}..{high:g} (the clip's own range) to 0..255"
    return partial(_scaled, low=low, high=high, slope=stack.slope, intercept=stack.intercept), note


def _scaled(values: np.ndarray, *, low: float, high: float, slope: float, intercept: float) -> np.ndarray:
    """(v - low) · 255 / (high - low), rounded and clipped; what is no number is black."""
    flat = values.reshape(-1)
    out = np.empty(flat.shape, np.uint8)
    for start in range(0, flat.size, _VALUES_AT_ONCE):
        part = flat[start : start + _VALUES_AT_ONCE].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            part = np.nan_to_num(part * slope + intercept, nan=low, posinf=high, neginf=low)
            part = np.clip(part, low, high) - low
        # A clip of one value shows nothing; it is black, as it has no white.
        out[start : start + _VALUES_AT_ONCE] = np.rint(part * 255 / (high - low)) if high > low else 0
    return out.reshape(values.shape)


def _own_range(path: Path, stack: Stack) -> tuple[float, float]:
    """The smallest and the largest finite value of the pictures that are whole, in one pass."""
    low, high = math.inf, -math.inf
    pictures = stack.pictures()
    try:
        for picture in pictures:
            if isinstance(picture, Finding):  # the second pass counts it
                continue
            finite = picture if picture.dtype.kind in "iu" else picture[np.isfinite(picture)]
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    except OSError:  # likewise
        pass
    finally:
        _close(pictures)
    if low > high:
        return 0.0, 0.0
    low, high = sorted((low * stack.slope + stack.intercept, high * stack.slope + stack.intercept))
    if usable_range(low, high) is None and low != high:
        raise ReadError(path, "its values have no range that can be shown", _ADVICE)
    return low, high
