"""Text from the data, made fit for a page: nothing in it can steer the page, break its layout or make it large.

Comes in: any text that a data set may hold. Goes out: text of bounded length in which characters that cannot be seen are named, and lists
cut to a budget of bytes. Guarantees: what was cut is counted; escaping is left to the template, which escapes everything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, TypeVar

from markupsafe import Markup, escape

LONGEST_TEXT = 600
# Control and format characters (among them those that turn the reading direction around), surrogates, separators of lines.
UNSEEN_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Joiners belong to the spelling of several scripts; a soft hyphen shows where it counts.
HARMLESS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{SOFT HYPHEN}"
ROW_OVERHEAD_BYTES = 60
# A sentence breaks at its spaces; a file name has none.
LONGEST_WORD = 12

Row = TypeVar("Row")


def visible(text: str) -> str:
    """The text with characters that cannot be seen spelt out (`[U+202E]`), cut after 600 characters."""
    if len(text) > LONGEST_TEXT:
        text = text[: LONGEST_TEXT - 1] + "\N{HORIZONTAL ELLIPSIS}"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in "\n\t\r":
        return " "
    if unicodedata.category(character) not in UNSEEN_CATEGORIES or character in HARMLESS:
        return character
    return f"[U+{ord(character):04X}]"


def finalize(value: Any) -> Any:
    """What the template does with every value before it escapes it: text is made visible, None is an empty text."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return "" if value is None else value


def breakable(text: object) -> Markup:
    """Escaped text in which a line may break after an underscore, a slash, a dot or a hyphen inside a long word."""
    words = visible(str(text)).split(" ")
    broken = [re.sub(r"([_/.-])(?=.)", "\\1\0", word) if len(word) > LONGEST_WORD else word for word in words]
    return Markup(str(escape(" ".join(broken))).replace("\0", "<wbr>"))


def size(value: Any) -> int:
    """About how many bytes of the page a value takes, escaped; never less than its text takes."""
    if isinstance(value, str):
        return len(str(breakable(value)).encode())
    if isinstance(value, dict):
        return sum(size(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(size(part) for part in value)
    return len(str(value))


def fitting(rows: Sequence[Row], most_rows: int, most_bytes: int) -> list[Row]:
    """The first rows, as many as stay within both bounds."""
    spent = 0
    for number, row in enumerate(rows[:most_rows]):
        spent += size(row) + ROW_OVERHEAD_BYTES
        if spent > most_bytes:
            return list(rows[:number])
    return list(rows[:most_rows])
