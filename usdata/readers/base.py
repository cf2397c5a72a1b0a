"""What every reader gives: a `Clip`, passed through once, forward, frame by frame.

In: a file or a folder of images. Out: `ClipInfo` (what the container claims) and `Frame`s (what really decoded).
Guarantees, which one parametrised suite holds every reader to: frames are uint8, C-contiguous, full range and all of one size, as a person
would see them (rotated, inverted, windowed and flipped as the file says); the index counts decoded frames; times are ticks of a rational
time base, or null; damage is counted in `decode_errors` and skipped, never raised; memory does not grow with the clip's length; no video
reader seeks; what cannot be read is a `ReadError` with its reason, whatever the library below raised.
"""

from __future__ import annotations

import math
import shutil
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from usdata.errors import ReadError
from usdata.readers.packets import PacketDigest

# Larger than any scanner's picture (the largest known are 4K recordings, 8.3 megapixels); a header above it is damaged or hostile.
MAX_SIDE = (1 << 15) - 1
MAX_PIXELS = 100_000_000
# A decoder that fails this often in a row will not recover: 40 s of a 25 Hz clip. The clip then ends with what came before.
MAX_CONSECUTIVE_ERRORS = 1000
# The time base of readers that tell seconds as floats and no ticks of the stream.
MICROSECOND = Fraction(1, 1_000_000)
# Ten days: no clip lasts so long, and decord's times of MPEG program streams lie beyond it.
_MAX_SECONDS = 864_000


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes:
        index: 0-based number among the decoded frames of the clip.
        pts: Presentation time in ticks of `ClipInfo.time_base`, as in the stream; None where the source has no time.
        pixels: uint8, C-contiguous, full range 0..255; (height, width) gray, or (height, width, 3) RGB.
        damaged: The decoder had lost data before this frame and no clean key frame since: the pixels may be concealed garbage.
        invalid: The source itself says that this frame is not valid (a tracked sequence's frame status).
    """

    index: int
    pts: int | None
    pixels: np.ndarray
    damaged: bool = False
    invalid: bool = False


@dataclass(frozen=True)
class Region:
    """A part of the picture that the source describes (DICOM PS3.3 C.8.5.5, an ultrasound region).

    Attributes:
        x: Left edge in pixels.
        y: Upper edge in pixels.
        width: Pixels.
        height: Pixels.
        kind: What is drawn in it: "2d" (B-mode, with or without colour), "m_mode", "spectral", "waveform", "graphics", "other" or "none".
        data: What the pixels measure: "tissue", "colour_flow", "pw_doppler", "cw_doppler", "ecg", ..., "other" or "none".
        mm_per_pixel_x: Spacing along a row in mm; None where the axis is none of space (time, velocity) or not given.
        mm_per_pixel_y: Spacing along a column in mm, likewise.
    """

    x: int
    y: int
    width: int
    height: int
    kind: str
    data: str
    mm_per_pixel_x: float | None = None
    mm_per_pixel_y: float | None = None


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip before it is decoded. Declared values are the container's claims and may be false.

    Attributes:
        container: Kind of file by content, as `identify` names it ("mp4", "gif", "png", ...; "folder" for a folder of images).
        codec: Name of the codec ("h264", "mpeg2video", ...).
        pixel_format: The decoder's pixel format ("yuv420p", ...), None where the backend does not say.
        width: Pixels a row, as delivered (after rotation).
        height: Rows, as delivered.
        time_base: Seconds a tick of `Frame.pts`; None where frames have no time.
        frames_declared: The container's frame count; None where it gives none.
        declared_rate: The container's frame rate in Hz; None where it gives none.
        backend: The reader that opened it ("pyav", "opencv", "decord", "stills", "dicom", "metaimage", ...).
        rate_source: Where the times come from: "stream" (timestamps of a video), the name of a DICOM attribute, "timestamps" (a tracked
            sequence's own); None where frames have no time.
        mm_per_pixel_x: Spacing along a row in mm, where the source gives one for its picture of tissue.
        mm_per_pixel_y: Spacing along a column in mm.
        regions: The parts of the picture that the source describes, those that lie within it.
        manufacturer: Of the scanner, as the source says.
        device: Model of the scanner, as the source says.
        notes: What the source claims and was not believed, and what it lacks, a sentence each.
    """

    container: str
    codec: str
    pixel_format: str | None
    width: int
    height: int
    time_base: Fraction | None
    frames_declared: int | None
    declared_rate: Fraction | None
    backend: str
    rate_source: str | None = None
    mm_per_pixel_x: float | None = None
    mm_per_pixel_y: float | None = None
    regions: tuple[Region, ...] = ()
    manufacturer: str | None = None
    device: str | None = None
    notes: tuple[str, ...] = ()


class Decoded(NamedTuple):
    """What a reader hands to `Clip.frames` of each frame that decodes.

    Attributes:
        pts: As in `Frame`.
        pixels: uint8 of any memory layout.
        damaged: As in `Frame`.
        invalid: As in `Frame`.
        rgb: Makes the frame's RGB picture, (height, width, 3) uint8, when it is asked for; None where the pixels are all there is: a gray
            source, or a clip opened with `colour`.
        neutral: Whether that picture is certain to hold no colour, its pixels being all three channels, where that is cheap to know.
    """

    pts: int | None
    pixels: np.ndarray
    damaged: bool = False
    invalid: bool = False
    rgb: Callable[[], np.ndarray] | None = None
    neutral: Callable[[], bool] | None = None


def frame_time(frame: Frame, info: ClipInfo) -> Fraction | None:
    """The exact time of a frame in seconds, pts × time_base; None where the source has no time."""
    if frame.pts is None or info.time_base is None:
        return None
    return frame.pts * info.time_base


def trusted_microseconds(seconds: float, last: int) -> int | None:
    """A reader's float time in whole microseconds, where it can be true.

    Args:
        seconds: What the reader says.
        last: The last trusted time of the clip in microseconds, -1 before the first.

    Returns:
        The time, or None where it is not finite, negative, beyond ten days, or not later than the last: then it is no time of this frame.
    """
    if not (math.isfinite(seconds) and 0 <= seconds <= _MAX_SECONDS):
        return None
    microseconds = round(seconds * 1_000_000)
    return microseconds if microseconds > last else None


@contextmanager
def reading(path: Path, doing: str, advice: str = "get the file again, or leave it out") -> Iterator[None]:
    """Whatever a parsing library stumbles over in a damaged file becomes a `ReadError` that says so.

    Args:
        path: The file.
        doing: What did not work, as the start of a sentence: "the header cannot be read".
        advice: What the user can do.

    Raises:
        ReadError: In place of any exception but `ReadError` and `MemoryError`, which pass.
    """
    try:
        yield
    except (ReadError, MemoryError):
        raise
    except Exception as error:  # parsers of medical formats raise whatever they stumbled over
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ReadError(path, f"{doing}: {words}", advice) from error


class AbsurdSizeError(ReadError):
    """A header claims a picture that no scanner makes; no other reader is asked then, since one of them might believe it."""


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse a picture size that no scanner makes, before memory is taken for it.

    Raises:
        AbsurdSizeError: A side is 0 or at least 2^15 pixels, or the picture has more than 100 million pixels.
    """
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise AbsurdSizeError(
            path,
            f"the header claims a picture of {width}×{height} pixels, outside 1..{MAX_SIDE} a side and {MAX_PIXELS // 10**6} megapixels",
            "the file is damaged, or it is not ultrasound; get it again or leave it out",
        )


class Clip(ABC):
    """One source, open for a single forward pass; a context manager.

    Attributes:
        info: What is known before the pass.
        decode_errors: Damaged packets, files and frames so far; final once `frames()` has ended.
        first_error: The first of them in the decoder's words.
        cut_short: The source ends before its end: a container that breaks off, a file shorter than its header says.
        frames_decoded: Frames that `frames()` has given so far.
        missing_indices: Numbers missing from the names of a folder of images; empty for every other source.
        packets: What has been read of its coded pictures so far; None where its frames are not coded, or are not read as packets.
    """

    info: ClipInfo

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packets: PacketDigest | None = None
        self.decode_errors = 0
        self.first_error: str | None = None
        self.cut_short = False
        self.frames_decoded = 0
        self.missing_indices: tuple[int, ...] = ()
        self._timed = 0
        self._span: tuple[int, int] | None = None
        self._passed = False
        self._last: Decoded | None = None
        self._owned: Callable[[], object] | None = None

    def frames(self) -> Iterator[Frame]:
        """Every frame that decodes, in presentation order.

        Raises:
            RuntimeError: The clip was passed through before (open it again for a second pass), or is closed.
        """
        if self._passed:
            raise RuntimeError(f"{self.path}: a clip is passed through once; open it again")
        self._passed = True
        return self._numbered()

    @property
    def rate(self) -> Fraction | None:
        """The true mean rate in Hz of the frames given so far, by their own times; None without at least two of them."""
        if self._span is None or self.info.time_base is None or self._span[1] <= self._span[0]:
            return None
        return (self._timed - 1) / ((self._span[1] - self._span[0]) * self.info.time_base)

    @property
    def packets_sha256(self) -> str | None:
        """Digest of the coded pictures, equal in every container; whole once `frames()` has ended; None where there are none."""
        return None if self.packets is None else self.packets.hexdigest()

    def rgb(self) -> np.ndarray:
        """The frame that `frames()` gave last, in colour: (height, width, 3) uint8.

        A clip that is read in gray shows a frame's colours when asked, which costs only what is asked for. Invalid after the next frame.

        Raises:
            RuntimeError: No frame has been given yet, or the clip is closed.
        """
        if self._last is None:
            raise RuntimeError(f"{self.path}: no frame has been given yet")
        if self._last.rgb is not None:
            return np.ascontiguousarray(self._last.rgb())
        pixels = self._last.pixels
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)

    def picture(self) -> np.ndarray:
        """The frame that `frames()` gave last, in colour where it has any: (height, width) if it is gray for certain, else as `rgb()`.

        Raises:
            RuntimeError: No frame has been given yet, or the clip is closed.
        """
        last = self._last
        if last is not None and last.pixels.ndim == 2 and (last.rgb is None or (last.neutral is not None and last.neutral())):
            return last.pixels
        return self.rgb()

    def owns(self, folder: Path) -> None:
        """Remove this folder when the clip is left, or at the latest when nothing refers to the clip any more."""
        self._owned = weakref.finalize(self, shutil.rmtree, folder, True)

    def _numbered(self) -> Iterator[Frame]:
        shape: tuple[int, ...] | None = None
        index = 0
        for decoded in self._decode():
            pixels = decoded.pixels
            if shape is None:
                shape = pixels.shape
            if pixels.shape != shape:
                self._count_error(f"a frame of {pixels.shape[1]}×{pixels.shape[0]} pixels in a clip of {shape[1]}×{shape[0]}")
                continue
            self._last = decoded
            if decoded.pts is not None:
                self._timed += 1
                self._span = (decoded.pts if self._span is None else self._span[0], decoded.pts)
            self.frames_decoded += 1
            yield Frame(index, decoded.pts, np.ascontiguousarray(pixels), decoded.damaged, decoded.invalid)
            index += 1

    def _count_error(self, reason: str) -> None:
        self.decode_errors += 1
        if self.first_error is None:
            self.first_error = reason

    @abstractmethod
    def _decode(self) -> Iterator[Decoded]:
        """Each frame that decodes, in presentation order."""

    @abstractmethod
    def close(self) -> None:
        """Give the file and the decoder back; calling it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._passed = True
        self._last = None
        self.close()
        if self._owned is not None:
            self._owned()
