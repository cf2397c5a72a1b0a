"""Small pictures of frames: as the data set stores them, under the evidence for a class, and as text that a page holds."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from uscl.frames import read_gray
from usdata.errors import DataSetError
from usdata.manifest import DataSet, is_inside

THUMBNAIL_HEIGHT = 160
THUMBNAIL_ASPECT = (0.6, 1.8)
JPEG_QUALITY = 80
HEAT_OPACITY = 0.65
OUTLINE_SIDE = 4 * THUMBNAIL_HEIGHT
OUTLINE = (215, 195, 90)  # blue, green, red


def thumbnail(dataset: DataSet, row: int) -> NDArray[np.uint8]:
    """(160, w, 3) the frame as the data set stores it, in its own proportions (0.6 to 1.8 at most)."""
    path = str(dataset.frames["path"].iloc[row])
    if not is_inside(path):
        raise DataSetError(dataset.folder, f"its manifest names an image outside the set ({path})", "do not use this data set")
    gray = read_gray(dataset.folder / path)
    aspect = float(np.clip(gray.shape[1] / gray.shape[0], *THUMBNAIL_ASPECT))
    shrinks = gray.shape[0] > THUMBNAIL_HEIGHT
    way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    small = cv2.resize(gray, (round(THUMBNAIL_HEIGHT * aspect), THUMBNAIL_HEIGHT), interpolation=way)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR), dtype=np.uint8)


def overlaid(
    small: NDArray[np.uint8], heat: NDArray[np.float32], inside: NDArray[np.bool_] | None, finer: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """A thumbnail (h, w, 3) under its heat (size, size), which is left out outside the field of view, whose outline is drawn.

    Args:
        small: The thumbnail.
        heat: (size, size), never negative.
        inside: (size, size) the field of view; None: not known, and all heat is drawn.
        finer: The same with more pixels, for a smooth edge.

    The heat is scaled to its own largest value inside, so colours tell where, not how much.
    """
    height, width = small.shape[:2]
    # The largest value inside sets the scale; what is outside is cut off after the resizing, so that the edge keeps its heat.
    largest = float(heat.max() if inside is None else np.where(inside, heat, 0).max())
    scaled = cv2.resize(np.asarray(heat / max(largest, 1e-12), dtype=np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    mask = (
        None
        if inside is None
        else cv2.resize((inside if finer is None else finer).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    )
    if mask is not None:
        scaled = np.where(mask >= 0.5, scaled, 0)
    coloured = cv2.applyColorMap(np.asarray(255 * np.clip(scaled, 0, 1), dtype=np.uint8), cv2.COLORMAP_INFERNO)
    opacity = (HEAT_OPACITY * np.clip(scaled, 0, 1))[..., None]
    mixed = np.asarray(np.round(small * (1 - opacity) + coloured * opacity), dtype=np.uint8)
    if mask is not None:
        contours, _ = cv2.findContours((mask >= 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mixed, contours, -1, OUTLINE, 1)
    return mixed


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """(h, w, 3) as a JPEG that a page holds."""
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
