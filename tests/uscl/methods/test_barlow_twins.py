"""Barlow Twins: its loss against the formula in loops, lightly and finite differences, and what a run of it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import uscl.torchvision_compat  # noqa: F401 - before lightly, which imports torchvision
from tests.uscl.tiny_set import TINY_NETWORK, write_set
from uscl.config import load_config
from uscl.diagnostics import measure
from uscl.gradient_cache import cached_gradients
from uscl.methods import Facts, make_method
from uscl.methods.barlow_twins import EPSILON, barlow_twins, standardised
from uscl.methods.method import without_graph
from uscl.methods.vicreg import vicreg
from uscl.run_list import runs
from uscl.train import pretrain

LIGHT = ["method=barlow-twins", "image_size=32", "labels.weight=0", "projector.layers=3", "projector.batch_norm=true"]
NARROW = ["projector.hidden=16", "projector.width=12"]


def rows(count: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    z_a, noise = torch.randn(2, count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z_a + 3, z_a * 2 + noise - 1


def by_the_paper(z_a: np.ndarray, z_b: np.ndarray, weights: np.ndarray, epsilon: float) -> tuple[float, float]:
    """Equations 1 and 2 with loops; the weights in the moments alone."""
    count, width = z_a.shape
    moments = []
    for z in (z_a, z_b):
        mean = [sum(weights[n] * z[n, i] for n in range(count)) / sum(weights) for i in range(width)]
        square = [sum(weights[n] * (z[n, i] - mean[i]) ** 2 for n in range(count)) / sum(weights) for i in range(width)]
        moments.append((mean, [value + epsilon for value in square]))
    (mean_a, square_a), (mean_b, square_b) = moments
    invariance = redundancy = 0.0
    for i in range(width):
        for j in range(width):
            above = sum((z_a[n, i] - mean_a[i]) * (z_b[n, j] - mean_b[j]) for n in range(count)) / count
            correlation = above / (square_a[i] * square_b[j]) ** 0.5
            if i == j:
                invariance += (1 - correlation) ** 2
            else:
                redundancy += correlation**2
    return invariance, redundancy


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_the_papers(weighted: bool) -> None:
    z_a, z_b = rows(7, 5)
    weights = torch.linspace(0.2, 1, 7, dtype=torch.float64) if weighted else None
    loops = np.ones(7) if weights is None else weights.numpy()
    found = [term.item() for term in barlow_twins(z_a, z_b, weights=weights)]
    assert found == pytest.approx(by_the_paper(z_a.numpy(), z_b.numpy(), loops, EPSILON), abs=1e-8)
    # The paper has no epsilon, and of components a thousand times as long nothing is seen of ours.
    found = [term.item() for term in barlow_twins(1e3 * z_a, 1e3 * z_b, weights=weights)]
    assert found == pytest.approx(by_the_paper(z_a.numpy(), z_b.numpy(), loops, 0), abs=1e-8)


def test_loss_is_that_of_lightly() -> None:
    from lightly.loss import BarlowTwinsLoss

    z_a, z_b = (z.requires_grad_() for z in rows(9, 4))
    invariance, redundancy = barlow_twins(z_a, z_b)
    ours = invariance + 0.0051 * redundancy
    theirs = BarlowTwinsLoss(lambda_param=0.0051)(z_a, z_b)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-8)
    for one, two in zip(torch.autograd.grad(ours, (z_a, z_b)), torch.autograd.grad(theirs, (z_a, z_b)), strict=True):
        torch.testing.assert_close(one, two, atol=1e-10, rtol=1e-8)


def test_equal_weights_are_none() -> None:
    z_a, z_b = rows(6, 4)
    for weight in (1.0, 0.25):
        weighted = barlow_twins(z_a, z_b, weights=torch.full((6,), weight))
        assert torch.allclose(torch.stack(weighted), torch.stack(barlow_twins(z_a, z_b)), rtol=0, atol=1e-6)


def test_gradients_against_finite_differences() -> None:
    z_a, z_b = (z.requires_grad_() for z in rows(4, 3))
    weights = torch.tensor([0.3, 1.0, 0.5, 0.8], dtype=torch.float64)
    assert torch.autograd.gradcheck(barlow_twins, (z_a, z_b))
    assert torch.autograd.gradcheck(lambda a, b: barlow_twins(a, b, weights=weights), (z_a, z_b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_constant_components_correlate_with_nothing(dtype: torch.dtype, count: int) -> None:
    for fill in (0.0, 1.0, -1e4):
        z = torch.full((count, 3), fill, dtype=dtype, requires_grad=True)
        for weights in (None, torch.full((count,), 0.5)):
            invariance, redundancy = barlow_twins(z, z, weights=weights)
            (gradient,) = torch.autograd.grad(invariance + redundancy, z)
            assert invariance.item() == pytest.approx(3, abs=1e-5)
            assert redundancy.item() == pytest.approx(0, abs=1e-5)
            assert torch.isfinite(gradient).all()


def test_the_loss_is_float32_under_autocast() -> None:
    z_a, z_b = (z.float() for z in rows(8, 6))
    with torch.autocast("cpu", torch.bfloat16):
        found = barlow_twins(z_a, z_b)
        assert barlow_twins(z_a.bfloat16(), z_b)[0].dtype == torch.float32
    assert [term.item() for term in found] == [term.item() for term in barlow_twins(z_a, z_b)]


@pytest.mark.parametrize("name", ["barlow-twins", "vicreg"])
@pytest.mark.parametrize("weights", [None, torch.linspace(0.2, 1, 5)])
def test_a_method_in_parts_has_the_gradient_of_the_whole(name: str, weights: torch.Tensor | None) -> None:
    """In evaluation mode, where BatchNorm does not normalise by the part."""
    config = load_config("uscl", [*LIGHT, *NARROW, f"method={name}", "labels.weight=0.5"])
    views = torch.randn(2, 5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    facts = Facts(torch.tensor([0, 1, -1, 1, 0]), torch.arange(5), pair_weights=weights)
    method = make_method(config, 2)[0].eval()
    outcome = method(tuple(views), facts)
    terms = {"barlow-twins": barlow_twins, "vicreg": vicreg}[name](*method.projector(outcome["features"]).chunk(2), weights=weights)
    assert list(outcome["terms"].values())[: len(terms)] == pytest.approx([term.item() for term in terms], rel=1e-4)
    outcome["loss"].backward()
    whole = {key: parameter.grad.clone() for key, parameter in method.named_parameters() if parameter.grad is not None}
    again = make_method(config, 2)[0].eval()
    found = cached_gradients(again, tuple(views), facts, 2)
    assert found["loss"].item() == pytest.approx(outcome["loss"].item(), rel=1e-5)
    assert "cross_entropy" in found["terms"]
    for key, parameter in again.named_parameters():
        assert torch.allclose(parameter.grad, whole[key], rtol=1e-3, atol=1e-4 * whole[key].abs().max().item()), key


def test_settings_reach_the_loss_and_projections_are_as_it_sees_them() -> None:
    config = load_config("uscl", [*LIGHT, *NARROW, "barlow_twins.off_diagonal=0.5", "barlow_twins.scale=0.1"])
    method = make_method(config, 0)[0]
    views = torch.randn(2, 4, 1, 32, 32)
    outcome = without_graph(method(tuple(views), Facts(torch.full((4,), -1), torch.arange(4))))
    invariance, redundancy = (outcome["terms"][name].item() for name in ("invariance", "redundancy"))
    assert outcome["loss"].item() == pytest.approx(0.1 * (invariance + 0.5 * redundancy), rel=1e-5)
    # A mean that all projections share is no collapse, for the loss takes it away.
    z = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)) + 100
    assert measure(z, z)["negative_similarity"] > 0.995
    assert abs(measure(z, torch.cat([standardised(half) for half in z.chunk(2)]))["negative_similarity"]) < 0.5
    assert torch.allclose(outcome["projections"].chunk(2)[1].mean(dim=0), torch.zeros(12), atol=1e-5)


def test_a_run_speaks_of_its_own_terms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [
        "epochs=2",
        "batch_size=6",
        "device=cpu",
        "checkpoint.log_every_steps=1",
        "precision=bfloat16",
    ]
    run = pretrain(write_set(tmp_path / "set"), out=tmp_path / "run", overrides=[*LIGHT, *NARROW, TINY_NETWORK, *settings]).out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert lines[-1]["loss"] == pytest.approx(lines[-1]["invariance"] + 0.0051 * lines[-1]["redundancy"], rel=1e-5)
    assert not {"contrast", "collapsed_loss"} & lines[-1].keys()
    said = capsys.readouterr().err
    assert f"loss {lines[-1]['loss']:.3f}, invariance {lines[-1]['invariance']:.3f}, redundancy {lines[-1]['redundancy']:.3f}, " in said
    page = (run / "report.html").read_text()
    for question in ("Does the loss fall?", "What becomes of its part invariance?", "What becomes of its part redundancy?"):
        assert f"<h3>{question}</h3>" in page
    assert "collapsed network" not in page
    (row,) = runs(run)
    assert (row.status, row.loss) == ("finished", lines[-1]["loss"])
