"""What a frame looks like under another gain, size and codec: its fine structure in the field of view, as a unit vector.

Ultrasound pictures of different patients are alike in what perceptual hashes keep (dark below, bright above, a bright line), and differ in
their speckle and layers. So the picture of the field of view is shrunk to SIDE x SIDE, band-passed by a difference of Gaussians (0.8 and
2.5 pixels), and normalised by its local contrast, which takes out gain and gamma; the scalar product of two is their correlation.

Each frame is taken three times: whole, cut to its field of view, and cut to what is lit at any time in the clip. A copy that was padded or
written on, or whose field of view was found otherwise, then still has one cut in common with its original.

Guarantees: dark and empty frames have no signature, since they are all alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.duplicates.fingerprints import pixel_digest
from usdata.errors import DataSetError

Floats = NDArray[np.float32]

SIDE = 96
FINE, COARSE, AROUND = 0.8, 2.5, 6.0  # pixels: the band that is kept, and the surroundings by whose contrast it is divided
CUTS = 3  # of each frame: the field of view, what is lit, and all of it
LIT_LEVEL, LEAST_LIT = 16, 0.02  # gray levels; share of a row or column that reaches them at some time
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
        vectors: (N, CUTS, SIDE * SIDE) unit vectors.
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
    side = math.isqrt(vectors.shape[-1])
    return np.ascontiguousarray(vectors.reshape(-1, side, side)[:, :, ::-1].reshape(vectors.shape))


def coarser(vectors: Floats) -> Floats:
    """The same signatures at half the side, a quarter of the numbers: means of 2 x 2, unit vectors again."""
    side = SIDE // 2
    means = vectors.reshape(-1, side, 2, side, 2).mean(axis=(2, 4)).reshape(*vectors.shape[:-1], side * side)
    return np.asarray(means / np.linalg.norm(means, axis=-1, keepdims=True), np.float32)


def correlations(a: Floats, b: Floats) -> Floats:
    """Correlation of each frame with each, by those cuts of the two that are most alike: (N, M) from (N, CUTS, ...) and (M, CUTS, ...)."""
    products = a.reshape(len(a) * CUTS, -1) @ b.reshape(len(b) * CUTS, -1).T
    return np.asarray(products.reshape(len(a), CUTS, len(b), CUTS).max(axis=(1, 3)), np.float32)


def lit_box(pictures: Sequence[NDArray[np.uint8]]) -> tuple[int, int, int, int] | None:
    """The box (x, y, width, height) of what is lit at any time in some frames of one size; None where nothing is."""
    lit = np.maximum.reduce(list(pictures)) > LIT_LEVEL
    rows, columns = (np.flatnonzero(lit.mean(axis=axis) >= LEAST_LIT) for axis in (1, 0))
    if not rows.size or not columns.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1


def signatures_of(folder: Path, frames: Sequence[Mapping[str, Any]], most: int | None) -> ClipSignature | None:
    """The signatures of a clip's stored frames; None where none of them has one.

    Args:
        folder: The data set.
        frames: The clip's rows of frames.parquet, by frame_index.
        most: So many of them at most, evenly spaced; None: all.

    Raises:
        DataSetError: An image cannot be read, or is another one.
    """
    chosen = range(len(frames)) if most is None else sorted({round(place) for place in np.linspace(0, len(frames) - 1, most)})
    rows = [frames[place] for place in chosen]
    pictures = [_read(folder / row["path"], row["pixel_sha256"]) for row in rows]
    lit = lit_box(pictures)
    found: list[tuple[int, str, Floats]] = []
    for row, pixels in zip(rows, pictures, strict=True):
        box = None if row["fov_x"] is None else (row["fov_x"], row["fov_y"], row["fov_width"], row["fov_height"])
        cuts = [vector for cut in (box, lit, None) if (vector := signature(pixels, cut)) is not None]
        if cuts:
            # Where one cut is too dark, another stands for it.
            found.append((row["frame_index"], row["path"], np.stack((cuts * CUTS)[:CUTS])))
    if not found:
        return None
    indices, paths, vectors = zip(*found, strict=True)
    return ClipSignature(frames[0]["video_id"], np.asarray(indices, np.int64), paths, np.stack(vectors))


def _read(path: Path, digest: str) -> NDArray[np.uint8]:
    """A stored frame; one that is not what the build wrote is refused, since OpenCV reads half a picture without a word."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None or pixel_digest(np.asarray(pixels, np.uint8)) != digest:
        raise DataSetError(path, "is no image, or not the one that was written", "build the set again")
    return np.asarray(pixels, np.uint8)
