"""Archives: a zip or tar stands for the folder that it holds, and a path may lead into it (`clips.zip/patient 1/a.dcm`).

In: an archive. Out: its members with size and kind, and any of them as a real file for as long as it is read. Guarantees: nothing is
written outside the folder that the caller gives; names that lead out of the archive, links, encrypted members and decompression bombs are
refused with a reason each; a member costs no more disk than its declared size; archives within archives stay closed.

Unpacking a whole archive beside the raw data would be simpler, but raw data is only ever read, and one clip needs the disk of one.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from usdata.errors import ReadError
from usdata.readers.identify import ARCHIVE_KINDS, HEAD_BYTES, identify, identify_bytes
from usdata.readers.naming import sequence_pattern

MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 16 << 30
# Deflate reaches 1,032 to 1 on zeros; pictures stay far below. Small members may do as they like.
MAX_RATIO = 200
RATIO_FREE_BYTES = 256 << 20
# A compressed tar has no index: every member read costs a pass over what lies before it.
MAX_COMPRESSED_TAR_WORK = 64 << 30
_HEADER_BYTES = 4 << 20
_ADVICE = "get the archive again, or leave it out"
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
_DAMAGE = (*_BROKEN, OSError, NotImplementedError, RuntimeError, ValueError)
_OUTSIDE = "its name leads out of the archive"


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        name: Its path within the archive, with forward slashes; `(member N)` where its own name cannot be used.
        bytes: Its declared size.
        kind: What it is by content, as `identify` names it; "unreadable" where there is a reason.
        reason: Why it cannot be read; None where it can.
    """

    name: str
    bytes: int
    kind: str
    reason: str | None = None


def locate(path: Path) -> tuple[Path, str] | None:
    """The archive that a path leads into and the rest of the path; None for a path of the file system itself."""
    if path.exists():
        return None
    for parent in path.parents:
        if parent.is_file():
            return (parent, path.relative_to(parent).as_posix()) if identify(parent) in ARCHIVE_KINDS else None
    return None


def list_members(archive: Path) -> list[Member]:
    """The files in an archive, sorted by name.

    Raises:
        ReadError: It is damaged, holds nothing, or is too much to be looked through.
    """
    stat = archive.stat()
    return list(_listed(archive, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=64)
def _listed(archive: Path, modified_ns: int, size: int) -> tuple[Member, ...]:
    try:
        found = list(_zip_members(archive) if identify(archive) == "zip" else _tar_members(archive))
    except _DAMAGE as error:
        raise ReadError(archive, f"the archive is damaged ({_words(error)})", _ADVICE) from error
    if not found:
        raise ReadError(archive, "the archive is empty", "leave it out")
    counts = Counter(member.name for member in found)
    twice = "stands in the archive more than once"
    unique = {each.name: each if counts[each.name] == 1 else Member(each.name, each.bytes, "unreadable", twice) for each in found}
    return tuple(unique[name] for name in sorted(unique))


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        _refuse_crowd(archive, len(opened.filelist))
        for number, info in enumerate(opened.filelist):
            if info.is_dir():
                continue
            name, reason = _checked_name(info.filename, number)
            if info.flag_bits & 1:
                reason = reason or "is encrypted"
            reason = reason or _refusal_of_size(info.file_size, info.compress_size)
            kind = "unreadable"
            if reason is None:
                try:
                    with opened.open(info) as file:
                        kind = identify_bytes(file.read(HEAD_BYTES))
                except _DAMAGE as error:
                    reason = f"is damaged ({_words(error)})"
            yield Member(name, info.file_size, kind, reason)


def _tar_members(archive: Path) -> Iterator[Member]:
    limit = max(RATIO_FREE_BYTES, MAX_RATIO * archive.stat().st_size)
    number = 0
    with tarfile.open(archive, "r:*") as opened:
        try:
            for number, info in enumerate(opened):
                _refuse_crowd(archive, number)
                # Going on to the next header inflates this member: what it would cost is known before.
                if info.offset_data + info.size > limit:
                    raise ReadError(archive, "unpacks to more than 200 times its size: a decompression bomb", _ADVICE)
                if not info.isdir():
                    yield _tar_member(opened, info, number)
        except _DAMAGE as error:
            if not number:
                raise
            # What came before the damage is sound.
            yield Member(f"(member {number + 1})", 0, "unreadable", f"the archive breaks off here ({_words(error)})")


def _tar_member(opened: tarfile.TarFile, info: tarfile.TarInfo, number: int) -> Member:
    name, reason = _checked_name(info.name, number)
    if not info.isreg():
        reason = reason or ("is a link" if info.issym() or info.islnk() else "is neither a file nor a folder")
    kind = "unreadable"
    if reason is None and (file := opened.extractfile(info)) is not None:
        kind = identify_bytes(file.read(HEAD_BYTES))
    return Member(name, info.size, kind, reason)


def _refuse_crowd(archive: Path, count: int) -> None:
    if count > MAX_MEMBERS:
        raise ReadError(archive, f"holds more than {MAX_MEMBERS:,} files", "unpack it first")


def _checked_name(name: str, number: int) -> tuple[str, str | None]:
    """A member's name as a relative path, or a stand-in and the reason why it has none."""
    stand_in = f"(member {number})"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return stand_in, "its name is not UTF-8"
    if "\\" in name or "\0" in name:
        return stand_in, "its name holds a character that no path may hold"
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or (len(name) > 1 and name[1] == ":"):
        return stand_in, _OUTSIDE
    return str(path), None


def _refusal_of_size(size: int, packed: int) -> str | None:
    if size > MAX_MEMBER_BYTES:
        return f"declares {size / 1e9:.0f} GB, more than the {MAX_MEMBER_BYTES >> 30} GiB that are unpacked for one file"
    if size > RATIO_FREE_BYTES and size > MAX_RATIO * max(packed, 1):
        return f"declares {size // max(packed, 1)} times the size that it takes in the archive: a decompression bomb"
    return None


@contextmanager
def open_raw(path: Path) -> Iterator[IO[bytes]]:
    """A file to read from, whether it lies in a folder or in an archive.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ReadError: It lies in an archive and cannot be had from there.
    """
    place = locate(path)
    if place is None:
        with path.open("rb") as file:
            yield file
        return
    archive, name = place
    with _member_stream(archive, name) as file:
        yield file


@contextmanager
def _member_stream(archive: Path, name: str) -> Iterator[IO[bytes]]:
    known = {member.name: member for member in list_members(archive)}
    if name not in known:
        raise ReadError(archive / name, f"the archive {archive.name} holds no such file", "check the path")
    if (reason := known[name].reason) is not None:
        raise ReadError(archive / name, reason, _ADVICE)
    try:
        if identify(archive) == "zip":
            with zipfile.ZipFile(archive) as opened, opened.open(name) as file:
                yield file
        else:
            _refuse_slow_tar(archive, known.values())
            with tarfile.open(archive, "r:*") as opened_tar:
                member = next(info for info in opened_tar if _checked_name(info.name, 0)[0] == name)
                found = opened_tar.extractfile(member)
                assert found is not None
                yield found
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise ReadError(archive / name, f"is damaged in its archive ({_words(error)})", _ADVICE) from error


@contextmanager
def as_file(path: Path) -> Iterator[Path]:
    """A file under a path of the file system, for readers that take nothing else; one from an archive is unpacked meanwhile.

    Raises:
        ReadError: It lies in an archive and cannot be had from there.
    """
    place = locate(path)
    if place is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="usdata-") as folder:
        yield extract(*place, Path(folder))


