"""Pretraining end to end on a tiny data set: what a run leaves behind, bit-exact resuming after real signals, and errors in one line."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from tests.command_lines import run_here
from tests.uscl.tiny_set import TINY_NETWORK, metrics_of, write_set
from uscl import checkpoint, run_folder, tensorboard
from uscl.config import Config, load_config
from uscl.methods import make_method
from uscl.models import load_backbone
from uscl.schedule import learning_rate
from uscl.torchvision_compat import torchvision
from uscl.train import pretrain
from usdata import manifest
from usdata.errors import EXIT_STOPPED, Stopped, UserError
from usdata.files import sha256_file
from usdata.manifest import open_dataset

SETTINGS = [
    "image_size=32",
    "epochs=3",
    "batch_size=4",
    "device=cpu",
    "checkpoint.every_epochs=1",
    "checkpoint.log_every_steps=1",
    "checkpoint.keep_every_steps=5",
]
SMALL = [*SETTINGS, TINY_NETWORK]
WEIGHTS = ("checkpoints/last/model.safetensors", "checkpoints/last/optimizer.safetensors", "export/backbone.safetensors")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    result = pretrain(dataset, out=out, overrides=SETTINGS)
    assert (result.out, result.steps, result.epochs) == (out, 6, 3)
    return out


@pytest.fixture(scope="module")
def small(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a small network, undisturbed too."""
    return pretrain(dataset, out=tmp_path_factory.mktemp("runs") / "small", overrides=SMALL).out


def assert_same_run(run: Path, reference: Path) -> None:
    for name in WEIGHTS:
        assert sha256_file(run / name) == sha256_file(reference / name), name
    assert metrics_of(run) == metrics_of(reference)
    assert (run / "config.yaml").read_bytes() == (reference / "config.yaml").read_bytes()


def test_what_a_run_leaves_behind(undisturbed: Path, dataset: Path) -> None:
    files = {path.relative_to(undisturbed).as_posix() for path in undisturbed.rglob("*") if path.is_file()}
    saved = {
        f"checkpoints/{name}/{file}"
        for name in ("last", "previous", "step-000005")
        for file in ("model.safetensors", "optimizer.safetensors", "state.json")
    }
    if tensorboard.installed():
        saved.add("tensorboard/events.out.tfevents.000001")
    records = {"config.yaml", "environment.json", "run.json", "metrics.jsonl", "log.txt", "report.html"}
    assert files == saved | records | {"trained_on.parquet", "export/backbone.safetensors", "export/README.md"}

    run = json.loads((undisturbed / "run.json").read_text())
    about = open_dataset(dataset)
    assert run["status"] == "finished"
    assert run["dataset"] == {"name": "tiny", "digest": about.digest, "splits": ["train"], "videos": 6}
    assert run["config_digest"] == load_config("uscl", SETTINGS).digest
    assert (run["steps"], run["epochs"]) == (6, 3)
    assert yaml.safe_load((undisturbed / "config.yaml").read_text())["image_size"] == 32
    for name in sorted(records):
        assert str(dataset.parent) not in (undisturbed / name).read_text()
        assert str(undisturbed) not in (undisturbed / name).read_text()

    lines = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        assert all(math.isfinite(value) for value in line.values())
        assert line["loss"] == pytest.approx(line["contrast"] + 0.2 * line["cross_entropy"], abs=1e-5)
    assert {round(line["collapsed_loss"], 6) for line in lines} == {round(math.log(7), 6), round(math.log(3), 6)}


def test_the_export_is_torchvisions_network(undisturbed: Path, dataset: Path) -> None:
    file = undisturbed / "export" / "backbone.safetensors"
    network = torchvision.models.resnet18(weights=None)
    missing, unexpected = network.load_state_dict(load_file(file), strict=False)
    assert (set(missing), unexpected) == ({"fc.weight", "fc.bias"}, [])
    network.fc = torch.nn.Identity()
    backbone, provenance = load_backbone(undisturbed)
    frames = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.eval()(frames), backbone(frames))
    trained = load_file(undisturbed / "checkpoints/last/model.safetensors")
    assert all(torch.equal(value, trained[f"backbone.{key}"]) for key, value in backbone.state_dict().items())
    from_checkpoint, _ = load_backbone(undisturbed / "checkpoints/last/model.safetensors")
    assert torch.equal(from_checkpoint.conv1.weight, backbone.conv1.weight)
    expected = {"kind": "run", "image_size": 32, "dataset_digest": open_dataset(dataset).digest, "steps": 6, "recipe": "uscl"}
    assert {key: provenance[key] for key in expected} == expected
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["splits"] == "train"
    assert "resnet18" in (undisturbed / "export" / "README.md").read_text()


