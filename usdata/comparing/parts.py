"""Splits and folds of two sets: which clips moved, which groups cross from one part to another, and counts before and after.

In: the frames' splits and folds by clip, and the matched clips. Out: moves and crossings. Guarantees: a group is followed by its clips, by
its name and by its patients, so that a new clip of a patient who was trained on is found in the test part too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from usdata import manifest
from usdata.comparing.clips import Matching, objects, patients_of, whole
from usdata.comparing.frames import FramesOf
from usdata.comparing.result import Change, Count, Crossing

PARTS = ("train", "val", "test")
# The dangerous ones first: what was trained on and is tested on, or the other way round.
DIRECTIONS = (("train", "test"), ("test", "train"), ("train", "val"), ("val", "train"), ("val", "test"), ("test", "val"))
SEVERAL, NO_FOLD = "several", "none"


def parts_of(folder: Path, frames: FramesOf) -> pd.DataFrame:
    """How many frames of each clip stand in each split: columns clip, split, frames."""
    split = manifest.read_table(folder, manifest.FRAMES, columns=["split"]).column("split")
    codes, names = _coded(split)
    return _counted(frames.clip, codes, names, "split")


def folds_of(folder: Path, frames: FramesOf) -> pd.Series:
    """Each clip's fold as text, "none" without one, "several" where its frames stand in several; clips without frames are left out."""
    fold = manifest.read_table(folder, manifest.FRAMES, columns=["fold"]).column("fold")
    codes, names = _coded(fold.cast(pa.string()))
    counted = _counted(frames.clip, codes, [NO_FOLD if name is None else name for name in names], "fold")
    several = counted["clip"].duplicated(keep=False)
    first = counted.drop_duplicates("clip").set_index("clip")["fold"]
    return first.where(~first.index.isin(counted["clip"][several]), SEVERAL)


