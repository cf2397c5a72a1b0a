"""The published protocol is optimistic and says so, the honest one is not, and what contradicts itself is one line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from sklearn.metrics import confusion_matrix

from tests.uscl.evaluation.texture_set import write_texture_set
from uscl.backbones import seeded_backbone
from uscl.evaluation import EvaluationResult, evaluate
from uscl.evaluation.features import pooled_features
from uscl.evaluation.finetune import HONEST, PUBLISHED, Inputs, Training, finetune
from uscl.evaluation.folds import Folds
from uscl.evaluation.held_out import HeldOut, Judged, hold_out
from uscl.evaluation.protocols import Row, plan_rows, trained_alike
from uscl.evaluation.report import answer, print_evaluation
from uscl.frames import open_store
from usdata.errors import UserError
from usdata.manifest import open_dataset

SIZE = 32
EPOCHS = 6


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels that have nothing to do with the pictures; each group holds two clips of equal label."""
    labels = [("a", "b")[group % 2] for group in range(8) for _ in range(2)]
    return write_texture_set(
        tmp_path_factory.mktemp("sets") / "noise",
        textures=("blotches",) * 16,
        labels=labels,
        groups=[f"group{video // 2}" for video in range(16)],
        frames_per_video=4,
        size=SIZE,
    )


