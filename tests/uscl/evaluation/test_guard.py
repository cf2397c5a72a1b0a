"""No evaluation on what was pretrained on, unless told so by name: runs on small encoded clips whose copies are planted."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from tests.uscl.evaluation.scan_sets import build_scans, cropped, smaller_and_brighter, tissue
from uscl.backbones import seeded_backbone
from uscl.cli import app
from uscl.evaluation import EvaluationResult, evaluate
from uscl.evaluation.reporting.collection import answer_of_all, read_evaluations
from uscl.train import pretrain
from usdata.errors import UserError
from usdata.manifest import open_dataset

SIZE = 32
SETTINGS = [f"image_size={SIZE}", "batch_size=4", "epochs=1", "labels.weight=0", "device=cpu"]
COPIES = {"tested/small_mp4", "tested/crop_mp4"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that is pretrained on, its run, a set with two altered copies of its clips among eight, and a set of strangers."""
    folder = tmp_path_factory.mktemp("guard")
    build_scans(folder, "trained", {f"{seed}.mp4": (tissue(seed), f"p{seed}", "") for seed in range(4)})
    clips = {
        "small.mp4": (smaller_and_brighter(tissue(0)), "q0", "sick"),
        "sibling.mp4": (tissue(50), "q0", "sick"),
        "crop.mp4": (cropped(tissue(1)), "q1", "well"),
    }
    clips |= {f"new{seed}.mp4": (tissue(seed), f"q{seed}", "sick" if seed % 2 else "well") for seed in range(60, 65)}
    build_scans(folder, "tested", clips)
    build_scans(folder, "strangers", {f"{seed}.mp4": (tissue(seed), f"s{seed}", "sick" if seed % 2 else "well") for seed in range(70, 74)})
    pretrain(folder / "trained_set", out=folder / "run", overrides=SETTINGS)
    weights = {name: value.contiguous() for name, value in seeded_backbone("resnet18", 5).state_dict().items()}
    save_file(weights, folder / "foreign.safetensors")
    return folder


def evaluated(folder: Path, tmp_path: Path, *weights: str | Path, dataset: str = "tested_set", **settings: Any) -> EvaluationResult:
    names = [str(folder / word) if (folder / word).exists() else str(word) for word in weights]
    out = tmp_path / "out"
    return evaluate("knn", folder / dataset, weights=names, out=out, image_size=SIZE, folds=2, overwrite=out.exists(), **settings)


def overlap_of(result: EvaluationResult, name: str) -> dict[str, Any]:
    return next(entry for entry in result.summary["overlap"]["weights"] if entry["name"] == name)


def test_copies_are_refused_by_name_before_anything_is_made(folder: Path, tmp_path: Path) -> None:
    for weights in ("run", "run/export/backbone.safetensors", "run/checkpoints/last/model.safetensors"):
        with pytest.raises(UserError, match="refused, because 2 of 8 clips are not new to") as caught:
            evaluated(folder, tmp_path, "random", weights)
        message = str(caught.value)
        assert "2 stand in what it was trained on" in message
        assert re.search(r"'tested/crop_mp4' \(content [01]\.\d\d\) as 'trained/1_mp4', 'tested/small_mp4' \(content [01]\.\d\d\)", message)
        assert "--without-overlap" in message
        assert f"--allow-overlap {Path(weights).name}" in message
        assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_an_overlap_is_allowed_by_name_and_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--allow-overlap rum: is not among the weights; did you mean 'run'\?"):
        evaluated(folder, tmp_path, "run", allow_overlap=["rum"])
    result = evaluated(folder, tmp_path, "random", "run", allow_overlap=["run"])
    assert result.summary["dataset"]["videos"] == 8
    entry = overlap_of(result, "run")
    assert (entry["handling"], entry["level"], entry["trained_clips"]) == ("allowed", "clips", 4)
    assert {seen["video_id"] for seen in entry["seen"]} == COPIES
    assert overlap_of(result, "random") == {
        **entry,
        "name": "random",
        "level": "none",
        "trained_clips": 0,
        "seen": [],
        "handling": None,
        "patients": None,
    }
    said = "Figures of run are optimistic: 2 of 8 clips are not new to it (2 stand in what it was trained on)."
    assert said in result.summary["notes"]
    assert said in (result.folder / "report.html").read_text()
    name = "run (optimistic: has seen test clips)"
    assert [(entry["name"], entry["optimistic"]) for entry in result.summary["weights"]] == [("random", False), (name, True)]
    assert set(result.predictions["weights"]) == {"random", name}
    assert {(each["weights"], each["optimistic"]) for each in result.summary["differences"]} == {(name, True)}
    assert not [line for line in answer_of_all([read_evaluations([result.folder])[0]] * 2) if line.startswith("Of ")]
    assert str(folder) not in (result.folder / "evaluation.json").read_text()


