"""Overlays in stored frames: a mask beside them, painted over on request; calipers, rulers, strips and modes in the tables."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.usdata.clips import write_video
from usdata import manifest
from usdata.building import build
from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.framing import Framing
from usdata.imaging.geometry import Rectangle
from usdata.imaging.overlays import overlays_inside
from usdata.imaging.pointer import pointer_in
from usdata.recipe import Recipe

HEIGHT, WIDTH = 300, 400
FIELD = Rectangle(60, 30, 280, 240)


def tissue(frames: int = 20, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((HEIGHT * 2, WIDTH * 2)).astype(np.float32), (5, 5), 1.2)
    noise = np.clip((noise - noise.mean()) * 400 + 50, 0, 255).astype(np.uint8)
    pictures = np.zeros((frames, HEIGHT, WIDTH), np.uint8)
    # Here and there: steady motion would leave streaks in the darkest value, which are still.
    for place, (down, right) in enumerate(rng.integers(0, 100, (frames, 2)).tolist()):
        pictures[place, 30:270, 60:340] = noise[down : down + 240, right : right + 280]
    return pictures


def recipe(**changes: object) -> Recipe:
    source = {"name": "ward", "layout": "files", "patient_ids": "public", "sampling": {"rule": "count", "count": 3}}
    return Recipe.model_validate({"name": "seen", "sources": [source], **changes})


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clip, and one with letters over the tissue."""
    folder = tmp_path_factory.mktemp("raw")
    write_video(folder / "clean.mkv", list(tissue()), codec="ffv1")
    marked = tissue(seed=1)
    for picture in marked:
        cv2.putText(picture, "LEFT", (120, 150), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    write_video(folder / "marked.mkv", list(marked), codec="ffv1")
    return folder


def ink() -> np.ndarray:
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.putText(drawn, "LEFT", (120, 150), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    return drawn > 0


@pytest.mark.parametrize("crop", ["none", "box", "mask"])
def test_the_mask_beside_the_images_covers_the_letters(raw: Path, tmp_path: Path, crop: str) -> None:
    dataset = manifest.open_dataset(build(recipe(image={"crop": crop}), raw=raw, out=tmp_path / "set").out)
    videos = dataset.videos.set_index("path")
    assert not isinstance(videos.loc["clean.mkv", "overlay_path"], str)
    path = tmp_path / "set" / str(videos.loc["marked.mkv", "overlay_path"])
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    frame = dataset.frames[dataset.frames["video_id"] == "ward/marked_mkv"].iloc[0]
    assert mask is not None
    assert mask.shape == (frame["height"], frame["width"])
    assert set(np.unique(mask)) == {0, 255}
    x, y = (0, 0) if crop == "none" else (int(videos.loc["marked.mkv", "fov_x"]), int(videos.loc["marked.mkv", "fov_y"]))
    expected = ink()[y : y + mask.shape[0], x : x + mask.shape[1]]
    assert (mask[expected] > 0).mean() > 0.85
    assert (mask > 0).sum() < 2.5 * expected.sum()
    kept = {Path(path).name for path in dataset.frames["path"]} | {path.name}
    kept |= {Path(path).name for path in videos["key_frames_path"].dropna()}
    assert {file.name for file in (tmp_path / "set" / "images").rglob("*.png")} == kept


@pytest.mark.parametrize(("paint", "highest"), [("keep", 255), ("black", 245), ("inpaint", 245)])
def test_overlays_are_painted_over_on_request_alone(raw: Path, tmp_path: Path, paint: str, highest: int) -> None:
    dataset = manifest.open_dataset(build(recipe(image={"overlays": paint}), raw=raw, out=tmp_path / "set").out)
    clean, drawn = tissue(seed=1), ink()
    for row in dataset.frames[dataset.frames["video_id"] == "ward/marked_mkv"].to_dict("records"):
        stored = cv2.imread(str(tmp_path / "set" / row["path"]), cv2.IMREAD_GRAYSCALE)
        assert stored is not None
        assert (stored[drawn] >= highest).mean() == pytest.approx(1.0 if paint == "keep" else 0.0, abs=0.15)
        far = cv2.dilate(drawn.astype(np.uint8), np.ones((41, 41), np.uint8)) == 0
        assert (stored[far] == clean[row["frame_index"]][far]).all()


def test_a_shrunk_mask_holds_every_pixel_that_ink_went_into() -> None:
    overlays = np.zeros((200, 300), bool)
    overlays[100, 150] = True
    framing = Framing(200, 300, Rectangle(100, 50, 120, 80), "box", 60, overlays=overlays)
    mask = framing.stored_overlays()
    assert mask is not None
    assert mask.shape == (40, 60)
    assert np.argwhere(mask).tolist() == [[25, 25]]
    assert Framing(200, 300, None, "none", None).stored_overlays() is None
    assert Framing(200, 300, Rectangle(0, 0, 50, 50), "box", None, overlays=overlays).stored_overlays() is None


@pytest.mark.parametrize("slanted", [False, True])
@pytest.mark.parametrize("size", [4, 7])
def test_calipers_are_called_so_and_other_marks_are_not(slanted: bool, size: int) -> None:
    def words(marks: list[tuple[int, int]], *, arrow: bool = False) -> tuple[str, ...]:
        collector = EvidenceCollector()
        for picture in tissue():
            for x, y in marks:
                ways = ((1, 1), (1, -1)) if slanted else ((1, 0), (0, 1))
                for right, down in ways:
                    start, end = (x - size * right, y - size * down), (x + size * right, y + size * down)
                    cv2.line(picture, start, end, 255, 1)
            if arrow:
                cv2.arrowedLine(picture, (220, 100), (250, 130), 255, 2, tipLength=0.4)
            collector.offer(picture, lambda picture=picture: picture)  # type: ignore[misc]
        return overlays_inside(collector, FIELD).words

    assert words([]) == ()
    assert words([(120, 90), (200, 200)]) == ("caliper",)
    assert "graphics" in words([], arrow=True)


def test_a_moving_pointer_is_seen_and_a_blinking_spot_is_none() -> None:
    arrow = np.array([[0, 0], [0, 14], [4, 11], [7, 17], [10, 15], [6, 10], [11, 10]])
    # Steady motion, as a probe's; one pattern that jumps about would be a pointer.
    noise = cv2.GaussianBlur(np.random.default_rng(9).random((HEIGHT * 2, WIDTH * 2)).astype(np.float32), (5, 5), 1.2)
    noise = np.clip((noise - noise.mean()) * 400 + 50, 0, 255).astype(np.uint8)
    clean = [np.ascontiguousarray(noise[2 * place : 2 * place + HEIGHT, place : place + WIDTH]) for place in range(20)]

    def places(paths: list[tuple[int, int]]) -> list[tuple[int, int]]:
        pictures = [picture.copy() for picture in clean]
        for picture, place in zip(pictures, paths, strict=True):
            cv2.fillPoly(picture, [np.add(arrow, place)], 255)
        return pointer_in(pictures)

    rng = np.random.default_rng(3)
    path = np.clip(np.add(np.cumsum(rng.normal(0, 12, (20, 2)), axis=0), (180, 130)), 70, 240).astype(int)
    found = places([(int(x), int(y)) for x, y in path])
    assert len(found) >= 8
    assert all(np.abs(np.add(path, (4, 8)) - place).max(axis=1).min() <= 4 for place in found)
    assert pointer_in(clean) == []
    assert places([(180, 130)] * 20) == [], "what stands still is no pointer"
    assert places([(180, 130), (0, 0)] * 10) == [], "and what blinks is none"
    assert pointer_in([]) == pointer_in(clean[:2]) == []


def test_a_ruler_with_a_known_depth_gives_the_spacing(tmp_path: Path) -> None:
    pictures = tissue()
    for picture in pictures:
        for place in range(13):
            picture[30 + 20 * place : 32 + 20 * place, 360:368] = 210
    write_video(tmp_path / "raw" / "clip.mkv", list(pictures), codec="ffv1")
    (tmp_path / "raw" / "clips.csv").write_text("path,mm\nclip.mkv,0.31\n", encoding="utf-8")
    source = {"name": "ward", "layout": "files", "patient_ids": "public"}
    video = manifest.open_dataset(
        build(Recipe.model_validate({"name": "r", "sources": [source]}), raw=tmp_path / "raw", out=tmp_path / "set").out
    ).videos.iloc[0]
    assert '"spacing_px": 20.0' in video["ruler"]
    assert not isinstance(video["spacing_source"], str)
    assert np.isnan(video["mm_per_pixel_x"])
    table = {**source, "layout": "table", "table": "clips.csv", "columns": {"path": "path", "mm_per_pixel_x": "mm", "mm_per_pixel_y": "mm"}}
    video = manifest.open_dataset(
        build(Recipe.model_validate({"name": "r", "sources": [table]}), raw=tmp_path / "raw", out=tmp_path / "told").out
    ).videos.iloc[0]
    assert video["spacing_source"] == "recipe"
    assert video["mm_per_pixel_y"] == 0.31
