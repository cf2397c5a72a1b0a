"""Alignment against planted scale and shift, and placements against OpenCV's own resizing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.usdata.duplicates.scans import scan
from usdata.duplicates.alignment import Placement, align_coarsely, align_finely
from usdata.duplicates.descriptors import CELLS


def shrunk(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.resize(picture.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA), np.float32)


@pytest.mark.parametrize("seed", range(6))
def test_a_planted_part_is_found_to_a_third_of_a_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = scan(seed, 8, height=480, width=640).mean(axis=0)
    across, down = rng.uniform(0.75, 0.98, 2)
    x, y = rng.uniform(0, 1 - across), rng.uniform(0, 1 - down)
    left, top, right, bottom = round(x * 640), round(y * 480), round((x + across) * 640), round((y + down) * 480)
    truth = Placement(left / 640, top / 480, (right - left) / 640, (bottom - top) / 480)
    starts = sorted((Placement.of_cell(cell) for cell in CELLS), key=truth.distance)[:3]
    correlation, coarse = align_coarsely(shrunk(whole[top:bottom, left:right]), shrunk(whole), starts)
    assert correlation > 0.8
    correlation, found = align_finely(shrunk(whole[top:bottom, left:right]), shrunk(whole), coarse)
    assert correlation > 0.9
    assert found.distance(truth) < 0.34 / 64
    # The other way round: the whole in its part.
    around = truth.inverse
    assert around.enlarges
    starts = sorted((Placement.of_cell(cell).inverse for cell in CELLS), key=around.distance)[:3]
    _, coarse = align_coarsely(shrunk(whole), shrunk(whole[top:bottom, left:right]), starts)
    correlation, found = align_finely(shrunk(whole), shrunk(whole[top:bottom, left:right]), coarse)
    assert correlation > 0.9
    assert found.distance(around) < 0.6 / 64


def test_strangers_do_not_align() -> None:
    a, b = (shrunk(scan(seed, 8).mean(axis=0)) for seed in (0, 1))
    correlation, _ = align_coarsely(a, b, [Placement.of_cell(cell) for cell in CELLS[:8]])
    assert correlation < 0.5


def test_a_picture_of_one_gray_level_is_told() -> None:
    flat = np.full((64, 64), 80, np.float32)
    assert align_coarsely(flat, flat, [Placement(0, 0, 1, 1)])[0] == -1


def test_placements_are_shares_of_the_other_picture() -> None:
    picture = shrunk(scan(3, 1)[0])
    assert np.array_equal(Placement(0, 0, 1, 1).seen_in(picture, 64), picture)
    part = Placement(0.25, 0.5, 0.5, 0.5)
    np.testing.assert_allclose(part.seen_in(picture, 32), picture[32:64, 16:48])
    assert Placement(0, 0, 1, 1).common(8).all()
    common = Placement(-0.5, 0, 1, 1).common(8)
    assert not common[:, :4].any()
    assert common[:, 4:].all()
    cell = CELLS[7]
    of = Placement.of_cell(cell)
    around = of.inverse
    # Once there and back again.
    assert of.x + of.width * around.x == pytest.approx(0)
    assert of.width * around.width == pytest.approx(1)
