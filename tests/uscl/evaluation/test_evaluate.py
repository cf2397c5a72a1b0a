"""The whole evaluation on small sets whose truth is planted."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from scipy.stats import norm
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from tests.uscl.evaluation.texture_set import video_name, write_texture_set
from uscl.backbones import seeded_backbone
from uscl.evaluation import EvaluationResult, evaluate
from uscl.evaluation.features import frozen_activations, pooled_features
from uscl.evaluation.finetune import flip_and_crop
from uscl.evaluation.metrics import RESAMPLES
from uscl.evaluation.report import answer, print_evaluation
from uscl.evaluation.summary import every_draw
from uscl.evaluation.weights import result_names
from uscl.frames import open_store
from uscl.models import load_backbone
from usdata.errors import UserError
from usdata.manifest import open_dataset

TEXTURES = ("across", "down", "blotches") * 4
SIZE = 40


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texture_set(
        tmp_path_factory.mktemp("sets") / "textures", textures=TEXTURES, folds=[video % 4 for video in range(12)], frames_per_video=6
    )


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "other.safetensors"
    save_file({name: value.contiguous() for name, value in seeded_backbone("resnet18", 5).state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def result(textures: Path, other_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationResult:
    out = tmp_path_factory.mktemp("results") / "linear"
    return evaluate("linear", textures, weights=["random", str(other_weights)], out=out, image_size=SIZE, seeds=2)


def pooled(result: EvaluationResult, level: str = "frame", position: int = 0) -> dict[str, float]:
    return result.summary["weights"][position]["levels"][level]["pooled"]


def test_separable_textures_are_told_apart(result: EvaluationResult) -> None:
    assert pooled(result)["balanced_accuracy"] > 0.75
    assert pooled(result, "video")["balanced_accuracy"] > 0.85
    assert pooled(result)["auroc"] > 0.9


def test_labels_permuted_by_group_are_not(textures: Path, tmp_path: Path) -> None:
    """Every texture stands equally often under every label, so only memory of a group could beat chance."""
    wrong = [label for shift in range(4) for label in np.roll(("across", "down", "blotches"), shift)]
    folder = write_texture_set(tmp_path / "set", textures=TEXTURES, labels=wrong, frames_per_video=6)
    found = evaluate("linear", folder, weights=["random"], out=tmp_path / "out", image_size=SIZE, folds=4, seeds=2)
    assert pooled(found)["balanced_accuracy"] < 0.55
    assert found.summary["reference"] is None
    assert found.summary["differences"] == []


def test_written_predictions_give_the_written_metrics(result: EvaluationResult) -> None:
    summary = json.loads((result.folder / "evaluation.json").read_text())
    assert summary == json.loads(json.dumps(result.summary))
    table = pd.read_parquet(result.folder / "predictions.parquet")
    classes = summary["dataset"]["classes"]
    assert classes == ["across", "blotches", "down"]
    assert summary["format_version"] == 2
    for entry in summary["weights"]:
        own = table[table["weights"] == entry["name"]]
        assert len(own) == 2 * 72
        frame = entry["levels"]["frame"]
        assert frame["pooled"]["accuracy"] == pytest.approx(accuracy_score(own["label"], own["predicted"]))
        assert frame["confusion"] == confusion_matrix(own["label"], own["predicted"], labels=classes).tolist()
        columns = [f"probability_{name}" for name in classes]
        np.testing.assert_allclose(own[columns].sum(axis=1), 1)
        for fold in frame["per_fold"]:
            part = own[(own["seed"] == fold["seed"]) & (own["fold"] == fold["fold"])]
            assert fold["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(part["label"], part["predicted"]))
        videos = own.groupby(["seed", "video_id"]).agg({**dict.fromkeys(columns, "mean"), "label": "first"})
        named = np.array(classes)[videos[columns].to_numpy().argmax(axis=1)]
        assert entry["levels"]["video"]["pooled"]["accuracy"] == pytest.approx(accuracy_score(videos["label"], named))
        patients = own.groupby(["seed", "independent_group", "label", "video_id"])[columns].mean().groupby(level=[0, 1, 2]).mean()
        named = np.array(classes)[patients.to_numpy().argmax(axis=1)]
        patient = entry["levels"]["patient"]
        assert patient["pooled"]["accuracy"] == pytest.approx(accuracy_score(patients.index.get_level_values("label"), named))
        assert patient["items"] == 12
        votes = own.groupby(["seed", "video_id"]).agg(label=("label", "first"), named=("predicted", lambda frames: frames.mode().tolist()))
        sure = votes[votes["named"].map(len) == 1]
        right = (sure["label"] == sure["named"].map(lambda names: names[0])).sum()
        assert right <= round(entry["levels"]["video_vote"]["pooled"]["accuracy"] * len(votes)) <= right + len(votes) - len(sure)
        for level in entry["levels"].values():
            assert sum(row["count"] for row in level["reliability"]) == 2 * level["items"]
            assert [row["seed"] for row in level["per_seed"]] == [0, 1]
            assert level["over_seeds"]["auroc"]["mean"] == pytest.approx(level["pooled"]["auroc"])
            for metric, (low, high) in level["interval"].items():
                assert low <= level["pooled"][metric] <= high, metric
        low, high = frame["interval"]["balanced_accuracy"]
        assert 0 <= low <= frame["pooled"]["balanced_accuracy"] <= high <= 1


def test_all_weights_share_folds_and_every_frame_is_held_out_once_a_seed(result: EvaluationResult) -> None:
    table = result.predictions
    for _, part in table.groupby(["weights", "seed"]):
        assert part["frame_id"].is_unique
        assert len(part) == 72
        assert part.groupby("group_id")["fold"].nunique().max() == 1
    first, second = (part.reset_index(drop=True) for _, part in table.groupby("weights"))
    assert (first["fold"] == second["fold"]).all()
    assert [division["origin"] for division in result.summary["folds"]] == ["data set", "made"]
    assert (table[table["seed"] == 0]["fold"] == table[table["seed"] == 0]["video_id"].str[-2:].astype(int) % 4).all()


def test_equal_input_gives_equal_files(result: EvaluationResult, textures: Path, other_weights: Path, tmp_path: Path) -> None:
    again = evaluate("linear", textures, weights=["random", str(other_weights)], out=tmp_path / "out", image_size=SIZE, seeds=2)
    for name in ("evaluation.json", "predictions.parquet", "report.html"):
        assert (again.folder / name).read_bytes() == (result.folder / name).read_bytes()


def test_knn(textures: Path, tmp_path: Path) -> None:
    found = evaluate("knn", textures, weights=["random"], out=tmp_path / "out", image_size=SIZE)
    assert pooled(found)["balanced_accuracy"] > 0.5
    assert found.summary["settings"]["neighbours"] == 20


# What lies between the least and the most that can be trained takes a quarter of a minute more; run with: make test-slow
@pytest.mark.parametrize(("layers", "epochs"), [("last-block", 15), pytest.param("last-stage", 15, marks=pytest.mark.slow), ("all", 8)])
def test_finetuning_learns_and_repeats(layers: str, epochs: int, tmp_path: Path) -> None:
    folder = write_texture_set(tmp_path / "set", textures=("across", "down") * 4, frames_per_video=8)
    settings = {"weights": ["random"], "image_size": SIZE, "folds": 2, "trained_layers": layers}
    found = evaluate("finetune", folder, out=tmp_path / "out", epochs=epochs, **settings)  # type: ignore[arg-type]
    assert pooled(found)["balanced_accuracy"] > 0.75
    first, second = (
        evaluate("finetune", folder, out=tmp_path / name, epochs=1, **settings).predictions  # type: ignore[arg-type]
        for name in ("first", "second")
    )
    pd.testing.assert_frame_equal(first, second)


def test_cached_activations_are_the_backbone_cut_in_two(textures: Path) -> None:
    dataset = open_dataset(textures)
    store = open_store(dataset, size=SIZE)
    backbone, _ = load_backbone("random")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    rows = np.array([5, 0, 40])
    for blocks in (0, 1):
        hidden = frozen_activations(backbone, store, rows, blocks=blocks, name="random")
        with torch.inference_mode():
            joined = backbone.avgpool(backbone.layer4[blocks:](hidden.float())).flatten(1).numpy()
        np.testing.assert_allclose(joined, pooled_features(backbone, store, rows, name="random"), rtol=5e-3, atol=5e-3)
    after = backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "BatchNorm statistics moved"


def test_flip_and_crop_keeps_size_and_direction() -> None:
    ramp = torch.linspace(0, 1, 32).expand(200, 1, 32, 32).contiguous()
    moved = flip_and_crop(ramp, torch.Generator().manual_seed(0))
    assert moved.shape == ramp.shape
    rising = (moved[:, 0, 16, -1] > moved[:, 0, 16, 0]).float().mean()
    assert 0.38 < rising < 0.62
    torch.testing.assert_close(moved[:, 0, 5], moved[:, 0, 25], msg="rows of a ramp along x stay equal")
    width = (moved[:, 0, 16, -1] - moved[:, 0, 16, 0]).abs()
    assert width.min() > 0.8
    assert width.max() <= 1


def test_leakage_is_refused_before_anything_is_trained_or_decoded(tmp_path: Path) -> None:
    patients = ["Zoe" if video in (0, 3) else None for video in range(12)]
    folds = [video % 2 for video in range(12)]
    folder = write_texture_set(tmp_path / "patient", textures=TEXTURES, patients=patients, folds=folds, frames_per_video=1)
    with pytest.raises(UserError, match=r"refused.*patient_id 'made/Zoe'.*--folds"):
        evaluate("linear", folder, weights=["random"], out=tmp_path / "out", image_size=SIZE)
    pair = (video_name(2), video_name(5))
    folder = write_texture_set(tmp_path / "pair", textures=TEXTURES, folds=folds, duplicates=[pair], frames_per_video=1)
    with pytest.raises(UserError, match=rf"refused.*'{pair[0]}' = '{pair[1]}'"):
        evaluate("linear", folder, weights=["random"], out=tmp_path / "out", image_size=SIZE)
    assert not (tmp_path / "out").exists()
    assert not (folder / ".cache").exists()
    kept = evaluate("linear", folder, weights=["random"], out=tmp_path / "out", image_size=SIZE, folds=3).predictions
    assert kept[kept["video_id"].isin(pair)]["fold"].nunique() == 1


def test_filters_and_classes_reach_the_record(textures: Path, tmp_path: Path) -> None:
    found = evaluate(
        "linear",
        textures,
        weights=["random"],
        out=tmp_path / "out",
        image_size=SIZE,
        folds=3,
        where=["frame_index!=0"],
        classes=["down", "across"],
    )
    assert found.summary["dataset"]["frames"] == 8 * 5
    assert found.summary["dataset"]["classes"] == ["across", "down"]
    assert found.summary["settings"]["where"] == ["frame_index!=0"]
    assert "frame_index!=0" in (found.folder / "report.html").read_text()


def test_errors(textures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    cases = [
        ({"out": out}, "exists already"),
        ({"kind": "linar"}, "did you mean 'linear'"),
        ({"weights": []}, "names nothing"),
        ({"weights": ["random", "random"]}, "twice"),
        ({"weights": [str(tmp_path / "none")]}, "none"),
        ({"folds": 1}, "--folds 1: is too small"),
        (
            {"folds": 5},
            "3 classes stand in fewer independent groups than 5 folds need: 'across' (4), 'blotches' (4), 'down' (4); use --folds 4",
        ),
        ({"out": out / "mine.txt"}, "is a file"),
    ]
    for change, message in cases:
        settings = {"kind": "linear", "weights": ["random"], "out": tmp_path / "new", "image_size": SIZE, "dataset": textures} | change
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            evaluate(**settings)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    settings = {"weights": ["random"], "out": out, "image_size": SIZE}
    with pytest.raises(UserError, match=r"holds mine\.txt, which is no part of such a result, so nothing was deleted"):
        evaluate("knn", textures, overwrite=True, **settings)  # type: ignore[arg-type]
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    for kind in ("knn", "linear"):
        evaluate(kind, textures, overwrite=True, **settings)  # type: ignore[arg-type]
        assert json.loads((out / "evaluation.json").read_text())["settings"]["kind"] == kind
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_weights_of_equal_file_names_are_called_by_the_end_of_their_paths(textures: Path, other_weights: Path, tmp_path: Path) -> None:
    words = []
    for name in ("x/a/w.safetensors", "x/b/w.safetensors", "y/a/w.safetensors", "z/random"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(other_weights.read_bytes())
        words.append(str(tmp_path / name))
    assert result_names([words[0], words[1], "random"]) == ["a/w.safetensors", "b/w.safetensors", "random"]
    assert result_names(words) == ["x/a/w.safetensors", "b/w.safetensors", "y/a/w.safetensors", "random"]
    assert result_names(["random", words[3]]) == ["random", "z/random"]
    with pytest.raises(UserError, match="the same twice"):
        result_names([words[0], str(tmp_path / "x" / ".." / "x" / "a" / "w.safetensors")])
    found = evaluate("knn", textures, weights=words[:2], out=tmp_path / "out", image_size=SIZE)
    assert [entry["name"] for entry in found.summary["weights"]] == ["a/w.safetensors", "b/w.safetensors"]
    assert str(tmp_path) not in (found.folder / "report.html").read_text() + (found.folder / "evaluation.json").read_text()
    assert str(tmp_path) not in "".join(found.predictions["weights"])


class Loads(HTMLParser):
    """Collects tags and everything that a browser might fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster")]


