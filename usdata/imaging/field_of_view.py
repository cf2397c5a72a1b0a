"""Where the ultrasound is in the picture: a shape fitted to what a clip shows over time, and how sure that is.

A scanner's surroundings stand still and tissue moves, so the evidence is temporal: each working pixel votes for being inside (it moves) or
against it (it does not, with little weight: shadows and badly coupled flanks are still and dark too). Of all rectangles and all annulus
sectors the one with the greatest sum of votes is taken. An edge so stands where fewer than AGAINST / (1 + AGAINST) of the pixels along it
move, which bridges dark parts, and small things that move elsewhere (a clock, a pointer, an ECG) are not worth the area between. A sector
may be cut by a box, as many scanners' displays do. What the votes cannot tell, the picture's edges do: one that fades out is no scanner's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.edges import CUTS, edge_sharpness, sharp_edges
from usdata.imaging.evidence import Evidence
from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle
from usdata.imaging.shape_search import Fit, SectorFit, best_rectangle, best_sector
from usdata.imaging.tissue import DIM, LEAST_AREA, LIT, dim_pixels, ground_level, hull_of, is_dual, tissue_mask

Floats = NDArray[np.float32]

ACCEPTED = 0.85  # confidence from which an estimate is taken without asking anyone
CERTAIN = 0.95  # confidence from which no other clips are asked
AGAINST = 0.7  # weight of a still pixel against a moving one
FAINT = 0.15  # weight of a dim pixel that touches what moves
SURER = 0.05  # by how much the confidence must grow where something dim is left out
SKEWED_DEG = 5.0  # sum of the edges' angles beyond which a sector is not taken for a symmetric one
FADES = 0.5  # sharpness of an edge below which it is no scanner's
MOST_RESTORED = 0.8  # confidence of a sector with such a flank: a proposal for a person
MOST_BRIGHT = 0.1  # of a flank that is believed to lie in the dark
DISAGREES = 0.85  # overlap of a shape with the hull of what moves below which they are not the same
AGREES = (0.7, 0.96)  # overlap with the hull of what moves below and above which nobody looks for a box that cuts the sector
BEYOND = 0.01  # of a sector lies where nothing moves: less is no sign of a box
SHARP_CUT = 0.5  # sharpness of the sides of a box that cuts a sector, at least
CUT_GAIN, CUT_GAIN_BOX = 1.01, 1.03  # a sector that is cut by a box must explain this much more than one that is not, or a rectangle
CUT_PROMISE = 0.995  # of that gain, already before the box is fitted: else nothing comes of it
HELD_BY_OTHERS = 0.97  # of what moves must lie in a field of view that other clips have
LEAST_SUPPORT = 0.6  # confidence in it
AROUND = (7, 15)  # sides of the squares that enlarge it to the inner and outer edge of a ring
MOST_LIT = 0.3  # of that ring may be lit: letters, and panels
SHARP_ELSEWHERE, ELSEWHERE = 0.7, 5.0  # sharpness of an edge that must not lie so many working pixels from theirs
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
        restored: One flank of it was not seen.
    """

    geometry: Geometry | None
    confidence: float
    still: bool = False
    views: int = 1
    why: str = ""
    restored: bool = False

    @property
    def accepted(self) -> bool:
        """Sure enough to be used without a person."""
        return self.geometry is not None and self.confidence >= ACCEPTED


class _Seen:
    """What a clip shows, at working size.

    Attributes:
        inside: What looks like tissue, (H, W).
        area: Pixels of it.
        hull: Its convex hull.
        level: Mean gray level over time, less the ground's.
        contrast: That without its sign.
    """

    def __init__(self, evidence: Evidence, inside: NDArray[np.bool_]) -> None:
        self.inside = inside
        self.area = int(np.count_nonzero(inside))
        hull = hull_of(inside)
        self.hull = hull > 0
        self.level = evidence.mean - np.float32(ground_level(evidence.mean, hull))
        self.contrast: Floats = np.abs(self.level)

    def agreement(self, shape: NDArray[np.bool_]) -> float:
        """Overlap of a mask with the hull of what moves: intersection over union."""
        return np.count_nonzero(shape & self.hull) / max(np.count_nonzero(shape | self.hull), 1)

    def held(self, shape: NDArray[np.bool_]) -> float:
        """Which part of what moves lies in a mask."""
        return np.count_nonzero(shape & self.inside) / max(self.area, 1)


