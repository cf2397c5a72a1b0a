"""`uscl doctor`: the machine as it is, and machines that lack something."""

from __future__ import annotations

import json
import shutil
import sys
from collections import namedtuple

import pytest
import torch
from typer.testing import CliRunner

from uscl import doctor
from uscl.cli import app


def told(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def rows() -> dict[str, dict[str, str]]:
    return {row["what"]: row for row in json.loads(told("--json"))["abilities"]}


def test_this_machine_by_its_own_torch() -> None:
    found = json.loads(told("--json"))
    assert found["machine"]["torch"] == torch.__version__
    assert ("cuda:0" in found["machine"]["devices"]) == torch.cuda.is_available()
    states = {row["what"]: row["state"] for row in found["abilities"]}
    assert states["training on a GPU"] == ("ok" if torch.cuda.is_available() else "missing")
    assert states["torchvision"] == states["precision=bfloat16"] == states["threads that prepare batches"] == "ok"
    assert all(row["advice"] for row in found["abilities"] if row["state"] != "ok")


def test_it_fits_80_columns_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    text = told()
    assert max(map(len, text.splitlines())) <= 80
    for extra in ("timm", "onnx", "tensorboard", "ray"):
        assert f"pip install 'usdata-uscl[{extra}]'" in " ".join(text.split())


def test_a_broken_torch_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = rows()
    assert found["torch"]["state"] == "broken"
    assert "ModuleNotFoundError" in found["torch"]["advice"]
    assert "uscl export --format onnx" in found  # the rest is told all the same


def test_a_bfloat16_that_computes_wrongly_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.nn.functional.conv2d

    def wrong(pictures: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return plain(pictures, weights) * (1.1 if torch.is_autocast_enabled("cpu") else 1.0)

    monkeypatch.setattr(torch.nn.functional, "conv2d", wrong)
    assert rows()["precision=bfloat16"]["state"] == "broken"


def test_little_space_and_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**10, 9 * 10**9, 10**9))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = rows()
    assert found["runs, in the working folder"]["state"] == "little"
    assert found["runs, in the working folder"]["by"] == "1.0 GB free"
    if not torch.cuda.is_available():
        assert found["compile=model, compile=step"]["state"] == "missing"
