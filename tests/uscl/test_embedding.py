"""`uscl embed`: the features are those of torchvision's network, in the manifest's order, and the file is whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import cv2
import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from tests.uscl.evaluation.texture_set import write_texture_set
from tests.uscl.tiny_set import write_set
from uscl import embedding
from uscl.backbones import Backbone, seeded_backbone
from uscl.embedding import embed
from uscl.torchvision_compat import torchvision
from usdata.errors import Stopped, UserError
from usdata.manifest import open_dataset

SIZE = 40


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips of other sizes than the network's pictures, 45 frames, two of the clips labelled."""
    folder = tmp_path_factory.mktemp("embedding") / "set"
    return write_set(folder, frames_per_video=(9, 4, 7, 1, 8, 6, 10), labels=("a", None, None, "b", None, None, None))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    save_file({name: value.contiguous() for name, value in seeded_backbone("resnet18", 3).state_dict().items()}, path)
    return path


def of_torchvision(frames: pd.DataFrame, folder: Path) -> np.ndarray:
    """What torchvision's own network makes of the pictures, read and resized here."""
    network = torchvision.models.resnet18(weights=None)
    network.load_state_dict(seeded_backbone("resnet18", 3).state_dict(), strict=False)
    network.fc = torch.nn.Identity()
    pictures = [cv2.imread(str(folder / path), cv2.IMREAD_GRAYSCALE) for path in frames["path"]]
    gray = np.stack([cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for picture in pictures])
    with torch.no_grad():
        features: np.ndarray = network.eval()((torch.from_numpy(gray).float() / 255 - 0.5)[:, None].repeat(1, 3, 1, 1) / 0.25).numpy()
    return features


def test_features_are_those_of_torchvisions_network(
    unlabelled: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "BLOCK_ROWS", 32)
    result = embed(unlabelled, weights=weights, out=tmp_path / "new" / "features.parquet", image_size=SIZE)
    frames = open_dataset(unlabelled).frames
    assert (result.frames, result.width, result.image_size) == (45, 512, SIZE)

    table = pd.read_parquet(result.out)
    assert list(table.columns) == ["frame_id", "video_id", "source", "group_id", "frame_index", "label", "features"]
    for column in table.columns[:-1]:
        assert table[column].astype(object).where(table[column].notna(), None).tolist() == (
            frames[column].astype(object).where(frames[column].notna(), None).tolist()
        )
    found = np.stack(table["features"].to_list())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, of_torchvision(frames, unlabelled), rtol=1e-4, atol=1e-5)

    opened = datasets.load_dataset("parquet", data_files=str(result.out), cache_dir=str(tmp_path / "cache"))["train"]
    assert opened.features["features"].length == 512
    np.testing.assert_array_equal(np.array(opened["features"][:], dtype=np.float32), found)

    file = pq.ParquetFile(result.out)
    assert file.num_row_groups == 2
    metadata = {key.decode(): value.decode() for key, value in file.schema_arrow.metadata.items() if key.startswith(b"uscl.")}
    assert metadata["uscl.dataset_digest"] == open_dataset(unlabelled).digest
    assert metadata["uscl.image_size"] == str(SIZE)
    about = json.loads(metadata["uscl.weights"])
    assert about["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert about["weights_sha256"] == metadata["uscl.weights_sha256"]
    assert not any(str(weights.parent) in value for value in metadata.values())


def test_threads_change_no_byte(unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what decides about the last bits of a sum: how many frames pass at once, and how many threads share a pass."""
    forward = Backbone.__call__
    passes: list[tuple[int, int]] = []

    def watched(self: Backbone, frames: torch.Tensor) -> torch.Tensor:
        passes.append((len(frames), torch.get_num_threads()))
        time.sleep(0.3 if len(passes) == 1 else 0)  # the first pass is done last
        return forward(self, frames)

    monkeypatch.setattr(Backbone, "__call__", watched)
    files, found = [], []
    before = torch.get_num_threads()
    for threads in (1, 3):
        files.append(embed(unlabelled, weights="random", out=tmp_path / f"{threads}.parquet", image_size=SIZE, threads=threads).out)
        found.append(sorted(passes))
        passes.clear()
    assert files[0].read_bytes() == files[1].read_bytes()
    assert found == [[(13, 1), (16, 1), (16, 1)]] * 2
    assert torch.get_num_threads() == before


def test_filters_and_precision(unlabelled: Path, tmp_path: Path) -> None:
    whole = pd.read_parquet(embed(unlabelled, weights="random", out=tmp_path / "whole.parquet", image_size=SIZE).out)
    some = pd.read_parquet(embed(unlabelled, weights="random", out=tmp_path / "some.parquet", image_size=SIZE, where=["label="]).out)
    kept = whole[whole["label"].isna()]
    assert some["frame_id"].tolist() == kept["frame_id"].tolist()
    exact, kept_exact = (np.stack(table["features"].to_list()) for table in (some, kept))
    np.testing.assert_allclose(exact, kept_exact, rtol=1e-4, atol=1e-5)
    half = pd.read_parquet(
        embed(unlabelled, weights="random", out=tmp_path / "half.parquet", image_size=SIZE, where=["label="], precision="bfloat16").out
    )
    rough = np.stack(half["features"].to_list())
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("how", ["error", "signal"])
def test_what_is_interrupted_leaves_nothing(how: str, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "BLOCK_ROWS", 16)
    forward, calls = Backbone.__call__, 0

    def fail(self: Backbone, frames: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            if how == "error":
                raise OSError("no such luck")
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, frames)

    monkeypatch.setattr(Backbone, "__call__", fail)
    (tmp_path / "features.parquet").write_bytes(b"earlier")
    with pytest.raises((OSError, Stopped)):
        embed(unlabelled, weights="random", out=tmp_path / "features.parquet", image_size=SIZE, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["features.parquet"]
    assert (tmp_path / "features.parquet").read_bytes() == b"earlier"


def test_mistakes(unlabelled: Path, tmp_path: Path) -> None:
    (tmp_path / "taken.parquet").write_bytes(b"precious")
    mistakes: list[tuple[dict[str, object], str]] = [
        ({"out": tmp_path / "taken.parquet"}, "exists already.*--overwrite"),
        ({"out": tmp_path}, "is a folder"),
        ({"out": tmp_path / "taken.parquet" / "x"}, "taken.parquet is a file"),
        ({"weights": tmp_path / "gone"}, "no such weights"),
        ({"image_size": 8}, "--image-size 8: is too small"),
        ({"precision": "float61"}, "did you mean"),
        ({"where": ["labl=a"]}, "no column 'labl'.*did you mean 'label'"),
        ({"where": ["label=c"]}, "leaves no frame; 'label' holds: a, b"),
    ]
    for changed, said in mistakes:
        settings = {"weights": "random", "out": tmp_path / "x.parquet", "image_size": SIZE} | changed
        with pytest.raises(UserError, match=said):
            embed(unlabelled, **settings)  # type: ignore[arg-type]
        assert not (tmp_path / "x.parquet").exists()
    assert (tmp_path / "taken.parquet").read_bytes() == b"precious"


def test_a_damaged_picture_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    folder = write_texture_set(tmp_path / "set", textures=("across", "down"))
    path = sorted((folder / "images").rglob("*.png"))[0]
    path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=f"{path.name}.*damaged"):
        embed(folder, weights="random", out=tmp_path / "features.parquet", image_size=SIZE)
    assert not list(tmp_path.glob("*.parquet*"))
