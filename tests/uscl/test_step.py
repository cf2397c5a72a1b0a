"""The step as a CUDA graph against the step as it stands; on a CPU, that a refused step leaves everything as it was."""

from pathlib import Path

import pytest
import torch

from tests.uscl.tiny_set import write_set
from uscl.average import Average
from uscl.config import load_config
from uscl.feed import Feed
from uscl.frames import open_store
from uscl.methods import make_method
from uscl.optimizers import make_optimizer
from uscl.pairs import index_videos
from uscl.step import Step
from usdata.manifest import open_dataset

SETTINGS = ["image_size=32", "epochs=8", "batch_size=4", "average.decay=0.9"]


def stepped(folder: Path, device: str, settings: list[str], *, graphs: bool) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights and losses after eight epochs of a batch of four and one of two."""
    data = open_dataset(folder)
    config = load_config("uscl", [*SETTINGS, *settings])
    place = torch.device(device)
    method = make_method(config, 2)[0].to(place).train()
    optimizer, average = make_optimizer(config, method, capturable=graphs), Average(method, 0.9)
    step = Step(config, method, optimizer, place, "float32", average, graphs=graphs)
    losses = [step(batch, 1e-4)["loss"].item() for batch in Feed(open_store(data, size=32), index_videos(data), config, place)(0, 0)]
    return method.state_dict() | average.tensors(), losses


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["optimizer.name=lars"],
        ["optimizer.clip_norm=0.5"],
        ["augment.blur=0.5"],
        ["augment.path=plain"],
        ["method=moco", "moco.queue=6"],
    ],
)
def test_a_graph_steps_as_the_step_stands(settings: list[str], tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    eager, expected = stepped(folder, "cuda", settings, graphs=False)
    graphed, losses = stepped(folder, "cuda", settings, graphs=True)
    assert losses == pytest.approx(expected, rel=1e-4)
    for name, value in eager.items():
        assert torch.allclose(value.float(), graphed[name].float(), rtol=1e-3, atol=1e-4), name


def test_a_step_that_is_refused_leaves_everything_as_it_was(tmp_path: Path) -> None:
    data = open_dataset(write_set(tmp_path / "set"))
    config = load_config("uscl", SETTINGS)
    method = make_method(config, 2)[0].train()
    step = Step(config, method, make_optimizer(config, method), torch.device("cpu"), "float32")
    batch = next(iter(Feed(open_store(data, size=32), index_videos(data), config, torch.device("cpu"))(0, 0)))
    step(batch, 1e-4)
    with torch.no_grad():
        method.projector[2].weight.fill_(float("nan"))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    outcome = step(batch, 1e-4)
    assert not torch.isfinite(outcome["loss"])
    assert all(torch.equal(value, before[name]) or value.isnan().all() for name, value in method.state_dict().items())
    assert not any(value.requires_grad for value in outcome.values() if isinstance(value, torch.Tensor))
