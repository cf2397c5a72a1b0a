"""A finding: one thing that is wrong with a data set, or worth knowing of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

LEVELS = ("note", "warning", "error")


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

    def to_json(self) -> dict[str, Any]:
        """The finding as plain values."""
        return asdict(self) | {"rows": list(self.rows)}


def count(number: int, noun: str, plural: str = "") -> str:
    """'1 clip', '2,000 clips'."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def records(table: pd.DataFrame) -> Iterable[Any]:
    """A table's rows, each with its columns as attributes."""
    return table.itertuples(index=False)
