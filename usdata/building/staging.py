"""The folder where a data set is made, and how it takes the place of one that stands: whole or not at all.

`.SET.building` beside the target, for one build alone. Each finished clip is journalled in its `.steps`, so a build that was stopped goes
on where it was; the journals stay in the finished set, so that a build of another recipe, or of more files, takes over every step that
is still the same.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from usdata import manifest
from usdata.errors import UserError
from usdata.files import canonical_json, sha256_file, sha256_text, write_text
from usdata.video_step import VideoTask

STEPS = ".steps"
OVERWRITE = "give another --out, or --overwrite to replace it"
CONTRACT_NAMES = {*manifest.SCHEMAS, manifest.DATASET_JSON, "images", *manifest.REPORT_FILES, manifest.CROISSANT_JSON, ".cache", STEPS}


def refuse_nested(raw: Path, out: Path) -> None:
    """Refuse a target in the folder of raw clips, or around it."""
    target, source = out.resolve(), raw.resolve()
    if target == source or source in target.parents:
        raise UserError(out, "lies inside the folder of raw clips", "give an --out outside of it: raw data is only ever read")
    if target in source.parents:
        raise UserError(out, "holds the folder of raw clips", "give an --out that does not: an old data set there would be replaced")


def refuse_occupied(out: Path) -> None:
    """Refuse a target that is no data set, or holds more than one: with --overwrite too, for nothing that was not made here may vanish."""
    if out.exists() and not out.is_dir():
        raise UserError(out, "is a file, not a folder", "give another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / manifest.DATASET_JSON).is_file():
        raise UserError(out, "is not empty and is not a data set", "give another --out, or empty the folder yourself")
    if foreign := sorted(path.name for path in out.iterdir() if path.name not in CONTRACT_NAMES):
        raise UserError(out, f"holds '{foreign[0]}' beside its data set", "move it elsewhere, or give another --out")


@contextmanager
def locked(staging: Path) -> Iterator[None]:
    """The staging folder, for this build alone; the lock ends with the process, however that ends."""
    staging.mkdir(parents=True, exist_ok=True)
    handle = os.open(staging, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A build that ended between our opening and our locking has renamed the folder away.
            ours = os.path.samestat(os.fstat(handle), staging.stat())
        except OSError:
            ours = False
        if not ours:
            raise UserError(staging, "another build of this data set is running", "wait for it, or give another --out")
        yield
    finally:
        os.close(handle)


def existing(out: Path) -> dict[str, Any] | None:
    """What stands at the target says of itself; None where nothing readable does."""
    try:
        return manifest.open_dataset(out).about if (out / manifest.DATASET_JSON).is_file() else None
    except UserError:
        return None


def is_whole(out: Path, about: Mapping[str, Any]) -> bool:
    """Whether the tables are those that were written and every image is there."""
    if any(not (out / name).is_file() for name in manifest.SCHEMAS) or manifest.tables_digest(out) != about["digest"]:
        return False
    paths = manifest.read_table(out, manifest.FRAMES).column("path").to_pylist()
    videos = manifest.read_table(out, manifest.VIDEOS)
    beside = [path for column in ("key_frames_path", "overlay_path") for path in videos.column(column).to_pylist() if path is not None]
    return all((out / path).is_file() for path in (*paths, *beside))


def journal_name(video_id: str) -> str:
    """The file name of a clip's journal, whatever its id holds."""
    return f"{sha256_text(video_id)[:32]}.json"


def journalled(task: VideoTask) -> dict[str, Any] | None:
    """The finished step of an interrupted build, if its settings are still these and its images are what was written."""
    return _finished(task, task.journal, task.images)


def taken_over(task: VideoTask, standing: Path) -> dict[str, Any] | None:
    """A finished step of the data set that stands, made the new one's own: its images are linked, or copied where links cannot be.

    None where its settings are other ones, or its images are not what was written.
    """
    images = standing / task.images_path
    finished = _finished(task, standing / STEPS / task.journal.name, images)
    if finished is None:
        return None
    task.journal.unlink(missing_ok=True)
    shutil.rmtree(task.images, ignore_errors=True)
    if finished["images"]:
        task.images.parent.mkdir(parents=True, exist_ok=True)
        # Hidden, so that what a kill leaves of it is removed with the strays.
        copies = Path(tempfile.mkdtemp(dir=task.images.parent, prefix=".part-"))
        for name in finished["images"]:
            try:
                os.link(images / name, copies / name)
            except OSError:
                shutil.copyfile(images / name, copies / name)
        copies.chmod(0o755)
        copies.rename(task.images)
    write_text(task.journal, canonical_json(finished))
    return finished


