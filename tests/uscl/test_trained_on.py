"""What a run keeps of the clips that it is trained on: written before the first step, and never again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.uscl.evaluation.scan_sets import build_scans, tissue
from tests.uscl.tiny_set import TINY_NETWORK
from uscl.train import pretrain
from uscl.trained_on import record_beside
from usdata.duplicates.record import open_record
from usdata.errors import DataSetError, UserError
from usdata.files import sha256_file

SETTINGS = [TINY_NETWORK, "image_size=32", "batch_size=4", "epochs=2", "device=cpu", "checkpoint.every_epochs=1"]
SETTINGS += ["checkpoint.log_every_steps=1"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = {f"{seed}.mp4": (tissue(seed), f"p{seed}", "sick" if seed < 2 else "") for seed in range(4)}
    return build_scans(tmp_path_factory.mktemp("sets"), "scans", clips)


def test_a_killed_run_has_it_and_a_resume_leaves_it(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    kill = "import os, signal\nfrom uscl import run_folder\nrun_folder.append_metrics = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    program = f"{kill}from uscl.train import pretrain\npretrain({str(dataset)!r}, out={str(run)!r}, overrides={SETTINGS!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = (run / "trained_on.parquet").read_bytes()
    rows = open_record(run / "trained_on.parquet").rows
    assert [(row["video_id"], row["labels_used"]) for row in rows] == [(f"scans/{seed}_mp4", seed < 2) for seed in range(4)]
    pretrain(dataset, out=run, overrides=SETTINGS, resume=True)
    assert (run / "trained_on.parquet").read_bytes() == before
    again = pretrain(dataset, out=run, overrides=SETTINGS, resume=True)
    assert (again.out / "trained_on.parquet").read_bytes() == before
    about = json.loads((run / "run.json").read_text())
    assert about["trained_on"] == {"file": "trained_on.parquet", "sha256": sha256_file(run / "trained_on.parquet"), "clips": 4}
    # Nothing of it is handed out.
    assert sorted(path.name for path in (run / "export").iterdir()) == ["README.md", "backbone.safetensors"]
    assert all(f"scans/{seed}" not in (run / "export" / "README.md").read_text() for seed in range(4))
    assert b"PNG" not in (run / "export" / "backbone.safetensors").read_bytes()[:20_000]


def test_a_damaged_record_stops_a_resume_and_a_damaged_set_makes_no_run(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(dataset, out=run, overrides=[*SETTINGS, "epochs=1"])
    (run / "trained_on.parquet").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"trained_on\.parquet: cannot be read"):
        pretrain(dataset, out=run, overrides=[*SETTINGS, "epochs=1"], resume=True)
    # The run of an older version has none; it is written when it goes on.
    (run / "trained_on.parquet").unlink()
    pretrain(dataset, out=run, overrides=[*SETTINGS, "epochs=1"], resume=True)
    assert len(open_record(run / "trained_on.parquet").rows) == 4
    strip = next(dataset.rglob("*_key_frames.png"))
    whole = strip.read_bytes()
    strip.write_bytes(whole[:100])
    with pytest.raises(DataSetError, match="holds no key frames"):
        pretrain(dataset, out=tmp_path / "new", overrides=SETTINGS)
    assert not (tmp_path / "new").exists()
    strip.write_bytes(whole)


def test_the_record_is_found_from_any_weights_of_a_run_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("trained_on.parquet", "export/backbone.safetensors", "checkpoints/last/model.safetensors"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"")
    (run / "notes").mkdir()
    for name in ("", "export/backbone.safetensors", "checkpoints/last/model.safetensors", "other.safetensors"):
        assert record_beside(run / name) == run / "trained_on.parquet"
    for path in (run / "notes/other.safetensors", tmp_path / "other.safetensors", tmp_path):
        assert record_beside(path) is None
