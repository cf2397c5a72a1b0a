"""Pictures that lie one after another in a file, as a `Clip`: what MetaImage, NRRD, NIfTI and HDF5 have in common.

In: where the pixels lie, how they are stored, and what the header says of each frame. Out: 8-bit frames, one in memory at a time, also of
compressed data. Guarantees: a header's claim costs no memory before it is checked; of data that end early the whole frames are given; wider
pixels are scaled once for the clip and never frame by frame.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import Clip, ClipInfo, Decoded, check_size

MAX_FRAMES = 10_000_000
# Denominators of time stamps up to a nanosecond; anything finer is noise of a float's printing.
_FINEST_TICK = 10**9
_BLOCK = 1 << 16
_ADVICE = "get the file again, or leave it out"


class EndsEarlyError(Exception):
    """The data end, or are damaged, before the last frame; the text says how."""


@dataclass(frozen=True)
class Stack:
    """Pictures as a header describes them.

    Attributes:
        width: Pixels a row.
        height: Rows.
        frames: How many pictures the header declares.
        channels: 1, or 3 for RGB.
        dtype: Of a stored value, with its byte order.
        pictures: Starts a pass over the stored pictures, (height, width) or (height, width, 3) of any type; a second call starts anew.
            Ends with `EndsEarlyError` where data are missing.
        declared_range: The values that are shown as black and white, where the header tells.
    """

    width: int
    height: int
    frames: int
    channels: int
    dtype: np.dtype[Any]
    pictures: Callable[[], Iterator[np.ndarray]]
    declared_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class FrameFacts:
    """What a header says of single frames.

    Attributes:
        time_base: Seconds a tick; None without times.
        pts: Ticks of each frame, None where it has no time; shorter than the clip where the rest has none.
        invalid: Indices of frames that are marked as not valid.
        flip_x: Mirror left to right.
        flip_y: Mirror top to bottom.
        notes: What was not believed.
    """

    time_base: Fraction | None = None
    pts: tuple[int | None, ...] = ()
    invalid: frozenset[int] = frozenset()
    flip_x: bool = False
    flip_y: bool = False
    notes: tuple[str, ...] = field(default=())


class StackClip(Clip):
    """A stack of pictures, passed through once (twice where their range has to be found first)."""

    def __init__(self, path: Path, stack: Stack, facts: FrameFacts, info: ClipInfo, *, colour: bool) -> None:
        super().__init__(path)
        self._stack, self._facts, self._colour = stack, facts, colour
        self._scaled, note = _scaling(stack)
        notes = (*info.notes, *facts.notes, *([note] if note else []))
        self.info = replace(info, notes=notes, time_base=facts.time_base)
        self._pictures: Iterator[np.ndarray] | None = self._counted(stack.pictures())
        # The first picture is decoded now: a header alone is no clip.
        self._first = next(self._pictures, None)
        if self._first is None:
            raise ReadError(path, f"no frame of it decodes ({self.first_error or 'the data are missing'})", _ADVICE)

    def _counted(self, pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        try:
            yield from pictures
        except EndsEarlyError as error:
            self._count_error(str(error))
            self.cut_short = True

    def _decode(self) -> Iterator[Decoded]:
        assert self._pictures is not None
        index = 0
        picture, self._first = self._first, None
        while picture is not None:
            pixels = self._scaled(picture)
            pixels = pixels[:: -1 if self._facts.flip_y else 1, :: -1 if self._facts.flip_x else 1]
            pts = self._facts.pts[index] if index < len(self._facts.pts) else None
            yield self._delivered(np.ascontiguousarray(pixels), pts, index in self._facts.invalid)
            index += 1
            picture = next(self._pictures, None)

    def _delivered(self, pixels: np.ndarray, pts: int | None, invalid: bool) -> Decoded:
        if pixels.ndim == 2:
            return Decoded(pts, cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if self._colour else pixels, invalid=invalid)
        if self._colour:
            return Decoded(pts, pixels, invalid=invalid)
        return Decoded(pts, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), invalid=invalid, rgb=lambda: pixels)

    def close(self) -> None:
        if isinstance(self._pictures, Iterator) and hasattr(self._pictures, "close"):
            self._pictures.close()
        self._first = None
        self._pictures = iter(())


def _scaling(stack: Stack) -> tuple[Callable[[np.ndarray], np.ndarray], str | None]:
    """How stored values become 0 to 255, and a note where that is this reader's own choice."""
    if stack.dtype == np.uint8 and stack.declared_range is None:
        return lambda picture: picture, None
    if stack.declared_range is not None:
        low, high = stack.declared_range
        note = None
    else:
        low, high = _range_of(stack.pictures())
        if low >= 0 and 1 < high <= 255:
            return lambda picture: np.rint(np.nan_to_num(picture)).astype(np.uint8), f"values of {stack.dtype.name} within 0..255 are kept"
        note = f"the header gives no range: scaled from {low:g}..{high:g}, the clip's own, to 0..255"
    factor = 255 / (high - low) if high > low else 0.0

    def scaled(picture: np.ndarray) -> np.ndarray:
        values = np.nan_to_num(picture.astype(np.float64), nan=low, posinf=high, neginf=low)
        return np.rint(np.clip((values - low) * factor, 0, 255)).astype(np.uint8)

    return scaled, note


