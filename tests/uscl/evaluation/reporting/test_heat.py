"""Evidence: closed forms, and that it is exact for a linear probe of a real network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from uscl.backbones import ResNet, seeded_backbone
from uscl.evaluation.probes import linear_probe
from uscl.evaluation.reporting.heat import evidence, fit_probe, grad_cam, last_maps, share_outside
from uscl.frames import FrameStore
from uscl.models import normalise


def store_of(pixels: np.ndarray) -> FrameStore:
    return FrameStore(pixels, pixels.shape[1], Path("frames.npy"), 0, "none", np.full((len(pixels), 4), np.nan))


def test_of_a_linear_score_it_is_the_class_activation_map_and_sums_to_the_score() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, weight, bias = torch.randn(3, 4, 2, 5, generator=generator), torch.randn(4, generator=generator), 0.7
    found = grad_cam(maps, lambda leaf: leaf.mean(dim=(2, 3)) @ weight + bias)
    by_hand = torch.stack([sum(weight[k] * maps[n, k] for k in range(4)) / 10 for n in range(3)])  # type: ignore[misc]
    torch.testing.assert_close(found, by_hand)
    torch.testing.assert_close(found.sum(dim=(1, 2)) + bias, maps.mean(dim=(2, 3)) @ weight + bias)
    assert not maps.requires_grad


def test_of_a_tiny_network_it_is_what_the_paper_writes() -> None:
    """y = (sum of channel 0)^2 - 3 x (a cell of channel 1): the slopes are 2s everywhere, and -3 at one of four cells."""
    maps = torch.tensor([[[[1.0, 2.0], [0.0, -1.0]], [[4.0, 0.0], [2.0, 1.0]]]])
    found = grad_cam(maps, lambda leaf: leaf[:, 0].sum(dim=(1, 2)) ** 2 - 3 * leaf[:, 1, 0, 0])
    torch.testing.assert_close(found[0], 4 * maps[0, 0] - 0.75 * maps[0, 1])


def test_the_same_everywhere_is_no_evidence() -> None:
    maps = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    maps[:, :, 0] = 5.0
    found = grad_cam(maps, lambda leaf: leaf.mean(dim=(2, 3)).sum(dim=1), maps.mean(dim=0))
    assert found[:, 0].abs().max() < 1e-6
    assert found[:, 1:].abs().max() > 1e-3
    torch.testing.assert_close(found.sum(dim=(1, 2)), maps.mean(dim=(2, 3)).sum(dim=1) - maps.mean(dim=(0, 2, 3)).sum())


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_fitted_again_is_the_probe(classes: int) -> None:
    generator = np.random.default_rng(classes)
    labels = np.arange(60) % classes
    features = (generator.normal(size=(60, 7)) + labels[:, None] * 0.4).astype(np.float32)
    test = generator.normal(size=(20, 7)).astype(np.float32)
    probe = fit_probe(features, labels, classes)
    np.testing.assert_allclose(probe.probabilities(test), linear_probe(features, labels, test, class_count=classes)[0], atol=1e-6)
    np.testing.assert_allclose(probe.weight.sum(axis=0), 0, atol=1e-9)


def test_evidence_in_a_real_network_sums_to_the_probes_score() -> None:
    backbone = seeded_backbone("resnet18", 0).eval()
    assert isinstance(backbone, ResNet)
    pixels = np.random.default_rng(0).integers(0, 255, (6, 64, 64), dtype=np.uint8)
    maps = last_maps(backbone, store_of(pixels), np.arange(6))
    with torch.inference_mode():
        torch.testing.assert_close(maps.mean(dim=(2, 3)), backbone(normalise(torch.from_numpy(pixels))), rtol=1e-4, atol=1e-4)
    folds, weight = np.array([0, 0, 0, 1, 1, 1]), np.random.default_rng(1).normal(size=512)
    heats = list(evidence(maps, np.tile(weight, (6, 1)), folds, 64))
    cells = torch.einsum("nkhw,k->nhw", maps.double(), torch.from_numpy(weight)) / 4
    usual = torch.stack([cells[folds != fold].mean(dim=0) for fold in folds])
    for heat, expected in zip(heats, (cells - usual).clamp(min=0), strict=True):
        assert heat.shape == (64, 64)
        # Enlarging by a whole factor keeps the mean, but for what the edges repeat.
        assert heat.max() == pytest.approx(float(expected.max()), rel=1e-3, abs=1e-6)
        assert heat.min() >= 0
    score = maps.double().mean(dim=(2, 3)) @ torch.from_numpy(weight)
    others = torch.stack([score[folds != fold].mean() for fold in folds])
    torch.testing.assert_close((cells - usual).sum(dim=(1, 2)), score - others)
    black = last_maps(backbone, store_of(np.zeros((4, 64, 64), dtype=np.uint8)), np.arange(4))
    assert all(heat.max() < 1e-4 for heat in evidence(black, np.tile(weight, (4, 1)), np.array([0, 0, 1, 1]), 64))


def test_share_outside() -> None:
    heat = np.array([[1, 2], [3, 4]], dtype=np.float32)
    inside = np.array([[True, True], [True, False]])
    assert share_outside(heat, inside) == pytest.approx(0.4)
    assert share_outside(heat, np.ones((2, 2), dtype=bool)) == 0
    assert share_outside(np.zeros((2, 2), dtype=np.float32), inside) is None
