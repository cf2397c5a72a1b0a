"""Writes small data sets whose frames show a bright disc and a dark square on noise, with the masks that say where."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.uscl.evaluation.texture_set import video_name, write_texture_set

DISC, SQUARE = 1, 2
SIZE = 40


def write_mask_set(folder: Path, *, videos: int = 6, frames_per_video: int = 4, size: int = SIZE, groups: list[str] | None = None) -> Path:
    """A data set at `folder`, and its masks at `folder`-masks by frame_id; every third clip has no square."""
    textures = ("across", "down") * (videos // 2)
    write_texture_set(folder, textures=textures, groups=groups, frames_per_video=frames_per_video, size=size)
    for video in range(videos):
        for frame in range(frames_per_video):
            pixels, mask = draw([video, frame], size, with_square=video % 3 != 2)
            write_image(folder / f"images/{video}/{frame}.png", pixels)
            write_image(masks_of(folder) / f"{video_name(video)}/{frame}.png", mask)
    return folder


def masks_of(folder: Path) -> Path:
    """Where the masks of a set lie."""
    return folder.with_name(folder.name + "-masks")


def draw(seed: list[int], size: int, *, with_square: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A frame and its mask."""
    generator = np.random.default_rng(seed)
    mask = np.zeros((size, size), np.uint8)
    if with_square:
        left, top = generator.integers(1, size // 2, 2)
        mask[top : top + size // 3, left : left + size // 3] = SQUARE
    centre = generator.integers(size // 3, size - size // 4, 2).tolist()
    cv2.circle(mask, centre, size // 5, DISC, -1)
    levels = np.array([110, 220, 20])[mask] + generator.normal(0, 12, mask.shape)
    return np.clip(levels, 0, 255).astype(np.uint8), mask


def write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """A PNG; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"{path} was not written")
