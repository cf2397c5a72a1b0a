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
    if out.exists() and not out.is_dir():
        raise UserError(out, "is a file, and the result needs a folder", "name another --out")
    _check_parents(out)
    entries = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else []
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
    """An empty folder beside `out` that becomes it when the block ends well, and vanishes when it does not.

    Args and errors as in `check_folder`, which is asked again before anything is replaced.
    """
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}.", suffix=".part"))
    try:
        making.chmod(0o755)
        yield making
        check_folder(out, parts=parts, overwrite=overwrite)
        if out.is_dir():
            aside = Path(tempfile.mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}.", suffix=".old"))
            out.replace(aside)  # a folder replaces an empty one
            making.replace(out)
            shutil.rmtree(aside)
        else:
            making.replace(out)
    except OSError as error:
        # What the caller knows it by: the folder under the other name is gone by now, and a write names nothing.
        unnamed = error.filename is None and error.errno is not None
        if unnamed or (error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(making)):
            error.filename = str(out)
        raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _check_parents(out: Path) -> None:
    place = next(folder for folder in out.absolute().parents if folder.exists())
    if not place.is_dir():
        raise UserError(out, f"cannot be made, because {place.name} is a file", "name another --out")
