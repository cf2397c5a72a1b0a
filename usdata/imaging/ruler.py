"""Depth rulers: an upright row of small, evenly spaced ticks or dots beside the field of view, that stands still in every frame.

In: what a collector saw of a clip, and its field of view. Out: where the ticks stand and how far apart, to a fraction of a pixel; the scale
in mm only where one convention alone can be meant, since a wrong scale is worse than none. No digit is read. Only upright rulers are found,
not those along the edge of a sector. In the darkest value over time, what is thin from top to bottom stands out of what is taller (an
axis line, a gray bar, large letters), and pieces of one width and one edge are tested for even places.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.geometry import AnnulusSector, Geometry, box_of

# Where no other source is named: set on benchmarks/depth_ruler.py DATA --seed 1 and on the rulers of 11 real files, of 384 looked at.
CONTRAST = 36  # gray levels over what is above and below: H.264 rings by up to 25 around letters
FEWEST_TICKS = 5
LEAST_FILLED = 0.8  # of the places between the first and the last tick
RESIDUAL = 0.06  # of the spacing, root mean square
WHOLE_ROWS = 0.35  # pixels of residual that are always allowed: ticks drawn on whole rows give 0.29
LEAST_SPACING = 4.0  # pixels: closer ticks run together in a compressed picture
LEAST_SPAN = 0.4  # of the field of view's height: a ruler measures all of it
LEAST_SPAN_ALONE = 0.25  # of the picture's height, where the field of view is not known
LONGEST_GAP = 3  # places from one tick to the next that is seen, or a fifth of all ticks if these are more
EMPTY = 0.35  # of a tick's contrast: less halfway to the next is no ink
CLEAN_GAPS = 0.75  # of the gaps between ticks hold no ink
LINED = 0.5  # of the ticks: with ink to one side in more, they are bullets of a list, or letters
INSET = 0.06  # of the field of view's width: how far inside a ruler may stand (real: 0.03)
INSET_SECTOR = 0.14  # likewise from the side of a sector's box, whose corners are empty
LONGEST_MAJOR = 4  # times the width of a usual tick
MAJOR_RATIO = 1.25  # of ink, larger ticks to smaller ones: 5-pixel to 4-pixel dashes
LARGEST = 1000  # pixels: a strip with sides of twice this and more is halved
TRIALS = 10  # columns that are tested, those with the most pieces first
# mm a tick by how many ticks lie from one major tick to the next; real: 2 mm with 5 (Clarius), 5 mm with none (SonoSite), 10 mm with 5.
CONVENTIONS: dict[int | None, tuple[float, ...]] = {
    None: (1.0, 2.0, 5.0, 10.0, 20.0),
    2: (2.5, 5.0, 10.0),
    4: (2.5, 5.0),
    5: (1.0, 2.0, 10.0),
    10: (1.0, 10.0),
}
DEPTHS_MM = (15.0, 350.0)  # of a field of view
FACES_MM = (8.0, 80.0)  # radius of a convex probe's face
CONVEX = 0.15  # inner radius to depth: below it the probe is phased, and has no curved face
DEPTH_TOLERANCE = 0.05


@dataclass(frozen=True)
class Ruler:
    """An upright ruler, in raw pixels.

    Attributes:
        x: Column of the ticks' middle (of the smaller ticks, where there are larger ones).
        first_y: Row of the uppermost tick, by the fit.
        last_y: Row of the lowest.
        spacing_px: From one tick to the next, by least squares over all.
        ticks: Places from the first to the last, those included that something covers.
        major_every: A larger tick comes each so many ticks (the largest, where there are three sizes); None: all are alike.
        levels: Sizes of ticks, 1 to 3.
        side: left or right of the field of view, or inside.
        mm_per_tick: Where it is certain, else None.
        certainty: What a scale comes from: depth (the depth of the scan is known and fits one convention alone), levels (three sizes,
            1:5:10, and more ticks than centimetres in a body); geometry: one convention alone is plausible, which is not certain.
        plausible_mm: Every convention, in mm a tick, that the sizes of ticks and the field of view leave.
    """

    x: float
    first_y: float
    last_y: float
    spacing_px: float
    ticks: int
    major_every: int | None
    levels: int
    side: str
    mm_per_tick: float | None = None
    certainty: str | None = None
    plausible_mm: tuple[float, ...] = ()

    @property
    def mm_per_pixel(self) -> float | None:
        """Where the scale is certain."""
        return None if self.mm_per_tick is None else self.mm_per_tick / self.spacing_px

    def to_json(self) -> str:
        """As JSON, rounded to 0.01, so that equal pictures give equal text everywhere."""
        rounded = {key: round(value, 2) + 0.0 if isinstance(value, float) else value for key, value in vars(self).items()}
        return json.dumps(rounded, sort_keys=True)


class _Pieces(NamedTuple):
    """Small pieces of ink from top to bottom: columns left <= x < right, mean row, rows."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    middle: NDArray[np.float64]
    high: NDArray[np.int64]


