"""Supervised pretraining: the mean of both views' cross-entropy, and what happens where there is no label."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.uscl.tiny_set import TINY_NETWORK, write_set
from uscl.config import load_config
from uscl.methods import Facts, make_method
from uscl.train import pretrain
from usdata.errors import RecipeError

SETTINGS = [TINY_NETWORK, "image_size=32", "epochs=2", "batch_size=6", "device=cpu", "checkpoint.log_every_steps=1"]


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0]])
def test_it_is_the_mean_of_both_views_cross_entropies(weights: list[float] | None) -> None:
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    method = make_method(load_config("supervised"), 3, given)[0].double().eval()
    views = torch.randn(2, 4, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, -1, 1])
    outcome = method(tuple(views), Facts(labels, torch.arange(4)))
    assert method.classifier is not None
    features = method.backbone(views.flatten(0, 1))
    expected = 0.0
    for view in method.classifier(features).detach().chunk(2):
        known = [row for row in range(4) if labels[row] >= 0]
        costs = [float(torch.logsumexp(view[row], 0) - view[row, labels[row]]) for row in known]
        shares = [1.0 if weights is None else weights[labels[row]] for row in known]
        expected += 0.5 * sum(cost * share for cost, share in zip(costs, shares, strict=True)) / sum(shares)
    assert outcome["loss"].item() == pytest.approx(expected, abs=1e-10)
    assert set(outcome["terms"]) == {"cross_entropy"}
    assert torch.equal(outcome["projections"], outcome["features"])
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"backbone", "classifier"}


def test_a_batch_without_labels_costs_nothing() -> None:
    method = make_method(load_config("supervised", []), 2)[0].train()
    loss = method(tuple(torch.randn(2, 3, 1, 32, 32)), Facts(torch.full((3,), -1), torch.arange(3)))["loss"]
    loss.backward()
    assert loss.item() == 0
    assert all(not parameter.grad.any() for parameter in method.parameters())


def test_a_run_and_what_it_needs(tmp_path: Path) -> None:
    run = pretrain(write_set(tmp_path / "set"), out=tmp_path / "run", recipe="supervised", overrides=[*SETTINGS, "micro_batch_size=4"]).out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == pytest.approx(lines[0]["cross_entropy"] / 2, rel=1e-5)
    assert "contrast" not in lines[0]
    unlabelled = write_set(tmp_path / "unlabelled", labels=())
    with pytest.raises(RecipeError, match="method: is 'supervised', and there are no labels in the data set's splits"):
        pretrain(unlabelled, out=tmp_path / "none", recipe="supervised", overrides=SETTINGS)
    assert not (tmp_path / "none").exists()
    with pytest.raises(RecipeError, match=r"because labels\.weight is 0"):
        make_method(load_config("supervised", ["labels.weight=0"]), 0)
