"""What kind of picture a clip shows: B-mode, colour Doppler, or another, from the file's own words and from its colours.

A DICOM file names the parts of its picture. Otherwise colour tells: Doppler is a filled patch of saturated colour in a gray field of view,
while text, calipers and an ECG trace are coloured lines, and a tinted picture is coloured all over with one hue a gray level. Spectra and
M-modes are told from the file's words alone; without these they are not recognised.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.evidence import Evidence
from usdata.imaging.geometry import Geometry
from usdata.readers.base import Region

MODES = ("b_mode", "colour_doppler", "m_mode", "spectral", "unknown")
SATURATED = 40  # largest minus smallest colour component: printed colours of Doppler maps are far above, JPEG's errors on gray below
LEAST_PATCH = 0.01  # of the field of view
LEAST_FILL = 0.25  # of the patch's box: lines fill less
TINTED_SHARE = 0.75  # of what is lit in the field of view: more colour is a tint
LIT_LEVEL = 24


def mode_of(evidence: Evidence | None, regions: Sequence[Region], geometry: Geometry | None, colour_kind: str | None) -> str:
    """One of MODES.

    Args:
        evidence: Of the clip's unique frames; None where it has none.
        regions: What the file describes.
        geometry: The field of view in source pixels; None: the whole picture is looked at.
        colour_kind: gray, tinted or colour, of the whole picture.
    """
    kinds = {region.kind for region in regions}
    for kind in ("spectral", "m_mode"):
        if kind in kinds:
            return kind
    if any(region.data == "colour_flow" for region in regions) and _has_patch(evidence, geometry):
        return "colour_doppler"
    if evidence is None:
        return "unknown"
    return "colour_doppler" if colour_kind == "colour" and _has_patch(evidence, geometry) else "b_mode"


def _has_patch(evidence: Evidence | None, geometry: Geometry | None) -> bool:
    """A filled patch of saturated colour, in the field of view."""
    if evidence is None or evidence.chroma is None:
        return False
    height, width = evidence.chroma.shape
    inside: NDArray[np.bool_] = np.ones((height, width), bool)
    if geometry is not None:
        inside = geometry.scaled(1 / evidence.factor, 1 / evidence.factor).mask(height, width)
    coloured = ((evidence.chroma > SATURATED) & inside).astype(np.uint8)
    lit = np.count_nonzero((evidence.brightest > LIT_LEVEL) & inside)
    if geometry is not None and coloured.sum() > TINTED_SHARE * max(lit, 1):
        return False
    # Lines of text and traces are a pixel or two wide at working size: they do not outlast this.
    coloured = cv2.morphologyEx(coloured, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    coloured = cv2.morphologyEx(coloured, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, _, boxes, _ = cv2.connectedComponentsWithStats(coloured, connectivity=8)
    return any(
        area >= LEAST_PATCH * np.count_nonzero(inside) and area >= LEAST_FILL * wide * high for _, _, wide, high, area in boxes[1:].tolist()
    )
