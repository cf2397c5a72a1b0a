"""What a transfer is told and what can go wrong with one address: the words that `transfer` and `download` share.

In: what is known of a file. Out: a part that was checked against it. Guarantees: a part that is not what is known is emptied, never placed.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from usdata.errors import Stopped, UserError
from usdata.files import sha256_file
from usdata.pulling.partial import Partial

KEPT = "what was downloaded is kept: run the same command again"


class Refused(Exception):
    """This address will not give the file; the next one may.

    Args:
        reason: Why.
        advice: What the user can do, where there is something.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


class Interrupted(Exception):
    """The same address may give the file, or the rest of it, when it is asked again.

    Args:
        reason: What happened.
        after_s: How long the server wants to be left alone; None where it did not say.
    """

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


@dataclass(frozen=True)
class Wanted:
    """A file and what is known of it.

    Attributes:
        target: Where it is to stand.
        locations: Addresses and paths, the best first.
        bytes: Its size, where known.
        sha256: Of its bytes, where known.
        sha256_from: Who knows.
    """

    target: Path
    locations: tuple[str, ...]
    bytes: int | None = None
    sha256: str | None = None
    sha256_from: str = "the catalogue"


@dataclass(frozen=True)
class Terms:
    """How addresses are asked.

    Attributes:
        allow_http: Whether unprotected addresses, and redirects to them, are followed.
        attempts: Failures in a row, without one more byte, after which an address is given up.
        timeout_s: Silence of a server that counts as a failure.
        stop: Set when everything is to end.
        sleep: Waits between tries; by default as long as `stop` is not set.
    """

    allow_http: bool = False
    attempts: int = 5
    timeout_s: float = 60.0
    stop: threading.Event = field(default_factory=threading.Event)
    sleep: Callable[[float], None] | None = None

    def pause(self, seconds: float) -> None:
        """Wait; a stop ends it."""
        if self.sleep is None:
            self.stop.wait(seconds)
        else:
            self.sleep(seconds)
        self.refuse_to_go_on_after_a_stop()

    def refuse_to_go_on_after_a_stop(self) -> None:
        """End this file, with its part kept, when a stop was asked for.

        Raises:
            Stopped: It was.
        """
        if self.stop.is_set():
            raise Stopped(KEPT)


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched: from where, how long, its sha256."""

    location: str
    bytes: int
    sha256: str


Tell = Callable[[int, int | None], None]


def verified(wanted: Wanted, part: Partial) -> str:
    """The sha256 of a part that is whole.

    Raises:
        Refused: Its size or its sha256 is not the known one; the part is emptied.
    """
    part.flush()
    if wanted.bytes is not None and part.size != wanted.bytes:
        size = part.size
        part.discard()
        raise Refused(f"has {size:,} bytes and not {wanted.bytes:,}")
    digest = sha256_file(part.path)
    if wanted.sha256 is not None and digest != wanted.sha256:
        part.discard()
        raise Refused(f"its sha256 begins with {digest[:12]} and not with {wanted.sha256[:12]}, as {wanted.sha256_from} says")
    return digest


def check_room(wanted: Wanted, needed: int) -> None:
    """Refuse a file that the disk cannot hold, before it is full.

    Raises:
        UserError: There is less room than that many bytes.
    """
    free = shutil.disk_usage(wanted.target.parent).free
    if needed > free:
        reason = f"needs {needed / 1e9:.1f} GB more and the disk has {free / 1e9:.1f} GB"
        raise UserError(wanted.target, reason, f"free some space, or give another --to; {KEPT}")
