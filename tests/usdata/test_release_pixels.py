"""A release stores nothing of a planted name, outside the field of view or across its edge; what is unsafe waits for a person."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from usdata import manifest
from usdata.building import build
from usdata.phantoms.clips import plan, render
from usdata.phantoms.encoding import write_clip
from usdata.recipe import Recipe

RELEASE = {"release": True, "image": {"crop": "mask"}, "field_of_view": {"unsure": "hold"}}
CLIPS = 12


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[str, np.ndarray]]]:
    """A release of phantoms, each with a name: path to where it was put and its ink (H, W) bool."""
    folder = tmp_path_factory.mktemp("release")
    (folder / "raw").mkdir()
    planted: dict[str, tuple[str, np.ndarray]] = {}
    for number, clip in enumerate(plan(videos=CLIPS, seed=3, frames=24)):
        pictures, geometry = render(clip)
        height, width = pictures.shape[1:3]
        inside = cv2.erode(_mask(pictures), np.ones((5, 5), np.uint8)) > 0
        place = ("outside", "across", "outside", "inside")[number % 4]
        ink = _name(inside, place, height, width)
        pictures[:, ink] = 230
        path = folder / "raw" / f"clip_{number}.mp4"
        write_clip(path, pictures, fps=20)
        planted[path.name] = (place, ink)
        del geometry
    source = {"name": "ward", "layout": "files", "patient_ids": "public"}
    recipe = Recipe.model_validate({"name": "release", "sources": [source], **RELEASE})
    build(recipe, raw=folder / "raw", out=folder / "set", workers=2)
    return folder / "set", planted


def _mask(pictures: np.ndarray) -> np.ndarray:
    """What moves, closed: where the phantom shows tissue."""
    gray = pictures.max(axis=3)
    moving = ((gray.max(axis=0).astype(int) - gray.min(axis=0)) > 6).astype(np.uint8)
    opened = cv2.morphologyEx(
        cv2.morphologyEx(moving, cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8)), cv2.MORPH_OPEN, np.ones((15, 15), np.uint8)
    )
    return np.asarray(opened, np.uint8)


def _name(inside: np.ndarray, place: str, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    for _ in range(5000):
        ink = np.zeros((height, width), np.uint8)
        spot = int(rng.integers(2, width - 60)), int(rng.integers(16, height - 4))
        cv2.putText(ink, "DOE JANE", spot, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
        share = float(inside[ink > 0].mean())
        if {"outside": share == 0, "across": 0.3 < share < 0.7, "inside": share == 1}[place]:
            return ink > 0
    raise AssertionError(f"no room for a name {place}")


def test_no_pixel_of_a_name_is_stored(released: tuple[Path, dict[str, tuple[str, np.ndarray]]]) -> None:
    folder, planted = released
    dataset = manifest.open_dataset(folder)
    videos = dataset.videos.set_index("path")
    checked = 0
    for name, (_, ink) in planted.items():
        video = videos.loc[name]
        for _, frame in dataset.frames[dataset.frames["video_id"] == video["video_id"]].iterrows():
            stored = cv2.imread(str(folder / frame["path"]), cv2.IMREAD_GRAYSCALE)
            x, y = int(video["fov_x"]), int(video["fov_y"])
            assert not stored[ink[y : y + stored.shape[0], x : x + stored.shape[1]]].any()
            checked += 1
    assert checked >= 3


def test_names_in_the_picture_are_held_back_with_the_reason(released: tuple[Path, dict[str, tuple[str, np.ndarray]]]) -> None:
    folder, planted = released
    videos = manifest.open_dataset(folder).videos.set_index("path")
    for name, (place, _) in planted.items():
        video = videos.loc[name]
        if place == "outside" and video["status"] == "ok":
            assert pd.isna(video["review"])
            continue
        assert video["status"] == "excluded"
        assert video["review"] == "needed"
        assert video["reason"].startswith("held back for review: ")
        assert video["frames_kept"] == 0
    kept = [name for name, (place, _) in planted.items() if place == "outside" and videos.loc[name, "status"] == "ok"]
    assert kept, "a release that holds everything back is no use"
