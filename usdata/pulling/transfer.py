"""One file from one of its addresses (https, http, file or a plain path) to its place, going on where an earlier try ended.

In: addresses, and what is known of the file's length and sha256. Out: the file, whole, under its own name. Guarantees: nothing stands under
that name unless every byte came from one version of the file, its length is the one that was said, and its sha256 the one that is known;
otherwise one error names the file and why each address failed, and the part is kept for the next run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from usdata.errors import UserError
from usdata.files import READ_BLOCK_BYTES
from usdata.pulling.download import Download
from usdata.pulling.partial import Partial, Version
from usdata.pulling.wanted import KEPT, Fetched, Refused, Tell, Terms, Wanted, check_room, verified

if TYPE_CHECKING:
    import httpx


def fetch(wanted: Wanted, terms: Terms, client: httpx.Client | None = None, tell: Tell = lambda done, total: None) -> Fetched:
    """Bring a file to its place.

    Args:
        wanted: The file.
        terms: How addresses are asked.
        client: From `make_client`; needed where an address is one of the web.
        tell: Is told how many bytes are here, of how many (None = unknown).

    Raises:
        UserError: No address gave it whole, or it cannot be written.
        Stopped: `terms.stop` was set; the part is kept.
    """
    reasons, advice = [], ""
    with _disk_errors(wanted.target):
        part = Partial(wanted.target)
        try:
            for location in wanted.locations:
                try:
                    if is_web(location):
                        assert client is not None
                        Download(location, wanted, part, terms, client, tell).run()
                    else:
                        _copy(location, wanted, part, terms, tell)
                    digest = verified(wanted, part)
                    part.place()
                    return Fetched(location, part.size, digest)
                except Refused as error:
                    reasons.append(f"{location}: {error}")
                    advice = advice or error.advice
        finally:
            part.close()
    general = f"check the network, or name another place with --mirror NAME=LOCATION; {KEPT}"
    raise UserError(wanted.target, f"could not be had ({'; '.join(reasons) or 'it has no address'})", advice or general)


def is_web(location: str) -> bool:
    """Whether a location is an address of the web rather than a file's."""
    return location.lower().startswith(("https://", "http://"))


def local_path(location: str) -> Path:
    """The path that a file address or a plain path names.

    Raises:
        UserError: It is an address of another kind, or one of another machine.
    """
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise UserError(location, f"is no address ({error})", "give https, file or a path") from error
    if parts.scheme.lower() == "file":
        if parts.netloc not in ("", "localhost"):
            raise UserError(location, "is a file of another machine", "give its path")
        return Path(unquote(parts.path))
    if "://" in location:
        raise UserError(location, f"addresses of the kind '{parts.scheme}' are not fetched", "give https, file or a path")
    return Path(location)


def make_client(timeout_s: float) -> httpx.Client:
    """A client that asks for bytes as they are and follows no redirect by itself."""
    import httpx

    headers = {"Accept-Encoding": "identity", "User-Agent": "usdata"}
    return httpx.Client(timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 30.0)), headers=headers, follow_redirects=False)


def _copy(location: str, wanted: Wanted, part: Partial, terms: Terms, tell: Tell) -> None:
    source = local_path(location)
    before = _state(source)
    check_room(wanted, before[0])
    part.begin(Version(location, total=before[0]))
    for block in _blocks(source):
        terms.refuse_to_go_on_after_a_stop()
        part.write(block)
        tell(part.size, before[0])
    if part.size != before[0] or _state(source) != before:
        part.discard()
        raise Refused("changed while it was copied")


def _state(source: Path) -> tuple[int, int]:
    try:
        stat = source.stat()
    except OSError as error:
        raise Refused(f"there is no such file ({error.strerror})") from error
    return stat.st_size, stat.st_mtime_ns


def _blocks(source: Path) -> Iterator[bytes]:
    """A file's bytes. What fails here is reading, so the caller's writing can fail with words of its own."""
    try:
        with source.open("rb") as file:
            while block := file.read(READ_BLOCK_BYTES):
                yield block
    except OSError as error:
        raise Refused(f"cannot be read ({error.strerror})") from error


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = f"free some space or mend the permissions; {KEPT}"
        raise UserError(target, f"cannot be written ({error.strerror or error})", advice) from error
