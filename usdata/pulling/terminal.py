"""What a pull says: terms before it begins, bytes while it runs, and at the end what stands where and what a person has to do.

Terms and progress are talk and go to stderr; what was pulled and the steps go to stdout.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from usdata.cataloguing import ACCESS, REDISTRIBUTION, CatalogEntry
from usdata.console import PLAIN_LINE_INTERVAL_S, safe_text, say
from usdata.pulling.wanted import Tell

if TYPE_CHECKING:
    from usdata.pulling import PulledSource, PullResult

Teller = Callable[[str], Tell]


def passing_on(redistribution: str) -> str:
    """Whether copies of a source may be passed on, as part of a sentence; the argument is the catalogue's word."""
    if redistribution in ("unknown", "mixed"):
        return f"whether it may be passed on {'is not known' if redistribution == 'unknown' else REDISTRIBUTION['mixed']}"
    return f"it {REDISTRIBUTION[redistribution]}"


def say_terms(entry: CatalogEntry) -> None:
    """The licence of what is about to be fetched."""
    say(f"{entry.name}: {entry.title}; licence: {entry.licence}; {passing_on(entry.redistribution)}")
    say(f"  cite: {entry.citation}")


@contextmanager
def byte_progress(sizes: dict[str, int | None]) -> Iterator[Teller]:
    """Progress of several files in bytes, as one display.

    Args:
        sizes: Each file and its size; None where only the server will tell.

    Yields:
        A function that gives each file's own `tell`; both may be called from any thread.
    """
    totals, done, lock = dict(sizes), dict.fromkeys(sizes, 0), threading.Lock()
    with _bar() if sys.stderr.isatty() else _lines() as show:

        def teller(name: str) -> Tell:
            def tell(here: int, total: int | None) -> None:
                with lock:
                    done[name], totals[name] = here, total
                    known = [size for size in totals.values() if size is not None]
                    show(sum(done.values()), sum(known) if len(known) == len(totals) else None)

            return tell

        yield teller


Show = Callable[[int, int | None], None]


@contextmanager
def _lines() -> Iterator[Show]:
    start = last = time.monotonic()
    first: int | None = None

    def show(done: int, total: int | None) -> None:
        nonlocal last, first
        first = done if first is None else first  # what an earlier run left is no achievement of this one
        now = time.monotonic()
        if now - last >= PLAIN_LINE_INTERVAL_S:
            last = now
            rate = max(done - first, 0) / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total is not None and rate else ""
            say(f"pulling: {done / 1e6:,.1f} MB of {'?' if total is None else f'{total / 1e6:,.1f}'} MB, {rate / 1e6:.1f} MB/s{left}")

    yield show


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = [TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task("pulling", total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def print_pull(result: PullResult) -> None:
    """What stands where, and what a person has to do."""
    for source in result.sources:
        print(f"{source.name}: {source.folder}")
        for file in source.files:
            size = "" if file.bytes is None else f" ({file.bytes / 1e6:,.1f} MB, sha256 {(file.sha256 or '?')[:12]})"
            unpacked = "" if file.unpacked is None else f", unpacked to {file.unpacked:,} files"
            said = f": {file.reason}" if file.reason else ""
            print(f"  {file.state}: {safe_text(file.path)}{size}{unpacked}{safe_text(said)}")
        _print_steps(source)
        _print_placed(source)
    if not result.check and any(source.steps for source in result.sources):
        say("nothing was downloaded of what a person has to fetch; run it again with --check when it is in place")


def _print_steps(source: PulledSource) -> None:
    if not source.steps:
        return
    print(f"  access: {ACCESS[source.access]}; licence: {source.licence}; {passing_on(source.redistribution)}")
    print(f"  homepage: {source.homepage or 'unknown'}")
    for number, step in enumerate(source.steps, 1):
        print(f"  {number}. {step}")


def _print_placed(source: PulledSource) -> None:
    placed = source.placed
    if placed is None:
        if source.checked:
            print("  nothing is there yet")
        return
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in placed.kinds.items())
    print(f"  holds {placed.files:,} files: {kinds}")
    for path, reason in list(placed.unreadable.items())[:5]:
        print(f"  cannot be read: {safe_text(path)}: {safe_text(reason)}")
    if len(placed.unreadable) > 5:
        print(f"  and {len(placed.unreadable) - 5:,} more that cannot be read")
    for each in placed.comparisons:
        if each.expected is None:
            print(f"  {each.unit}: {each.found:,}; how many a whole copy has is not known")
        else:
            verdict = "which differs: it may be another version, a part of it, or hold more than clips" if each.differs else "as expected"
            print(f"  {each.unit}: {each.found:,} of {each.expected:,}, {verdict}")
    if placed.layout is not None:
        print(f"  {safe_text(placed.layout)}")
