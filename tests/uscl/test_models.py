"""Backbone and weights: torchvision's network to the last bit of rounding, and one clear line for every wrong file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from uscl.backbones import make_backbone, seeded_backbone
from uscl.config import BACKBONES
from uscl.models import load_backbone, normalise, projector
from uscl.torchvision_compat import torchvision
from usdata.errors import UserError


@pytest.mark.parametrize("name", BACKBONES)
def test_a_state_dict_loads_strictly_into_torchvision(name: str) -> None:
    network = getattr(torchvision.models, name)(weights=None)
    backbone = make_backbone(name).eval()
    missing, unexpected = network.load_state_dict(backbone.state_dict(), strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"}
    assert unexpected == []
    network.fc = torch.nn.Identity()
    frames = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.eval()(frames), backbone(frames))
    assert backbone(frames).shape == (2, backbone.width)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_one_channel_is_three_equal_ones(dtype: torch.dtype, tolerance: float) -> None:
    backbone = seeded_backbone("resnet18", 1).to(dtype).eval()
    frames = torch.randn(3, 1, 48, 40, dtype=dtype)
    assert (backbone(frames) - backbone(frames.repeat(1, 3, 1, 1))).abs().max() < tolerance


def test_the_gradient_of_one_channel_is_that_of_three() -> None:
    backbone = seeded_backbone("resnet18", 1).double().eval()
    frames = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    gradients = []
    for view in (frames, frames.repeat(1, 3, 1, 1)):
        backbone.zero_grad()
        backbone(view).sum().backward()
        gradients.append(backbone.conv1.weight.grad.clone())
    assert torch.allclose(gradients[0], gradients[1], atol=1e-11)


def test_stages_put_together_are_the_whole() -> None:
    backbone = seeded_backbone("resnet18", 0).eval()
    frames = torch.randn(2, 1, 32, 32)
    assert torch.equal(backbone.forward_from_layer4(backbone.forward_to_layer3(frames)), backbone(frames))
    maps = backbone.stages(frames)
    assert tuple(each.shape[1] for each in maps) == backbone.stage_widths
    assert torch.equal(maps[-1].mean(dim=(2, 3)), backbone(frames))


def test_normalise_and_projector() -> None:
    pixels = torch.tensor([[[0, 255], [51, 102]]], dtype=torch.uint8)
    assert torch.allclose(normalise(pixels), torch.tensor([[[[-2.0, 2.0], [-1.2, -0.4]]]]), atol=1e-6)
    assert [tuple(parameter.shape) for parameter in projector(512).parameters()] == [(512, 512), (512,), (256, 512), (256,)]


def test_random_weights_depend_on_the_seed_alone_and_leave_the_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, provenance = load_backbone("random", seed=3)
    assert torch.equal(torch.rand(3), expected)
    second, _ = load_backbone("random", seed=3)
    other, _ = load_backbone("random", seed=4)
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert (provenance["kind"], provenance["seed"], provenance["sha256"]) == ("random", 3, None)
    assert not first.training


def test_a_file_of_torchvisions_own_weights_is_read(tmp_path: Path) -> None:
    network = torchvision.models.resnet34(weights=None)
    save_file(network.state_dict(), tmp_path / "whole.safetensors")
    backbone, provenance = load_backbone(tmp_path / "whole.safetensors", name="resnet34")
    assert torch.equal(backbone.layer4[0].conv1.weight, network.layer4[0].conv1.weight)
    assert provenance["kind"] == "file"
    assert len(provenance["sha256"]) == 64


def test_wrong_weights_are_one_clear_line(tmp_path: Path) -> None:
    good = seeded_backbone("resnet18", 0).state_dict()
    save_file({key: value for key, value in good.items() if key != "layer2.0.conv1.weight"}, tmp_path / "lacking.safetensors")
    save_file({**good, "extra": torch.zeros(1)}, tmp_path / "extra.safetensors")
    save_file({**good, "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "shape.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"not safetensors at all")
    for folder, file in (("empty_run", None), ("a_set", "dataset.json"), ("a_classifier", "model.json")):
        (tmp_path / folder).mkdir()
        if file:
            (tmp_path / folder / file).write_text("{}")
    for name, words in (
        ("lacking.safetensors", r"lacks tensor 'layer2\.0\.conv1\.weight'"),
        ("extra.safetensors", "unknown tensor 'extra'"),
        ("shape.safetensors", r"\(64, 1, 7, 7\) where resnet18 has \(64, 3, 7, 7\)"),
        ("noise.safetensors", "no readable safetensors"),
        ("empty_run", "no finished run"),
        ("a_set", "is a data set and no weights"),
        ("a_classifier", r"is a classifier made by 'uscl fit'.*use it with 'uscl predict'"),
        ("absent.safetensors", "no such weights"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            load_backbone(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        load_backbone("random", name="resnet19")
