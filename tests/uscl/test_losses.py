"""NT-Xent and masked cross-entropy: published vectors, closed forms, a plain loop as oracle, and gradients that stay finite."""

from __future__ import annotations

import math

import pytest
import torch

from uscl.losses import masked_cross_entropy, nt_xent

TEMPERATURES = (0.1, 0.5, 1.0)


def angles(*degrees: float) -> torch.Tensor:
    radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def waves(function: object, phase: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(3, dtype=torch.float64), torch.arange(5, dtype=torch.float64), indexing="ij")
    return function(phase + 5 * rows + columns)


EYE = torch.eye(4, dtype=torch.float64)
CASES = {
    "A": (angles(0, 90, 180, 270), angles(10, 80, 200, 300), (0.0066325790, 0.5622167817, 1.0726033373)),
    "B": (EYE, EYE, tuple(math.log(1 + 6 * math.exp(-1 / temperature)) for temperature in TEMPERATURES)),
    "C": (torch.ones(4, 3, dtype=torch.float64), torch.ones(4, 3, dtype=torch.float64) * 7, (math.log(7),) * 3),
    "D": (angles(33), angles(210), (0.0, 0.0, 0.0)),
    "E": (waves(torch.sin, 1), waves(torch.cos, 2), (15.1477062682, 3.6365429076, 2.4743320147)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("which", range(3))
def test_published_vectors(case: str, which: int) -> None:
    z_a, z_b, expected = CASES[case]
    assert nt_xent(z_a, z_b, TEMPERATURES[which]).item() == pytest.approx(expected[which], abs=1e-8)
    # The views may change places, and lengths do not matter.
    assert nt_xent(3 * z_b, z_a / 5, TEMPERATURES[which]).item() == pytest.approx(expected[which], abs=1e-8)


def test_case_b_is_also_the_printed_numbers() -> None:
    printed = (0.0002723625, 0.5944376642, 1.1654221805)
    assert [nt_xent(EYE, EYE, t).item() for t in TEMPERATURES] == pytest.approx(printed, abs=1e-8)


def slow_nt_xent(z_a: torch.Tensor, z_b: torch.Tensor, temperature: float, groups: list[int] | None = None) -> float:
    rows = [*z_a, *z_b]
    count = len(z_a)
    total = 0.0
    for i, z in enumerate(rows):
        positive = (i + count) % (2 * count)
        cosines = [float(z @ other / z.norm() / other.norm()) / temperature for other in rows]
        kept = [j for j in range(2 * count) if j == positive or (j != i and (groups is None or groups[j % count] != groups[i % count]))]
        total += -cosines[positive] + math.log(sum(math.exp(cosines[j]) for j in kept))
    return total / (2 * count)


def test_a_plain_loop_gives_the_same_with_and_without_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    assert nt_xent(z_a, z_b, 0.3).item() == pytest.approx(slow_nt_xent(z_a, z_b, 0.3), abs=1e-12)
    groups = torch.tensor([0, 1, 1, 2, 0, 3])
    masked = nt_xent(z_a, z_b, 0.3, same_group=groups[:, None] == groups)
    assert masked.item() == pytest.approx(slow_nt_xent(z_a, z_b, 0.3, groups.tolist()), abs=1e-12)
    alone = nt_xent(z_a, z_b, 0.3, same_group=torch.ones(6, 6, dtype=torch.bool))
    assert alone.item() == pytest.approx(0, abs=1e-12)


def test_gradients_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    z_a, z_b = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_().unbind()
    mask = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5), (z_a, z_b))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5, same_group=mask), (z_a, z_b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_zero_equal_and_huge_rows_stay_finite(dtype: torch.dtype, count: int) -> None:
    for fill in (0.0, 1.0, 1e18, 1e-18):
        z = torch.full((count, 3), fill, dtype=dtype, requires_grad=True)
        loss = nt_xent(z, z, 0.07)
        loss.backward()
        assert loss.item() == pytest.approx(math.log(2 * count - 1), abs=1e-5)
        assert torch.isfinite(z.grad).all()


def test_losses_are_float32_under_autocast() -> None:
    z = torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        low = torch.nn.functional.linear(z, torch.eye(8))
        assert low.dtype == torch.bfloat16
        assert nt_xent(low, low, 0.5).dtype == torch.float32
        assert nt_xent(z, z.flip(0), 0.5).item() == nt_xent(z, z.flip(0).clone(), 0.5).item()
    assert nt_xent(z, z.flip(0), 0.5).dtype == torch.float32


def test_cross_entropy_of_the_labelled_rows() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0], [3.0, 1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, -1, 0])
    rows = [math.log(sum(math.exp(v) for v in row)) - row[label] for row, label in (([1.0, 2.0, 0.5], 1), ([3.0, 1.0, 1.0], 0))]
    loss = masked_cross_entropy(logits, labels)
    assert loss.item() == pytest.approx(sum(rows) / 2, abs=1e-12)
    loss.backward()
    assert logits.grad[1].tolist() == [0, 0, 0]
    weights = torch.tensor([0.3, 2.0, 1.0], dtype=torch.float64)
    for class_weights in (None, weights):
        assert torch.autograd.gradcheck(lambda given, w=class_weights: masked_cross_entropy(given, labels, w), (logits,))


def test_no_labelled_row_is_zero_with_a_zero_gradient() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.full((3,), -1))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(3, 2))


def test_weights_of_pairs_multiply_their_terms() -> None:
    generator = torch.Generator().manual_seed(2)
    z_a, z_b = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    weights = torch.tensor([0.2, 1.0, 0.5, 0.7, 0.9], dtype=torch.float64)
    rows, total = [*z_a, *z_b], 0.0
    for i, z in enumerate(rows):
        cosines = [float(z @ other / z.norm() / other.norm()) / 0.3 for other in rows]
        denominator = math.log(sum(math.exp(cosine) for j, cosine in enumerate(cosines) if j != i))
        total += float(weights[i % 5]) * (denominator - cosines[(i + 5) % 10])
    assert nt_xent(z_a, z_b, 0.3, weights=weights).item() == pytest.approx(total / 10, abs=1e-8)
    assert nt_xent(z_a, z_b, 0.3, weights=torch.ones(5)).item() == pytest.approx(nt_xent(z_a, z_b, 0.3).item(), abs=1e-12)
    z_a.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: nt_xent(a, z_b, 0.5, weights=weights), (z_a,))
    for count in (1, 3):
        equal = torch.zeros(count, 4, requires_grad=True)
        loss = nt_xent(equal, equal, 0.07, weights=torch.full((count,), 0.5))
        loss.backward()
        assert loss.item() == pytest.approx(0.5 * math.log(2 * count - 1), abs=1e-6)
        assert torch.isfinite(equal.grad).all()
