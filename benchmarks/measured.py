"""Figures that a benchmark hands on: `hand_on` writes one as a line of JSON where benchmarks/all.py asks for it, and nothing elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

PLACE = "BENCHMARK_FIGURES"  # the environment variable that names the file


def hand_on(
    name: str,
    value: float,
    unit: str = "",
    *,
    limit: float | None = None,
    sense: Literal["at most", "at least"] = "at most",
    load: bool = True,
) -> None:
    """Hand a figure on.

    Args:
        name: What was measured, in a few words; unique within the program.
        value: The figure.
        unit: s, MB, x, ...; '' for a plain ratio or share.
        limit: What the project set for it, if anything.
        sense: Whether the figure should be at most or at least that.
        load: Other programs on the machine change it (times do, counts do not).
    """
    place = os.environ.get(PLACE)
    if place:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "value": float(value), "unit": unit, "limit": limit, "sense": sense, "load": load}) + "\n")
