"""The cached gradient is the gradient: held against one graph over all parts, in float64."""

import json
from pathlib import Path

import pytest
import torch

from tests.uscl.tiny_set import TINY_NETWORK, write_set
from uscl.config import load_config
from uscl.gradient_cache import cached_gradients
from uscl.methods import Facts, make_method
from uscl.train import pretrain


@pytest.mark.parametrize("part", [1, 2, 3, 5])
@pytest.mark.parametrize("classifier_on", ["features", "projections"])
def test_it_is_the_gradient_of_the_whole_batchs_loss(part: int, classifier_on: str) -> None:
    config = load_config("uscl", [f"labels.classifier_on={classifier_on}"])
    method = make_method(config, 3)[0].double().train()
    generator = torch.Generator().manual_seed(0)
    view_a, view_b = (torch.randn(5, 1, 32, 32, dtype=torch.float64, generator=generator) for _ in range(2))
    labels = torch.tensor([0, 2, -1, 1, 0])
    same_group = torch.eye(5, dtype=torch.bool)
    same_group[0, 3] = same_group[3, 0] = True
    facts = Facts(labels, torch.tensor([0, 1, 2, 0, 4]), same_group=same_group)

    # All parts in one graph: much memory, and nothing clever.
    parts = [method.embed(pair) for pair in zip(view_a.split(part), view_b.split(part), strict=True)]
    joined = tuple(torch.cat([p[i].chunk(2)[0] for p in parts] + [p[i].chunk(2)[1] for p in parts]) for i in range(2))
    expected = method.compare(joined, facts)
    expected["loss"].backward()
    gradients = {name: parameter.grad.clone() for name, parameter in method.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}

    again = make_method(config, 3)[0].double().train()
    found = cached_gradients(again, (view_a, view_b), facts, part)
    assert found["loss"].item() == pytest.approx(expected["loss"].item(), abs=1e-12)
    for name, parameter in again.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name], rtol=1e-9, atol=1e-12), name
    for name, buffer in again.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_adding_up_the_losses_of_parts_would_be_another_gradient() -> None:
    config = load_config("uscl", ["labels.weight=0"])
    generator = torch.Generator().manual_seed(0)
    view_a, view_b = (torch.randn(6, 1, 32, 32, dtype=torch.float64, generator=generator) for _ in range(2))
    labels = torch.full((6,), -1)
    exact, added = (make_method(config, 0)[0].double().train() for _ in range(2))
    cached_gradients(exact, (view_a, view_b), Facts(labels, torch.arange(6)), 3)
    for a, b in zip(view_a.split(3), view_b.split(3), strict=True):
        (added((a, b), Facts(labels[:3], torch.arange(3)))["loss"] / 2).backward()
    weights = [method.projector[2].weight.grad for method in (exact, added)]
    assert (weights[0] - weights[1]).norm() > 0.1 * weights[0].norm()


def test_a_run_in_small_parts(tmp_path: Path) -> None:
    dataset = write_set(tmp_path / "set")
    settings = [TINY_NETWORK, "image_size=32", "epochs=2", "batch_size=6", "device=cpu", "micro_batch_size=2"]
    settings += ["checkpoint.log_every_steps=1"]
    run = pretrain(dataset, out=tmp_path / "run", overrides=settings).out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0]["collapsed_loss"] == pytest.approx(2.3979, abs=1e-4)  # ln 11: every video meets the negatives of all six