def test_report_loads_nothing_and_escapes_hostileresult_names(tmp_path: Path) -> None:
    hostile = '<script src="http://evil.example/x.js"></script>'
    labels = [hostile if texture == "across" else "a & b" for texture in ("across", "down") * 4]
    wrong = [labels[video] if video < 4 else labels[video - 1] for video in range(8)]
    folder = write_texture_set(
        tmp_path / "set", textures=("across", "down") * 4, labels=wrong, groups=[f"<img src={video}>" for video in range(8)]
    )
    weights = tmp_path / "<b onload=1>.safetensors"
    save_file({name: value.contiguous() for name, value in seeded_backbone("resnet18", 5).state_dict().items()}, weights)
    found = evaluate("linear", folder, weights=["random", str(weights)], out=tmp_path / "out", image_size=SIZE, folds=2)
    page = (found.folder / "report.html").read_text()
    parser = Loads()
    parser.feed(page)
    assert not parser.tags & {"script", "link", "iframe", "object", "b onload=1"}
    assert parser.fetched, "mistakes have pictures"
    assert all(value.startswith("data:image/jpeg;base64,") for value in parser.fetched)
    assert "url(" not in page
    assert "@import" not in page
    assert "&lt;script" in page
    assert str(tmp_path) not in page + (found.folder / "evaluation.json").read_text(), "no path of this machine"


