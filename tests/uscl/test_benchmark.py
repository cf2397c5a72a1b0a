"""`uscl bench`: its stages add up to the step, on made-up frames and on a set, and its command prints what a terminal holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.uscl.tiny_set import write_set
from uscl.benchmark import WHOLE, bench, print_bench
from uscl.cli import app
from usdata.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ["image_size=32", "batch_size=4", "device=cpu"]
STAGES = ["draws", "store read", "augment", "forward", "backward", "optimiser", WHOLE]


def test_stages_add_up_to_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.get_rng_state()
    result = bench(overrides=SMALL, seconds=0.01)
    assert [stage.stage for stage in result.stages] == STAGES
    assert (result.about["repeats"], result.about["videos_per_batch"], result.about["threads"]) == (3, 4, 1)
    assert (result.about["device"], result.about["precision"], result.about["frames"]) == ("cpu", "float32", "made up")
    for stage in result.stages:
        assert 0 < stage.lowest <= stage.views_per_s <= stage.highest
        # Of an odd number of repeats the medians of a time and of its reciprocal are the same repeat's.
        assert stage.views_per_s * stage.milliseconds == pytest.approx(8 * 1000)
    whole = result.stages[-1]
    # The slowest step is no slower than all the slowest stages together, and the quickest no quicker than all the quickest.
    assert 1 / whole.lowest <= sum(1 / stage.lowest for stage in result.stages[:-1]) * (1 + 1e-9)
    assert 1 / whole.highest >= sum(1 / stage.highest for stage in result.stages[:-1]) * (1 - 1e-9)
    about = result.about
    assert about["utilisation"] == pytest.approx(
        whole.views_per_s * about["operations_per_view"] / about["peak_operations_per_s"], abs=1e-4
    )
    assert torch.equal(torch.get_rng_state(), generator)
    print_bench(result)
    printed = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in printed)
    assert [line[:14].rstrip() for line in printed[5:12]] == STAGES


def test_a_set_and_a_recipe_of_its_own_order(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set")
    settings = [*SMALL, "precision=bfloat16", "store.size=40", f"store.folder={tmp_path / 'store'}"]
    result = bench(data, recipe="uscl-published", overrides=settings, seconds=0.01)
    assert {key: result.about[key] for key in ("frames", "precision", "recipe", "store_size", "image_size")} == {
        "frames": "tiny",
        "precision": "bfloat16",
        "recipe": "uscl-published",
        "store_size": 40,
        "image_size": 32,
    }
    # A batch that is larger than the set holds all of it.
    assert bench(data, overrides=[*SMALL, "batch_size=32"], seconds=0.01).about["videos_per_batch"] == 6


def test_the_command() -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "uscl", "bench", *settings, "--seconds", "0.01", "--json"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    printed = json.loads(done.stdout)
    assert [stage["stage"] for stage in printed["stages"]] == STAGES


@pytest.mark.parametrize(
    ("words", "reason"),
    [(["--seconds", "0"], "is too short"), (["--set", "batchsize=3"], "batch_size"), (["nowhere"], "no such data set")],
)
def test_a_mistake_is_one_line(words: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["uscl", "bench", *words])
    with pytest.raises(SystemExit) as left:
        app()
    said = capsys.readouterr()
    assert (left.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert reason in said.err


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match="too short"):
        bench(seconds=float("nan"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_whole_step_is_measured_by_itself() -> None:
    result = bench(overrides=["image_size=64", "batch_size=8", "device=cuda"], seconds=0.5)
    assert [stage.stage for stage in result.stages] == STAGES
    assert result.about["precision"] == "bfloat16"
    # Without waiting between stages a step takes no longer than their sum, but for noise.
    assert result.stages[-1].milliseconds < 1.5 * sum(stage.milliseconds for stage in result.stages[:-1])
