"""Results that are whole or absent: what a full disk says of them, and what stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import typer

from uscl.whole_folder import whole_folder
from usdata.console import one_line_errors
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
