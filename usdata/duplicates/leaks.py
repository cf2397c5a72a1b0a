"""What stands in two parts at once: patients, videos, groups, equal frames, verified pairs of clips.

In: the rows of a data set with the part (train, fold 3, ...) of each frame. Out: every offender with its parts, and how many were looked
at. The answer is of the rows alone, whoever made the parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

# Kind to its column of the frames; the order is that of every report.
KINDS = {
    "patients": "patient",
    "videos": "video_id",
    "groups": "group_id",
    "equal_frames": "duplicate_group",
    "duplicate_pairs": None,
}


SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Leak:
    """One thing that stands in two parts or more.

    Attributes:
        name: A patient as `<source>/<id>`, a video_id, a group_id, the first of equal frames, or `<video_id> = <video_id>`.
        parts: Where it stands, sorted.
    """

    name: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.parts)})"


@dataclass(frozen=True)
class Leaks:
    """What leaks, by kind, and how many of each kind were looked at.

    Attributes:
        found: Kind (a key of `KINDS`) to its offenders, by name.
        checked: Kind to the number of patients, videos, ... that have a part.
    """

    found: dict[str, list[Leak]]
    checked: dict[str, int]

    @property
    def any(self) -> bool:
        """Whether anything leaks."""
        return any(self.found.values())

    @property
    def counts(self) -> dict[str, int]:
        """Kind to the number of offenders."""
        return {kind: len(leaks) for kind, leaks in self.found.items()}

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        found = {kind: [{"name": leak.name, "parts": list(leak.parts)} for leak in leaks] for kind, leaks in self.found.items()}
        return {"found": found, "checked": self.checked}


def find_leaks(rows: pd.DataFrame, pairs: pd.DataFrame) -> Leaks:
    """Look for what stands in two parts.

    Args:
        rows: A row a frame, or a row for a clip that is named as a whole: video_id, source, patient_id, group_id, duplicate_group (null but
            for frames) and `part` (null = in none, which is no part).
        pairs: duplicates.parquet.
    """
    placed = rows[rows["part"].notna()].copy()
    placed["patient"] = [
        f"{source}/{patient}" if isinstance(patient, str) else None
        for source, patient in zip(placed["source"], placed["patient_id"], strict=True)
    ]
    found: dict[str, list[Leak]] = {}
    checked: dict[str, int] = {}
    for kind, column in KINDS.items():
        if column is None:
            continue
        places = _places(placed, column)
        checked[kind] = len(places)
        found[kind] = [Leak(name, tuple(sorted(parts, key=part_order))) for name, parts in sorted(places.items()) if len(parts) > 1]
    of_video = _places(placed, "video_id")
    both = [(a, b) for a, b in _pairs(pairs) if a in of_video and b in of_video]
    checked["duplicate_pairs"] = len(both)
    together = [(f"{a} = {b}", of_video[a] | of_video[b]) for a, b in both]
    found["duplicate_pairs"] = [Leak(name, tuple(sorted(parts, key=part_order))) for name, parts in together if len(parts) > 1]
    return Leaks(found, checked)


def part_order(name: str) -> tuple[int, str]:
    """Sorts train, val and test in this order, folds by number, and other names after them."""
    return (SPLITS.index(name), "") if name in SPLITS else (int(name) if name.isdigit() else len(SPLITS), name)


def _places(rows: pd.DataFrame, column: str) -> dict[str, set[str]]:
    """Each value of a column with the parts that it stands in."""
    pairs = rows.loc[rows[column].notna(), [column, "part"]].drop_duplicates()
    places: dict[str, set[str]] = {}
    for value, part in zip(pairs[column], pairs["part"], strict=True):
        places.setdefault(value, set()).add(part)
    return places


def _pairs(table: pd.DataFrame) -> Iterable[tuple[str, str]]:
    return sorted(set(zip(table["video_id_a"], table["video_id_b"], strict=True)))
