"""`data.images(...)`: the pictures that a selection names, in its order, as another library reads them; nothing outside of the folder."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import usdata
from tests.usdata.clips import speckle_frames, write_video
from usdata import manifest
from usdata.building import build
from usdata.errors import DataSetError, UserError
from usdata.manifest import DataSet
from usdata.recipe import Recipe


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    lines = ["path,label"]
    for number in range(3):
        frames = speckle_frames(5 + number, seed=number, height=64, width=80 + 16 * number)
        write_video(folder / "raw" / f"clip{number}.mkv", frames, codec="ffv1")
        lines.append(f"clip{number}.mkv,{'ab'[number % 2]}")
    (folder / "raw" / "broken.mkv").write_bytes(b"no video")
    lines.append("broken.mkv,a")
    (folder / "raw" / "labels.csv").write_text("\n".join(lines) + "\n")
    source = {"name": "ward", "table": "labels.csv", "columns": {"path": "path", "label": "label"}, "sampling": {"rule": "all"}}
    recipe = Recipe.model_validate({"name": "tiny", "sources": [source]})
    return build(recipe, raw=folder / "raw", out=folder / "set", workers=1).out


@pytest.fixture
def data(built: Path) -> DataSet:
    return usdata.load(built)


def expected(data: DataSet, frame_ids: list[str]) -> list[np.ndarray]:
    """As Pillow reads them."""
    path_of = dict(zip(data.frames["frame_id"], data.frames["path"], strict=True))
    return [np.asarray(Image.open(data.folder / path_of[frame_id])) for frame_id in frame_ids]


def same(found: Any, wanted: list[np.ndarray]) -> bool:
    return len(found) == len(wanted) and all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_a_position_and_an_id_give_one_picture(data: DataSet) -> None:
    ids = data.frames["frame_id"].tolist()
    for which in (0, np.int64(4), -1, len(ids) - 1):
        picture = data.images(which)
        assert isinstance(picture, np.ndarray)
        assert picture.dtype == np.uint8
        assert picture.shape == expected(data, [ids[which]])[0].shape
        assert np.array_equal(picture, expected(data, [ids[which]])[0])
    assert np.array_equal(data.images(ids[3]), data.images(3))
    assert np.array_equal(data.images(data.frames.iloc[3]), data.images(3))


def test_selections_give_pictures_in_their_order(data: DataSet) -> None:
    frames = data.frames
    ids = frames["frame_id"].tolist()
    shuffled = frames.sample(frac=1, random_state=0)
    selections: list[tuple[Any, list[str]]] = [
        (slice(2, 9, 3), ids[2:9:3]),
        (slice(None, None, -1), ids[::-1]),
        ([5, 0, 5], [ids[5], ids[0], ids[5]]),
        (np.array([7, 1]), [ids[7], ids[1]]),
        (range(3), ids[:3]),
        (pd.Index([2, 1]), [ids[2], ids[1]]),
        (frames["label"] == "b", frames.loc[frames["label"] == "b", "frame_id"].tolist()),
        ((frames["label"] == "b").to_numpy(), frames.loc[frames["label"] == "b", "frame_id"].tolist()),
        ((frames["label"] == "b").tolist(), frames.loc[frames["label"] == "b", "frame_id"].tolist()),
        (frames.query("label == 'a'"), frames.loc[frames["label"] == "a", "frame_id"].tolist()),
        (shuffled, shuffled["frame_id"].tolist()),
        (shuffled[["frame_id", "label"]], shuffled["frame_id"].tolist()),
        ([ids[4], ids[2]], [ids[4], ids[2]]),
        (frames.iloc[:0], []),
        ([], []),
    ]
    for which, wanted in selections:
        assert same(data.images(which), expected(data, wanted)), type(which)


def test_a_clip_gives_its_frames_as_one_array(data: DataSet) -> None:
    for video_id in data.frames["video_id"].unique():
        rows = data.frames[data.frames["video_id"] == video_id]
        clip = data.images(str(video_id))
        assert isinstance(clip, np.ndarray)
        assert clip.shape == (len(rows), rows["height"].iloc[0], rows["width"].iloc[0])
        assert same(clip, expected(data, rows["frame_id"].tolist()))
    first, second = (str(name) for name in data.frames["video_id"].unique()[:2])
    assert [clip.shape for clip in data.images([first, second])] == [data.images(first).shape, data.images(second).shape]


MISTAKES = [
    (10_000, "is none of the 18 frames"),
    (-10_000, "is none of the 18 frames"),
    ("ward/clip1_mkx", "did you mean 'ward/clip1_mkv'"),
    ("ward/broken_mkv", "keeps no frame: it is failed"),
    ([True, False], "2 values for 18 frames"),
    (pd.Series([True, False]), "is not one of the 18 frames"),
    (True, "a bool: names no frames"),
    (1.5, "a float: names no frames"),
    (None, "a NoneType: names no frames"),
    (np.zeros((2, 2), bool), "names no frames"),
    ([0, "ward/clip1_mkv"], "several kinds"),
    (pd.DataFrame({"frame_id": ["ward/clip9/0"]}), "is no frame of tiny"),
    (pd.DataFrame({"video_id": ["ward/clip1_mkv"], "path": ["clip1.mkv"]}), "give rows of .frames"),
]


@pytest.mark.parametrize(("which", "said"), MISTAKES)
def test_what_names_no_frame_is_said_in_one_line(data: DataSet, which: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        data.images(which)
    assert "\n" not in str(raised.value)


def test_missing_and_damaged_pictures_are_said_in_one_line(built: Path, tmp_path: Path) -> None:
    data = usdata.load(shutil.copytree(built, tmp_path / "set"))
    paths = [data.folder / path for path in data.frames["path"]]
    paths[0].unlink()
    paths[1].write_bytes(b"")
    paths[2].write_bytes(paths[2].read_bytes()[:-400])
    shutil.copy(paths[4], paths[3])
    for place, said in ((0, "is missing"), (1, "no readable image"), (2, "damaged|no readable image"), (3, "another image")):
        with pytest.raises(DataSetError, match=said) as raised:
            data.images(place)
        assert "\n" not in str(raised.value)
        assert "build the set again" in str(raised.value)
    assert data.images(4).shape == (64, 80)


def with_path(built: Path, folder: Path, path: str) -> DataSet:
    """A set whose first frame's path is another one."""
    shutil.copytree(built, folder)
    frames = manifest.read_table(folder, manifest.FRAMES)
    place = frames.schema.get_field_index("path")
    paths = [path, *frames.column("path").to_pylist()[1:]]
    frames = frames.set_column(place, frames.schema.field(place), pa.array(paths))
    manifest.write_table(folder, manifest.FRAMES, frames, recipe_digest="r")
    return usdata.load(folder)


def test_no_path_leaves_the_folder(built: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(secret)
    for number, path in enumerate(("../secret.png", str(secret), "images/../../secret.png", "..\\secret.png", "a\0b")):
        data = with_path(built, tmp_path / f"set{number}", path)
        with pytest.raises(DataSetError, match="leaves the data set"):
            data.images(0)
        assert "base64" not in data.sheet([0]).text
    data = with_path(built, tmp_path / "linked", "images/link.png")
    (data.folder / "images" / "link.png").symlink_to(secret)
    with pytest.raises(DataSetError, match="leaves the data set"):
        data.images(0)
