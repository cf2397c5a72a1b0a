"""The third video reader: decord, forward, for users whose other tools read with it.

In: a video file. Out: gray or RGB frames; times are decord's 32-bit float seconds, for the whole clip or not at all.
Guarantees: one pass, no seek, one thread. Limits, which are decord 0.6.0's: no GIF (refused here); wrong frames from interlaced MPEG
program streams; the last frame again in place of what an edit list removed; no rotation; no word on which packets were damaged; a hang
is possible, so a caller gives it a process of its own and a time limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import decord
import numpy as np

from usdata.errors import ReadError
from usdata.readers.base import MICROSECOND, Clip, ClipInfo, Decoded, check_size, trusted_microseconds

# What goes wrong is raised or counted; decord's own lines would only disturb the caller's.
decord.logging.set_level(decord.logging.QUIET)
_OTHER = "try another backend (read.backend=pyav)"


class DecordClip(Clip):
    """A video file read with decord.VideoReader."""

    def __init__(self, path: Path, kind: str, *, colour: bool = False) -> None:
        super().__init__(path)
        if kind == "gif":
            raise ReadError(path, "decord 0.6.0 cannot read GIF", _OTHER)
        self._colour = colour
        try:
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
            self._count = len(self._reader)
            rate = float(self._reader.get_avg_fps())
            self._times = _times(self._reader, self._count)
            first = self._read()
        except (decord.DECORDError, RuntimeError, StopIteration, IndexError) as error:
            raise ReadError(path, f"decord cannot open it: {_words(error)}", _OTHER) from error
        self._first: np.ndarray | None = first
        height, width = first.shape[:2]
        check_size(path, width, height)
        self.info = ClipInfo(
            container=kind,
            codec="unknown",
            pixel_format=None,
            width=width,
            height=height,
            time_base=None if self._times is None else MICROSECOND,
            frames_declared=self._count or None,
            declared_rate=Fraction(rate).limit_denominator(100_000) if rate > 0 else None,
            backend="decord",
            rate_source=None if self._times is None else "stream",
        )

    def _read(self) -> np.ndarray:
        return self._reader.next().asnumpy()

    def _decode(self) -> Iterator[Decoded]:
        for number in range(self._count):
            if number == 0 and self._first is not None:
                rgb, self._first = self._first, None
            else:
                try:
                    rgb = self._read()
                except StopIteration:
                    return
                except (decord.DECORDError, RuntimeError) as error:
                    # decord gives no way past damage.
                    self._count_error(_words(error))
                    return
            pts = None if self._times is None else self._times[number]
            if self._colour:
                yield Decoded(pts, rgb)
            else:
                yield Decoded(pts, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), rgb=partial(np.asarray, rgb))

    def close(self) -> None:
        self._first = None
        self._reader = None


def _times(reader: decord.VideoReader, count: int) -> list[int] | None:
    """Every frame's start in microseconds, or None where one of them cannot be true.

    decord sorts frames that have no time in the stream (MPEG-PS, AVI with B-frames) before all others, at about -10^14 s: then every time
    of the clip stands beside the wrong frame, so either all are taken or none.
    """
    times: list[int] = []
    for start_s in reader.get_frame_timestamp(list(range(count)))[:, 0]:
        time = trusted_microseconds(float(start_s), times[-1] if times else -1)
        if time is None:
            return None
        times.append(time)
    return times


def _words(error: Exception) -> str:
    """What decord's message says, without the clock, the place in its source and the call stack around it."""
    text = str(error).strip()
    return re.sub(r"\[[0-9:]{8}\] \S+:[0-9]+: ", "", text.splitlines()[0]) if text else type(error).__name__
