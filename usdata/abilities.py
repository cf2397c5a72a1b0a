"""What `usdata doctor` and `uscl doctor` find out about a machine: facts, and a row for each thing it can do or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Ability:
    """One thing that this machine can do, or not.

    Attributes:
        what: It; of usdata, the format that is read.
        by: What does it, with its version; what was found.
        state: ok, missing, little, refused or broken.
        advice: What to do about a state that is not ok.
    """

    what: str
    by: str
    state: str = "ok"
    advice: str = ""


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        machine: Facts by their names.
        abilities: One by one.
        word: What the abilities are called in JSON.
    """

    machine: dict[str, str]
    abilities: list[Ability]
    word: str = "abilities"

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {"machine": self.machine, self.word: [asdict(ability) for ability in self.abilities]}
