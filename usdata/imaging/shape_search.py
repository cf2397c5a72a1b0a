"""The rectangle and the annulus sector with the greatest sum of votes, over a map that says for each pixel what speaks for and against it.

Around a given apex a sector is a rectangle of polar coordinates, whose best edges are found exactly along one axis at a time (greatest sum
of a run of numbers, Bentley 1984, after Kadane); the apex is searched, coarse to fine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle

Floats = NDArray[np.float32]
Shape = TypeVar("Shape", bound=Geometry, covariant=True)

WIDEST_DEG = 70.0  # from straight down, of a sector's edge
# Closer and closer around a first fit: cells of the polar grid a side, margin in working pixels, halvings of the step of the apex.
WAYS = (((1, 0), (-1, 0)), ((0, 1), (0, -1)), ((1, 1), (-1, -1)), ((1, -1), (-1, 1)))
MOST_TURNS = 12
CLOSER = ((80, 10.0, 1), (144, 5.0, 0))


@dataclass(frozen=True)
class Fit(Generic[Shape]):
    """A shape in working pixels and its sum of votes."""

    geometry: Shape
    votes: float


@dataclass(frozen=True)
class SectorFit:
    """A sector in working pixels, its sum of votes, and its run of angles in the grid that it was found in."""

    geometry: AnnulusSector
    votes: float
    run: tuple[int, int]


def best_rectangle(votes: Floats) -> Fit[Rectangle]:
    """The best rectangle of a map of votes (H, W): edges along one axis at a time, to a fraction of a pixel."""
    by_column = votes.sum(axis=0, dtype=np.float64)
    left, right, _ = _best_run(by_column)
    by_row, top, bottom, most = by_column, 0, len(votes), 0.0
    for _ in range(3):
        by_row = votes[:, left : max(right, left + 1)].sum(axis=1, dtype=np.float64)
        top, bottom, _ = _best_run(by_row)
        by_column = votes[top : max(bottom, top + 1)].sum(axis=0, dtype=np.float64)
        left, right, most = _best_run(by_column)
    (x, x_end), (y, y_end) = _refined(by_column, left, right), _refined(by_row, top, bottom)
    return Fit(Rectangle(x, y, max(x_end - x, 1.0), max(y_end - y, 1.0)), most)


def best_sector(votes: Floats, inside: NDArray[np.bool_]) -> SectorFit | None:
    """The best annulus sector of a map of votes; None where there is none.

    Args:
        votes: (H, W).
        inside: Where to begin to look: what speaks for it.
    """
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        return None
    top, height, width = int(rows[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    sector = _first_guess(votes, _axis(inside), top, height, width)
    best: SectorFit | None = None
    for cells, margin, halvings in CLOSER:
        if sector is None:
            return None
        # A margin of some working pixels around what was found, which moves with the apex.
        first = max(0.0, sector.radius_inner - margin)
        turn = margin / max(sector.radius_outer, 1)
        low, high = math.radians(sector.angle_left_deg) - turn, math.radians(sector.angle_right_deg) + turn
        close = _Polar(votes, (cells, cells), sector.radius_outer + margin - first, (low, high))
        best = close.best([(sector.apex_x, sector.apex_y)], [first], rounds=1 if halvings else 2)
        best = None if best is None else _climb(close, best, (0.01 * width, 0.02 * height), halvings, margin=margin)
        sector = None if best is None else best.geometry
    return best


def _first_guess(votes: Floats, axis: float, top: int, height: int, width: int) -> AnnulusSector | None:
    """A sector on a smaller map and a coarse grid.

    Args:
        votes: (H, W).
        axis: Column about which it lies evenly.
        top: First row of what is inside.
        height: Of that.
        width: Of that.
    """
    factor = max(1, min(votes.shape) // 90)
    small = cv2.resize(votes, (votes.shape[1] // factor, votes.shape[0] // factor), interpolation=cv2.INTER_AREA)
    scale = votes.shape[1] / small.shape[1]
    widest = math.radians(WIDEST_DEG)
    coarse = _Polar(np.asarray(small, np.float32), (56, 64), math.hypot(*small.shape), (-widest, widest))
    starts = [(axis / scale, (top - above * height) / scale) for above in (0.0, 0.2, 0.5, 1.0)]
    # Two at a time: larger arrays are given back to the system and asked for again at each call, which takes longer than the sums.
    pairs = [starts[place : place + 2] for place in range(0, len(starts), 2)]
    fits = [fit for pair in pairs if (fit := coarse.best(pair, [max(0.0, -y) for _, y in pair])) is not None]
    if not fits:
        return None
    best = max(fits, key=lambda fit: fit.votes)
    return _climb(coarse, best, (0.08 * width / scale, 0.12 * height / scale), 1).geometry.scaled(scale, scale)


def _axis(inside: NDArray[np.bool_]) -> float:
    """The column about which the part inside lies evenly: the median over rows of the middle between its ends."""
    picture = inside[inside.any(axis=1)]
    first = picture.argmax(axis=1)
    last = picture.shape[1] - 1 - picture[:, ::-1].argmax(axis=1)
    return float(np.median((first + last) / 2))


class _Polar:
    """Votes in polar coordinates around any apex: one grid of offsets, moved.

    The grid covers `radii` steps outwards from a first radius that each call gives, and `angles` steps between two angles.
    """

    def __init__(self, votes: Floats, cells: tuple[int, int], depth: float, turn: tuple[float, float]) -> None:
        """Make the grid.

        Args:
            votes: (H, W).
            cells: Steps outwards, and of angle.
            depth: Pixels that they cover.
            turn: Radians from straight down that they cover, from and to.
        """
        radii, angles = cells
        self.votes = votes
        self.step_r, self.step_a, self.low = depth / radii, (turn[1] - turn[0]) / angles, turn[0]
        self.r = ((np.arange(radii, dtype=np.float32) + 0.5) * self.step_r)[:, None].astype(np.float32)
        a = self.low + (np.arange(angles, dtype=np.float32) + 0.5) * self.step_a
        self.along = np.stack([np.sin(a), np.cos(a)], axis=-1).astype(np.float32)
        self.offset = self.r[..., None] * self.along

    def best(
        self, apexes: Sequence[tuple[float, float]], firsts: Sequence[float], run: tuple[int, int] | None = None, rounds: int = 1
    ) -> SectorFit | None:
        """The best sector around any of some apexes: edges along one axis at a time.

        Args:
            apexes: (x, y) each.
            firsts: The radius from which the grid begins, for each.
            run: Of angles, to begin with; None: the best over all radii.
            rounds: How often radii and angles are taken in turn.
        """
        count, (radii, angles) = len(apexes), self.offset.shape[:2]
        start = np.asarray(firsts, np.float32)[:, None, None]
        ray = np.asarray(apexes, np.float32)[:, None] + start * self.along
        places = (self.offset + ray[:, None]).reshape(count * radii, angles, 2)
        found = cv2.remap(self.votes, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        # In double precision once, and not at every sum.
        polar = np.multiply(found.reshape(count, radii, angles), (self.r + start) * np.float32(self.step_r * self.step_a), dtype=np.float64)
        if run is None:
            left, right, _ = _best_runs(polar.sum(axis=1))
        else:
            left, right = np.full(count, run[0]), np.full(count, run[1])
        for _ in range(rounds):
            by_depth = np.einsum("nra,na->nr", polar, _within(left, right, angles))
            near, far, _ = _best_runs(by_depth)
            by_angle = np.einsum("nra,nr->na", polar, _within(near, far, radii))
            left, right, votes = _best_runs(by_angle)
        votes = np.where((right - left < 2) | (far - near < 2), -1.0, votes)
        place = int(votes.argmax())
        if votes[place] < 0:
            return None
        first_r, last_r = _refined(by_depth[place], int(near[place]), int(far[place]))
        first_a, last_a = _refined(by_angle[place], int(left[place]), int(right[place]))
        sector = AnnulusSector(
            *apexes[place],
            firsts[place] + first_r * self.step_r,
            firsts[place] + last_r * self.step_r,
            math.degrees(self.low + first_a * self.step_a),
            math.degrees(self.low + last_a * self.step_a),
        )
        return SectorFit(sector, float(votes[place]), (int(left[place]), int(right[place])))


@lru_cache(maxsize=32)
def _places(length: int) -> NDArray[np.intp]:
    return np.arange(length)


def _within(first: NDArray[np.intp], end: NDArray[np.intp], length: int) -> NDArray[np.float64]:
    """(N, length): 1 from each first number to the one before the end, at least one number long, and 0 elsewhere."""
    places = _places(length)
    return ((places >= first[:, None]) & (places < np.maximum(end, first + 1)[:, None])).astype(np.float64)


def _climb(polar: _Polar, best: SectorFit, steps: tuple[float, float], halvings: int, *, margin: float | None = None) -> SectorFit:
    """Pattern search for the apex (Hooke and Jeeves 1961): the better side along each of four lines in turn, then smaller steps.

    Args:
        margin: How far within the inner radius of the last fit the next one begins; None: at the picture's upper edge.
    """
    for _ in range(halvings):
        start = best.geometry
        place, idle = (0, 0), 0
        tried = {place}
        for turn in range(MOST_TURNS):
            ways = WAYS[turn % len(WAYS)]
            new = [there for right, down in ways if (there := (place[0] + right, place[1] + down)) not in tried]
            tried.update(new)
            apexes = [(start.apex_x + right * steps[0], start.apex_y + down * steps[1]) for right, down in new]
            # The inner edge stays where it is in the picture.
            inner = [best.geometry.radius_inner - (down - place[1]) * steps[1] for _, down in new]
            firsts = [max(0.0, -apex[1] if margin is None else radius - margin) for apex, radius in zip(apexes, inner, strict=True)]
            fit = polar.best(apexes, firsts, best.run) if new else None
            if fit is not None and fit.votes > best.votes * 1.0002:
                place = new[apexes.index((fit.geometry.apex_x, fit.geometry.apex_y))]
                best, idle = fit, 0
            else:
                idle += 1
            if idle == len(WAYS):
                break
        steps = steps[0] / 2, steps[1] / 2
    return best


def _best_run(sums: NDArray[np.float64]) -> tuple[int, int, float]:
    """The run of numbers with the greatest sum: (first, one behind the last, sum)."""
    first, end, total = _best_runs(sums[None])
    return int(first[0]), int(end[0]), float(total[0])


def _best_runs(sums: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """The run with the greatest sum in each row of (N, length): first, one behind the last, sum, (N,) each."""
    count, length = sums.shape
    totals = np.zeros((count, length + 1))
    np.add.accumulate(sums, axis=1, out=totals[:, 1:])
    lowest = np.minimum.accumulate(totals, axis=1)
    each = _places(count)
    end = (totals - lowest).argmax(axis=1)
    least = lowest[each, end]
    # The last place before the end where the total is lowest: the shortest such run.
    candidate = (totals == least[:, None]) & (_places(length + 1) <= end[:, None])
    first = length - candidate[:, ::-1].argmax(axis=1)
    return first, end, totals[each, end] - least


def _refined(sums: NDArray[np.float64], start: int, end: int) -> tuple[float, float]:
    """A run's two edges, in between numbers, to a fraction of one."""
    return _edge(sums, start, -1), _edge(sums, end, 1)


def _edge(sums: NDArray[np.float64], edge: int, outwards: int) -> float:
    """Where between the last number inside and the first outside the sum would cross zero: the edge to a fraction of a pixel.

    Between the centres of both numbers the votes are taken as linear; the whole edge lies in the middle of the two.
    """
    inner, outer = (edge, edge - 1) if outwards < 0 else (edge - 1, edge)
    if not (0 <= outer < len(sums) and 0 <= inner < len(sums)) or sums[inner] <= 0 or sums[outer] >= 0:
        return float(edge)
    share = float(sums[inner] / (sums[inner] - sums[outer]))
    return edge + outwards * (share - 0.5)