def test_the_export_is_timms_network(undisturbed: Path) -> None:
    timm = pytest.importorskip("timm")  # after torchvision_compat, which lets it be imported beside a CPU build of torch
    network = timm.create_model("resnet18", pretrained=False, num_classes=0)
    network.load_state_dict(load_file(undisturbed / "export" / "backbone.safetensors"), strict=True)
    backbone, _ = load_backbone(undisturbed)
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(network.eval()(frames), backbone(frames), rtol=0, atol=1e-5)


def test_training_changes_the_weights_as_adam_does(undisturbed: Path) -> None:
    """Adam's first steps move a weight by about the learning rate each, never by more than a few of them."""
    start = make_method(load_config("uscl", SETTINGS), 2)[0].state_dict()
    end = load_file(undisturbed / "checkpoints/last/model.safetensors")
    moved = (end["backbone.conv1.weight"] - start["backbone.conv1.weight"]).abs()
    assert 3e-4 < moved.max() < 6 * 3e-4 * 1.5
    assert end["backbone.bn1.num_batches_tracked"] == 6


def test_the_same_command_gives_the_same_run(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    pretrain(dataset, out=tmp_path / "run", overrides=SETTINGS)
    assert_same_run(tmp_path / "run", undisturbed)
    other = pretrain(dataset, out=tmp_path / "other", overrides=[*SETTINGS, "seed=1", "epochs=1"])
    assert other.metrics["loss"] != metrics_of(undisturbed)[1]["loss"]


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 1), pytest.param(signal.SIGINT, 4, marks=pytest.mark.slow)])
def test_stopped_by_a_signal_and_resumed(
    dataset: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, step: int
) -> None:
    append = run_folder.append_metrics

    def append_and_signal(out: Path, line: dict[str, Any]) -> None:
        append(out, line)
        if line["step"] == step:
            os.kill(os.getpid(), number)

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "append_metrics", append_and_signal)
        with pytest.raises(Stopped, match=f"{number.name} after step {step + 1}.*--resume"):
            pretrain(dataset, out=tmp_path / "run", overrides=SETTINGS)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert Stopped.exit_code == EXIT_STOPPED
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["status"], run["steps"], run["export"]) == ("stopped", step + 1, None)
    result = pretrain(dataset, out=tmp_path / "run", overrides=SETTINGS, resume=True)
    assert result.steps == 6
    assert_same_run(tmp_path / "run", undisturbed)


KILLED_IN_STEP = """
from uscl import run_folder
append = run_folder.append_metrics
def kill_after(out, line):
    append(out, line)
    if line["step"] == 5:
        (out / "metrics.jsonl").open("a").write('{"step": 6, "lo')
        os.kill(os.getpid(), signal.SIGKILL)
run_folder.append_metrics = kill_after
"""
KILLED_BETWEEN_RENAMES = """
import pathlib
rename = pathlib.Path.rename
def kill_before(self, target):
    if self.name == ".last.part" and (self.parent / "previous").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
pathlib.Path.rename = kill_before
"""


