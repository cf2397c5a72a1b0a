"""The probe on what surrounds the field of view: it sees marks outside and nothing inside, and says why where it cannot look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.usdata.auditing.planted import Planted
from usdata.auditing.finding import Finding
from usdata.auditing.findings import shortcut_surroundings
from usdata.auditing.surroundings import surroundings, surroundings_probe
from usdata.auditing.tables import prepare
from usdata.imaging.geometry import AnnulusSector, Rectangle, geometry_from, geometry_json
from usdata.manifest import open_dataset

HEIGHT, WIDTH = 96, 128
INSIDE = Rectangle(24, 16, 80, 64)


def planted_with_pictures(folder: Path, draw_clip: Any, *, clips: int = 24, geometry: Any = INSIDE, crop: str = "none") -> Planted:
    """A set whose pictures are drawn by clip: draw_clip(pixels, malignant) changes noise in place."""
    planted = Planted(clips=clips)
    for clip in planted.videos:
        clip["fov_stored_geometry"] = None if geometry is None else geometry_json(geometry)
        clip["fov_kind"] = None if geometry is None else geometry.kind
    for row in planted.frames:
        row["width"], row["height"] = WIDTH, HEIGHT
    planted.recipe = {"image": {"crop": crop}}
    planted.write(folder, images=False)
    for number, row in enumerate(planted.frames):
        pixels = np.random.default_rng(number).integers(60, 90, (HEIGHT, WIDTH)).astype(np.uint8)
        draw_clip(pixels, row["label"] == "malignant")
        path = folder / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return planted


def probe_of(folder: Path, *, pictures: bool = True) -> dict[str, Any]:
    return surroundings_probe(prepare(open_dataset(folder)), pictures=pictures)


def finding_of(folder: Path, probe: dict[str, Any]) -> Finding | None:
    return shortcut_surroundings(prepare(open_dataset(folder)), {"surroundings": probe})


def mark_outside(pixels: np.ndarray, malignant: bool) -> None:
    if malignant:
        pixels[2:8, 100:124] = 250


def mark_inside(pixels: np.ndarray, malignant: bool) -> None:
    if malignant:
        pixels[30:60, 40:90] = 250


def test_a_mark_outside_gives_the_label_away(tmp_path: Path) -> None:
    planted_with_pictures(tmp_path, mark_outside)
    probe = probe_of(tmp_path)
    assert probe["by_group"]["accuracy"] == probe["by_clip"]["accuracy"] == 1.0
    assert (probe["clips"], probe["without"], probe["majority"]) == (24, 0, 0.5)
    finding = finding_of(tmp_path, probe)
    assert finding is not None
    assert "100% of 24 clips" in finding.message
    assert "crop: mask" in finding.advice


def test_a_mark_inside_is_not_seen(tmp_path: Path) -> None:
    planted_with_pictures(tmp_path, mark_inside)
    probe = probe_of(tmp_path)
    assert probe["by_group"]["accuracy"] < 0.75
    assert finding_of(tmp_path, probe) is None


def black_outside(pixels: np.ndarray, malignant: bool) -> None:
    pixels[~INSIDE.mask(HEIGHT, WIDTH)] = 0


def test_a_masked_set_shows_the_outline_alone(tmp_path: Path) -> None:
    planted = planted_with_pictures(tmp_path, black_outside, crop="mask")
    probe = probe_of(tmp_path)
    assert "outline of the field of view alone" in probe["saw"]
    assert probe["by_group"]["accuracy"] <= 0.5, "one outline for all tells nothing"
    # Sectors of one label, boxes of the other: now the outline tells it.
    sector = AnnulusSector(64, 4, 10, 80, -35, 35)
    for clip in planted.videos:
        if clip["label"] == "malignant":
            clip["fov_stored_geometry"] = geometry_json(sector)
    planted.write(tmp_path, images=False)
    probe = probe_of(tmp_path)
    assert probe["by_group"]["accuracy"] == 1.0
    finding = finding_of(tmp_path, probe)
    assert finding is not None
    assert "crop: mask" not in finding.advice


def test_it_says_why_it_cannot_look(tmp_path: Path) -> None:
    planted_with_pictures(tmp_path / "none", mark_outside, clips=12, geometry=None)
    assert "No labelled clip has a field of view" in why_not(tmp_path / "none")
    planted_with_pictures(tmp_path / "full", mark_outside, clips=12, geometry=Rectangle(0, 0, WIDTH, HEIGHT), crop="box")
    assert "Nothing is stored outside" in why_not(tmp_path / "full")
    planted = planted_with_pictures(tmp_path / "lost", mark_outside, clips=12)
    (tmp_path / "lost" / planted.frames[0]["path"]).write_bytes(b"no image")
    assert "1 of the images" in why_not(tmp_path / "lost")
    planted_with_pictures(tmp_path / "few", mark_outside, clips=4)
    assert "3 groups each" in why_not(tmp_path / "few")
    assert "No picture was looked at" in probe_of(tmp_path / "few", pictures=False)["why_not"]


def why_not(folder: Path) -> str:
    return str(probe_of(folder)["why_not"])


def test_clips_without_a_field_of_view_are_counted_and_left_out(tmp_path: Path) -> None:
    planted = planted_with_pictures(tmp_path, mark_outside)
    for number in (0, 3):
        planted.videos[number]["fov_stored_geometry"] = None
    planted.write(tmp_path, images=False)
    probe = probe_of(tmp_path)
    assert (probe["without"], probe["clips"]) == (2, 22)
    assert "2 labelled clips without a field of view" in probe["saw"]


@pytest.mark.parametrize("geometry", [INSIDE, AnnulusSector(64, 4, 10, 80, -35, 35)], ids=lambda geometry: geometry.kind)
def test_no_pixel_of_tissue_is_in_what_is_seen(geometry: Any, tmp_path: Path) -> None:
    shape = geometry_from(geometry_json(geometry))
    mask = shape.mask(HEIGHT, WIDTH)
    for name, level in (("dark", 0), ("bright", 255)):
        pixels = np.full((HEIGHT, WIDTH), 77, np.uint8)
        pixels[mask] = level
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    dark, outside, lost = surroundings(tmp_path, ["dark.png"], shape)
    bright, _, _ = surroundings(tmp_path, ["bright.png"], shape)
    assert np.array_equal(dark, bright)
    assert lost == 0
    assert outside[0, 0]
    assert not outside[16, 16]
