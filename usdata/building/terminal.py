"""What a build prints of its sources: what each gave, beside what a whole copy of it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from usdata.console import safe_text


def print_sources(sources: Sequence[Mapping[str, Any]]) -> None:
    """A table: found and expected clips and frames by source, and their sums where every source expects something."""
    rows = [(safe_text(row["source"]), *(row[key] for key in _COLUMNS)) for row in sources]
    if len(rows) > 1:
        sums = [None if any(row[place] is None for row in rows) else sum(row[place] for row in rows) for place in range(1, 5)]
        rows.append(("together", *sums))
    width = max(len(row[0]) for row in rows)
    print(f"  {'source':<{width}}  {'clips':>7} {'expected':>9}  {'frames':>8} {'expected':>9}")
    for name, *numbers in rows:
        clips, clips_expected, frames, frames_expected = ("-" if number is None else f"{number:,}" for number in numbers)
        print(f"  {name:<{width}}  {clips:>7} {clips_expected:>9}  {frames:>8} {frames_expected:>9}")


_COLUMNS = ("clips", "clips_expected", "frames", "frames_expected")
