"""Optimisers and averages against their formulas in numpy, and resumes that change no bit with any of them."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.uscl.test_train import SMALL, assert_same_run
from tests.uscl.tiny_set import write_set
from uscl.average import Average
from uscl.config import Config, load_config
from uscl.optimizers import LARS, make_optimizer, set_learning_rate
from uscl.schedule import learning_rate
from uscl.train import pretrain
from usdata.files import sha256_file


def test_lars_is_its_algorithm() -> None:
    draw = np.random.default_rng(0)
    weight, bias = draw.normal(size=(4, 3)), draw.normal(size=3)
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in (weight, bias)]
    optimizer = LARS([{"params": parameters, "weight_decay": 0.1}], lr=0.5, momentum=0.9, trust=0.02)
    moments = [np.zeros_like(weight), np.zeros_like(bias)]
    for step in range(3):
        gradients = [draw.normal(size=value.shape) for value in (weight, bias)]
        set_learning_rate(optimizer, 0.5 / (step + 1))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
        ratio = 0.02 * np.linalg.norm(weight) / (np.linalg.norm(gradients[0]) + 0.1 * np.linalg.norm(weight))
        moments[0] = 0.9 * moments[0] + 0.5 / (step + 1) * ratio * (gradients[0] + 0.1 * weight)
        moments[1] = 0.9 * moments[1] + 0.5 / (step + 1) * (gradients[1] + 0.1 * bias)
        weight, bias = weight - moments[0], bias - moments[1]
        np.testing.assert_allclose(parameters[0].detach(), weight, rtol=1e-12)
        np.testing.assert_allclose(parameters[1].detach(), bias, rtol=1e-12)


def test_lars_steps_a_layer_of_zeros() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.ones(2, 2)
    LARS([parameter], lr=1.0, momentum=0.0).step()
    assert torch.equal(parameter.detach(), -torch.ones(2, 2))


def test_decay_can_leave_biases_and_normalisation_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    config = load_config("uscl", ["optimizer.decay_all=false", "optimizer.name=adamw", "weight_decay=0.5"])
    groups = make_optimizer(config, network).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.5, 1), (0.0, 3)]
    assert [group["weight_decay"] for group in make_optimizer(load_config("uscl"), network).param_groups] == [1e-4]


def test_the_average_is_a_geometric_sum() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average, expected = Average(network, 0.9), network[0].weight.detach().numpy().copy()
    for _ in range(4):
        with torch.no_grad():
            network[0].weight += torch.randn(2, 3)
        network(torch.randn(5, 3))
        average.update(network)
        expected = 0.9 * expected + 0.1 * network[0].weight.detach().numpy()
    np.testing.assert_allclose(average.network[0].weight, expected, rtol=1e-6)
    assert average.network[1].num_batches_tracked == 4
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


def test_the_warm_up_ends_at_the_full_rate_and_before_the_cosine() -> None:
    settings = {"warmup_epochs": 2, "constant_epochs": 0}
    config = Config.model_validate({"epochs": 10, "learning_rate": 1.0, "schedule": settings})
    steps = [learning_rate(config, step / 4, 1 / 4) for step in range(40)]
    assert steps[:8] == pytest.approx([number / 8 for number in range(1, 9)])
    assert steps[8] == 1.0
    assert all(a > b for a, b in itertools.pairwise(steps[8:]))
    assert steps[24] == pytest.approx(0.5)  # half of the eight epochs after the warm-up


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.name=sgd", "average.decay=0.9"],
        ["optimizer.name=lars", "optimizer.decay_all=false", "learning_rate=0.1"],
        ["optimizer.name=adamw", "optimizer.clip_norm=0.5", "schedule.warmup_epochs=1"],
    ],
    ids=["sgd and average", "lars", "adamw, clipped, warmed up"],
)
def test_a_resume_changes_no_bit(settings: list[str], tmp_path: Path) -> None:
    dataset = write_set(tmp_path / "set")
    whole = pretrain(dataset, out=tmp_path / "whole", overrides=[*SMALL, *settings]).out
    again = Path(shutil.copytree(whole, tmp_path / "again"))
    shutil.rmtree(again / "checkpoints" / "last")
    (again / "checkpoints" / "step-000005").rename(again / "checkpoints" / "last")  # as if it had been stopped there
    pretrain(dataset, out=again, overrides=[*SMALL, *settings], resume=True)
    assert_same_run(again, whole)
    if "average.decay=0.9" in settings:
        last = "checkpoints/last/extra.safetensors"
        assert sha256_file(again / last) == sha256_file(whole / last)


def test_clipping_bounds_the_step_and_tells_the_norm_before_it(tmp_path: Path) -> None:
    dataset = write_set(tmp_path / "set")
    rates = [
        "optimizer.name=sgd",
        "optimizer.momentum=0",
        "learning_rate=1.0",
        "weight_decay=0",
        "epochs=1",
        "checkpoint.keep_every_steps=1",
    ]
    run = pretrain(dataset, out=tmp_path / "run", overrides=[*SMALL, *rates, "optimizer.clip_norm=0.001", "schedule.name=constant"]).out
    first, second = (load_file(run / "checkpoints" / f"step-{step:06d}" / "model.safetensors") for step in (1, 2))
    names = [name for name in first if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    moved = torch.sqrt(sum(((second[name] - first[name]) ** 2).sum() for name in names))
    assert float(moved) == pytest.approx(0.001, rel=1e-3)
    assert all(json.loads(line)["grad_norm"] > 0.01 for line in (run / "metrics.jsonl").read_text().splitlines())


def test_the_average_is_what_a_run_hands_out(tmp_path: Path) -> None:
    dataset = write_set(tmp_path / "set")
    run = pretrain(dataset, out=tmp_path / "run", overrides=[*SMALL, "average.decay=0.5"]).out
    exported = load_file(run / "export" / "backbone.safetensors")
    average = load_file(run / "checkpoints" / "last" / "extra.safetensors")
    model = load_file(run / "checkpoints" / "last" / "model.safetensors")
    assert torch.equal(exported["conv1.0.weight"], average["average.backbone.network.conv1.0.weight"])
    assert not torch.equal(exported["conv1.0.weight"], model["backbone.network.conv1.0.weight"])
