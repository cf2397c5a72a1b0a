"""`uscl embed`, `fit`, `predict` and `export` as typed: results on stdout, one line and exit code 2 for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.uscl.evaluation.texture_set import write_texture_set
from uscl.cli import app


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texture_set(tmp_path_factory.mktemp("commands") / "set", textures=("across", "down") * 2)


def typed(*words: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_whole_way(textures: Path, tmp_path: Path) -> None:
    size = ("--image-size", "40")
    code, said, _ = typed("embed", textures, "--weights", "random", "--out", tmp_path / "e.parquet", *size, "--json")
    assert (code, json.loads(said)["frames"]) == (0, 16)
    code, said, _ = typed("fit", textures, "--weights", "random", "--out", tmp_path / "model", *size)
    assert (code, said.splitlines()[0]) == (0, f"2 classes, fitted on 16 frames of 4 clips: {tmp_path / 'model'}")
    code, said, talk = typed("predict", textures, "--model", tmp_path / "model", "--out", tmp_path / "predictions", "--json")
    assert (code, json.loads(said)["videos_not_new"]) == (0, 4)
    assert "4 of 4 clips are not new" in talk
    code, said, _ = typed("export", "random", "--format", "safetensors", "--out", tmp_path / "weights", *size)
    assert (code, said) == (0, f"{tmp_path / 'weights'}: README.md, backbone.safetensors\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("embed", "SET", "--weights", "gone", "--out", "x"), "no such weights"),
        (("fit", "SET", "--weights", "random", "--out", "x", "--where", "labl=across"), "did you mean 'label'"),
        (("predict", "SET", "--model", "gone", "--out", "x"), "uscl fit"),
        (("export", "gone", "--format", "onnx", "--out", "x"), "no such weights"),
    ],
)
def test_mistakes(words: tuple[str, ...], said: str, textures: Path, tmp_path: Path) -> None:
    places = {"SET": textures, "gone": tmp_path / "gone", "x": tmp_path / "x"}
    code, out, talk = typed(*(places.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert talk.count("\n") == 1
    assert talk.startswith("error: ")
    assert said in talk
    assert not list(tmp_path.iterdir())
