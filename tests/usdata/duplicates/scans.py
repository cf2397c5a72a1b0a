"""Pictures like those of a recording: what stands still, and what moves and never comes back."""

from __future__ import annotations

import cv2
import numpy as np

from usdata.duplicates.key_frames import MOST_KEY_FRAMES, KeyFrames, cut


def scan(seed: int, frames: int = 24, height: int = 200, width: int = 240) -> np.ndarray:
    """(frames, height, width) uint8: half of the structure stands still, the other half changes within some frames."""
    rng = np.random.default_rng(seed)

    def field() -> np.ndarray:
        noise = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), height / 70)
        return np.asarray(noise / noise.std(), np.float32)

    still, moving = field(), [field() for _ in range(frames // 4 + 2)]
    pictures = []
    for number in range(frames):
        before, part = divmod(number, 4)
        change = np.cos(part / 4 * np.pi / 2) * moving[before] + np.sin(part / 4 * np.pi / 2) * moving[before + 1]
        pictures.append(np.clip(80 + 26 * still + 18 * change, 0, 255).astype(np.uint8))
    return np.stack(pictures)


def key_frames(name: str, pictures: np.ndarray, box: tuple[int, int, int, int] | None = None) -> KeyFrames:
    """Those of a clip, of all its frames; the box is the field of view."""
    box = (0, 0, pictures.shape[2], pictures.shape[1]) if box is None else box
    stride = -(-len(pictures) // MOST_KEY_FRAMES)
    places, small = cut(list(pictures[::stride]), box)
    return KeyFrames(name, np.asarray(places, np.int64) * stride, box, small)
