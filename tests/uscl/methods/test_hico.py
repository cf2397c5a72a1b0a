"""HiCo: soft InfoNCE against loops in numpy, its masks at every level, and its gradient in parts and in bfloat16."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.uscl.tiny_set import metrics_of, write_set
from uscl.backbones import make_backbone
from uscl.config import load_config
from uscl.gradient_cache import cached_gradients
from uscl.losses import nt_xent, soft_info_nce, soft_targets
from uscl.methods import Facts, make_method
from uscl.methods.hico import HiCo
from uscl.train import pretrain
from usdata.errors import RecipeError

SETTINGS = ["image_size=32", "projector.hidden=16", "projector.width=8", "temperature=0.3"]


def by_hand(queries: np.ndarray, keys: np.ndarray, temperature: float, softening: float, groups: list[int]) -> float:
    """Row i is video i % N; its positive is the other view of that video, its negatives all views of videos of other groups."""
    rows, videos = len(queries), len(queries) // 2
    total = 0.0
    for i in range(rows):
        cosines, target = {}, {}
        for j in range(rows):
            positive = j == (i + videos) % rows
            if positive or groups[i % videos] != groups[j % videos]:
                cosines[j] = queries[i] @ keys[j] / np.linalg.norm(queries[i]) / np.linalg.norm(keys[j]) / temperature
                target[j] = 1.0 if positive else 0.0
        for j in target:
            if len(target) > 1:
                target[j] = 1 - softening if target[j] else softening / (len(target) - 1)
        assert sum(target.values()) == pytest.approx(1, abs=1e-12)
        whole = math.log(sum(math.exp(value) for value in cosines.values()))
        total -= sum(target[j] * (cosines[j] - whole) for j in target)
    return total / rows


def same(groups: list[int]) -> torch.Tensor:
    numbers = torch.tensor(groups)
    return numbers[:, None] == numbers


def soft(queries: torch.Tensor, keys: torch.Tensor, softening: float, same_group: torch.Tensor | None = None) -> torch.Tensor:
    targets, left_out = soft_targets(len(queries) // 2, softening, same_group=same_group)
    return soft_info_nce(queries, keys, targets, 0.3, left_out=left_out)


@pytest.mark.parametrize("softening", [0.0, 0.2])
@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1], [0, 0, 0, 0, 0]])
def test_soft_info_nce_is_the_formula(softening: float, groups: list[int]) -> None:
    queries, keys = np.random.default_rng(0).normal(size=(2, 10, 4))
    found = soft(torch.from_numpy(queries), torch.from_numpy(keys), softening, same(groups)).item()
    assert found == pytest.approx(by_hand(queries, keys, 0.3, softening, groups), abs=1e-8)


def test_soft_info_nce_takes_any_targets() -> None:
    generator = np.random.default_rng(1)
    queries, keys = generator.normal(size=(3, 4)), generator.normal(size=(5, 4))
    targets = generator.dirichlet(np.ones(5), size=3)
    total = 0.0
    for i in range(3):
        scores = [queries[i] @ keys[j] / np.linalg.norm(queries[i]) / np.linalg.norm(keys[j]) / 0.3 for j in range(5)]
        whole = math.log(sum(math.exp(score) for score in scores))
        total -= sum(targets[i, j] * (scores[j] - whole) for j in range(5)) / 3
    found = soft_info_nce(*(torch.from_numpy(each) for each in (queries, keys, targets)), 0.3)
    assert found.item() == pytest.approx(total, abs=1e-12)


def test_known_losses_are_special_cases() -> None:
    from lightly.loss import NTXentLoss  # after uscl.torchvision_compat, as it imports torchvision

    z = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    hard = soft(z, z, 0.0).item()
    assert hard == pytest.approx(nt_xent(*z.chunk(2), 0.3).item(), abs=1e-12)
    assert hard == pytest.approx(NTXentLoss(temperature=0.3)(*z.chunk(2)).item(), abs=1e-8)
    # Torch's label smoothing gives the positive a part of what it spreads over all 11 keys.
    cosines = functional.normalize(z, dim=1) @ functional.normalize(z, dim=1).T / 0.3
    others = cosines[~torch.eye(12, dtype=torch.bool)].reshape(12, 11)
    place = torch.tensor([(i + 6) % 12 - ((i + 6) % 12 > i) for i in range(12)])
    smoothed = functional.cross_entropy(others, place, label_smoothing=0.25 * 11 / 10).item()
    assert soft(z, z, 0.25).item() == pytest.approx(smoothed, abs=1e-12)


def test_gradients_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    queries, keys = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64).requires_grad_().unbind()
    for groups in ([0, 1, 2], [0, 0, 1]):
        mask = same(groups)
        assert torch.autograd.gradcheck(lambda q, k, mask=mask: soft(q, k, 0.2, mask), (queries, keys))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_zero_equal_and_huge_rows_stay_finite(dtype: torch.dtype, count: int) -> None:
    for fill in (0.0, 1.0, 1e18):
        for mask in (None, torch.ones(count, count, dtype=torch.bool)):
            z = torch.full((2 * count, 3), fill, dtype=dtype, requires_grad=True)
            with torch.autocast("cpu", torch.bfloat16):
                loss = soft(z, z, 0.2, mask)
            loss.backward()
            assert loss.dtype == torch.promote_types(dtype, torch.float32)
            assert loss.item() == pytest.approx(0.0 if mask is not None else math.log(2 * count - 1), abs=1e-5)
            assert torch.isfinite(z.grad).all()


def problem(videos: int = 4) -> tuple[torch.Tensor, Facts]:
    views = torch.randn(2, videos, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    groups = [0, 1, 0, 2, 3][:videos]
    return views, Facts(torch.tensor([0, -1, 1, 1, 0][:videos]), torch.tensor(groups), same_group=same(groups))


def test_the_loss_is_that_of_all_levels() -> None:
    method, backbone = make_method(load_config("hico", [*SETTINGS, "hico.cross_weight=0.5", "hico.softening=0.25"]), 2)
    method.double().eval()
    views, facts = problem()
    outcome = method(views, facts)
    frames = views.flatten(0, 1)
    second, third, last = backbone.stages(frames)
    assert torch.equal(outcome["features"], backbone(frames))
    assert [each.shape[1:] for each in (second, third, last)] == [(128, 4, 4), (256, 2, 2), (512, 1, 1)]
    assert backbone.stage_widths == (128, 256, 512)
    heads = ((method.local_projector, second), (method.medium_projector, third), (method.projector, last))
    low, middle, top = (head(each.mean(dim=(2, 3))).detach().numpy() for head, each in heads)
    pairs = {"peer": [(low, low), (middle, middle), (top, top)], "cross": [(top, low), (top, middle)]}
    expected = {name: np.mean([by_hand(*pair, 0.3, 0.25, facts.groups.tolist()) for pair in each]) for name, each in pairs.items()}
    for name, value in expected.items():
        assert outcome["terms"][name].item() == pytest.approx(value, abs=1e-8), name
    contrast = expected["peer"] + 0.5 * expected["cross"]
    assert outcome["terms"]["contrast"].item() == pytest.approx(contrast, abs=1e-8)
    assert outcome["loss"].item() == pytest.approx(contrast + 0.2 * outcome["terms"]["cross_entropy"].item(), abs=1e-8)
    equal = np.ones((8, 3))
    assert float(outcome["collapsed_loss"]) == pytest.approx(1.5 * by_hand(equal, equal, 0.3, 0.25, facts.groups.tolist()), rel=1e-6)
    np.testing.assert_allclose(outcome["projections"].detach().numpy(), top, atol=1e-12)


def test_the_gradient_in_parts_is_that_of_one_graph() -> None:
    views, facts = problem(5)
    config = load_config("hico", SETTINGS)
    whole, parts = (make_method(config, 2)[0].double().eval() for _ in range(2))  # fixed statistics: the parts see what the whole sees
    whole(views, facts)["loss"].backward()
    found = cached_gradients(parts, tuple(views), facts, 2)
    assert found["projections"].grad_fn is None
    for (name, one), two in zip(whole.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-8, atol=1e-10, msg=name)


def test_a_run_in_small_parts_and_bfloat16(tmp_path: Path) -> None:
    dataset = write_set(tmp_path / "set", frames_per_video=(2, 3, 1, 2, 2), groups=["p0", "p0", "p1", "p2", "p3"])
    settings = [*SETTINGS, "epochs=1", "batch_size=5", "micro_batch_size=2", "device=cpu", "precision=bfloat16"]
    settings += ["pairs.distinct_groups=false", "pairs.exclude_same_group=true", "checkpoint.log_every_steps=1", "probe.every_epochs=0"]
    line = metrics_of(pretrain(dataset, out=tmp_path / "run", recipe="hico", overrides=settings).out)[-1]
    # Each of p0's two clips meets three others in both views, its positive among them: seven keys; the rest meet nine.
    assert line["collapsed_loss"] == pytest.approx(2 * (2 * math.log(7) + 3 * math.log(9)) / 5, rel=1e-6)
    assert line["contrast"] == pytest.approx(line["peer"] + line["cross"], rel=1e-6)


def test_what_it_cannot_contrast_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"projector\.layers: is 0.*different widths"):
        make_method(load_config("hico", ["projector.layers=0"]), 0)
    with pytest.raises(RecipeError, match=r"pairs\.weights"):
        make_method(load_config("hico", ["pairs.policy=within-seconds", "pairs.max_distance_s=1", "pairs.weights=true"]), 0)

    class Plain(torch.nn.Module):
        width = 4

    monkeypatch.setattr("uscl.methods.method.make_backbone", lambda name, size=None: Plain())
    with pytest.raises(RecipeError, match=r"backbone: is resnet18, which has no residual stages") as caught:
        HiCo(load_config("hico"), 0)
    assert "\n" not in str(caught.value)


def test_stages_leave_the_forward_pass_as_it_was() -> None:
    backbone = make_backbone("resnet18").eval()
    frames = torch.randn(2, 1, 64, 64)
    assert torch.equal(backbone.stages(frames)[2].mean(dim=(2, 3)), backbone(frames))
    assert [each.shape[-1] for each in backbone.stages(frames)] == [8, 4, 2]
