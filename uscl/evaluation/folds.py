"""Who is held out when: folds that never split a patient, and the proof that they don't.

In: the labelled frames of a data set (rows of `frames.parquet`) and its verified duplicates. Out: one fold number a frame. Guarantees:
folds from `plan_folds` keep together all that belongs together; folds of any origin are checked before anything is trained, and a
patient, video, group or duplicate on both sides is a refusal that names it. `leaky_folds` makes those of published evaluations, which leak
by construction, and `count_leaks` says how far.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from usdata.duplicates.groups import independent_units
from usdata.duplicates.leaks import find_leaks
from usdata.errors import UserError

# The origin of the one division of external validation: nothing is trained on any frame of it.
EXTERNAL = "external"
FoldsBy = Literal["group", "video", "frame", "set"]
DEFAULT_FOLDS = 5
# Of this many seeded proposals the one whose test folds miss the fewest classes is taken; only labels and groups decide, never a score.
PROPOSALS = 20
NAMED_OFFENDERS = 3
# What a leak is called, by its kind.
CALLED = {
    "groups": "group_id",
    "patients": "patient_id",
    "videos": "video_id",
    "equal_frames": "duplicate_group",
    "duplicate_pairs": "duplicate clips",
}


@dataclass(frozen=True)
class Folds:
    """One division of the frames into folds; each frame is held out exactly once.

    Attributes:
        seed: Of the division.
        origin: "data set" (its own fold column), "made" (by group), "by video", "by frame", or "external" (one fold, which holds all).
        fold: (n,) fold number of each frame, 0 to count - 1.
        count: How many folds there are.
    """

    seed: int
    origin: str
    fold: NDArray[np.int64]
    count: int

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Each fold's number, the rows to train on and the rows held out."""
        for number in range(self.count):
            yield number, np.flatnonzero(self.fold != number), np.flatnonzero(self.fold == number)


def independent_groups(frames: pd.DataFrame, duplicates: pd.DataFrame) -> NDArray[np.str_]:
    """(n,) the name of the independent unit that each frame belongs to.

    A unit is a `group_id`, joined with every other one that shares a patient, a video, a duplicate frame or a verified duplicate clip with
    it. Where the manifest's groups are right it is the group itself. Its name is its first group_id in alphabetical order.

    Give all frames of a set, not only those that are evaluated: a clip without a label may be what joins two with one.
    """
    columns = frames[["video_id", "source", "patient_id", "group_id", "duplicate_group"]].astype(object)
    rows = columns.where(columns.notna(), None)
    videos = rows.drop(columns="duplicate_group").drop_duplicates()
    equal = rows.loc[rows["duplicate_group"].notna(), ["video_id", "duplicate_group"]]
    units = independent_units(_records(videos), _records(equal), _records(duplicates[["video_id_a", "video_id_b"]]))
    return frames["group_id"].map(units).to_numpy(dtype=str)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False, name=None)]


def make_folds(
    labels: NDArray[np.str_], groups: NDArray[np.str_], *, count: int, seed: int, subject: str, unit: str = "independent group"
) -> NDArray[np.int64]:
    """(n,) fold numbers, stratified by label, balanced by frames, no group split; the same for the same seed.

    Raises:
        UserError: A class has fewer groups than there are folds, or no division gives every fold a frame.
    """
    groups_of_class = pd.Series(groups).groupby(labels).nunique()
    few = {str(label): int(number) for label, number in groups_of_class.sort_index().items() if number < count}
    if few:
        have = min(few.values())
        if len(few) == 1:
            told = f"class '{next(iter(few))}' stands in {have} {unit}{'s' if have != 1 else ''}, too few for {count} folds"
        else:
            each = ", ".join(f"'{label}' ({number})" for label, number in few.items())
            told = f"{len(few)} classes stand in fewer {unit}s than {count} folds need: {each}"
        ways = [f"use --folds {have}"] if have >= 2 else []
        if len(groups_of_class) - len(few) >= 2:
            ways.append(f"leave {'it' if len(few) == 1 else 'them'} out with --where 'label!={'|'.join(few)}'")
        raise UserError(subject, told, ", or ".join(ways) or "label clips of more patients")
    class_names, classes = np.unique(labels, return_inverse=True)
    _, units = np.unique(groups, return_inverse=True)
    best: NDArray[np.int64] | None = None
    fewest = np.iinfo(np.int64).max
    for proposal in range(PROPOSALS):
        splitter = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=np.random.RandomState([seed, proposal]))
        fold = np.full(len(labels), -1, dtype=np.int64)
        for number, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), classes, units)):
            fold[held_out] = number
        missing = count * len(class_names) - len(np.unique(fold * len(class_names) + classes))
        empty = count - len(np.unique(fold))
        if not empty and missing < fewest:
            best, fewest = fold, missing
        if fewest == 0:
            break
    if best is None:
        raise UserError(subject, f"no division into {count} folds gives each fold a frame", f"use fewer folds: --folds {count - 1}")
    return best


