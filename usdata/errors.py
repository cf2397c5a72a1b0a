"""Every error a user can cause, and what it says.

One hierarchy: each error carries the file or key it is about, the reason, and what to do next, in one line. The command lines of `usdata`
and `uscl` print that line and leave with the error's exit code; a traceback is only ever shown for a fault of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

EXIT_DONE = 0
EXIT_OUR_FAULT = 1
EXIT_USER_ERROR = 2
EXIT_FINDINGS = 3
EXIT_STOPPED = 75


class UserError(Exception):
    """The user's input or configuration is wrong (exit code 2).

    Args:
        subject: The file, folder, key or option that the error is about.
        reason: What is wrong with it.
        advice: What to do about it.
    """

    exit_code = EXIT_USER_ERROR

    def __init__(self, subject: str | Path, reason: str, advice: str = "") -> None:
        self.subject = str(subject)
        self.reason = reason
        self.advice = advice
        line = f"{self.subject}: {reason}"
        super().__init__(f"{line}; {advice}" if advice else line)

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.subject, self.reason, self.advice)


class RecipeError(UserError):
    """A recipe (of a data set or of a training run) does not hold what it should."""


class DataSetError(UserError):
    """A folder is not a data set, or breaks a promise that a data set makes."""


class ReadError(UserError):
    """A file of ultrasound cannot be read; in a build this costs one row, never the build."""


class Stopped(Exception):
    """A signal asked the program to stop, and everything done so far is saved (exit code 75)."""

    exit_code = EXIT_STOPPED


def nearest(word: str, known: Iterable[str]) -> str:
    """Advice that names the nearest known word, or lists them all when none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known are: " + ", ".join(names) if names else "nothing is known here"
