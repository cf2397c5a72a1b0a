"""Colour over B-mode: planted maps of Doppler and elastography, tints and text, and the colour Doppler of real DICOM files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from usdata.imaging.colour_patch import patch_kind
from usdata.readers import open_clip

DATA = Path(__file__).parents[4] / "shared" / "data" / "dicom"
INSIDE = np.zeros((240, 320), bool)
INSIDE[20:220, 30:290] = True


def tissue(seed: int = 0) -> NDArray[np.float32]:
    gray = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(240, 320)), (0, 0), 1.2)
    gray = np.clip(90 + 60 * gray / gray.std(), 5, 255) * INSIDE
    return np.repeat(gray[..., None], 3, axis=2).astype(np.float32)


def lumps(seed: int, size: float = 14) -> NDArray[np.float64]:
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(240, 320)), (0, 0), size)
    return np.asarray(field / field.std())


def over(colours: NDArray[np.uint8], where: NDArray[np.bool_], opaque: float = 1.0) -> NDArray[np.uint8]:
    picture = tissue()
    picture[where] = (1 - opaque) * picture[where] + opaque * colours[where]
    coded = cv2.imencode(".jpg", picture.clip(0, 255).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])


def box(sector: bool) -> NDArray[np.bool_]:
    corners = [[120, 60], [200, 60], [225, 170], [95, 170]] if sector else [[100, 60], [220, 60], [220, 170], [100, 170]]
    return cv2.fillPoly(np.zeros((240, 320), np.uint8), [np.array(corners, np.int32)], 1) > 0


def flow(red: bool = True, blue: bool = True) -> NDArray[np.uint8]:
    speed = np.abs(lumps(5))[..., None]
    toward = np.concatenate([140 + 60 * speed, 90 * speed, 20 + 0 * speed], axis=2)
    away = toward[..., ::-1]
    colours = np.where((lumps(5)[..., None] > 0) & red | (not blue), toward, away)
    return colours.clip(0, 255).astype(np.uint8)


def stiffness() -> NDArray[np.uint8]:
    levels = np.clip(128 + 75 * lumps(3), 0, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1], np.uint8)


@pytest.mark.parametrize("sector", [False, True])
@pytest.mark.parametrize("opaque", [0.4, 0.7, 1.0])
def test_elastography(sector: bool, opaque: float) -> None:
    assert patch_kind(over(stiffness(), box(sector), opaque), INSIDE) == "elastography"


def test_same_colours_in_vessels_only_are_doppler() -> None:
    assert patch_kind(over(stiffness(), box(False) & (np.abs(lumps(8)) < 0.4)), INSIDE) == "doppler"


def test_flow_in_vessels_is_doppler() -> None:
    assert patch_kind(over(flow(), box(True) & (lumps(8) > 0.4)), INSIDE) == "doppler"


def test_a_coloured_line_along_the_edge_is_no_doppler() -> None:
    """A lossy codec makes three columns of one, which fill their box and outlast an opening."""
    edge = np.zeros((240, 320), bool)
    edge[:, 287:290] = True
    green = np.zeros((240, 320, 3), np.uint8)
    green[..., 1] = 200
    picture = tissue().astype(np.uint8)
    picture[edge & INSIDE] = green[edge & INSIDE]
    assert np.count_nonzero(edge & INSIDE) > 0.01 * np.count_nonzero(INSIDE)
    assert patch_kind(picture, INSIDE) is None


def test_power_doppler_is_doppler() -> None:
    assert patch_kind(over(flow(blue=False), box(False) & (lumps(8) > 0.4)), INSIDE) == "doppler"


def test_full_box_of_two_hues_is_doppler() -> None:
    assert patch_kind(over(flow(), box(False)), INSIDE) == "doppler"


@pytest.mark.parametrize("tint", [(1.0, 0.8, 0.5), (0.6, 0.8, 1.0), (1.0, 0.62, 0.2)])
def test_tint_is_none(tint: tuple[float, float, float]) -> None:
    tinted = (tissue() * np.array(tint)).astype(np.uint8)
    assert patch_kind(tinted, INSIDE) is None


def test_gray_is_none() -> None:
    assert patch_kind(tissue().astype(np.uint8), INSIDE) is None


def test_text_traces_and_calipers_are_none() -> None:
    picture = tissue().astype(np.uint8)
    for row, ink in enumerate([(255, 220, 0), (0, 255, 80), (80, 200, 255), (255, 60, 60)]):
        cv2.putText(picture, "DIST 3.21 cm", (40 + 20 * row, 60 + 40 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, ink, 1, cv2.LINE_AA)
    cv2.polylines(picture, [np.array([[x, 205 - (25 if x % 40 == 0 else 0)] for x in range(30, 290, 4)], np.int32)], False, (0, 255, 0), 1)
    cv2.line(picture, (60, 40), (240, 180), (255, 255, 0), 1)
    assert patch_kind(picture, INSIDE) is None


def test_colour_outside_the_field_of_view_is_none() -> None:
    picture = tissue().astype(np.uint8)
    picture[:, 292:] = stiffness()[:, 292:]
    picture[:18] = (40, 90, 200)
    assert patch_kind(picture, INSIDE) is None
    assert patch_kind(picture, np.zeros_like(INSIDE)) is None


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="the real files of ../shared/data are not here")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dcm4che__US-PAL-8-10x-echo", "doppler"),
        ("dcm4che__US-RGB-8-epicard", "doppler"),
        ("dcm4che__will-jxl.dcm", "doppler"),
        ("pydicom-data__US1_J2KI.dcm", "doppler"),
        ("fo-dicom__DIRW0007", None),
        ("pydicom-data__gdcm-US-ALOKA-16.dcm", None),
    ],
)
def test_real_files(name: str, kind: str | None) -> None:
    with open_clip(DATA / name, colour=True) as clip:
        picture = next(iter(clip.frames())).pixels
    factor = max(1, max(picture.shape) // 240)
    size = picture.shape[1] // factor, picture.shape[0] // factor
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    assert patch_kind(small, np.ones(small.shape[:2], bool)) == kind
