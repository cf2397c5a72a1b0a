"""Clips for the reader tests, encoded by FFmpeg's own program, which is the oracle too."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [FFMPEG, "-nostdin" if not stdin else "-y", "-y", *map(str, arguments)], input=stdin or None, capture_output=True, check=False
    )


def pattern(count: int, width: int, height: int, *, colour: bool = False, seed: int = 0) -> np.ndarray:
    """(count, height, width, 3) uint8: smooth structure that moves, and a bright blob whose place tells the frame; gray unless `colour`."""
    noise = np.random.default_rng(seed).normal(size=(height, width + 3 * count, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    strip = 30 + 180 * (smooth - smooth.min()) / (smooth.max() - smooth.min())
    if not colour:
        strip[:] = strip[..., :1]
    frames = np.stack([strip[:, 3 * number : 3 * number + width] for number in range(count)])
    for number, frame in enumerate(frames):
        cv2.circle(frame, (8 + number * (width - 16) // count, height // 2), 6, (250, 250, 250), -1)
    return np.rint(frames).astype(np.uint8)


def encode(path: Path, frames: np.ndarray, *options: str, rate: str = "25") -> Path:
    """Encode (count, height, width, 3) RGB frames."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    done = ffmpeg(
        "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", rate, "-i", "-", *options, path, stdin=frames.tobytes()
    )
    assert done.returncode == 0, done.stderr.decode()
    return path


def decoded(path: Path, pixel_format: str, *options: str) -> bytes:
    """What FFmpeg itself decodes: every frame, forward, as raw bytes."""
    return ffmpeg("-v", "error", "-i", path, *options, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", pixel_format, "-").stdout


def decoded_gray(path: Path, width: int, height: int, *options: str) -> np.ndarray:
    return np.frombuffer(decoded(path, "gray", *options), np.uint8).reshape(-1, height, width)


def times(path: Path) -> list[Fraction]:
    """The time of every frame as FFmpeg's showinfo filter prints it, exact: ticks × time base."""
    text = ffmpeg("-copyts", "-i", path, "-fps_mode", "passthrough", "-vf", "showinfo", "-f", "null", "-").stderr.decode("utf-8", "replace")
    base = re.search(r"config in time_base: (\d+)/(\d+)", text)
    assert base is not None, text[-2000:]
    tick = Fraction(int(base[1]), int(base[2]))
    return [int(ticks) * tick for ticks in re.findall(r" n: *\d+ pts: *(-?\d+) ", text)]


@dataclass(frozen=True)
class Sample:
    """One kind of file: its name, how it is encoded, who can read it, and how its frames are sized."""

    name: str
    kind: str
    codec: str
    options: tuple[str, ...]
    backends: tuple[str, ...] = ("pyav", "opencv", "decord")
    width: int = 96
    height: int = 64


X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "12")
X264_B = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "12", "-bf", "3", "-g", "12", "-pix_fmt", "yuv420p")
# Frames at 0, 1, 3, 4, 6, 7, ...: every third frame of the 25 Hz source is dropped and the others keep their times.
VARIABLE = ("-vf", "select='mod(n+1,3)'", "-fps_mode", "vfr")

SAMPLES = (
    Sample("h264_b_frames.mp4", "mp4", "h264", X264_B),
    Sample("h264_444.mp4", "mp4", "h264", (*X264, "-pix_fmt", "yuv444p")),
    Sample("h264_full_range.mp4", "mp4", "h264", (*X264, "-vf", "scale=out_range=full", "-color_range", "pc", "-pix_fmt", "yuv420p")),
    Sample("h264_odd_size.mp4", "mp4", "h264", (*X264, "-pix_fmt", "yuv444p"), width=131, height=97),
    Sample("h264_variable_rate.mp4", "mp4", "h264", (*VARIABLE, *X264_B)),
    Sample("h264.mov", "mp4", "h264", (*X264, "-pix_fmt", "yuv420p")),
    Sample("h264_b_frames.mkv", "matroska", "h264", X264_B),
    # decord seeks when it opens, which in a transport stream loses the key frame that the first frames need.
    Sample("h264_b_frames.ts", "mpegts", "h264", X264_B, ("pyav", "opencv")),
    Sample("mpeg4.avi", "avi", "mpeg4", ("-c:v", "mpeg4", "-q:v", "2")),
    Sample("mpeg4_b_frames.avi", "avi", "mpeg4", ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2"), ("pyav", "opencv")),
    Sample("mjpeg.avi", "avi", "mjpeg", ("-c:v", "mjpeg", "-q:v", "2"), width=131, height=97),
    Sample("uncompressed_bgr.avi", "avi", "rawvideo", ("-c:v", "rawvideo", "-pix_fmt", "bgr24")),
    Sample("uncompressed_gray.avi", "avi", "rawvideo", ("-c:v", "rawvideo", "-pix_fmt", "gray"), ("pyav", "opencv")),
    Sample("uncompressed_palette.avi", "avi", "rawvideo", ("-c:v", "rawvideo", "-pix_fmt", "pal8"), ("pyav",)),
    Sample(
        "interlaced.mpg",
        "mpegps",
        "mpeg2video",
        ("-c:v", "mpeg2video", "-q:v", "2", "-flags", "+ildct+ilme", "-f", "vob"),
        ("pyav", "opencv"),
    ),
    Sample("mpeg2.mpg", "mpegps", "mpeg2video", ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-f", "vob")),
    Sample("mpeg1.mpg", "mpegps", "mpeg1video", ("-c:v", "mpeg1video", "-q:v", "2", "-f", "mpeg")),
    Sample("wmv2.wmv", "asf", "wmv2", ("-c:v", "wmv2", "-q:v", "2")),
    Sample(
        "vp9.webm",
        "matroska",
        "vp9",
        ("-c:v", "libvpx-vp9", "-crf", "10", "-b:v", "0", "-cpu-used", "8", "-deadline", "realtime", "-pix_fmt", "yuv420p"),
    ),
    Sample("ffv1_gray.mkv", "matroska", "ffv1", ("-c:v", "ffv1", "-pix_fmt", "gray"), width=131, height=97),
    Sample("ffv1_rgb.mkv", "matroska", "ffv1", ("-c:v", "ffv1", "-pix_fmt", "bgr0")),
    Sample("gif_varying_delays.gif", "gif", "gif", VARIABLE, ("pyav", "opencv")),
)
COUNT = 24
