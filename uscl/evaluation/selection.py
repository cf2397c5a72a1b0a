"""Which frames are evaluated: the labelled ones, less what filters and a choice of classes leave out.

In: a data set, filters like 'probe=convex' or 'source!=pocus|butterfly', class names. Out: rows of `frames.parquet` with their row numbers
in it. A filter that names no column, a class that is none, and a choice that leaves nothing are the user's errors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from usdata.errors import UserError, nearest
from usdata.manifest import DataSet

ROW = "row"
SHOWN_VALUES = 12
_FILTER = re.compile(r"\s*(?P<column>[^=!\s]+)\s*(?P<sign>!?=)(?P<values>.*)", re.DOTALL)


def select_frames(dataset: DataSet, *, where: Sequence[str] = (), classes: Sequence[str] | None = None) -> tuple[pd.DataFrame, bool]:
    """The labelled frames to evaluate, in the manifest's order, and whether any labelled frame was left out.

    Args:
        dataset: An opened data set.
        where: Filters on columns of `frames.parquet` or, for those it lacks, `videos.parquet`: 'column=value' or 'column!=value'; several
            values are separated by '|'; all filters must hold. An empty value means null, and null equals nothing else. A list column
            (flags, labels) equals each of its members.
        classes: Keep these labels only.

    Returns:
        The rows, with a column `row`: their position in `dataset.frames`, which is the position of their pixels in a frame store.

    Raises:
        UserError: No labels, an unknown column, value or class, or fewer than two classes left.
    """
    frames = dataset.frames.reset_index(drop=True)
    frames.insert(0, ROW, np.arange(len(frames)))
    labelled = frames[frames["label"].notna()]
    if labelled.empty:
        advice = "evaluate on a labelled set, or give the recipe a label rule"
        raise UserError(dataset.folder, "no frame of this data set has a label", advice)
    kept = labelled
    for text in where:
        kept = kept[_matches(dataset, kept, text)]
        if kept.empty:
            raise UserError(f"--where {text}", "leaves no labelled frame", _values_advice(dataset, labelled, text))
    if classes is not None:
        known = sorted(set(labelled["label"]))
        for label in classes:
            if label not in known:
                raise UserError(f"--classes {label}", "no frame has this label", nearest(label, known))
        kept = kept[kept["label"].isin(list(classes))]
    found = sorted(set(kept["label"]))
    if len(found) < 2:
        only = f"class '{found[0]}'" if found else "no class"
        raise UserError(dataset.folder, f"only {only} is left, and an evaluation needs two or more", "loosen --where or --classes")
    _one_label_a_video(dataset, kept)
    return kept.reset_index(drop=True), len(kept) < len(labelled)


def listed(words: str | Sequence[str]) -> Sequence[str]:
    """One text where several may stand is a list of one."""
    return [words] if isinstance(words, str) else words


def matching_frames(dataset: DataSet, *, where: Sequence[str] = ()) -> pd.DataFrame:
    """All frames that filters keep, labelled or not, in the manifest's order.

    Args:
        dataset: An opened data set.
        where: As in `select_frames`.

    Returns:
        The rows, with a column `row` as in `select_frames`.

    Raises:
        UserError: The set has no frames, a filter names an unknown column, or nothing is left.
    """
    frames = dataset.frames.reset_index(drop=True)
    frames.insert(0, ROW, np.arange(len(frames)))
    if frames.empty:
        raise UserError(dataset.folder, "holds no frames", "see its videos.parquet for the reasons")
    kept = frames
    for text in where:
        kept = kept[_matches(dataset, kept, text)]
        if kept.empty:
            raise UserError(f"--where {text}", "leaves no frame", _values_advice(dataset, frames, text))
    return kept.reset_index(drop=True)


def _one_label_a_video(dataset: DataSet, frames: pd.DataFrame) -> None:
    labels = frames.groupby("video_id")["label"].nunique()
    several = sorted(labels.index[labels > 1])
    if several:
        reason = f"video '{several[0]}' has frames of several labels, so it has no label itself"
        raise UserError(dataset.folder, reason, "build the set again")


def _split(dataset: DataSet, text: str) -> tuple[str, str, list[str]]:
    """Column, sign and values of a filter's text."""
    match = _FILTER.fullmatch(text)
    if match is None:
        raise UserError(f"--where {text}", "is no filter", "write column=value or column!=value, several values as a|b")
    column = match["column"]
    known = set(dataset.frames.columns) | set(dataset.videos.columns)
    if column not in known:
        raise UserError(f"--where {text}", f"the data set has no column '{column}'", nearest(column, known))
    return column, match["sign"], [value.strip() for value in match["values"].split("|")]


def column_values(dataset: DataSet, frames: pd.DataFrame, column: str) -> pd.Series:
    """One value a frame: its own, or its video's where the table of frames lacks the column."""
    if column in frames.columns:
        return frames[column]
    return frames["video_id"].map(dataset.videos.set_index("video_id")[column])


def _matches(dataset: DataSet, frames: pd.DataFrame, text: str) -> NDArray[np.bool_]:
    column, sign, values = _split(dataset, text)
    equal = np.array([bool(_texts(cell) & set(values)) for cell in column_values(dataset, frames, column)], dtype=bool)
    return equal if sign == "=" else ~equal


def _texts(cell: object) -> set[str]:
    """What a cell may be called in a filter: every member of a list, a whole number without its '.0', null as the empty text."""
    if isinstance(cell, list | tuple | np.ndarray):
        return {str(member) for member in cell} or {""}
    if cell is None or pd.isna(cell):  # type: ignore[call-overload]
        return {""}
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return {str(int(cell)), str(float(cell))}
    return {str(cell), str(cell).lower()} if isinstance(cell, bool | np.bool_) else {str(cell)}


def _values_advice(dataset: DataSet, frames: pd.DataFrame, text: str) -> str:
    """What the column does hold, when that is short enough to say."""
    column, _, values = _split(dataset, text)
    found = sorted(set().union(*(_texts(cell) for cell in column_values(dataset, frames, column))) - {""})
    if len(found) <= SHOWN_VALUES:
        return f"'{column}' holds: " + (", ".join(found) if found else "nothing but null")
    advice = nearest(values[0], found)
    return advice if advice.startswith("did you mean") else f"'{column}' holds {len(found)} values, and not this one"
