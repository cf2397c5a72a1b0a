"""A committed loss curve: whoever moves code about must not move it. Made anew, on purpose only, by `python -m tests.uscl.test_golden`."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from tests.uscl.tiny_set import write_set
from uscl.train import pretrain

CONSTRAINTS = (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8")
PINNED = next(line.partition("==")[2] for line in CONSTRAINTS.splitlines() if line.startswith("torch=="))
CURVES = Path(__file__).with_name("golden_losses.json")
# At this rate what other processors add up in another order stays in the last digits; at the default one it grows a thousandfold a step.
SETTINGS = [
    "learning_rate=1e-5",
    "image_size=32",
    "epochs=10",
    "batch_size=6",
    "device=cpu",
    "checkpoint.every_epochs=100",
    "checkpoint.log_every_steps=1",
]
RECIPES = ("uscl", "uscl-published", "simclr", "ppi")


def curve(recipe: str, folder: Path) -> list[float]:
    """The losses of the first 20 steps, on twelve clips of eight groups."""
    groups = [f"patient{video % 8}" for video in range(12)]
    dataset = write_set(folder / "set", frames_per_video=(4, 5, 3, 2, 1, 6) * 2, groups=groups)
    pretrain(dataset, out=folder / "run", recipe=recipe, overrides=SETTINGS)
    return [json.loads(line)["loss"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()][:20]


@pytest.mark.skipif(
    torch.__version__.partition("+")[0] != PINNED, reason=f"curves are of torch {PINNED}; another one adds up in another order"
)
@pytest.mark.parametrize("recipe", [*RECIPES[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in RECIPES[2:])])
def test_the_curve_is_the_committed_one(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    try:
        found = curve(recipe, tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 20
    assert found == pytest.approx(json.loads(CURVES.read_text())[recipe], rel=2e-5)


def main() -> None:
    """Write the curves as they are now."""
    made = {}
    for recipe in RECIPES:
        with TemporaryDirectory() as folder:
            made[recipe] = curve(recipe, Path(folder))
    CURVES.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
