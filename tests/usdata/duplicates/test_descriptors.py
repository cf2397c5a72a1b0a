"""Descriptors against scipy's cosine transform of the same band, and against what copies go through."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.fft import dct
from scipy.ndimage import gaussian_filter

from tests.usdata.duplicates.scans import scan
from usdata.duplicates.descriptors import AROUND, CELLS, LIMIT, LOWEST, MIRRORED, NUMBERS, SPREAD, WHOLE_NUMBERS, band, describe


def mean_of(seed: int) -> np.ndarray:
    return np.asarray(cv2.resize(scan(seed).mean(axis=0).astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA), np.float32)


def like(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(float), b.astype(float)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_band_is_that_of_scipy_and_forgets_gain() -> None:
    picture = mean_of(0)
    fine = gaussian_filter(picture, 0.8, mode="mirror", truncate=4) - gaussian_filter(picture, 2.5, mode="mirror", truncate=4)
    contrast = np.sqrt(gaussian_filter(fine * fine, AROUND, mode="mirror", truncate=4)) + 1
    np.testing.assert_allclose(band(picture, AROUND), np.clip(fine / contrast, -LIMIT, LIMIT), atol=0.02)
    assert np.abs(band(picture, AROUND) - band(picture * 1.5 + 20, AROUND)).mean() < 0.1


def test_the_whole_picture_is_its_lowest_cosines_over_their_spread() -> None:
    picture = mean_of(1)
    small = band(cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA), AROUND).astype(float)
    cosines = dct(dct(small, axis=0, norm="ortho"), axis=1, norm="ortho")[:LOWEST, :LOWEST] / SPREAD
    expected = cosines.ravel()[1:] / np.linalg.norm(cosines.ravel()[1:])
    found = describe(picture)
    assert found.shape == (len(CELLS), NUMBERS)
    assert found.dtype == np.int8
    np.testing.assert_allclose(found[0] / WHOLE_NUMBERS, expected, atol=0.5 / WHOLE_NUMBERS + 1e-6)
    assert NUMBERS * 127**2 < 2**24, "products are exact in float32"


def test_mirroring_changes_signs_alone() -> None:
    picture = mean_of(2)
    plain, mirrored = describe(picture), describe(np.ascontiguousarray(picture[:, ::-1]))
    assert like(plain[0] * MIRRORED, mirrored[0]) > 0.999
    assert abs(like(plain[0], mirrored[0])) < 0.6


def test_cells_are_parts_of_the_picture() -> None:
    assert CELLS[0] == (0, 0, 1, 1)
    assert len(set(CELLS)) == len(CELLS)
    for x, y, width, height in CELLS:
        assert 0 <= x <= x + width <= 1 + 1e-9
        assert 0 <= y <= y + height <= 1 + 1e-9
        assert 0.7 < width <= 1
        assert 0.7 < height <= 1


@pytest.mark.parametrize("seed", range(4))
def test_a_crop_is_like_a_cell_of_its_original_and_a_stranger_is_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = scan(seed).mean(axis=0)
    height, width = picture.shape
    share = rng.uniform(0.75, 0.95)
    y, x = (int(rng.uniform(0, 1 - share) * size) for size in (height, width))
    part = picture[y : y + int(share * height), x : x + int(share * width)].astype(np.float32)
    cropped = describe(cv2.resize(part, (64, 64), interpolation=cv2.INTER_AREA))[0]
    original, stranger = describe(mean_of(seed)), describe(mean_of(seed + 100))
    best = max(like(cropped, cell) for cell in original)
    assert best > 0.6
    assert best > max(like(cropped, cell) for cell in stranger) + 0.1
    gray = np.clip(255 * (mean_of(seed) / 255) ** 0.7, 0, 255).astype(np.float32)
    assert like(describe(gray)[0], original[0]) > 0.9


def test_an_even_picture_has_no_descriptor_that_is_like_any() -> None:
    assert not describe(np.full((64, 64), 90, np.float32)).any()
