"""The default video reader: PyAV, packet by packet, forward, tolerant of damage.

In: a video file. Out: gray (full-range luma) or RGB frames with the stream's own timestamps.
Guarantees: one thread and tables instead of vector code for gray, so the same bytes give the same pixels on every machine; a damaged
packet costs that packet; nothing outside the file is opened, whatever its headers ask for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import av.logging
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from usdata.errors import ReadError
from usdata.readers.base import MAX_CONSECUTIVE_ERRORS, Clip, ClipInfo, Decoded, check_size
from usdata.readers.containers import missing_bytes
from usdata.readers.packets import PacketDigest

# Formats whose plane 0 is the whole luma; the number is its bits, 8 where there is none.
_NEUTRAL_KNOWN = re.compile(r"yuvj?4(20|22|44|11|40)p")
_LUMA_PLANE = re.compile(r"\A(?:yuvj?4[0-4][0-4]p|nv12|nv21|nv16|nv24|gray)(?:8|(9|10|12|14|16)le)?\Z")
# Packed formats that are RGB already (GIF, uncompressed AVI): channels, whether the fourth is transparency, and OpenCV's conversion.
_PACKED = {
    "bgra": (4, True, cv2.COLOR_BGRA2RGB),
    "rgba": (4, True, cv2.COLOR_RGBA2RGB),
    "bgr0": (4, False, cv2.COLOR_BGRA2RGB),
    "rgb0": (4, False, cv2.COLOR_RGBA2RGB),
    "bgr24": (3, False, cv2.COLOR_BGR2RGB),
}
# Bit-exact, with full chroma: RGB then does not depend on the vector instructions of the machine.
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
_ADVICE = "get the file again, or leave it out"

# What PyAV raises of damaged input: FFmpeg's errors, its own refusals of values, and, of a file that Python opened, a seek to nowhere.
_DECODER_ERRORS = (av.error.FFmpegError, ValueError, OSError)


@lru_cache(maxsize=32)
def luma_table(bits: int, full_range: bool) -> np.ndarray:
    """The 8-bit full-range value of each luma code.

    Args:
        bits: Bits of a code, 8 to 16.
        full_range: True where codes run from 0 to 2^bits - 1; False for the limited range of ITU-R BT.601 and BT.709, where black is
            16·2^(bits-8) and white is 235·2^(bits-8); codes outside are clipped.

    Returns:
        uint8 of length 2^bits.
    """
    codes = np.arange(1 << bits, dtype=np.float64)
    black, span = (0, (1 << bits) - 1) if full_range else (16 << (bits - 8), 219 << (bits - 8))
    return np.clip(np.rint((codes - black) * 255 / span), 0, 255).astype(np.uint8)


class PyavClip(Clip):
    """A video file read with PyAV.

    Args:
        source: Where the video's bytes are, when they are not the whole file: an open, seekable file, closed with the clip.
    """

    def __init__(self, path: Path, kind: str, *, colour: bool = False, source: BinaryIO | None = None) -> None:
        super().__init__(path)
        self._colour = colour
        self._reformatter = VideoReformatter()
        self._file = source
        self._packets_seen = 0
        self._missing_bytes = missing_bytes(path, kind) if source is None else None
        self._container = self._opened(path)
        try:
            self._stream = self._best_stream()
            context = self._stream.codec_context
            context.thread_count = 1
            context.thread_type = "NONE"
            if context.width and context.height:
                check_size(path, context.width, context.height)
            self.packets = PacketDigest(context.codec.canonical_name, context.extradata)
            frames = self._decoded()
            # The first frame is decoded now: only it tells the size after rotation, and that anything decodes at all.
            first = next(frames, None)
            if first is None:
                raise ReadError(path, f"no frame of it decodes ({self.first_error or 'the stream holds none'})", _ADVICE)
        except BaseException:
            self.close()
            raise
        self._frames = chain([first], frames)
        frame = first[0]
        turned = frame.rotation % 180 == 90
        self.info = ClipInfo(
            container=kind,
            codec=context.codec.canonical_name,
            pixel_format=frame.format.name,
            width=frame.height if turned else frame.width,
            height=frame.width if turned else frame.height,
            time_base=_positive(self._stream.time_base),
            frames_declared=self._stream.frames or None,
            declared_rate=_positive(self._stream.average_rate),
            backend="pyav",
            rate_source="stream",
        )

    def _opened(self, path: Path) -> av.container.InputContainer:
        if self._file is None:
            try:
                str(path).encode("utf-8")
            except UnicodeEncodeError:
                # FFmpeg takes names in UTF-8 only; a name in another encoding is opened by Python.
                self._file = path.open("rb")
        source: str | BinaryIO = f"file:{path}" if self._file is None else self._file
        try:
            return av.open(source, mode="r", metadata_errors="replace", options={"protocol_whitelist": "file"})
        except _DECODER_ERRORS as error:
            reason = _reason_to_refuse(source, error)
            if self._file is not None:
                self._file.close()
            raise ReadError(path, f"cannot be opened: {reason}", _ADVICE) from error

    def _best_stream(self) -> av.video.stream.VideoStream:
        streams = self._container.streams
        stream = streams.best("video")
        if not isinstance(stream, av.video.stream.VideoStream):
            held = ", ".join(sorted({each.type for each in streams})) or "nothing"
            raise ReadError(self.path, f"has no video stream (it holds {held})", _ADVICE)
        if stream.codec_context is None:
            raise ReadError(self.path, "its video is in a codec for which there is no decoder here", "convert it to h264 in mp4 first")
        return stream

    def _decoded(self) -> Iterator[tuple[VideoFrame, bool]]:
        """Each decoded frame, and whether data was lost before it and since the last clean key frame."""
        failures = 0
        damaged = False
        for number, packet in enumerate(self._packets()):
            if packet is not None and packet.size > 0:
                self._packets_seen += 1
                if self.packets is not None:
                    self.packets.add(memoryview(packet))
            if packet is not None and packet.is_corrupt:
                self._count_error(f"packet {number} is cut short or marked as damaged")
                damaged = True
            try:
                frames = self._stream.codec_context.decode(packet)
            except av.error.EOFError:
                return
            except _DECODER_ERRORS as error:
                self._count_error(f"packet {number}: {_words(error)}")
                damaged = True
                failures += 1
                if failures >= MAX_CONSECUTIVE_ERRORS:
                    return
                continue
            for frame in frames:
                failures = 0
                if frame.is_corrupt:
                    self._count_error(f"packet {number}: the decoder marked its frame as damaged")
                    damaged = True
                elif frame.key_frame:
                    damaged = False
                yield frame, damaged

    def _packets(self) -> Iterator[av.packet.Packet | None]:
        """The packets of the stream, then None, which empties the decoder; a broken container ends early, as an end of file does."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # At the end PyAV empties every stream in turn and stumbles over one that first appeared after opening (a damaged program
                # stream has such); the stream read here came before it and is empty by then.
                return
            except _DECODER_ERRORS as error:
                self._count_error(f"the container breaks off: {_words(error)}")
                self.cut_short = True
                yield None
                return
            yield packet

    def _decode(self) -> Iterator[Decoded]:
        last: int | None = None
        for frame, damaged in self._frames:
            try:
                check_size(self.path, frame.width, frame.height)
                pixels = self._pixels(frame)
            except ReadError as error:
                self._count_error(error.reason)
                continue
            except _DECODER_ERRORS as error:
                self._count_error(f"its {frame.format.name} pixels cannot be converted: {_words(error)}")
                continue
            last = self._time(frame)
            if self._colour:
                yield Decoded(last, pixels, damaged)
            else:
                yield Decoded(last, pixels, damaged, rgb=partial(self._turned, frame, self._rgb), neutral=partial(_is_neutral, frame))
        self._notice_early_end()

    def _notice_early_end(self) -> None:
        """Count a cut that FFmpeg passes over in silence: bytes or packets that the container declares and does not have.

        Packets and not frames: those outside an edit list are there, and not shown.
        """
        declared = self.info.frames_declared
        if self._missing_bytes:
            reason = f"the file ends {self._missing_bytes} bytes before its declared end"
        elif declared is not None and self._packets_seen < declared:
            reason = f"the container declares {declared} frames and holds {self._packets_seen}"
        else:
            return
        self.cut_short = True
        if not self.decode_errors:
            self._count_error(reason)

    def _time(self, frame: VideoFrame) -> int | None:
        # AVI has no presentation times; there the decoding time that the decoder hands on with each frame is FFmpeg's own best guess too.
        return frame.pts if frame.pts is not None else frame.dts

    def _pixels(self, frame: VideoFrame) -> np.ndarray:
        return self._turned(frame, self._rgb if self._colour else self._gray)

    def _turned(self, frame: VideoFrame, converted: Callable[[VideoFrame], np.ndarray]) -> np.ndarray:
        pixels = converted(frame)
        quarter_turns, remainder = divmod(frame.rotation, 90)
        return np.rot90(pixels, quarter_turns) if quarter_turns % 4 and not remainder else pixels

    def _gray(self, frame: VideoFrame) -> np.ndarray:
        name = frame.format.name
        plane = frame.planes[0]
        match = _LUMA_PLANE.match(name)
        if match is None or plane.line_size <= 0:
            return cv2.cvtColor(self._rgb(frame), cv2.COLOR_RGB2GRAY)
        bits = int(match[1] or 8)
        rows = np.frombuffer(memoryview(plane), np.dtype("u1" if bits == 8 else "<u2")).reshape(plane.height, -1)
        codes = rows[:, : frame.width]
        gray_or_jpeg = name.startswith(("gray", "yuvj"))
        full_range = frame.color_range != ColorRange.MPEG if gray_or_jpeg else frame.color_range == ColorRange.JPEG
        if bits > 8:
            return luma_table(bits, full_range)[np.minimum(codes, (1 << bits) - 1)]
        return codes.copy() if full_range else cv2.LUT(codes, luma_table(8, False))

    def _rgb(self, frame: VideoFrame) -> np.ndarray:
        if frame.format.name in _PACKED and frame.planes[0].line_size > 0:
            channels, transparent, to_rgb = _PACKED[frame.format.name]
            plane = frame.planes[0]
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
            pixels = rows[:, : channels * frame.width].reshape(plane.height, frame.width, channels)
            rgb = cv2.cvtColor(pixels, to_rgb)
            return on_black(np.dstack([rgb, pixels[..., 3]])) if transparent and pixels[..., 3].min() < 255 else rgb
        if frame.format.has_palette or any(component.is_alpha for component in frame.format.components):
            rgba = self._reformatter.reformat(frame, format="rgba", interpolation=_EXACT).to_ndarray()
            return on_black(rgba)
        return self._reformatter.reformat(frame, format="rgb24", interpolation=_EXACT).to_ndarray()

    def close(self) -> None:
        self._container.close()
        if self._file is not None:
            self._file.close()


