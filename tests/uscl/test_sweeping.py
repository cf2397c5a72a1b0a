"""Sweeps: what runs, under which names, how it goes on, and the figures over the seeds."""

from __future__ import annotations

import json
import os
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import uscl
from tests.uscl.tiny_set import TINY_NETWORK, metrics_of, write_set
from uscl import run_folder, sweeping
from uscl.cli import app
from uscl.config import Config, config_yaml
from uscl.sweeping import FIGURES, read_values, sweep
from usdata.errors import Stopped, UserError
from usdata.files import sha256_file
from usdata.manifest import open_dataset

FEW = [TINY_NETWORK, "image_size=16", "epochs=1", "batch_size=2", "device=cpu", "checkpoint.log_every_steps=1", "tensorboard=off"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "set", frames_per_video=(2,) * 6, labels=("a", "b"))


def names(*values: str, sweep: Any = (), seeds: Any = None, recipe: list[str] | None = None) -> list[str]:
    varied, chosen = sweeping._varied(values or sweep, seeds, FEW)
    return [run.name for run, _, _ in sweeping._plans(recipe or ["uscl"], varied, chosen, FEW)]


def test_two_by_two_stopped_continued_and_widened(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "runs"
    append = run_folder.append_metrics

    def append_and_signal(folder: Path, line: dict[str, Any]) -> None:
        append(folder, line)
        if (folder.name, line["step"]) in (("temperature=0.1,seed=0", 3), ("temperature=0.5,seed=0", 1)):
            os.kill(os.getpid(), signal.SIGTERM)

    asked: dict[str, Any] = {"sweep": ["temperature=0.1,0.5"], "overrides": FEW}
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "append_metrics", append_and_signal)
        # In the last step of a run, which then ends, and in the midst of one.
        with pytest.raises(Stopped, match=r"^the sweep was stopped by SIGTERM after run 1 of 4: run the same command again$"):
            sweep(dataset, out=out, seeds=2, **asked)
        with pytest.raises(Stopped, match=r"in run 3 of 4, temperature=0\.5,seed=0 \(stopped by SIGTERM after step 2.*\): run the same"):
            sweep(dataset, out=out, seeds=2, **asked)
    finished = ["temperature=0.1,seed=0", "temperature=0.1,seed=1"]
    assert [json.loads((out / name / "run.json").read_text())["status"] for name in finished] == ["finished"] * 2
    before = {name: (out / name / "run.json").stat().st_mtime_ns for name in finished}
    planned = sweep(dataset, out=out, seeds=2, dry_run=True, **asked)
    assert [run.status for run in planned.runs] == ["finished", "finished", "begun", "planned"]

    result = sweep(dataset, out=out, seeds=2, **asked)
    assert before == {name: (out / name / "run.json").stat().st_mtime_ns for name in finished}
    assert [run.name for run in result.runs] == [*finished, "temperature=0.5,seed=0", "temperature=0.5,seed=1"]
    assert [(run.status, run.steps) for run in result.runs] == [("finished", 3)] * 4
    # What was stopped is what an undisturbed run of the same settings is.
    uscl.pretrain(dataset, out=tmp_path / "alone", overrides=[*FEW, "temperature=0.5", "seed=0"])
    weights = "export/backbone.safetensors"
    assert sha256_file(out / "temperature=0.5,seed=0" / weights) == sha256_file(tmp_path / "alone" / weights)
    # The figures, counted by hand.
    for combination in ("temperature=0.1", "temperature=0.5"):
        last = [metrics_of(out / f"{combination},seed={seed}")[-1] for seed in (0, 1)]
        for figure in FIGURES:
            spread = result.spread(combination, figure)
            values = [line[figure] for line in last]
            assert spread is not None
            assert (spread.mean, spread.sd) == pytest.approx((sum(values) / 2, statistics.stdev(values)))
            assert (spread.min, spread.max) == (min(values), max(values))

    # Wider: what is there stays, in the folder and in sweep.json.
    wider = sweep(dataset, out=out, seeds=1, sweep={"temperature": [0.5, 1]}, overrides=FEW)
    assert [run.name for run in wider.runs] == ["temperature=0.5,seed=0", "temperature=1.0,seed=0"]
    record = json.loads((out / "sweep.json").read_text())
    assert sorted(record["runs"]) == sorted([*(run.name for run in result.runs), "temperature=1.0,seed=0"])
    assert record["asked"] == {"recipes": ["uscl"], "overrides": FEW, "sweep": {"temperature": [0.5, 1]}, "seeds": [0]}
    assert record["dataset"] == {"name": "tiny", "digest": open_dataset(dataset).digest}
    assert str(tmp_path) not in (out / "sweep.json").read_text()
    spread = wider.spread("temperature=1.0", "loss")
    assert spread is not None
    assert spread.sd is None
    with pytest.raises(UserError, match=r"these keys differ: epochs \(was 1, is 2\)"):
        sweep(dataset, out=out, seeds=2, sweep=["temperature=0.5,3"], overrides=[*FEW, "epochs=2"])
    assert not (out / "temperature=3.0,seed=0").exists()  # all are checked before the first one starts
    other = write_set(tmp_path / "other", frames_per_video=(3,) * 6)
    with pytest.raises(UserError, match="holds a sweep over another data set"):
        sweep(other, out=out, seeds=2, **asked)