def test_left_out_are_the_copies_and_their_groups_for_all_weights(folder: Path, tmp_path: Path) -> None:
    result = evaluated(folder, tmp_path, "random", "run", without_overlap=True)
    for _, part in result.predictions.groupby("weights"):
        assert set(part["video_id"]) == {f"tested/new{seed}_mp4" for seed in range(60, 65)}
    assert result.summary["overlap"]["left_out"]["clips"] == 3, "the sibling of a copied clip goes with it"
    assert result.summary["overlap"]["left_out"]["groups"] == 2
    told = " ".join(result.summary["notes"])
    assert "3 of 8 clips (2 groups) are left out for all weights: 2 not new to run, and the rest of their groups." in told
    assert "optimistic" not in told
    # What is allowed by name stays in, whatever the others leave out.
    kept = evaluated(folder, tmp_path / "kept", "run", allow_overlap=["run"], without_overlap=True)
    assert kept.summary["dataset"]["videos"] == 8
    with pytest.raises(UserError, match="no two classes are left"):
        evaluated(
            folder, tmp_path / "few", "run", without_overlap=True, where=["video_id=tested/small_mp4|tested/crop_mp4|tested/sibling_mp4"]
        )


def test_a_copy_that_is_not_evaluated_taints_its_patient_all_the_same(folder: Path, tmp_path: Path) -> None:
    """Neither a filter nor a missing label hides that a clip's patient was trained on."""
    for where in ("video_id!=tested/small_mp4", "video_id=tested/sibling_mp4|tested/new60_mp4|tested/new61_mp4|tested/new62_mp4"):
        settings = {"where": [where, "video_id!=tested/crop_mp4"]}
        with pytest.raises(
            UserError, match=r"1 of \d clips are not new to run: 1 is of a group in it \('tested/sibling_mp4' \(same group\)"
        ):
            evaluated(folder, tmp_path, "random", "run", **settings)
    clips = {"small.mp4": (smaller_and_brighter(tissue(0)), "q0", ""), "sibling.mp4": (tissue(50), "q0", "sick")}
    clips |= {f"new{seed}.mp4": (tissue(seed), f"q{seed}", "sick" if seed % 2 else "well") for seed in range(60, 64)}
    build_scans(tmp_path, "unlabelled", clips)
    weights = ["random", str(folder / "run")]
    with pytest.raises(UserError, match="1 of 5 clips are not new to run"):
        evaluate("knn", tmp_path / "unlabelled_set", weights=weights, out=tmp_path / "out", image_size=SIZE, folds=2)
    result = evaluate(
        "knn", tmp_path / "unlabelled_set", weights=weights, out=tmp_path / "out", image_size=SIZE, folds=2, without_overlap=True
    )
    assert set(result.predictions["video_id"]) == {f"unlabelled/new{seed}_mp4" for seed in range(60, 64)}


def test_strangers_pass_and_it_is_said_what_was_compared(folder: Path, tmp_path: Path) -> None:
    result = evaluated(folder, tmp_path, "run", dataset="strangers_set")
    assert overlap_of(result, "run")["seen"] == []
    assert not any("run" in note for note in result.summary["notes"])
    assert "None of the clips stands in what run was trained on" in (result.folder / "report.html").read_text()


def test_other_clips_of_a_patient_are_refused_too(folder: Path, tmp_path: Path) -> None:
    clips = {f"{seed}.mp4": (tissue(seed), f"p{seed - 90}", "sick" if seed % 2 else "well") for seed in range(92, 97)}
    build_scans(tmp_path, "later", clips, source="trained")
    with pytest.raises(UserError, match=r"2 of 5 clips are not new to run: 2 are of patients in it \('trained/92_mp4' \(same patient\) as"):
        evaluated(tmp_path, tmp_path, folder / "run", dataset="later_set")
    result = evaluated(tmp_path, tmp_path, folder / "run", dataset="later_set", allow_overlap=["run"])
    assert {seen["kind"] for seen in overlap_of(result, "run")["seen"]} == {"patient"}


def test_a_chain_of_runs_remembers_its_beginning(folder: Path, tmp_path: Path) -> None:
    pretrain(folder / "strangers_set", out=tmp_path / "second", overrides=[*SETTINGS, "labels.weight=0.2"], init_from=folder / "run")
    with pytest.raises(UserError, match="2 of 8 clips are not new to second"):
        evaluated(folder, tmp_path, tmp_path / "second")
    with pytest.raises(UserError, match="4 of 4 clips are not new to second"):
        evaluated(folder, tmp_path, tmp_path / "second", dataset="strangers_set")
    result = evaluated(folder, tmp_path, tmp_path / "second", dataset="strangers_set", allow_overlap=["second"])
    assert any("of 4 the label was trained on too" in note for note in result.summary["notes"])
    # A run that was killed is no finished run, and its checkpoint is known all the same.
    shutil.rmtree(tmp_path / "second" / "export")
    with pytest.raises(UserError, match=r"2 of 8 clips are not new to model\.safetensors"):
        evaluated(folder, tmp_path, tmp_path / "second/checkpoints/last/model.safetensors")


