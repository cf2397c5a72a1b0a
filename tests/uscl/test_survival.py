"""A run survives: killed for real at random moments, its checkpoint damaged, its disk full or read-only, it ends as if nothing had been."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.uscl.tiny_set import TINY_NETWORK, metrics_of, write_set
from uscl import run_folder
from uscl.checkpoint import verify
from uscl.train import pretrain
from usdata.errors import UserError
from usdata.files import sha256_file

SETTINGS = [TINY_NETWORK, "image_size=32", "batch_size=4", "device=cpu", "checkpoint.every_epochs=1"]
SETTINGS += ["checkpoint.log_every_steps=1"]
KEEPING = ["checkpoint.keep_every_steps=2", "checkpoint.keep_last=1", "checkpoint.best=loss"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    pretrain(dataset, out=out, overrides=[*SETTINGS, *KEEPING, "epochs=2"])
    return out


def tensors_of(run: Path) -> dict[str, str]:
    """Digests of all tensors that a run leaves behind, but of `previous`, which depends on when the run was last saved."""
    files = sorted(path for path in run.rglob("*.safetensors") if path.parent.name != "previous")
    return {path.relative_to(run).as_posix(): sha256_file(path) for path in files}


# Every session is a fork of one process that has imported everything and started nothing, so that a kill costs no second start.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import uscl.torchvision_compat, timm
from uscl.train import pretrain

dataset, out, overrides, kills, steps, seed = json.loads(sys.argv[1])
draw = random.Random(seed)
metrics, told = Path(out, "metrics.jsonl"), []
targets = sorted(draw.sample(range(1, steps), kills))
while True:
    child = os.fork()
    if child == 0:
        try:
            pretrain(dataset, out=out, overrides=overrides, resume=True)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    if not targets:
        break
    target = targets.pop(0)
    while not metrics.is_file() or metrics.read_bytes().count(b"\\n") < target:
        if os.waitpid(child, os.WNOHANG)[0]:
            sys.exit("a session ended before it was killed")
        time.sleep(0.002)
    time.sleep(draw.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    told.append([target, os.WIFSIGNALED(status), [path.name for path in Path(out, "checkpoints").glob(".*")]])
print(json.dumps({"status": os.waitpid(child, 0)[1], "told": told}))
"""


def assert_survives(dataset: Path, out: Path, overrides: list[str], undisturbed: Path, *, kills: int, steps: int) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    arguments = json.dumps([str(dataset), str(out), overrides, kills, steps, seed])
    done = subprocess.run([sys.executable, "-c", KILLER, arguments], capture_output=True, text=True, check=False)
    about = f"seed {seed}: {done.stdout}{done.stderr}"
    assert done.returncode == 0, about
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["status"] == 0, about
    assert sum(killed for _, killed, _ in outcome["told"]) >= kills - 1, about  # the last one may come a moment after the end
    assert tensors_of(out) == tensors_of(undisturbed), about
    assert metrics_of(out) == metrics_of(undisturbed), about
    assert not list((out / "checkpoints").glob(".*")), about


def test_killed_three_times_and_resumed(dataset: Path, tmp_path: Path) -> None:
    overrides, undisturbed = [*SETTINGS, *KEEPING, "epochs=6"], tmp_path / "undisturbed"
    pretrain(dataset, out=undisturbed, overrides=overrides)
    assert {"last", "best", "step-000012"} <= {path.split("/")[1] for path in tensors_of(undisturbed)}
    assert_survives(dataset, tmp_path / "run", overrides, undisturbed, kills=3, steps=10)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_ten_times_and_resumed(dataset: Path, tmp_path: Path) -> None:
    overrides = [*SETTINGS, *KEEPING, "epochs=12"]
    pretrain(dataset, out=tmp_path / "undisturbed", overrides=overrides)
    assert_survives(dataset, tmp_path / "run", overrides, tmp_path / "undisturbed", kills=10, steps=24)


