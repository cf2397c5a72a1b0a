"""Where the ultrasound lies in the stored frames, so that crops can stay inside it.

In comes a data set's table of frames; out come boxes in pixels of the store. A frame whose field of view is not known has none.
"""

from __future__ import annotations

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