def estimate(evidence: Evidence) -> Estimate:
    """The field of view of a clip.

    Args:
        evidence: Of its unique frames.
    """
    inside, still = tissue_mask(evidence)
    if np.count_nonzero(inside) < LEAST_AREA * inside.size:
        return Estimate(None, 0.0, still, why="nothing in it looks like ultrasound")
    seen = _Seen(evidence, inside)
    votes = np.where(inside, np.float32(1), np.float32(-AGAINST)).astype(np.float32)
    # Not right beside what moves: codecs and reduction blur the tissue's edge outwards.
    beside = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    dim = dim_pixels(seen.level, inside) & ~beside
    best = _fitted(np.where(dim, np.float32(FAINT), votes), seen)
    if best.confidence < ACCEPTED and AGREES[0] < best.agreement < DISAGREES and dim.any():
        # What is dim may be a panel of the scanner's screen, and no shadow: then the shape without it ends more sharply.
        other = _fitted(votes, seen)
        best = other if other.confidence > max(ACCEPTED, best.confidence) + SURER else best
    confidence, why = best.confidence, "an edge fades out"
    if best.agreement < DISAGREES:
        why = "what moves does not fill a sector or a rectangle"
    if still:
        confidence, why = 0.8 * confidence, "nothing moves in it"
    views = 2 if is_dual(inside) else 1
    if views == 2:
        confidence, why = min(confidence, 0.5), "two pictures side by side"
    geometry = _in_source_pixels(best.geometry, evidence.factor, evidence.height, evidence.width)
    return Estimate(geometry, round(confidence, 4), still, views, "" if confidence >= ACCEPTED else why, best.restored)


@dataclass(frozen=True)
class _Judged:
    """A shape in working pixels, how sure it is, its overlap with what moves, and whether a flank of it was not seen."""

    geometry: Geometry
    confidence: float
    agreement: float
    restored: bool


def _fitted(votes: Floats, seen: _Seen) -> _Judged:
    """The shape with the most votes."""
    best: Fit[Geometry] = best_rectangle(votes)
    # No shape can gain more than all that is for it.
    could_gain = float(votes[votes > 0].sum(dtype=np.float64)) > SECTOR_GAIN * best.votes
    sector = best_sector(votes, seen.inside) if could_gain else None
    if sector is not None and sector.votes > SECTOR_GAIN * best.votes:
        best = _restored(sector, votes, seen)
    restored = sector is not None and isinstance(best.geometry, AnnulusSector) and best.geometry != sector.geometry
    shape = best.geometry.mask(*votes.shape)
    agreement = seen.agreement(shape)
    if could_gain and AGREES[0] < agreement < AGREES[1]:
        cut = _cut_by_a_box(best, shape, votes, seen)
        if cut is not best:
            best, shape = cut, cut.geometry.mask(*votes.shape)
            agreement = seen.agreement(shape)
    confidence = _confidence(best.geometry, agreement, seen.held(shape), seen.contrast)
    return _Judged(best.geometry, min(confidence, MOST_RESTORED) if restored else confidence, agreement, restored)


def _restored(fit: SectorFit, votes: Floats, seen: _Seen) -> Fit[Geometry]:
    """A sector with one flank in the dark, made symmetric about the vertical through its apex; others as they are.

    Scanners draw symmetric sectors, but for steered ones. Only where one side fades out instead of ending, the mirror image of the other
    side is proposed.
    """
    sector = fit.geometry
    best: Fit[Geometry] = Fit(sector, fit.votes)
    if abs(sector.angle_left_deg + sector.angle_right_deg) < SKEWED_DEG:
        return best
    sides = edge_sharpness(sector, seen.contrast)
    weaker, stronger = ("left", "right") if sides["left"] < sides["right"] else ("right", "left")
    widest = max(-sector.angle_left_deg, sector.angle_right_deg)
    lacks = sector.angle_right_deg < widest if weaker == "right" else -sector.angle_left_deg < widest
    if sides[weaker] > FADES or sides[stronger] < FADES or not lacks:
        return best
    symmetric = replace(sector, angle_left_deg=-widest, angle_right_deg=widest)
    # Where the new part would lie, nothing but darkness: text and other tissue speak against it.
    added = seen.level[symmetric.mask(*votes.shape) & ~sector.mask(*votes.shape)]
    bright = np.count_nonzero(added > DIM[1]) / max(added.size, 1)
    return best if bright >= MOST_BRIGHT else Fit(symmetric, fit.votes)