def test_a_damaged_last_checkpoint_costs_one_line(
    dataset: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, overrides = tmp_path / "run", [*SETTINGS, *KEEPING, "epochs=2"]
    shutil.copytree(undisturbed, out)
    weights = out / "checkpoints/last/optimizer.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 64
    weights.write_bytes(data)
    capsys.readouterr()
    pretrain(dataset, out=out, overrides=overrides, resume=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert len(lines) == 1
    assert "optimizer.safetensors" in lines[0]
    assert lines[0].endswith("going on from the one before it, previous")
    assert lines[0] in (out / "log.txt").read_text().splitlines()
    assert metrics_of(out) == metrics_of(undisturbed)
    assert tensors_of(out) == tensors_of(undisturbed) | {
        f"checkpoints/last-damaged/{name}.safetensors": sha256_file(out / "checkpoints/last-damaged" / f"{name}.safetensors")
        for name in ("model", "optimizer")
    }
    assert verify(out / "checkpoints/last").step == 4

    for name in ("last", "previous"):
        (out / "checkpoints" / name / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint can be used.*step-000004 is whole.*--overwrite") as caught:
        pretrain(dataset, out=out, overrides=overrides, resume=True)
    assert "\n" not in str(caught.value)
    (out / "run.json").write_text('{"status": "fin')
    for name in ("last", "previous"):
        shutil.rmtree(out / "checkpoints" / name)
    (out / "checkpoints" / "step-000004").rename(out / "checkpoints" / "last")
    with pytest.raises(UserError, match=r"run\.json: is damaged"):
        pretrain(dataset, out=out, overrides=overrides, resume=True)


SMALL_DISK = """
import json, subprocess, sys
from pathlib import Path
from uscl.checkpoint import verify
from uscl.train import pretrain
from usdata.errors import UserError

dataset, disk, overrides = json.loads(sys.argv[1])
out = Path(disk, "run")

def mount(*options):
    subprocess.run(["mount", *options, disk], check=True)

def train():
    try:
        return pretrain(dataset, out=out, overrides=overrides, resume=True).steps
    except UserError as error:
        return str(error)

def state():
    return {path.name: verify(path).step for path in sorted(Path(out, "checkpoints").iterdir())}

told = []
mount("-t", "tmpfs", "-o", "size=11m", "tmpfs")
told += [train(), state(), train(), state(), Path(out, "metrics.jsonl").read_text()]
mount("-o", "remount,size=40m")
told += [train(), state()]
subprocess.run(["cp", "-r", str(out), disk + "-kept"], check=True)
mount("-o", "remount,ro")
told += [train(), state()]
print(json.dumps(told))
"""


def test_a_full_disk_and_a_read_only_one(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    """On a real file system of its own; a checkpoint has 7 MB, so the second one does not fit beside the first."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no leave to mount a small disk here")
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = json.dumps([str(dataset), str(disk), [*SETTINGS, "epochs=2"]])
    command = ["unshare", "-m", sys.executable, "-c", SMALL_DISK, arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    full, after, again, still, metrics, steps, end, read_only, last = json.loads(done.stdout)
    for said in (full, again):
        assert said.startswith(f"{disk}/run/checkpoints/last: cannot be saved (No space left on device)")
        assert said.endswith("go on with --resume")
        assert "\n" not in said
    assert after == still == {"last": 2}
    assert [json.loads(line)["step"] for line in metrics.splitlines()] == [1, 2, 3, 4]
    assert (steps, end) == (4, {"last": 4, "previous": 2})
    assert "cannot be written to" in read_only
    assert last == end
    same = ("checkpoints/last/model.safetensors", "checkpoints/last/optimizer.safetensors")
    kept = tmp_path / "disk-kept"
    assert {name: sha256_file(kept / name) for name in same} == {name: sha256_file(undisturbed / name) for name in same}
    assert metrics_of(kept) == metrics_of(undisturbed)


def test_a_line_that_does_not_fit_is_not_left_in_half(tmp_path: Path) -> None:
    run_folder.append_metrics(tmp_path, {"step": 1, "loss": 1.5})
    before = (tmp_path / run_folder.METRICS).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, hard))
    try:
        with pytest.raises(OSError, match=r"metrics\.jsonl") as caught:
            run_folder.append_metrics(tmp_path, {"step": 2, "loss": 1.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / run_folder.METRICS)
    assert (tmp_path / run_folder.METRICS).read_bytes() == before
    with (tmp_path / run_folder.METRICS).open("ab") as file:
        file.write(b'\xff\xfe\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2 is damaged"):
        run_folder.read_metrics(tmp_path)


def test_a_file_where_a_folder_should_be_is_one_line(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    with pytest.raises(UserError, match="cannot be made, because notes is a file"):
        pretrain(dataset, out=tmp_path / "notes" / "run", overrides=SETTINGS)