@contextmanager
def head_as_file(path: Path) -> Iterator[Path]:
    """As `as_file`, for whoever reads a header alone: of a file in an archive only the beginning is unpacked.

    Raises:
        ReadError: It lies in an archive and cannot be had from there.
    """
    if locate(path) is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="usdata-") as folder, open_raw(path) as source:
        head = Path(folder) / path.name
        head.write_bytes(source.read(_HEADER_BYTES))
        yield head


def size_of(path: Path) -> int:
    """Bytes of a file, whether it lies in a folder or in an archive."""
    place = locate(path)
    if place is None:
        return path.stat().st_size
    archive, name = place
    return next((member.bytes for member in list_members(archive) if member.name == name), 0)


def _refuse_slow_tar(archive: Path, members: Iterable[Member]) -> None:
    with archive.open("rb") as file:
        compressed = file.read(HEAD_BYTES)[257:262] != b"ustar"
    sizes = [member.bytes for member in members]
    if compressed and sum(sizes) * len(sizes) > MAX_COMPRESSED_TAR_WORK:
        reason = f"lies in a compressed tar of {len(sizes)} files, which would be unpacked once for each of them"
        raise ReadError(archive, reason, "unpack the archive first")


def extract(archive: Path, name: str, into: Path) -> Path:
    """Write a member, or the files directly in a folder of the archive, to a folder.

    Args:
        archive: The archive.
        name: Path within it of a file, of a folder, or of a sequence of images (`scan/left_#.png`).
        into: An existing, empty folder.

    Returns:
        Where it now is, under its own name.

    Raises:
        ReadError: There is no such member, or it is refused or damaged.
    """
    names = {member.name for member in list_members(archive)}
    if name in names:
        return _extracted_file(archive, name, into)
    wanted = PurePosixPath(name)
    inside = sorted(each for each in names if PurePosixPath(each).parent == wanted)
    beside = [each for each in names if PurePosixPath(each).parent == wanted.parent]
    alike = sorted(each for each in beside if sequence_pattern(PurePosixPath(each).name) == wanted.name)
    if not inside and not alike:
        raise ReadError(archive / name, f"the archive {archive.name} holds no such file", "check the path")
    folder = into / (wanted.name if inside else "sequence")
    folder.mkdir()
    for each in inside or alike:
        _extracted_file(archive, each, folder)
    return folder if inside else folder / wanted.name


def extract_beside(archive: Path, name: str, into: Path) -> None:
    """Write a member that another one, extracted before, refers to; a member that is not there is left to the reader's own words."""
    if name in {member.name for member in list_members(archive)}:
        _extracted_file(archive, name, into)


def _extracted_file(archive: Path, name: str, into: Path) -> Path:
    declared = next(member.bytes for member in list_members(archive) if member.name == name)
    target = into / PurePosixPath(name).name
    with _member_stream(archive, name) as source, target.open("xb") as file:
        left = declared
        while left > 0 and (block := source.read(min(left, 1 << 20))):
            file.write(block)
            left -= len(block)
        if left == 0 and source.read(1):
            raise ReadError(archive / name, "is larger than the archive declares", _ADVICE)
    if left:
        shutil.rmtree(into, ignore_errors=True)
        raise ReadError(archive / name, "is shorter than the archive declares: the archive is cut short", _ADVICE)
    return target


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
