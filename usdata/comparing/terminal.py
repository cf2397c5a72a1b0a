"""What `usdata compare` prints: the sentence, what is dangerous, then each kind of difference with its first rows.

Guarantees: text from the data can neither style nor steer the terminal, and tables read well at 80 columns.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from usdata.comparing.parts import tally
from usdata.comparing.result import Change, CompareResult, Regrouping
from usdata.comparing.words import counted, statement, warning
from usdata.console import safe_text

MOST_SHOWN = 8
MOST_VALUE = 60


def print_comparison(result: CompareResult, console: Console | None = None) -> None:
    """Print a comparison, the worst first.

    Args:
        result: What `compare` returned.
        console: Where to print; standard output by default.
    """
    console = console or Console()
    printer = _Printer(console)
    if warned := warning(result):
        printer.say(warned, style="bold red")
    printer.say(statement(result), style="bold")
    for side in (result.a, result.b):
        printer.say(f"{side.called}: {counted(side.clips, 'clip')}, {counted(side.frames, 'frame')}; digest {side.digest[:16]}", "  ")
    if not result.differs:
        return
    printer.rows(
        "groups that cross between parts",
        [
            f"{each.part_before} -> {each.part_after}: {_renamed(each.group_before, each.group_after)} "
            f"({counted(each.clips_before, 'clip')} before, {each.clips_after:,} after{_patients(each.patients)})"
            for each in result.crossings
        ],
    )
    printer.moves("clips moved between splits", result.splits)
    printer.rows("folds of another number", [f"{each.before} -> {each.after}" for each in result.fold_names])
    printer.moves("clips moved between folds", result.folds)
    printer.moves("clips relabelled", result.labels)
    printer.rows("label_index", [f"{each.name}: {each.before} -> {each.after}" for each in result.label_index])
    printer.rows("classes", [f"{', '.join(map(str, each.before))} -> {', '.join(map(str, each.after))}" for each in result.classes])
    printer.grouping("patient", result.patients)
    printer.grouping("group", result.groups)
    printer.rows("clips added", result.clips_added)
    printer.rows("clips removed", result.clips_removed)
    printer.rows("clips renamed (equal raw bytes)", [f"{each.before} -> {each.after}" for each in result.clips_renamed])
    printer.rows("clips of other raw bytes", [each.name for each in result.clips_changed])
    printer.rows(
        "clips of another status or reason",
        [f"{each.video_id}: {_told(each.before, each.reason_before)} -> {_told(each.after, each.reason_after)}" for each in result.status],
    )
    printer.rows(
        "clips with other frames",
        [
            f"{each.video_id}: "
            + ", ".join(f"{number:,} {what}" for number, what in _kinds(each.added, each.removed, each.pixels) if number)
            for each in sorted(result.frames.by_clip, key=lambda each: (-each.pixels, -each.removed - each.added, each.video_id))
        ],
    )
    printer.rows("frames not kept, by reason", [f"{each.name}: {each.before:,} -> {each.after:,}" for each in result.excluded])
    printer.rows(
        "fields of view",
        [
            f"{each.video_id}: {_renamed(each.origin_before or 'not looked for', each.origin_after or 'not looked for')}"
            + ("" if each.overlap is None else f", boxes overlap {each.overlap:.2f}")
            for each in result.fields_of_view
        ],
    )
    printer.rows("pairs of duplicates", [f"{each.name}: {each.before or 'none'} -> {each.after or 'none'}" for each in result.duplicates])
    printer.rows("lists of all labels", [f"{each.name}: {_value(each.before)} -> {_value(each.after)}" for each in result.source_labels])
    printer.rows(
        "other columns",
        [
            f"{each.table}.{each.column}: {counted(each.rows, 'row')}, the first {each.first[0]}"
            for each in sorted(result.columns, key=lambda each: (each.table != "videos", -each.rows, each.column))
        ],
        most=3 * MOST_SHOWN,
    )
    printer.changes("recipe", result.recipe)
    printer.changes("versions", result.versions)
    printer.changes("dataset.json", result.about)
    if any((each.clips_before, each.frames_before) != (each.clips_after, each.frames_after) for each in result.counts):
        console.print()
        console.print(_counts(result))


class _Printer:
    """Prints headed lists on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str, indent: str = "", *, style: str = "") -> None:
        """Text, broken at the console's width; what follows the first line is set in."""
        lines = textwrap.wrap(
            safe_text(text), self.console.width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
        )
        for line in lines:
            self.console.print(Text(line, style=style), soft_wrap=True)

    def rows(self, title: str, rows: Sequence[str], most: int = MOST_SHOWN) -> None:
        """A heading with the number, and the first rows."""
        if not rows:
            return
        self.say(f"{title}: {len(rows):,}", style="bold")
        for row in rows[:most]:
            self.say(row, "  ")
        if len(rows) > most:
            self.say(f"and {len(rows) - most:,} more: see --json", "  ")

    def moves(self, title: str, changes: tuple[Change, ...]) -> None:
        """From what to what how often, then the first clips."""
        if not changes:
            return
        self.say(f"{title}: {len(changes):,}", style="bold")
        kinds = tally(changes)
        for before, after, number in kinds[:MOST_SHOWN]:
            self.say(f"{_name(before)} -> {_name(after)}: {counted(number, 'clip')}", "  ")
        if len(kinds) > MOST_SHOWN:
            self.say(f"and {len(kinds) - MOST_SHOWN:,} more kinds", "  ")
        names = [change.name for change in changes[:MOST_SHOWN]]
        self.say(", ".join(names) + (f" and {len(changes) - len(names):,} more: see --json" if len(changes) > len(names) else ""), "  ")

    def grouping(self, noun: str, change: Regrouping) -> None:
        """What was merged, torn or renamed."""
        self.rows(f"{noun}s merged", [f"{_listed(each.before)} -> {each.name} ({counted(each.after, 'clip')})" for each in change.merged])
        self.rows(f"{noun}s torn apart", [f"{each.name} -> {_listed(each.after)} ({counted(each.before, 'clip')})" for each in change.torn])
        self.rows(f"other names of {noun}s, whose clips stay together", [f"{each.before} -> {each.after}" for each in change.renamed])
        self.rows(f"clips whose {noun} is known now", change.learned)
        self.rows(f"clips whose {noun} is not known any more", change.forgotten)

    def changes(self, title: str, changes: Iterable[Change]) -> None:
        """Keys with both values."""
        self.rows(title, [f"{each.name}: {_value(each.before)} -> {_value(each.after)}" for each in changes], most=2 * MOST_SHOWN)