def test_the_answer_is_true_to_the_figures(result: EvaluationResult) -> None:
    sentences = " ".join(answer(result.summary))
    frame = pooled(result)
    held_out = "On 12 independent groups held out in 4 folds, repeated with 2 seeds"
    assert f"{held_out}, random weights reach {100 * frame['balanced_accuracy']:.1f} %" in sentences
    difference = next(d for d in result.summary["differences"] if d["level"] == "frame" and d["metric"] == "balanced_accuracy")
    assert difference["difference"] == pytest.approx(pooled(result, position=1)["balanced_accuracy"] - frame["balanced_accuracy"])
    low, high = difference["interval"]
    assert difference["established"] == (low > 0 or high < 0)
    assert ("not established" in sentences) == (not difference["established"])
    assert any("12 independent groups the intervals are rough" in note for note in result.summary["notes"])


def test_every_two_weights_are_compared_on_the_same_resamples(textures: Path, other_weights: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.safetensors"
    save_file({name: value.contiguous() for name, value in seeded_backbone("resnet18", 9).state_dict().items()}, second)
    weights = ["random", str(other_weights), str(second)]
    found = evaluate("knn", textures, weights=weights, out=tmp_path / "out", image_size=SIZE)
    (pair,) = (each for each in found.summary["pairs"] if (each["level"], each["metric"]) == ("frame", "accuracy"))
    assert (pair["weights"], pair["reference"]) == ("second.safetensors", "other.safetensors")
    parts = [part.sort_values("frame_id") for _, part in found.predictions.groupby("weights", sort=True)]  # other, random, second
    right = [(part["label"] == part["predicted"]).to_numpy() for part in parts]
    assert pair["difference"] == pytest.approx(right[2].mean() - right[0].mean())
    # The same the slow way: whole groups drawn, both weights judged on what was drawn.
    groups = np.unique(parts[0]["independent_group"], return_inverse=True)[1]
    rows = [np.flatnonzero(groups == group) for group in range(12)]
    drawn = [np.concatenate([rows[group] for group in np.repeat(np.arange(12), times)]) for times in every_draw(12)[:RESAMPLES]]
    values = [right[2][own].mean() - right[0][own].mean() for own in drawn]
    quantile = found.summary["interval"]["quantiles"]["frame"]
    assert pair["interval"] == pytest.approx(np.quantile(values, norm.cdf([-quantile, quantile])).tolist())
    assert "second.safetensors less other.safetensors" in (found.folder / "report.html").read_text()


def test_terminal_output_fits_80_columns(result: EvaluationResult) -> None:
    stream = io.StringIO()
    print_evaluation(result, Console(file=stream, width=80))
    lines = stream.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    text = "\n".join(lines)
    for word in ("random", "other.safetensors", "frame", "video", "majority class", "across", "blotches", "recall"):
        assert word in text


def test_weights_pretrained_on_the_set_itself_are_refused_or_called_optimistic(textures: Path, tmp_path: Path) -> None:
    weights = tmp_path / "seen.safetensors"
    state = {name: value.contiguous() for name, value in seeded_backbone("resnet18", 5).state_dict().items()}
    save_file(state, weights, metadata={"backbone": "resnet18", "dataset_digest": open_dataset(textures).digest, "image_size": str(SIZE)})
    with pytest.raises(UserError, match=r"refused, because 12 of 12 clips are not new to seen\.safetensors"):
        evaluate("knn", textures, weights=[str(weights)], out=tmp_path / "out")
    found = evaluate("knn", textures, weights=[str(weights)], out=tmp_path / "out", allow_overlap=["seen.safetensors"])
    assert found.summary["settings"]["image_size"] == SIZE, "the size that the weights were trained at"
    assert any("Figures of seen.safetensors are optimistic: 12 of 12 clips" in note for note in found.summary["notes"])
