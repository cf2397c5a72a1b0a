"""VICReg: its loss against the formula in loops, lightly and finite differences, and that no term forgets its weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import uscl.torchvision_compat  # noqa: F401 - before lightly, which imports torchvision
from uscl.config import load_config, recipe_names
from uscl.methods import Facts, find_method, make_method
from uscl.methods.vicreg import vicreg
from usdata.errors import RecipeError


def rows(count: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    z_a, noise = torch.randn(2, count, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 0.6 * z_a + 3, 0.8 * z_a + 0.1 * noise


def by_the_paper(z_a: np.ndarray, z_b: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """Equations 1 to 5 with loops; the distance over D and the variance halved, as in the published code."""
    count, width = z_a.shape
    invariance = sum(weights[n] * (z_a[n, j] - z_b[n, j]) ** 2 for n in range(count) for j in range(width)) / count / width
    variance = covariance = 0.0
    for z in (z_a, z_b):
        mean = [sum(z[n, j] for n in range(count)) / count for j in range(width)]
        for i in range(width):
            for j in range(width):
                entry = sum((z[n, i] - mean[i]) * (z[n, j] - mean[j]) for n in range(count)) / (count - 1)
                if i == j:
                    variance += max(0.0, 1 - (entry + 1e-4) ** 0.5) / width / 2
                else:
                    covariance += entry**2 / width
    return invariance, variance, covariance


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_the_papers(weighted: bool) -> None:
    z_a, z_b = rows(7, 5)
    weights = torch.linspace(0.2, 1, 7, dtype=torch.float64) if weighted else None
    found = [term.item() for term in vicreg(z_a, z_b, weights=weights)]
    expected = by_the_paper(z_a.numpy(), z_b.numpy(), np.ones(7) if weights is None else weights.numpy())
    assert min(expected) > 0
    assert found == pytest.approx(expected, abs=1e-8)


def test_loss_is_that_of_lightly() -> None:
    """lightly has the published code's conventions, as we do."""
    from lightly.loss import VICRegLoss

    z_a, z_b = (z.requires_grad_() for z in rows(9, 4))
    terms = vicreg(z_a, z_b)
    ours = 25 * terms[0] + 20 * terms[1] + 1.5 * terms[2]
    theirs = VICRegLoss(lambda_param=25, mu_param=20, nu_param=1.5)(z_a, z_b)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-8)
    for one, two in zip(torch.autograd.grad(ours, (z_a, z_b)), torch.autograd.grad(theirs, (z_a, z_b)), strict=True):
        torch.testing.assert_close(one, two, atol=1e-10, rtol=1e-8)


def test_weights_of_one_are_none_and_others_scale_the_distance_alone() -> None:
    z_a, z_b = rows(6, 4)
    plain = torch.stack(vicreg(z_a, z_b))
    assert torch.equal(torch.stack(vicreg(z_a, z_b, weights=torch.ones(6))), plain)
    assert torch.allclose(torch.stack(vicreg(z_a, z_b, weights=torch.full((6,), 0.25))) / plain, torch.tensor([0.25, 1, 1]).double())


def test_gradients_against_finite_differences() -> None:
    z_a, z_b = (z.requires_grad_() for z in rows(4, 3))
    weights = torch.tensor([0.3, 1.0, 0.5, 0.8], dtype=torch.float64)
    assert torch.autograd.gradcheck(vicreg, (z_a, z_b))
    assert torch.autograd.gradcheck(lambda a, b: vicreg(a, b, weights=weights), (z_a, z_b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_equal_rows_have_no_variance_and_stay_finite(dtype: torch.dtype, count: int) -> None:
    for fill in (0.0, 1.0, 1e4):
        z = torch.full((count, 3), fill, dtype=dtype, requires_grad=True)
        terms = vicreg(z, z)
        (gradient,) = torch.autograd.grad(torch.stack(terms).sum(), z)
        assert [term.item() for term in terms] == pytest.approx([0, 0.99, 0], abs=1e-5)
        assert torch.isfinite(gradient).all()


def test_the_loss_is_float32_under_autocast() -> None:
    z_a, z_b = (z.float() for z in rows(8, 6))
    with torch.autocast("cpu", torch.bfloat16):
        found = vicreg(z_a, z_b)
        assert vicreg(z_a.bfloat16(), z_b)[0].dtype == torch.float32
    assert [term.item() for term in found] == [term.item() for term in vicreg(z_a, z_b)]


def test_settings_reach_the_loss() -> None:
    settings = ["vicreg.invariance=2", "vicreg.variance=3", "vicreg.covariance=5", "projector.width=6", "image_size=32", "labels.weight=0"]
    method = make_method(load_config("uscl", ["method=vicreg", *settings]), 0)[0]
    outcome = method(tuple(torch.randn(2, 4, 1, 32, 32)), Facts(torch.full((4,), -1), torch.arange(4)))
    terms = [outcome["terms"][name].item() for name in ("invariance", "variance", "covariance")]
    assert outcome["loss"].item() == pytest.approx(float(np.dot([2, 3, 5], terms)), rel=1e-5)
    assert torch.allclose(outcome["projections"][4:].mean(dim=0), torch.zeros(6), atol=1e-5)


def test_recipes_of_these_methods_load_and_are_used() -> None:
    found = {name: load_config(name) for name in recipe_names() if name in ("barlow-twins", "vicreg") or name.startswith("ivpp-")}
    assert {name: config.method for name, config in found.items()} == {
        "barlow-twins": "barlow-twins",
        "vicreg": "vicreg",
        "ivpp-simclr": "uscl",
        "ivpp-barlow-twins": "barlow-twins",
        "ivpp-vicreg": "vicreg",
    }
    for name, config in found.items():
        assert config.learning_rate == pytest.approx(0.2 * config.batch_size / 256), name
        assert config.pairs.weights == name.startswith("ivpp-")
        assert "pair_weights" in find_method(config.method).uses
        assert "keys" not in find_method(config.method).uses
    with pytest.raises(RecipeError, match="hard-negatives: is not used by method 'vicreg'"):
        make_method(load_config("uscl", ["method=vicreg", "pairs.policy=hard-negatives"]), 0)