def _kinds(added: int, removed: int, pixels: int) -> list[tuple[int, str]]:
    return [(added, "added"), (removed, "removed"), (pixels, "of other pixels")]


def _patients(names: Sequence[str]) -> str:
    return f"; patient{'' if len(names) == 1 else 's'} {_listed(names)}" if names else ""


def _listed(names: Sequence[Any], most: int = 4) -> str:
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _renamed(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"


def _told(status: str, reason: str | None) -> str:
    return status if reason is None else f"{status} ({reason})"


def _name(value: str) -> str:
    return "none" if value == "None" else value


def _value(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= MOST_VALUE else f"{text[: MOST_VALUE - 3]}..."


def _counts(result: CompareResult) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("source", "label"):
        table.add_column(name, overflow="fold")
    for name in ("split", "clips", "frames"):
        table.add_column(name, no_wrap=True, justify="left" if name == "split" else "right")
    for each in result.counts:
        label = "unlabelled" if each.label is None else each.label
        numbers = (_then(each.clips_before, each.clips_after), _then(each.frames_before, each.frames_after))
        table.add_row(*(Text(safe_text(text)) for text in (each.source, label, each.split, *numbers)))
    return table


def _then(before: int, after: int) -> str:
    return f"{after:,}" if before == after else f"{before:,} -> {after:,}"
