"""What a build prints of its sources: what each gave, beside what a whole copy of it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from usdata.building.tables import unexpected_counts
from usdata.console import safe_text


def print_sources(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table: found and expected clips and frames by source, and their sums where every source expects something.

    Nothing is printed for one source of which nothing is expected. Gives the notes that the table makes needless.
    """
    if len(sources) == 1 and sources[0]["clips_expected"] is None and sources[0]["frames_expected"] is None:
        return []
    rows = [(safe_text(row["source"]), *(row[key] for key in _COLUMNS)) for row in sources]
    if len(rows) > 1:
        sums = [None if any(row[place] is None for row in rows) else sum(row[place] for row in rows) for place in range(1, 5)]
        rows.append(("together", *sums))
    width = max(len(row[0]) for row in rows)
    print(f"  {'source':<{width}}  {'clips':>7} {'expected':>9}  {'frames':>8} {'expected':>9}")
    for name, *numbers in rows:
        clips, clips_expected, frames, frames_expected = ("-" if number is None else f"{number:,}" for number in numbers)
        print(f"  {name:<{width}}  {clips:>7} {clips_expected:>9}  {frames:>8} {frames_expected:>9}")
    return unexpected_counts(sources)


_COLUMNS = ("clips", "clips_expected", "frames", "frames_expected")
