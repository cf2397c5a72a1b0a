"""What a build prints of its sources: what each gave, beside what a whole copy of it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from usdata.building.tables import unexpected_counts
from usdata.console import safe_text

if TYPE_CHECKING:
    from usdata.building import BuildPlan

SHOWN_PATHS, SHOWN_REASONS = 3, 10
SHOWN_LABELS = 20


def print_plan(planned: BuildPlan) -> None:
    """What would be read, of how many patients and with which labels: where a slip in a recipe or a table shows before anything is read."""
    clips = sum(planned.clips.values())
    print(f"{planned.name}: would read {clips} {'clip' if clips == 1 else 'clips'}, {planned.bytes_to_read / 1e6:.1f} MB")
    for source, count in planned.clips.items():
        print(f"  {source}: {count}")
    unknown = clips - sum(planned.patients)
    if not planned.patients:
        print("  patients: not known, so every clip counts as another one")
    else:
        most = f", at most {planned.patients[0]} clips of one" if planned.patients[0] > 1 else ", a clip of each"
        print(f"  patients: {len(planned.patients)}{most}" + (f"; not known for {unknown} clips" if unknown else ""))
        if len(planned.patients) == 1 and clips > 1:
            print("  note: all clips are of one patient: is that column or pattern the right one? Nothing could be split")
    if planned.labels:
        shown = [f"{safe_text(label)} {count}" for label, count in planned.labels.items()]
        more = [f"and {len(shown) - SHOWN_LABELS} more"] if len(shown) > SHOWN_LABELS else []
        without = [f"none {left}"] if (left := clips - sum(planned.labels.values())) else []
        print(f"  labels: {', '.join([*shown[:SHOWN_LABELS], *more, *without])}")
    else:
        print("  labels: none")
    print_excluded([(path, reason) for reason, paths in planned.excluded_paths.items() for path in paths], most=None)


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


def print_excluded(excluded: Sequence[tuple[str, str]], *, most: int | None = SHOWN_REASONS) -> None:
    """How many files were left out for what, the most frequent reason first, with the first names."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in excluded:
        by_reason.setdefault(reason, []).append(path)
    reasons = sorted(by_reason.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    for reason, paths in reasons[:most]:
        names = ", ".join(map(safe_text, paths[:SHOWN_PATHS])) + (", ..." if len(paths) > SHOWN_PATHS else "")
        print(f"  left out: {len(paths)} ({safe_text(reason)}): {names}")
    if most is not None and len(reasons) > most:
        print(f"  and for {len(reasons) - most} more reasons: see reason in videos.parquet")


_COLUMNS = ("clips", "clips_expected", "frames", "frames_expected")