def plan_folds(
    frames: pd.DataFrame, groups: NDArray[np.str_], duplicates: pd.DataFrame, *, seed: int, count: int | None, filtered: bool, subject: str
) -> Folds:
    """The folds of one seed, proved free of leakage.

    Seed 0 of a whole set uses the set's own `fold` column where every labelled frame has one and there are two or more; any other seed, a
    number of folds that was asked for, and a filtered set get folds made here.

    Args:
        frames: Labelled rows of `frames.parquet`, in order.
        groups: (n,) from `independent_groups`.
        duplicates: `duplicates.parquet`.
        seed: Of the division.
        count: Number of folds; None: the data set's own, else 5.
        filtered: Some labelled frames were left out.
        subject: What an error is about: the data set.

    Raises:
        UserError: The folds would split what belongs together, or a class is missing from a training side.
    """
    labels = frames["label"].to_numpy(dtype=str)
    own = frames["fold"]
    has_own = count is None and not filtered and not own.isna().any() and own.nunique() >= 2
    if has_own and seed == 0:
        values, fold = np.unique(own.to_numpy(dtype=np.int64), return_inverse=True)
        folds = Folds(seed, "data set", fold.astype(np.int64), len(values))
    else:
        wanted = count if count is not None else int(own.nunique()) if has_own else DEFAULT_FOLDS
        folds = Folds(seed, "made", make_folds(labels, groups, count=wanted, seed=seed, subject=subject), wanted)
    refuse_leakage(frames, folds.fold, duplicates, subject=subject, groups=groups)
    _refuse_unlearnable(labels, folds, subject)
    return folds


def leaky_folds(frames: pd.DataFrame, by: FoldsBy, *, seed: int, count: int | None, subject: str) -> Folds:
    """Folds as published evaluations make them: patients, and with "frame" videos too, stand on both sides.

    Args:
        frames: Labelled rows of `frames.parquet`, in order.
        by: "frame" or "video": stratified by label, shuffled by the seed; "set": the set's own fold column as it is.
        seed: Of the division.
        count: Number of folds; None: that of the data set's own, else 5.
        subject: What an error is about: the data set.

    Raises:
        UserError: There are too few frames or videos of a class, no fold column, or a class is missing from a training side.
    """
    labels, own = frames["label"].to_numpy(dtype=str), frames["fold"]
    has_own = not own.isna().any() and own.nunique() >= 2
    if by == "set":
        if not has_own:
            raise UserError(subject, "--folds-by set: not every labelled frame has a fold", "name another --folds-by")
        values, fold = np.unique(own.to_numpy(dtype=np.int64), return_inverse=True)
        if count is not None and count != len(values):
            raise UserError(f"--folds {count}", f"the data set's own folds are {len(values)}", "leave out --folds, or --folds-by set")
        folds = Folds(seed, "data set", fold.astype(np.int64), len(values))
    else:
        wanted = count if count is not None else int(own.nunique()) if has_own else DEFAULT_FOLDS
        fold = _by_frame(labels, wanted, seed, subject) if by == "frame" else _by_video(frames, labels, wanted, seed, subject)
        folds = Folds(seed, f"by {by}", fold, wanted)
    _refuse_unlearnable(labels, folds, subject)
    return folds


