"""The proof that a data set's folds or splits are disjoint, and how evenly its labels lie in them; read from its tables, not from how they
were made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from usdata.duplicates.leaks import Leaks, find_leaks, part_order
from usdata.manifest import DataSet, duplicates_version

UNLABELLED = "unlabelled"
_NOUNS = {
    "patients": ("patient", "patients"),
    "videos": ("video", "videos"),
    "groups": ("group", "groups"),
    "equal_frames": ("set of equal frames", "sets of equal frames"),
    "duplicate_pairs": ("verified duplicate pair", "verified duplicate pairs"),
}


@dataclass(frozen=True)
class Part:
    """What one fold, one split, or the whole set holds.

    Attributes:
        name: "train", "0" (a fold's number), "none" (frames of no fold) or "all".
        labels: Label, "unlabelled" among them, to its frames.
        label_groups: Label to the groups that have frames of it.
    """

    name: str
    groups: int
    clips: int
    frames: int
    labels: dict[str, int]
    label_groups: dict[str, int]

    def share(self, label: str) -> float:
        """Share of this part's frames that carry a label, 0 to 1."""
        return self.labels.get(label, 0) / self.frames if self.frames else 0.0


@dataclass(frozen=True)
class Proof:
    """What was checked of one column of frames.parquet.

    Attributes:
        column: "fold" or "split".
        parts: Folds or splits that hold frames, in order; frames of no fold last.
        whole: All frames.
        leaks: What stands in two of them.
        labels: Labels in the order of the classes, "unlabelled" last.
        searched: Whether the same scan was searched for by content when the set was built.
    """

    column: str
    parts: list[Part]
    whole: Part
    leaks: Leaks
    labels: list[str]
    searched: bool = True

    @property
    def real_parts(self) -> list[Part]:
        """The parts without the frames of no fold."""
        return [part for part in self.parts if part.name != "none"]

    @property
    def statement(self) -> str:
        """One sentence: what there is, and that nothing stands in two, or what does."""
        size = f"{self.whole.groups:,} groups, {self.whole.clips:,} clips, {self.whole.frames:,} frames"
        names = [part.name for part in self.real_parts]
        if not names:
            return f"no folds of {size}"
        if len(names) == 1:
            return f"all of {size} is {'fold ' if self.column == 'fold' else ''}{names[0]}: nothing is held out"
        what = f"{len(names)} folds" if self.column == "fold" else f"{', '.join(names[:-1])} and {names[-1]}"
        looked = ", ".join(counted(number, kind) for kind, number in self.leaks.checked.items())
        if not self.leaks.any:
            kinds = "no patient, video, group, equal frame or verified duplicate stands in two"
            return f"{what} of {size}: {kinds} (checked: {looked})"
        offenders = ", ".join(counted(number, kind) for kind, number in self.leaks.counts.items() if number)
        return f"{what} of {size} leak; in two stand {offenders} (checked: {looked})"

    @property
    def warnings(self) -> list[str]:
        """Labels that have fewer groups than there are parts, with the parts that lack them."""
        told = (
            [] if self.searched else ["the same scan was not searched for by content (duplicates.content: false): copies may stand in two"]
        )
        for label in self.labels:
            groups = self.whole.label_groups.get(label, 0)
            lacking = [part.name for part in self.real_parts if not part.labels.get(label)]
            if lacking and len(self.real_parts) > 1 and label != UNLABELLED:
                noun = "fold" if self.column == "fold" else "part"
                few = f", fewer than the {len(self.real_parts)} {noun}s" if groups < len(self.real_parts) else ""
                stands = f"'{label}' stands in {groups:,} group{'' if groups == 1 else 's'}{few}"
                told.append(f"{stands}: none of it in {noun if self.column == 'fold' else ''} {', '.join(lacking)}".replace("  ", " "))
        return told

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        parts = [
            vars(part) | {"label_shares": {label: round(part.share(label), 6) for label in self.labels}}
            for part in (*self.parts, self.whole)
        ]
        return {
            "column": self.column,
            "statement": self.statement,
            "warnings": self.warnings,
            "parts": parts,
            "leaks": self.leaks.to_json(),
        }


def prove(dataset: DataSet, column: str) -> Proof:
    """Check on the tables of a data set that nothing stands in two folds, or two splits, and count what each holds.

    Args:
        dataset: The opened data set.
        column: "fold" or "split".
    """
    return proof_of(dataset, dataset.frames, column)


def proof_of(dataset: DataSet, frames: pd.DataFrame, column: str) -> Proof:
    """`prove` of rows that are not written yet; `column` of the frames may hold null."""
    rows = frames.copy()
    rows["part"] = pd.Series([part_name(value) for value in frames[column]], index=rows.index, dtype=object)
    rows["label_name"] = [label if isinstance(label, str) else UNLABELLED for label in rows["label"]]
    present = set(rows["label_name"])
    labels = [*(name for name in dataset.classes if name in present), *sorted(present - {*dataset.classes, UNLABELLED})]
    labels += [UNLABELLED] if UNLABELLED in present else []
    names = sorted({name for name in rows["part"] if name is not None}, key=part_order)
    parts = [_part(name, rows[rows["part"] == name]) for name in names]
    if rows["part"].isna().any():
        parts.append(_part("none", rows[rows["part"].isna()]))
    return Proof(
        column, parts, _part("all", rows), find_leaks(rows, dataset.duplicates), labels, duplicates_version(dataset.about) is not None
    )


def part_name(value: Any) -> str | None:
    """A value of the split or fold column as a part's name; None for null."""
    return None if pd.isna(value) else value if isinstance(value, str) else str(int(value))


def counted(number: int, kind: str) -> str:
    """'28 patients'; `kind` is one of `leaks.KINDS`."""
    return f"{number:,} {_NOUNS[kind][number != 1]}"


def _part(name: str, rows: pd.DataFrame) -> Part:
    labels = Counter(rows["label_name"])
    label_groups = rows.groupby("label_name")["group_id"].nunique()
    return Part(
        name=name,
        groups=int(rows["group_id"].nunique()),
        clips=int(rows["video_id"].nunique()),
        frames=len(rows),
        labels=dict(sorted(labels.items())),
        label_groups={str(label): int(number) for label, number in label_groups.items()},
    )
