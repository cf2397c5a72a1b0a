"""What is seen of one clip when its frames have passed: field of view, mode, overlays, depth ruler, and what a person must look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.decision import decide
from usdata.imaging.evidence import Evidence, EvidenceCollector
from usdata.imaging.framing import Crop, Framing, Paint
from usdata.imaging.geometry import AnnulusSector, box_of, geometry_from, geometry_json, polygon_json
from usdata.imaging.mode import mode_of
from usdata.imaging.overlays import RELEASE_MARGIN, overlays_inside
from usdata.imaging.pointer import pointer_in
from usdata.imaging.ruler import find_ruler
from usdata.imaging.sweep import Sweep, sweep_of
from usdata.readers.base import ClipInfo

MOVES = 2.0  # gray levels from frame to frame, beside a sector
LEAST_OUTSIDE = 0.005  # of what moves lies beside a sector: less is no strip and no trace
PERSONAL = ("graphics", "text", "unknown")  # overlays that may tell who it is


@dataclass(frozen=True)
class Seeing:
    """How one clip's field of view is found, and what becomes of a clip without.

    Attributes:
        accept: Least confidence of an estimate.
        hold: A clip without a field of view, or (release) with text inside it, is held back for review.
        release: See the recipe's key.
        modes: Those that are kept; None: all.
        override: Geometry as JSON that a person gave.
        answer: What a person said: accept, reject, or None.
        shown: Geometry as JSON that the person was shown.
        consensus: Geometries as JSON that other clips of the device have; see `usdata.building.consensus`.
        crop: As in the recipe's `image`.
        max_side: As in the recipe's `image`.
        paint: What becomes of overlays; `overlays` in the recipe's `image`.
        depth_mm: Depth of the scan, where the file's header tells it.
    """

    accept: float = 0.85
    hold: bool = False
    release: bool = False
    modes: tuple[str, ...] | None = None
    override: str | None = None
    answer: str | None = None
    shown: str | None = None
    consensus: tuple[str, ...] = ()
    crop: Crop = "none"
    max_side: int | None = None
    paint: Paint = "keep"
    depth_mm: float | None = None


@dataclass(frozen=True)
class Seen:
    """What was seen.

    Attributes:
        framing: How the clip's frames are stored.
        columns: Of videos.parquet.
        proposal: Geometry as JSON that the estimate found and that was not taken; None: none.
    """

    framing: Framing
    columns: dict[str, Any]
    proposal: str | None


def see(collector: EvidenceCollector, info: ClipInfo, seeing: Seeing, colour_kind: str | None) -> Seen:
    """Decide on one clip.

    Args:
        collector: That saw its unique frames.
        info: What the file says of itself.
        seeing: What the recipe asks for.
        colour_kind: gray, tinted or colour; None where no frame is kept.
    """
    given = seeing.shown if seeing.answer == "accept" and seeing.shown is not None else seeing.override
    override = None if given is None else geometry_from(given)
    if override is not None and not override.mask(info.height, info.width).any():
        why = f"the field of view that was given lies outside the picture of {info.width}x{info.height} pixels"
        columns: dict[str, Any] = {"fov_origin": "none", "fov_views": None, "review": "needed", "review_reason": why}
        return Seen(Framing(info.height, info.width, None, seeing.crop, seeing.max_side), columns | {"mode": "unknown"}, None)
    evidence = collector.evidence
    consensus = [geometry_from(text) for text in seeing.consensus]
    decision = decide(evidence, info.regions, accept=seeing.accept, override=override, consensus=consensus)
    # As the manifest has it: whoever reads it there frames the same pixels.
    geometry = None if decision.geometry is None else geometry_from(geometry_json(decision.geometry))
    inside = None if geometry is None or evidence is None else evidence.mask_of(geometry)
    strip = _strip(collector, evidence, inside if isinstance(geometry, AnnulusSector) else None)
    columns = {
        "mode": mode_of(evidence, info.regions, geometry or decision.proposal, colour_kind, strip),
        "fov_origin": decision.origin,
        "fov_confidence": decision.confidence,
        "fov_views": decision.views,
        "review": "needed" if geometry is None else None,
        "review_reason": f"no field of view: {decision.why}" if geometry is None else None,
    }
    framing = Framing(info.height, info.width, geometry, seeing.crop, seeing.max_side, RELEASE_MARGIN if seeing.release else 0)
    if geometry is not None and framing.stored_geometry is not None:
        columns |= {
            "fov_kind": geometry.kind,
            "fov_geometry": geometry_json(geometry),
            "fov_polygon": polygon_json(geometry),
            "fov_stored_geometry": geometry_json(framing.stored_geometry),
            **dict(zip(("fov_x", "fov_y", "fov_width", "fov_height"), box_of(geometry, info.height, info.width), strict=True)),
        }
        found = overlays_inside(collector, geometry)
        words = {*found.words, *([] if inside is None else _moving_overlays(collector, strip, inside))}
        ruler = find_ruler(collector, geometry, seeing.depth_mm)
        if ruler is not None:
            columns["ruler"] = ruler.to_json()
            words |= {"ruler"} if ruler.side == "inside" else set()
            if ruler.mm_per_pixel is not None and info.mm_per_pixel_x is None:
                scale = round(ruler.mm_per_pixel, 6)
                columns |= {"mm_per_pixel_x": scale, "mm_per_pixel_y": scale, "spacing_source": "ruler"}
        columns |= {"overlays": sorted(words), "overlay_share": found.share}
        if found.mask.any():
            framing = replace(framing, overlays=found.mask, paint=seeing.paint)
        doubtful = [word for word in found.words if word in PERSONAL]
        # Also where the recipe gives the geometry: only a person's answer says that nothing in it tells who it is.
        if seeing.release and doubtful:
            told = " and ".join("what may be writing" if word == "unknown" else word for word in doubtful)
            columns |= {"review": "needed", "review_reason": f"{told} inside the field of view"}
    if seeing.answer is not None:
        asked = see(collector, info, replace(seeing, answer=None, shown=None), colour_kind).columns["review_reason"]
        columns |= {"review": f"{seeing.answer}ed", "review_reason": asked}
    return Seen(framing, columns, None if decision.proposal is None else geometry_json(decision.proposal))


def _strip(collector: EvidenceCollector, evidence: Evidence | None, inside: NDArray[np.bool_] | None) -> Sweep | None:
    """What is drawn over time: M-modes, spectra and traces stand beside a sector, or reach beyond it, and never in it.

    Args:
        collector: That saw the clip.
        evidence: What it saw.
        inside: The field of view in working pixels, where it is a sector; None: another, or none.
    """
    if evidence is None or inside is None:
        return sweep_of(collector.frames)
    moves = evidence.activity > MOVES
    outside = moves & (cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0)
    if np.count_nonzero(outside) < LEAST_OUTSIDE * np.count_nonzero(moves):
        return None
    strip = sweep_of(collector.frames)
    if strip is None or strip.style == "trace":
        return strip
    within = np.count_nonzero(inside[strip.y : strip.y + strip.height, strip.x : strip.x + strip.width])
    return None if within > 0.5 * strip.width * strip.height else strip


def _moving_overlays(collector: EvidenceCollector, strip: Sweep | None, inside: NDArray[np.bool_]) -> list[str]:
    """What moves over the tissue: "ecg", a trace that sweeps, and "pointer"."""
    found = []
    if strip is not None and strip.style == "trace" and inside[strip.y : strip.y + strip.height, strip.x : strip.x + strip.width].any():
        found.append("ecg")
    if any(inside[y, x] for x, y in pointer_in(collector.frames)):
        found.append("pointer")
    return found
