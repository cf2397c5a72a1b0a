"""Clips of two sets: which are the same, and what of them changed.

In: both tables of videos. Out: pairs of rows, and the changes of status, labels, patients, groups and field of view. Guarantees: a clip is
the same where its video_id is, else where its raw bytes are; all work is done on whole columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from usdata.comparing.result import Change, FieldOfViewChange, Regrouping, StatusChange
from usdata.errors import DataSetError

Places = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Matching:
    """Which clips of two sets are the same.

    Attributes:
        ids_a: video_id of A's clips, in its table's order.
        ids_b: Likewise of B.
        a: Places in A of the clips that both have.
        b: Their places in B.
        renamed: Which of them have another video_id.
    """

    ids_a: NDArray[np.object_]
    ids_b: NDArray[np.object_]
    a: Places
    b: Places
    renamed: Flags

    @cached_property
    def names(self) -> NDArray[np.object_]:
        """video_id in B of the clips that both have."""
        return self.ids_b[self.b]

    def alone(self, side: str) -> Places:
        """Places of the clips that only this side ("a" or "b") has."""
        size, both = (len(self.ids_a), self.a) if side == "a" else (len(self.ids_b), self.b)
        return np.setdiff1d(np.arange(size), both)


def match(videos_a: pa.Table, videos_b: pa.Table, folders: tuple[Path, Path]) -> Matching:
    """Lay the clips of two sets on one another: by video_id, then, of those that are left, by the sha256 of their raw bytes.

    Raises:
        DataSetError: A set names two clips alike.
    """
    sides = []
    for table, folder in zip((videos_a, videos_b), folders, strict=True):
        side = pd.DataFrame({name: objects(table, name) for name in ("video_id", "sha256")})
        twice = side.loc[side["video_id"].duplicated(), "video_id"]
        if len(twice):
            raise DataSetError(folder, f"has two clips of the name {twice.iloc[0]}", "build the set again with 'usdata build'")
        sides.append(side.assign(place=np.arange(len(side))))
    a, b = sides
    same = a.merge(b, on="video_id", suffixes=("_a", "_b"))
    left, right = (
        side[~side["video_id"].isin(same["video_id"]) & side["sha256"].notna()].sort_values(["sha256", "video_id"]) for side in (a, b)
    )
    left, right = (side.assign(copy=side.groupby("sha256").cumcount()) for side in (left, right))
    renamed = left.merge(right, on=["sha256", "copy"], suffixes=("_a", "_b"))
    both = pd.concat([same[["place_a", "place_b"]].assign(renamed=False), renamed[["place_a", "place_b"]].assign(renamed=True)])
    both = both.sort_values("place_b")
    return Matching(
        ids_a=a["video_id"].to_numpy(dtype=object),
        ids_b=b["video_id"].to_numpy(dtype=object),
        a=both["place_a"].to_numpy(dtype=np.int64),
        b=both["place_b"].to_numpy(dtype=np.int64),
        renamed=both["renamed"].to_numpy(dtype=bool),
    )


def objects(table: pa.Table, column: str, places: Places | None = None) -> NDArray[np.object_]:
    """A column as Python values, None for null; of some rows alone."""
    values = table.column(column)
    taken = values if places is None else values.take(pa.array(places))
    made = np.empty(len(taken), dtype=object)
    made[:] = taken.to_pylist()
    return made


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def differing(a: pa.ChunkedArray, b: pa.ChunkedArray) -> Flags:
    """Which rows of two columns differ; null is equal to null, and not a number to not a number."""
    if a.type != b.type or pa.types.is_list(a.type):
        return np.fromiter((one != other for one, other in zip(a.to_pylist(), b.to_pylist(), strict=True)), dtype=bool, count=len(a))
    equal = pc.fill_null(pc.equal(a, b), False)
    equal = pc.or_(equal, pc.and_(pc.is_null(a, nan_is_null=True), pc.is_null(b, nan_is_null=True)))
    return ~np.asarray(equal.to_numpy(), dtype=bool)


def changed(videos: tuple[pa.Table, pa.Table], matching: Matching, column: str) -> Flags:
    """Which of the clips that both have differ in a column."""
    one, other = (table.column(column).take(pa.array(places)) for table, places in zip(videos, (matching.a, matching.b), strict=True))
    return differing(one, other)


def column_changes(videos: tuple[pa.Table, pa.Table], matching: Matching, column: str, *, only: Flags | None = None) -> tuple[Change, ...]:
    """The clips that differ in a column, with both values."""
    flags = changed(videos, matching, column)
    if only is not None:
        flags = flags & only
    values = [objects(table, column, places[flags]) for table, places in zip(videos, (matching.a, matching.b), strict=True)]
    return tuple(Change(str(name), before, after) for name, before, after in zip(matching.names[flags], *values, strict=True))


def status_changes(videos: tuple[pa.Table, pa.Table], matching: Matching) -> tuple[StatusChange, ...]:
    """Clips with another status, or another reason for it."""
    flags = changed(videos, matching, "status") | changed(videos, matching, "reason")
    columns = [
        objects(table, name, places[flags])
        for name in ("status", "reason")
        for table, places in zip(videos, (matching.a, matching.b), strict=True)
    ]
    return tuple(StatusChange(*map(_plain, row)) for row in zip(matching.names[flags], *columns, strict=True))


def regrouped(before: Sequence[str | None], after: Sequence[str | None], names: Sequence[str]) -> Regrouping:
    """How the same clips stand together before and after: which groups were merged or torn apart, and which only have other names.

    Args:
        before: Each clip's group in A; None where it is not known.
        after: Likewise in B.
        names: The clips.
    """
    clips = pd.DataFrame({"before": before, "after": after, "name": names}, dtype=object)
    known = clips["before"].notna() & clips["after"].notna()
    links = clips[known].groupby(["before", "after"]).size().reset_index(name="clips")
    torn = links[links.groupby("before")["after"].transform("size") > 1]
    merged = links[links.groupby("after")["before"].transform("size") > 1]
    alone = links[~links["before"].isin(torn["before"]) & ~links["after"].isin(merged["after"])]
    renamed = alone[alone["before"] != alone["after"]]
    return Regrouping(
        merged=tuple(
            Change(str(name), tuple(rows["before"]), int(rows["clips"].sum()))
            for name, rows in merged.sort_values("before").groupby("after")
        ),
        torn=tuple(
            Change(str(name), int(rows["clips"].sum()), tuple(rows["after"])) for name, rows in torn.sort_values("after").groupby("before")
        ),
        renamed=tuple(Change(before, before, after) for before, after in zip(renamed["before"], renamed["after"], strict=True)),
        learned=tuple(clips.loc[clips["before"].isna() & clips["after"].notna(), "name"]),
        forgotten=tuple(clips.loc[clips["before"].notna() & clips["after"].isna(), "name"]),
    )


def patients_of(videos: pa.Table) -> NDArray[np.object_]:
    """Each clip's patient, '<source>/<patient_id>'; None where it is not known."""
    joined = pc.binary_join_element_wise(videos.column("source"), videos.column("patient_id"), "/")
    return objects(pa.table({"patient": joined}), "patient")


