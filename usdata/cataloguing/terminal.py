"""The catalogue on a terminal of 80 columns: a line a source, or all of one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from usdata.cataloguing import ACCESS, REDISTRIBUTION, CatalogEntry


def print_entries(entries: Sequence[CatalogEntry], console: Console | None = None) -> None:
    """A table of them all."""
    console = console or Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("name", "organ", "holds", "access"):
        table.add_column(column, no_wrap=True)
    table.add_column("licence", no_wrap=True, max_width=15)
    for entry in entries:
        organs = entry.organs[0] if len(entry.organs) == 1 else "several"
        table.add_row(entry.name, organs, _holds(entry), entry.access.removesuffix("_released"), re.split("[;,]", entry.licence)[0])
    console.print(table)
    console.print(f"{len(entries)} sources; usdata catalog NAME tells all that is known of one")


def _holds(entry: CatalogEntry) -> str:
    expected = entry.expected
    if entry.holds == "images" or expected.videos is None:
        return f"{expected.images:,} images" if expected.images is not None else entry.holds.removeprefix("image ").replace(" and", ",")
    return f"{expected.videos:,} {'sequences' if entry.holds == 'image sequences' else 'videos'}"


def print_entry(entry: CatalogEntry, console: Console | None = None) -> None:
    """One of them, whole."""
    console = console or Console(highlight=False)
    console.print(f"{entry.name}: {entry.title}", markup=False, style="bold")
    console.print(entry.description, markup=False)
    counts = {"videos": entry.expected.videos, "images": entry.expected.images, "patients": entry.expected.patients}
    known = ", ".join(f"{number:,} {unit}" for unit, number in counts.items() if number is not None)
    classes = ", ".join(label if number is None else f"{label} {number:,}" for label, number in entry.expected.classes.items())
    lines = [
        ("organs", ", ".join(entry.organs)),
        ("counts", known or "unknown"),
        ("classes", classes),
        ("licence", f"{entry.licence}; {REDISTRIBUTION[entry.redistribution]}"),
        ("access", ACCESS[entry.access]),
        ("fetch", f"usdata pull {entry.name} --to RAW ({len(entry.files)} files)" if entry.files else ""),
        *(("  step", step) for step in entry.steps),
        ("homepage", entry.homepage or "unknown"),
        ("cite", entry.citation),
        ("layout", entry.layout),
        ("recipe", f"usdata build {entry.recipe}" if entry.recipe else "none shipped: write one, see docs/guide/your-own-clips.md"),
        ("part of", entry.part_of or ""),
        *(("fault", fault) for fault in entry.faults),
        *(("overlap", f"{overlap.source}: {overlap.what}") for overlap in entry.overlaps),
        *(("facts from", source) for source in entry.facts_from),
    ]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for key, value in lines:
        if value:
            table.add_row(key, value)
    console.print(table, markup=False)
