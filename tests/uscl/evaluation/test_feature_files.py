"""Features kept on disk: the same again, and never those of something else or half a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.uscl.evaluation.texture_set import write_texture_set
from uscl.backbones import seeded_backbone
from uscl.evaluation import feature_files, features
from uscl.evaluation.feature_files import PATTERN, read_features, write_features
from uscl.frames import open_store
from usdata.manifest import open_dataset

ABOUT = {"weights_sha256": "w", "rows_sha256": "r", "shape": [3, 4]}
FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_what_was_kept_comes_back_and_nothing_else(tmp_path: Path) -> None:
    assert read_features(tmp_path, ABOUT) is None
    write_features(tmp_path, ABOUT, FEATURES)
    found = read_features(tmp_path, ABOUT)
    assert found is not None
    np.testing.assert_array_equal(found, FEATURES)
    for key, value in (("weights_sha256", "v"), ("rows_sha256", "s"), ("shape", [4, 3])):
        assert read_features(tmp_path, ABOUT | {key: value}) is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_ignored_with_a_line(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_features(tmp_path, ABOUT, FEATURES)
    path = next(tmp_path.glob(PATTERN))
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-5]
    elif damage == "flipped":
        data[-1] ^= 1
    elif damage == "empty":
        data = bytearray()
    else:
        other = tmp_path / "other"
        write_features(other, ABOUT | {"weights_sha256": "v"}, FEATURES + 1)
        data = bytearray(next(other.glob(PATTERN)).read_bytes())
    path.write_bytes(data)
    assert read_features(tmp_path, ABOUT) is None
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "computed anew" in told


def test_the_oldest_go_when_they_outgrow_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_features(tmp_path, ABOUT, FEATURES)
    size = next(tmp_path.glob(PATTERN)).stat().st_size
    monkeypatch.setattr(feature_files, "LIMIT_BYTES", 2 * size + 20)
    os.utime(next(tmp_path.glob(PATTERN)), (1, 1))
    for number, name in enumerate("ab"):
        write_features(tmp_path, ABOUT | {"weights_sha256": name}, FEATURES)
        if number == 0:
            assert read_features(tmp_path, ABOUT) is not None
    assert read_features(tmp_path, ABOUT) is None
    assert len(list(tmp_path.glob(PATTERN))) == 2


def test_a_place_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_features(tmp_path / "file", ABOUT, FEATURES)
    assert read_features(tmp_path / "file", ABOUT) is None


def test_a_second_process_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(open_dataset(write_texture_set(tmp_path / "set", textures=("across", "down"))), size=32)
    rows = np.arange(8)
    first = features.pooled_features(seeded_backbone("resnet18", 0), store, rows, name="w")
    monkeypatch.setattr(features, "_CACHE", type(features._CACHE)())
    forward = features._forward
    monkeypatch.setattr(features, "_forward", None)
    np.testing.assert_array_equal(features.pooled_features(seeded_backbone("resnet18", 0), store, rows, name="w"), first)
    with pytest.raises(TypeError):
        features.pooled_features(seeded_backbone("resnet18", 1), store, rows, name="other weights")
    with pytest.raises(TypeError):
        features.pooled_features(seeded_backbone("resnet18", 0), store, rows[::-1].copy(), name="other rows")
    monkeypatch.setattr(features, "_forward", forward)
    next(store.path.parent.glob(PATTERN)).write_bytes(b"half")
    monkeypatch.setattr(features, "_CACHE", type(features._CACHE)())
    np.testing.assert_array_equal(features.pooled_features(seeded_backbone("resnet18", 0), store, rows, name="w"), first)
