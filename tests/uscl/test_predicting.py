"""`uscl fit` and `uscl predict`: heads against scikit-learn and brute force, clips told of that are not new, folders whole or absent."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.uscl.evaluation.texture_set import write_texture_set
from uscl import classifier, embedding
from uscl.backbones import Backbone, seeded_backbone
from uscl.classifier import open_classifier
from uscl.embedding import embed
from uscl.evaluation import finetune
from uscl.fitting import fit
from uscl.frames import open_store
from uscl.predicting import predict
from usdata.duplicates.record import open_record
from usdata.errors import UserError
from usdata.manifest import open_dataset

SIZE = 40
KINDS = ("across", "down", "blotches")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texture_set(tmp_path_factory.mktemp("fit") / "set", textures=KINDS * 4, frames_per_video=5)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other clips of other groups, some without a label; two of them are of groups that stand in the labelled set."""
    groups = ["group03", "group04", "new0", "new1", "new2", "new3"]
    labels = ["across", "down", None, None, "down", "blotches"]
    folder = tmp_path_factory.mktemp("fit") / "others"
    return write_texture_set(folder, textures=KINDS * 2, labels=labels, groups=groups, frames_per_video=3, prefix="other", size=48)


@pytest.fixture(scope="module")
def features(labelled: Path, others: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("features")
    first, second = (
        pd.read_parquet(embed(path, weights="random", out=folder / f"{path.name}.parquet", image_size=SIZE).out)
        for path in (labelled, others)
    )
    return first, second


def stacked(table: pd.DataFrame) -> np.ndarray:
    return np.stack(table["features"].to_list()).astype(np.float64)


def probabilities(table: pd.DataFrame, classes: list[str]) -> np.ndarray:
    return table[[f"probability_{name}" for name in classes]].to_numpy()


@pytest.mark.parametrize("classes", [list(KINDS), ["across", "down"]])
def test_the_linear_head_is_scikit_learns(
    classes: list[str], labelled: Path, others: Path, features: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    found = fit(labelled, weights="random", out=tmp_path / "model", image_size=SIZE, classes=classes)
    names = sorted(classes)
    assert found.about["classes"] == names
    result = predict(others, model=tmp_path / "model", out=tmp_path / "predictions")
    train, test = features
    train = train[train["label"].isin(classes)]
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000)).fit(stacked(train), train["label"])
    expected = oracle.predict_proba(stacked(test))
    table = pd.read_parquet(result.out / "frames.parquet")
    assert list(oracle.classes_) == names
    np.testing.assert_allclose(probabilities(table, names), expected, atol=1e-6)
    assert table["predicted"].tolist() == oracle.predict(stacked(test)).tolist()
    assert table["frame_id"].tolist() == test["frame_id"].tolist()
    assert table["label"].isna().tolist() == test["label"].isna().tolist()


def test_a_clip_is_the_mean_of_its_frames_and_what_is_not_new_is_told(
    labelled: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embedding, "BLOCK_ROWS", 16)
    monkeypatch.setattr("uscl.predicting.BLOCK_ROWS", 16)
    fit(labelled, weights="random", out=tmp_path / "model", image_size=SIZE)
    result = predict(others, model=tmp_path / "model", out=tmp_path / "predictions")
    frames, videos = (pd.read_parquet(result.out / f"{name}.parquet") for name in ("frames", "videos"))
    names = sorted(KINDS)
    means = frames.groupby("video_id")[[f"probability_{name}" for name in names]].mean()
    np.testing.assert_allclose(probabilities(videos.set_index("video_id").loc[means.index], names), means.to_numpy(), atol=1e-12)
    assert videos["frames"].tolist() == [3] * 6
    assert videos["predicted"].tolist() == [names[place] for place in means.to_numpy().argmax(axis=1)]
    assert [None if pd.isna(kind) else kind for kind in videos["overlap"]] == ["group", "group", None, None, None, None]
    assert videos["overlap_in"].tolist()[:2] == ["textures"] * 2
    about = json.loads((result.out / "predictions.json").read_text())
    assert (about["frames"], about["videos"], about["videos_not_new"]) == (18, 6, 2)
    assert about["videos_by_class"] == {name: videos["predicted"].tolist().count(name) for name in names}
    assert "2 of 6 clips are not new" in about["notes"][0]
    assert "2 of 6 clips are not new" in capsys.readouterr().err

    shutil.copytree(tmp_path / "model", tmp_path / "copied")
    (tmp_path / "copied" / "trained_on.parquet").unlink()
    copied = predict(others, model=tmp_path / "copied", out=tmp_path / "elsewhere", where=["label="])
    assert "came without its trained_on.parquet" in copied.about["notes"][0]
    assert copied.about["frames"] == 6
    assert predict(others, model=tmp_path / "model", out=tmp_path / "no", compare=False).about["videos_not_new"] == 0


