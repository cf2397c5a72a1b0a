"""The field of view in pixels of the store, against the geometry that data sets are built with."""

from __future__ import annotations

import numpy as np
import pytest

from uscl.field_of_view import field_of_view_mask
from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle, geometry_json

UNKNOWN = np.full(4, np.nan)
SECTOR = AnnulusSector(30.5, -20.25, 25.5, 75.75, -31.5, 28.25)


@pytest.mark.parametrize("shape", [Rectangle(5, 10, 30, 40), SECTOR, AnnulusSector(**{**vars(SECTOR), "clip": Rectangle(12, 0, 40, 50)})])
def test_at_the_images_own_size_it_is_the_shapes_mask(shape: Geometry) -> None:
    found = field_of_view_mask(geometry_json(shape), UNKNOWN, 64, 64, 64)
    assert found is not None
    np.testing.assert_array_equal(found, shape.mask(64, 64))
    assert 0.1 < found.mean() < 0.7


def test_stretched_it_holds_the_same_share_and_the_same_places() -> None:
    whole = SECTOR.mask(48, 80)
    found = field_of_view_mask(geometry_json(SECTOR), UNKNOWN, 80, 48, 240)
    assert found is not None
    assert abs(found.mean() - whole.mean()) < 0.01
    np.testing.assert_array_equal(found[2::5, 1::3], whole)


def test_without_a_shape_it_is_the_box_and_without_a_box_nothing() -> None:
    found = field_of_view_mask(None, np.array([2.0, 1.0, 6.0, 4.0]), 80, 60, 8)
    expected = np.zeros((8, 8), dtype=bool)
    expected[2:6, 1:4] = True
    np.testing.assert_array_equal(found, expected)
    assert field_of_view_mask(None, UNKNOWN, 80, 60, 8) is None