def _range_of(pictures: Iterator[np.ndarray]) -> tuple[float, float]:
    low, high = math.inf, -math.inf
    try:
        for picture in pictures:
            finite = picture[np.isfinite(picture)]
            if finite.size:
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    except EndsEarlyError:  # the second pass counts it
        pass
    return (low, high) if low <= high else (0.0, 0.0)


@dataclass(frozen=True)
class RawData:
    """Where stored pictures lie.

    Attributes:
        path: The file that holds them.
        offset: First byte.
        encoding: raw, zlib, gzip or bzip2.
    """

    path: Path
    offset: int
    encoding: str = "raw"


def checked_shape(path: Path, width: int, height: int, frames: int, channels: int) -> None:
    """Refuse what no header may claim.

    Raises:
        ReadError: A side, the number of frames or of channels cannot be.
    """
    check_size(path, width, height)
    if channels not in (1, 3):
        raise ReadError(path, f"its pixels have {channels} values each; 1 (gray) and 3 (RGB) are read", "convert it first")
    if not 0 < frames <= MAX_FRAMES:
        raise ReadError(path, f"the header claims {frames} frames", "the file is damaged; get it again or leave it out")


def stored_pictures(
    data: RawData, width: int, height: int, frames: int, channels: int, dtype: np.dtype[Any], *, skip: int = 0
) -> Iterator[np.ndarray]:
    """The pictures of a file, x running fastest, then y, then the frames; RGB values of a pixel lie together.

    Args:
        skip: Unpacked bytes to pass over first.

    Raises:
        EndsEarlyError: After the last whole picture, where fewer than `frames` are there.
    """
    size = width * height * channels * dtype.itemsize
    shape = (height, width) if channels == 1 else (height, width, channels)
    with data.path.open("rb") as file:
        file.seek(data.offset)
        blocks = _Inflated(file, data.encoding)
        while skip > 0 and (passed := len(blocks.read(min(skip, _BLOCK)))):
            skip -= passed
        for number in range(frames):
            content = blocks.read(size)
            if len(content) < size:
                raise EndsEarlyError(blocks.damage or f"the data end in frame {number} of {frames}")
            yield np.frombuffer(content, dtype).reshape(shape)


class _Inflated:
    """A file's bytes, unpacked as far as they are asked for."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._encoding = encoding
        self._unpacker = self._fresh()
        self._held = b""
        self.damage: str | None = None

    def _fresh(self) -> Any:
        makers = {"zlib": lambda: zlib.decompressobj(47), "gzip": lambda: zlib.decompressobj(47), "bzip2": bz2.BZ2Decompressor}
        return makers[self._encoding]() if self._encoding in makers else None

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end or at damage."""
        if self._unpacker is None:
            return self._file.read(size)
        parts: list[bytes] = []
        missing = size
        while missing > 0 and self.damage is None:
            part = self._unpacked(missing)
            if not part and not self._held and self._at_end:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    _at_end = False

    def _unpacked(self, size: int) -> bytes:
        """Up to `size` unpacked bytes; nothing where more input is needed or none is left."""
        if self._unpacker.eof:
            # Another member follows, or padding that is none.
            self._held = self._unpacker.unused_data
            self._unpacker = self._fresh()
        waiting = self._held
        if not waiting and getattr(self._unpacker, "needs_input", True):
            waiting = self._file.read(_BLOCK)
            self._at_end = not waiting
        try:
            part: bytes = self._unpacker.decompress(waiting, size)
        except (zlib.error, OSError, EOFError, ValueError) as error:
            self.damage = f"the compressed data are damaged ({error})"
            return b""
        self._held = getattr(self._unpacker, "unconsumed_tail", b"")
        return part


