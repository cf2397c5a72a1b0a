"""The published shape of a fold, and others that can only mean one thing; all else is refused with what was found."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from usdata.errors import UserError
from usdata.fold_pickles.fold_files import read_fold

rng = np.random.default_rng(1)
RGB = rng.integers(0, 256, (5, 20, 24, 3), dtype=np.uint8)  # as they shall come out
FIRST = np.moveaxis(RGB, 3, 1)
LABELS = [0, 2, 1, 1, 0]
Y = np.array(LABELS)


def read(folder: Path, value: Any) -> Any:
    path = folder / "fold.pkl"
    path.write_bytes(pickle.dumps(value, 4))
    return read_fold(path)


def shapes() -> dict[str, tuple[Any, bool]]:
    """Shape to the value and whether it has a training part."""
    return {
        "published": ((FIRST[:2], Y[:2], FIRST, Y), True),
        "published, as a list": ([FIRST[:2], LABELS[:2], FIRST, LABELS], True),
        "published, floats of gray levels": ((FIRST[:2] * 1.0, Y[:2], FIRST.astype(np.float32), Y), True),
        "images and labels": ((FIRST, Y), False),
        "channels last": ((RGB, Y), False),
        "fractions": ((RGB / 255, Y), False),
        "whole numbers": ((RGB.astype(np.int64), Y), False),
        "a list of pictures": ((list(RGB), LABELS), False),
        "pairs": ([(image, label) for image, label in zip(FIRST, LABELS, strict=True)], False),
        "two parts": (((RGB[:2], Y[:2]), (RGB, Y)), True),
        "a dict": ({"images": RGB, "labels": Y}, False),
        "a dict of X and y": ({"X": FIRST, "y": Y.astype(float)}, False),
        "a dict of parts": ({"train": (RGB[:2], Y[:2]), "test": {"images": RGB, "labels": Y}}, True),
        "a dict of four": ({"X_train": FIRST[:2], "y_train": Y[:2], "X_test": FIRST, "y_test": Y}, True),
        "rows with a single 1": ((RGB, np.eye(3)[Y]), False),
        "a column": ((RGB, Y[:, None]), False),
    }


@pytest.mark.parametrize("name", shapes())
def test_shapes_give_the_same_pictures(name: str, tmp_path: Path) -> None:
    value, trains = shapes()[name]
    fold = read(tmp_path, value)
    assert fold.held_out.labels == LABELS
    assert np.array_equal(np.stack(list(fold.held_out.pictures())), RGB)
    assert (fold.training is not None) == trains
    if fold.training is not None:
        assert np.array_equal(np.stack(list(fold.training.pictures())), RGB[:2])


def test_gray_pictures_and_names_of_classes(tmp_path: Path) -> None:
    for images in (RGB[..., 0], RGB[..., :1], FIRST[:, :1]):
        fold = read(tmp_path, (images, np.array(["covid19", "regular", "regular", "regular", "covid19"])))
        assert fold.held_out.labels == ["covid19", "regular", "regular", "regular", "covid19"]
        assert np.array_equal(np.stack(list(fold.held_out.pictures())), RGB[..., 0])


def test_fractions_of_gray_levels_are_cut_off_as_the_published_code_does(tmp_path: Path) -> None:
    images = FIRST + 0.75 * (FIRST < 255)
    fold = read(tmp_path, (images, Y))
    assert np.array_equal(np.stack(list(fold.held_out.pictures())), np.moveaxis(images, 1, 3).astype("uint8"))


def test_a_dark_fold_of_uint8_is_no_fold_of_fractions(tmp_path: Path) -> None:
    dark = np.ones_like(RGB)
    assert np.array_equal(np.stack(list(read(tmp_path, (dark, Y)).held_out.pictures())), dark)


REFUSED = {
    "no fold": (np.zeros((2, 3)), r"an array float64 \(2, 3\)"),
    "three parts": ((RGB, Y, RGB), r"a tuple of 3 \(an array uint8 \(5, 20, 24, 3\), an array int64 \(5,\)"),
    "a dict of other keys": ({"pixels": RGB, "what": Y}, "a dict of 'pixels', 'what'"),
    "two pictures keys": ({"images": RGB, "x": RGB, "labels": Y}, "a dict of 'images', 'x', 'labels'"),
    "channels at both ends": ((rng.integers(0, 9, (5, 3, 20, 3)), Y), "which is no fold"),
    "four channels": ((np.zeros((5, 20, 20, 4), np.uint8), Y), "which is no fold"),
    "labels between": ((RGB, Y + 0.5), "which is no fold"),
    "one label too few": ((RGB, Y[:4]), "5 pictures and 4 labels"),
    "nothing": ((RGB[:0], Y[:0]), "holds out no picture"),
    "negative": ((RGB / 128.0 - 1, Y), "values from -1"),
    "too bright": ((RGB.astype(int) * 9, Y), "values from 0 to"),
    "not a number": ((np.where(RGB > 250, np.nan, RGB), Y), "not finite"),
    "infinite": ((np.where(RGB > 250, np.inf, RGB), Y), "not finite"),
    "tiny": ((RGB[:, :8], Y), "8 x 24 pixels"),
    "text": ("covid_data1", "a str"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_is_refused_with_what_was_found(name: str, tmp_path: Path) -> None:
    value, reason = REFUSED[name]
    with pytest.raises(UserError, match=reason):
        read(tmp_path, value)
