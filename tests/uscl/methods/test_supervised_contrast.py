"""SupCon against its formula with loops and another library, and AWCL's reading of what has no value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from uscl.config import load_config
from uscl.losses import nt_xent, supervised_contrast
from uscl.methods import Facts, make_method
from usdata.errors import RecipeError


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def slow_supervised_contrast(
    z: np.ndarray, keys: list[int], temperature: float, groups: list[int] | None = None, hard: list[list[np.ndarray]] | None = None
) -> float:
    """Equation 2 of the paper; rows 0 .. N-1 are view a, the others view b."""
    count, total = len(keys), 0.0
    z = z / np.sqrt((z**2).sum(axis=1, keepdims=True))
    for i in range(2 * count):
        same_video = [p for p in range(2 * count) if p != i and p % count == i % count]
        same_key = [p for p in range(2 * count) if p % count != i % count and keys[p % count] == keys[i % count] >= 0]
        positives = same_video + same_key
        others = [a for a in range(2 * count) if a != i and (a in positives or not groups or groups[a % count] != groups[i % count])]
        scores = [math.exp(z[i] @ z[a] / temperature) for a in others]
        scores += [math.exp(z[i] @ far / np.sqrt((far**2).sum()) / temperature) for far in (hard[i % count] if hard else [])]
        total -= sum(math.log(math.exp(z[i] @ z[p] / temperature) / sum(scores)) for p in positives) / len(positives)
    return total / (2 * count)


KEYS = [[0, 0, 1, -1, 0], [-1] * 5, [3] * 5, [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("keys", KEYS)
def test_it_is_the_formula(keys: list[int]) -> None:
    z, far = random(10, 4), random(5, 2, 4, seed=1)
    groups, given = torch.tensor([0, 0, 1, 1, 2]), torch.tensor(keys)
    same, known = groups[:, None] == groups, torch.tensor([[1, 1], [0, 1], [0, 0], [1, 0], [1, 1]]).bool()
    hard = [[far[i, j].numpy() for j in range(2) if known[i, j]] for i in range(5)]
    for options, more in (
        ({}, {}),
        ({"same_group": same}, {"groups": groups.tolist()}),
        ({"same_group": same, "hard": far, "hard_known": known}, {"groups": groups.tolist(), "hard": hard}),
    ):
        found = supervised_contrast(z[:5], z[5:], given, 0.3, **options)
        assert found.item() == pytest.approx(slow_supervised_contrast(z.numpy(), keys, 0.3, **more), abs=1e-10)
    if len(set(keys)) == 5 or max(keys) < 0:  # no two equal keys
        for options in ({}, {"same_group": same, "hard": far, "hard_known": known}):
            expected = nt_xent(z[:5], z[5:], 0.3, **options)
            assert supervised_contrast(z[:5], z[5:], given, 0.3, **options).item() == pytest.approx(expected.item(), abs=1e-12)


def test_it_is_that_of_another_library() -> None:
    from pytorch_metric_learning.losses import SupConLoss

    z, keys = random(10, 4), torch.tensor([0, 0, 1, 2, 1])
    theirs = SupConLoss(temperature=0.2)(z, keys.repeat(2))
    assert supervised_contrast(z[:5], z[5:], keys, 0.2).item() == pytest.approx(theirs.item(), abs=1e-8)


def test_gradients_against_finite_differences() -> None:
    leaves = random(3, 4).requires_grad_(), random(3, 4, seed=1).requires_grad_(), random(3, 2, 4, seed=2).requires_grad_()
    same, known = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]]).bool(), torch.tensor([[1, 1], [0, 0], [0, 1]]).bool()
    for loss in (
        lambda a, b, far: supervised_contrast(a, b, torch.tensor([0, 0, -1]), 0.5, same_group=same, hard=far, hard_known=known),
        lambda a, b, far: nt_xent(a, b, 0.5, same_group=same, hard=far, hard_known=known),
    ):
        assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 4])
def test_zero_equal_and_huge_rows_stay_finite(dtype: torch.dtype, count: int) -> None:
    for fill in (0.0, 1.0, 1e18):
        z = torch.full((count, 3), fill, dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = supervised_contrast(z, z, torch.zeros(count, dtype=torch.int64), 0.07, hard=z[:, None])
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(math.log(2 * count), abs=1e-5)
        assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize(("recipe", "views"), [("awcl", 2), ("awcl", 4), ("simclr", 4)])
def test_the_method_is_its_loss(recipe: str, views: int) -> None:
    config = load_config(recipe, ["image_size=32"])
    method = make_method(config, 0)[0].double().eval()
    inputs = [random(3, 1, 32, 32, seed=view) for view in range(views)]
    groups, keys = torch.tensor([0, 1, 1]), torch.tensor([0, 0, -1])
    facts = Facts(torch.full((3,), -1), groups, views=views, same_group=groups[:, None] == groups, keys=keys)
    outcome = method(inputs, facts)
    z = [method.projector(method.backbone(view)) for view in inputs]
    options = {"same_group": facts.same_group, "hard": torch.stack(z[2:], dim=1) if views == 4 else None}
    expected = supervised_contrast(z[0], z[1], keys, 0.5, **options) if recipe == "awcl" else nt_xent(z[0], z[1], 0.5, **options)
    assert outcome["loss"].item() == pytest.approx(expected.item(), abs=1e-10)
    assert torch.allclose(outcome["projections"], torch.cat(z[:2]))
    # The first video meets five other rows, the two of one group meet three; a far frame of their own is one more each.
    seen = [5, 3, 3]
    assert float(outcome["collapsed_loss"]) == pytest.approx(sum(math.log(n + views - 2) for n in seen) / 3, abs=1e-10)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(RecipeError, match=r"pairs\.column: is null, and method 'supervised-contrast' takes .* --set pairs\.column=label"):
        make_method(load_config("awcl", ["pairs.column=null"]), 0)
    method = make_method(load_config("awcl", []), 0)[0]
    with pytest.raises(ValueError, match="keys"):
        method.loss(torch.zeros(4, 3), Facts(torch.zeros(2), torch.arange(2)))
