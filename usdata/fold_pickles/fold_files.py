"""What one published fold holds: pictures and labels to be held out, and mostly those to train on besides.

In: the value of a pickle. Out: two parts of equally many pictures and labels, the pictures as gray or RGB uint8. The published files hold
(X_train, y_train, X_test, y_test), pictures (N, C, H, W) from 0 to 255; other shapes that can only mean one thing are read too, and
the rest is refused with what was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usdata.errors import UserError
from usdata.fold_pickles.safe_pickle import load_arrays

LEAST_SIDE, MOST_SIDE = 16, 4096
EXPECTED = "give files as published: (X_train, y_train, X_test, y_test), or (images, labels), in tuples, lists or dicts"

_IMAGES = ("x", "images", "image", "imgs", "img", "data", "frames", "pictures")
_LABELS = ("y", "labels", "label", "targets", "target")
_HELD_OUT = ("test", "val", "valid", "validation")
_TRAINING = ("train", "training")

Picture = NDArray[np.uint8]
Label = int | str


@dataclass(frozen=True)
class Part:
    """Pictures and their labels.

    Attributes:
        images: Arrays (H, W), (C, H, W) or (H, W, C), one a picture.
        labels: One a picture: a number or a name.
        scale: What values are multiplied with to reach from 0 to 255.
    """

    images: Sequence[NDArray[Any]]
    labels: list[Label]
    scale: int

    def pictures(self) -> Iterator[Picture]:
        """Each picture, (H, W) or (H, W, 3) uint8. Fractions of gray levels are cut off, as the published evaluation does."""
        for image in self.images:
            if image.ndim == 3:
                image = np.moveaxis(image, 0, 2) if _channels_first(image.shape) else image
                image = image[:, :, 0] if image.shape[2] == 1 else image
            if image.dtype != np.uint8:
                image = np.rint(image * 255.0) if self.scale == 255 else np.asarray(image)
            yield np.ascontiguousarray(image, dtype=np.uint8) if image.dtype == np.uint8 else image.astype(np.uint8, order="C")


@dataclass(frozen=True)
class FoldFile:
    """One fold.

    Attributes:
        held_out: What is tested on.
        training: What is trained on; None where the file does not say.
        shape: How the file was read, in words.
    """

    held_out: Part
    training: Part | None
    shape: str


def read_fold(path: Path) -> FoldFile:
    """One fold's file.

    Raises:
        UserError: It is no pickle of arrays, or its value is none of the shapes that are known; the error says what was found.
    """
    value = load_arrays(path)
    found = _fold_of(value)
    if found is None:
        raise UserError(path, f"holds {described(value)}, which is no fold", EXPECTED)
    held_out, training, shape = found
    parts = [part for part in (held_out, training) if part is not None]
    scale = _scale(path, [image for images, _ in parts for image in _distinct(images)])
    for images, labels in parts:
        if len(images) != len(labels):
            raise UserError(path, f"holds {len(images):,} pictures and {len(labels):,} labels", "give the file as it was published")
        _check_sides(path, images)
    if not held_out[1]:
        raise UserError(path, "holds out no picture", "give the file as it was published")
    return FoldFile(Part(*held_out, scale), None if training is None else Part(*training, scale), shape)


_Pair = tuple[Sequence[NDArray[Any]], list[Label]]


def _fold_of(value: Any) -> tuple[_Pair, _Pair | None, str] | None:
    """What is held out, what is trained on, and the shape's name; None where it is no fold."""
    if isinstance(value, Mapping):
        return _fold_of_names({str(key).strip().lower().replace("-", "_").replace(" ", "_"): each for key, each in value.items()})
    if not isinstance(value, list | tuple):
        return None
    if len(value) == 4 and (held_out := _pair(value[2], value[3])) and (training := _pair(value[0], value[1])):
        return held_out, training, "X_train, y_train, X_test, y_test"
    if part := _part_of(value):
        return part, None, "images and labels"
    if len(value) == 2 and (training := _part_of(value[0])) and (held_out := _part_of(value[1])):
        return held_out, training, "(X_train, y_train), (X_test, y_test)"
    return None


def _fold_of_names(value: Mapping[str, Any]) -> tuple[_Pair, _Pair | None, str] | None:
    held_out = [part for name in _HELD_OUT if (part := _named(value, name)) or (part := _part_of(value.get(name)))]
    training = [part for name in _TRAINING if (part := _named(value, name)) or (part := _part_of(value.get(name)))]
    if len(held_out) == 1 and len(training) <= 1:
        return held_out[0], training[0] if training else None, "a dict of training and test"
    part = None if held_out or training else _part_of(value)
    return None if part is None else (part, None, "a dict of images and labels")


def _named(value: Mapping[str, Any], which: str) -> _Pair | None:
    """`x_test` and `y_test`, `test_images` and `test_labels`, ..."""
    images = [value[key] for word in _IMAGES for key in (f"{word}_{which}", f"{which}_{word}") if key in value]
    labels = [value[key] for word in _LABELS for key in (f"{word}_{which}", f"{which}_{word}") if key in value]
    return _pair(images[0], labels[0]) if len(images) == len(labels) == 1 else None


