"""How long image formats take on ultrasound frames, and how much they leave: `python benchmarks/image_formats.py SET [STEP]`.

Prints milliseconds of processor time a frame to write and to read, and bytes over raw bytes, for every STEP-th stored frame of a data set
(default 9).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

Encoder = Callable[[np.ndarray], bytes]


def opencv(suffix: str, *settings: int) -> tuple[Encoder, Encoder]:
    """OpenCV's encoder and decoder of a format."""
    return (
        lambda frame: cv2.imencode(suffix, frame, settings)[1].tobytes(),
        lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED),
    )


FORMATS: dict[str, tuple[Encoder, Encoder]] = {
    "PNG, OpenCV's default": opencv(".png"),
    "PNG, level 1": opencv(".png", cv2.IMWRITE_PNG_COMPRESSION, 1),
    "PNG, level 6": opencv(".png", cv2.IMWRITE_PNG_COMPRESSION, 6),
    "PNG, level 1, run lengths": opencv(".png", cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    "JPEG-LS": (imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
    "WebP, lossless": opencv(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
    "JPEG 95 (lossy)": opencv(".jpg", cv2.IMWRITE_JPEG_QUALITY, 95),
    "JPEG 100 (lossy)": opencv(".jpg", cv2.IMWRITE_JPEG_QUALITY, 100),
}


def main(folder: Path, step: int) -> None:
    cv2.setNumThreads(1)
    frames = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.glob("images/*/*/*.png"))[::step]]
    raw = sum(frame.size for frame in frames)
    print(f"{len(frames)} frames, {raw / 1e6:.1f} MB raw, OpenCV {cv2.__version__}")
    for name, (encode, decode) in FORMATS.items():
        start = time.process_time()
        encoded = [encode(frame) for frame in frames]
        middle = time.process_time()
        for data in encoded:
            decode(data)
        write, read = ((after - before) / len(frames) * 1e3 for before, after in ((start, middle), (middle, time.process_time())))
        print(f"{name:28} write {write:6.2f} ms  read {read:6.2f} ms  {sum(map(len, encoded)) / raw:.3f} of raw")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 9)