def test_neighbours_vote_by_likeness(labelled: Path, others: Path, features: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    fit(labelled, weights="random", out=tmp_path / "model", head="knn", image_size=SIZE)
    result = predict(others, model=tmp_path / "model", out=tmp_path / "predictions")
    train, test = features
    rows = []
    for feature in stacked(test):
        likeness = [feature @ other / (np.linalg.norm(feature) * np.linalg.norm(other)) for other in stacked(train)]
        votes = dict.fromkeys(sorted(KINDS), 0.0)
        for place in np.argsort(likeness)[::-1][:20]:
            votes[train["label"].iloc[place]] += float(np.exp(likeness[place] / 0.07))
        rows.append(np.array(list(votes.values())) / sum(votes.values()))
    table = pd.read_parquet(result.out / "frames.parquet")
    np.testing.assert_allclose(probabilities(table, sorted(KINDS)), rows, atol=1e-4)


@pytest.mark.parametrize("layers", ["last-block", pytest.param("all", marks=pytest.mark.slow)])
def test_a_fine_tuned_network_is_kept_whole(layers: str, labelled: Path, tmp_path: Path) -> None:
    """Read back, it says of the frames that it was trained on what the evaluator's fine-tuning says of them right after the training."""
    settings = {"head": "finetune", "image_size": SIZE, "epochs": 2, "trained_layers": layers}
    fit(labelled, weights="random", out=tmp_path / "model", **settings)  # type: ignore[arg-type]
    result = predict(labelled, model=tmp_path / "model", out=tmp_path / "predictions", compare=False)
    dataset, backbone = open_dataset(labelled), seeded_backbone("resnet18", 0)
    store, rows = open_store(dataset, size=SIZE), np.arange(60)
    labels = np.array([sorted(KINDS).index(label) for label in dataset.frames["label"]])
    training = replace(finetune.HONEST, epochs=2, trained_layers=layers, views="light" if layers == "all" else "whole")  # type: ignore[arg-type]
    inputs = finetune.prepare_inputs(backbone, store, rows, training, name="random")
    seed = (0, 0)
    found = finetune.finetune(backbone.cpu(), inputs, labels, rows, rows, class_count=3, training=training, seed=seed)
    expected = found.probabilities[0]
    table = pd.read_parquet(result.out / "frames.parquet")
    np.testing.assert_allclose(probabilities(table, sorted(KINDS)), expected, atol=0.01)  # activations are kept in half precision
    start, tuned = seeded_backbone("resnet18", 0).tensors(), open_classifier(tmp_path / "model").backbone.tensors()
    changed = {name.partition(".")[0] for name, value in start.items() if not torch.equal(value, tuned[name])}
    if layers == "last-block":
        assert all(name.startswith("layer4.1.") for name, value in start.items() if not torch.equal(value, tuned[name]))
    assert changed == ({"layer4"} if layers == "last-block" else {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"})


def test_equal_input_gives_equal_files_and_nothing_that_runs(labelled: Path, others: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        fit(labelled, weights="random", out=tmp_path / name, image_size=SIZE)
        predict(others, model=tmp_path / name, out=tmp_path / f"{name}-predictions")
    for folder in ("", "-predictions"):
        first, second = tmp_path / f"first{folder}", tmp_path / f"second{folder}"
        names = sorted(path.name for path in first.iterdir())
        assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [
        "README.md",
        "model.json",
        "model.safetensors",
        "trained_on.parquet",
    ]
    with safe_open(tmp_path / "first" / "model.safetensors", framework="pt") as opened:
        assert {name.partition(".")[0] for name in opened.keys()} == {"backbone", "head"}  # noqa: SIM118
    assert len(open_record(tmp_path / "first" / "trained_on.parquet").rows) == 12
    card = (tmp_path / "first" / "README.md").read_text()
    assert "60 frames of 12 clips in 12 groups" in card
    assert "Not a medical device" in card
    assert str(tmp_path) not in card + (tmp_path / "first" / "model.json").read_text()


def test_an_earlier_result_is_replaced_once_the_new_one_is_whole(
    labelled: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(labelled, weights="random", out=tmp_path / "model", image_size=SIZE)
    before = (tmp_path / "model" / "model.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(classifier, "write_json", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            fit(labelled, weights="random", out=tmp_path / "model", head="knn", image_size=SIZE, overwrite=True)
    with monkeypatch.context() as patched:
        patched.setattr(Backbone, "__call__", lambda *_: torch.full((16, 512), torch.nan))
        with pytest.raises(UserError, match="not finite"):
            predict(others, model=tmp_path / "model", out=tmp_path / "predictions")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "model.json").read_bytes() == before
    fit(labelled, weights="random", out=tmp_path / "model", head="knn", image_size=SIZE, overwrite=True)
    assert open_classifier(tmp_path / "model").about["head"] == "knn"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_mistakes(labelled: Path, others: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    fit(labelled, weights="random", out=tmp_path / "model", image_size=SIZE)
    mistakes: list[tuple[dict[str, object], str]] = [
        ({"out": tmp_path / "model"}, "exists already.*--overwrite"),
        ({"out": tmp_path / "thesis", "overwrite": True}, "chapter.tex.*nothing was deleted"),
        ({"head": "lineal"}, "did you mean 'linear'"),
        ({"epochs": 0}, "--epochs 0: is too small"),
        ({"classes": ["across"]}, "an evaluation needs two or more"),
        ({"weights": "timm/test_vit:random", "head": "finetune", "image_size": 160}, "--trained-layers all"),
        ({"weights": tmp_path / "gone"}, "no such weights"),
    ]
    for changed, said in mistakes:
        with pytest.raises(UserError, match=said):
            fit(labelled, **({"weights": "random", "out": tmp_path / "x", "image_size": SIZE} | changed))  # type: ignore[arg-type]
        assert not (tmp_path / "x").exists()
    for name, damage, said in (
        ("gone", None, "no such classifier; make one with 'uscl fit"),
        ("thesis", None, "is no fitted classifier"),
        ("cut", lambda folder: (folder / "model.safetensors").write_bytes(b"half"), "is not the file that model.json tells of"),
        ("text", lambda folder: (folder / "model.json").write_text("{"), "no readable JSON"),
        ("other", lambda folder: (folder / "model.json").write_text("{}"), "it has no 'model_version'"),
        ("new", lambda folder: newer(folder / "model.json"), "has version 99"),
    ):
        if damage is not None:
            shutil.copytree(tmp_path / "model", tmp_path / name)
            damage(tmp_path / name)
        with pytest.raises(UserError, match=said):
            predict(others, model=tmp_path / name, out=tmp_path / "x")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"


def newer(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_version": 99}))
