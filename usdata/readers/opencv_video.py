"""The second video reader: OpenCV, forward, for files that PyAV cannot open or for comparison with it.

In: a video file. Out: gray or RGB frames. Guarantees: one pass, no seek. Limits, which are OpenCV's: it ends silently at damage, which is
noticed only where much is missing, since its frame count is an estimate.

OpenCV tells a time as a float and no stream ticks: it is rounded to whole microseconds, and taken only where `trusted_microseconds` does.
Their zero is near the clip's first frame and is not the stream's own zero: differences of times are true, times are not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import MICROSECOND, Clip, ClipInfo, Decoded, check_size, trusted_microseconds

# OpenCV gives its caller no reason for a failure, and prints FFmpeg's lines on stderr instead; a user who sets the variable sees them.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# OpenCV's count is the length times the rate: edit lists, variable rates and rounding make it wrong by a few frames on sound clips.
TOLERATED_SHARE = 0.1


def why_refused(version: str) -> str | None:
    """Why this version of OpenCV must not read video, None where it may."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) >= (4, 13):
        return f"refused: OpenCV {version} gives black or uninitialised frames of interlaced video (use opencv-python-headless<4.13)"
    return None


class OpencvClip(Clip):
    """A video file read with cv2.VideoCapture."""

    def __init__(self, path: Path, kind: str, *, colour: bool = False) -> None:
        super().__init__(path)
        refused = why_refused(cv2.__version__)
        if refused is not None:
            raise ReadError(path, f"OpenCV was not asked: {refused}", "use another backend (read.backend=pyav)")
        self._colour = colour
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            raise ReadError(path, "OpenCV cannot open it (it gives no reason)", "try another backend (read.backend=pyav)")
        try:
            check_size(path, int(self._get(cv2.CAP_PROP_FRAME_WIDTH)), int(self._get(cv2.CAP_PROP_FRAME_HEIGHT)))
            self._first = self._read()
            if self._first is None:
                raise ReadError(path, "OpenCV decodes no frame of it (it gives no reason)", "try another backend (read.backend=pyav)")
        except BaseException:
            self.close()
            raise
        height, width = self._first[1].shape[:2]
        rate = self._get(cv2.CAP_PROP_FPS)
        count = self._get(cv2.CAP_PROP_FRAME_COUNT)
        self.info = ClipInfo(
            container=kind,
            codec=_four_characters(int(self._get(cv2.CAP_PROP_FOURCC))),
            pixel_format=None,
            width=width,
            height=height,
            time_base=MICROSECOND,
            frames_declared=int(count) if math.isfinite(count) and count >= 1 else None,
            # OpenCV's float comes from a ratio of small integers in the container.
            declared_rate=Fraction(rate).limit_denominator(100_000) if math.isfinite(rate) and rate > 0 else None,
            backend="opencv",
            rate_source="stream",
        )

    def _get(self, what: int) -> float:
        return float(self._capture.get(what))

    def _read(self) -> tuple[float, np.ndarray] | None:
        came, pixels = self._capture.read()
        if not came:
            return None
        return self._get(cv2.CAP_PROP_POS_MSEC), pixels

    def _decode(self) -> Iterator[Decoded]:
        last = -1
        decoded = 0
        current = self._first
        self._first = None
        while current is not None:
            milliseconds, blue_first = current
            pts = trusted_microseconds(milliseconds / 1000, last)
            last = last if pts is None else pts
            rgb = partial(cv2.cvtColor, blue_first, cv2.COLOR_BGR2RGB)
            if self._colour:
                yield Decoded(pts, rgb())
            else:
                yield Decoded(pts, cv2.cvtColor(blue_first, cv2.COLOR_BGR2GRAY), rgb=rgb)
            decoded += 1
            current = self._read()
        declared = self.info.frames_declared or 0
        if declared - decoded > max(2, TOLERATED_SHARE * declared):
            self.cut_short = True
            self._count_error(f"it ends after {decoded} frames, and its header tells of about {declared}")

    def close(self) -> None:
        self._first = None
        self._capture.release()


def _four_characters(code: int) -> str:
    letters = code.to_bytes(4, "little", signed=code < 0)
    return letters.decode("ascii", "replace").strip().lower() if all(32 <= letter < 127 for letter in letters) else "unknown"