def _coded(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str | None]]:
    encoded = whole(column).dictionary_encode("encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def _counted(clips: NDArray[np.int64], codes: NDArray[np.int64], names: Sequence[str | None], column: str) -> pd.DataFrame:
    known = clips >= 0
    width = max(1, len(names))
    keys, numbers = np.unique(clips[known] * width + codes[known], return_counts=True)
    values = np.empty(len(keys), dtype=object)
    values[:] = [names[code] for code in keys % width]
    return pd.DataFrame({"clip": keys // width, column: values, "frames": numbers})


def split_moves(parts: tuple[pd.DataFrame, pd.DataFrame], matching: Matching) -> tuple[Change, ...]:
    """Clips with frames in both sets that stand in other splits."""
    sides = []
    for table, places in zip(parts, (matching.a, matching.b), strict=True):
        sides.append(_joined(table).reindex(places).to_numpy(dtype=object))
    both = pd.DataFrame({"name": matching.names, "before": sides[0], "after": sides[1]}).dropna()
    moved = both[both["before"] != both["after"]]
    return tuple(Change(*values) for values in zip(moved["name"], moved["before"], moved["after"], strict=True))


def fold_moves(folds: tuple[pd.Series, pd.Series], matching: Matching) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """Clips that changed folds, and the folds that are the same under another number.

    A fold's number is a name: folds are laid on one another so that most clips stay (Hungarian method), and the others have moved. Where
    that leaves fewer than half of them, the folds are other ones, and their numbers are compared as they are.
    """
    from scipy.optimize import linear_sum_assignment

    sides = [fold.reindex(places).to_numpy(dtype=object) for fold, places in zip(folds, (matching.a, matching.b), strict=True)]
    both = pd.DataFrame({"name": matching.names, "before": sides[0], "after": sides[1]}).dropna()
    numbered = both[(both["before"] != NO_FOLD) & (both["after"] != NO_FOLD)]
    table = pd.crosstab(numbered["before"], numbered["after"]) if len(numbered) else pd.DataFrame()
    names = [str(name) for name in table.index], [str(name) for name in table.columns]
    shared = table.to_numpy(dtype=np.int64)
    same_number = np.array([[one == other for other in names[1]] for one in names[0]], dtype=bool).reshape(shared.shape)
    rows, columns = linear_sum_assignment(-(shared * 2.0 + same_number))  # of equal ones that which keeps the number
    name_of = {names[0][row]: names[1][column] for row, column in zip(rows, columns, strict=True) if shared[row, column]}
    if shared[rows, columns].sum() * 2 < len(numbered):
        name_of = {name: name for name in names[0]}
    moved = both[both["before"].map(name_of | {NO_FOLD: NO_FOLD}) != both["after"]]
    changes = tuple(Change(*values) for values in zip(moved["name"], moved["before"], moved["after"], strict=True))
    return changes, tuple(Change("fold", before, after) for before, after in sorted(name_of.items()) if before != after)


def _joined(parts: pd.DataFrame) -> pd.Series:
    """Each clip's split, "train+val" where it has frames in several."""
    ordered = parts.sort_values(["clip", "split"])
    several = ordered["clip"].duplicated(keep=False)
    one = ordered[~several].set_index("clip")["split"]
    return pd.concat([one, ordered[several].groupby("clip")["split"].agg("+".join)]) if several.any() else one


def crossings(videos: tuple[pa.Table, pa.Table], parts: tuple[pd.DataFrame, pd.DataFrame], matching: Matching) -> tuple[Crossing, ...]:
    """Groups that stand in one part of A and in another of B, where their parts are not the same in both.

    Groups of both are one where they share a clip, their name, or a patient.
    """
    clips = [
        pd.DataFrame({"group": objects(table, "group_id"), "patient": patients_of(table)}, index=np.arange(len(table))) for table in videos
    ]
    by_clip = pd.DataFrame({"a": clips[0]["group"].to_numpy()[matching.a], "b": clips[1]["group"].to_numpy()[matching.b]})
    names = np.intersect1d(clips[0]["group"].unique(), clips[1]["group"].unique())
    of_patient = [side.dropna(subset="patient")[["patient", "group"]].drop_duplicates() for side in clips]
    by_patient = of_patient[0].merge(of_patient[1], on="patient", suffixes=("_a", "_b"))[["group_a", "group_b"]]
    links = pd.concat([by_clip, pd.DataFrame({"a": names, "b": names}), by_patient.set_axis(["a", "b"], axis=1)]).drop_duplicates()
    stands = []
    for table, side in zip(parts, clips, strict=True):
        of_group = table.assign(group=side["group"].reindex(table["clip"]).to_numpy())
        stands.append(
            of_group.groupby(["group", "split"])["clip"].nunique().unstack(fill_value=0).reindex(columns=list(PARTS), fill_value=0)
        )
    has = [
        pd.DataFrame(stand.reindex(links[side]).fillna(0).to_numpy(dtype=np.int64), columns=list(PARTS))
        for stand, side in zip(stands, ("a", "b"), strict=True)
    ]
    moved = ((has[0] > 0) != (has[1] > 0)).any(axis=1).to_numpy()
    known = clips[1].dropna(subset="patient").drop_duplicates()
    found: list[Crossing] = []
    for before, after in DIRECTIONS:
        crossed = moved & (has[0][before] > 0).to_numpy() & (has[1][after] > 0).to_numpy()
        patients = _members(known[known["group"].isin(links["b"].to_numpy()[crossed])])
        of_direction = [
            Crossing(before, after, group_a, group_b, patients.get(group_b, ()), int(in_a), int(in_b))
            for group_a, group_b, in_a, in_b in zip(
                links["a"].to_numpy()[crossed], links["b"].to_numpy()[crossed], has[0][before][crossed], has[1][after][crossed], strict=True
            )
        ]
        found += sorted(of_direction, key=lambda crossing: (crossing.group_after, crossing.group_before))
    return tuple(found)


def _members(known: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Group to its patients, sorted."""
    members: dict[str, tuple[str, ...]] = {}
    for group, patient in sorted(zip(known["group"], known["patient"], strict=True)):
        members[group] = (*members.get(group, ()), patient)
    return members


def counts(videos: tuple[pa.Table, pa.Table], parts: tuple[pd.DataFrame, pd.DataFrame]) -> tuple[Count, ...]:
    """Clips and frames by source, label and split, before and after."""
    sides = []
    for table, part in zip(videos, parts, strict=True):
        facts = pd.DataFrame({name: objects(table, name) for name in ("source", "label")})
        facts["label"] = facts["label"].fillna("")
        rows = facts.iloc[part["clip"]].reset_index(drop=True).assign(split=part["split"].to_numpy(), frames=part["frames"].to_numpy())
        sides.append(rows.groupby(["source", "label", "split"])["frames"].agg(["size", "sum"]))
    both = sides[0].add_suffix("_a").join(sides[1].add_suffix("_b"), how="outer").fillna(0).astype("int64").reset_index()
    place = {part: number for number, part in enumerate(PARTS)}
    ordered = sorted(
        both.to_dict("records"), key=lambda row: (row["source"], row["label"] == "", row["label"], place.get(row["split"], len(place)))
    )
    return tuple(
        Count(row["source"], row["label"] or None, row["split"], row["size_a"], row["size_b"], row["sum_a"], row["sum_b"])
        for row in ordered
    )


def tally(changes: tuple[Change, ...]) -> list[tuple[str, str, int]]:
    """From what to what, how often; the most frequent first."""
    counted = Counter((str(change.before), str(change.after)) for change in changes)
    return [(before, after, number) for (before, after), number in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]