class _Row(NamedTuple):
    """Ticks at first + spacing × 0..len(mass)-1 in a column; `mass` is the ink of each, NaN where something covers it."""

    x: float
    first: float
    spacing: float
    mass: NDArray[np.float64]


def find_ruler(collector: EvidenceCollector, geometry: Geometry | None, depth_mm: float | None = None) -> Ruler | None:
    """The depth ruler of a clip; None where there is none, or none that is sure.

    Args:
        collector: That saw the clip.
        geometry: The field of view in source pixels; without it the whole picture is searched.
        depth_mm: Depth of the scan where something else tells it (a DICOM header).
    """
    darkest = collector.darkest
    if darkest is None:
        raise ValueError("no frame was seen")
    height, width = darkest.shape
    if geometry is None:
        x, y, wide, high = 0, 0, width, height
        strips = [(0, width, width, width)]
    else:
        x, y, wide, high = box_of(geometry, height, width)
        inset = round((INSET_SECTOR if isinstance(geometry, AnnulusSector) else INSET) * wide)
        begin = max(x + wide - inset, 0)
        # Of each strip also what of it lies within the field of view's box.
        strips = [(0, min(x + inset, width), x, width), (begin, width, 0, x + wide - begin)]
    around = max(8, high // 8)
    top, bottom = max(0, y - around), min(height, y + high + around)
    least_span = LEAST_SPAN_ALONE * height if geometry is None else LEAST_SPAN * high
    best: _Row | None = None
    for left, right, inner_left, inner_right in strips:
        row = _best_row(darkest[top:bottom, left:right], slice(inner_left, inner_right), height, least_span)
        if row is not None and (best is None or row.mass.size > best.mass.size):
            best = row._replace(x=left + row.x, first=top + row.first)
    if best is None:
        return None
    major, levels = _majors(best.mass)
    mm, certainty, plausible = _scale(best, major, levels, geometry, depth_mm, high)
    last = best.first + (best.mass.size - 1) * best.spacing
    side = "left" if best.x < x + wide / 2 else "right"
    if geometry is not None:
        outline = np.asarray(geometry.polygon(), np.float32)
        rows = (best.first, (best.first + last) / 2, last)
        side = "inside" if any(cv2.pointPolygonTest(outline, (best.x, y), False) > 0 for y in rows) else side
    return Ruler(best.x, best.first, last, best.spacing, best.mass.size, major, levels, side, mm, certainty, plausible)


def _best_row(low: NDArray[np.uint8], field: slice, height: int, least_span: float) -> _Row | None:
    """The row with the most ticks in a strip of the darkest picture; `height` is the picture's, by which ticks are large or small."""
    factor = max(1, max(low.shape) // LARGEST)
    if min(low.shape) < 4 * factor:
        return None
    if factor > 1:
        low = np.asarray(cv2.resize(low, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA), np.uint8)
        height, least_span = height // factor, least_span / factor
        field = slice(field.start // factor, field.stop // factor)
    kernel = np.ones((max(13, height // 45) | 1, 1), np.uint8)
    contrast = np.asarray(cv2.morphologyEx(low, cv2.MORPH_TOPHAT, kernel), np.uint8)
    pieces = _pieces(contrast, max(6, height // 80), max(12, height // 20), max(6, height // 60))
    best: _Row | None = None
    covered = np.zeros(pieces.left.size, bool)
    for chosen in _aligned(pieces, contrast.shape[1]):
        if best is not None and chosen.size < LEAST_FILLED * best.mass.size:
            break
        if covered[chosen].sum() > chosen.size / 2:
            continue
        row = _tested(contrast, field, pieces, chosen)
        if row is not None and (row.mass.size - 1) * row.spacing >= least_span:
            covered[chosen] = True
            best = row if best is None or row.mass.size > best.mass.size else best
    if best is None:
        return None
    return _Row((best.x + 0.5) * factor - 0.5, (best.first + 0.5) * factor - 0.5, best.spacing * factor, best.mass)


def _pieces(contrast: NDArray[np.uint8], tallest: int, widest: int, apart: int) -> _Pieces:
    """Small compact pieces of ink with nothing close by on one side at least: no letters but the first and last of a word."""
    ink = cv2.threshold(contrast, CONTRAST, 1, cv2.THRESH_BINARY)[1]
    width, flat = contrast.shape[1], ink.reshape(-1)
    places = np.flatnonzero(flat.view(bool))
    if not places.size:
        return _Pieces(places, places, places.astype(np.float64), places)
    # Statistics over the ink alone: OpenCV's own, over all pixels, take three times as long.
    labels = cv2.connectedComponents(ink, connectivity=8, ltype=cv2.CV_16U if places.size < 1 << 16 else cv2.CV_32S)[1].reshape(-1)[places]
    order = np.argsort(labels, kind="stable")
    rows, columns = np.divmod(places[order], width)
    starts = np.flatnonzero(np.diff(labels[order].astype(np.int64), prepend=-1))
    area = np.diff(starts, append=places.size)
    left, right = np.minimum.reduceat(columns, starts), np.maximum.reduceat(columns, starts) + 1
    wide, high = right - left, rows[starts + area - 1] - rows[starts] + 1
    middle = np.add.reduceat(rows, starts) / area
    # Small discs fill half of their box, rings of three pixels 0.44.
    solid = area >= np.where((wide > 3) & (high > 3), 0.5, 0.4) * wide * high
    small = np.flatnonzero((high <= tallest) & (wide <= widest) & (wide >= 2) & solid & (2 * wide >= high))
    row, reach = np.rint(middle[small]).astype(np.int64)[:, None], np.arange(2, apart + 1)
    crowded = np.ones(small.size, bool)
    for columns in (right[small, None] - 1 + reach, left[small, None] - reach):
        crowded &= (flat[row * width + np.clip(columns, 0, width - 1)] * ((columns >= 0) & (columns < width))).any(axis=1)
    chosen = small[~crowded]
    chosen = chosen[np.argsort(middle[chosen], kind="stable")]
    return _Pieces(left[chosen], right[chosen], middle[chosen], high[chosen])


def _aligned(pieces: _Pieces, width: int) -> list[NDArray[np.intp]]:
    """Sets of pieces that share a left edge, a middle or a right edge to about a pixel, largest first."""
    found: dict[bytes, NDArray[np.intp]] = {}
    for places, slack in ((pieces.left, 1), (pieces.right, 1), (pieces.left + pieces.right, 2)):
        around = np.convolve(np.bincount(places, minlength=2 * width + 4), np.ones(2 * slack + 1, np.int64), mode="same")
        peaks = np.flatnonzero(around >= FEWEST_TICKS)
        taken: list[int] = []
        for peak in peaks[np.argsort(-around[peaks], kind="stable")].tolist():
            if len(taken) < TRIALS and all(abs(peak - other) > slack for other in taken):
                taken.append(peak)
                chosen = np.flatnonzero(np.abs(places - peak) <= slack)
                found.setdefault(chosen.tobytes(), chosen)
    return sorted(found.values(), key=lambda chosen: -chosen.size)[:TRIALS]


def _tested(contrast: NDArray[np.uint8], field: slice, pieces: _Pieces, chosen: NDArray[np.intp]) -> _Row | None:
    """The row of ticks that these pieces are, if they are one; what is beside them in the field of view does not count."""
    guess = _spacing(pieces.middle[chosen])
    if guess is None:
        return None
    spacing, first, inlier = guess
    lefts, rights, high = pieces.left[chosen][inlier], pieces.right[chosen][inlier], pieces.high[chosen][inlier]
    wide = rights - lefts
    alike = (np.abs(wide[:, None] - wide) <= np.maximum(1, wide // 8)).mean(axis=1)
    if (alike >= 0.1).mean() < 0.9:
        return None
    # Columns that the smaller ticks share: all ticks have ink there. Pieces that are aligned otherwise, but evenly placed, belong to it.
    left, right = int(np.median(lefts)), int(np.median(rights))
    fellows = (np.abs(pieces.left - left) <= 1) | (np.abs(pieces.right - right) <= 1)
    fellows |= np.abs(pieces.left + pieces.right - left - right) <= 2
    numbers = (pieces.middle - first) / spacing
    fellows &= np.abs(numbers - np.rint(numbers)) * spacing <= max(0.1 * spacing, 1.0)
    fellows &= pieces.right - pieces.left <= LONGEST_MAJOR * (right - left)
    known = np.unique(np.rint(numbers[fellows])).astype(np.int64)
    gaps = np.flatnonzero(np.diff(known) > max(LONGEST_GAP, known.size // 5))
    zero = int(np.searchsorted(known, 0))
    start, stop = int(known[gaps[gaps < zero].max(initial=-1) + 1]), int(known[gaps[gaps >= zero].min(initial=known.size - 1)]) + 1
    profile = contrast[:, left:right].mean(axis=1, dtype=np.float64)
    rows = first + spacing * np.arange(start, stop)
    reach = max(1, min(round(0.3 * spacing), 6))
    window = np.rint(rows).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
    valid = (window >= 0) & (window < len(profile))
    window = np.clip(window, 0, len(profile) - 1)
    ink = np.where(valid, profile[window], 0.0)
    near = ink[:, reach - 1 : reach + 2].max(axis=1)
    usual = float(np.median(near))
    filled = near >= max(0.4 * usual, CONTRAST / 2)
    enough = max(FEWEST_TICKS, LEAST_FILLED * filled.size)
    if filled.sum() < enough or (profile[np.rint((rows[:-1] + rows[1:]) / 2).astype(np.int64)] < EMPTY * usual).mean() < CLEAN_GAPS:
        return None
    # Where a tick is, to a fraction of a row: the centre of its ink.
    sure = np.flatnonzero(filled)
    fit = _line(sure.astype(np.float64), (ink[sure] * window[sure]).sum(axis=1) / ink[sure].sum(axis=1))
    if fit is None or fit[2].sum() < enough:
        return None
    spacing, first, _ = fit
    # Most lines of text have more beside their first letter; dashes may have digits. Single ticks may be covered by letters.
    outer_left, outer_right = int(pieces.left[fellows].min()), int(pieces.right[fellows].max())
    digits = max(12, 3 * (outer_right - outer_left))
    marked: NDArray[np.bool_] = np.asarray(
        contrast[np.clip(np.rint(first + spacing * np.arange(filled.size)).astype(np.int64), 0, len(profile) - 1)] > CONTRAST
    )
    marked[:, field] = False
    sides = [outer_left - 3 * digits, outer_left - digits, outer_left - 1, outer_right + 1, outer_right + digits, outer_right + 3 * digits]
    far_left, before, _, behind, far_right = (marked[:, max(0, a) : max(0, b)].any(axis=1) for a, b in pairwise(sides))
    flat = bool(np.median(wide) >= 2 * np.median(high))
    lined = [far_left, far_right] if flat else [far_left, far_right, before, behind]
    known = np.flatnonzero(filled & ~np.logical_and(before, behind))
    if max(np.asarray(side)[filled].mean() for side in lined) > LINED or known.size < FEWEST_TICKS:
        return None
    across = contrast[:, outer_left:outer_right].sum(axis=1, dtype=np.float64)
    mass = np.full(filled.size, np.nan)
    mass[known] = np.where(valid, across[window], 0.0).sum(axis=1)[known]
    return _Row((left + right - 1) / 2, first + spacing * int(known[0]), spacing, mass[known[0] : known[-1] + 1])


def _spacing(ys: NDArray[np.float64]) -> tuple[float, float, NDArray[np.bool_]] | None:
    """The even spacing of most of these sorted rows, the row of one of them by the fit, and which fit."""
    steps = np.diff(ys)
    steps = steps[steps >= LEAST_SPACING - 0.5]
    if steps.size < FEWEST_TICKS - 2:
        return None
    alike = np.abs(steps[:, None] - steps) <= np.maximum(1.0, RESIDUAL * steps[:, None])
    support = alike.sum(axis=1)
    best = int(support.argmax())
    if support[best] < FEWEST_TICKS - 2:
        return None
    about = float(steps[alike[best]].mean())
    # Fine enough that the phase slips by less than an eighth of a turn over the whole row.
    turns = max((ys[-1] - ys[0]) / about, 1.0)
    finer = int(np.ceil(0.05 * turns * 4)) + 1
    tried = about * (1 + 0.05 * np.linspace(-1, 1, 2 * finer + 1))
    phases = np.exp(2j * np.pi * ys / tried[:, None]).sum(axis=1)
    found = int(np.abs(phases).argmax())
    spacing, first = float(tried[found]), float(np.angle(phases[found]) / (2 * np.pi) * tried[found])
    numbers = np.rint((ys - first) / spacing)
    fit = _line(numbers, ys)
    if fit is None or fit[0] < LEAST_SPACING:
        return None
    spacing, first, inlier = fit
    return spacing, first + spacing * float(numbers[inlier][0]), inlier


def _line(numbers: NDArray[np.float64], ys: NDArray[np.float64]) -> tuple[float, float, NDArray[np.bool_]] | None:
    """Spacing and offset by least squares, and which rows lie near the line; None where too few do, or not near enough."""
    kept: NDArray[np.bool_] = np.ones(len(ys), bool)
    for bound in (0.2, 0.15):
        x, y = numbers[kept], ys[kept]
        if len(x) < FEWEST_TICKS:
            return None
        x = x - x.sum() / len(x)
        spread = float(x @ x)
        if spread < FEWEST_TICKS:  # rows of fewer ticks than it takes
            return None
        spacing = float(x @ y) / spread
        offset = float(y.sum() - spacing * numbers[kept].sum()) / len(y)
        away = np.abs(ys - offset - spacing * numbers)
        kept = np.asarray(away <= max(bound * spacing, 1.0))
    away = away[kept]
    if len(away) < FEWEST_TICKS or math.sqrt(float(away @ away) / len(away)) > max(RESIDUAL * spacing, WHOLE_ROWS):
        return None
    return spacing, offset, kept


def _majors(mass: NDArray[np.float64]) -> tuple[int | None, int]:
    """How many ticks from one large tick to the next, and how many sizes there are."""
    for every in (2, 4, 5, 10):
        larger = _larger(mass, every)
        if larger is not None and every == 5 and _larger(mass[larger::5], 2) is not None:
            return 10, 3
        if larger is not None:
            return every, 2
    return None, 1


def _larger(mass: NDArray[np.float64], every: int) -> int | None:
    """Where the row of each `every`-th tick starts that are larger than the others; a tenth of these, a fifth of those may be covered."""
    known = np.flatnonzero(~np.isnan(mass))
    ink, place = np.minimum(mass[known], 3 * np.median(mass[known])), known % every
    start = int((np.bincount(place, ink, every) / np.maximum(np.bincount(place, minlength=every), 1)).argmax())
    large, others = np.sort(ink[place == start]), np.sort(ink[place != start])
    if min(large.size, others.size) < 2:
        return None
    return start if large[large.size // 10] >= MAJOR_RATIO * others[others.size - 1 - others.size // 5] else None


def _scale(
    row: _Row, major: int | None, levels: int, geometry: Geometry | None, depth_mm: float | None, high: int
) -> tuple[float | None, str | None, tuple[float, ...]]:
    """What a tick measures, what tells, and all it could measure."""
    span = (row.mass.size - 1) * row.spacing
    depth = face = 0.0
    if isinstance(geometry, AnnulusSector):
        lowest = geometry.apex_y + geometry.radius_outer
        if geometry.clip is not None:
            lowest = min(lowest, geometry.clip.y + geometry.clip.height - 0.5)
        depth = lowest - geometry.apex_y - geometry.radius_inner
        face = geometry.radius_inner if geometry.radius_inner >= CONVEX * depth else 0.0
    elif geometry is not None:
        depth = float(high)
    possible = [mm for mm in CONVENTIONS[major] if span / row.spacing * mm <= DEPTHS_MM[1]]
    if depth_mm is not None and depth > 0:
        fitting = [mm for mm in possible if abs(depth / row.spacing * mm - depth_mm) <= DEPTH_TOLERANCE * depth_mm]
        return (fitting[0], "depth", tuple(fitting)) if len(fitting) == 1 else (None, None, tuple(fitting))
    if depth > 0:
        possible = [mm for mm in possible if DEPTHS_MM[0] <= depth / row.spacing * mm <= DEPTHS_MM[1]]
    # Three sizes at 1:5:10 are millimetres, or centimetres where those make no more than a body.
    if levels == 3 and 10.0 not in possible and 1.0 in possible:
        return 1.0, "levels", (1.0,)
    if face > 0:
        possible = [mm for mm in possible if FACES_MM[0] <= face / row.spacing * mm <= FACES_MM[1]]
    return None, "geometry" if len(possible) == 1 else None, tuple(possible)
