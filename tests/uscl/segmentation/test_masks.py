"""Which frames have a mask, what masks may be, and masks at another size."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.uscl.evaluation.texture_set import video_name
from tests.uscl.segmentation.mask_set import SIZE, masks_of, write_image, write_mask_set
from uscl.evaluation.selection import matching_frames
from uscl.segmentation.masks import find_masks, read_mask, shrink
from usdata.errors import UserError
from usdata.manifest import DataSet, open_dataset


@pytest.fixture
def made(tmp_path: Path) -> tuple[DataSet, pd.DataFrame, Path]:
    folder = write_mask_set(tmp_path / "set", videos=2, frames_per_video=2)
    opened = open_dataset(folder)
    return opened, matching_frames(opened), masks_of(folder)


def test_frames_find_their_masks_by_id_or_path(made: tuple[DataSet, pd.DataFrame, Path]) -> None:
    opened, frames, folder = made
    has, masks = find_masks(opened, frames, str(folder))
    assert has.all()
    assert (masks.values, masks.names) == ([1, 2], ["1", "2"])
    other = folder.with_name("by-path")
    mask = masks.read(3)
    write_image(other / frames["path"].iloc[3], mask)
    has, masks = find_masks(opened, frames, str(other))
    assert has.tolist() == [False, False, False, True]
    np.testing.assert_array_equal(masks.read(0), mask)


def test_gray_levels_become_classes_in_their_order_and_may_have_names(made: tuple[DataSet, pd.DataFrame, Path]) -> None:
    opened, frames, folder = made
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:5], mask[5:9] = 255, 40
    for frame_id in frames["frame_id"]:
        write_image(folder / f"{frame_id}.png", mask)
    (folder / "classes.json").write_text(json.dumps({"255": "whole", "3": "unused"}))
    _, masks = find_masks(opened, frames, str(folder))
    assert (masks.values, masks.names) == ([40, 255], ["40", "whole"])
    assert [np.unique(rows).tolist() for rows in (masks.read(0)[:5], masks.read(0)[5:9], masks.read(0)[9:])] == [[2], [1], [0]]


def test_palettes_are_read_by_their_places(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2))
    image.putdata([0, 1, 2, 1])
    image.putpalette([0, 0, 0, 250, 10, 10, 10, 250, 10])
    image.save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png").tolist() == [[0, 1], [2, 1]]


def test_a_column_names_masks_inside_the_set(made: tuple[DataSet, pd.DataFrame, Path]) -> None:
    opened, frames, _ = made
    write_image(opened.folder / "overlays/one.png", np.eye(SIZE, dtype=np.uint8) * 255)
    videos = opened.videos.copy()
    videos.loc[videos["video_id"] == video_name(1), "overlay_path"] = "overlays/one.png"
    opened.__dict__["videos"] = videos
    has, masks = find_masks(opened, frames, "overlay_path")
    assert has.tolist() == [False, False, True, True]
    assert masks.names == ["255"]
    opened.__dict__["videos"] = videos.assign(overlay_path="overlays/two.png")
    with pytest.raises(UserError, match=r"names 'overlays/two\.png', and the data set has no such file"):
        find_masks(opened, frames, "overlay_path")
    opened.__dict__["videos"] = videos.assign(overlay_path="../outside.png")
    with pytest.raises(UserError, match="does not hold paths inside the data set"):
        find_masks(opened, frames, "overlay_path")


def test_masks_that_do_not_fit_are_told_in_one_line(made: tuple[DataSet, pd.DataFrame, Path]) -> None:
    opened, frames, folder = made
    write_image(folder / f"{frames['frame_id'].iloc[0]}.png", np.ones((SIZE, SIZE - 1), np.uint8))
    with pytest.raises(UserError, match=rf"0.png is {SIZE - 1}x{SIZE} and its frame {SIZE}x{SIZE}; draw masks on the pictures"):
        find_masks(opened, frames, str(folder))
    for frame_id in frames["frame_id"]:
        write_image(folder / f"{frame_id}.png", np.ones((8, 8), np.uint8))
    with pytest.raises(UserError, match="; and 1 more; draw"):
        find_masks(opened, frames, str(folder))


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((SIZE, SIZE), np.uint8), "holds nothing but background"),
        (np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE), "gray levels besides 0, more than 32 classes"),
        (np.ones((SIZE, SIZE, 3), np.uint8), "has several channels"),
        (None, "cannot be read"),
    ],
)
def test_masks_that_are_none(made: tuple[DataSet, pd.DataFrame, Path], pixels: np.ndarray | None, reason: str) -> None:
    opened, frames, folder = made
    for frame_id in frames["frame_id"]:
        path = folder / f"{frame_id}.png"
        path.write_bytes(b"no picture") if pixels is None else write_image(path, pixels)
    with pytest.raises(UserError, match=reason):
        find_masks(opened, frames, str(folder))


def test_a_word_that_is_no_folder_and_no_column(made: tuple[DataSet, pd.DataFrame, Path], tmp_path: Path) -> None:
    opened, frames, _ = made
    with pytest.raises(UserError, match="did you mean 'overlay_path'"):
        find_masks(opened, frames, "overlay_paths")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"holds no mask of any of the 4 frames; the first frame's would be images/0/0\.png or made/clip00/0\.png"
    ):
        find_masks(opened, frames, str(tmp_path / "empty"))


def test_shrinking_gives_each_pixel_the_class_of_most_of_its_area() -> None:
    generator = np.random.default_rng(1)
    mask = cv2.resize(generator.integers(0, 4, (6, 10)).astype(np.uint8), (40, 24), interpolation=cv2.INTER_NEAREST)
    mask[generator.random(mask.shape) < 0.2] = 0
    found = shrink(mask, 3, 8)
    for row in range(8):
        for column in range(8):
            block = mask[3 * row : 3 * row + 3, 5 * column : 5 * column + 5]
            assert found[row, column] == np.bincount(block.ravel(), minlength=4).argmax()
    np.testing.assert_array_equal(shrink(mask[:24, :24], 3, 24), mask[:24, :24])
    np.testing.assert_array_equal(shrink(np.kron(np.eye(2, dtype=np.uint8), np.full((2, 2), 3, np.uint8)), 3, 2), np.eye(2) * 3)
