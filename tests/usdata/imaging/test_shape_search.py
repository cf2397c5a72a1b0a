"""The search against brute force and closed forms; the estimate on drawn screens: gray panels, a box that cuts the sector, a lost flank."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from usdata.imaging.edges import edge_sharpness
from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.field_of_view import ACCEPTED, Estimate, estimate
from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle, overlap
from usdata.imaging.shape_search import best_rectangle, best_sector

HEIGHT, WIDTH = 260, 320


def test_the_best_rectangle_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(5)
    votes = np.full((12, 14), -0.7, np.float32)
    votes[3:9, 4:12] = 1
    votes[rng.random(votes.shape) < 0.1] = -0.7
    totals = np.zeros((13, 15))
    totals[1:, 1:] = votes.astype(np.float64).cumsum(axis=0).cumsum(axis=1)
    most = max(
        totals[bottom, right] - totals[top, right] - totals[bottom, left] + totals[top, left]
        for top in range(12)
        for bottom in range(top + 1, 13)
        for left in range(14)
        for right in range(left + 1, 15)
    )
    assert best_rectangle(votes).votes == pytest.approx(most, abs=1e-5)


@pytest.mark.parametrize(
    "truth",
    [AnnulusSector(160, -30, 60, 240, -28, 28), AnnulusSector(150, 20, 0, 200, -40, 40), AnnulusSector(170, -90, 130, 330, -20, 32)],
    ids=["convex", "phased", "steered"],
)
def test_a_clean_sector_is_found_to_about_a_pixel(truth: AnnulusSector) -> None:
    inside = truth.mask(HEIGHT, WIDTH)
    found = best_sector(np.where(inside, np.float32(1), np.float32(-0.7)), inside)
    assert found is not None
    assert overlap(truth, found.geometry, HEIGHT, WIDTH) > 0.98
    assert best_sector(np.full((60, 60), -1, np.float32), np.zeros((60, 60), bool)) is None


def screen(truth: Geometry, *, panel: int = 0, ground: int = 0, lit: np.ndarray | None = None, frames: int = 20) -> Estimate:
    """The estimate for moving speckle in a shape, on a ground, in a frame of panels of another gray level."""
    rng = np.random.default_rng(3)
    noise = cv2.GaussianBlur(rng.random((HEIGHT * 2, WIDTH * 2)).astype(np.float32), (5, 5), 1.2)
    noise = np.clip((noise - noise.mean()) * 500 + 90, 0, 255).astype(np.uint8)
    inside = truth.mask(HEIGHT, WIDTH)
    collector = EvidenceCollector()
    for number in range(frames):
        picture = np.full((HEIGHT, WIDTH), panel, np.uint8)
        picture[8:-8, 8:-30] = ground
        tissue = noise[3 * number : 3 * number + HEIGHT, 2 * number : 2 * number + WIDTH]
        picture[inside] = (tissue if lit is None else tissue * lit)[inside]
        collector.offer(picture, lambda: np.zeros((HEIGHT, WIDTH), np.uint8))
    evidence = collector.evidence
    assert evidence is not None
    return estimate(evidence)


@pytest.mark.parametrize("panel", [0, 48, 206])
@pytest.mark.parametrize("ground", [0, 12])
def test_gray_panels_around_the_ground_do_not_matter(panel: int, ground: int) -> None:
    for truth in (AnnulusSector(150, -20, 50, 220, -30, 30), Rectangle(60, 40, 150, 170)):
        found = screen(truth, panel=panel, ground=ground)
        assert found.geometry is not None
        assert found.confidence >= ACCEPTED
        assert overlap(truth, found.geometry, HEIGHT, WIDTH) > 0.97


@pytest.mark.parametrize(
    "truth",
    [
        AnnulusSector(150, -20, 60, 300, -35, 35, Rectangle(0, 0, WIDTH, 200)),
        AnnulusSector(150, 20, 5, 210, -42, 42, Rectangle(60, 0, 180, HEIGHT)),
    ],
    ids=["cut below", "cut at the sides"],
)
def test_a_sector_that_a_box_cuts_is_found_with_the_box(truth: AnnulusSector) -> None:
    found = screen(truth)
    assert isinstance(found.geometry, AnnulusSector)
    assert found.geometry.clip is not None
    assert found.confidence >= ACCEPTED
    assert overlap(truth, found.geometry, HEIGHT, WIDTH) > 0.96


def test_a_flank_that_fades_into_the_dark_is_proposed_but_not_accepted() -> None:
    truth = AnnulusSector(150, -20, 50, 220, -30, 30)
    column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    angle = np.degrees(np.arctan2(column - 150, row + 20))
    found = screen(truth, lit=np.clip((18 - angle) / 15, 0, 1))
    assert isinstance(found.geometry, AnnulusSector)
    assert found.confidence < ACCEPTED or overlap(truth, found.geometry, HEIGHT, WIDTH) > 0.9


def test_a_masks_edge_is_sharp_and_a_shadow_is_not() -> None:
    box = Rectangle(40, 30, 120, 100)
    level = np.where(box.mask(200, 200), np.float32(100), np.float32(0))
    assert min(edge_sharpness(box, level).values()) > 0.9
    level = np.minimum(level, np.linspace(160, 0, 200, dtype=np.float32)[None, :].repeat(200, axis=0) * 0.8)
    level[:, 160:] = np.linspace(25, 0, 40)
    faded = edge_sharpness(box, level.astype(np.float32))
    assert faded["left"] > 0.9
    assert faded["right"] < 0.3
    assert edge_sharpness(Rectangle(0, 0, 200, 200), np.full((200, 200), 50, np.float32))["left"] == 1.0
