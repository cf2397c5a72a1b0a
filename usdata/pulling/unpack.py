"""A whole archive into a folder of its own, or nothing of it.

In: a zip or a tar (plain, gz, xz, bz2). Out: a folder that holds its files. Guarantees: an archive with one member that leads out, is a
link, is encrypted, stands twice, or differs from another in case alone is refused whole, as is one that unpacks to more than the limits;
nothing is written outside the folder, and nothing stands there before everything does.

`usdata.readers.archives` says what is wrong with a member. It reads members one by one; here all are written in one pass, since a
compressed tar has no index and would be unpacked once for each of them.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from usdata.errors import UserError
from usdata.files import READ_BLOCK_BYTES, sha256_text
from usdata.pulling.record import Listing
from usdata.readers.archives import MAX_MEMBERS, MAX_RATIO, RATIO_FREE_BYTES, Member, list_members
from usdata.readers.identify import ARCHIVE_KINDS, identify

_NOTHING = "nothing of it was unpacked: look at it before you use it, or get it again"
_DAMAGE = (
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes:
        files: Most files.
        bytes: Most bytes of them together.
        ratio: Most bytes for one byte of the archive, beyond `ratio_free_bytes`.
        ratio_free_bytes: Bytes that any archive may unpack to.
    """

    files: int = MAX_MEMBERS
    bytes: int = 1 << 40
    ratio: int = MAX_RATIO
    ratio_free_bytes: int = RATIO_FREE_BYTES


def staging_of(folder: Path) -> Path:
    """Where an archive is unpacked before its folder gets its name; a pull that was killed may have left one."""
    return folder.with_name(f".{folder.name}.unpacking")


def unpack(archive: Path, staging: Path, *, limits: Limits | None = None, go_on: Callable[[], None] = lambda: None) -> Listing:
    """Write all files of an archive into a folder.

    Args:
        archive: The archive; it stays.
        staging: The folder to make; what stands there is removed before, and again when this fails.
        limits: What it may unpack to.
        go_on: Is called before each file; what it raises ends the work.

    Raises:
        UserError: The archive is refused; nothing is left in `staging`.
    """
    members = {member.name: member for member in _checked(archive, limits or Limits())}
    _check_room(archive, staging, sum(member.bytes for member in members.values()))
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        return _unpack(archive, members, staging, go_on)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _unpack(archive: Path, members: dict[str, Member], staging: Path, go_on: Callable[[], None]) -> Listing:
    written = 0
    try:
        for name, stream in _streams(archive):
            go_on()
            _write(archive, members[name], stream, staging)
            written += 1
    except _DAMAGE as error:
        raise UserError(archive, f"is damaged ({_words(error)})", _NOTHING) from error
    except OSError as error:
        raise UserError(archive, f"cannot be unpacked ({error.strerror or error})", f"free some space; {_NOTHING}") from error
    if written != len(members):
        raise UserError(archive, f"gives {written} files and lists {len(members)}", _NOTHING)
    return listing_of(staging)


def listing_of(folder: Path) -> Listing:
    """What lies in a folder, by names and sizes; links count as what they are."""
    sizes = {path.relative_to(folder).as_posix(): path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    return Listing(len(sizes), sum(sizes.values()), sha256_text("".join(f"{sizes[name]} {name!r}\n" for name in sorted(sizes))))


def _checked(archive: Path, limits: Limits) -> list[Member]:
    """The members of an archive of which nothing is to be refused.

    Raises:
        UserError: Something is; it names the member and the reason.
    """
    if identify(archive) not in ARCHIVE_KINDS:
        raise UserError(archive, f"is no zip or tar but {identify(archive)}", "look at it: it may be a page that says why")
    try:
        members = list_members(archive)
        links = _links(archive)
    except _DAMAGE as error:
        raise UserError(archive, f"is damaged ({_words(error)})", _NOTHING) from error
    if links:
        raise UserError(archive, f"was not unpacked, for its member '{links[0]}' is a link", _NOTHING)
    for member in members:
        if member.reason is not None:
            raise UserError(archive, f"was not unpacked, for its member '{member.name}' {member.reason}", _NOTHING)
    if len(members) > limits.files:
        raise UserError(archive, f"holds {len(members):,} files, more than {limits.files:,}", _NOTHING)
    total, packed = sum(member.bytes for member in members), archive.stat().st_size
    if total > limits.bytes:
        raise UserError(archive, f"unpacks to {total / 1e9:,.1f} GB, more than {limits.bytes / 1e9:,.1f} GB", _NOTHING)
    if total > limits.ratio_free_bytes and total > limits.ratio * packed:
        raise UserError(archive, f"unpacks to {total // max(packed, 1):,} times its size: a decompression bomb", _NOTHING)
    _refuse_collisions(archive, [member.name for member in members])
    return members


def _links(archive: Path) -> list[str]:
    """Members of a zip that are links by their Unix mode; in a tar, `list_members` refuses them."""
    if identify(archive) != "zip":
        return []
    with zipfile.ZipFile(archive) as opened:
        return [entry.filename for entry in opened.infolist() if stat.S_ISLNK(entry.external_attr >> 16)]


def _refuse_collisions(archive: Path, names: list[str]) -> None:
    """Names that would be one file on some disk, and a file where another member needs a folder."""
    files: dict[str, str] = {}
    for name in names:
        key = _key(name)
        if key in files:
            raise UserError(archive, f"was not unpacked: '{files[key]}' and '{name}' differ in case or accents' coding alone", _NOTHING)
        files[key] = name
    for name in names:
        for parent in PurePosixPath(name).parents:
            if (key := _key(str(parent))) in files:
                raise UserError(archive, f"was not unpacked: '{files[key]}' is a file, and the folder of '{name}'", _NOTHING)


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _streams(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Every file of a checked archive with its checked name, in the archive's order."""
    if identify(archive) == "zip":
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    with opened.open(entry) as stream:
                        yield str(PurePosixPath(entry.filename)), stream
        return
    with tarfile.open(archive, "r:*") as opened_tar:
        for member in opened_tar:
            if member.isreg() and (found := opened_tar.extractfile(member)) is not None:
                with found as stream:
                    yield str(PurePosixPath(member.name)), stream
        # A tar ends before its compression does, whose checksum stands at the very end.
        while opened_tar.fileobj is not None and opened_tar.fileobj.read(READ_BLOCK_BYTES):
            pass


def _write(archive: Path, member: Member, stream: IO[bytes], staging: Path) -> None:
    target = staging / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.bytes
    with target.open("xb") as file:
        while left > 0 and (block := stream.read(min(left, READ_BLOCK_BYTES))):
            file.write(block)
            left -= len(block)
        if left or stream.read(1):
            how = "shorter" if left else "longer"
            raise UserError(archive, f"was not unpacked, for its member '{member.name}' is {how} than the archive says", _NOTHING)


def _check_room(archive: Path, staging: Path, needed: int) -> None:
    free = shutil.disk_usage(staging.parent).free
    if needed > free:
        reason = f"unpacks to {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left"
        raise UserError(archive, reason, "free some space and run the same command again: the archive is kept")


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
