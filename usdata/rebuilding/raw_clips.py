"""Which raw file is which clip of a published manifest: by its path, else by its content, wherever it lies.

Comes in: rows of videos.parquet and a folder of raw clips. Goes out: the files of each clip, or why there are none. Guarantees: what is
found has the sha256 that the manifest has; the folder is only read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from usdata.console import progress
from usdata.errors import ReadError, UserError
from usdata.layouts import RawFiles
from usdata.readers.archives import size_of
from usdata.video_step import raw_digest, without_subject


@dataclass(frozen=True)
class RawClip:
    """Where a clip lies, or why it does not.

    Attributes:
        path: The file, the folder of images, or the pattern of their names; relative to the raw folder.
        members: The files that it is made of; empty where it was not found.
        fault: "" where it was found; else its path and what is the matter: missing, changed, unreadable.
        hint: What may help a person to find it; it names files of this machine and stays here.
    """

    path: str
    members: tuple[str, ...]
    fault: str = ""
    hint: str = ""


def find_clips(videos: Sequence[Mapping[str, Any]], raw: Path) -> dict[str, RawClip]:
    """Find the raw files of clips.

    Args:
        videos: Their rows of videos.parquet (video_id, path, sha256, bytes).
        raw: The folder.

    Returns:
        video_id to what was found, for every row.

    Raises:
        UserError: There is no such folder, or it is empty.
    """
    if not raw.is_dir():
        raise UserError(raw, "no such folder of raw clips", "give the folder that holds them with --raw")
    files = RawFiles(raw)
    if not files.paths:
        raise UserError(raw, "the folder of raw clips is empty", "put the clips there, or give another folder with --raw")
    found: dict[str, RawClip] = {}
    astray: list[Mapping[str, Any]] = []
    with progress("hashing raw files", len(videos), "clips") as advance:
        for row in videos:
            advance(1)
            members = _members(files, row["path"])
            digest, why = _digest(raw, row["path"], members)
            if members and digest == row["sha256"]:
                found[row["video_id"]] = RawClip(row["path"], members)
                continue
            fault = (why or _changed(row, digest)) if members else "is missing, and no file has its content"
            hint = "" if members else _alike(files, row["path"])
            found[row["video_id"]] = RawClip(row["path"], (), f"{row['path']} {fault}", hint)
            astray.append(row)
    elsewhere = _by_content(astray, files, raw)
    return found | {row["video_id"]: elsewhere[row["sha256"]] for row in astray if row["sha256"] in elsewhere}


def _members(files: RawFiles, path: str) -> tuple[str, ...]:
    if path in files.sequences:
        return files.sequences[path]
    if path in files.folders:
        return files.folders[path]
    return (path, *files.companions(path)) if path in files.present else ()


def _digest(raw: Path, path: str, members: tuple[str, ...]) -> tuple[str | None, str]:
    """The sha256, or None and why there is none."""
    if not members:
        return None, ""
    try:
        return raw_digest(raw, path, members)[0], ""
    except ReadError as error:
        return None, without_subject(error)
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"


def _changed(row: Mapping[str, Any], digest: str | None) -> str:
    return f"has changed: its sha256 is {str(digest)[:16]}..., in the manifest {str(row['sha256'])[:16]}..."


def _alike(files: RawFiles, path: str) -> str:
    name = PurePosixPath(path).name
    other = next((other for other in files.paths if PurePosixPath(other).name == name), None)
    return "" if other is None else f"{other} has its name and other content"


def _by_content(rows: Iterable[Mapping[str, Any]], files: RawFiles, raw: Path) -> dict[str, RawClip]:
    """sha256 to a clip of that content. Only what has the size of a clip that is looked for is read."""
    sizes: dict[int, set[str]] = defaultdict(set)
    for row in rows:
        sizes[row["bytes"]].add(row["sha256"])
    if not sizes:
        return {}
    candidates: dict[str, tuple[str, ...]] = {path: (path, *files.companions(path)) for path in files.paths if files.is_clip(path)}
    candidates |= {path: (path,) for path in files.paths if path not in candidates}  # a still may be a clip of its own
    candidates |= files.folders | files.sequences
    found: dict[str, RawClip] = {}
    with progress("looking for moved files", len(candidates), "files") as advance:
        for path, members in candidates.items():
            advance(1)
            size = sum(size_of(raw / member) for member in members)
            if sizes.get(size, set()) <= found.keys():
                continue
            digest, _ = _digest(raw, path, members)
            if digest in sizes[size]:
                found[str(digest)] = RawClip(path, members)
    return found
