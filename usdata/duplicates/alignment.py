"""Where one clip's picture lies in another's: scale and shift, by the mean pictures of both.

The correlation of the two band-passed means is climbed from several starts, first at a quarter of the side, where slopes reach far, then at
half of it and at last in full: Gauss-Newton in the four parameters of the placement. Up to the sign, the gradient of the correlation is
that of the squared distance of unit vectors (Evangelidis and Psarakis, "Parametric Image Alignment using Enhanced Correlation Coefficient
Maximization", 2008), so a step costs one least-squares problem of four unknowns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.duplicates.descriptors import Cell, Floats, band
from usdata.duplicates.key_frames import SIDE

COARSEST_SIDE, COARSE_SIDE = SIDE // 4, SIDE // 2
CLIMBED_ON = 2  # of the starts, the best at the coarsest side
AROUND = 4.0  # pixels, see descriptors
MOST_STEPS, LEAST_GAIN = 16, 1e-3  # a climb ends when a step, but for the first three, gains less correlation than that
LONGEST_STEP, FARTHEST_BACK = 0.04, 0.02  # of the side; correlation that an early step may lose
LEAST_COMMON = 0.3  # of the picture must lie in the other
SMALLEST, LARGEST = 0.5, 2.0


@dataclass(frozen=True)
class Placement:
    """The part of b's picture that shows what all of a's shows, as shares of b's width and height; it may reach beyond b's edges."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of_cell(cls, cell: Cell) -> Placement:
        """a is that cell of b."""
        return cls(*cell)

    @property
    def inverse(self) -> Placement:
        """Where b's picture lies in a's."""
        return Placement(-self.x / self.width, -self.y / self.height, 1 / self.width, 1 / self.height)

    @property
    def enlarges(self) -> bool:
        """a shows more than b."""
        return self.width * self.height > 1

    def distance(self, other: Placement) -> float:
        """Largest difference of the four numbers."""
        return float(np.abs(self._array - other._array).max())

    @property
    def _array(self) -> NDArray[np.float64]:
        return np.array([self.x, self.y, self.width, self.height])

    def common(self, side: int) -> NDArray[np.bool_]:
        """Which pixels of a's picture, (side, side), lie in b's."""
        places = (np.arange(side) + 0.5) / side
        across, down = self.x + self.width * places, self.y + self.height * places
        return np.outer((down >= 0) & (down <= 1), (across >= 0) & (across <= 1))

    def seen_in(self, picture: NDArray[np.generic], side: int) -> Floats:
        """b's picture (H, W) as a would show it, (side, side): linear interpolation; beyond its edge the edge's own levels."""
        height, width = picture.shape
        across, down = self.width * width / side, self.height * height / side
        matrix = np.array([[across, 0, self.x * width + (across - 1) / 2], [0, down, self.y * height + (down - 1) / 2]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(picture.astype(np.float32), matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(warped, np.float32)

    def rounded(self) -> Placement:
        """To four decimals, far below a pixel."""
        return Placement(*(round(float(value), 4) for value in self._array))


def align_coarsely(mean_a: Floats, mean_b: Floats, starts: Sequence[Placement]) -> tuple[float, Placement]:
    """The best placement at half the side, and the correlation there.

    Args:
        mean_a: Mean picture of a, (SIDE, SIDE).
        mean_b: Of b, likewise; mirrored where b is a's mirror image.
        starts: Placements to climb from, one or more.
    """
    found = sorted(
        (_climb(_shrunk(mean_a, COARSEST_SIDE), _shrunk(mean_b, COARSEST_SIDE), start) for start in starts),
        key=lambda pair: -pair[0],
    )
    apart = [pair for place, pair in enumerate(found) if all(pair[1].distance(other) > 0.5 / SIDE for _, other in found[:place])]
    coarse_a, coarse_b = _shrunk(mean_a, COARSE_SIDE), _shrunk(mean_b, COARSE_SIDE)
    return max((_climb(coarse_a, coarse_b, placement) for _, placement in apart[:CLIMBED_ON]), key=lambda pair: pair[0])


def _shrunk(mean: Floats, side: int) -> Floats:
    return np.asarray(cv2.resize(mean, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def align_finely(mean_a: Floats, mean_b: Floats, start: Placement) -> tuple[float, Placement]:
    """The placement at the full side, from a coarse one."""
    return _climb(mean_a, mean_b, start)


def _climb(picture_a: Floats, picture_b: Floats, start: Placement) -> tuple[float, Placement]:
    side = picture_a.shape[0]
    target = band(picture_a, AROUND)
    places = ((np.arange(side) + 0.5) / side).astype(np.float32)
    best, best_placement = -1.0, start
    placement = start
    for step in range(MOST_STEPS):
        common = placement.common(side)
        if np.count_nonzero(common) < LEAST_COMMON * common.size:
            break
        seen = band(placement.seen_in(picture_b, side), AROUND)
        a, b = target[common], seen[common]
        a, b = a - a.mean(), b - b.mean()
        length_a, length_b = np.sqrt(np.sum(a * a)), np.sqrt(np.sum(b * b))
        if not length_a or not length_b:
            break
        a, b = a / length_a, b / length_b
        correlation = float(np.sum(a * b))
        gain = correlation - best
        if gain > 0:
            best, best_placement = correlation, placement
        if gain < LEAST_GAIN and (step > 2 or gain < -FARTHEST_BACK):
            break
        across = cv2.Sobel(seen, cv2.CV_32F, 1, 0, scale=side / 8) / placement.width
        down = cv2.Sobel(seen, cv2.CV_32F, 0, 1, scale=side / 8) / placement.height
        slopes = np.stack([across, down, across * places, down * places[:, None]], axis=-1)[common]
        slopes = (slopes - slopes.mean(axis=0)) / length_b
        slopes -= b[:, None] * np.einsum("i,ij->j", b, slopes)
        square = np.einsum("ij,ik->jk", slopes, slopes).astype(np.float64)
        square[np.diag_indices(4)] *= 1.001
        square[np.diag_indices(4)] += 1e-9
        change = np.linalg.solve(square, np.einsum("ij,i->j", slopes, a - correlation * b).astype(np.float64)) / max(correlation, 0.4)
        placement = Placement(*(placement._array + np.clip(change, -LONGEST_STEP, LONGEST_STEP)))
        if not (SMALLEST < placement.width < LARGEST and SMALLEST < placement.height < LARGEST):
            break
    return best, best_placement
