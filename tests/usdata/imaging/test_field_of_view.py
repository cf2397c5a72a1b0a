"""The field of view against the phantom's own geometry; shapes against brute force; framing and overlays against planted truth."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from usdata import manifest
from usdata.building import build
from usdata.errors import UserError
from usdata.held_frames import HeldFrames
from usdata.imaging.evidence import MOST_FRAMES, EvidenceCollector
from usdata.imaging.field_of_view import estimate
from usdata.imaging.framing import Framing
from usdata.imaging.geometry import AnnulusSector, Rectangle, box_of, geometry_from, geometry_json, overlap
from usdata.imaging.overlays import overlays_inside
from usdata.phantoms import phantom
from usdata.viewing import view

SECTOR = AnnulusSector(100.0, -20.0, 60.0, 190.0, -30.0, 35.0)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom(tmp_path_factory.mktemp("view") / "raw", videos=10, seed=3, size=240, frames=24).out


@pytest.fixture(scope="module")
def masked(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sets") / "set"
    return build("phantom", raw=raw, out=out, overrides=["image.crop=mask", "folds.count=0"]).out


def true_geometry(row: dict[str, str]) -> Rectangle | AnnulusSector:
    if row["geometry"] == "linear":
        return Rectangle(*(float(row[key]) for key in ("x", "y", "width", "height")))
    keys = ("apex_x", "apex_y", "radius_inner", "radius_outer", "angle_left_deg", "angle_right_deg")
    return AnnulusSector(*(float(row[key]) for key in keys))


def test_a_build_finds_the_phantoms_fields_of_view(raw: Path, masked: Path) -> None:
    videos = manifest.open_dataset(masked).videos.set_index("path")
    with (raw / "truth.csv").open(encoding="utf-8", newline="") as file:
        truths = [row for row in csv.DictReader(file) if row["fault"] in ("", "black_lead_in")]
    ious = []
    for row in truths:
        video = videos.loc[row["path"]]
        if video["fov_origin"] == "none":
            assert video["review"] == "needed"
            continue
        ious.append(overlap(true_geometry(row), geometry_from(video["fov_geometry"]), int(video["height"]), int(video["width"])))
    assert len(ious) >= len(truths) - 2
    assert np.median(ious) > 0.975
    assert min(ious) > 0.93


def test_a_masked_set_is_black_outside_the_field_of_view(masked: Path) -> None:
    dataset = manifest.open_dataset(masked)
    stored = dataset.videos.set_index("video_id")["fov_stored_geometry"]
    seen = 0
    for row in dataset.frames.groupby("video_id").head(1).to_dict("records"):
        if not isinstance(stored[row["video_id"]], str):
            continue
        image = cv2.imread(str(masked / row["path"]), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        inside = geometry_from(stored[row["video_id"]]).mask(*image.shape)
        beyond = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
        assert image[inside].mean() > 10
        assert not image[beyond].any()
        assert (row["fov_width"], row["fov_height"]) == (image.shape[1], image.shape[0])
        seen += 1
    assert seen >= 10


def test_what_must_be_reviewed_is_held_back_on_request(raw: Path, tmp_path: Path) -> None:
    settings = ["field_of_view.unsure=hold", "field_of_view.accept=1.0", "image.crop=mask", "release=true", "folds.count=0"]
    videos = manifest.open_dataset(build("phantom", raw=raw, out=tmp_path / "set", overrides=settings).out).videos
    decoded = videos[videos["frames_decoded"] > 0]
    held = decoded[decoded["review"] == "needed"]
    assert len(held)
    assert (held["status"] == "excluded").all()
    assert held["reason"].str.startswith("held back for review: ").all()
    assert not {path.parent.name for path in (tmp_path / "set" / "images").rglob("*.png")} & {Path(name).name for name in held["video_id"]}


def test_masks_are_what_the_definition_says_pixel_by_pixel() -> None:
    mask = SECTOR.mask(200, 220)
    for row in range(0, 200, 7):
        for column in range(0, 220, 7):
            right, down = column - 100.0, row + 20.0
            radius, angle = math.hypot(right, down), math.degrees(math.atan2(right, down))
            assert mask[row, column] == (60 <= radius <= 190 and -30 <= angle <= 35)
    box = Rectangle(3, 5, 7, 2).mask(20, 20)
    assert box.sum() == 14
    assert box[5:7, 3:10].all()


@pytest.mark.parametrize("shape", [SECTOR, Rectangle(10, 20, 50, 40), AnnulusSector(90, 5, 0, 150, -40, 40, Rectangle(20, 0, 140, 120))])
def test_shapes_survive_json_agree_with_their_outline_and_scale(shape: Rectangle | AnnulusSector) -> None:
    assert geometry_from(geometry_json(shape)) == shape
    drawn = np.zeros((220, 240), np.uint8)
    cv2.fillPoly(drawn, [np.rint(np.array(shape.polygon()) * 16).astype(np.int32)], 1, shift=4)
    mask = shape.mask(220, 240)
    assert (mask & (drawn > 0)).sum() / (mask | (drawn > 0)).sum() > 0.95
    x, y, width, height = box_of(shape, 220, 240)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert np.allclose((x, y, x + width - 1, y + height - 1), (columns[0], rows[0], columns[-1], rows[-1]), atol=1)
    halved = shape.scaled(0.5, 0.5).mask(110, 120)
    assert abs(halved.sum() * 4 / mask.sum() - 1) < 0.05


@pytest.mark.parametrize(
    "text", ['{"kind": "circle"}', '{"kind": "rectangle", "x": 1}', '{"kind": "rectangle", "x": 0, "y": 0, "width": 0, "height": 3}']
)
def test_a_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"kind|parameters|area"):
        geometry_from(json.loads(text))


def speckle(frames: int, size: int = 240) -> np.ndarray:
    """Moving speckle in a rectangle over black: the truth is (40, 30, 150, 170)."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.random((size * 2, size * 2)).astype(np.float32), (5, 5), 1.2)
    noise = np.clip((noise - noise.mean()) * 500 + 90, 0, 255).astype(np.uint8)
    pictures = np.zeros((frames, size, size), np.uint8)
    for place in range(frames):
        pictures[place, 30:200, 40:190] = noise[3 * place : 3 * place + 170, 2 * place : 2 * place + 150]
    return pictures


