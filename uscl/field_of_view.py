"""Where the ultrasound lies in the stored frames, so that crops can stay inside it.

In comes a data set's table of frames; out come boxes in pixels of the store. A frame whose field of view is not known has none. For
pictures also its outline: which pixels of the store lie inside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from uscl.pairs import VideoIndex


def frame_boxes(frames: pd.DataFrame, size: int) -> np.ndarray:
    """The boxes of the fields of view after every frame was stretched to size x size.

    Args:
        frames: Rows of frames.parquet: `fov_x`, `fov_y`, `fov_width`, `fov_height` (null = not known) in pixels of `width` by `height`.
        size: Height and width of stored frames.

    Returns:
        (frames, 4) top, left, bottom and right edges in stored pixels, NaN where not known.
    """
    named = ("fov_x", "fov_y", "fov_width", "fov_height", "width", "height")
    x, y, box_width, box_height, width, height = (frames[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in named)
    return np.stack([y / height, x / width, (y + box_height) / height, (x + box_width) / width], axis=1) * size


def video_boxes(boxes: np.ndarray, index: VideoIndex, size: int) -> np.ndarray:
    """One box a video, that of all its frames: the union of their fields of view, widened to whole pixels.

    The frames that a view mixes, and all views of a video in all epochs, so share one box, and what is cropped does not depend on which
    frames are drawn. A video without any known field of view has the whole picture.

    Args:
        boxes: Of `frame_boxes`.
        index: The videos.
        size: Height and width of stored frames.

    Returns:
        (videos, 4) int64 top, left, height and width.
    """
    own = boxes[index.frame_rows]
    # A video has at least one frame, so every segment that `reduceat` sees is its own.
    first = np.fmin.reduceat(own[:, :2], index.starts)
    last = np.fmax.reduceat(own[:, 2:], index.starts)
    unknown = np.isnan(first).any(axis=1) | np.isnan(last).any(axis=1)
    first[unknown], last[unknown] = 0, size
    # The slack keeps an edge that stands on a whole pixel there, whatever the rounding of the scaling.
    low = np.clip(np.floor(first + 1e-6), 0, size - 1).astype(np.int64)
    high = np.clip(np.ceil(last - 1e-6), low + 1, size).astype(np.int64)
    return np.concatenate([low, high - low], axis=1)


def field_of_view_mask(geometry: str | None, box: np.ndarray, width: int, height: int, size: int) -> np.ndarray | None:
    """Which pixels of a stored frame lie inside its field of view.

    Args:
        geometry: `fov_stored_geometry` of videos.parquet: JSON of a rectangle or of the sector of an annulus, in pixels of the image, whose
            centres have whole coordinates; angles in degrees from straight down, positive to the right. None: not known.
        box: (4,) of `frame_boxes`, which counts where the outline is not known.
        width: Of the image that was stretched to the store's size, in pixels.
        height: The same.
        size: Height and width of stored frames.

    Returns:
        (size, size), True inside: by the pixels' centres; None where neither is known.
    """
    places = np.arange(size) + 0.5
    x, y = (places * width / size - 0.5)[None, :], (places * height / size - 0.5)[:, None]
    if geometry is not None:
        return _inside(json.loads(geometry), x, y)
    if np.isnan(box).any():
        return None
    top, left, bottom, right = box
    return np.asarray(((places >= top) & (places <= bottom))[:, None] & ((places >= left) & (places <= right))[None, :])


def _inside(shape: Mapping[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(h, w) of x (1, w) and y (h, 1): which of these places a shape holds."""
    if shape["kind"] == "rectangle":
        across = (x >= shape["x"] - 0.5) & (x <= shape["x"] + shape["width"] - 0.5)
        return np.asarray(across & (y >= shape["y"] - 0.5) & (y <= shape["y"] + shape["height"] - 0.5))
    right, down = x - shape["apex_x"], y - shape["apex_y"]
    radius, angle = np.hypot(right, down), np.degrees(np.arctan2(right, down))
    ring = (radius >= shape["radius_inner"]) & (radius <= shape["radius_outer"])
    inside = ring & (angle >= shape["angle_left_deg"]) & (angle <= shape["angle_right_deg"])
    clip = shape.get("clip")
    return np.asarray(inside & _inside({"kind": "rectangle", **clip}, x, y) if clip else inside)
