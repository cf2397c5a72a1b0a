"""A clip in a few numbers, for finding candidates: its mean picture, whole and cut in many ways, in its lowest cosine coefficients.

The mean over time keeps what stands still in a clip (layers, shadows, the probe's own pattern) and survives another frame rate and a part
of the clip. It is band-passed and divided by its local contrast, which takes out gain and gamma; of its two-dimensional DCT-II the lowest
coefficients are kept, each divided by how much it varies from clip to clip, so that what all ultrasound shares counts little. A copy
that was cropped is like one of the CELLS of its original. Mirroring changes the signs of the odd horizontal coefficients alone.

Descriptors are whole numbers, so that products of them are exact in float32 and equal on any number of threads.
"""

from __future__ import annotations

from itertools import product
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

Floats = NDArray[np.float32]
Cell = tuple[float, float, float, float]

FINE, COARSE = 0.8, 2.5  # pixels, standard deviations of the two Gaussians whose difference is the band
NOISE = 1.0  # gray levels that are added to the local contrast, so that flat parts stay flat
LIMIT = 2.0  # of the normalised band: letters and edges count no more than this
DESCRIBED_SIDE = 32
AROUND = 3.0  # pixels of DESCRIBED_SIDE, the surroundings by whose contrast a pixel is divided
LOWEST = 8  # coefficients along each side
SCALES, STEP, MOST_UNEVEN = (1.0, 0.88, 0.77), 0.06, 0.2
LEAST_LENGTH = 1.0  # of the coefficients over their spread, whose length is typically 8; an even picture has none
WHOLE_NUMBERS = 180.0  # what a unit descriptor is multiplied with; hardly a coefficient reaches .7, so that all fit into a byte

# Standard deviation of each coefficient (down: vertical frequency, across: horizontal) over 359 real lung recordings and all their cells.
SPREAD = np.array(
    [
        [1.000, 0.059, 0.145, 0.234, 0.253, 0.200, 0.154, 0.117],
        [0.069, 0.061, 0.107, 0.128, 0.159, 0.157, 0.127, 0.101],
        [0.123, 0.073, 0.099, 0.118, 0.131, 0.121, 0.107, 0.087],
        [0.131, 0.077, 0.087, 0.087, 0.094, 0.090, 0.083, 0.071],
        [0.133, 0.090, 0.091, 0.083, 0.083, 0.075, 0.068, 0.060],
        [0.129, 0.090, 0.093, 0.079, 0.074, 0.068, 0.060, 0.052],
        [0.124, 0.090, 0.093, 0.076, 0.070, 0.063, 0.054, 0.045],
        [0.118, 0.079, 0.082, 0.070, 0.063, 0.056, 0.047, 0.039],
    ]
)


def _cells() -> tuple[Cell, ...]:
    found = []
    for width, height in product(SCALES, SCALES):
        if abs(np.log(width / height)) <= MOST_UNEVEN:
            across, down = (np.linspace(0, 1 - size, ceil((1 - size) / STEP - 1e-9) + 1) for size in (width, height))
            found += [(float(x), float(y), width, height) for x, y in product(across, down)]
    return tuple(found)


# Parts of a picture, x, y, width and height as shares of it; the first is all of it.
CELLS = _cells()
NUMBERS = LOWEST * LOWEST - 1  # the constant one says nothing
MIRRORED = np.array([1 - 2 * (number % LOWEST % 2) for number in range(1, LOWEST * LOWEST)], np.int8)


def band(picture: Floats, around: float) -> Floats:
    """Fine structure of a picture (H, W) of gray levels, evened out: difference of Gaussians over local contrast, within LIMIT of 0."""
    fine = cv2.GaussianBlur(picture, (0, 0), FINE) - cv2.GaussianBlur(picture, (0, 0), COARSE)
    contrast = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), around)) + NOISE
    return np.asarray(np.clip(fine / contrast, -LIMIT, LIMIT), np.float32)


def describe(mean: Floats) -> NDArray[np.int8]:
    """(len(CELLS), NUMBERS) of a mean picture (H, W): a descriptor a cell."""
    height, width = mean.shape
    bands = []
    for x, y, across, down in CELLS:
        left, top, right, bottom = (round(value) for value in (x * width, y * height, (x + across) * width, (y + down) * height))
        size = (DESCRIBED_SIDE, DESCRIBED_SIDE)
        bands.append(band(cv2.resize(mean[top:bottom, left:right], size, interpolation=cv2.INTER_AREA).astype(np.float32), AROUND))
    coefficients = dctn(np.stack(bands).astype(np.float64), axes=(1, 2), norm="ortho")[:, :LOWEST, :LOWEST] / SPREAD
    numbers = coefficients.reshape(len(CELLS), -1)[:, 1:]
    lengths = np.linalg.norm(numbers, axis=1, keepdims=True)
    numbers = np.where(lengths > LEAST_LENGTH, numbers / np.maximum(lengths, LEAST_LENGTH), 0)
    return np.asarray(np.clip(np.rint(numbers * WHOLE_NUMBERS), -127, 127), np.int8)