def field_of_view_changes(videos: tuple[pa.Table, pa.Table], matching: Matching) -> tuple[FieldOfViewChange, ...]:
    """Clips whose field of view came, went, or has another origin, box or shape; the least alike first."""
    columns = ("fov_kind", "fov_origin", "fov_x", "fov_y", "fov_width", "fov_height", "fov_geometry", "fov_views")
    flags = np.any([changed(videos, matching, column) for column in columns], axis=0) if len(matching.a) else np.zeros(0, bool)
    places = (matching.a[flags], matching.b[flags])
    boxes = [
        np.stack(
            [table.column(f"fov_{name}").take(pa.array(at)).cast(pa.float64()).to_numpy() for name in ("x", "y", "width", "height")], axis=1
        )
        for table, at in zip(videos, places, strict=True)
    ]
    origins = [objects(table, "fov_origin", at) for table, at in zip(videos, places, strict=True)]
    overlap = intersection_over_union(*boxes)
    rows = [
        FieldOfViewChange(str(name), _plain(before), _plain(after), None if np.isnan(value) else round(float(value), 4))
        for name, before, after, value in zip(matching.names[flags], *origins, overlap, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: (row.overlap is not None, row.overlap or 0.0, row.video_id)))


def intersection_over_union(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of boxes (N, 4) of x, y, width, height; not a number where one of them is none."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    union = np.prod(a[:, 2:], axis=1) + np.prod(b[:, 2:], axis=1) - common
    return np.divide(common, union, out=np.full(len(a), np.nan), where=union > 0)


def duplicate_changes(duplicates: tuple[pa.Table, pa.Table], matching: Matching) -> tuple[Change, ...]:
    """Verified pairs of clips that came, went or are of another kind; clips by their names in B where both have them."""
    now_called: Mapping[str, str] = dict(zip(matching.ids_a[matching.a[matching.renamed]], matching.names[matching.renamed], strict=True))
    sides = []
    for table, called in zip(duplicates, (now_called, {}), strict=True):
        side = table.select(["video_id_a", "video_id_b", "kind"]).to_pandas()
        ends = [side[name].map(called).fillna(side[name]) if called else side[name] for name in ("video_id_a", "video_id_b")]
        swapped = ends[0] > ends[1]
        side["pair"] = ends[0].where(~swapped, ends[1]) + " = " + ends[1].where(~swapped, ends[0])
        sides.append(side.groupby("pair")["kind"].agg(lambda kinds: "+".join(sorted(kinds))).rename("kind").reset_index())
    both = sides[0].merge(sides[1], on="pair", how="outer", suffixes=("_a", "_b"))
    other = both[both["kind_a"].fillna("") != both["kind_b"].fillna("")].sort_values("pair")
    return tuple(
        Change(pair, None if pd.isna(before) else before, None if pd.isna(after) else after)
        for pair, before, after in zip(other["pair"], other["kind_a"], other["kind_b"], strict=True)
    )


def _plain(value: Any) -> Any:
    return None if value is None else str(value)