@pytest.fixture(scope="module")
def both(noise: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationResult:
    out = tmp_path_factory.mktemp("results") / "both"
    return evaluate(
        "finetune", noise, weights=["random"], out=out, image_size=SIZE, folds=2, protocol="both", folds_by="video", epochs=EPOCHS
    )


def entry(result: EvaluationResult, key: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in result.summary["weights"] if each["protocol"] == key)
    return found


def test_choosing_on_the_test_fold_adds_what_the_weights_do_not_have(both: EvaluationResult) -> None:
    best, last = entry(both, "published"), entry(both, "published-last-epoch")
    for chosen, fixed in zip(best["levels"]["frame"]["per_fold"], last["levels"]["frame"]["per_fold"], strict=True):
        assert chosen["accuracy"] >= fixed["accuracy"]
    added = best["levels"]["frame"]["pooled"]["accuracy"] - last["levels"]["frame"]["pooled"]["accuracy"]
    assert added > 0.03
    told = [each for each in both.summary["differences"] if each["protocol"] == "selection"]
    assert next(each["difference"] for each in told if (each["level"], each["metric"]) == ("frame", "accuracy")) == pytest.approx(added)
    assert entry(both, "honest")["levels"]["frame"]["pooled"]["balanced_accuracy"] < 0.65


def test_what_is_optimistic_says_so_everywhere(both: EvaluationResult) -> None:
    names = [each["name"] for each in both.summary["weights"]]
    assert names == [
        "random",
        "random (optimistic: published protocol, folds by video)",
        "random (optimistic: published training, last epoch, folds by video)",
    ]
    assert [each["optimistic"] for each in both.summary["weights"]] == [False, True, True]
    assert any(f"the best of {EPOCHS} epochs is chosen on each test fold" in note for note in both.summary["notes"])
    assert any("The published protocol was changed: epochs 6 in place of 100." in note for note in both.summary["notes"])
    published = both.summary["protocols"][1]
    assert published["leaks"][0]["independent_groups"] > 0
    assert published["training"]["batch_norm"] == "moving"
    page = (both.folder / "report.html").read_text()
    stream = io.StringIO()
    print_evaluation(both, Console(file=stream, width=80))
    for text in (page, stream.getvalue(), " ".join(answer(both.summary))):
        assert "optimistic" in text
    assert "Choosing the epoch on the test folds alone adds" in " ".join(answer(both.summary))
    assert max(len(line.rstrip()) for line in stream.getvalue().splitlines()) <= 80


def test_published_matrices_are_those_of_the_written_predictions_and_the_chosen_epochs(both: EvaluationResult) -> None:
    table = pd.read_parquet(both.folder / "predictions.parquet")
    summary = json.loads((both.folder / "evaluation.json").read_text())
    for each in summary["weights"]:
        own = table[table["weights"] == each["name"]]
        assert (own["protocol"] == each["protocol"]).all()
        assert each["levels"]["frame"]["confusion"] == confusion_matrix(own["label"], own["predicted"]).tolist()
    chosen = summary["protocols"][1]["chosen_epochs"]
    assert [each["fold"] for each in chosen] == [0, 1]
    assert all(1 <= each["epoch"] <= EPOCHS for each in chosen)
    crossing = table[table["protocol"] == "published"].groupby("group_id")["fold"].nunique()
    assert crossing.max() == 2
    assert table[table["protocol"] == "honest"].groupby("group_id")["fold"].nunique().max() == 1
    assert table[table["protocol"] == "published"].groupby("video_id")["fold"].nunique().max() == 1


def test_without_leaking_folds_the_last_epoch_is_not_called_optimistic() -> None:
    rows = plan_rows("finetune", protocol="published")
    assert [(row.title, row.optimistic) for row in rows] == [
        ("published protocol (optimistic)", True),
        ("published training, last epoch", False),
    ]
    assert rows[0].training == PUBLISHED
    assert trained_alike(plan_rows("finetune", protocol="both", epochs=3))[1:] == [plan_rows("finetune", protocol="published", epochs=3)]


def single_fold(noise: Path, labels: np.ndarray, row: Row) -> HeldOut:
    """One fold of the noise held out: its last two groups."""
    dataset = open_dataset(noise)
    groups = dataset.frames["group_id"].to_numpy(dtype=str)
    fold = np.where(np.isin(groups, ["group6", "group7"]), 0, 1)
    judged = Judged(open_store(dataset, size=SIZE), np.arange(len(groups)), labels, groups, 2, "noise")
    return hold_out(
        "finetune", seeded_backbone("resnet18", 0), judged, Folds(0, "made", fold, 1), [row], name="random", advance=lambda count: None
    )


def test_held_out_labels_choose_nothing_but_under_the_published_protocol(noise: Path) -> None:
    dataset = open_dataset(noise)
    labels = (dataset.frames["label"] == "b").to_numpy().astype(np.int64)
    test = dataset.frames["group_id"].isin(["group6", "group7"]).to_numpy()
    training = Training(epochs=8, trained_layers="head", learning_rate=0.05)
    honest, published = Row("honest", training=training, epoch="validation"), Row("published", training=training, epoch="test")
    kept, chosen = [], []
    for seed in range(5):
        permuted = labels.copy()
        permuted[test] = np.random.default_rng(seed).permutation(labels[test])
        found = single_fold(noise, permuted, honest)
        kept.append((found.chosen["honest"], found.probabilities["honest"][test].tolist()))
        chosen.append(single_fold(noise, permuted, published).chosen["published"][0]["epoch"])
    assert all(each == kept[0] for each in kept)
    assert len(set(chosen)) > 1, "the published choice does look at them"


def test_the_chosen_epoch_is_trained_again_on_all_rows(noise: Path) -> None:
    dataset = open_dataset(noise)
    labels = (dataset.frames["label"] == "b").to_numpy().astype(np.int64)
    test = dataset.frames["group_id"].isin(["group6", "group7"]).to_numpy()
    training = Training(epochs=5, trained_layers="head", learning_rate=0.05)
    found = single_fold(noise, labels, Row("honest", training=training, epoch="validation"))
    every = single_fold(noise, labels, Row("honest", training=training))
    backbone, store = seeded_backbone("resnet18", 0), open_store(dataset, size=SIZE)

    inputs = Inputs(torch.from_numpy(pooled_features(backbone, store, np.arange(len(labels)), name="random")), None)
    train, held = np.flatnonzero(~test), np.flatnonzero(test)
    fit = finetune(backbone, inputs, labels, train, held, class_count=2, training=training, seed=(0, 0), every_epoch=True)
    epoch = found.chosen["honest"][0]["epoch"]
    np.testing.assert_array_equal(found.probabilities["honest"][test], fit.probabilities[epoch - 1])
    np.testing.assert_array_equal(every.probabilities["honest"][test], fit.probabilities[-1])


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            "linear",
            {"folds_by": "frame"},
            r"--folds-by frame: would let figures be called honest.*frames of one video.*--protocol published",
        ),
        ("finetune", {"folds_by": "set"}, r"--folds-by set: would let figures be called honest"),
        ("linear", {"protocol": "published"}, r"--protocol published: has no epoch to choose in linear.*--folds-by"),
        ("knn", {"protocol": "both"}, r"--protocol both: has no epoch to choose in knn"),
        ("knn", {"choose_epochs": True}, r"--choose-epochs: is of finetune"),
        ("linear", {"trained_layers": "head"}, r"--trained-layers: is of finetune"),
        ("finetune", {"protocol": "published", "choose_epochs": True}, r"--choose-epochs: is of the honest protocol"),
        ("finetune", {"protocol": "published", "label_shares": [10]}, r"--label-shares: is of the honest protocol"),
        ("finetune", {"choose_epochs": True, "label_shares": [10]}, r"--choose-epochs: needs groups"),
        ("finetune", {"trained_layers": "all", "batch_norm": "moving"}, r"--batch-norm moving: is of frozen layers"),
    ],
)
def test_contradictions_are_one_line(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        plan_rows(kind, **settings)
    assert "\n" not in str(caught.value)


def test_settings_given_hold_in_both_protocols_and_presets_else() -> None:
    honest, published, _ = plan_rows("finetune", protocol="both", trained_layers="head", batch_norm="frozen")
    assert honest.training == Training(trained_layers="head")
    assert published.training is not None
    assert (published.training.epochs, published.training.trained_layers, published.training.batch_norm) == (100, "head", "frozen")
    assert plan_rows("finetune")[0].training == HONEST
    assert plan_rows("finetune", trained_layers="all")[0].training == Training(trained_layers="all", views="light")


def test_own_folds_that_leak_are_refused_by_the_honest_protocol_and_told_by_the_published_one(tmp_path: Path) -> None:
    folder = write_texture_set(
        tmp_path / "set",
        textures=("across", "down") * 6,
        groups=[f"group{video % 4}" for video in range(12)],
        folds=[video // 4 for video in range(12)],
        frames_per_video=3,
        size=SIZE,
    )
    with pytest.raises(UserError, match="refused, because these stand both in training and in test"):
        evaluate("knn", folder, weights=["random"], out=tmp_path / "honest", image_size=SIZE)
    with pytest.raises(UserError, match="refused"):
        evaluate("knn", folder, weights=["random"], out=tmp_path / "both", image_size=SIZE, protocol="both", folds_by="set")
    found = evaluate("knn", folder, weights=["random"], out=tmp_path / "out", image_size=SIZE, protocol="published", folds_by="set")
    assert (found.predictions["fold"] == found.predictions["video_id"].str[-2:].astype(int) // 4).all()
    told = found.summary["protocols"][0]
    assert told["leaks"] == [
        {"seed": 0, "independent_groups": 4, "groups": 4, "patients": 0, "videos": 0, "equal_frames": 0, "duplicate_pairs": 0}
    ]
    assert "4 of 4 independent groups stand on both sides" in (found.folder / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_choosing_epochs_by_training_groups_gains_nothing_on_noise(tmp_path: Path) -> None:
    """The evaluator's own choice, over five divisions; the best test epoch of the same folds gains."""
    labels = [("a", "b")[group % 2] for group in range(24) for _ in range(2)]
    data = write_texture_set(
        tmp_path / "noise",
        textures=("blotches",) * 48,
        labels=labels,
        groups=[f"group{video // 2}" for video in range(48)],
        frames_per_video=2,
        size=SIZE,
    )
    settings: dict[str, Any] = {"weights": ["random"], "image_size": SIZE, "folds": 4, "seeds": 5, "epochs": 10}
    result = evaluate("finetune", data, out=tmp_path / "out", protocol="both", choose_epochs=True, **settings)
    reached = {key: entry(result, key)["levels"]["frame"]["pooled"]["balanced_accuracy"] for key in ("honest", "published")}
    assert reached["honest"] < 0.56
    assert reached["published"] > reached["honest"] + 0.05
