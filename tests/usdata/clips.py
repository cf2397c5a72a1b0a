"""Small real clips for tests, written by PyAV and OpenCV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray


def speckle_frames(count: int, *, seed: int = 0, height: int = 64, width: int = 80, step: int = 2) -> list[NDArray[np.uint8]]:
    """Smooth speckle that moves `step` pixels a frame: neighbours are alike, and no two frames are equal."""
    noise = np.random.default_rng(seed).normal(size=(height, width + step * count + 8)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    strip = np.asarray(20 + 200 * (smooth - smooth.min()) / np.ptp(smooth), dtype=np.uint8)
    return [np.ascontiguousarray(strip[:, step * index : step * index + width]) for index in range(count)]


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], *, fps: int = 20, codec: str = "libx264") -> Path:
    """Gray frames as a video; ffv1 in .mkv is lossless."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "gray" if codec == "ffv1" else "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_png(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """One still."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path
