"""The identifiers that a build has met, and whether one of them stands in a text that would leave.

A pseudonym protects nobody beside the identifier itself, and names hide in paths, labels and free text. Everything that the tables and the
headers of the raw files tell of a person is collected here, in the forms in which people write it into file names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SHORT_ID = 3  # characters: shorter ones occur by chance
SHORT_WORD = 6  # characters of a name: shorter ones are parts of other words
_DATE = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})")
_WORD = re.compile(r"[^\W\d_]+")
# What stands in the place of a name where one was removed already.
_PLACEHOLDERS = frozenset(
    {
        "anon", "anonymized", "anonymised", "anonymous", "deidentified", "empty", "name", "none", "null", "patient", "phantom", "removed",
        "subject", "test", "unknown", "volunteer",
    }
)  # fmt: skip
# By form alone, whoever it is of: a date, a unique identifier of DICOM's, an e-mail address, a number as long as a record's.
_LOOKS_PRIVATE = {
    "a date": re.compile(r"(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)"),
    "a date (day first)": re.compile(r"(?<!\d)(?:0[1-9]|[12]\d|3[01])[-_.](?:0[1-9]|1[0-2])[-_.](?:19|20)\d\d(?!\d)"),
    "a unique identifier": re.compile(r"(?<!\d)\d+(?:\.\d+){5,}(?!\d)"),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.\w+"),
    "a number as long as a record's": re.compile(r"\d{7,}"),
}


class Identifiers:
    """A growing set of texts that must not leave."""

    def __init__(self) -> None:
        self._anywhere: set[str] = set()
        self._lengths: set[int] = set()
        self._bounded: set[str] = set()  # count only between characters that are no letters or digits
        self._bounded_in_paths: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._anywhere or self._bounded or self._bounded_in_paths)

    def add_id(self, text: str) -> None:
        """A record number: counts anywhere, a shorter one only in paths and names and between other characters."""
        text = text.strip().casefold()
        if len(text) >= SHORT_ID:
            self._add_anywhere(text)
        elif text:
            self._bounded_in_paths.add(text)

    def add_number(self, text: str) -> None:
        """A number of a study or a device, which is no secret by itself where it is short."""
        if len(text.strip()) > SHORT_ID:
            self.add_id(text)

    def add_name(self, text: str) -> None:
        """A person's or an institution's name: each of its words counts, a short one between other characters."""
        for word in _WORD.findall(text.casefold()):
            if len(word) < SHORT_ID or word in _PLACEHOLDERS or len(set(word)) == 1:
                continue
            if len(word) < SHORT_WORD:
                self._bounded.add(word)
            else:
                self._add_anywhere(word)

    def add_date(self, text: str) -> None:
        """A date (YYYYMMDD): in the orders and with the signs between that people use."""
        match = _DATE.fullmatch(text.strip())
        if match is None:
            return
        year, month, day = match.groups()
        for sign in ("", "-", "_", "."):
            self._add_anywhere(sign.join((year, month, day)))
            self._add_anywhere(sign.join((day, month, year)))

    def _add_anywhere(self, text: str) -> None:
        self._anywhere.add(text)
        self._lengths.add(len(text))

    def in_path(self, text: str) -> bool:
        """Whether a path or name holds one."""
        return self.in_text(text) or _bounded_hit(text.casefold(), self._bounded_in_paths)

    def in_text(self, text: str) -> bool:
        """Whether a text holds one."""
        folded = text.casefold()
        return self._hit(folded) or _bounded_hit(folded, self._bounded)

    def _hit(self, text: str) -> bool:
        """Whether one is part of a text: by looking up its parts, so that the cost does not grow with how many there are."""
        places = len(text) + 1
        return any(text[place : place + length] in self._anywhere for length in self._lengths for place in range(places - length))


def _bounded_hit(text: str, wanted: set[str]) -> bool:
    return bool(wanted) and any(part in wanted for part in _parts(text))


def _parts(text: str) -> Iterable[str]:
    yield from re.split(r"[\W_]+", text)
    yield from _WORD.findall(text)


def looks_private(path: str) -> str | None:
    """What a path seems to hold by its form alone, in words; None where nothing of the kind."""
    return next((words for words, pattern in _LOOKS_PRIVATE.items() if pattern.search(path)), None)
