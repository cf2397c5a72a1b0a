"""Which field of view a clip gets, and from where: the first that holds of

1. override: a person gave it in the recipe;
2. dicom_region: the file describes one region of tissue, and not the whole picture; inside it the estimate gives the sector, else the
   region is the rectangle;
3. estimate: from what moves, where that is certain;
4. consensus: one that other clips of the same device agree on, and that this clip's picture speaks for;
5. estimate: at or above the accepted confidence;
6. none: a person must look.

Guarantees: a doubt is told in words and never hidden: `why` is empty only where the answer was accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from usdata.imaging.evidence import Evidence
from usdata.imaging.field_of_view import CERTAIN, best_supported, estimate
from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle, box_of
from usdata.readers.base import Region

WHOLE = 0.95  # of the picture
LEAST_IN_REGION, FILLED = 0.5, 0.9  # confidence of a sector in a region, and which part of it the sector's box must fill
LEAST_SIDE = 24  # working pixels: below it there is nothing to see


@dataclass(frozen=True)
class Decision:
    """The field of view of a clip.

    Attributes:
        geometry: In source pixels; None where none was accepted.
        origin: override, dicom_region, estimate, consensus or none.
        confidence: Of the estimate, or of what the clip says of the consensus.
        views: Pictures side by side; None = unknown.
        why: What a person must look at; empty where the answer was accepted.
        proposal: What the estimate found where that was not taken.
    """

    geometry: Geometry | None
    origin: str
    confidence: float | None = None
    views: int | None = None
    why: str = ""
    proposal: Geometry | None = None


def decide(
    evidence: Evidence | None,
    regions: Sequence[Region],
    *,
    accept: float,
    override: Geometry | None = None,
    consensus: Sequence[Geometry] = (),
) -> Decision:
    """The field of view of one clip.

    Args:
        evidence: Of its unique frames; None where it has none.
        regions: What the file describes.
        accept: Least confidence of an estimate that is taken.
        override: What a person gave.
        consensus: What other clips of the same device have, those of most clips first.
    """
    if override is not None:
        return Decision(override, "override", None, 1)
    if evidence is None or min(evidence.mean.shape) < LEAST_SIDE:
        return Decision(None, "none", why="too small or too empty to find a field of view in")
    least = WHOLE * evidence.height * evidence.width
    tissue = [region for region in regions if region.kind == "2d" and region.data in ("tissue", "colour_flow")]
    # A region that is the whole picture tells nothing: scanners write it for screens full of text.
    tissue = [region for region in tissue if region.width * region.height < least]
    if len(tissue) > 1 and not _nested(tissue):
        return Decision(None, "none", None, len(tissue), f"the file describes {len(tissue)} pictures of tissue")
    if tissue:
        largest = max(tissue, key=lambda region: region.width * region.height)
        return _in_region(evidence, largest, accept)
    found = estimate(evidence)
    accepted = found.geometry is not None and found.confidence >= accept
    lent = best_supported(evidence, consensus, found) if found.views == 1 and found.confidence < CERTAIN else None
    if lent is not None:
        return Decision(lent[0], "consensus", lent[1], 1, proposal=found.geometry)
    if accepted:
        return Decision(found.geometry, "estimate", found.confidence, found.views)
    return Decision(None, "none", found.confidence, found.views, found.why or "not sure enough", found.geometry)


def _nested(tissue: Sequence[Region]) -> bool:
    """All regions lie within the largest one, but for a pixel: a Doppler box in its B-mode picture."""
    largest = max(tissue, key=lambda region: region.width * region.height)
    return all(
        region.x >= largest.x - 1
        and region.y >= largest.y - 1
        and region.x + region.width <= largest.x + largest.width + 1
        and region.y + region.height <= largest.y + largest.height + 1
        for region in tissue
    )


def _in_region(evidence: Evidence, region: Region, accept: float) -> Decision:
    box = Rectangle(region.x, region.y, region.width, region.height)
    factor = evidence.factor
    left, top = region.x // factor, region.y // factor
    right, bottom = (region.x + region.width) // factor, (region.y + region.height) // factor
    if min(right - left, bottom - top) >= LEAST_SIDE:
        found = estimate(_cut(evidence, left, top, right, bottom))
        # A rectangle the file has told itself.
        if isinstance(found.geometry, AnnulusSector) and (found.confidence >= accept or _fills(found.geometry, found.confidence, region)):
            inside = found.geometry.moved(left * factor, top * factor)
            return Decision(inside, "dicom_region", found.confidence, found.views)
    return Decision(box, "dicom_region", None, 1)


def _fills(sector: AnnulusSector, confidence: float, region: Region) -> bool:
    """Whether a sector that is hardly sure by itself has the region for its box: then both say the same."""
    _, _, width, height = box_of(sector, region.height, region.width)
    return confidence >= LEAST_IN_REGION and width * height >= FILLED * region.width * region.height


def _cut(evidence: Evidence, left: int, top: int, right: int, bottom: int) -> Evidence:
    """The evidence of a part of the picture, in working pixels."""
    place = np.s_[top:bottom, left:right]
    return replace(
        evidence,
        height=(bottom - top) * evidence.factor,
        width=(right - left) * evidence.factor,
        activity=np.ascontiguousarray(evidence.activity[place]),
        brightest=np.ascontiguousarray(evidence.brightest[place]),
        darkest=np.ascontiguousarray(evidence.darkest[place]),
        mean=np.ascontiguousarray(evidence.mean[place]),
        chroma=None if evidence.chroma is None else np.ascontiguousarray(evidence.chroma[place]),
        coloured=None if evidence.coloured is None else np.ascontiguousarray(evidence.coloured[place]),
    )