def _is_neutral(frame: VideoFrame) -> bool:
    """Whether both colour planes of an 8-bit frame are even at their middle: then its luma is its picture."""
    if _NEUTRAL_KNOWN.fullmatch(frame.format.name) is None:
        return False
    for plane in frame.planes[1:3]:
        if plane.line_size <= 0:
            return False
        codes = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width]
        low, high, _, _ = cv2.minMaxLoc(codes)
        if low != 128 or high != 128:
            return False
    return True


def on_black(rgba: np.ndarray) -> np.ndarray:
    """(height, width, 4) uint8 with straight alpha, composited on black: (height, width, 3) uint8, rounded to nearest."""
    colours, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(colours)
    return ((colours.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


def _positive(value: Fraction | None) -> Fraction | None:
    return value if value is not None and value > 0 else None


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _reason_to_refuse(source: str | BinaryIO, error: Exception) -> str:
    """What FFmpeg's log says of a file that it will not open ("moov atom not found"), and the error's own text.

    The log is silent in normal reading: its lines cost time, and damaged clips write thousands.
    """
    level, skip_repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    if not isinstance(source, str):
        source.seek(0)
    with av.logging.Capture(local=True) as lines:
        av.logging.set_level(av.logging.ERROR)
        # Else the second file of a build with the same fault would have no reason.
        av.logging.set_skip_repeated(False)
        try:
            av.open(source, mode="r", metadata_errors="replace", options={"protocol_whitelist": "file"}).close()
        except _DECODER_ERRORS:
            pass
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skip_repeated)
    words = [line.strip() for _, _, line in lines if line.strip()]
    return f"{words[0]} ({_words(error)})" if words else _words(error)
