"""How both command lines talk: progress, errors, and where each line goes.

Results go to stdout, talk goes to stderr. Progress is a rich bar with rate and time left on a terminal, and one plain line at intervals
elsewhere (a log file, CI). Nothing here decides anything; `uscl` uses it too.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from usdata.errors import EXIT_DONE, EXIT_OUR_FAULT, EXIT_STOPPED, EXIT_USER_ERROR, Stopped, UserError

PLAIN_LINE_INTERVAL_S = 10.0
# Of what has lasted long, lines come less often: a night leaves some hundred of them and not thousands.
PLAIN_LINE_SHARE = 0.02

P = ParamSpec("P")
R = TypeVar("R")


def say(text: str) -> None:
    """One line of talk on stderr."""
    print(text, file=sys.stderr, flush=True)


def safe_text(text: str) -> str:
    """Text from outside (a file name, a decoder's message) on one printable line, so that it cannot steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def rate_in_words(rate: float, unit: str) -> str:
    """Units a second, or seconds for each where they take longer than one."""
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s each" if rate > 0 else f"- {unit}/s"


def time_in_words(seconds: float) -> str:
    """Its two largest parts: 48 s; 5 min 20 s; 3 h 5 min; 2 d 7 h."""
    if not seconds < float("inf"):
        return "unknown time"
    whole = round(seconds)
    for large, small, size, part in (("d", "h", 86_400, 3_600), ("h", "min", 3_600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size} {large} {whole % size // part} {small}"
    return f"{whole} s"


@contextmanager
def progress(description: str, total: int, unit: str, *, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A progress display; the value is a function that is told how many more units are done.

    Args:
        description: What is being done, as a verb phrase ("reading clips").
        total: How many units there are.
        unit: Their name in the plural ("clips").
        done: How many were done before, which say nothing of the rate.
    """
    if sys.stderr.isatty():
        with _rich_bar(description, total, unit, done) as advance_bar:
            yield advance_bar
        return
    start = last = time.monotonic()
    before = done

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= max(PLAIN_LINE_INTERVAL_S, PLAIN_LINE_SHARE * (now - start)) and done < total:
            last = now
            rate = (done - before) / (now - start)
            left = time_in_words((total - done) / rate if rate else float("inf"))
            say(f"{description}: {done} of {total} {unit}, {rate_in_words(rate, unit)}, {left} left")

    yield advance
    seconds = time.monotonic() - start
    if seconds >= 2 and done > before:
        of_all = f" ({done} in all)" if before else ""
        say(f"{description}: {done - before} {unit} in {f'{seconds:.1f} s' if seconds < 60 else time_in_words(seconds)}{of_all}")


@contextmanager
def _rich_bar(description: str, total: int, unit: str, done: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(rate_in_words(task.speed or 0.0, unit), style="cyan")

    columns = [TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), Rate(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task(description, total=total, completed=done)

        def advance(count: int) -> None:
            bar.advance(task, count)

        yield advance


def _stdout_is_broken() -> bool:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command so that a user's mistake prints one line and ends with the design's exit code.

    A fault of ours still shows its traceback: that is what a bug report needs.
    """
    import typer

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            say(f"error: {safe_text(str(error))}")
            raise typer.Exit(error.exit_code) from None
        except Stopped as stop:
            say(safe_text(str(stop)))
            raise typer.Exit(EXIT_STOPPED) from None
        except KeyboardInterrupt:
            say("stopped by Ctrl-C; nothing is left half-written: run the same command again")
            raise typer.Exit(EXIT_STOPPED) from None
        except BrokenPipeError:
            if not _stdout_is_broken():
                raise
            # The reader of a pipe has read enough. Python would complain once more when it flushes stdout at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_DONE) from None
        except OSError as error:
            subject = error.filename if error.filename is not None else "the system"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                advice = "free some or name another place; nothing half-written stays"
                say(f"error: {safe_text(str(subject))}: no space is left for it; {advice}")
                raise typer.Exit(EXIT_USER_ERROR) from None
            say(f"error: {safe_text(str(subject))}: {error.strerror or error}")
            raise typer.Exit(EXIT_OUR_FAULT) from None

    return wrapped