def exact_times(seconds: Sequence[str | None]) -> tuple[Fraction | None, tuple[int | None, ...], str | None]:
    """Time stamps as ticks of one rational time base.

    Args:
        seconds: Decimal numbers as a header gives them, one a frame; None where it gives none.

    Returns:
        The time base, the ticks of each frame, and a note where stamps are missing or do not ascend: those frames have no time.
    """
    times: list[Fraction | None] = []
    odd = 0
    last: Fraction | None = None
    for text in seconds:
        time = _decimal(text)
        if time is None or (last is not None and time <= last):
            odd += 1
            times.append(None)
        else:
            last = time
            times.append(time)
    if last is None:
        return None, (), None if all(text is None for text in seconds) else "the time stamps of its frames cannot be read"
    base = Fraction(1, math.lcm(*(time.denominator for time in times if time is not None)))
    note = f"{odd} of {len(times)} frames have no time stamp, or one that is not later than the last" if odd else None
    return base, tuple(None if time is None else int(time / base) for time in times), note


def _decimal(text: str | None) -> Fraction | None:
    if text is None or len(text) > 40:
        return None
    try:
        time = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        return None
    if abs(time) > 10**12:
        return None
    return Fraction(round(time * _FINEST_TICK), _FINEST_TICK) if time.denominator > _FINEST_TICK else time


# Fields of tracked sequences, as PlusToolkit and 3D Slicer write them into MetaImage and NRRD headers: Seq_Frame0007_Timestamp.
SEQUENCE_PREFIX = "Seq_Frame"


def sequence_facts(fields: Mapping[str, str], frames: int) -> FrameFacts:
    """What a tracked sequence's header says of its frames: status, time stamps, orientation.

    The pictures are turned to orientation MF, as PlusToolkit does when it reads: x towards the marked side of the probe, y away from it.
    """
    stamps: dict[int, str] = {}
    invalid: set[int] = set()
    numbers: set[int] = set()
    for key, value in fields.items():
        number, _, what = key.removeprefix(SEQUENCE_PREFIX).partition("_") if key.startswith(SEQUENCE_PREFIX) else ("", "", "")
        if not number.isdigit() or len(number) > 9:
            continue
        numbers.add(int(number))
        if what == "Timestamp":
            stamps[int(number)] = value
        elif what in ("ImageStatus", "Status") and value.strip().upper() != "OK":
            invalid.add(int(number))
    notes = []
    if numbers and max(numbers) >= frames and len(numbers) == frames:
        # Numbers with gaps, one for each picture: they are names, not places.
        place = {number: position for position, number in enumerate(sorted(numbers))}
        stamps = {place[number]: text for number, text in stamps.items()}
        invalid = {place[number] for number in invalid}
        notes.append("the numbers of its frames have gaps; they were taken in order")
    elif numbers and max(numbers) >= frames:
        notes.append(f"the header describes frame {max(numbers)}, and there are {frames}")
    time_base, pts, note = exact_times([stamps.get(number) for number in range(frames)] if stamps else [])
    flip_x, flip_y, turned = _orientation(fields.get("UltrasoundImageOrientation", "").strip().upper())
    notes += [text for text in (note, turned) if text]
    return FrameFacts(time_base, pts, frozenset(invalid), flip_x, flip_y, tuple(notes))


def _orientation(letters: str) -> tuple[bool, bool, str | None]:
    """Whether to mirror in x and in y, and a note on what could not be understood."""
    if not letters or letters[:2] == "MF":
        return False, False, None
    if len(letters) >= 2 and letters[0] in "MU" and letters[1] in "FN":
        return letters[0] == "U", letters[1] == "N", None
    return False, False, f"its orientation '{letters[:5]}' is not known: frames are as stored"


def check_is_pictures(path: Path, fields: Mapping[str, str], sizes: Sequence[int]) -> None:
    """Refuse tracked sequences that hold no B-mode pictures.

    Raises:
        ReadError: They hold transforms alone, or radio-frequency data.
    """
    if any(size == 0 for size in sizes) and any(key.startswith(SEQUENCE_PREFIX) for key in fields):
        raise ReadError(path, "is a tracked sequence of transforms alone, without pictures", "leave it out")
    kind = fields.get("UltrasoundImageType", "BRIGHTNESS").strip().upper()
    if kind not in ("BRIGHTNESS", "RGB_COLOR", ""):
        raise ReadError(path, f"holds {kind[:40]} data, not pictures", "convert it to B-mode first")


def plausible_spacing(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Spacing in mm of x and y; None for both where it is the formats' default (1, 1) or cannot be."""
    if len(values) < 2 or not all(math.isfinite(value) and 0 < value < 1000 for value in values[:2]) or tuple(values[:2]) == (1.0, 1.0):
        return None, None
    return values[0], values[1]


def companion(path: Path, name: str) -> Path:
    """A data file that a header names, which must lie beside it.

    Raises:
        ReadError: The name leads elsewhere.
    """
    if not name or name in (".", "..") or any(mark in name for mark in ("/", "\\", "\0")) or (len(name) > 1 and name[1] == ":"):
        raise ReadError(
            path, "refers to data outside its folder, which are not opened", "put the data beside the header, by their plain name"
        )
    return path.parent / name
