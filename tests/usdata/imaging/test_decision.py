"""Whom to believe: a person, the file's regions, the estimate, other clips."""

from __future__ import annotations

import cv2
import numpy as np

from usdata.imaging.decision import decide
from usdata.imaging.evidence import Evidence, EvidenceCollector
from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle, overlap
from usdata.readers.base import Region

HEIGHT, WIDTH = 240, 320
SECTOR = AnnulusSector(150, -20, 50, 220, -30, 30)


def evidence(shape: Geometry, frames: int = 20, *, dark_right: bool = False) -> Evidence:
    """Of moving speckle in a shape over black."""
    rng = np.random.default_rng(7)
    noise = cv2.GaussianBlur(rng.random((HEIGHT * 2, WIDTH * 2)).astype(np.float32), (5, 5), 1.2)
    noise = np.clip((noise - noise.mean()) * 500 + 90, 0, 255)
    lit = np.clip((190 - np.arange(WIDTH)) / 60, 0, 1) if dark_right else np.ones(WIDTH)
    inside = shape.mask(HEIGHT, WIDTH)
    collector = EvidenceCollector()
    for number in range(frames):
        tissue = noise[3 * number : 3 * number + HEIGHT, 2 * number : 2 * number + WIDTH] * lit
        collector.offer(np.where(inside, tissue, 0).astype(np.uint8), lambda: np.zeros((HEIGHT, WIDTH), np.uint8))
    found = collector.evidence
    assert found is not None
    return found


def test_a_person_goes_first_and_an_empty_clip_waits() -> None:
    given = Rectangle(1, 2, 30, 40)
    assert decide(evidence(SECTOR), (), accept=0.85, override=given).geometry == given
    nothing = decide(None, (), accept=0.85)
    assert (nothing.origin, nothing.geometry) == ("none", None)
    assert nothing.why


def test_a_region_that_is_the_whole_picture_tells_nothing() -> None:
    whole = Region(0, 0, WIDTH, HEIGHT, "2d", "tissue")
    found = decide(evidence(SECTOR), (whole,), accept=0.85)
    assert found.origin == "estimate"
    assert found.geometry is not None
    assert overlap(SECTOR, found.geometry, HEIGHT, WIDTH) > 0.96


def test_in_a_region_a_sector_is_found_and_a_rectangle_is_the_region() -> None:
    box = Region(38, 18, 224, 188, "2d", "tissue")
    found = decide(evidence(SECTOR), (box,), accept=0.85)
    assert found.origin == "dicom_region"
    assert isinstance(found.geometry, AnnulusSector)
    assert overlap(SECTOR, found.geometry, HEIGHT, WIDTH) > 0.96
    lower = decide(evidence(Rectangle(60, 120, 180, 80)), (Region(58, 20, 184, 190, "2d", "tissue"),), accept=0.85)
    assert lower.geometry == Rectangle(58, 20, 184, 190)


def test_a_sector_that_fills_its_region_needs_less_confidence() -> None:
    still = evidence(SECTOR, frames=1)
    assert decide(still, (), accept=0.85).origin == "none"
    filled = decide(still, (Region(40, 20, 222, 182, "2d", "tissue"),), accept=0.85)
    assert isinstance(filled.geometry, AnnulusSector)
    assert overlap(SECTOR, filled.geometry, HEIGHT, WIDTH) > 0.9


def test_two_pictures_of_tissue_wait() -> None:
    sides = (Region(10, 20, 140, 180, "2d", "tissue"), Region(160, 20, 140, 180, "2d", "tissue"))
    found = decide(evidence(SECTOR), sides, accept=0.85)
    assert (found.origin, found.views) == ("none", 2)


def test_what_other_clips_have_is_taken_where_this_one_speaks_for_it() -> None:
    unsure = evidence(SECTOR, dark_right=True)
    alone = decide(unsure, (), accept=0.85)
    assert alone.origin == "none"
    assert alone.proposal is not None
    taken = decide(unsure, (), accept=0.85, consensus=(AnnulusSector(150, 10, 10, 190, -40, 40), SECTOR))
    assert (taken.origin, taken.geometry, taken.why) == ("consensus", SECTOR, "")
    for other in (SECTOR.moved(12, 0), SECTOR.moved(0, 15), AnnulusSector(150, -20, 50, 190, -30, 30), Rectangle(0, 0, WIDTH, HEIGHT)):
        assert decide(unsure, (), accept=0.85, consensus=(other,)).origin == "none"
    sure = decide(evidence(SECTOR), (), accept=0.85, consensus=(SECTOR.moved(1, 0),))
    assert sure.origin == "estimate"
