"""Clips of one device: what they agree on, who takes it, and that a build comes to the same bytes by whatever way."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.usdata.clips import write_video
from usdata import manifest
from usdata.building import BuildResult, build
from usdata.building.consensus import agreed
from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle, geometry_from, geometry_json, overlap
from usdata.recipe import Recipe

HEIGHT, WIDTH = 240, 300
SECTOR = AnnulusSector(150, -20, 50, 220, -30, 30)
OTHER = AnnulusSector(150, 10, 10, 190, -40, 40)


def clip(path: Path, shape: Geometry, *, seed: int, dark: bool = False) -> None:
    """Moving speckle in a shape; dark: it fades out towards the right and towards the depth."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((HEIGHT * 2, WIDTH * 2)).astype(np.float32), (5, 5), 1.2)
    noise = np.clip((noise - noise.mean()) * 500 + 90, 0, 255)
    column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    lit = np.ones((HEIGHT, WIDTH), np.float32)
    if dark:
        lit = np.clip((150 + 40 - column) / 60, 0, 1) * np.clip((190 - row) / 60, 0, 1)
    inside = shape.mask(HEIGHT, WIDTH)
    frames = [
        np.where(inside, noise[3 * number : 3 * number + HEIGHT, 2 * number : 2 * number + WIDTH] * lit, 0).astype(np.uint8)
        for number in range(16)
    ]
    write_video(path, frames, codec="ffv1")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clear clips of one place and a dark one; three of another; a dark one of a place that nobody else has."""
    folder = tmp_path_factory.mktemp("raw")
    for number in range(4):
        clip(folder / f"clear_{number}.mkv", SECTOR, seed=number)
    for number in range(3):
        clip(folder / f"other_{number}.mkv", OTHER, seed=10 + number)
    clip(folder / "dark.mkv", SECTOR, seed=20, dark=True)
    clip(folder / "stranger.mkv", AnnulusSector(175, 5, 40, 210, -33, 33), seed=21, dark=True)
    return folder


def recipe(**changes: object) -> Recipe:
    source = {"name": "ward", "layout": "files", "patient_ids": "public", "sampling": {"rule": "count", "count": 2}}
    return Recipe.model_validate({"name": "device", "sources": [source], "image": {"crop": "mask"}, **changes})


@pytest.fixture(scope="module")
def agreeing(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build(recipe(), raw=raw, out=tmp_path_factory.mktemp("agreeing") / "set", workers=2)


@pytest.fixture(scope="module")
def alone(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build(recipe(field_of_view={"consensus": False}), raw=raw, out=tmp_path_factory.mktemp("alone") / "set")


def test_a_dark_clip_takes_what_the_others_agree_on_and_a_strange_one_does_not(agreeing: BuildResult, alone: BuildResult) -> None:
    without = manifest.open_dataset(alone.out).videos.set_index("path")
    assert without.loc["dark.mkv", "fov_origin"] == "none"
    assert (without.filter(regex="clear|other", axis=0)["fov_confidence"] >= 0.95).all()
    videos = manifest.open_dataset(agreeing.out).videos.set_index("path")
    assert videos.loc["dark.mkv", "fov_origin"] == "consensus"
    assert overlap(SECTOR, geometry_from(videos.loc["dark.mkv", "fov_geometry"]), HEIGHT, WIDTH) > 0.96
    assert not isinstance(videos.loc["dark.mkv", "review"], str)
    assert videos.loc["stranger.mkv", "fov_origin"] == "none"
    assert videos.loc["stranger.mkv", "review"] == "needed"


def test_the_way_to_a_set_does_not_show_in_its_bytes(raw: Path, agreeing: BuildResult, alone: BuildResult, tmp_path: Path) -> None:
    # Without the others, nothing is agreed on; they come later.
    (tmp_path / "raw").mkdir()
    for name in ("dark.mkv", "clear_0.mkv", "clear_1.mkv"):
        shutil.copy(raw / name, tmp_path / "raw" / name)
    first = build(recipe(), raw=tmp_path / "raw", out=tmp_path / "grown", workers=1)
    assert manifest.open_dataset(first.out).videos.set_index("path").loc["dark.mkv", "fov_origin"] == "none"
    for path in raw.iterdir():
        shutil.copy(path, tmp_path / "raw" / path.name)
    grown = build(recipe(), raw=tmp_path / "raw", out=tmp_path / "grown", workers=1)
    assert grown.digest == agreeing.digest
    # And with a setting that takes it back.
    back = build(recipe(field_of_view={"consensus": False}), raw=raw, out=tmp_path / "grown", overwrite=True)
    assert back.digest == alone.digest
    assert back.reused == len(list(raw.iterdir()))


def test_places_are_those_that_three_clips_share() -> None:
    def near(shape: AnnulusSector, by: float) -> str:
        return geometry_json(shape.moved(by, 0))

    texts = [near(SECTOR, 0), near(OTHER, 0), near(SECTOR, 1), near(SECTOR, -1), near(OTHER, 0.5), geometry_json(Rectangle(0, 0, 50, 60))]
    found = agreed(texts, HEIGHT, WIDTH)
    assert [text for text, _ in found] == [near(SECTOR, 0)]
    found = agreed([*texts, near(OTHER, 1)], HEIGHT, WIDTH)
    assert [text for text, _ in found] == [near(SECTOR, 0), near(OTHER, 0.5)]
    assert agreed([], HEIGHT, WIDTH) == []