def _part_of(value: Any) -> _Pair | None:
    """(images, labels), {images, labels}, or a list of (image, label)."""
    if isinstance(value, Mapping):
        keys = {str(key).strip().lower(): each for key, each in value.items()}
        images, labels = [keys[word] for word in _IMAGES if word in keys], [keys[word] for word in _LABELS if word in keys]
        return _pair(images[0], labels[0]) if len(images) == len(labels) == 1 else None
    if not isinstance(value, list | tuple):
        return None
    if len(value) == 2 and (part := _pair(value[0], value[1])):
        return part
    if value and all(isinstance(each, list | tuple) and len(each) == 2 for each in value):
        return _pair([each[0] for each in value], [each[1] for each in value])
    return None


def _pair(images: Any, labels: Any) -> _Pair | None:
    pictures, names = _images_of(images), _labels_of(labels)
    return None if pictures is None or names is None else (pictures, names)


def _images_of(value: Any) -> Sequence[NDArray[Any]] | None:
    """A stack (N, H, W), (N, C, H, W) or (N, H, W, C), or a list of pictures; None where it is neither, or the channels are not certain."""
    if isinstance(value, np.ndarray):
        if value.ndim not in (3, 4) or value.dtype.kind not in "iuf" or (value.ndim == 4 and not _channels_known(value.shape[1:])):
            return None
        return list(value)
    if not isinstance(value, list | tuple):
        return None
    for image in value:
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or image.dtype.kind not in "iuf":
            return None
        if image.ndim == 3 and not _channels_known(image.shape):
            return None
    return list(value)


def _channels_known(shape: tuple[int, ...]) -> bool:
    return (shape[0] in (1, 3)) != (shape[2] in (1, 3))


def _channels_first(shape: tuple[int, ...]) -> bool:
    return shape[0] in (1, 3)


def _labels_of(value: Any) -> list[Label] | None:
    """Numbers or names, one a picture; rows with a single 1 are numbers too."""
    if isinstance(value, np.ndarray):
        if value.ndim == 2 and value.shape[1] == 1:
            value = value[:, 0]
        if value.ndim == 2 and value.shape[1] > 1 and ((value == 0) | (value == 1)).all() and (value.sum(axis=1) == 1).all():
            value = value.argmax(axis=1)
        if value.ndim != 1 or value.dtype.kind not in "iufUS":
            return None
        value = value.tolist()
    if not isinstance(value, list | tuple):
        return None
    labels = [_label(each) for each in value]
    return None if any(label is None for label in labels) else [label for label in labels if label is not None]


def _label(value: Any) -> Label | None:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0].item()
    if isinstance(value, bytes):
        value = value.decode("latin1")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _distinct(images: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Each once, so that a picture that stands in a file a million times is looked at once."""
    return list({id(image): image for image in images}.values())


def _scale(path: Path, images: Sequence[NDArray[Any]]) -> int:
    """255 where all values are fractions of at most 1, else 1."""
    least = highest = 0.0
    fractions = bool(images)
    for image in images:
        if image.dtype == np.uint8 or image.size == 0:
            fractions = fractions and image.size == 0
            continue
        least, highest = min(least, float(image.min())), max(highest, float(image.max()))
        if not (np.isfinite(least) and np.isfinite(highest)) or np.isnan(image.min()):
            raise UserError(path, "holds pictures with values that are not finite", EXPECTED)
        fractions = fractions and image.dtype.kind == "f"
    if least < 0 or highest > 255:
        reason = f"holds pictures of values from {least:g} to {highest:g}"
        raise UserError(path, reason, "give gray levels from 0 to 255, or fractions from 0 to 1")
    return 255 if fractions and highest <= 1 else 1


def _check_sides(path: Path, images: Sequence[NDArray[Any]]) -> None:
    for image in _distinct(images):
        sides = image.shape if image.ndim == 2 else image.shape[1:] if _channels_first(image.shape) else image.shape[:2]
        if min(sides) < LEAST_SIDE or max(sides) > MOST_SIDE:
            raise UserError(path, f"holds a picture of {sides[0]} x {sides[1]} pixels", f"sides may have {LEAST_SIDE} to {MOST_SIDE}")


def described(value: Any, deep: int = 1) -> str:
    """What a value is, in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {value.shape}"
    if isinstance(value, Mapping):
        return (
            f"a dict of {', '.join(repr(str(key)) for key in list(value)[:6])}{', ...' if len(value) > 6 else ''}"
            if value
            else "an empty dict"
        )
    if isinstance(value, list | tuple):
        name = f"a {type(value).__name__} of {len(value):,}"
        inner = ", ".join(described(each, deep - 1) for each in value[:4]) if deep and value else ""
        return f"{name} ({inner}{', ...' if len(value) > 4 else ''})" if inner else name
    return f"a {type(value).__name__}"
