"""One promise of the data set contract, and whether it holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Promise:
    """What the contract says of a data set, held against one.

    Attributes:
        id: Stable name, for scripts.
        text: The promise in one sentence.
        checked: How many of `unit` were looked at.
        unit: Their name in the plural.
        broken: Every row, file or table that breaks it, with how.
        advice: What to do where it is broken.
        unseen: Why it could not be looked at; empty where it was.
    """

    id: str
    text: str
    checked: int
    unit: str
    broken: tuple[str, ...] = ()
    advice: str = ""
    unseen: str = ""

    @property
    def holds(self) -> bool:
        """Nothing was found that breaks it."""
        return not self.broken

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"broken": list(self.broken), "holds": self.holds}
