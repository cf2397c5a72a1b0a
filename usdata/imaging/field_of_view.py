"""Where the ultrasound is in the picture: a shape fitted to what a clip shows over time, and how sure that is.

A scanner's surroundings stand still and tissue moves, so the evidence is temporal: each working pixel votes for being inside (it moves) or
against it (it does not, with little weight: shadows and badly coupled flanks are still and dark too). Of all rectangles and all annulus
sectors the one with the greatest sum of votes is taken. Around a given apex a sector is a rectangle of polar coordinates, whose best edges
are found exactly along one axis at a time (greatest sum of a run of numbers, Bentley 1984, after Kadane); the apex is searched, coarse to
fine. An edge so stands where fewer than AGAINST / (1 + AGAINST) of the pixels along it move, which bridges dark parts, and small things
that move elsewhere (a clock, a pointer, an ECG) are not worth the area between.

Clips in which nothing moves (stills, frozen scans) are judged by what is lit, and with less confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.evidence import Evidence
from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle

Floats = NDArray[np.float32]

ACCEPTED = 0.85  # confidence from which an estimate is taken without asking anyone
AGAINST = 0.7  # weight of a still pixel against a moving one
LEAST_ACTIVITY = 0.35  # gray levels: below it nothing moves, whatever the noise
LIT = 6  # gray levels above the background
LEAST_AREA = 0.05  # a smaller share of the picture is no field of view
EDGE_SHARE = 0.2  # of the typical activity: less is what codecs smear over the edge
LIT_SHARE = 0.2  # of the typical brightness, likewise
FAINT = 0.15  # weight of a dim pixel that touches what moves
SKEW_DEG = 8.0  # sum of the edges' angles beyond which a sector is suspected to lack a flank
EDGES = ("left", "right", "near", "far")
SECTOR_GAIN = 1.012  # a sector must explain this much more than a rectangle, which has fewer parameters


@dataclass(frozen=True)
class Estimate:
    """A field of view and what speaks for it.

    Attributes:
        geometry: In source pixels; None where nothing was found.
        confidence: 0 to 1; see `_confidence`.
        still: Nothing moved: judged by what is lit.
        views: Pictures side by side.
        why: What makes it unsure, a few words; empty where it is accepted.
    """

    geometry: Geometry | None
    confidence: float
    still: bool = False
    views: int = 1
    why: str = ""

    @property
    def accepted(self) -> bool:
        """Sure enough to be used without a person."""
        return self.geometry is not None and self.confidence >= ACCEPTED


@dataclass(frozen=True)
class _Fit:
    """A shape in working pixels and its sum of votes."""

    geometry: Geometry
    votes: float


def estimate(evidence: Evidence) -> Estimate:
    """The field of view of a clip.

    Args:
        evidence: Of its unique frames.
    """
    inside, still = tissue_mask(evidence)
    area = int(np.count_nonzero(inside))
    if area < LEAST_AREA * inside.size:
        return Estimate(None, 0.0, still, why="nothing in it looks like ultrasound")
    votes = np.where(inside, np.float32(1), np.float32(-AGAINST)).astype(np.float32)
    # Not right beside what moves: codecs and reduction blur the tissue's edge outwards.
    beside = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    votes[_dim(evidence, inside) & ~beside] = FAINT
    rectangle = _best_rectangle(votes)
    # No shape can gain more than all that is for it.
    can_gain = float(votes[votes > 0].sum(dtype=np.float64)) > SECTOR_GAIN * rectangle.votes
    sector = _best_sector(votes, inside) if can_gain else None
    best = sector if sector is not None and sector.votes > SECTOR_GAIN * rectangle.votes else rectangle
    if best is sector:
        best = _restored(best, votes, inside, evidence)
    confidence, why = _confidence(best, inside, evidence, still)
    views = 2 if _is_dual(inside) else 1
    if views == 2:
        confidence, why = min(confidence, 0.5), "two pictures side by side"
    factor = evidence.factor
    geometry = _in_source_pixels(best.geometry, factor, evidence.height, evidence.width)
    return Estimate(geometry, round(confidence, 4), still, views, "" if confidence >= ACCEPTED else why)


def tissue_mask(evidence: Evidence) -> tuple[NDArray[np.bool_], bool]:
    """Working pixels that look like tissue, and whether that was judged without any movement."""
    graphics = _graphics(evidence)
    moving = _moving(evidence, graphics)
    if evidence.frames > 2 and np.count_nonzero(moving) >= LEAST_AREA * moving.size:
        return moving, False
    background = _background(evidence.mean)
    lit = np.abs(evidence.mean - background) > LIT
    return _solid(lit & ~graphics, max(1, min(lit.shape) // 60)), True


def _moving(evidence: Evidence, graphics: NDArray[np.bool_]) -> NDArray[np.bool_]:
    activity = cv2.blur(evidence.activity, (3, 3))
    border = np.concatenate([activity[:2].ravel(), activity[-2:].ravel(), activity[:, :2].ravel(), activity[:, -2:].ravel()])
    # The quieter half of the border: a field of view may reach the picture's edge on some sides.
    quiet = np.sort(border)[: max(1, border.size // 2)]
    floor = float(np.median(quiet) + 3 * np.median(np.abs(quiet - np.median(quiet))))
    # A level above the noise, or a tenth of what the moving part typically does: codecs smear movement over the edge.
    strong = activity[activity > max(LEAST_ACTIVITY, 1.5 * floor)]
    typical = float(np.median(strong)) if strong.size else 0.0
    bound = max(LEAST_ACTIVITY, 1.5 * floor, EDGE_SHARE * typical)
    # Codecs also carry movement a few pixels beyond the edge, faintly: what never gets bright there is not tissue.
    lit = evidence.brightest > 4
    if strong.size:
        lit = evidence.brightest > 4 + LIT_SHARE * float(np.median(evidence.brightest[activity > bound]))
    return _solid((activity > bound) & lit & ~graphics, max(1, min(activity.shape) // 80))


def _solid(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """What is left without thin lines and letters and far-off specks, with small holes filled."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    # At half the size, for speed: this only says which parts are meant, not where they end.
    half = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    opened = cv2.morphologyEx(np.ascontiguousarray(closed[::2, ::2]), cv2.MORPH_OPEN, half)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    if count < 2:
        return np.zeros(mask.shape, bool)
    areas = boxes[1:, cv2.CC_STAT_AREA]
    large = np.flatnonzero(areas >= 0.04 * areas.max()) + 1
    # Opening rounds corners off: what was there before and touches is given back.
    near = cv2.dilate(np.isin(labels, large).astype(np.uint8), half)
    near = cv2.resize(near, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray((closed > 0) & (near > 0))


def _graphics(evidence: Evidence) -> NDArray[np.bool_]:
    """Strongly coloured parts that are small or thin within their box: interface, not tissue; a Doppler box is neither."""
    if evidence.chroma is None:
        return np.zeros(evidence.mean.shape, bool)
    strong = cv2.morphologyEx((evidence.chroma > 40).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
    areas = boxes[:, cv2.CC_STAT_AREA]
    fill = areas / np.maximum(boxes[:, cv2.CC_STAT_WIDTH] * boxes[:, cv2.CC_STAT_HEIGHT], 1)
    small = (areas < 0.004 * strong.size) | (fill < 0.25)
    small[0] = False
    return np.asarray(small[labels]) if count > 1 else np.zeros(strong.shape, bool)


def _background(mean: Floats) -> float:
    """The gray level of most of the border, rounded."""
    border = np.concatenate([mean[:2].ravel(), mean[-2:].ravel(), mean[:, :2].ravel(), mean[:, -2:].ravel()])
    counts = np.bincount(np.clip(np.rint(border), 0, 255).astype(np.int64), minlength=256)
    level = int(counts.argmax())
    # A picture that is all tissue has no background: then black is meant.
    return float(level) if counts[max(0, level - 1) : level + 2].sum() > 0.3 * border.size else 0.0


def _best_run(sums: NDArray[np.float64]) -> tuple[int, int, float]:
    """The run of numbers with the greatest sum: (first, one behind the last, sum)."""
    totals = np.zeros(len(sums) + 1)
    np.add.accumulate(sums, out=totals[1:])
    gains = totals - np.minimum.accumulate(totals)
    end = int(gains.argmax())
    return end - int(totals[end::-1].argmin()), end, float(gains[end])


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


def _best_rectangle(votes: Floats) -> _Fit:
    by_column = votes.sum(axis=0, dtype=np.float64)
    left, right, _ = _best_run(by_column)
    by_row, top, bottom, most = by_column, 0, len(votes), 0.0
    for _ in range(3):
        by_row = votes[:, left : max(right, left + 1)].sum(axis=1, dtype=np.float64)
        top, bottom, _ = _best_run(by_row)
        by_column = votes[top : max(bottom, top + 1)].sum(axis=0, dtype=np.float64)
        left, right, most = _best_run(by_column)
    (x, x_end), (y, y_end) = _refined(by_column, left, right), _refined(by_row, top, bottom)
    return _Fit(Rectangle(x, y, max(x_end - x, 1.0), max(y_end - y, 1.0)), most)


class _Polar:
    """Votes in polar coordinates around any apex: one grid of offsets, moved."""

    def __init__(self, votes: Floats, radii: int, angles: int, *, mirrored: bool = False, widest_deg: float = 70.0) -> None:
        self.votes = votes
        self.mirrored = mirrored
        self.radii, self.angles, self.widest = radii, angles, math.radians(widest_deg)

    def best(self, apex_x: float, apex_y: float, near: AnnulusSector | None = None) -> _Fit | None:
        """The best sector around an apex: edges along one axis at a time."""
        height, width = self.votes.shape
        corners = np.hypot([apex_x, apex_x, width - apex_x, width - apex_x], [apex_y, height - apex_y, apex_y, height - apex_y])
        first = max(0.0, -apex_y) if near is None else max(0.0, near.radius_inner - 8)
        last = float(corners.max()) if near is None else near.radius_outer + 8
        low, high = -self.widest, self.widest
        if near is not None:
            margin = 8 / max(near.radius_outer, 1)
            low, high = math.radians(near.angle_left_deg) - margin, math.radians(near.angle_right_deg) + margin
            if self.mirrored:
                low, high = min(low, -high), max(high, -low)
        step_r, step_a = (last - first) / self.radii, (high - low) / self.angles
        r = (first + (np.arange(self.radii, dtype=np.float32) + 0.5) * step_r)[:, None].astype(np.float32)
        a = (low + (np.arange(self.angles, dtype=np.float32) + 0.5) * step_a)[None, :].astype(np.float32)
        x, y = np.float32(apex_x) + r * np.sin(a), np.float32(apex_y) + r * np.cos(a)
        found = cv2.remap(self.votes, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        # In double precision once, and not at every sum.
        polar = np.multiply(found, r * np.float32(step_r * step_a), dtype=np.float64)
        if self.mirrored:
            # Darkness opposite to what moves counts a little against the sector, and no more.
            polar = np.where((polar < 0) & (polar[:, ::-1] > 0), 0.1 * polar, polar)
        by_angle = polar.sum(axis=0)
        left, right, votes = _best_run(by_angle)
        by_depth, near_end, far_end = by_angle, 0, self.radii
        for _ in range(2):
            by_depth = polar[:, left : max(right, left + 1)].sum(axis=1)
            near_end, far_end, _ = _best_run(by_depth)
            by_angle = polar[near_end : max(far_end, near_end + 1)].sum(axis=0)
            left, right, votes = _best_run(by_angle)
        if right - left < 2 or far_end - near_end < 2:
            return None
        (first_r, last_r), (first_a, last_a) = _refined(by_depth, near_end, far_end), _refined(by_angle, left, right)
        sector = AnnulusSector(
            apex_x,
            apex_y,
            first + first_r * step_r,
            first + last_r * step_r,
            math.degrees(low + first_a * step_a),
            math.degrees(low + last_a * step_a),
        )
        return _Fit(sector, votes)


def _best_sector(votes: Floats, inside: NDArray[np.bool_], *, mirrored: bool = False) -> _Fit | None:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    height, width = bottom - top + 1, right - left + 1
    centre = _axis(inside, (left + right) / 2)
    coarse_scale = max(1, min(votes.shape) // 90)
    small = cv2.resize(votes, (votes.shape[1] // coarse_scale, votes.shape[0] // coarse_scale), interpolation=cv2.INTER_AREA)
    scale = votes.shape[1] / small.shape[1]
    coarse = _Polar(small, 56, 64, mirrored=mirrored)
    best: _Fit | None = None
    for above in (-0.05, 0.1, 0.3, 0.6, 1.1):
        for aside in (-0.4, -0.15, 0.0, 0.15, 0.4) if mirrored else (0.0,):
            fit = coarse.best((centre + aside * width) / scale, (top - above * height) / scale)
            if fit is not None and (best is None or fit.votes > best.votes):
                best = fit
    if best is None:
        return None
    best = _climb(coarse, best, (0.08 * width / scale, 0.12 * height / scale), 2)
    sector = best.geometry.scaled(scale, scale)
    assert isinstance(sector, AnnulusSector)
    fine = _Polar(votes, 96, 96, mirrored=mirrored)
    start = fine.best(sector.apex_x, sector.apex_y, sector)
    if start is None:
        return None
    return _climb(fine, start, (0.014 * width, 0.028 * height), 2, near=True)


def _axis(inside: NDArray[np.bool_], otherwise: float) -> float:
    """The column about which the moving part lies evenly: the median over rows of the middle between its ends."""
    some = inside.any(axis=1)
    if not some.any():
        return otherwise
    picture = inside[some]
    first = picture.argmax(axis=1)
    last = picture.shape[1] - 1 - picture[:, ::-1].argmax(axis=1)
    return float(np.median((first + last) / 2))


def _climb(polar: _Polar, best: _Fit, steps: tuple[float, float], halvings: int, *, near: bool = False) -> _Fit:
    """Pattern search for the apex (Hooke and Jeeves 1961): try both ways along each axis, halve the steps when nothing is better."""
    step_x, step_y = steps
    tried: set[tuple[float, float]] = set()
    for _ in range(halvings):
        for _ in range(6):
            before = best
            for right, down in ((step_x, 0.0), (-step_x, 0.0), (0.0, step_y), (0.0, -step_y)):
                sector = best.geometry
                assert isinstance(sector, AnnulusSector)
                apex = sector.apex_x + right, sector.apex_y + down
                if apex in tried:
                    continue
                tried.add(apex)
                guess = replace(sector, radius_inner=max(0.0, sector.radius_inner + down), radius_outer=sector.radius_outer + down)
                fit = polar.best(*apex, guess if near else None)
                if fit is not None and fit.votes > best.votes * 1.0002:
                    best = fit
            if best is before:
                break
        step_x, step_y = step_x / 2, step_y / 2
    return best


def _is_dual(inside: NDArray[np.bool_]) -> bool:
    """Two parts of like size and height side by side, with a gap between them."""
    columns = inside.sum(axis=0)
    used = np.flatnonzero(columns > 0.1 * columns.max())
    gaps = np.flatnonzero(np.diff(used) > max(2, inside.shape[1] // 100))
    if gaps.size != 1:
        return False
    left, right = inside[:, : used[gaps[0]] + 1], inside[:, used[gaps[0] + 1] :]
    areas = sorted((int(left.sum()), int(right.sum())))
    heights = sorted((int(left.any(axis=1).sum()), int(right.any(axis=1).sum())))
    return areas[0] > 0.5 * areas[1] and heights[0] > 0.8 * heights[1]


def _dim(evidence: Evidence, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that are a little brighter than the background, or darker, and touch what moves: shadows and weak flanks of the tissue."""
    level = cv2.blur(evidence.mean, (3, 3)) - _background(evidence.mean)
    dim = ((level > 1.5) & (level < 24)) | (level < -1.5)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    opened = cv2.morphologyEx((dim | inside).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    count, labels = cv2.connectedComponents(opened, connectivity=4)
    touching = np.zeros(count, bool)
    touching[np.unique(labels[inside & (opened > 0)])] = True
    touching[0] = False
    return np.asarray(touching[labels])


def _restored(best: _Fit, votes: Floats, inside: NDArray[np.bool_], evidence: Evidence) -> _Fit:
    """A sector with one flank in the dark, made symmetric about the vertical through its apex; others as they are.

    Scanners draw symmetric sectors, but for steered ones. Only where one side fades out instead of ending, and where what moves is still
    held, the mirror image of the other side is believed.
    """
    sector = best.geometry
    assert isinstance(sector, AnnulusSector)
    sides = edge_sharpness(sector, evidence)
    if min(sides["left"], sides["right"]) > 0.5 and abs(sector.angle_left_deg + sector.angle_right_deg) < SKEW_DEG:
        return best
    symmetric = _best_sector(votes, inside, mirrored=True)
    if symmetric is None:
        return best
    shape = symmetric.geometry
    assert isinstance(shape, AnnulusSector)
    held, held_before = (measures_of(fit, inside)["held"] for fit in (symmetric, best))
    new = edge_sharpness(shape, evidence)
    sharper = max(new["left"], new["right"]) >= 0.85 * max(sides["left"], sides["right"])
    # Where the new part would lie, nothing but darkness: text and other tissue speak against it.
    added = shape.mask(*inside.shape) & ~sector.mask(*inside.shape)
    bright = float(np.mean(evidence.brightest[added] > _background(evidence.mean) + 40)) if added.any() else 0.0
    return symmetric if held >= held_before - 0.01 and sharper and bright < 0.1 else best


def edge_sharpness(geometry: Geometry, evidence: Evidence) -> dict[str, float]:
    """For each of the four edges, how sharply the picture ends there: 1 = from full brightness to the background within 3 working pixels.

    The mean gray level over time, less the background's, in a band just inside the edge and in one just outside, over that deeper inside;
    medians along the edge. A shadow or an end of penetration fades out over many pixels; a scanner's mask does not. An edge that is the
    picture's own is sharp by definition.
    """
    offsets = np.array([-10, -8, -6, -3.0, -2.0, 2.0, 3.0, 4.0], np.float32)
    along = np.linspace(0.08, 0.92, 40, dtype=np.float32)
    x, y = [], []
    for edge in EDGES:
        at_x, at_y, out_x, out_y = _edge_points(geometry, edge, along)
        x.append(at_x[None] + offsets[:, None] * out_x[None])
        y.append(at_y[None] + offsets[:, None] * out_y[None])
    level = np.abs(evidence.mean - _background(evidence.mean))
    sampled = cv2.remap(level, np.stack(x).reshape(4, -1), np.stack(y).reshape(4, -1), cv2.INTER_LINEAR, borderValue=-1000.0)
    found = {}
    for place, edge in enumerate(EDGES):
        rows = sampled[place].reshape(len(offsets), -1)
        outside = rows[5:].mean(axis=0)
        at_border = outside < -100
        deep, just = rows[:3].mean(axis=0), rows[3:5].mean(axis=0)
        usable = (deep > 3) & (rows[:5].min(axis=0) > -100)
        if np.mean(at_border) > 0.5:
            found[edge] = 1.0
        elif np.count_nonzero(usable & ~at_border) < 4:
            found[edge] = 0.0
        else:
            chosen = usable & ~at_border
            share = np.clip((just[chosen] - outside[chosen]) / deep[chosen], 0, 1)
            # The sharper half of the edge decides, if enough of the edge shows anything at all.
            found[edge] = float(np.percentile(share, 60)) * min(1.0, 2.5 * float(np.mean(usable)))
    return found


def _edge_points(geometry: Geometry, edge: str, along: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Points on an edge and the unit vectors that lead outwards there."""
    one = np.ones_like(along)
    if isinstance(geometry, Rectangle):
        left, top, right, bottom = geometry.x - 0.5, geometry.y - 0.5, geometry.x + geometry.width - 0.5, geometry.y + geometry.height - 0.5
        if edge in ("left", "right"):
            return one * (left if edge == "left" else right), top + along * (bottom - top), one * (-1 if edge == "left" else 1), one * 0
        return left + along * (right - left), one * (top if edge == "near" else bottom), one * 0, one * (-1 if edge == "near" else 1)
    left, right = math.radians(geometry.angle_left_deg), math.radians(geometry.angle_right_deg)
    if edge in ("left", "right"):
        angle = left if edge == "left" else right
        r = geometry.radius_inner + along * (geometry.radius_outer - geometry.radius_inner)
        sign = -1 if edge == "left" else 1
        x, y = geometry.apex_x + r * math.sin(angle), geometry.apex_y + r * math.cos(angle)
        return x, y, one * (sign * math.cos(angle)), one * (-sign * math.sin(angle))
    angles = left + along * (right - left)
    r0 = geometry.radius_inner if edge == "near" else geometry.radius_outer
    sign = -1 if edge == "near" else 1
    sin, cos = np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)
    return geometry.apex_x + r0 * sin, geometry.apex_y + r0 * cos, sign * sin, sign * cos


def _confidence(best: _Fit, inside: NDArray[np.bool_], evidence: Evidence, still: bool) -> tuple[float, str]:
    """How sure a fit is, 0 to 1, and its weakest point."""
    measures = measures_of(best, inside)
    sharp = edge_sharpness(best.geometry, evidence)
    sides = sorted((sharp["left"], sharp["right"]))
    if isinstance(best.geometry, AnnulusSector):
        # A short near edge shows little; a symmetric sector is held by one side.
        symmetric = abs(best.geometry.angle_left_deg + best.geometry.angle_right_deg) < 1
        weakest = min(sides[1] if symmetric else sides[0], sharp["far"])
    else:
        weakest = min(sides[0], sharp["near"], sharp["far"])
    edges = min(1.0, 0.6 + weakest)
    confidence = min(1.0, 0.25 + 0.75 * measures["agreement"] + 0.05) * edges * min(1.0, 0.1 + measures["held"])
    reason = "what moves does not fill a sector or a rectangle" if measures["agreement"] < 0.85 else "an edge fades out"
    if still:
        confidence, reason = 0.8 * confidence, "nothing moves in it"
    return float(min(max(confidence, 0.0), 1.0)), reason


def measures_of(fit: _Fit, inside: NDArray[np.bool_]) -> dict[str, float]:
    """What speaks for a fit: overlap with the convex hull of what moves, share of itself that moves, share of what moves that it holds."""
    height, width = inside.shape
    shape = fit.geometry.mask(height, width)
    # The ends of each row have the same convex hull as all its pixels.
    rows = np.flatnonzero(inside.any(axis=1))
    first, last = inside[rows].argmax(axis=1), width - 1 - inside[rows, ::-1].argmax(axis=1)
    points = np.concatenate([np.stack([first, rows], axis=1), np.stack([last, rows], axis=1)]).astype(np.int32)
    hull = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    both = int(np.count_nonzero(shape & (hull > 0)))
    union = int(np.count_nonzero(shape | (hull > 0)))
    moving = int(np.count_nonzero(shape & inside))
    return {
        "agreement": both / max(union, 1),
        "filled": moving / max(int(np.count_nonzero(shape)), 1),
        "held": moving / max(int(np.count_nonzero(inside)), 1),
    }


def _in_source_pixels(geometry: Geometry, factor: int, height: int, width: int) -> Geometry:
    scaled = geometry.scaled(factor, factor)
    if isinstance(scaled, AnnulusSector):
        return scaled
    left, top = max(0, round(scaled.x)), max(0, round(scaled.y))
    right, bottom = min(width, round(scaled.x + scaled.width)), min(height, round(scaled.y + scaled.height))
    # The few columns that are no whole working pixel belong to a field of view that reaches the last one.
    right = width if width - right < factor else right
    bottom = height if height - bottom < factor else bottom
    return Rectangle(left, top, right - left, bottom - top)