def _by_video(frames: pd.DataFrame, labels: NDArray[np.str_], count: int, seed: int, subject: str) -> NDArray[np.int64]:
    return make_folds(labels, frames["video_id"].to_numpy(dtype=str), count=count, seed=seed, subject=subject, unit="video")


def _by_frame(labels: NDArray[np.str_], count: int, seed: int, subject: str) -> NDArray[np.int64]:
    names, sizes = np.unique(labels, return_counts=True)
    if sizes.min() < count:
        reason = f"class '{names[sizes.argmin()]}' has {sizes.min()} frames, too few for {count} folds"
        raise UserError(subject, reason, f"leave it out with --where 'label!={names[sizes.argmin()]}'")
    splitter = StratifiedKFold(n_splits=count, shuffle=True, random_state=np.random.RandomState([seed]))
    fold = np.full(len(labels), -1, dtype=np.int64)
    for number, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        fold[held_out] = number
    return fold


def count_leaks(frames: pd.DataFrame, fold: NDArray[np.int64], groups: NDArray[np.str_], duplicates: pd.DataFrame) -> dict[str, int]:
    """How many of each kind stand both in training and in test: independent groups, and what `refuse_leakage` looks for."""
    found = find_leaks(frames.assign(part=[str(number) for number in fold]), duplicates).found
    independent = int((pd.Series(fold).groupby(groups).nunique() > 1).sum())
    return {"independent_groups": independent, **{kind: len(found[kind]) for kind in CALLED}}


def _refuse_unlearnable(labels: NDArray[np.str_], folds: Folds, subject: str) -> None:
    """Every class must stand on the training side of every fold."""
    every_class = set(labels)
    for number, train, _ in folds:
        absent = sorted(every_class - set(labels[train]))
        if absent:
            raise UserError(
                subject,
                f"class '{absent[0]}' stands in fold {number} only, so nothing is left to learn it from when that fold is held out",
                f"make other folds with --folds {DEFAULT_FOLDS}, or leave it out with --where 'label!={absent[0]}'",
            )


def refuse_leakage(
    frames: pd.DataFrame, fold: NDArray[np.int64], duplicates: pd.DataFrame, *, subject: str, groups: NDArray[np.str_] | None = None
) -> None:
    """Prove that nothing stands on both sides of any fold.

    Args:
        frames: Rows of `frames.parquet`.
        fold: (n,) their folds.
        duplicates: `duplicates.parquet`.
        subject: What an error is about.
        groups: (n,) from `independent_groups` of the whole set: what clips that are not among these frames join is one, too.

    Raises:
        UserError: A group, patient, video or duplicate does; the error names up to three of each kind and counts the rest.
    """
    leaks = find_leaks(frames.assign(part=[str(number) for number in fold]), duplicates)
    offenders = {kind: ["'" + leak.name.replace(" = ", "' = '") + "'" for leak in found] for kind, found in leaks.found.items()}
    faults = [f"{name} {_some(offenders[kind])}" for kind, name in CALLED.items() if offenders[kind]]
    if groups is not None and not faults:
        sides = pd.Series(fold).groupby(groups).nunique()
        if joined := [f"'{name}'" for name in sorted(sides.index[sides > 1])]:
            faults = [f"clips that others of the set join, which are not evaluated: independent group {_some(joined)}"]
    if faults:
        raise UserError(
            subject,
            "refused, because these stand both in training and in test: " + "; ".join(faults),
            f"make folds that keep them together with --folds {DEFAULT_FOLDS}, or build the set anew with this version",
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED_OFFENDERS])
    return f"{shown} and {len(names) - NAMED_OFFENDERS} more" if len(names) > NAMED_OFFENDERS else shown
