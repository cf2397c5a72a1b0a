"""What the headers of an HTTP response say of a file: its version, its range, its length, and when to come back.

In: headers as a mapping. Out: numbers and validators, None for what is missing or malformed. RFC 9110 names the rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from usdata.pulling.partial import Version

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})", re.IGNORECASE)


def version_of(url: str, headers: Mapping[str, str], total: int | None) -> Version:
    """The version that a response is of.

    A weak ETag proves no equality of bytes, so it is never a validator (RFC 9110, 13.1.5); a date is one only where the server's clock was
    at least a second past it (8.8.2.2), for else the file may have changed once more within that second.
    """
    etag, modified = headers.get("etag"), headers.get("last-modified")
    validator = None
    if etag is not None and re.fullmatch(r'"[\x21\x23-\x7e]*"', etag):
        validator = etag
    elif modified is not None and modified.isascii():
        then, now = date_of(modified), date_of(headers.get("date", ""))
        if then is not None and now is not None and (now - then).total_seconds() >= 1:
            validator = modified
    return Version(url, etag, modified, validator, total)


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """First byte, last byte and whole length (None for `*`) of a 206; None where it makes no sense."""
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        return None
    first, last, total = int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])
    return (first, last, total) if first <= last and (total is None or last < total) else None


def unsatisfied_total(headers: Mapping[str, str]) -> int | None:
    """The whole length that a 416 names."""
    match = _UNSATISFIED.fullmatch(headers.get("content-range", "").strip())
    return None if match is None else int(match[1])


def content_length(headers: Mapping[str, str]) -> int | None:
    """The length that a response declares; None for one in chunks."""
    text = headers.get("content-length", "").strip()
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """How long to wait, by the server's wish, which is a number of seconds or a date."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    date = date_of(text)
    return None if date is None else max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


def date_of(text: str) -> datetime | None:
    """A date of HTTP; None for anything else."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
