"""What `usdata migrate` prints, in 80 columns."""

from __future__ import annotations

import textwrap

from usdata.console import safe_text
from usdata.migrating import MigrateResult

WIDTH = 80


def print_migration(result: MigrateResult) -> None:
    """What was done, what was made of the pictures, and what stays unknown."""
    if not result.written:
        _say(f"{result.name} has schema version {result.after} already: nothing to do")
        return
    digests = f"digest {result.digest[:16]} (was {result.digest_before[:16]})"
    _say(f"{result.name}: schema version {result.before} is now {result.after}; {digests}")
    for sentence in result.computed:
        _say(sentence, "  ")
    for sentence in result.unknown:
        _say(f"not known: {sentence}", "  ")
    if result.unknown:
        _say("a build from the raw clips knows what is not known here")
    if result.report_gone:
        _say("the audit's files told of the old tables and are gone: run 'usdata audit' again")


def _say(text: str, indent: str = "") -> None:
    print(textwrap.fill(safe_text(text), WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False))
