"""The published US-4 folders: what their own loader would find there, and the way back to the same frames."""

import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import usdata
from tests.usdata.clips import speckle_frames, write_video
from usdata.errors import UserError
from usdata.exporting.folders import folder_names
from usdata.known_layouts import US4_FOLDER
from usdata.phantoms import us4
from usdata.phantoms.us4 import plan_us4, write_us4
from usdata.recipe import Recipe

# The paper's classes by the first three characters of a folder's name (USCL's published table).
PUBLISHED = {
    "Rb1": 0, "Rb2": 1, "Rb3": 2, "Rb4": 3, "Rb5": 4, "F0_": 5, "F1_": 6, "F2_": 7, "F3_": 8, "F4_": 9,
    "Reg": 10, "Cov": 11, "Ali": 10, "Bli": 11, "Ple": 11, "Oth": 11,
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(us4, "plan_us4", lambda seed: plan_us4(seed)[::53])
        write_us4(folder / "tree", seed=0, workers=1)
    return usdata.build("us4", raw=folder / "tree", out=folder / "set", workers=1).out


def as_their_loader_reads(folder: Path) -> dict[str, tuple[int, list[str]]]:
    """Folder name to class and images: every folder found by walking is a clip, of its files those that end in .jpg or .png."""
    found = {}
    for root, folders, _ in os.walk(folder):
        for name in folders:
            images = [file for file in os.listdir(os.path.join(root, name)) if file.endswith((".jpg", ".png"))]
            found[name] = (PUBLISHED[name[:3]], sorted(images))
    return found


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_published_loader_finds_every_clip_its_class_and_its_frames(suffix: str, dataset: Path, tmp_path: Path) -> None:
    exported = usdata.export(dataset, to="folders", out=tmp_path / "frames", images=suffix)
    data = usdata.load(dataset)
    found = as_their_loader_reads(exported.out)
    assert (exported.clips, exported.frames) == (len(found), len(data.frames))
    assert not [path for path in exported.out.iterdir() if not path.is_dir()]
    names = folder_names(data.videos[data.videos.frames_kept > 0])
    for video_id, frames in data.frames.groupby("video_id"):
        label, images = found[names[str(video_id)]]
        assert label == frames.label_index.iloc[0]
        assert re.fullmatch(rf"(Rb\d|F\d_|[A-Z][a-z]{{2}})-.+_frame\d+\.{suffix}", images[0])
        for row in frames.itertuples():
            path = exported.out / names[str(video_id)] / f"{names[str(video_id)]}_frame{row.frame_index}.{suffix}"
            theirs = np.asarray(Image.open(path).convert("RGB"))
            ours = cv2.imread(str(dataset / str(row.path)), cv2.IMREAD_UNCHANGED)
            assert theirs.shape == (row.height, row.width, 3)
            assert np.abs(theirs.astype(int) - ours[..., None]).max() <= (0 if suffix == "png" else 40)
            assert np.abs(theirs.astype(int) - ours[..., None]).mean() <= (0 if suffix == "png" else 4)


def test_importing_it_gives_back_the_same_frames(dataset: Path, tmp_path: Path) -> None:
    usdata.export(dataset, to="folders", out=tmp_path / "frames")
    before = usdata.load(dataset)
    after = usdata.load(usdata.build("us4-folders", raw=tmp_path / "frames", out=tmp_path / "again", workers=1).out)
    names = folder_names(before.videos[before.videos.frames_kept > 0])
    expected = {names[video_id]: list(frames.pixel_sha256) for video_id, frames in before.frames.groupby("video_id")}
    assert {video_id.split("/")[1]: list(frames.pixel_sha256) for video_id, frames in after.frames.groupby("video_id")} == expected
    assert after.about["counts"]["excluded"] == after.about["counts"]["failed"] == 0
    raw_labels = {row.video_id: row.labels[0].removeprefix("label=") for row in before.videos.itertuples() if row.frames_kept}
    assert {row.video_id.split("/")[1]: row.label for row in after.videos.itertuples()} == {
        names[video_id]: label for video_id, label in raw_labels.items()
    }
    again = usdata.export(tmp_path / "again", to="folders", out=tmp_path / "twice")
    assert sorted(path.name for path in again.out.iterdir()) == sorted(path.name for path in (tmp_path / "frames").iterdir())


def test_other_labels_none_and_clips_of_one_name(tmp_path: Path) -> None:
    for place, seed in (("x/a b.mkv", 1), ("y/a b.mkv", 2), ("y/Other finding/c.mkv", 3)):
        write_video(tmp_path / "raw" / place, speckle_frames(4, seed=seed), codec="ffv1")
    sources = [
        {"name": "x", "layout": "files", "root": "x", "constants": {"label": "no/finding"}},
        {"name": "y", "layout": "files", "root": "y", "pattern": r"(?:^(?P<label>[^/]+)/)?[^/]+$"},
    ]
    built = usdata.build(Recipe.model_validate({"name": "t", "sources": sources}), raw=tmp_path / "raw", out=tmp_path / "set", workers=1)
    exported = usdata.export(built.out, to="folders", out=tmp_path / "frames")
    labels = {path.name: re.search(US4_FOLDER, path.name)["label"] for path in exported.out.iterdir()}  # type: ignore[index]
    assert len(labels) == 3
    assert sorted(labels.values(), key=str) == [None, "Other_finding", "no_finding"]


@given(st.sampled_from(sorted(PUBLISHED)), st.text(alphabet="abcXY019_-.", min_size=1, max_size=12))
def test_the_layout_finds_each_published_prefix(prefix: str, rest: str) -> None:
    found = re.search(US4_FOLDER, f"{prefix}-{rest}")
    assert found is not None
    assert found["label"] == prefix


def test_wrong_requests_are_one_line_and_leave_nothing(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    cases = [
        ({"to": "folder", "out": tmp_path / "a"}, "did you mean 'folders'"),
        ({"to": "folders", "out": tmp_path / "a", "images": "gif"}, "known are: jpg, png"),
        ({"to": "folders", "out": tmp_path / "full"}, "not empty"),
        ({"to": "folders", "out": dataset / "images" / "b"}, "inside the data set"),
    ]
    for arguments, said in cases:
        with pytest.raises(UserError, match=said):
            usdata.export(dataset, **arguments)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_a_missing_image_is_told_and_nothing_is_left(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "set")
    next((tmp_path / "set").rglob("*.png")).unlink()
    with pytest.raises(UserError, match="this image of the data set is missing"):
        usdata.export(tmp_path / "set", to="folders", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
