"""`uscl validate`: figures of fitted classifiers against scikit-learn's, clips they know refused, and what a reader is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from typer.testing import CliRunner

from tests.uscl.evaluation.texture_set import write_texture_set
from uscl.cli import app
from uscl.evaluation.external import validate
from uscl.evaluation.reporting import report
from uscl.exporting import export
from uscl.fitting import fit
from uscl.predicting import predict
from usdata import manifest
from usdata.errors import UserError
from usdata.manifest import open_dataset

SIZE = 40
KINDS = ("across", "down", "blotches")
NAMES = sorted(KINDS)
# What another hospital sends: other clips and groups, the second and third group with two clips, some labels wrong, some missing.
TEXTURES = ("across", "down", "blotches", "across", "down", "blotches", "across", "down", "blotches", "blotches")
LABELS = ("across", "down", "down", "across", "down", "across", None, "down", "blotches", "blotches")
GROUPS = ("n0", "n1", "n1", "n2", "n2", "n3", "n4", "n5", "n6", "n7")
# Whose they are, by the source's own names.
SMALL: dict[str, Any] = {"frames_per_video": 3, "size": 48}
PATIENTS = ("p0", "p1", "p1", "p2", "p2", "p3", "p4", "p5", "p6", "p7")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets, three classifiers of the first (one of fewer classes), and a set with a group of the first among its own."""
    folder = tmp_path_factory.mktemp("external")
    write_texture_set(folder / "own", textures=KINDS * 4, patients=[f"own{number}" for number in range(12)], frames_per_video=5)
    write_texture_set(folder / "other", textures=TEXTURES, labels=LABELS, groups=GROUPS, patients=PATIENTS, **SMALL, prefix="other")
    mixed = ["group03", *GROUPS[1:]]
    write_texture_set(folder / "mixed", textures=TEXTURES, labels=LABELS, groups=mixed, **SMALL, prefix="mixed")
    fit(folder / "own", weights="random", out=folder / "linear", image_size=SIZE)
    fit(folder / "own", weights="random", out=folder / "neighbours", image_size=32, head="knn")
    fit(folder / "own", weights="random", out=folder / "two", image_size=SIZE, classes=["across", "down"])
    shutil.copytree(folder / "linear", folder / "copy")
    return folder


def table(folder: Path, model: str, dataset: str, out: Path) -> pd.DataFrame:
    """What `uscl predict` says of the labelled frames."""
    predict(folder / dataset, model=folder / model, out=out, compare=False)
    return pd.read_parquet(out / "frames.parquet").dropna(subset="label")


