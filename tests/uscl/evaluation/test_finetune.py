"""What is trained and what stays: parameters, BatchNorm statistics, caches, crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from uscl.backbones import make_backbone, seeded_backbone
from uscl.evaluation.finetune import (
    PUBLISHED,
    Classifier,
    Inputs,
    Training,
    _new_head,
    finetune,
    flip_and_resized_crop,
    trained_part,
)
from uscl.models import normalise
from usdata.errors import UserError

BLOCK = "backbone.layer4.1."


def stepped(training: Training) -> tuple[set[str], set[str]]:
    """Names of parameters and of buffers that one step changes."""
    backbone = seeded_backbone("resnet18", 0)
    before_all = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = Classifier(backbone, _new_head(512, 2, torch.Generator().manual_seed(0)), training).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    model(torch.randn(4, 1, 32, 32)).square().sum().backward()
    optimiser.step()
    assert all(torch.equal(value, before_all[name]) for name, value in backbone.state_dict().items()), "the backbone itself was changed"
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    parameters = {name for name, _ in model.named_parameters()}
    return changed & parameters, {name for name in changed - parameters if "running" in name}


@pytest.mark.parametrize("layers", ["head", "last-block", "last-stage", "all"])
def test_only_what_is_trained_changes_and_frozen_statistics_stay(layers: str) -> None:
    parameters, statistics = stepped(Training(trained_layers=layers))  # type: ignore[arg-type]
    begins = {"head": "none", "last-block": BLOCK, "last-stage": "backbone.layer4.", "all": "backbone."}[layers]
    assert all(name.startswith(("head.", begins)) for name in parameters)
    assert all(name.startswith(begins) for name in statistics)
    assert "head.weight" in parameters
    assert (f"{BLOCK}conv1.weight" in parameters) == (layers != "head")
    assert (f"{BLOCK}bn1.running_mean" in statistics) == (layers != "head")


def test_moving_statistics_move_in_layers_that_are_not_trained() -> None:
    parameters, statistics = stepped(PUBLISHED)
    assert all(name.startswith(("head.", BLOCK)) for name in parameters)
    assert {"backbone.bn1.running_mean", "backbone.layer1.0.bn1.running_var", f"{BLOCK}bn1.running_mean"} <= statistics
    assert "backbone.bn1.running_mean" in stepped(Training(trained_layers="head", batch_norm="moving"))[1]


@pytest.mark.parametrize("layers", ["head", "last-block", "last-stage"])
def test_what_is_cached_gives_what_whole_frames_give(layers: str) -> None:
    backbone = seeded_backbone("resnet18", 0).eval()
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (16, 32, 32), dtype=np.uint8)
    labels = np.arange(16) % 2
    with torch.inference_mode():
        frames = normalise(torch.from_numpy(pixels))
        hidden = {
            "head": lambda: backbone(frames),
            "last-block": lambda: backbone.layer4[:1](backbone.forward_to_layer3(frames)),  # type: ignore[index, operator]
            "last-stage": lambda: backbone.forward_to_layer3(frames),  # type: ignore[operator]
        }[layers]().clone()
    training = Training(epochs=2, trained_layers=layers, batch_size=4)  # type: ignore[arg-type]
    found = [
        finetune(backbone, inputs, labels, np.arange(12), np.arange(12, 16), class_count=2, training=training, seed=(0, 0)).probabilities
        for inputs in (Inputs(hidden, None), Inputs(None, pixels))
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)


def test_every_epoch_and_an_early_end_are_of_one_training() -> None:
    backbone = seeded_backbone("resnet18", 0)
    inputs = Inputs(torch.randn(20, 512, generator=torch.Generator().manual_seed(0)), None)
    labels, rows = np.arange(20) % 2, np.arange(20)
    settings = {"class_count": 2, "training": Training(epochs=4, trained_layers="head", learning_rate=0.05), "seed": (0, 1)}
    every = finetune(backbone, inputs, labels, rows[:12], rows[12:], every_epoch=True, **settings)  # type: ignore[arg-type]
    early = finetune(backbone, inputs, labels, rows[:12], rows[12:], stop_after=2, **settings)  # type: ignore[arg-type]
    assert every.probabilities.shape == (4, 8, 2)
    np.testing.assert_array_equal(early.probabilities[0], every.probabilities[1])
    assert every.training_loss[-1] < every.training_loss[0]


def test_networks_without_a_last_block_are_refused_and_timms_resnets_are_not() -> None:
    pytest.importorskip("timm")
    network = make_backbone("timm/resnet18")
    assert isinstance(trained_part(network, "last-block", name="w"), nn.Module)
    assert trained_part(network, "head", name="w") is None
    transformer = make_backbone("timm/vit_tiny_patch16_224", 32)
    for layers in ("last-block", "last-stage"):
        with pytest.raises(
            UserError, match=r"w: are of timm/vit_tiny_patch16_224, which has no last residual block.*--trained-layers all, or head"
        ):
            trained_part(transformer, layers, name="w")  # type: ignore[arg-type]
    assert trained_part(transformer, "all", name="w") is transformer


def test_published_crops_keep_area_and_ratio() -> None:
    along = torch.linspace(0, 1, 64)
    ramps = torch.stack([along.expand(64, 64), along[:, None].expand(64, 64)])[:, None]
    frames = ramps.repeat(200, 1, 1, 1)
    # The same draws for both ramps: one crop's width and height.
    x = flip_and_resized_crop(frames[0::2].contiguous(), torch.Generator().manual_seed(1))
    y = flip_and_resized_crop(frames[1::2].contiguous(), torch.Generator().manual_seed(1))
    width = (x[:, 0, 32, -1] - x[:, 0, 32, 0]).abs()
    height = (y[:, 0, -1, 32] - y[:, 0, 0, 32]).abs()
    area, ratio = width * height, width / height
    assert 0.76 < area.min() < 0.85
    assert 0.95 < area.max() < 1.03
    assert 0.76 < ratio.min() < 0.9
    assert 1.1 < ratio.max() < 1.3
    flipped = (x[:, 0, 32, -1] < x[:, 0, 32, 0]).float().mean()
    assert 0.38 < flipped < 0.62
