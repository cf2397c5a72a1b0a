"""A validation and a rebuild as a person and a script meet them: 80 columns, exit codes, JSON."""

import json
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tests.command_lines import run_here
from usdata import manifest
from usdata.building import build
from usdata.manifest import FRAMES
from usdata.phantoms import phantom
from usdata.validating import Promise, ValidationResult
from usdata.validating.terminal import print_validation


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_here("usdata", *arguments)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal")
    raw = phantom(folder / "raw", videos=3, seed=5, size=160, frames=24).out
    return build("phantom", raw=raw, out=folder / "set", workers=1).out


def test_exit_codes_and_json(built: Path, tmp_path: Path) -> None:
    told = run("validate", str(built), "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["holds"] is True
    copy = Path(shutil.copytree(built, tmp_path / "set"))
    gone = pq.read_table(copy / FRAMES).column("path")[0].as_py()
    (copy / gone).unlink()
    told = run("validate", str(copy))
    assert told.returncode == 3
    assert f"- {gone}: is missing"[:60] in " ".join(told.stdout.split())
    assert run("validate", str(tmp_path)).returncode == 2
    assert run("validate", str(copy), "--samples", "0").returncode == 2


def test_rebuild_by_the_command(built: Path, tmp_path: Path) -> None:
    tables = tmp_path / "published"
    assert run("export", str(built), "--to", "manifest", "--out", str(tables)).returncode == 0
    assert not (tables / "images").exists()
    raw = built.parent / "raw"
    told = run("rebuild", str(tables), "--raw", str(raw), "--out", str(tmp_path / "again"))
    assert told.returncode == 0, told.stderr
    for name in (*manifest.SCHEMAS, manifest.DATASET_JSON):
        assert (tmp_path / "again" / name).read_bytes() == (built / name).read_bytes()
    told = run("rebuild", str(tables), "--raw", str(raw / "nowhere"), "--out", str(tmp_path / "third"))
    assert told.returncode == 2
    assert len(told.stderr.strip().splitlines()) == 1
    (tmp_path / "other").mkdir()
    shutil.copy(raw / "labels.csv", tmp_path / "other")
    told = run("rebuild", str(tables), "--raw", str(tmp_path / "other"), "--out", str(tmp_path / "third"), "--json")
    assert told.returncode == 3
    assert len(json.loads(told.stdout)["faults"]) == len({row for row in pq.read_table(built / FRAMES).column("video_id").to_pylist()})


def test_it_reads_well_at_80_columns_and_hostile_rows_steer_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = tuple(f"images/x/\x1b[31m{number}.png: is missing" for number in range(7))
    promise = Promise("pictures", "Every picture that the tables name is there, and no other file.", 1234, "files", rows, "build it again")
    print_validation(ValidationResult("set\x1b[2J", "0" * 64, [promise], 0.1), Console(width=80, force_terminal=False))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "and 2 more" in shown