def test_figures_are_scikit_learns_on_what_predict_says(folder: Path, tmp_path: Path) -> None:
    result = validate(folder / "other", models=[folder / "linear", folder / "neighbours"], out=tmp_path / "out")
    assert [entry["name"] for entry in result.summary["weights"]] == ["linear", "neighbours"]
    assert result.summary["settings"]["image_size"] is None, "each at its own"
    for entry in result.summary["weights"]:
        frames = table(folder, entry["name"], "other", tmp_path / entry["name"])
        columns = [f"probability_{name}" for name in NAMES]
        pooled = entry["levels"]["frame"]["pooled"]
        assert pooled["accuracy"] == pytest.approx(metrics.accuracy_score(frames["label"], frames["predicted"]))
        assert pooled["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(frames["label"], frames["predicted"]))
        area = metrics.roc_auc_score(frames["label"], frames[columns].to_numpy(), multi_class="ovr", labels=NAMES)
        assert pooled["auroc"] == pytest.approx(area)
        matrix = metrics.confusion_matrix(frames["label"], frames["predicted"], labels=NAMES)
        assert entry["levels"]["frame"]["confusion"] == matrix.tolist()
        clips = frames.groupby("video_id").agg({"label": "first"} | dict.fromkeys(columns, "mean"))
        guessed = np.array(NAMES)[clips[columns].to_numpy().argmax(axis=1)]
        assert entry["levels"]["video"]["pooled"]["balanced_accuracy"] == pytest.approx(
            metrics.balanced_accuracy_score(clips["label"], guessed)
        )
        low, high = entry["levels"]["frame"]["interval"]["balanced_accuracy"]
        assert low < pooled["balanced_accuracy"] < high
    written = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert len(written) == 2 * 27
    assert written["predicted"][:27].tolist() == table(folder, "linear", "other", tmp_path / "again")["predicted"].tolist()
    difference = next(row for row in result.summary["differences"] if (row["level"], row["metric"]) == ("frame", "accuracy"))
    first, second = (entry["levels"]["frame"]["pooled"]["accuracy"] for entry in result.summary["weights"])
    assert difference["difference"] == pytest.approx(second - first)
    assert result.summary["dataset"]["groups"] == 7


def test_a_reader_is_told_what_was_judged_on_what(folder: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["validate", str(folder / "other"), "--model", str(folder / "linear"), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    told = " ".join(run.output.split())
    assert "External validation on 7 independent groups (9 clips) of 'textures', linear reaches" in told
    assert "fold" not in told
    assert "held" not in told
    assert max(map(len, run.stdout.split("\nnote:")[0].splitlines()[2:])) <= 80
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Evaluation, external validation" in page
    assert "linear (logistic regression on frozen features; resnet18, random weights; 40 × 40 pixels) was fitted on" in page
    assert "60 frames of 12 clips in 12 groups (across 20, blotches 20, down 20)" in page
    assert "None of the clips stands in what linear was trained on" in page
    assert "held-out" not in page
    assert "seed 0" not in page
    assert "<h3>Folds</h3>" not in page
    drawn = report([tmp_path / "out"], out=tmp_path / "report", pictures=[folder / "other"])
    assert drawn.content["answer"][0].startswith("External validation on 7 independent groups")
    as_json = CliRunner().invoke(
        app, ["validate", str(folder / "other"), "--model", str(folder / "linear"), "--out", str(tmp_path / "json"), "--json"]
    )
    assert json.loads(as_json.stdout)["settings"]["kind"] == "external"
    for name in ("evaluation.json", "predictions.parquet", "report.html"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "json" / name).read_bytes()


def test_what_it_was_trained_on_is_refused_left_out_or_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"refused, because 12 of 12 clips are not new to linear: 12 are of patients in it"):
        validate(folder / "own", models=folder / "linear", out=tmp_path / "own")
    with pytest.raises(UserError, match="1 of 9 clips are not new to linear: 1 is of a group in it"):
        validate(folder / "mixed", models=folder / "linear", out=tmp_path / "mixed")
    assert not list(tmp_path.iterdir())
    left = validate(folder / "mixed", models=folder / "linear", out=tmp_path / "left", without_overlap=True)
    assert left.summary["dataset"]["videos"] == 8
    kept = validate(folder / "own", models=folder / "linear", out=tmp_path / "kept", allow_overlap=["linear"])
    (entry,) = kept.summary["weights"]
    assert (entry["name"], entry["optimistic"]) == ("linear (optimistic: has seen test clips)", True)
    assert "Figures of linear are optimistic: 12 of 12 clips are not new to it" in kept.summary["notes"][0]
    # Without its record a classifier still names the set that it was fitted on; of another set nothing can be told.
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in (folder / "linear").iterdir():
        if path.name != "trained_on.parquet":
            (bare / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="12 of 12 clips are not new to bare"):
        validate(folder / "own", models=bare, out=tmp_path / "no")
    (note, *_) = validate(folder / "other", models=bare, out=tmp_path / "b").summary["notes"]
    assert note.startswith("The clips of 'textures', which bare says that it was trained on, are not at hand: --pretraining-set bare=SET")
    named = validate(folder / "mixed", models=bare, out=tmp_path / "named", pretraining_sets=[f"{folder / 'own'}"], without_overlap=True)
    assert named.summary["dataset"]["videos"] == 8


def test_whether_patients_could_be_looked_for_is_said(folder: Path, tmp_path: Path) -> None:
    """Two hospitals have sources and secrets of their own, so that one patient has two names: no claim is made then."""

    def told(change: Callable[[Path], None]) -> tuple[str, str]:
        shutil.rmtree(tmp_path, ignore_errors=True)
        shutil.copytree(folder / "other", tmp_path / "other")
        change(tmp_path / "other")
        result = validate(tmp_path / "other", models=folder / "linear", out=tmp_path / "out")
        return " ".join(result.summary["notes"]), (tmp_path / "out" / "report.html").read_text()

    def rewrite(dataset: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        for name in (manifest.VIDEOS, manifest.FRAMES):
            rows = [row | change(row) for row in manifest.read_table(dataset, name).to_pylist()]
            manifest.write_table(dataset, name, manifest.table_from_rows(name, rows), recipe_digest="made")
        manifest.write_about(dataset, {"name": "textures", "classes": NAMES})

    def nobody(row: dict[str, Any]) -> dict[str, Any]:
        return {"patient_id": None, "group_id": f"made/video:{row['video_id']}"}

    def private(dataset: Path) -> None:
        manifest.write_about(dataset, {"name": "textures", "classes": NAMES, "privacy": {"private_sources": ["made"]}})

    notes, page = told(lambda dataset: None)
    assert "Patients of" not in notes
    assert "none shares a patient or group with them." in page
    notes, page = told(private)
    assert "Patients of linear were looked for here by pseudonyms, which are equal only where both sets were made with one secret." in notes
    assert "by its pseudonyms, which meet only under one secret" in page
    notes, page = told(lambda dataset: rewrite(dataset, lambda row: nobody(row) if row["label"] == "across" else {}))
    assert "Patients of linear could not be looked for in 3 of 9 clips" in notes
    assert "of 6 of these 9 clips the patient or group could be compared, and none is shared" in page
    notes, page = told(lambda dataset: rewrite(dataset, nobody))
    assert "Patients of linear could not be looked for here" in notes
    assert "none shares a patient" not in page
    notes, page = told(lambda dataset: rewrite(dataset, lambda row: {"source": "b"}))
    assert "Patients of linear could not be looked for here" in notes
    assert "none shares a patient" not in page
    assert "whether they share patients could not be compared" in page


def test_one_patient_gives_no_interval_and_is_refused(folder: Path, tmp_path: Path) -> None:
    for groups, told in (
        (["one"] * 10, "classes 'across', 'blotches', 'down' stand"),
        ([*["n0"] * 6, *GROUPS[6:]], "class 'across' stands"),
    ):
        data = tmp_path / f"{len(set(groups))}"
        write_texture_set(data, textures=TEXTURES, labels=LABELS, groups=groups, **SMALL, prefix="few")
        with pytest.raises(UserError, match=f"{told} in one independent group, and of one no interval can be told") as caught:
            validate(data, models=folder / "linear", out=tmp_path / "out")
        assert ("--where 'label!=across'" in str(caught.value)) == (len(set(groups)) > 1)
    assert not (tmp_path / "out").exists()


def test_what_its_backbone_was_trained_on_is_known_without_the_record(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "linear", tmp_path / "bare")
    (tmp_path / "bare" / "trained_on.parquet").unlink()
    path = tmp_path / "bare" / "model.json"
    about = json.loads(path.read_text())
    about["weights"] |= {"kind": "run", "dataset_name": "other", "dataset_digest": open_dataset(folder / "other").digest}
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match="9 of 9 clips are not new to bare"):
        validate(folder / "other", models=tmp_path / "bare", out=tmp_path / "out")
    named = validate(
        folder / "mixed", models=tmp_path / "bare", out=tmp_path / "out", pretraining_sets=[str(folder / "own")], without_overlap=True
    )
    assert "bare started from weights of which it is not known what they were trained on." in named.summary["notes"]


def test_other_clips_of_its_own_set_are_no_other_hospital(folder: Path, tmp_path: Path) -> None:
    where = [f"video_id={'|'.join(f'made/clip{number:02d}' for number in range(6))}"]
    fit(folder / "own", weights="random", out=tmp_path / "random", image_size=SIZE, where=where)
    result = validate(folder / "own", models=tmp_path / "random", out=tmp_path / "out", where=[where[0].replace("=", "!=", 1)])
    assert "model random was fitted on other clips of this very set: it is no other hospital." in result.summary["notes"]
    told = repr(result)
    assert told.startswith("As they are, on 6 independent groups (6 clips) of 'textures', model random reaches")
    assert "External" not in told
    assert "random weights" not in told


def test_a_class_that_does_not_occur_is_over_no_mean(folder: Path, tmp_path: Path) -> None:
    result = validate(folder / "other", models=folder / "linear", out=tmp_path / "out", classes=["across", "down"])
    (entry,) = result.summary["weights"]
    frames = table(folder, "linear", "other", tmp_path / "predictions")
    frames = frames[frames["label"] != "blotches"]
    recalls = [(frames["predicted"][frames["label"] == name] == name).mean() for name in ("across", "down")]
    assert entry["levels"]["frame"]["pooled"]["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert "No frame here is of class 'blotches'" in " ".join(result.summary["notes"])
    assert "Naming always the same class would give 50.0 %." in repr(result)
    assert "naming always the same class (50.0 %)" in (tmp_path / "out" / "report.html").read_text()


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    cases = [
        ({"models": []}, "--model: names no classifier"),
        ({"models": folder / "own"}, "own: is no fitted classifier"),
        ({"models": [folder / "linear", folder / "linear"]}, "--model: names the same twice"),
        ({"models": [folder / "linear", folder / "two"]}, "--model two: knows other classes"),
        ({"models": folder / "two"}, "other: has labels that the classifier does not know (blotches)"),
        ({"models": [folder / "linear", folder / "copy"]}, "--model copy: is a copy of linear; name each once"),
        ({"models": folder / "linear", "classes": ["acros"]}, "--classes acros: no frame has this label; did you mean 'across'?"),
        ({"models": folder / "linear", "allow_overlap": ["liner"]}, "--allow-overlap liner: is not among the weights"),
    ]
    for settings, expected in cases:
        with pytest.raises(UserError) as caught:
            validate(folder / "other", out=tmp_path / "out", **settings)  # type: ignore[arg-type]
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
    assert "leave them out with --classes across,down, or rename them by label_map: {blotches: ...}" in str(_refused(folder, tmp_path))
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="exists already and is left as it is"):
        validate(folder / "other", models=folder / "linear", out=tmp_path / "out")


def _refused(folder: Path, tmp_path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        validate(folder / "other", models=folder / "two", out=tmp_path / "out")
    return caught.value


def test_it_stands_on_the_card_of_the_classifier_alone(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    validate(folder / "other", models=[folder / "linear", folder / "neighbours"], out=tmp_path / "out")
    export(folder / "linear", format="onnx", out=tmp_path / "onnx", evaluation=tmp_path / "out")
    card = (tmp_path / "onnx" / "README.md").read_text()
    assert "`uscl validate` on textures" in card
    assert "this classifier | frame |" in card
    assert "as it is; none of these clips stands in what it was trained on" in card
    shutil.copytree(folder / "linear", tmp_path / "bare")
    (tmp_path / "bare" / "trained_on.parquet").unlink()
    validate(folder / "other", models=tmp_path / "bare", out=tmp_path / "unknown")
    export(tmp_path / "bare", format="onnx", out=tmp_path / "bare-onnx", evaluation=tmp_path / "unknown")
    assert "which of these clips it was trained on is not known" in (tmp_path / "bare-onnx" / "README.md").read_text()
    assert open_dataset(folder / "other").digest in card
    with pytest.raises(UserError, match=r"is of other weights \(linear, neighbours\); evaluate these \('uscl validate'"):
        export(folder / "two", format="onnx", out=tmp_path / "no", evaluation=tmp_path / "out")