# A fork each of one process that has imported everything and started nothing: to start is what costs most.
KILLED = """
import json, os, signal, sys
import uscl.torchvision_compat, timm
from uscl.train import pretrain
dataset, overrides, *deaths = json.loads(sys.argv[1])
ends = []
for how, run in deaths:
    child = os.fork()
    if child == 0:
        try:
            exec(how)
            pretrain(dataset, out=run, overrides=overrides)
        finally:
            os._exit(1)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""
DEATHS = {"in a step": KILLED_IN_STEP, "between two renames": KILLED_BETWEEN_RENAMES}


@pytest.fixture(scope="module")
def killed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    arguments = json.dumps([str(dataset), SMALL, *((how, str(folder / name)) for name, how in DEATHS.items())])
    done = subprocess.run([sys.executable, "-c", KILLED, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [-signal.SIGKILL] * len(DEATHS), done.stderr
    return folder


@pytest.mark.parametrize("how", DEATHS)
def test_killed_for_real_and_resumed(dataset: Path, small: Path, killed: Path, how: str) -> None:
    result = pretrain(dataset, out=killed / how, overrides=SMALL, resume=True)
    assert result.steps == 6
    assert_same_run(killed / how, small)


def test_resuming_a_finished_run_changes_nothing(dataset: Path, small: Path) -> None:
    before = {name: sha256_file(small / name) for name in (*WEIGHTS, "metrics.jsonl")}
    assert pretrain(dataset, out=small, overrides=SMALL, resume=True).steps == 6
    assert before == {name: sha256_file(small / name) for name in before}


def test_resume_names_each_key_that_differs(dataset: Path, small: Path, tmp_path: Path) -> None:
    changed = [*SMALL, "batch_size=3", "pairs.alpha=2"]
    with pytest.raises(UserError, match=r"batch_size \(was 4, is 3\), pairs\.alpha \(was 0\.5, is 2\.0\)"):
        pretrain(dataset, out=small, overrides=changed, resume=True)
    other = write_set(tmp_path / "other", frames_per_video=[5] * 6)
    with pytest.raises(UserError, match="another data set"):
        pretrain(other, out=small, overrides=SMALL, resume=True)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is no run"):
        pretrain(dataset, out=tmp_path / "strange", overrides=SMALL, resume=True)
    with pytest.raises(UserError, match=r"is no run.*nothing was deleted"):
        pretrain(dataset, out=tmp_path / "strange", overrides=SMALL, overwrite=True)
    # A real run beside which, or inside which, something else lies.
    for place in ("thesis.tex", "checkpoints/thesis.tex"):
        mixed = tmp_path / place.replace("/", "-")
        shutil.copytree(small, mixed)
        (mixed / place).write_text("years of work")
        with pytest.raises(UserError, match=r"thesis\.tex.*nothing was deleted"):
            pretrain(dataset, out=mixed, overrides=SMALL, overwrite=True)
        assert (mixed / place).exists()
    assert (tmp_path / "strange" / "thesis.tex").exists()


def test_the_export_says_which_clips_were_seen_and_a_resume_keeps_what_it_started_from(tmp_path: Path) -> None:
    small = [TINY_NETWORK, "image_size=32", "batch_size=4", "epochs=1", "labels.weight=0"]
    one = write_set(tmp_path / "one", frames_per_video=(3,) * 6)
    two = write_set(tmp_path / "two", frames_per_video=(4,) * 6)
    for folder, digits in ((one, "a"), (two, "b")):
        videos = manifest.read_table(folder, manifest.VIDEOS).to_pylist()
        for number, video in enumerate(videos):
            video["sha256"] = f"{digits}{number}"
        manifest.write_table(folder, manifest.VIDEOS, manifest.table_from_rows(manifest.VIDEOS, videos), recipe_digest="tiny")
        manifest.write_about(folder, {"name": "tiny", "classes": ["a", "b"]})
    pretrain(one, out=tmp_path / "run1", overrides=small)
    pretrain(two, out=tmp_path / "run2", overrides=small, init_from=tmp_path / "run1")
    seen = [f"{digits}{number}" for digits in "ab" for number in range(6)]
    assert load_backbone(tmp_path / "run2")[1]["clips"] == seen
    pretrain(two, out=tmp_path / "run2", overrides=small, resume=True)
    assert load_backbone(tmp_path / "run2")[1]["clips"] == seen
    with pytest.raises(UserError, match="--init-from"):
        pretrain(two, out=tmp_path / "run2", overrides=small, resume=True, init_from=tmp_path / "run2")


def test_a_folder_in_use_needs_a_word(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not empty; go on with --resume"):
        pretrain(dataset, out=undisturbed, overrides=SETTINGS)
    with pytest.raises(UserError, match="exclude each other"):
        pretrain(dataset, out=undisturbed, resume=True, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        pretrain(dataset, out=tmp_path / "file", overrides=SETTINGS)


def test_overwriting_starts_anew_and_initial_weights_are_taken(dataset: Path, small: Path, undisturbed: Path, tmp_path: Path) -> None:
    few = [*SMALL, "epochs=1", "learning_rate=1e-30", "weight_decay=0"]
    out = tmp_path / "run"
    pretrain(dataset, out=out, overrides=few)
    pretrain(dataset, out=out, overrides=few, overwrite=True, init_from=small)
    assert len(metrics_of(out)) == 2
    trained, initial = load_backbone(out)[0].state_dict(), load_backbone(small)[0].state_dict()
    # At a learning rate of nothing only BatchNorm's statistics move.
    assert all(torch.equal(trained[key], initial[key]) for key in trained if not re.search("running|tracked", key))
    run = json.loads((out / "run.json").read_text())
    assert run["initial_weights"]["kind"] == "run"
    with pytest.raises(UserError, match="is a resnet18, and the run's backbone is resnet34"):
        pretrain(dataset, out=tmp_path / "wrong", overrides=[*few, "backbone=resnet34"], init_from=undisturbed)
    assert not (tmp_path / "wrong").exists()


def test_a_damaged_checkpoint_is_one_line(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = [*SMALL, "epochs=1"]
    pretrain(dataset, out=out, overrides=few)
    weights = out / "checkpoints/last/optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"no checkpoint can be used.*--overwrite"):
        pretrain(dataset, out=out, overrides=few, resume=True)
    (out / "checkpoints/last/state.json").write_text("{}")
    with pytest.raises(UserError, match=r"no checkpoint can be used"):
        pretrain(dataset, out=out, overrides=few, resume=True)


def test_a_dry_run_writes_nothing(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = pretrain(dataset, out=tmp_path / "run", overrides=SETTINGS, dry_run=True)
    assert (result.steps, result.metrics) == (6, {})
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr()
    assert "2 steps an epoch x 3 epochs = 6 steps" in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("frames", "labels", "overrides"),
    [
        ([4, 4, 4], [], ["pairs.distinct_groups=false"]),
        ([4], ["a"], []),
        ([1, 1, 2], ["a", None, "b"], ["pairs.distinct_groups=false"]),
        ([3, 1, 2, 5, 4], [None], ["pairs.distinct_groups=false", "pairs.exclude_same_group=true", "pairs.order=augment-then-mix"]),
        ([4, 4, 4, 4], ["a", "b"], ["labels.classifier_on=projections", "precision=bfloat16"]),
        ([4, 4, 4], ["a", None, None], ["pairs.distinct_groups=false", "pairs.policy=ppi", "pairs.max_distance_s=0.2", "augment.blur=0.5"]),
    ],
    ids=["no labels", "one video", "one or two frames", "published order, groups left out", "bfloat16", "ppi"],
)
def test_odd_sets_train_to_finite_losses(tmp_path: Path, frames: list[int], labels: list[str | None], overrides: list[str]) -> None:
    data = write_set(tmp_path / "set", frames_per_video=frames, labels=labels, groups=[f"p{video // 2}" for video in range(len(frames))])
    few = [TINY_NETWORK, "image_size=32", "epochs=2", "batch_size=3", "device=cpu", "checkpoint.log_every_steps=1", *overrides]
    result = pretrain(data, out=tmp_path / "run", overrides=few)
    lines = metrics_of(tmp_path / "run")
    assert result.steps == len(lines) >= 2
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert ("cross_entropy" in lines[0]) == any(label is not None for label in labels)
    if len(frames) == 1:
        assert all(line["contrast"] == 0 for line in lines)


@pytest.mark.parametrize(("labels", "next_command"), [([None], "uscl embed"), (["a"], "uscl embed"), (["a", "b"], "uscl evaluate")])
def test_the_next_command_is_one_that_works_with_this_set(tmp_path: Path, labels: list[str | None], next_command: str) -> None:
    data = write_set(tmp_path / "set", labels=labels, groups=[f"p{video}" for video in range(6)])
    settings = [word for override in [*SMALL, "epochs=1"] for word in ("--set", override)]
    done = run_here("uscl", "pretrain", data, "--out", tmp_path / "run", *settings)
    assert done.returncode == 0, done.stderr
    assert f"next: {next_command}" in done.stdout


def test_batches_without_negatives_are_refused_before_anything_is_written(dataset: Path, tmp_path: Path) -> None:
    for override, key in (("batch_size=1", "batch_size"), ("batch_size=5", "batch_size")):
        with pytest.raises(UserError, match=f"^{key}: is "):
            pretrain(dataset, out=tmp_path / "run", overrides=[*SETTINGS, override])
    one_group = write_set(tmp_path / "set", groups=["p"] * 6)
    with pytest.raises(UserError, match=r"^pairs\.distinct_groups"):
        pretrain(one_group, out=tmp_path / "run", overrides=[*SETTINGS, "pairs.distinct_groups=true"])
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_longer_finite_stops_the_run(dataset: Path, tmp_path: Path) -> None:
    wild = [*SMALL, "learning_rate=1e30", "epochs=20"]
    with pytest.raises(UserError, match=r"no longer finite at step.*lower learning_rate"):
        pretrain(dataset, out=tmp_path / "run", overrides=wild)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert run["status"] == "failed"
    assert set(failure["videos"]) <= {f"tiny/clip{video:03d}" for video in range(6)}
    assert not (tmp_path / "run" / "export").exists()
    # The weights before that step, from which it can be taken again.
    position = checkpoint.verify(tmp_path / "run" / "checkpoints" / "failed")
    assert position.step + 1 == failure["step"]
    weights = load_file(tmp_path / "run" / "checkpoints" / "failed" / "model.safetensors")
    again = shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(again / "checkpoints" / "last", ignore_errors=True)
    (again / "checkpoints" / "failed").rename(again / "checkpoints" / "last")
    with pytest.raises(UserError, match=f"no longer finite at step {failure['step']}"):
        pretrain(dataset, out=again, overrides=wild, resume=True)
    same = load_file(again / "checkpoints" / "failed" / "model.safetensors")
    assert all(torch.equal(value, weights[key]) for key, value in same.items())


def test_a_collapsed_run_says_so(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames that are all black give equal features, whatever the weights."""
    black = write_set(tmp_path / "black", labels=[])
    for image in black.rglob("*.png"):
        write_black(image)
    pretrain(black, out=tmp_path / "run", overrides=[*SMALL, "epochs=1"])
    assert "collapsed: all frames give the same features" in capsys.readouterr().err
    assert "collapsed" in (tmp_path / "run" / "log.txt").read_text()