def collected(pictures: np.ndarray) -> EvidenceCollector:
    collector = EvidenceCollector()
    for picture in pictures:
        collector.offer(picture, lambda: picture)  # noqa: B023  called at once
    return collector


def test_a_rectangle_is_found_to_the_pixel_and_a_still_one_with_less_confidence() -> None:
    moving = estimate(collected(speckle(20)).evidence)  # type: ignore[arg-type]
    assert moving.accepted
    assert moving.geometry == Rectangle(40, 30, 150, 170)
    still = estimate(collected(np.repeat(speckle(1), 20, axis=0)).evidence)  # type: ignore[arg-type]
    assert still.still
    assert not still.accepted
    blank = estimate(collected(np.zeros((5, 240, 240), np.uint8)).evidence)  # type: ignore[arg-type]
    assert blank.geometry is None


def test_the_sample_is_even_and_bounded_however_long_the_clip() -> None:
    collector = EvidenceCollector()
    for number in range(1000):
        collector.offer(np.full((50, 60), number % 251, np.uint8), lambda: np.zeros((50, 60), np.uint8))
    evidence = collector.evidence
    assert evidence is not None
    assert MOST_FRAMES // 2 <= evidence.frames <= MOST_FRAMES


@pytest.mark.parametrize("place", [(60, 120), (150, 100), (5, 150)], ids=["inside", "right edge", "left edge"])
@pytest.mark.parametrize("level", [255, 150])
def test_a_name_in_the_field_of_view_or_across_its_edge_is_seen(place: tuple[int, int], level: int) -> None:
    pictures = speckle(20)
    shape = Rectangle(40, 30, 150, 170)
    assert overlays_inside(collected(pictures), shape).words == ()
    for picture in pictures:
        cv2.putText(picture, "DOE^JANE", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, level, 1, cv2.LINE_AA)
    found = overlays_inside(collected(pictures), shape)
    assert found.words
    assert found.mask.any()


def test_framing_maps_the_field_of_view_into_stored_pixels() -> None:
    framing = Framing(200, 300, Rectangle(100, 50, 120, 80), "box", 60)
    assert framing.box == (100, 50, 120, 80)
    assert framing.size == (60, 40)
    assert framing.stored_box == (0, 0, 60, 40)
    whole = Framing(200, 300, Rectangle(100, 50, 120, 80), "none", 150)
    assert whole.stored_box == (50, 25, 60, 40)


def test_held_frames_come_back_in_order_from_memory_and_from_the_file(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (9, 10, 12), np.uint8)
    with HeldFrames(tmp_path, in_memory=3 * 120) as held:
        for picture in pictures:
            held.add(picture)
        assert all((a == b).all() for a, b in zip(held, pictures, strict=True))


def test_contact_sheets_of_a_set_and_of_a_clip(raw: Path, masked: Path, tmp_path: Path) -> None:
    drawn = view(masked, out=tmp_path / "set.png")
    assert drawn.tiles == len(manifest.open_dataset(masked).frames["video_id"].unique())
    image = cv2.imread(str(drawn.pages[0]))
    assert image is not None
    assert ((image[..., 1] > 200) & (image[..., 2] < 140)).any()  # outlines
    clip = view(next((raw / "clips").glob("clip_*.mp4")), out=tmp_path / "clip.png")
    assert clip.said.startswith("field of view: ")
    with pytest.raises(UserError, match="inside the data set"):
        view(masked, out=masked / "x.png")
    with pytest.raises(UserError, match="no name of a PNG"):
        view(masked, out=tmp_path / "x.jpg")
