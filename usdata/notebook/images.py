"""Pictures of a data set by whatever names them in a notebook: a position, a slice, a mask, rows of `.frames`, a frame's or a clip's id.

In: the set and a selection. Out: gray pictures, in the selection's order. Guarantees: nothing outside of the folder is read, and each
picture has the pixels that the manifest names; a missing or damaged one is told in one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from usdata.console import progress
from usdata.errors import UserError, nearest
from usdata.manifest import DataSet
from usdata.stored_pixels import stored_pixels

Picture = NDArray[np.uint8]
KINDS = "give a position, a slice, a list, a Boolean mask, rows of .frames, or the id of a frame or a clip"
MOST_NAMES = 100_000  # among so many a near name is looked for


def images(dataset: DataSet, which: Any) -> Picture | list[Any]:
    """The pictures that a selection names.

    Args:
        dataset: The data set.
        which: A position in `.frames` or a frame_id gives one picture (H, W) uint8; a video_id all kept frames of the clip, (T, H, W) where
            they are of one size, else a list; a slice, a list of these, a Boolean mask over `.frames`, or rows of it give a list.

    Raises:
        UserError: It names nothing in this set, or is nothing that can name frames.
        DataSetError: A picture is missing, damaged or another one, or its path leaves the folder.
    """
    if isinstance(which, str):
        return _by_id(dataset, which)
    if isinstance(which, (int, np.integer)) and not isinstance(which, (bool, np.bool_)):
        return _read(dataset, dataset.frames.iloc[_places(dataset, [int(which)])])[0]
    if isinstance(which, pd.Series) and "frame_id" in which.index:
        return _read(dataset, which.to_frame().T)[0]
    values = _listed(which)
    if values is not None and values and all(isinstance(value, str) for value in values):
        return [_by_id(dataset, value) for value in values]
    return _read(dataset, rows_of(dataset, which))


def rows_of(dataset: DataSet, which: Any) -> pd.DataFrame:
    """The rows of `.frames` that a selection names, in its order.

    Args:
        dataset: The data set.
        which: As in `images`.

    Raises:
        UserError: It names nothing in this set, or is nothing that can name frames.
    """
    frames = dataset.frames
    if isinstance(which, pd.DataFrame):
        if "frame_id" not in which.columns:
            advice = "give rows of .frames, such as data.frames[data.frames.video_id.isin(clips.video_id)]"
            raise UserError("this data frame", "has no column frame_id", advice)
        return which if {"path", "pixel_sha256"} <= set(which.columns) else _of_ids(dataset, list(which["frame_id"]))
    if isinstance(which, slice):
        return frames.iloc[which]
    if isinstance(which, str):
        return _of_one(dataset, which)[0]
    if isinstance(which, (int, np.integer)) and not isinstance(which, (bool, np.bool_)):
        return frames.iloc[_places(dataset, [int(which)])]
    if isinstance(which, pd.Series) and pd.api.types.is_bool_dtype(which):
        if len(which) != len(frames) or not which.index.equals(frames.index):
            raise UserError("this mask", f"is not one of the {len(frames):,} frames", "make it of data.frames, as data.frames.label == 'a'")
        return frames[which.to_numpy(dtype=bool, na_value=False)]
    values = _listed(which)
    if values is None:
        raise UserError(f"a {type(which).__name__}", "names no frames", KINDS)
    if values and all(isinstance(value, (bool, np.bool_)) for value in values):
        if len(values) != len(frames):
            raise UserError("this mask", f"has {len(values):,} values for {len(frames):,} frames", "make it of data.frames")
        return frames[np.asarray(values, dtype=bool)]
    if all(isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)) for value in values):
        return frames.iloc[_places(dataset, [int(value) for value in values])]
    if all(isinstance(value, str) for value in values):
        parts = [_of_one(dataset, value)[0] for value in values]
        return pd.concat(parts)
    raise UserError("this list", "holds things of several kinds", KINDS)


def _listed(which: Any) -> list[Any] | None:
    """The values of something that is like a list; None where it is not."""
    if isinstance(which, np.ndarray) and which.ndim != 1:
        return None
    if isinstance(which, (np.ndarray, pd.Series, pd.Index)):
        return list(which)
    return list(which) if isinstance(which, Sequence) and not isinstance(which, (str, bytes)) else None


def _places(dataset: DataSet, places: list[int]) -> list[int]:
    count = len(dataset.frames)
    for place in places:
        if not -count <= place < count:
            raise UserError(
                f"frame {place}", f"is none of the {count:,} frames of {dataset.name}", f"give 0 to {count - 1}" if count else ""
            )
    return places


def _by_id(dataset: DataSet, name: str) -> Picture | list[Picture]:
    rows, one = _of_one(dataset, name)
    pictures = _read(dataset, rows)
    if one:
        return pictures[0]
    return np.stack(pictures) if len({picture.shape for picture in pictures}) == 1 else pictures


def _of_one(dataset: DataSet, name: str) -> tuple[pd.DataFrame, bool]:
    """The rows of a frame or a clip, and whether it is a frame."""
    frames = dataset.frames
    rows = frames[frames["frame_id"] == name]
    if len(rows):
        return rows, True
    rows = frames[frames["video_id"] == name]
    if len(rows):
        return rows, False
    clip = dataset.videos[dataset.videos["video_id"] == name]
    if len(clip):
        status, reason = clip.iloc[0]["status"], clip.iloc[0]["reason"]
        why = f" ({reason})" if isinstance(reason, str) else ""
        raise UserError(name, f"keeps no frame: it is {status}{why}", "take another clip of its .videos")
    known = dataset.videos["video_id"].tolist()
    raise UserError(
        name,
        f"is no frame and no clip of {dataset.name}",
        nearest(name, known) if 0 < len(known) <= MOST_NAMES and _near(name, known) else "",
    )


def _near(name: str, known: list[str]) -> bool:
    """Whether a near name is worth looking for: a list of all clips would be no advice."""
    return nearest(name, known).startswith("did you mean")


def _of_ids(dataset: DataSet, ids: list[str]) -> pd.DataFrame:
    by_id = dataset.frames.set_index("frame_id", drop=False)
    places = by_id.index.get_indexer(pd.Index(ids, dtype=by_id.index.dtype)) if ids else np.zeros(0, np.int64)
    if (places < 0).any():
        raise UserError(str(ids[int(np.argmin(places))]), f"is no frame of {dataset.name}", "give rows of its own .frames")
    return dataset.frames.iloc[places]


def _read(dataset: DataSet, rows: pd.DataFrame) -> list[Picture]:
    pictures = []
    named = zip(rows["path"].tolist(), rows["pixel_sha256"].tolist(), strict=True)
    with progress("reading images", len(rows), "images") as advance:
        for path, digest in named:
            pictures.append(stored_pixels(dataset.folder, path, pixel_sha256=digest))
            advance(1)
    return pictures
