"""How long PNG settings take on ultrasound frames, and how much they leave: `python benchmarks/png.py SET [STEP]`.

Prints milliseconds of processor time a frame and bytes over raw bytes, for every STEP-th stored frame of a data set (default 9).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2

SETTINGS = {
    "OpenCV's default": [],
    "level 1": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    "level 6": [cv2.IMWRITE_PNG_COMPRESSION, 6],
    "level 1, run lengths": [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE],
}


def main(folder: Path, step: int) -> None:
    frames = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.glob("images/*/*/*.png"))[::step]]
    raw = sum(frame.size for frame in frames)
    print(f"{len(frames)} frames, {raw / 1e6:.1f} MB raw, OpenCV {cv2.__version__}")
    for name, settings in SETTINGS.items():
        start = time.process_time()
        size = sum(len(cv2.imencode(".png", frame, settings)[1]) for frame in frames)
        print(f"{name:28} {(time.process_time() - start) / len(frames) * 1e3:6.2f} ms a frame  {size / raw:.3f} of raw")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 9)
