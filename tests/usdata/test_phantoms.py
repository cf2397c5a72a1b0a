"""The phantom's planted truth holds, its speckle is speckle, and the same seed gives the same bytes."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from usdata.errors import UserError
from usdata.phantoms import BLACK_FRAMES, FAKE_NAME, PhantomResult, phantom
from usdata.phantoms.anatomy import LIVER, LUNG, TISSUES, VESSEL, WALL
from usdata.phantoms.clips import plan, render, render_masks
from usdata.phantoms.physics import Scan, carrier, echoes, scatter

SIZE, FRAMES, VIDEOS = 128, 12, 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PhantomResult:
    return phantom(tmp_path_factory.mktemp("phantom") / "raw", videos=VIDEOS, seed=5, size=SIZE, frames=FRAMES)


@pytest.fixture(scope="module")
def truth(made: PhantomResult) -> list[dict[str, str]]:
    return table(made.out / "truth.csv")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decode(path: Path) -> np.ndarray:
    with av.open(path) as file:
        return np.stack([frame.to_ndarray(format="gray") for frame in file.decode(video=0)])


def faulty(truth: list[dict[str, str]], fault: str) -> dict[str, str]:
    (row,) = [row for row in truth if row["fault"] == fault]
    return row


def sound(truth: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in truth if not row["fault"]]


def in_field_of_view(row: dict[str, str], shape: tuple[int, int]) -> np.ndarray:
    """A pixel loop over the columns of truth.csv as its README defines them."""
    inside = np.zeros(shape, bool)
    for y in range(shape[0]):
        for x in range(shape[1]):
            if row["geometry"] == "linear":
                left, top, width, height = (int(row[key]) for key in ("x", "y", "width", "height"))
                inside[y, x] = left <= x < left + width and top <= y < top + height
            else:
                right, down = x - float(row["apex_x"]), y - float(row["apex_y"])
                angle = math.degrees(math.atan2(right, down))
                ring = float(row["radius_inner"]) <= math.hypot(right, down) <= float(row["radius_outer"])
                inside[y, x] = ring and float(row["angle_left_deg"]) <= angle <= float(row["angle_right_deg"])
    return inside


def test_every_clip_stands_in_both_tables(made: PhantomResult, truth: list[dict[str, str]]) -> None:
    on_disk = sorted(path.relative_to(made.out).as_posix() for path in (made.out / "clips").iterdir())
    labels = table(made.out / "labels.csv")
    assert sorted(row["path"] for row in labels) == on_disk == sorted(row["path"] for row in truth)
    assert made.videos == len(on_disk) == VIDEOS + made.faults
    assert [row["patient"] for row in labels] == [row["patient"] for row in truth]
    assert {row["licence"] for row in labels} == {"CC0-1.0"}
    assert {Path(path).suffix for path in on_disk} == {".mp4", ".avi", ".gif", ".mpeg"}


def test_clips_have_the_frames_rate_and_size_that_truth_says(made: PhantomResult, truth: list[dict[str, str]]) -> None:
    for row in truth:
        if row["fault"] == "truncated":
            continue
        assert len(decode(made.out / row["path"])) == int(row["frames"]), row["path"]
        with av.open(made.out / row["path"]) as file:
            assert float(file.streams.video[0].average_rate) == pytest.approx(float(row["fps"]), rel=1e-6), row["path"]


def test_patients_have_one_class_and_at_least_two_clips(truth: list[dict[str, str]]) -> None:
    clips = Counter(row["true_patient"] for row in sound(truth))
    assert min(clips.values()) >= 2
    assert len({(row["true_patient"], row["label"]) for row in truth}) == len(clips)
    assert [row["path"] for row in truth if row["patient"] != row["true_patient"]] == [faulty(truth, "duplicate")["path"]]


def test_a_truncated_clip_cannot_be_opened(made: PhantomResult, truth: list[dict[str, str]]) -> None:
    path = made.out / faulty(truth, "truncated")["path"]
    assert path.stat().st_size > 1000
    with pytest.raises(av.FFmpegError):
        av.open(path)


def test_a_frozen_clip_stands_still_and_others_move(made: PhantomResult, truth: list[dict[str, str]]) -> None:
    for row in truth:
        if row["fault"] == "truncated":
            continue
        frames = decode(made.out / row["path"]).astype(float)[BLACK_FRAMES if row["fault"] == "black_lead_in" else 0 :]
        inside = in_field_of_view(row, frames.shape[1:])
        change = np.abs(np.diff(frames[:, inside], axis=0)).mean(axis=1)
        if row["fault"] == "frozen":
            assert change.max() < 0.5
        else:
            assert np.sum(change < 0.5) <= 1, row["path"]  # an encoder may skip a small first change
            assert np.median(change) > 1.0, row["path"]
            first, second = frames[0, inside], frames[1, inside]
            assert np.corrcoef(first, second)[0, 1] > 0.6, row["path"]


def test_black_frames_lead_in(made: PhantomResult, truth: list[dict[str, str]]) -> None:
    means = decode(made.out / faulty(truth, "black_lead_in")["path"]).mean(axis=(1, 2))
    assert np.flatnonzero(means > 2)[0] == BLACK_FRAMES == 6
    assert means[BLACK_FRAMES:].min() > 10


def test_the_burned_in_name_is_in_the_surroundings(truth: list[dict[str, str]]) -> None:
    assert faulty(truth, "burned_in_name")["fault_detail"] == FAKE_NAME
    clip = replace(plan(videos=1, seed=5, size=320, frames=8)[0], frames=1)
    plain, _ = render(clip)
    named, _ = render(clip, burned_in=FAKE_NAME)
    changed = np.any(plain[0] != named[0], axis=-1)
    assert changed.sum() > 200
    glyphs = (named[0].max(axis=-1) > 100) & changed
    (width, height), _ = cv2.getTextSize(FAKE_NAME, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)
    top = glyphs[: 3 * height]
    extent = np.ptp(np.flatnonzero(top.any(axis=0)))
    assert extent == pytest.approx(width, rel=0.15)


def test_the_duplicate_resembles_its_original_far_more_than_any_other_clip(made: PhantomResult, truth: list[dict[str, str]]) -> None:
    copy = faulty(truth, "duplicate")
    picture = decode(made.out / copy["path"]).astype(np.float32).mean(axis=0)
    centre = picture[picture.shape[0] // 5 : -picture.shape[0] // 5, picture.shape[1] // 5 : -picture.shape[1] // 5]
    detail = centre - cv2.GaussianBlur(centre, (0, 0), 3)
    scores = {}
    for row in sound(truth):
        other = decode(made.out / row["path"]).astype(np.float32).mean(axis=0)
        other -= cv2.GaussianBlur(other, (0, 0), 3)
        scores[row["path"]] = float(cv2.matchTemplate(other, detail, cv2.TM_CCOEFF_NORMED).max())
    original = copy["fault_detail"].split("copy of ")[1].split(":")[0]
    first, second = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
    assert first == original
    assert scores[first] > 0.8 > 0.6 > scores[second]


def test_the_duplicates_field_of_view_moves_with_the_crop(made: PhantomResult, truth: list[dict[str, str]]) -> None:
    copy = faulty(truth, "duplicate")
    shape = decode(made.out / copy["path"]).shape[1:]
    assert shape[0] == pytest.approx(0.88 * _shape_of_original(made, copy)[0], abs=2)
    inside = in_field_of_view(copy, shape)
    still = decode(made.out / copy["path"]).astype(float)
    activity = np.abs(np.diff(still, axis=0)).mean(axis=0)
    assert activity[inside].mean() > 8 * activity[~inside].mean()


def _shape_of_original(made: PhantomResult, copy: dict[str, str]) -> tuple[int, ...]:
    return decode(made.out / copy["fault_detail"].split("copy of ")[1].split(":")[0]).shape[1:]


def test_tissue_is_bright_inside_the_field_of_view_and_a_corner_is_dark(made: PhantomResult, truth: list[dict[str, str]]) -> None:
    for row in sound(truth):
        frames = decode(made.out / row["path"]).astype(float)
        inside = in_field_of_view(row, frames.shape[1:])
        assert 30 < frames[:, inside].mean() < 110, row["path"]
        corner = frames[:, -frames.shape[1] // 25 :, -frames.shape[2] // 25 :]
        assert corner.mean() < 3, row["path"]
        # the moving pixels are the tissue: what lies two pixels outside stands still
        near = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        activity = frames.std(axis=0)
        assert activity[inside].mean() > 8 * activity[~near].mean(), row["path"]


def test_all_three_geometries_occur(truth: list[dict[str, str]]) -> None:
    assert {row["geometry"] for row in truth} == {"convex", "phased", "linear"}


def test_sixteen_patients_of_forty_clips_balance_classes_over_devices() -> None:
    clips = plan(videos=40, seed=3)
    of_patient = {clip.patient: clip for clip in reversed(clips)}  # each patient's first clip
    assert len(of_patient) == 16
    assert set(Counter(clip.label for clip in of_patient.values()).values()) == {4}
    assert set(Counter(clip.label for clip in clips).values()) == {10}
    table = Counter((clip.label, clip.device.name) for clip in of_patient.values())
    assert len(table) == 16
    assert set(table.values()) == {1}  # a Latin square: the class says nothing about the device, Cramer's V is 0
    for feature in ("device", "container"):
        by_class = {
            label: Counter(str(getattr(clip, feature)) for clip in clips if clip.label == label) for label in {c.label for c in clips}
        }
        assert len({tuple(sorted(counts.items())) for counts in by_class.values()}) == 1, feature
    several = [patient for patient in of_patient if len({clip.device for clip in clips if clip.patient == patient}) > 1]
    assert len(several) == 4


def test_equal_seeds_give_equal_bytes_and_a_clip_does_not_depend_on_how_many_there_are(made: PhantomResult, tmp_path: Path) -> None:
    again = phantom(tmp_path / "again", videos=10, seed=5, size=SIZE, frames=FRAMES)
    fewer = sorted((again.out / "clips").iterdir())
    assert len(fewer) == 15
    for path in fewer:
        assert path.read_bytes() == (made.out / "clips" / path.name).read_bytes(), path.name
    other = phantom(tmp_path / "other", videos=1, seed=6, size=SIZE, frames=FRAMES)
    assert (other.videos, other.faults) == (1, 0)
    (clip,) = (other.out / "clips").iterdir()
    assert clip.read_bytes() not in {path.read_bytes() for path in fewer}


def test_a_folder_that_holds_something_is_left_alone(made: PhantomResult, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not empty; choose another folder"):
        phantom(made.out, videos=1)
    for wrong in ({"videos": 0}, {"seed": -1}, {"size": 20}, {"frames": 1}):
        with pytest.raises(UserError, match="must be at least"):
            phantom(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


SCAN = Scan(depths=240, beams=160, depth_mm=120, radius_mm=50, half_angle=0.5, width_mm=0, frequency_mhz=3, focus=0.5)


@pytest.fixture(scope="module")
def homogeneous() -> np.ndarray:
    """Echoes of tissue without structure, eight independent pictures of it."""
    frames = []
    for seed in range(8):
        beam, depth, strength = scatter(SCAN, np.random.default_rng(seed))
        frames.append((beam, depth, strength[0] * carrier(SCAN, depth)))
    return echoes(SCAN, frames)


def test_speckle_is_fully_developed(homogeneous: np.ndarray) -> None:
    envelope = np.abs(homogeneous).astype(float)
    ratio = envelope.mean() / envelope.std()
    assert ratio == pytest.approx(math.sqrt(math.pi / (4 - math.pi)), abs=0.04)  # Rayleigh: 1.913
    # the intensity is exponential: its second moment is twice its mean squared
    intensity = envelope**2
    assert (intensity**2).mean() / intensity.mean() ** 2 == pytest.approx(2.0, abs=0.1)
    circular = np.mean(homogeneous**2) / np.mean(intensity)
    assert abs(circular) < 0.05


def test_speckle_is_as_large_as_the_beam(homogeneous: np.ndarray) -> None:
    """A Gaussian beam of width s gives a correlation exp(-d^2 / 4 s^2) at distance d (Wagner et al. 1983)."""
    sigma = SCAN.lateral_sigma()
    for depth, away in ((120, "focus"), (230, "deep")):
        band = homogeneous[:, depth - 8 : depth + 8]
        width = float(sigma[depth - 8 : depth + 8].mean())
        measured = np.abs(np.mean(band[..., 2:] * band[..., :-2].conj())) / np.mean(np.abs(band) ** 2)
        blur = 1 / 6  # variance that sharing a scatterer out to two grid nodes adds on average
        assert measured == pytest.approx(math.exp(-4 / (4 * (width**2 + blur))), abs=0.05), away
    assert sigma[-1] > 1.25 * sigma[120]


def test_a_single_scatterer_moves_its_echo_and_turns_its_phase() -> None:
    def echo(depth: float) -> np.ndarray:
        at = np.array([depth], np.float32)
        return echoes(SCAN, [(np.array([80], np.float32), at, carrier(SCAN, at))])[0]

    here, there = echo(100.0), echo(100.25)
    spread = np.abs(here[:, 80])
    moved = np.abs(there[:, 80])
    places = np.arange(SCAN.depths)
    assert (moved @ places) / moved.sum() - (spread @ places) / spread.sum() == pytest.approx(0.25, abs=0.02)
    wavelength_mm = 1.54 / 3
    expected = -4 * math.pi * 0.25 * SCAN.mm_per_sample / wavelength_mm
    turned = np.angle(there[100, 80] / here[100, 80])
    assert math.cos(turned - expected) > 0.999


def test_masks_lie_under_the_frame_ids_of_a_build_and_change_no_clip(made: PhantomResult, tmp_path: Path) -> None:
    again = phantom(tmp_path / "raw", videos=2, seed=5, size=SIZE, frames=FRAMES, masks=tmp_path / "masks")
    for path in sorted((again.out / "clips").iterdir()):
        assert path.read_bytes() == (made.out / "clips" / path.name).read_bytes()
        masks = sorted((tmp_path / "masks" / "phantom" / path.name.replace(".", "_")).iterdir())
        assert sorted(mask.name for mask in masks) == sorted(f"{index}.png" for index in range(FRAMES))
        for mask in masks:
            assert cv2.imread(str(mask), cv2.IMREAD_UNCHANGED).shape == decode(path)[0].shape
    assert json.loads((tmp_path / "masks" / "classes.json").read_text()) == {str(value): name for value, name in TISSUES.items()}
    with pytest.raises(UserError, match="masks: exists and is not empty"):
        phantom(tmp_path / "other", videos=2, masks=tmp_path / "masks")
    with pytest.raises(UserError, match="does not go with --like us4"):
        phantom(tmp_path / "other", like="us4", masks=tmp_path / "more")


def test_masks_say_what_the_pictures_show() -> None:
    """Against the pictures themselves: where it is dark, where the bright pleura or capsule runs, and when."""
    for clip in plan(videos=9, seed=1, size=160, frames=20):
        pictures, geometry = render(clip)
        gray, masks = pictures[..., 0].astype(float), render_masks(clip)
        assert masks.shape == gray.shape
        organ, other = (LUNG, LIVER) if clip.label.endswith("lines") else (LIVER, LUNG)
        assert (masks == WALL).any(axis=(1, 2)).all()
        assert (masks == organ).any(axis=(1, 2)).all()
        assert not (masks == other).any()
        assert (masks[0] > 0).sum() <= math.prod((geometry.canvas_width, geometry.canvas_height))
        # the surface of lung or liver is a bright line along the border of the wall
        wall, below = (cv2.dilate((masks[9] == value).astype(np.uint8), np.ones((5, 5))) for value in (WALL, organ))
        border, tissue = (wall & below).astype(bool), masks[9] > 0
        assert gray[9][border].mean() > 1.25 * gray[9][tissue & ~border].mean(), clip
        if (masks == VESSEL).sum() > 200 * len(masks):
            inside = masks == VESSEL
            assert gray[inside].mean() < 0.5 * gray[masks == LIVER].mean()
            # of all times its own fits best: vessels move with the breath
            misfit = [gray[9][inside[time]].mean() for time in range(len(masks))]
            assert abs(int(np.argmin(misfit)) - 9) <= 2 or max(misfit) - min(misfit) < 4, clip


def test_masks_keep_to_the_field_of_view(truth: list[dict[str, str]]) -> None:
    clip = plan(videos=VIDEOS, seed=5, size=SIZE, frames=FRAMES)[0]
    row = next(row for row in sound(truth) if row["path"] == clip.path)
    inside = in_field_of_view(row, (clip.height, clip.width))
    masks = render_masks(clip)
    assert not masks[:, ~inside].any()
    assert (masks[0] > 0).sum() > 0.6 * inside.sum()
