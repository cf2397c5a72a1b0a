"""Modes: a planted Doppler box, coloured text, a tint, and the words of DICOM regions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from usdata import manifest
from usdata.building import build
from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.geometry import Rectangle
from usdata.imaging.mode import mode_of
from usdata.phantoms.clips import plan, render
from usdata.phantoms.encoding import write_clip
from usdata.readers.base import Region
from usdata.recipe import Recipe

SHAPE = Rectangle(20, 20, 200, 160)


def tissue(seed: int = 0) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    gray = rng.integers(20, 180, (6, 200, 240), dtype=np.uint8)
    return [np.repeat(frame[..., None], 3, axis=2) for frame in gray]


def mode(frames: list[NDArray[np.uint8]], colour_kind: str = "colour", regions: tuple[Region, ...] = ()) -> str:
    collector = EvidenceCollector()
    for frame in frames:
        collector.offer(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), lambda frame=frame: frame)
    return mode_of(collector.evidence, regions, SHAPE, colour_kind)


def test_gray_is_b_mode() -> None:
    assert mode(tissue(), "gray") == "b_mode"


def test_filled_patch_of_colour_is_doppler() -> None:
    frames = tissue()
    for number, frame in enumerate(frames):
        cv2.ellipse(frame, (120, 100), (30 + number, 18), 0, 0, 360, (220, 40, 20), -1)
    assert mode(frames) == "colour_doppler"


def test_patch_outside_the_field_of_view_is_none() -> None:
    frames = tissue()
    for frame in frames:
        frame[:, 224:] = (220, 40, 20)
    assert mode(frames) == "b_mode"


def test_coloured_letters_and_traces_are_no_doppler() -> None:
    frames = tissue()
    for frame in frames:
        cv2.putText(frame, "DIST 3.2 cm", (30, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (40, 230, 60), 1)
        cv2.polylines(frame, [np.array([[x, 150 + (8 if x % 20 else -25)] for x in range(20, 220, 5)], np.int32)], False, (0, 255, 0), 1)
    assert mode(frames) == "b_mode"


def test_tint_is_b_mode() -> None:
    frames = [(frame * np.array([1.0, 0.7, 0.3])).astype(np.uint8) for frame in tissue()]
    assert mode(frames, "tinted") == mode(frames, "colour") == "b_mode"


@pytest.mark.parametrize("kind", ["spectral", "m_mode"])
def test_words_of_the_file(kind: str) -> None:
    regions = (Region(20, 20, 200, 80, "2d", "tissue"), Region(20, 110, 200, 70, kind, "pw_doppler"))
    assert mode(tissue(), "gray", regions) == kind


def test_nothing_seen_is_unknown() -> None:
    assert mode_of(None, (), None, None) == "unknown"


def test_recipe_chooses(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for number, clip in enumerate(plan(videos=2, seed=3, frames=12)):
        pictures, _ = render(clip)
        if number:
            height, width = pictures.shape[1:3]
            pictures[:, height // 2 : height // 2 + 50, width // 2 - 30 : width // 2 + 30] = (220, 40, 20)
        write_clip(tmp_path / "raw" / f"clip_{number}.mp4", pictures, fps=20)
    source = {"name": "s", "layout": "files", "patient_ids": "public"}
    for modes, kept in ((["b_mode"], [True, False]), (["colour_doppler"], [False, True]), (None, [True, True])):
        recipe = Recipe.model_validate({"name": "set", "sources": [source], "modes": modes})
        build(recipe, raw=tmp_path / "raw", out=tmp_path / "set", workers=1, overwrite=True)
        videos = manifest.open_dataset(tmp_path / "set").videos.set_index("path").sort_index()
        assert videos["mode"].tolist() == ["b_mode", "colour_doppler"]
        assert (videos["status"] == "ok").tolist() == kept
        for reason in videos.loc[videos["status"] == "excluded", "reason"]:
            assert reason.startswith("is ")
            assert reason.endswith("which the recipe does not keep (modes)")