def test_one_that_diverges_stops_no_other(dataset: Path, tmp_path: Path) -> None:
    command = ["pretrain", str(dataset), "--out", str(tmp_path / "runs"), *(word for each in FEW for word in ("--set", each))]
    command += ["--sweep", "learning_rate=1e+30,1e-4", "--set", "probe.every_epochs=0"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2, done.output
    text = done.stdout.splitlines()
    assert text[0].split() == ["runs", "mean", "sd", "min", "max"]
    assert text[1] == "loss"
    assert text[2].split() == ["learning_rate=1e+30", "0/1", "-", "-", "-", "-"]
    assert text[3].split()[:2] == ["learning_rate=0.0001", "1/1"]
    assert "failed: learning_rate=1e+30: " in done.stdout
    assert "no longer finite" in done.stdout
    assert "no evaluation" in text[-2]
    assert "sweep: 2 of learning_rate = 2 runs of 3 steps, 6 in all" in done.stderr
    again = CliRunner().invoke(app, [*command, "--json"])
    assert again.exit_code == 2
    found = json.loads(again.stdout)
    assert [run["status"] for run in found["runs"]] == ["failed", "finished"]
    assert [each["finished"] for each in found["combinations"]] == [0, 1]
    assert found["combinations"][0]["figures"]["loss"] is None
    assert found["combinations"][1]["figures"]["loss"]["sd"] is None


def test_names_are_readable_safe_and_in_one_order() -> None:
    listed = names("pairs.policy=uscl,ppi", "temperature=0.5,1e-1", seeds=1)
    policies = ("uscl", "ppi")
    assert listed == [f"temperature={temperature},pairs.policy={policy},seed=0" for temperature in (0.5, 0.1) for policy in policies]
    assert listed == names("temperature=0.5,0.1", "pairs.policy=uscl,ppi", seeds=1)
    assert names("augment.scale=[0.2,1.0],[0.8,1.0]") == ["augment.scale=0.2+1.0", "augment.scale=0.8+1.0"]
    assert names(sweep={"compile": [False], "store.size": [None, 16]}) == ["compile=off,store.size=null", "compile=off,store.size=16"]
    recipes = ["uscl", "simclr"]
    assert names(recipe=recipes, seeds=2) == [f"recipe={recipe},seed={seed}" for recipe in recipes for seed in (0, 1)]
    assert names("seed=3,7") == names(seeds=[3, 7]) == ["seed=3", "seed=7"]
    assert names(sweep={"store.folder": ["/a b/c;d"]}) == ["store.folder=-a-b-c-d"]
    assert names("own.margin=0.1,0.2", "method=mine:Ours") == ["method=mine-Ours,own.margin=0.1", "method=mine-Ours,own.margin=0.2"]
    (long,) = names(sweep={"store.folder": ["x" * 400]}, seeds=1)
    assert len(long) < 180
    assert long.endswith(",seed=0")


def test_what_is_resolved_is_what_was_asked() -> None:
    plans = sweeping._plans(["uscl"], {"augment.scale": [[0.2, 1.0]], "learning_rate": [1e-05], "store.folder": ["a: [b, 'c']"]}, None, FEW)
    ((_, _, config),) = plans
    assert (config.augment.scale, config.learning_rate, config.store.folder) == ((0.2, 1.0), 1e-05, "a: [b, 'c']")
    assert read_values("pairs.splits=[train], [train,val]") == ("pairs.splits", [["train"], ["train", "val"]])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs something to vary"),
        ({"seeds": 0}, "--seeds 0: is none"),
        ({"sweep": ["temperature"]}, "has no '='"),
        ({"sweep": ["temperature="]}, "has no values"),
        ({"sweep": ["temperature=[0.1"]}, "no YAML"),
        ({"sweep": ["temperatur=0.1,0.2"]}, "did you mean 'temperature'"),
        ({"sweep": ["temperature=0.1,-1"]}, "--sweep temperature=-1: 'temperature' is -1"),
        ({"sweep": ["temperature=0.1,0.10"]}, r"has two runs named temperature=0\.1"),
        ({"sweep": ["temperature=0.1", "temperature=0.2"]}, "is given twice"),
        ({"sweep": ["pairs={alpha: 0.5}"]}, "is a whole section"),
        ({"sweep": ["epochs=1,2"]}, "--set epochs: is varied by the sweep too"),
        ({"sweep": ["seed=1,2"], "seeds": 2}, "both choose the seeds"),
        ({"recipe": ["uscl", "usc"]}, "did you mean 'uscl'"),
        ({"recipe": ["uscl", "uscl"]}, "two runs named recipe=uscl"),
        ({"sweep": ["method=uscl,nowhere:Ours"]}, "there is no module 'nowhere'"),
        ({"seeds": 2, "init_from": "nowhere.safetensors"}, "nowhere"),
        ({"sweep": ["pairs.exclude_same_group=true,false"], "out": "run"}, "is the folder of a run"),
        ({"sweep": ["batch_size=3,1"]}, "batch_size"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(dataset: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(config_yaml(Config()))
    few = [each for each in FEW if "batch_size" not in str(options) or not each.startswith("batch_size")]
    with pytest.raises(UserError, match=words) as caught:
        sweep(dataset, **{"out": tmp_path / "x", "overrides": few} | options | {"out": tmp_path / options.get("out", "x")})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_the_command_lists_what_it_would_do(dataset: Path, tmp_path: Path) -> None:
    command = [
        "pretrain",
        str(dataset),
        "--out",
        str(tmp_path / "runs"),
        "--seeds",
        "2",
        *(word for each in FEW for word in ("--set", each)),
    ]
    done = CliRunner().invoke(app, [*command, "--dry-run"])
    assert (done.exit_code, done.stdout) == (0, "seed=0  3 steps  planned\nseed=1  3 steps  planned\n")
    assert "sweep: 2 seeds = 2 runs of 3 steps, 6 in all" in done.stderr
    refused = CliRunner().invoke(app, [*command, "--overwrite"])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "sweep.json").write_text("{")
    assert "sweep.json: is damaged" in CliRunner().invoke(app, command).stderr


def test_several_processes_are_refused(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails in one process alone would leave the others waiting for it in the next."""
    monkeypatch.setattr(sweeping.processes, "world_size", lambda: 2)
    with pytest.raises(UserError, match="a sweep: is one process, and torchrun started several"):
        sweep(dataset, out=tmp_path / "runs", seeds=2)
