"""Atomic writing: whole or not at all."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
import typer

from usdata.console import one_line_errors
from usdata.files import atomic, canonical_json, sha256_file, write_json


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with atomic(target) as temporary:
        temporary.write_text("old")

    def fail_halfway() -> None:
        with atomic(target) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fail_halfway()
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_json_and_digests(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "a": "ü",\n  "b": 1\n}\n'
    assert canonical_json({"b": [1.5, None], "a": True}) == '{"a":true,"b":[1.5,null]}'
    (tmp_path / "big").write_bytes(b"x" * 3_000_000)
    assert sha256_file(tmp_path / "big") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_full_disk_names_the_file_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @one_line_errors
    def full() -> None:
        with atomic(tmp_path / "page.html") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(typer.Exit) as caught:
        full()
    assert caught.value.exit_code == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/page.html: no space is left for it; free some or name another place; nothing half-written stays\n"
    )
    assert not list(tmp_path.iterdir())
