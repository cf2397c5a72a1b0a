"""Several processes against one: gradients to 1e-12, equal batches, equal weights, one end for all. Processes are real, joined by gloo."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.uscl import ranks
from tests.uscl.tiny_set import metrics_of, write_set
from uscl import batch_norm, distributed, processes
from uscl.augment import two_views
from uscl.config import load_config
from uscl.feed import Feed
from uscl.frames import open_store
from uscl.pairs import index_videos
from uscl.train import pretrain
from usdata.errors import EXIT_STOPPED, UserError
from usdata.files import sha256_file
from usdata.manifest import open_dataset

TOLERANCE = 1e-12
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "uscl", "pretrain"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that torchrun was told to stop, and then whole runs by two processes, which go on with that one too."""
    folder = tmp_path_factory.mktemp("ranks2")
    write_set(folder / "set")
    settings = [word for setting in ranks.SETTINGS for word in ("--set", setting)]
    command = [*TORCHRUN, str(folder / "set"), "--out", str(folder / "stopped"), *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        metrics = folder / "stopped" / "metrics.jsonl"
        while launcher.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
            time.sleep(0.005)
        launcher.send_signal(signal.SIGTERM)
        out, err = launcher.communicate(timeout=120)
    (folder / "torchrun.json").write_text(json.dumps({"code": launcher.returncode, "out": out, "err": err}))
    (folder / "before.json").write_text((folder / "stopped" / "run.json").read_text())
    done = ranks.start(2, folder)
    assert [process.returncode for process in done] == [0, -signal.SIGKILL], done
    (folder / "said.json").write_text(json.dumps([process.stdout + process.stderr for process in done]))
    return folder


# Three processes take half a minute more; run with: make test-slow
@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """How many processes there were, and the folder with what each of them left."""
    if request.param == 2:
        return 2, request.getfixturevalue("runs")
    folder = tmp_path_factory.mktemp("ranks3")
    open_store(open_dataset(write_set(folder / "set")), size=32)
    done = ranks.start(request.param, folder)
    assert [process.returncode for process in done] == [0] * request.param, done
    return request.param, folder


def of_each(left: tuple[int, Path], name: str) -> list[dict[str, torch.Tensor]]:
    return [load_file(left[1] / f"{name}-{rank}.safetensors") for rank in range(left[0])]


def largest_error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Relative to the largest entry of each tensor."""
    assert found.keys() >= expected.keys()
    return max(float((found[key] - expected[key]).abs().max() / expected[key].abs().max().clamp(min=1e-3)) for key in expected)


def one_process(videos: int) -> dict[str, torch.Tensor]:
    """Gradients and running statistics of the usual network, by torch's own BatchNorm."""
    given, network = ranks.problem(videos, (1, 32, 32)), ranks.usual_network()
    network(tuple(given.inputs), given.facts)["loss"].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    return ranks.gradients(network) | {name: value for name, value in network.named_buffers() if value.is_floating_point()}


@pytest.mark.parametrize("videos", ranks.COUNTS)
def test_gathered_gradients_are_those_of_one_process(left: tuple[int, Path], videos: int) -> None:
    given, network = ranks.problem(videos, (6,)), ranks.small_network()
    loss = ranks.whole_loss(network, network["before"](given.inputs.flatten(0, 1)), given)
    loss.backward()
    expected = ranks.gradients(network)
    for found in of_each(left, f"right {videos}"):
        assert largest_error(found, expected) < TOLERANCE
        assert found["loss"].item() == pytest.approx(loss.item(), abs=TOLERANCE)
    # The same check fails on wrong gathers, two of which have the right loss.
    for way in ("without gradient", "not averaged"):
        wrong = of_each(left, f"{way} {videos}")[0]
        assert wrong["loss"].item() == pytest.approx(loss.item(), abs=TOLERANCE)
        assert largest_error(wrong, expected) > 1e-3, way
    if videos >= left[0]:
        assert largest_error(of_each(left, f"own negatives {videos}")[0], expected) > 1e-3


def test_a_gather_is_differentiated_twice(left: tuple[int, Path]) -> None:
    """With L = sum z^3 in each of W processes: first W 3 z^2, and of its square 36 W^2 z^3."""
    for found in of_each(left, "twice"):
        z, world = found["rows"], left[0]
        assert torch.allclose(found["first"], 3 * world * z**2, rtol=1e-14)
        assert torch.allclose(found["second"], 36 * world**2 * z**3, rtol=1e-14)


@pytest.mark.parametrize("videos", ranks.NETWORK_COUNTS)
def test_a_whole_network_with_batchnorm_of_the_whole_batch_is_that_of_one_process(left: tuple[int, Path], videos: int) -> None:
    expected = one_process(videos)
    found, *others = of_each(left, f"whole batch {videos}")
    assert largest_error(found, expected) < TOLERANCE
    assert found["backbone.bn1.num_batches_tracked"] == 1
    assert all(torch.equal(other["digest"], found["digest"]) for other in others)


def test_batchnorm_of_own_parts_gives_all_processes_one_gradient_and_one_statistic(left: tuple[int, Path]) -> None:
    """Two videos: of three processes the last has none and adds nothing."""
    found, *others = of_each(left, "own part 2")
    assert all(torch.equal(other["digest"], found["digest"]) for other in others)
    assert all(torch.isfinite(value).all() for value in found.values())
    assert found["backbone.bn1.num_batches_tracked"] == 1
    expected = one_process(2)
    assert largest_error(found, expected) > 1e-3
    # The running mean is that of one process, for means of equal parts add up.
    assert largest_error(found, {"backbone.bn1.running_mean": expected["backbone.bn1.running_mean"]}) < TOLERANCE


@pytest.mark.parametrize("name", ["barlow-twins", "vicreg"])
@pytest.mark.parametrize("videos", ranks.NETWORK_COUNTS)
def test_batchnorm_of_vectors_and_statistics_of_the_batch_are_those_of_one_process(left: tuple[int, Path], videos: int, name: str) -> None:
    network = ranks.vector_network()
    loss = ranks.statistics_loss(network(ranks.problem(videos, (6,)).inputs.flatten(0, 1)), name)
    loss.backward()
    expected = ranks.gradients(network) | {"loss": loss.detach()}
    expected |= {key: value for key, value in network.named_buffers() if value.is_floating_point()}
    for found in of_each(left, f"vectors {name} whole batch {videos}"):
        assert largest_error(found, expected) < TOLERANCE
        assert found["1.num_batches_tracked"] == 1
    # By own parts it is another network, the same one in every process, and a part of no video adds nothing.
    found, *others = of_each(left, f"vectors {name} own part {videos}")
    assert largest_error(found, expected) > 1e-3
    assert all(torch.isfinite(value).all() for value in found.values())
    assert found["1.num_batches_tracked"] == 1
    for other in others:
        assert all(torch.equal(other[key], value) for key, value in found.items())


@pytest.mark.parametrize("recipe", ranks.CONTRASTS)
def test_every_comparison_is_that_of_one_process(left: tuple[int, Path], recipe: str) -> None:
    expected = ranks.contrast(recipe, slice(None))
    for found in of_each(left, recipe):
        assert largest_error(found, expected) < TOLERANCE


@pytest.mark.parametrize("videos", ranks.META_COUNTS)
def test_what_meta_uscl_learns_first_is_that_of_one_process(left: tuple[int, Path], videos: int) -> None:
    expected = ranks.meta_gradient(videos)
    for found in of_each(left, f"meta {videos}"):
        assert largest_error(found, expected) < TOLERANCE


def test_weights_are_shared_from_the_first(left: tuple[int, Path]) -> None:
    for found in of_each(left, "shared"):
        assert found["0.weight"].shape == (4, 3, 3, 3)
        assert all((value == 1).all() for value in found.values())


def test_a_signal_to_one_stops_all_after_the_same_step(left: tuple[int, Path]) -> None:
    """It came before the third call; the fourth knows of it, everywhere."""
    for found in of_each(left, "stops"):
        assert found["answers"].tolist() == [0, 0, 0] + [signal.SIGTERM] * 3


def test_one_process_is_the_first_and_what_does_not_fit_is_refused(left: tuple[int, Path]) -> None:
    for rank in range(left[0]):
        assert json.loads((left[1] / f"is_first-{rank}.json").read_text()) == (rank == 0)
        disagreement, too_many = json.loads((left[1] / f"refusals-{rank}.json").read_text())
        assert disagreement.startswith("the processes of this run: do not agree about the data_set; every machine must see the same")
        assert too_many.startswith(f"the number of processes: is {left[0]}, and the largest batch has {left[0] - 1} videos; start fewer")


@pytest.mark.slow
@pytest.mark.parametrize("left", [3], indirect=True, scope="module")
def test_batches_are_those_of_one_process_cut_in_parts(left: tuple[int, Path]) -> None:
    """Batches of 4 and 2, and of 5: equal parts, unequal ones and none."""
    data = open_dataset(left[1] / "set")
    for name, overrides in ranks.FEEDS.items():
        config = load_config("uscl", [*ranks.SETTINGS, *overrides, "epochs=2"])
        views = 2 if name == "mix first" else 3
        for batch in Feed(open_store(data, size=32), index_videos(data), config, torch.device("cpu"))(0, 0):
            each = of_each(left, f"{name} {batch.epoch} {batch.number}")
            values = [found["values"].unflatten(1, (views, -1)) for found in each if found["values"].numel()]
            assert torch.equal(torch.cat(values, dim=2).flatten(1), batch.augmentations.values)
            for key in ("frames", "coefficients"):
                assert torch.equal(torch.cat([found[key] for found in each]), getattr(batch, key))
            seen = two_views(batch.frames, batch.coefficients, batch.augmentations, order=config.pairs.order, size=32)
            for key, view in zip(("view_a", "view_b"), seen, strict=True):
                assert torch.allclose(torch.cat([found[key] for found in each]), view, rtol=0, atol=1e-5)
            for found in each:
                assert found["videos"].tolist() == batch.videos.tolist()
                assert torch.equal(found["labels"], batch.facts.labels)
                assert ("same_group" in found) == (batch.facts.same_group is not None)
                assert batch.facts.same_group is None or torch.equal(found["same_group"], batch.facts.same_group)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("videos", [1, 2, 6, 7, 64])
def test_parts_are_even_and_leave_nothing_out(world: int, videos: int) -> None:
    parts = [range(videos)[distributed.own_part(videos, of=(rank, world))] for rank in range(world)]
    assert [video for part in parts for video in part] == list(range(videos))
    lengths = [len(part) for part in parts]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


def test_alone_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    rows = torch.randn(4, 3, requires_grad=True)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with processes.joined():
        assert distributed.gather(rows, 2, views=2) is rows
        batch_norm.prepare(network, whole_batch=True, device=torch.device("cpu"))
        assert type(network[1]) is nn.BatchNorm2d
        assert (processes.rank(), processes.world_size(), processes.is_first()) == (0, 1, True)
        assert distributed.StopAgreement()("SIGINT") == "SIGINT"
        assert distributed.describe(32, False) == []


def test_a_wrong_environment_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "first"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^RANK: is 'first'"), processes.joined():
        pass


def ends(folder: Path, name: str) -> list[str]:
    return [(folder / f"{name}-{rank}.txt").read_text() for rank in range(2)]


def test_a_run_by_two_processes_leaves_what_one_leaves(runs: Path, tmp_path: Path) -> None:
    assert ends(runs, "undisturbed") == ["finished", "finished"]
    first, second = (load_file(runs / f"undisturbed-{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    saved = load_file(runs / "undisturbed/checkpoints/last/model.safetensors")
    assert saved.keys() == first.keys()
    assert all(torch.equal(value, first[key]) for key, value in saved.items())

    alone = tmp_path / "alone"
    pretrain(runs / "set", out=alone, overrides=[*ranks.SETTINGS, "sync_batchnorm=true", "epochs=2"])
    files = {path.relative_to(alone).as_posix() for path in alone.rglob("*") if path.is_file()}
    assert {path.relative_to(runs / "whole").as_posix() for path in (runs / "whole").rglob("*") if path.is_file()} == files
    # Normalised by the whole batch, two processes are one but for the rounding of float32.
    one, two = metrics_of(alone), metrics_of(runs / "whole")
    assert [line["step"] for line in two] == [1, 2, 3, 4]
    assert one[0].keys() == two[0].keys()
    for key, value in one[0].items():
        assert two[0][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    for line, other in zip(one, two, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=2e-2)
    environment = json.loads((runs / "whole" / "environment.json").read_text())
    assert environment["processes"] == 2
    assert "processes: 2, 2 videos of a batch each; BatchNorm statistics of the whole batch" in (runs / "whole/log.txt").read_text()
    # The first process speaks and the other does not.
    said = json.loads((runs / "said.json").read_text())
    assert "processes: 2" in said[0]
    assert ours(said[1]) == ""


def ours(text: str) -> str:
    """Without what older versions of torch write about their own connections."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("[Gloo]"))


def test_stopped_under_torchrun_and_resumed(runs: Path) -> None:
    launcher = json.loads((runs / "torchrun.json").read_text())
    before = json.loads((runs / "before.json").read_text())
    assert launcher["code"] != 0
    assert before["status"] == "stopped", launcher["err"]
    assert 1 <= before["steps"] < 20
    assert len(re.findall(r"^stopped by SIGTERM after step \d+, and everything is saved", launcher["err"], flags=re.MULTILINE)) == 1
    assert ours(launcher["out"]) == ""
    assert ends(runs, "stopped") == ["finished", "finished"]
    for name in ("checkpoints/last/model.safetensors", "checkpoints/last/optimizer.safetensors", "export/backbone.safetensors"):
        assert sha256_file(runs / "stopped" / name) == sha256_file(runs / "undisturbed" / name), name
    assert metrics_of(runs / "stopped") == metrics_of(runs / "undisturbed")


def test_what_ends_one_process_ends_the_other_with_one_line(runs: Path) -> None:
    signalled = sorted(ends(runs, "signalled"))
    assert re.match(r"Stopped: stopped by SIGTERM after step [34], and everything is saved", signalled[0])
    assert signalled[1] == f"SystemExit: {EXIT_STOPPED}"
    assert json.loads((runs / "signalled" / "run.json").read_text())["status"] == "stopped"
    assert ends(runs, "failed") == ["SystemExit: 2", "UserError: the disk of one machine: is full"]
    # A process that is killed says nothing, so the other one says it.
    assert re.match(r"UserError: another process of this run: has ended without a word.*--resume", (runs / "killed-0.txt").read_text())


def test_another_number_of_processes_goes_on_and_says_so(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "signalled", tmp_path / "run")
    few = [*ranks.SETTINGS, "epochs=3"]
    result = pretrain(runs / "set", out=tmp_path / "run", overrides=few, resume=True)
    assert result.steps == 6
    said = capsys.readouterr().err
    assert "trained by 2 processes so far and by 1 from here: the batches are the same, but BatchNorm sees other parts of them" in said
    assert all(math.isfinite(line["loss"]) for line in metrics_of(tmp_path / "run"))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_a_run(tmp_path: Path) -> None:
    """NCCL, torch's SyncBatchNorm and one GPU a process, end to end."""
    write_set(tmp_path / "set")
    command = [*TORCHRUN, str(tmp_path / "set"), "--out", str(tmp_path / "run")]
    settings = ["image_size=32", "epochs=2", "batch_size=4", "device=cuda", "sync_batchnorm=true", "precision=float32"]
    done = subprocess.run(
        [*command, *(word for setting in settings for word in ("--set", setting))],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["processes"] == 2