def _cut_by_a_box(best: Fit[Geometry], shape: NDArray[np.bool_], votes: Floats, seen: _Seen) -> Fit[Geometry]:
    """A sector of which the scanner shows only what lies in a box, where that explains more than the best shape so far.

    Beyond the box nothing speaks for or against the sector; so it is looked for with no votes there, and the box for it.

    Args:
        best: So far.
        shape: Its mask.
        votes: (H, W).
        seen: What the clip shows.
    """
    rows, columns = np.flatnonzero(seen.inside.any(axis=1)), np.flatnonzero(seen.inside.any(axis=0))
    box = Rectangle(int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)
    least = CUT_GAIN_BOX * best.votes
    if isinstance(best.geometry, AnnulusSector):
        least = CUT_GAIN * best.votes
        whole = np.count_nonzero(shape)
        if whole - np.count_nonzero(shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]) < BEYOND * whole:
            return best
    found = best
    for _ in range(2):
        within = box.mask(*votes.shape)
        fit = best_sector(np.where(within, votes, np.float32(0)), seen.inside & within)
        if fit is None or fit.votes <= CUT_PROMISE * least:
            break
        cut = best_rectangle(np.where(fit.geometry.mask(*votes.shape), votes, np.float32(0)))
        box = cut.geometry
        sector = replace(fit.geometry, clip=box)
        sharp = edge_sharpness(sector, seen.contrast)
        # One flank alone may be a shadow across a rectangle or another sector.
        flanks = min(sharp.get(edge, 0.0) for edge in ("left", "right"))
        if cut.votes > max(least, found.votes) and min(flanks, *(sharp.get(edge, 1.0) for edge in CUTS)) >= SHARP_CUT:
            found = Fit(sector, cut.votes)
    return found


def _confidence(geometry: Geometry, agreement: float, held: float, contrast: Floats) -> float:
    """How sure a shape is, 0 to 1.

    Args:
        geometry: In working pixels.
        agreement: Its overlap with the hull of what moves.
        held: Which part of what moves lies in it.
        contrast: Gray level beside the ground's.
    """
    sharp = edge_sharpness(geometry, contrast)
    sides = sorted(sharp[edge] for edge in ("left", "right") if edge in sharp) or [1.0]
    weakest = min((value for edge, value in sharp.items() if edge == "far" or edge in CUTS), default=1.0)
    # A short near edge shows little; a symmetric sector is held by one side, a skew one by both.
    if isinstance(geometry, Rectangle):
        edges = 0.55 + min(weakest, sides[0], sharp["near"])
    else:
        skew = abs(geometry.angle_left_deg + geometry.angle_right_deg)
        edges = 0.55 + min(weakest, sides[-1] if skew < 1 else sides[0])
        edges = min(edges, 0.85 + sharp.get("near", 1.0), 0.35 + sides[0] if skew > SKEWED_DEG else 1.0)
    return float(min(1.0, 0.3 + 0.75 * agreement) * min(1.0, edges) * min(1.0, 0.1 + held))


def best_supported(evidence: Evidence, shapes: Sequence[Geometry], own: Estimate) -> tuple[Geometry, float] | None:
    """Of the fields of view that other clips of its device have the one that a clip's own picture speaks for most, and how far.

    Args:
        evidence: Of the clip's unique frames.
        shapes: In source pixels, those of most clips first.
        own: The clip's own estimate.

    Returns:
        The shape and a confidence; None where the clip speaks for none.
    """
    inside, _ = tissue_mask(evidence)
    if not shapes or not inside.any():
        return None
    seen = _Seen(evidence, inside)
    # What was restored was not seen.
    told = None if own.geometry is None or own.restored else evidence.at_working_size(own.geometry)
    found = [(shape, confidence) for shape in shapes if (confidence := _support(evidence.at_working_size(shape), seen, told)) is not None]
    return max(found, key=lambda pair: pair[1], default=None)


def _support(shape: Geometry, seen: _Seen, own: Geometry | None) -> float | None:
    """How far a clip speaks for a shape, both in working pixels; None where it does not.

    It must hold nearly all that moves, end sharply along two edges at least (a dark flank shows nothing) and have little but the ground
    around it, and no sharp edge of what was found in the clip itself may lie elsewhere.
    """
    mask = shape.mask(*seen.inside.shape)
    held = seen.held(mask)
    sharp = edge_sharpness(shape, seen.contrast)
    if held < HELD_BY_OTHERS or sum(value >= FADES for value in sharp.values()) < 2:
        return None
    near, far = (cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) for side in AROUND)
    around = seen.contrast[(far > 0) & (near == 0)]
    if np.count_nonzero(around > LIT) > MOST_LIT * around.size:
        return None
    if own is not None:
        away = _distance_to_edge(mask)
        for x, y in sharp_edges(own, seen.contrast, SHARP_ELSEWHERE):
            if float(np.median(cv2.remap(away, x, y, cv2.INTER_NEAREST, borderValue=0.0))) > ELSEWHERE:
                return None
    confidence = round(min(1.0, 0.3 + 0.75 * seen.agreement(mask)) * min(1.0, 0.1 + held), 4)
    return confidence if confidence >= LEAST_SUPPORT else None


def _distance_to_edge(mask: NDArray[np.bool_]) -> Floats:
    """Distance of each pixel to the nearest on the other side of a mask's edge, (H, W); beyond the picture nothing lies inside."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    sides = [cv2.distanceTransform(side, cv2.DIST_L2, 3) for side in (padded, 1 - padded)]
    return np.asarray((sides[0] + sides[1])[1:-1, 1:-1], np.float32)


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
