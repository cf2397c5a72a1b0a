"""The audit on a terminal: tables that read well at 80 columns.

Comes in: an audit's result. Goes out: lines on the given console. Guarantees: text from the data can neither style nor steer the terminal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from usdata.auditing.report import clip_parts, frame_parts, summary, verdict
from usdata.console import safe_text

if TYPE_CHECKING:
    from usdata.auditing import AuditResult

INDENT = 9
# Findings whose rows a person needs at once, and how many of them; the report lists all rows of all.
ROWS_SHOWN = {
    "failed-clips": 10,
    "leakage-groups": 5,
    "leakage-duplicates": 5,
    "duplicate-clips": 5,
    "conflicting-labels": 5,
    "too-few-groups": 5,
    "single-source-label": 7,
}
LEVEL_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def print_audit(result: AuditResult, console: Console | None = None) -> None:
    """Print an audit: what the set is, counts, the flow of files and frames, findings with the worst first, and where the report lies.

    Args:
        result: What `audit` returned.
        console: Where to print; standard output by default.
    """
    console = console or Console()
    statistics = result.statistics
    what, how_much, _ = summary(statistics, result.findings)
    console.print(Text(safe_text(f"{result.dataset}: {what}"), style="bold"))
    console.print(Text(safe_text(how_much)))
    console.print()
    rows = [(row["source"], row["label"], row) for row in statistics["by_source_label"]]
    if rows:
        console.print(_counts(("source", "label"), rows))
        console.print()
    parts = [(f"split {row['split']}", row) for row in statistics["by_split"]] + [
        (f"fold {row['fold']}", row) for row in statistics["by_fold"]
    ]
    if parts:
        console.print(_counts(("split or fold",), parts))
        console.print()
    clips, frames = statistics["flow"]["clips"], statistics["flow"]["frames"]
    console.print(_flow("files found", clips["found"], clip_parts(clips)))
    console.print(_flow("frames decoded", frames["decoded"], frame_parts(frames)))
    console.print()
    console.print(Text(safe_text(verdict(result.findings)), style="bold"))
    for finding in result.findings:
        first, *others = textwrap.wrap(f"{safe_text(finding.message)} ({finding.id})", console.width - INDENT, break_on_hyphens=False)
        console.print(Text.assemble((f"{finding.level:>7}  ", LEVEL_STYLES[finding.level]), first))
        for line in others:
            console.print(Text(" " * INDENT + line))
        shown = finding.rows[: ROWS_SHOWN.get(finding.id, 0)]
        for row in shown:
            _print_indented(console, safe_text(row))
        if shown and len(finding.rows) > len(shown):
            _print_indented(console, f"and {len(finding.rows) - len(shown):,} more: in the report, and with --json")
    if result.report is not None:
        console.print()
        console.print(Text(f"report: {safe_text(str(result.report))}"), soft_wrap=True)


def _print_indented(console: Console, text: str) -> None:
    for number, line in enumerate(textwrap.wrap(text, max(20, console.width - INDENT - 2), break_on_hyphens=False)):
        console.print(Text(" " * (INDENT + 2 * bool(number)) + line))


def _counts(names: tuple[str, ...], rows: Iterable[tuple]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    for name in ("patients", "groups", "clips", "frames"):
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for *keys, counts in rows:
        texts = [safe_text(key) for key in keys]
        shown = ["" if len(texts) > 1 and texts[0] == before else texts[0], *texts[1:]]
        before = texts[0]
        table.add_row(*(Text(text) for text in shown), *(f"{counts[name]:,}" for name in ("patients", "groups", "clips", "frames")))
    return table


def _flow(name: str, total: int, parts: list[tuple[str, int, str]]) -> Text:
    """'frames decoded 400: kept 120, near repeats 200, blank 80'."""
    return Text(safe_text(f"{name} {total:,}" + (": " + ", ".join(f"{number:,} {part}" for part, number, _ in parts) if parts else "")))
