"""What lies in a folder of raw files: each is opened, decoded once and told with its format, counts, rates and damage, or refused with its
reason.

The files need no recipe and no table. Images that are numbered as one sequence are told as one; a zip or tar is looked into. Decoding runs
in workers of its own, under the same limits of time and memory as a build, so one bad file costs one row.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from usdata.console import progress
from usdata.engines import Failure, default_workers, run_local
from usdata.errors import ReadError, UserError
from usdata.layouts import RawFiles
from usdata.readers import open_clip
from usdata.readers.archives import as_file, size_of
from usdata.readers.identify import ARCHIVE_KINDS, STILL_KINDS
from usdata.readers.naming import find_sequences
from usdata.readers.stills import sizes_in_sequence
from usdata.recipe import Hygiene, Reading
from usdata.sampling import SamplingRule
from usdata.video_step import first_facts, look_through, no_result, without_subject

# What an audit or a person should look at; a file with one of these is not "clean".
NO_SEQUENCE = "no sequence"
DAMAGE_FLAGS = ("decode_errors", "damaged_frames", "invalid_frames", "missing_frames", "truncated")


@dataclass(frozen=True)
class ScannedFile:
    """One row of a scan.

    Attributes:
        path: Relative to the folder, with forward slashes.
        kind: What it is by content ("mp4", "dicom", "text", ...); "sequence" for numbered images of one folder.
        status: clip (it was read), refused (it looks like a clip and cannot be read) or other (no clip, or part of one).
        reason: Why not a clip; None for one.
        bytes: Of the file, or of all images of a sequence.
        images: How many images a sequence is made of; 1 for a file.
        facts: What reading it told: codec, width, height, fps, frames_decoded, flags, ... as in videos.parquet; empty unless read.
        frames_at_3_hz: Unique frames that sampling at 3 Hz would keep.
        named_wrongly: Its name ends like another kind's.
    """

    path: str
    kind: str
    status: str
    reason: str | None = None
    bytes: int = 0
    images: int = 1
    facts: dict[str, Any] | None = None
    frames_at_3_hz: int = 0
    named_wrongly: bool = False

    @property
    def damaged(self) -> bool:
        """Reading it met damage, or gave less than it declares."""
        return bool(self.facts) and any(flag in DAMAGE_FLAGS for flag in (self.facts or {})["flags"])

    def to_json(self) -> dict[str, Any]:
        """The row, the facts beside the rest."""
        row = asdict(self)
        return {key: value for key, value in row.items() if key != "facts"} | (self.facts or {})


@dataclass(frozen=True)
class ScanResult:
    """What a scan found; `files` are sorted by path."""

    raw: Path
    files: list[ScannedFile]
    seconds: float

    @property
    def clips(self) -> list[ScannedFile]:
        """What can be read."""
        return [file for file in self.files if file.status == "clip"]

    @property
    def refused(self) -> list[ScannedFile]:
        """What looks like a clip and cannot be read."""
        return [file for file in self.files if file.status == "refused"]

    def to_json(self) -> dict[str, Any]:
        """For machines: totals, then a row a file."""
        statuses = Counter(file.status for file in self.files)
        return {
            "raw": str(self.raw),
            "counts": {"files": len(self.files), **{status: statuses[status] for status in ("clip", "refused", "other")}},
            "damaged": sum(file.damaged for file in self.files),
            "formats": dict(sorted(Counter(file.kind for file in self.clips).items())),
            "files": [
                {**{key: value for key, value in asdict(file).items() if key != "facts"}, **(file.facts or {})} for file in self.files
            ],
        }


@dataclass(frozen=True)
class _Task:
    """One clip to be looked through; it travels to a worker."""

    path: str
    kind: str
    raw: Path
    bytes: int
    images: int
    headers_only: bool
    read: Reading
    scratch: Path | None = None


def scan(raw: str | Path, *, workers: int | None = None, headers_only: bool = False, read: Reading | None = None) -> ScanResult:
    """Look at everything under a folder.

    Args:
        raw: The folder, or one file or archive; it is only read.
        workers: Processes; all processors by default.
        headers_only: Open every clip and decode its first frame alone: seconds for any number of clips, but no true counts and no damage.
        read: Backend and limits, as in a recipe.

    Raises:
        UserError: There is no such folder, or nothing in it.
    """
    start = time.monotonic()
    raw = Path(raw)
    settings = read or Reading()
    if not raw.exists():
        raise UserError(raw, "does not exist", "give the folder that holds the raw files")
    found = RawFiles(raw.parent, only=raw.name) if raw.is_file() else RawFiles(raw)
    raw = raw.parent if raw.is_file() else raw
    if not found.paths and not found.odd:
        raise UserError(raw, "the folder is empty", "give the folder that holds the raw files")
    sequences = find_sequences([path for path in found.paths if found[path] in STILL_KINDS])
    tasks, rows = _sorted_out(raw, found, sequences, headers_only, settings)
    # What a killed worker had unpacked from an archive goes with this folder.
    with tempfile.TemporaryDirectory(prefix="usdata-") as scratch:
        while tasks:
            tasks = [replace(task, scratch=Path(scratch)) for task in sorted(tasks, key=lambda task: (-task.bytes, task.path))]
            again = []
            for task, result in _looked_at(tasks, settings, workers or default_workers()):
                if result["status"] == NO_SEQUENCE:
                    again += [_task(raw, path, found[path], headers_only, settings) for path in sequences[task.path]]
                else:
                    rows.append(_row(task, result))
            tasks = again
    return ScanResult(raw, sorted(rows, key=lambda row: row.path), time.monotonic() - start)


def _looked_at(tasks: list[_Task], read: Reading, workers: int) -> Iterator[tuple[_Task, dict[str, Any]]]:
    pool = run_local(_look, tasks, workers=workers, timeout_s=read.timeout_s, memory_mb=read.memory_mb)
    with progress("reading", len(tasks), "clips") as advance, closing(pool) as done:
        for position, outcome in done:
            yield tasks[position], no_result("failed", outcome.reason) | {"kept": 0} if isinstance(outcome, Failure) else outcome
            advance(1)


def _task(raw: Path, path: str, kind: str, headers_only: bool, read: Reading) -> _Task:
    return _Task(path, kind, raw / path, size_of(raw / path), 1, headers_only, read)


def _sorted_out(
    raw: Path, found: RawFiles, sequences: dict[str, list[str]], headers_only: bool, read: Reading
) -> tuple[list[_Task], list[ScannedFile]]:
    """What is to be read, and the rows of everything else."""
    tasks: list[_Task] = []
    rows: list[ScannedFile] = []
    in_sequence = {path for images in sequences.values() for path in images}
    for pattern, images in sequences.items():
        size = sum(size_of(raw / path) for path in images)
        tasks.append(_Task(pattern, "sequence", raw / pattern, size, len(images), headers_only, read))
    data = {companion: path for path in found.paths for companion in found.companions(path)}
    for path in found.paths:
        kind = found[path]
        if path in in_sequence:
            continue
        size = 0 if path in found.unreadable else size_of(raw / path)
        if path in data:
            rows.append(ScannedFile(path, kind, "other", f"the data of {data[path]}", size))
        elif found.is_clip(path):
            tasks.append(_task(raw, path, kind, headers_only, read))
        else:
            status = "refused" if path in found.unreadable or kind in ARCHIVE_KINDS else "other"
            rows.append(ScannedFile(path, kind, status, found.why_not_a_clip(path), size))
    for path, reason in found.odd.items():
        rows.append(ScannedFile(path, "unreadable", "refused", reason))
    return tasks, rows


def _look(task: _Task) -> dict[str, Any]:
    """What a worker does with one clip."""
    if task.kind == "sequence" and not _of_one_size(task.raw):
        return {"status": NO_SEQUENCE}
    if not task.headers_only:
        sampling = SamplingRule(rule="rate", hz=3.0)
        result = look_through(task.raw, sampling=sampling, read=task.read, hygiene=Hygiene(), scratch=task.scratch)
        result["kept"] = len(result["kept"])
        del result["excluded"]
        return result
    try:
        with open_clip(task.raw, backend=task.read.backend, scratch=task.scratch) as clip:
            return {"status": "ok", "reason": None, "video": first_facts(clip), "kept": 0}
    except ReadError as error:
        return no_result("failed", without_subject(error)) | {"kept": 0}


def _of_one_size(pattern: Path) -> bool:
    """Whether numbered images are frames of one clip: pictures of different sizes are stills whose names happen to hold numbers."""
    try:
        with as_file(pattern) as images:
            return len(sizes_in_sequence(images)) < 2
    except (ReadError, OSError):  # reading it will give the reason
        return True


def _row(task: _Task, result: dict[str, Any]) -> ScannedFile:
    read = result["status"] != "failed"
    facts = result["video"] if read else None
    wrong = read and _named_wrongly(task.path, task.kind)
    kept = result["kept"] or 0
    # A clip of blank frames alone was read all the same.
    reason = result["reason"]
    return ScannedFile(task.path, task.kind, "clip" if read else "refused", reason, task.bytes, task.images, facts, kept, wrong)


# What a name's ending claims, where it claims one kind.
_CLAIMS = {
    "mp4": "mp4", "m4v": "mp4", "mov": "mp4", "avi": "avi", "mkv": "matroska", "webm": "matroska", "gif": "gif", "wmv": "asf", "asf": "asf",
    "flv": "flv", "ogv": "ogg", "ts": "mpegts", "png": "png", "jpg": "jpeg", "jpeg": "jpeg", "tif": "tiff", "tiff": "tiff", "bmp": "bmp",
    "webp": "webp", "dcm": "dicom", "mha": "metaimage", "mhd": "metaimage", "nrrd": "nrrd", "nii": "nifti", "h5": "hdf5", "hdf5": "hdf5",
}  # fmt: skip


def _named_wrongly(path: str, kind: str) -> bool:
    claimed = _CLAIMS.get(PurePosixPath(path).suffix.lower().lstrip("."))
    return claimed is not None and kind != "sequence" and claimed != kind
