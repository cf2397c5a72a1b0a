"""Pictures that lie one after another in a file, as a `Clip`: what MetaImage, NRRD, NIfTI and HDF5 have in common.

In: where the pixels lie, how they are stored, and what the header says of each frame. Out: 8-bit frames, one in memory at a time, also of
compressed data. Guarantees: a header's claim costs no memory before it is checked; of data that end early the whole frames are given; wider
pixels are scaled by one rule for the whole clip, never frame by frame, and the rule is among the notes.
"""

from __future__ import annotations

import bz2
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import MAX_CONSECUTIVE_ERRORS, Clip, ClipInfo, Decoded, check_size

# A tracked sequence writes some eight fields of 150 bytes a frame: this is half an hour at 30 Hz.
_MAX_HEADER_BYTES = 64 << 20
_MAX_HEADER_LINES = 2_000_000
# 92 hours at 30 Hz; a header that claims more is damaged.
MAX_FRAMES = 10_000_000
# A clip of 8-bit values that never exceed this shows nothing: its values are of another range (floats from 0 to 1, most often).
_LEAST_WHITE = 32
# Deflate packs at most 1032 bytes into one (zlib's technical notes).
_DEFLATE_RATIO = 1032
_BLOCK = 1 << 16
# So much of packed data beyond the last frame is unpacked to reach their check sum; some 0.1 s.
_LOOK_BEYOND_BYTES = 32 << 20
_VALUES_AT_ONCE = 1 << 20
_ADVICE = "get the file again, or leave it out"


class Finding(NamedTuple):
    """What a pass over stored pictures met in place of a picture.

    Attributes:
        text: In words.
        error: True for damage; False for what is odd and costs nothing, which becomes a note.
        cut_short: The data end before their end.
    """

    text: str
    error: bool = True
    cut_short: bool = False


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


# Values


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


def usable_range(low: float, high: float) -> tuple[float, float] | None:
    """The range of values that a header tells, or None where it cannot be one."""
    # Beyond these, arithmetic on the values overflows.
    if math.isfinite(low) and math.isfinite(high) and 1e-290 < high - low < 1e290:
        return low, high
    return None


def declared_range(low: str | None, high: str | None) -> tuple[float, float] | None:
    """The same of a text header's two fields."""
    try:
        return usable_range(float(low or "nan"), float(high or "nan"))
    except ValueError:
        return None


# Where the pixels lie


@dataclass(frozen=True)
class RawData:
    """Where stored pictures lie.

    Attributes:
        path: The file that holds them.
        offset: First byte in the file.
        encoding: "raw", "zlib", "gzip" or "bzip2".
        skip: Unpacked bytes before the first picture.
    """

    path: Path
    offset: int
    encoding: str = "raw"
    skip: int = 0


def check_shape(path: Path, width: int, height: int, frames: int, channels: int) -> None:
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
    data: RawData, width: int, height: int, frames: int, channels: int, dtype: np.dtype[Any]
) -> Iterator[np.ndarray | Finding]:
    """The pictures of a file, x running fastest, then y, then the frames; RGB values of a pixel lie together.

    Yields:
        Each whole picture; at the end a `Finding` where data are missing, damaged or left over.

    Raises:
        OSError: The file cannot be read.
    """
    shape = (height, width) if channels == 1 else (height, width, channels)
    size = math.prod(shape) * dtype.itemsize
    with data.path.open("rb") as file:
        held = max(0, os.fstat(file.fileno()).st_size - data.offset)
        if data.encoding in ("zlib", "gzip"):
            held *= _DEFLATE_RATIO
        # bzip2 packs a million to one: no claim of its header can be refused by its size.
        enough = size + data.skip <= held or data.encoding == "bzip2"
        file.seek(data.offset)
        unpacked = _Unpacked(file, data.encoding)
        unpacked.pass_over(data.skip if enough else 0)
        for number in range(frames):
            picture = np.empty(shape if enough else 0, dtype)
            if not enough or unpacked.read_into(picture.reshape(-1).view(np.uint8).data) < size:
                yield Finding(unpacked.damage or f"the data end within frame {number + 1} of {frames}", cut_short=True)
                return
            yield picture
        yield from unpacked.check_end()