def test_foreign_weights_are_said_to_be_unknown_and_may_be_told_of(folder: Path, tmp_path: Path) -> None:
    result = evaluated(folder, tmp_path, "random", "foreign.safetensors")
    notes = [note for note in result.summary["notes"] if "foreign" in note]
    assert len(notes) == 1
    assert notes[0].startswith("It is not known what foreign.safetensors was trained on: --pretraining-set foreign.safetensors=SET")
    for text in (str(folder / "trained_set"), f"foreign.safetensors={folder / 'trained_set'}"):
        with pytest.raises(UserError, match=r"2 of 8 clips are not new to foreign\.safetensors"):
            evaluated(folder, tmp_path, "random", "foreign.safetensors", pretraining_sets=[text])
    result = evaluated(folder, tmp_path / "2", "foreign.safetensors", pretraining_sets=[str(folder / "strangers_set")])
    assert overlap_of(result, "foreign.safetensors")["level"] == "clips"
    assert [each["name"] for each in overlap_of(result, "foreign.safetensors")["pretraining_sets"]] == ["strangers"]
    assert not any("foreign" in note for note in result.summary["notes"])
    for text, message in ((f"run={folder / 'trained_set'}", "names no weights 'run'"), (str(folder / "gone"), "no such data set folder")):
        with pytest.raises(UserError, match=message):
            evaluated(folder, tmp_path / "3", "foreign.safetensors", pretraining_sets=[text])
    with pytest.raises(UserError, match="tells nothing new"):
        evaluated(folder, tmp_path / "3", "run", pretraining_sets=[str(folder / "trained_set")])


def test_runs_that_start_from_foreign_weights_say_so(folder: Path, tmp_path: Path) -> None:
    pretrain(folder / "trained_set", out=tmp_path / "run", overrides=SETTINGS, init_from=folder / "foreign.safetensors")
    result = evaluated(folder, tmp_path, tmp_path / "run", dataset="strangers_set")
    assert "run started from weights of which it is not known what they were trained on." in result.summary["notes"]


def test_an_export_alone_knows_the_digests_of_its_files(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "run/export/backbone.safetensors", tmp_path / "alone.safetensors")
    result = evaluated(folder, tmp_path, tmp_path / "alone.safetensors")
    assert overlap_of(result, "alone.safetensors")["level"] == "files"
    assert any("some is known by the digests of files alone" in note for note in result.summary["notes"])
    raw = folder / "trained"
    clips = {f"{seed}.mp4": (raw / f"{seed}.mp4", f"x{seed}", "sick" if seed % 2 else "well") for seed in range(4)}
    build_scans(tmp_path, "copied", clips)
    with pytest.raises(UserError, match=r"4 of 4 clips are not new to alone\.safetensors.*\(file 1\.00\)"):
        evaluated(tmp_path, tmp_path, tmp_path / "alone.safetensors", dataset="copied_set")


def test_of_the_pretraining_set_itself_only_the_splits_that_were_trained_on_are_seen(folder: Path, tmp_path: Path) -> None:
    weights = {name: value.contiguous() for name, value in seeded_backbone("resnet18", 5).state_dict().items()}
    about = {"dataset_digest": open_dataset(folder / "strangers_set").digest, "backbone": "resnet18"}
    for splits, seen in (("train", 4), ("test", 0)):
        save_file(weights, tmp_path / "old.safetensors", metadata={**about, "splits": splits})
        result = evaluated(folder, tmp_path, tmp_path / "old.safetensors", dataset="strangers_set", allow_overlap=["old.safetensors"])
        assert len(overlap_of(result, "old.safetensors")["seen"]) == seen


def test_a_damaged_record_is_one_line(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    record = tmp_path / "run" / "trained_on.parquet"
    record.write_bytes(record.read_bytes()[:-100])
    with pytest.raises(
        UserError, match=r"trained_on\.parquet: cannot be read as the record of the clips.*copy it again from where the run"
    ):
        evaluated(folder, tmp_path, tmp_path / "run")
    assert not (tmp_path / "out").exists()


def test_the_command_line(folder: Path, tmp_path: Path) -> None:
    command = [
        "evaluate",
        "knn",
        str(folder / "tested_set"),
        "--weights",
        str(folder / "run"),
        "--out",
        str(tmp_path / "out"),
        "--folds",
        "2",
    ]
    run = CliRunner()
    refused = run.invoke(app, command)
    assert refused.exit_code == 2
    (line,) = [line for line in refused.output.splitlines() if line.startswith("error: ")]
    assert "2 of 8 clips are not new to run" in line
    assert run.invoke(app, [*command, "--pretraining-set", str(folder / "gone")]).exit_code == 2
    allowed = run.invoke(app, [*command, "--allow-overlap", "run"])
    assert allowed.exit_code == 0
    assert "note: Figures of run are optimistic: 2 of 8 clips" in " ".join(allowed.output.split())
    without = run.invoke(app, [*command, "--without-overlap", "--overwrite", "--json"])
    assert without.exit_code == 0
    assert json.loads(without.stdout)["overlap"]["left_out"] == {"clips": 3, "groups": 2, "frames": 18}
