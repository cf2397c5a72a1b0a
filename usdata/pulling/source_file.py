"""One file of a source, from the catalogue to where it stands under RAW/<name>: looked at, fetched, checked, recorded, unpacked.

In: what the catalogue says of it and what was recorded of it. Out: how it stands. Guarantees: what stands there already is never
overwritten; what is as it should be is not fetched again; killed between any two steps, the next run goes on with the step that is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from usdata.cataloguing import SourceFile
from usdata.errors import UserError
from usdata.files import sha256_file
from usdata.pulling.record import Record, Row
from usdata.pulling.transfer import fetch
from usdata.pulling.unpack import listing_of, staging_of, unpack
from usdata.pulling.wanted import Tell, Terms, Wanted

if TYPE_CHECKING:
    import httpx

_KEPT_OLD = "it was kept as it is: move it away and run the same command again to get it anew"


@dataclass(frozen=True)
class PulledFile:
    """How one file of a source stands.

    Attributes:
        path: Where, relative to the source's folder: the file, or the folder that it was unpacked into.
        state: "fetched", "there" (it was), "missing" or "different".
        reason: What is different; empty otherwise.
        location: Where it came from; None where that is not known.
        bytes: Of the file that was fetched; None while it is missing.
        sha256: Of the file that was fetched; None where it is not known.
        unpacked: Files that it was unpacked to; None for one that is not unpacked.
    """

    path: str
    state: str
    reason: str = ""
    location: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    unpacked: int | None = None


def examine(file: SourceFile, folder: Path, record: Record) -> PulledFile:
    """How a file stands, without changing anything."""
    known, place, archive = record[file.to], folder / file.stands_as, folder / file.to
    if file.unpack and place.exists():
        return _examined_folder(file, place, known)
    if not archive.exists():
        return PulledFile(file.stands_as, "missing")
    if archive.is_dir():
        return PulledFile(file.to, "different", "is a folder")
    digest, size = sha256_file(archive), archive.stat().st_size
    expected, who = _expected(file, known, record)
    if file.bytes is not None and size != file.bytes:
        reason = f"has {size:,} bytes, and {file.bytes:,} in the catalogue"
        return PulledFile(file.to, "different", reason, None, size, digest)
    if expected is not None and digest != expected:
        reason = f"its sha256 begins with {digest[:12]} and not with {expected[:12]}, as {who} says"
        return PulledFile(file.to, "different", reason, None, size, digest)
    if file.unpack:
        return PulledFile(file.stands_as, "missing", location=None if known is None else known.location, bytes=size, sha256=digest)
    return PulledFile(file.to, "there", "", None if known is None else known.location, size, digest)


def bring(
    file: SourceFile,
    folder: Path,
    record: Record,
    locations: tuple[str, ...],
    terms: Terms,
    client: httpx.Client | None,
    tell: Tell,
) -> PulledFile:
    """Get a file and put it where it belongs.

    Args:
        file: What the catalogue says of it.
        folder: RAW/<name>.
        record: What was pulled there before.
        locations: Where it lies, the best first.
        terms: How addresses are asked.
        client: For addresses of the web.
        tell: Is told how many bytes are here, of how many.

    Raises:
        UserError: It cannot be had, or what stands in its place is something else; that stays as it is.
        Stopped: A stop was asked for.
    """
    now, archive = examine(file, folder, record), folder / file.to
    if now.state == "different":
        raise UserError(folder / now.path, now.reason, _KEPT_OLD)
    row = record[file.to]
    if now.state == "there":
        if row is None:
            assert now.bytes is not None
            assert now.sha256 is not None
            record.put(file.to, Row(now.bytes, now.sha256, "placed by hand"))
        if file.unpack and archive.is_file():
            archive.unlink()  # a pull that was killed after unpacking left it
        return now
    if now.bytes is None:
        expected, who = _expected(file, row, record)
        got = fetch(Wanted(archive, locations, file.bytes, expected, who), terms, client, tell)
        row = Row(got.bytes, got.sha256, got.location)
        record.put(file.to, row)
    elif row is None:
        assert now.sha256 is not None
        row = Row(now.bytes, now.sha256, "placed by hand")
    assert row is not None
    if not file.unpack:
        return PulledFile(file.to, "fetched", "", row.location, row.bytes, row.sha256)
    return _unpacked(file, folder, record, row, terms)


def _unpacked(file: SourceFile, folder: Path, record: Record, row: Row, terms: Terms) -> PulledFile:
    place, archive = folder / file.stands_as, folder / file.to
    staging = staging_of(place)
    listing = unpack(archive, staging, go_on=terms.refuse_to_go_on_after_a_stop)
    # Written before the rename: a folder that stands there without its row would be taken for somebody else's.
    record.put(file.to, Row(row.bytes, row.sha256, row.location, listing))
    staging.rename(place)
    archive.unlink()
    return PulledFile(file.stands_as, "fetched", "", row.location, row.bytes, row.sha256, listing.files)


def _examined_folder(file: SourceFile, place: Path, known: Row | None) -> PulledFile:
    if known is None or known.unpacked is None:
        return PulledFile(file.stands_as, "different", "stands there and was not put there by pull")
    if file.sha256 is not None and known.sha256 != file.sha256:
        reason = "was unpacked from another archive than the one that the catalogue names now"
    elif not place.is_dir() or listing_of(place) != known.unpacked:
        reason = "its files are not those that were unpacked: some were added, removed or changed"
    else:
        return PulledFile(file.stands_as, "there", "", known.location, known.bytes, known.sha256, known.unpacked.files)
    return PulledFile(file.stands_as, "different", reason, known.location, known.bytes, known.sha256)


def _expected(file: SourceFile, known: Row | None, record: Record) -> tuple[str | None, str]:
    """The sha256 that a file must have, and who says so."""
    if file.sha256 is not None or known is None:
        return file.sha256, "the catalogue"
    return known.sha256, f"{record.path.name} (remove it to take the new file)"