class _Unpacked:
    """A file's bytes from where it stands, unpacked as far as they are asked for.

    Attributes:
        damage: Why no more can be unpacked; None while all is well, and at a plain end.
    """

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._encoding = encoding
        self._unpacker = self._fresh()
        self._waiting = b""
        self._ended = False
        self.damage: str | None = None

    def _fresh(self) -> Any:
        if self._encoding == "bzip2":
            return bz2.BZ2Decompressor()
        # zlib's own header and gzip's are told apart by zlib.
        return None if self._encoding == "raw" else zlib.decompressobj(47)

    def read_into(self, target: memoryview) -> int:
        """Fill the target; fewer bytes than it holds come only at the end or at damage."""
        done = 0
        while done < len(target):
            piece = self._piece(len(target) - done)
            if not piece:
                break
            target[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def pass_over(self, size: int) -> None:
        """Unpack and forget so many bytes."""
        while size > 0 and (piece := self._piece(min(size, _BLOCK))):
            size -= len(piece)

    def check_end(self) -> Iterator[Finding]:
        """After the last picture: are there data left, and do packed ones end as they should?"""
        more = bool(self._piece(1))
        if more and self._unpacker is not None:
            # Damage may make data of nothing: only the check sum at the end tells.
            self.pass_over(_LOOK_BEYOND_BYTES)
        if self.damage is not None:
            yield Finding(self.damage, cut_short=self._ended)
        elif more:
            yield Finding("the file holds more data than its header declares; they are not read", error=False)

    def _piece(self, size: int) -> bytes:
        """1 to `size` bytes; none at the end or at damage."""
        if self._unpacker is None:
            return self._file.read(min(size, _BLOCK * 16))
        while self.damage is None:
            if self._unpacker.eof and not self._next_member():
                break
            if not self._waiting and not self._ended and getattr(self._unpacker, "needs_input", True):
                self._waiting = self._file.read(_BLOCK)
                self._ended = not self._waiting
            try:
                piece: bytes = self._unpacker.decompress(self._waiting, size)
            except (zlib.error, OSError, EOFError, ValueError) as error:
                self.damage = f"the compressed data are damaged ({' '.join(str(error).split())[:100]})"
                break
            self._waiting = getattr(self._unpacker, "unconsumed_tail", b"")
            if piece:
                return piece
            if self._ended and not self._unpacker.eof:
                self.damage = "the compressed data break off"
        return b""

    def _next_member(self) -> bool:
        """Go on with a further member (gzip and bzip2 files may be several joined); what else follows is padding."""
        rest: bytes = self._unpacker.unused_data
        if len(rest) < 3:
            rest += self._file.read(_BLOCK)
        if not rest.startswith({"gzip": b"\x1f\x8b", "bzip2": b"BZh"}.get(self._encoding, b"no")):
            return False
        self._unpacker = self._fresh()
        self._waiting = rest
        return True


def start_from_end(path: Path, file: Path, size: int, least: int) -> int:
    """Where data start of which is said only that they end with the file, after its first `least` bytes.

    Raises:
        ReadError: The file is shorter than they are, and then nobody knows where they start.
    """
    start = file.stat().st_size - size
    if start < least:
        raise ReadError(path, "its pixels are said to be what the data file ends with, and the file is shorter than they are", _ADVICE)
    return start


def companion(path: Path, name: str) -> Path:
    """A data file that a header names, which must lie beside it.

    Raises:
        ReadError: The name leads elsewhere.
    """
    name = name.removeprefix("./")
    if not name or name in (".", "..") or any(mark in name for mark in ("/", "\\", "\0")) or name[1:2] == ":":
        advice = "put the data beside the header, and their plain name into it"
        raise ReadError(path, "refers to data that do not lie beside it, which are not opened", advice)
    return path.parent / name


def check_companion(path: Path, file: Path) -> None:
    """Refuse a data file that is not there, or is no plain file.

    Raises:
        ReadError: So it is.
    """
    if not file.is_file():
        raise ReadError(path, "the file that holds its pixels is missing: the header names one that does not lie beside it", "put it there")


def header_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """The lines of a header from where the file stands; bytes that are not UTF-8 survive, since they may be of a file's name.

    Raises:
        ReadError: There are so many that this is no header.
    """
    for _ in range(_MAX_HEADER_LINES):
        left = _MAX_HEADER_BYTES - file.tell()
        if left <= 0:
            break
        line = file.readline(left)
        if not line:
            return
        yield line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    raise ReadError(path, "its header does not end", _ADVICE)


def whole_numbers(path: Path, name: str, text: str) -> list[int]:
    """The whole numbers of a header's field.

    Raises:
        ReadError: There are others in it.
    """
    words = text.split()
    if not all(re.fullmatch(r"[+-]?[0-9]{1,18}", word) for word in words):
        raise ReadError(path, f"its header gives '{name}' as something else than whole numbers", _ADVICE)
    return [int(word) for word in words]


def plain_word(text: str) -> str:
    """A header's word for a message; free text may hold a name and is not repeated."""
    return f"'{text}'" if re.fullmatch(r"[A-Za-z0-9_ -]{1,24}", text) else "of no known form"


# Spacing


def spacing(values: Iterable[float]) -> tuple[tuple[float | None, float | None], tuple[str, ...]]:
    """Spacing of x and y in mm as far as it can be believed, and a note where it was not.

    Exactly 1 by 1 is what every one of these formats' writers puts where nothing is known, PlusToolkit's tracked sequences too.
    """
    chosen = tuple(values)[:2]
    if len(chosen) < 2:
        return (None, None), ()
    if chosen == (1.0, 1.0):
        return (None, None), ("its spacing of 1 × 1 is the format's default and was not believed",)
    if not all(0 < value < 1000 for value in chosen):
        return (None, None), ("its spacing cannot be one in millimetres and was not believed",)
    return (chosen[0], chosen[1]), ()


def decimals(text: str) -> list[float]:
    """The numbers of a header's field, not-a-number for words that are none."""
    return [
        float(word) if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", word) else math.nan for word in text.split()
    ]


def one_axis_of_frames(path: Path, sizes: Sequence[int]) -> int:
    """How many frames there are, where at most one axis beyond the picture's two is longer than 1.

    Raises:
        ReadError: It is a volume over time.
    """
    if sum(size != 1 for size in sizes[2:]) > 1:
        raise ReadError(path, "is a volume over time, not a clip of pictures", "save each of its planes as a clip of its own")
    return math.prod(sizes[2:])
