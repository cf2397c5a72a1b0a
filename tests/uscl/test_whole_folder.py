"""Results that are whole or absent: what a full disk says of them, and what stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import typer

from uscl.whole_folder import whole_folder
from usdata.console import one_line_errors
from usdata.errors import UserError
from usdata.files import atomic


@pytest.mark.parametrize("how", ["by a file of it", "by a write", "through a file under another name"])
def test_a_full_disk_names_the_folder_that_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    out = tmp_path / "export"
    full = (errno.ENOSPC, os.strerror(errno.ENOSPC))

    @one_line_errors
    def command() -> None:
        with whole_folder(out, parts=("model.safetensors",), overwrite=False) as folder:
            if how == "by a file of it":
                raise OSError(*full, str(folder / "model.safetensors"))
            if how == "by a write":
                raise OSError(*full)
            with atomic(folder / "model.safetensors"):
                raise OSError(*full)

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 2
    said = capsys.readouterr().err
    assert said == f"error: {out}: no space is left for it; free some or name another place; nothing half-written stays\n"
    assert list(tmp_path.iterdir()) == []


def test_errors_about_other_files_keep_their_names(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, whole_folder(tmp_path / "out", parts=("a",), overwrite=False):
        (tmp_path / "weights.pth").read_bytes()
    assert caught.value.filename == str(tmp_path / "weights.pth")


@pytest.mark.parametrize("how", ["the working folder", "a mounted folder", "a link"])
def test_a_folder_that_must_stay_gets_the_parts_and_keeps_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Finished work is not lost at its end because a folder cannot be exchanged."""
    folder = tmp_path / "out"
    folder.mkdir()
    inode = folder.stat().st_ino
    out = folder
    if how == "the working folder":
        monkeypatch.chdir(folder)
        out = Path()
    elif how == "a mounted folder":
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)
    else:
        out = tmp_path / "link"
        out.symlink_to(folder)
    for number in range(2):
        with whole_folder(out, parts=("marks.json", "table", "masks"), overwrite=number > 0) as making:
            for name in ("marks.json", *([] if number else ["table"])):
                (making / name).write_text(str(number))
            (making / "masks").mkdir()
            (making / "masks" / f"{number}.png").write_text("")
        # Of the first result nothing is left.
        found = {path.relative_to(folder).as_posix(): path.is_file() and path.read_text() for path in folder.rglob("*")}
        expected = {"marks.json": str(number), "masks": False, f"masks/{number}.png": ""} | ({} if number else {"table": "0"})
        assert found == expected
    assert out.is_symlink() if how == "a link" else folder.stat().st_ino == inode
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(UserError, match="exists already"), whole_folder(out, parts=("marks.json", "masks"), overwrite=False):
        pass
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"holds thesis\.tex"), whole_folder(out, parts=("marks.json", "masks"), overwrite=True):
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["marks.json", "masks", "thesis.tex"]
