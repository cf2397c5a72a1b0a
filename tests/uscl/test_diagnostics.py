"""Diagnostics: closed forms, and a sentence exactly where the representation has collapsed."""

from __future__ import annotations

import math

import pytest
import torch

from uscl.diagnostics import collapse_sentence, gradient_norm, measure


def test_spread_of_gaussian_features() -> None:
    features = torch.randn(4096, 256, generator=torch.Generator().manual_seed(0))
    measured = measure(features, features)
    assert measured["feature_spread"] == pytest.approx(0.0625, rel=0.01)
    assert measured["negative_similarity"] == pytest.approx(0, abs=1e-3)
    assert measured["collapsed_loss"] == math.log(4095)
    assert collapse_sentence(measured, 256) is None


def test_similarities_by_hand() -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    measured = measure(z, z)
    cosine = torch.nn.functional.cosine_similarity(z[:, None], z[None], dim=2)
    positive = [cosine[i, i + 3].item() for i in range(3)]
    negative = [cosine[i, j].item() for i in range(6) for j in range(6) if j not in (i, (i + 3) % 6)]
    assert measured["positive_similarity"] == pytest.approx(sum(positive) / 3, abs=1e-12)
    assert measured["negative_similarity"] == pytest.approx(sum(negative) / len(negative), abs=1e-12)


def test_a_constant_network_is_called_collapsed() -> None:
    measured = measure(torch.ones(8, 16), torch.ones(8, 4))
    assert measured["positive_similarity"] == pytest.approx(1)
    assert measured["negative_similarity"] == pytest.approx(1)
    assert "all frames give the same features" in (collapse_sentence(measured, 16) or "")


def test_equal_projections_of_unequal_features_are_called_collapsed() -> None:
    features = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    assert "as similar as those of one" in (collapse_sentence(measure(features, torch.ones(8, 4)), 16) or "")


def test_one_video_has_no_negatives() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    measured = measure(z, z)
    assert (measured["negative_similarity"], measured["collapsed_loss"]) == (0, 0)
    assert collapse_sentence(measured, 2) is None


def test_gradient_norm() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(3))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert gradient_norm(parameters) == 5
