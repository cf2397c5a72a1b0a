"""Results that are files or folders, whole or absent: looked at before the work, made under another name, put in place at its end.

Of what stands at the target nothing is deleted but an earlier result of the same kind, and that only once the new one is whole.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from usdata.errors import UserError


def check_file(out: Path, *, overwrite: bool) -> None:
    """Refuse a target that is taken.

    Raises:
        UserError: It is a folder, or a file and `overwrite` is not set.
    """
    if out.is_dir():
        raise UserError(out, "is a folder, and the result is a file", "name a file with --out")
    if out.exists() and not overwrite:
        raise UserError(out, "exists already and is left as it is", "name another --out, or pass --overwrite")
    _check_parents(out)


def check_folder(out: Path, *, parts: Sequence[str], overwrite: bool) -> None:
    """Refuse a target that is taken.

    Args:
        out: The folder to be made.
        parts: Names of what such a folder holds, the one that marks it first.
        overwrite: Whether an earlier one may be replaced.

    Raises:
        UserError: It is a file, is not empty and may not be replaced, or holds anything that such a folder does not.
    """
    _check_folder(out, parts=parts, overwrite=overwrite)


def _check_folder(out: Path, *, parts: Sequence[str], overwrite: bool, beside: str = "") -> None:
    if out.exists() and not out.is_dir():
        raise UserError(out, "is a file, and the result needs a folder", "name another --out")
    _check_parents(out)
    entries = sorted(entry.name for entry in out.iterdir() if entry.name != beside) if out.is_dir() else []
    if not entries:
        return
    if not overwrite:
        raise UserError(out, "exists already and is left as it is", "name another --out, or pass --overwrite")
    strange = [name for name in entries if name not in parts]
    if parts[0] not in entries or strange:
        reason = f"holds {strange[0]}, which is no part of such a result" if strange else f"holds no {parts[0]}"
        raise UserError(out, f"{reason}, so nothing was deleted", "name another --out")


@contextmanager
def whole_folder(out: Path, *, parts: Sequence[str], overwrite: bool) -> Iterator[Path]:
    """An empty folder that becomes `out` when the block ends well, and vanishes when it does not.

    It lies beside `out`; where that is a folder that must stay the one it is (a mounted one, the working folder, one in a folder that may
    not be written) it lies in it, and its parts move there at the end, the one that marks a whole result last.

    Args and errors as in `check_folder`, which is asked again before anything is replaced.
    """
    target = out.resolve()
    stays = _stays(target)
    place = target if stays else target.parent
    place.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=place, prefix=f".{target.name}.", suffix=".part"))
    try:
        making.chmod(0o755)
        yield making
        _check_folder(out, parts=parts, overwrite=overwrite, beside=making.name)
        if stays:
            _move_parts(making, target, parts)
        elif target.is_dir():
            _exchange(making, target)
        else:
            making.replace(target)
    except OSError as error:
        # What the caller knows it by: the folder under the other name is gone by now, and a write names nothing.
        unnamed = error.filename is None and error.errno is not None
        if unnamed or (error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(making)):
            error.filename = str(out)
        raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _stays(target: Path) -> bool:
    """Whether a folder cannot be exchanged for another one."""
    if not target.is_dir():
        return False
    working = Path.cwd().is_relative_to(target)
    return working or os.path.ismount(target) or not os.access(target.parent, os.W_OK)


def _exchange(making: Path, target: Path) -> None:
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".old"))
    try:
        target.replace(aside)  # a folder replaces an empty one
    except OSError:
        aside.rmdir()
        raise
    making.replace(target)
    shutil.rmtree(aside)


def _move_parts(making: Path, target: Path, parts: Sequence[str]) -> None:
    for name in parts:
        if (target / name).is_dir():
            shutil.rmtree(target / name)
        else:
            (target / name).unlink(missing_ok=True)
    for name in (*parts[1:], parts[0]):
        if (making / name).exists():
            (making / name).replace(target / name)


def _check_parents(out: Path) -> None:
    place = next(folder for folder in out.absolute().parents if folder.exists())
    if not place.is_dir():
        raise UserError(out, f"cannot be made, because {place.name} is a file", "name another --out")
