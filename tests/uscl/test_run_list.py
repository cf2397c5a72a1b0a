"""`uscl runs`: a row a run, the broken ones too, in 80 columns, without loading torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from uscl import run_folder
from uscl import run_list as runs_module
from uscl.config import Config, config_yaml, load_config
from uscl.run_list import Row, print_runs, runs
from usdata.errors import UserError

LINE: dict[str, Any] = {"positive_similarity": 0.934, "negative_similarity": 0.105}


def write_run(
    folder: Path, *overrides: str, status: str = "finished", losses: tuple[float, ...] = (3.2, 2.5), knn: float | None = None
) -> None:
    config: Config = load_config("uscl", overrides)
    folder.mkdir(parents=True)
    (folder / run_folder.CONFIG).write_text(config_yaml(config))
    dataset = {"name": "blues", "digest": "3f2a91c07bd4" * 5}
    run_folder.write_run(folder, recipe="uscl", status=status, steps=0, epochs=0, dataset=dataset)
    for number, loss in enumerate(losses):
        line = {**LINE, "step": 10 * (number + 1), "epoch": number, "loss": loss, "views_per_s": 100.0 * (number + 1)}
        run_folder.append_metrics(folder, line if knn is None or number else {**line, "knn_accuracy": knn})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "b" / "second", "seed=1", "pairs.alpha=0.3", knn=0.6125)
    write_run(tmp_path / "a-first", losses=(3.0, 2.0, 1.0))
    write_run(tmp_path / "c-killed", status="running")
    for name in (run_folder.CONFIG, run_folder.RUN, run_folder.METRICS):
        os.utime(tmp_path / "c-killed" / name, (1, 1))
    write_run(tmp_path / "d-damaged")
    (tmp_path / "d-damaged" / run_folder.RUN).write_text('{"status": "finis')
    write_run(tmp_path / "e-going", status="running", losses=(float("nan"),))
    with (tmp_path / "e-going" / run_folder.METRICS).open("a") as file:
        file.write('{"step": 20, "los')
    write_run(tmp_path / "f-lines")
    (tmp_path / "f-lines" / run_folder.METRICS).write_text('{"step": 1, "epoch": 0, "loss": 4.0}\nnonsense\n{"step": 3}\n')
    write_run(tmp_path / "f-lost")
    (tmp_path / "f-lost" / run_folder.RUN).unlink()
    (tmp_path / "g-begun").mkdir()
    (tmp_path / "g-begun" / run_folder.CONFIG).write_text(config_yaml(Config()))
    (tmp_path / "g-begun" / run_folder.LOG).write_text("facts\n")
    # Not runs: a data set with things in it, somebody's configuration, and a link that leads back.
    write_run(tmp_path / "set" / "images" / "x")
    (tmp_path / "set" / "dataset.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("a: 1")
    (tmp_path / "link").symlink_to(tmp_path)
    return tmp_path


def test_rows_are_what_the_runs_say(folder: Path) -> None:
    rows = {row.name: row for row in runs(folder)}
    assert list(rows) == ["a-first", "b/second", "c-killed", "d-damaged", "e-going", "f-lines", "f-lost", "g-begun"]
    assert rows["b/second"] == Row(
        name="b/second",
        recipe="uscl",
        status="finished",
        steps=20,
        epochs=2,
        loss=2.5,
        positive_similarity=0.934,
        negative_similarity=0.105,
        knn_accuracy=0.6125,
        views_per_s=150.0,
        dataset_name="blues",
        dataset_digest="3f2a91c07bd4" * 5,
        differences={"pairs.alpha": 0.3, "seed": 1},
        problem=None,
    )
    assert rows["a-first"].differences == {"pairs.alpha": 0.5, "seed": 0}
    assert (rows["a-first"].loss, rows["a-first"].views_per_s) == (1.0, 200.0)
    assert [rows[name].status for name in ("c-killed", "e-going", "g-begun")] == ["silent", "running", "started"]
    assert (rows["e-going"].loss, rows["e-going"].steps) == (None, 10)
    assert (rows["d-damaged"].status, rows["d-damaged"].problem) == ("broken", "run.json is damaged")
    assert (rows["f-lost"].status, rows["f-lost"].problem) == ("broken", "run.json is missing")
    assert (rows["f-lines"].status, rows["f-lines"].problem) == ("broken", "line 2 of metrics.jsonl is damaged")
    assert rows["f-lines"].loss == 4.0


def test_one_run_can_be_asked_about(folder: Path) -> None:
    (row,) = runs(folder / "b" / "second")
    assert (row.name, row.differences) == ("second", {})


def test_eighty_columns_are_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(
        folder / ("a-name-that-is-much-longer-than-anybody-would-like-to-read-in-a-table-" * 2),
        *(f"{key}=0.25" for key in ("pairs.beta", "temperature", "weight_decay", "learning_rate", "augment.contrast")),
    )
    print_runs(runs(folder), width=80)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 80
    assert lines[0].split() == ["recipe", "status", "steps", "epochs", "loss", "similarity", "kNN", "views/s"]
    second = next(number for number, line in enumerate(lines) if line.startswith("b/second"))
    assert lines[second].split() == ["b/second", "uscl", "finished", "20", "2", "2.500", "0.93/0.10", "0.613", "150"]
    assert lines[second + 1].startswith("  blues 3f2a91c0  augment.contrast=0.8")
    assert any(line == "  run.json is damaged" for line in lines)
    print_runs(runs(folder))
    assert "weight_decay=0.25" in capsys.readouterr().out


def test_the_command_speaks_json_and_loads_no_torch(folder: Path) -> None:
    code = f"""
import sys
from uscl.cli import app
try:
    app(["runs", {str(folder)!r}, "--json"])
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == [row.name for row in runs(folder)]
    assert rows[1]["differences"] == {"pairs.alpha": 0.3, "seed": 1}


def test_names_are_those_of_the_run_folder() -> None:
    for name in ("CONFIG", "RUN", "METRICS", "LOG"):
        assert getattr(runs_module, name) == getattr(run_folder, name)


def test_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        runs(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        runs(tmp_path / "absent")