def _finished(task: VideoTask, journal: Path, images: Path) -> dict[str, Any] | None:
    try:
        finished = json.loads(journal.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    if not isinstance(finished, dict) or finished.get("key") != task.key:
        return None
    for name, digest in finished["images"].items():
        path = images / name
        if not path.is_file() or sha256_file(path) != digest:
            return None
    return finished


def adds_only(about: Mapping[str, Any], out: Path, input_key: str, hashes: Mapping[str, tuple[str, int]]) -> bool:
    """Whether the raw files are those of the data set that stands, unchanged, and further ones; recipe and decoders being the same."""
    if about.get("input_key") != input_key or not is_whole(out, about):
        return False
    videos = manifest.read_table(out, manifest.VIDEOS).select(["path", "sha256"]).to_pylist()
    read = [row for row in videos if row["sha256"] is not None]  # what was missing or unreadable may have come
    return all(row["path"] in hashes and hashes[row["path"]][0] == row["sha256"] for row in read)


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Say in one line what the file system refused: a full disk or a target that cannot be written is nobody's fault of ours.

    Raises:
        UserError: Writing failed for such a reason. What was finished stays in the staging folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            advice = "free some space and run the same command again: finished clips are kept, a data set that stood here is untouched"
            raise UserError(out, f"no space is left for it ({os.strerror(error.errno)})", advice) from error
        if error.errno in _FORBIDDEN and _is_about(error, out):
            raise UserError(
                out, f"cannot be written ({os.strerror(error.errno)})", "give another --out, or mend the permissions"
            ) from error
        raise


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}


def _is_about(error: OSError, out: Path) -> bool:
    """Whether an error names the target or something in or around it; one of a raw file is another matter."""
    return error.filename is None or str(error.filename).startswith(str(out.parent)) or str(out).startswith(str(error.filename))


def recover(out: Path) -> None:
    """Clear up after a build that was killed while it replaced a data set: the old one comes back where the new one had not come yet."""
    old = _replaced(out)
    if not old.is_dir():
        return
    if out.exists():
        shutil.rmtree(old)
    else:
        old.rename(out)


def _replaced(out: Path) -> Path:
    return out.parent / f".{out.name}.replaced"


def remove_strays(folder: Path, kept: Iterable[str], journalled_too: Iterable[str] = ()) -> None:
    """Whatever earlier, interrupted builds left in the staging folder: half-written files, and clips of another recipe.

    Args:
        folder: The staging folder.
        kept: video_id of every clip whose pictures stay.
        journalled_too: Likewise of those whose journals stay.
    """
    for path in folder.iterdir():
        if path.name not in CONTRACT_NAMES:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    wanted = {f"images/{video_id}" for video_id in kept}
    for source in (folder / "images").glob("*"):
        for video in source.iterdir():
            if f"images/{source.name}/{video.name}" not in wanted:
                shutil.rmtree(video)
        if not any(source.iterdir()):
            source.rmdir()
    journals = {journal_name(video_id) for video_id in journalled_too}
    for journal in (folder / STEPS).glob("*"):
        if journal.name not in journals:
            journal.unlink()


def put_in_place(staging: Path, out: Path) -> None:
    """Rename the finished folder; a data set that stood there goes only when the new one stands.

    Where the system can exchange two folders in one step, a data set stands at `out` at every moment.
    """
    if not out.exists() or not any(out.iterdir()):
        if out.exists():
            out.rmdir()
        staging.rename(out)
        return
    old = _replaced(out)
    shutil.rmtree(old, ignore_errors=True)
    if _exchange(staging, out):
        staging.rename(old)
    else:
        out.rename(old)
        staging.rename(out)
    shutil.rmtree(old)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from Linux' fcntl.h and fs.h
