"""A finding: one thing that is wrong with a data set, or worth knowing of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from usdata.errors import UserError, nearest

LEVELS = ("note", "warning", "error")
FINDING_IDS = (
    "blank-frames",
    "conflicting-labels",
    "conflicting-labels-against",
    "damaged-clips",
    "duplicate-clips",
    "failed-clips",
    "frozen-clips",
    "leakage-against",
    "leakage-duplicates",
    "leakage-groups",
    "leakage-videos",
    "licence-mix",
    "missing-images",
    "near-repeats",
    "odd-labels",
    "review-waiting",
    "short-clips",
    "shortcut",
    "shortcut-surroundings",
    "single-source-label",
    "text-in-pictures",
    "too-few-groups",
    "unaccounted-frames",
    "unknown-patients",
    "unlabelled",
    "upconverted-clips",
)


@dataclass(frozen=True)
class Finding:
    """One thing that the audit found.

    Attributes:
        id: Stable name, for scripts.
        level: note, warning or error.
        message: One sentence with the number.
        rows: All the clips, files, pairs, groups or labels that it is about.
        advice: One sentence: what to do.
    """

    id: str
    level: str
    message: str
    rows: tuple[str, ...]
    advice: str

    def __post_init__(self) -> None:
        if self.id not in FINDING_IDS or self.level not in LEVELS:
            raise ValueError(f"'{self.id}' ({self.level}) is no finding: scripts know them by FINDING_IDS")

    def to_json(self) -> dict[str, Any]:
        """The finding as plain values."""
        return asdict(self) | {"rows": list(self.rows)}


def check_fail_on(word: str) -> None:
    """Refuse a word that names no level, no finding, and no family of findings ('leakage'): a gate that never shuts is worse than none.

    Raises:
        UserError: It names nothing.
    """
    families = {name.split("-")[0] for name in FINDING_IDS}
    if word not in {*LEVELS, *FINDING_IDS, *families}:
        raise UserError(f"--fail-on {word}", "is no level and no finding", nearest(word, [*LEVELS, *FINDING_IDS]))


def count(number: int, noun: str, plural: str = "") -> str:
    """'1 clip', '2,000 clips'."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def records(table: pd.DataFrame) -> Iterable[Any]:
    """A table's rows, each with its columns as attributes."""
    return table.itertuples(index=False)
