"""Decoders on backbones: shapes, what is trained, and maps that are those of the backbone's own library."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from uscl.backbones import ResNet, TimmBackbone, seeded_backbone
from uscl.segmentation.networks import SegmentationNetwork, map_widths
from usdata.errors import UserError


@pytest.mark.parametrize("head", ["unet", "fpn"])
@pytest.mark.parametrize("name", ["resnet18", "timm/convnext_atto"])
def test_logits_have_the_frames_size(head: Literal["unet", "fpn"], name: str) -> None:
    model = SegmentationNetwork(seeded_backbone(name, 0), head, 4, size=32, frozen=False)
    logits = model(torch.zeros(2, 1, 33, 47))
    assert logits.shape == (2, 4, 33, 47)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.decoder.parameters())


def test_a_resnets_last_map_is_what_its_features_are_the_mean_of() -> None:
    backbone = seeded_backbone("resnet18", 0).eval()
    assert isinstance(backbone, ResNet)
    frames = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = backbone.pyramid(frames)
    assert [each.shape[2] for each in maps] == [32, 16, 8, 4, 2]
    torch.testing.assert_close(maps[-1].mean((2, 3)), backbone(frames))
    for one, other in zip(maps[2:], backbone.stages(frames), strict=True):
        torch.testing.assert_close(one, other)


def test_maps_of_timm_are_those_of_its_features_only() -> None:
    backbone = seeded_backbone("timm/resnet18", 0).eval()
    assert isinstance(backbone, TimmBackbone)
    import timm

    features = timm.create_model("resnet18", pretrained=False, features_only=True).eval()
    features.load_state_dict(backbone.network.state_dict(), strict=False)
    frames = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for one, other in zip(backbone.pyramid(frames), features(frames.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(one, other)


def test_a_network_of_one_size_of_maps_is_refused() -> None:
    backbone = seeded_backbone("timm/vit_tiny_patch16_224", 0, 32)
    with pytest.raises(UserError, match="has maps of 1 size, and a segmentation needs 3 or more; take one with stages"):
        map_widths(backbone, 32)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_backbone_stays_bit_for_bit(frozen: bool) -> None:
    backbone = seeded_backbone("resnet18", 0)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = SegmentationNetwork(backbone, "unet", 2, size=32, frozen=frozen)
    model.train()
    model(torch.randn(4, 1, 32, 32)).square().mean().backward()
    torch.optim.SGD([parameter for parameter in model.parameters() if parameter.grad is not None], 0.1).step()
    same = [torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items()]
    assert all(same) is frozen
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())  # the given one is copied
    assert np.isfinite([parameter.abs().sum().item() for parameter in model.parameters()]).all()