def write_black(path: Path) -> None:
    import cv2
    import numpy as np

    assert cv2.imwrite(str(path), np.zeros((40, 48), dtype=np.uint8))


def test_pretraining_in_a_thread_leaves_signals_alone(dataset: Path, tmp_path: Path) -> None:
    results = []
    few = [*SMALL, "epochs=1"]
    thread = threading.Thread(target=lambda: results.append(pretrain(dataset, out=tmp_path / "run", overrides=few)))
    thread.start()
    thread.join()
    assert results[0].steps == 2


def test_a_missing_gpu_and_an_unknown_method(dataset: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="finds no GPU"):
            pretrain(dataset, out=tmp_path / "run", overrides=["device=cuda"])
    with pytest.raises(UserError, match="did you mean 'uscl'"):
        pretrain(dataset, out=tmp_path / "run", overrides=["method=usc"])
    assert not (tmp_path / "run").exists()


def test_learning_rates() -> None:
    config = Config()
    assert [learning_rate(config, epoch) for epoch in (0, 5, 9.9)] == [3e-4] * 3
    assert learning_rate(config, 10) == pytest.approx(3e-4)
    assert learning_rate(config, 155) == pytest.approx(1.5e-4)
    assert learning_rate(config, 300) == pytest.approx(0, abs=1e-18)
    # The published schedule is torch's CosineAnnealingLR with T_max = epochs, begun after ten epochs.
    published = load_config("uscl-published")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=300)
    for epoch in range(10, 300):
        assert learning_rate(published, epoch) == pytest.approx(cosine.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        cosine.step()
    short = load_config("uscl", ["epochs=10"])
    assert learning_rate(short, 5) == pytest.approx(1.5e-4)
    assert learning_rate(load_config("uscl", ["schedule.name=constant"]), 299) == 3e-4


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path) -> None:
    method, _ = make_method(load_config("uscl", SMALL), 0)
    optimizer = torch.optim.Adam(method.parameters(), fused=True)
    position = checkpoint.Position(3, 1, 0, 1.5, "config", "data")
    assert checkpoint.find(tmp_path) is None
    checkpoint.save(tmp_path / "last", method, optimizer, position)
    (tmp_path / ".last.part").mkdir()
    (tmp_path / ".last.part" / "state.json").write_text("half")
    found = checkpoint.find(tmp_path)
    assert found == checkpoint.Found(tmp_path / "last", position)
    checkpoint.save(tmp_path / "last", method, optimizer, position)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["last", "previous"]
