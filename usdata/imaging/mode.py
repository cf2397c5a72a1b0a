"""What kind of picture a clip shows, from the file's own words, from strips that are drawn over time, and from its colours.

A DICOM file names the parts of its picture. Otherwise a strip that sweeps or scrolls is an M-mode or a spectrum, and a filled patch of
colour in a gray field of view is Doppler or, where its hues go into each other, elastography; text, calipers and an ECG trace are coloured
lines, and a tinted picture is coloured all over with one hue a gray level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usdata.imaging.colour_patch import patch_kind
from usdata.imaging.evidence import Evidence
from usdata.imaging.geometry import Geometry
from usdata.imaging.sweep import Sweep
from usdata.readers.base import Region

MODES = ("b_mode", "colour_doppler", "elastography", "m_mode", "spectral", "unknown")


def mode_of(
    evidence: Evidence | None, regions: Sequence[Region], geometry: Geometry | None, colour_kind: str | None, strip: Sweep | None = None
) -> str:
    """One of MODES.

    Args:
        evidence: Of the clip's unique frames; None where it has none.
        regions: What the file describes.
        geometry: The field of view in source pixels; None: the whole picture is looked at.
        colour_kind: gray, tinted or colour, of the whole picture.
        strip: What is drawn over time.
    """
    kinds = {region.kind for region in regions}
    for kind in ("spectral", "m_mode"):
        if kind in kinds:
            return kind
    if evidence is None:
        return "unknown"
    if strip is not None and strip.style != "trace":
        return strip.kind or "unknown"
    told = any(region.data == "colour_flow" for region in regions)
    if evidence.coloured is None or not (told or colour_kind == "colour"):
        return "b_mode"
    inside = np.ones(evidence.mean.shape, bool) if geometry is None else evidence.mask_of(geometry)
    patch = patch_kind(evidence.coloured, inside)
    return "b_mode" if patch is None else "elastography" if patch == "elastography" and not told else "colour_doppler"
