"""A validation on a terminal: a line a promise, and under a broken one its first rows.

Comes in: a result. Goes out: lines on the given console. Guarantees: text from the data can neither style nor steer the terminal.
"""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.text import Text

from usdata.console import safe_text
from usdata.validating import ValidationResult

ROWS_SHOWN = 5
INDENT = 8


def print_validation(result: ValidationResult, console: Console | None = None) -> None:
    """Print each promise with what was looked at, what breaks it and what to do.

    Args:
        result: What `validate` returned.
        console: Where to print; standard output by default.
    """
    console = console or Console()
    for promise in result.promises:
        word, style = ("ok", "green") if promise.holds else ("BROKEN", "bold red")
        if promise.unseen and promise.holds and not promise.checked:
            word, style = "unseen", "yellow"
        looked = f" {promise.checked:,} {promise.unit}." if promise.checked else ""
        unseen = f" {promise.unseen[0].upper()}{promise.unseen[1:]}." if promise.unseen else ""
        first, *others = _wrapped(console, f"{promise.text}{looked}{unseen}")
        console.print(Text.assemble((f"{word:<{INDENT}}", style), first))
        for line in others:
            console.print(Text(" " * INDENT + line))
        for row in promise.broken[:ROWS_SHOWN]:
            for number, line in enumerate(_wrapped(console, f"- {safe_text(row)}")):
                console.print(Text(" " * INDENT + "  " * bool(number) + line))
        if len(promise.broken) > ROWS_SHOWN:
            console.print(Text(" " * INDENT + f"- and {len(promise.broken) - ROWS_SHOWN:,} more, which --json lists"))
        if promise.broken:
            for line in _wrapped(console, f"What to do: {promise.advice}."):
                console.print(Text(" " * INDENT + line))
    broken = [promise.id for promise in result.promises if not promise.holds]
    name = safe_text(result.dataset)
    verdict = f"{name}: every promise that was looked at holds" if not broken else f"{name}: broken: {', '.join(broken)}"
    console.print(Text(f"{verdict} ({result.seconds:.1f} s; digest {result.digest[:16]})", style="bold"))


def _wrapped(console: Console, text: str) -> list[str]:
    return textwrap.wrap(text, max(30, console.width - INDENT - 2), break_on_hyphens=False)
