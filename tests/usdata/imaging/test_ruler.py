"""Depth rulers of known truth beside moving tissue, among what looks like one; scales where one convention alone can be meant."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.geometry import AnnulusSector, Rectangle
from usdata.imaging.ruler import find_ruler

HEIGHT, WIDTH = 480, 640
FIELD = Rectangle(160, 40, 300, 400)


def collected(still: NDArray[np.uint8]) -> EvidenceCollector:
    """A collector that saw moving speckle in FIELD under what stands still."""
    rng = np.random.default_rng(4)
    collector = EvidenceCollector()
    for _ in range(12):
        picture = np.zeros((HEIGHT, WIDTH), np.uint8)
        picture[40:440, 160:460] = cv2.GaussianBlur(rng.integers(0, 255, (400, 300), np.uint8), (5, 5), 1)
        picture = np.maximum(picture, still)
        collector.offer(picture, lambda picture=picture: picture)  # type: ignore[misc]
    return collector


def ticks(spacing: float, *, x: int = 500, majors: tuple[int, ...] = (), number: int = 21, top: float = 40) -> NDArray[np.uint8]:
    """Dashes of 6 pixels; each of `majors` makes every so many-th longer by 6."""
    still = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place in range(number):
        row = round(top + place * spacing)
        longer = 6 * sum(place % every == 0 for every in majors)
        still[row : row + 2, x : x + 6 + longer] = 200
    return still


@pytest.mark.parametrize("x", [120, 500])
@pytest.mark.parametrize("spacing", [7.5, 19.3, 20.0, 39.7])
def test_a_ruler_is_found_with_its_spacing(x: int, spacing: float) -> None:
    found = find_ruler(collected(ticks(spacing, x=x, number=int(400 / spacing))), FIELD)
    assert found is not None
    assert found.spacing_px == pytest.approx(spacing, rel=0.003)
    assert found.side == ("left" if x < 160 else "right")
    assert abs(found.first_y - 40.5) < 1.5
    assert found.mm_per_tick is None, "equal ticks may mean anything"
    assert json.loads(found.to_json())["ticks"] == found.ticks


def test_a_known_depth_makes_a_scale_where_one_convention_fits() -> None:
    found = find_ruler(collected(ticks(20.0)), FIELD, depth_mm=200)
    assert found is not None
    assert found.mm_per_tick == 10
    assert found.mm_per_pixel == pytest.approx(0.5, rel=0.003)
    assert find_ruler(collected(ticks(20.0)), FIELD, depth_mm=143).mm_per_tick is None  # type: ignore[union-attr]


def test_three_sizes_are_millimetres_where_centimetres_would_be_too_deep() -> None:
    found = find_ruler(collected(ticks(8.0, majors=(5, 10), number=50)), FIELD)
    assert found is not None
    assert (found.major_every, found.levels) == (10, 3)
    assert found.mm_per_tick == 1
    assert found.mm_per_pixel == pytest.approx(0.125, rel=0.003)


def test_what_is_no_ruler_is_none() -> None:
    assert find_ruler(collected(np.zeros((HEIGHT, WIDTH), np.uint8)), FIELD) is None
    uneven = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row in (44, 60, 91, 135, 180, 186, 240, 310, 322, 400):
        uneven[row : row + 2, 500:506] = 200
    assert find_ruler(collected(uneven), FIELD) is None
    lines = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place in range(16):
        cv2.putText(lines, f"Gain {place} dB", (490, 60 + 24 * place), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 200, 1)
    assert find_ruler(collected(lines), FIELD) is None
    moving = EvidenceCollector()
    for number in range(12):
        moving.offer(np.roll(ticks(20.0), 5 * number, axis=0), lambda: np.zeros((HEIGHT, WIDTH), np.uint8))
    assert find_ruler(moving, FIELD) is None, "a ruler stands still"


def test_a_ruler_may_stand_in_the_corner_of_a_sectors_box() -> None:
    sector = AnnulusSector(310, -20, 60, 440, -40, 40)
    found = find_ruler(collected(ticks(20.0, x=70)), sector)
    assert found is not None
    assert found.spacing_px == pytest.approx(20.0, rel=0.003)
    with pytest.raises(ValueError, match="no frame"):
        find_ruler(EvidenceCollector(), sector)
