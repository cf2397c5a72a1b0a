"""What a frame looks like under another gain, size and codec: its fine structure in the field of view, as a unit vector.

Ultrasound pictures of different patients are alike in what perceptual hashes keep (dark below, bright above, a bright line), and differ in
their speckle and layers. So the picture of the field of view is shrunk to SIDE x SIDE, band-passed by a difference of Gaussians (0.8 and
2.5 pixels), and normalised by its local contrast, which takes out gain and gamma; the scalar product of two is their correlation.

Guarantees: dark and empty frames have no signature, since they are all alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.errors import DataSetError

Floats = NDArray[np.float32]

SIDE = 96
FINE, COARSE, AROUND = 0.8, 2.5, 6.0  # pixels: the band that is kept, and the surroundings by whose contrast it is divided
LEAST_CONTRAST = 6.0  # standard deviation in gray levels of the shrunk picture
LEAST_STRUCTURE = 0.5  # gray levels, root mean square of the band
NOISE = 1.0  # gray levels that are added to the local contrast, so that flat parts stay flat


@dataclass(frozen=True)
class ClipSignature:
    """Signatures of some frames of a clip.

    Attributes:
        video_id: Whose.
        frame_index: Of each signature, (N,), rising.
        paths: Of their images, relative to the data set.
        vectors: (N, SIDE * SIDE) unit vectors.
    """

    video_id: str
    frame_index: NDArray[np.int64]
    paths: tuple[str, ...]
    vectors: Floats


def signature(pixels: NDArray[np.uint8], box: tuple[int, int, int, int] | None = None) -> Floats | None:
    """The signature of a frame, (SIDE * SIDE,); None where it is too dark or too flat to be told from others.

    Args:
        pixels: (H, W) uint8.
        box: Field of view as x, y, width, height; None: the whole picture.
    """
    if box is not None:
        x, y, width, height = box
        pixels = pixels[y : y + height, x : x + width]
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if float(small.std()) < LEAST_CONTRAST:
        return None
    band = cv2.GaussianBlur(small, (0, 0), FINE) - cv2.GaussianBlur(small, (0, 0), COARSE)
    if float(np.sqrt(np.mean(band * band))) < LEAST_STRUCTURE:
        return None
    contrast = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), AROUND)) + NOISE
    even = band / contrast
    even -= even.mean()
    return np.asarray(even.ravel() / np.linalg.norm(even), np.float32)


def flipped(vectors: Floats) -> Floats:
    """The signatures of the same frames mirrored left to right."""
    return np.ascontiguousarray(vectors.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(len(vectors), -1))


def signatures_of(folder: Path, frames: Sequence[Mapping[str, Any]], most: int | None) -> ClipSignature | None:
    """The signatures of a clip's stored frames; None where none of them has one.

    Args:
        folder: The data set.
        frames: The clip's rows of frames.parquet, by frame_index.
        most: So many of them at most, evenly spaced; None: all.

    Raises:
        DataSetError: An image cannot be read.
    """
    chosen = range(len(frames)) if most is None else sorted({round(place) for place in np.linspace(0, len(frames) - 1, most)})
    found: list[tuple[int, str, Floats]] = []
    for place in chosen:
        row = frames[place]
        path = folder / row["path"]
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            raise DataSetError(path, "is no readable image", "build the set again")
        box = None if row["fov_x"] is None else (row["fov_x"], row["fov_y"], row["fov_width"], row["fov_height"])
        vector = signature(np.asarray(pixels, np.uint8), box)
        if vector is not None:
            found.append((row["frame_index"], row["path"], vector))
    if not found:
        return None
    indices, paths, vectors = zip(*found, strict=True)
    return ClipSignature(frames[0]["video_id"], np.asarray(indices, np.int64), paths, np.stack(vectors))
