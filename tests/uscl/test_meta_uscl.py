"""Meta-USCL: its meta-gradient against finite differences and a second backward pass, its weights by hand, and what it must not touch."""

from __future__ import annotations

import json
import math
import os
import signal
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from tests.uscl.tiny_set import TINY_NETWORK, metrics_of, write_set
from uscl import run_folder
from uscl.config import load_config
from uscl.feed import Feed
from uscl.frames import open_store
from uscl.losses import nt_xent, nt_xent_rows
from uscl.methods import Facts, make_method
from uscl.methods.meta_uscl import MetaUSCL
from uscl.optimizers import make_optimizer
from uscl.pairs import index_videos
from uscl.step import Step
from uscl.train import pretrain
from usdata.errors import RecipeError, Stopped
from usdata.files import sha256_file
from usdata.manifest import open_dataset

RATE = 0.3
FACTS = Facts(torch.tensor([0, 1, -1, 0]), torch.arange(4))
SETTINGS = [
    "image_size=32",
    "epochs=2",
    "batch_size=4",
    "device=cpu",
    "checkpoint.every_epochs=9",
    "probe.every_epochs=0",
    "checkpoint.log_every_steps=1",
]


class Small(nn.Module):
    """A backbone with everything that matters in a large one: convolution, BatchNorm that sees the batch, ReLU, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.layers(frames)


def small_method(*overrides: str, classes: int = 0) -> MetaUSCL:
    """The method on a small backbone in float64."""
    config = load_config("meta-uscl", ["projector.hidden=5", "projector.width=4", "temperature=0.4", "meta.hidden=3", *overrides])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("uscl.methods.method.make_backbone", lambda name, size=None: Small())
        method = make_method(config, classes)[0]
    assert isinstance(method, MetaUSCL)
    return method.double().train()


def views_of(seed: int, videos: int = 4) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, videos, 1, 10, 10, dtype=torch.float64, generator=generator))


def learn(method: MetaUSCL, **changed: Any) -> dict[str, torch.Tensor]:
    """The gradients that `learn_first` sets, by name."""
    given = {"views": views_of(1), "facts": FACTS, "meta_views": views_of(2), "meta_facts": FACTS, "rate": RATE, "autocast": nullcontext}
    method.learn_first(**(given | changed))
    return {name: parameter.grad for name, parameter in method.named_parameters() if parameter.grad is not None}


def meta_loss(method: MetaUSCL, *, second_order: bool) -> torch.Tensor:
    """M(w - a dL/dw) by definition, with the features that are weighted by held fixed; all of it differentiable."""
    network = {name: parameter for name, parameter in method.named_parameters() if not name.startswith("weigher")}
    features, z = method.embed(views_of(1))
    weigh = method.weigher(torch.cat(features.detach().chunk(2), dim=1)).flatten().sigmoid()
    weights = torch.cat([weigh, weigh])
    rows = nt_xent_rows(*z.chunk(2), method.temperature)
    loss = (weights / weights.sum() * rows).sum()
    if method.classifier is not None:
        logits = method.classifier(features)
        known = [0, 1, 3]
        for half in logits.chunk(2):
            loss = loss + method.label_weight * nn.functional.cross_entropy(half[known], FACTS.labels[known])
    used = {name: parameter for name, parameter in network.items() if second_order or name}
    gradients = torch.autograd.grad(loss, list(used.values()), create_graph=second_order, allow_unused=True)
    moved = {name: w if g is None else w - RATE * g for (name, w), g in zip(used.items(), gradients, strict=True)}

    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.method = method

        def forward(self, views: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return self.method.embed(views)[1]

    z = functional_call(Embedding(), {f"method.{name}": value for name, value in moved.items()}, (views_of(2),))
    return nt_xent(*z.chunk(2), method.temperature)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("classes", [0, 2])
def test_the_meta_gradient_is_that_of_finite_differences_and_of_a_second_backward_pass(classes: int) -> None:
    method = small_method("labels.weight=0.5", classes=classes)
    found = learn(method)
    assert set(found) == {"weigher.0.weight", "weigher.0.bias", "weigher.2.weight", "weigher.2.bias"}
    learners = dict(method.weigher.named_parameters(prefix="weigher"))
    second = torch.autograd.grad(meta_loss(method, second_order=True), list(learners.values()))
    for (name, parameter), exact in zip(learners.items(), second, strict=True):
        numeric = torch.empty_like(parameter)
        for place in range(parameter.numel()):
            sides = []
            for step in (1e-4, -1e-4):
                with torch.no_grad():
                    parameter.view(-1)[place] += step
                sides.append(meta_loss(method, second_order=False).item())
                with torch.no_grad():
                    parameter.view(-1)[place] -= step
            numeric.view(-1)[place] = (sides[0] - sides[1]) / 2e-4
        assert exact.norm() > 1e-7, name
        assert relative(found[name], exact) < 1e-10, name
        assert relative(found[name], numeric) < 1e-6, name


def test_the_derivatives_of_the_rows_are_those_of_finite_differences() -> None:
    method, facts = (
        small_method(),
        Facts(FACTS.labels, FACTS.groups, same_group=torch.tensor([[i // 2 == j // 2 for j in range(4)] for i in range(4)])),
    )
    generator = torch.Generator().manual_seed(5)
    network = {name: p for name, p in method.named_parameters() if not name.startswith("weigher")}
    along = {name: torch.randn(p.shape, dtype=p.dtype, generator=generator) for name, p in network.items()}
    found = method.row_derivatives(views_of(1), facts, along, nullcontext)

    def rows(by: float) -> torch.Tensor:
        with torch.no_grad():
            for name, parameter in network.items():
                parameter += by * along[name]
            z = method.embed(views_of(1))[1]
            for name, parameter in network.items():
                parameter -= by * along[name]
            return nt_xent_rows(*z.chunk(2), method.temperature, same_group=facts.same_group)

    torch.testing.assert_close(found, (rows(1e-6) - rows(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-7)


def test_weights_by_hand() -> None:
    method = small_method()
    features = method.embed(views_of(1))[0].detach().requires_grad_()
    found = method.weights(features)
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in method.weigher.parameters())
    rows = features.detach().numpy()
    scores = []
    for video in range(4):
        hidden = np.maximum(w1 @ np.concatenate([rows[video], rows[4 + video]]) + b1, 0)
        scores.append(1 / (1 + math.exp(-(w2 @ hidden + b2)[0])))
    expected = np.array([*scores, *scores]) / (2 * sum(scores))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12)
    assert found.sum().item() == pytest.approx(1, abs=1e-12)
    found[0].backward()
    assert features.grad is None
    with torch.no_grad():
        method.weigher[2].bias.fill_(-2000)  # every sigmoid underflows, and their ratios do not
        raw = method.weigher(torch.cat(features.chunk(2), dim=1)).flatten()
        assert method.weights(features).tolist() == pytest.approx((raw.softmax(0) / 2).repeat(2).tolist(), abs=1e-12)


def test_the_loss_is_the_weighted_sum_and_even_weights_make_it_uscls() -> None:
    method = small_method()
    outcome = method(views_of(1), FACTS)
    features, z = method.embed(views_of(1))
    weights, rows = method.weights(features).detach(), nt_xent_rows(*z.chunk(2), 0.4).detach()
    assert outcome["loss"].item() == pytest.approx(sum(float(v * row) for v, row in zip(weights, rows, strict=True)), abs=1e-12)
    assert outcome["terms"]["contrast"].item() == pytest.approx(nt_xent(*z.chunk(2), 0.4).item(), abs=1e-12)
    assert 1 < outcome["terms"]["effective_rows"].item() < 8
    outcome["loss"].backward()
    assert all(parameter.grad is None for parameter in method.weigher.parameters())
    with torch.no_grad():
        method.weigher[2].weight.zero_()
    even = method(views_of(1), FACTS)
    assert even["loss"].item() == pytest.approx(even["terms"]["contrast"].item(), abs=1e-12)
    assert even["terms"]["effective_rows"].item() == pytest.approx(8)


def test_rows_are_the_terms_of_the_mean() -> None:
    z = torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = (z / z.norm(dim=1, keepdim=True)).numpy()
    expected = []
    for i in range(10):
        others = [math.exp(float(unit[i] @ unit[k]) / 0.3) for k in range(10) if k != i]
        expected.append(math.log(sum(others)) - float(unit[i] @ unit[(i + 5) % 10]) / 0.3)
    rows = nt_xent_rows(*z.chunk(2), 0.3)
    assert rows.tolist() == pytest.approx(expected, abs=1e-12)
    assert rows.mean().item() == pytest.approx(nt_xent(*z.chunk(2), 0.3).item(), abs=1e-14)
    halves = z.requires_grad_().chunk(2)
    assert torch.autograd.gradcheck(lambda a, b: nt_xent_rows(a, b, 0.5), halves, check_forward_ad=True)
    low = z.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert nt_xent_rows(*low.chunk(2), 0.5).dtype == torch.float32


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("videos", [1, 3])
def test_equal_and_black_views_stay_finite(fill: float, videos: int) -> None:
    method, facts = small_method(), Facts(torch.full((videos,), -1), torch.arange(videos))
    view = torch.full((videos, 1, 10, 10), fill, dtype=torch.float64)
    found = learn(method, views=(view, view), facts=facts, meta_views=(view, view), meta_facts=facts)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert method((view, view), facts)["loss"].item() == pytest.approx(math.log(2 * videos - 1), abs=1e-9)


def test_learning_first_leaves_weights_and_statistics_as_they_were() -> None:
    method = small_method()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    first = learn(method)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    second = learn(method)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_in_small_parts_it_is_the_gradient_of_those_parts() -> None:
    """BatchNorm in evaluation mode: parts see the same network then, and must give the gradient of the whole."""
    whole, parts = (learn(small_method(f"micro_batch_size={size}").eval()) for size in (4, 3))
    assert all(relative(parts[name], whole[name]) < 1e-10 for name in whole)


def test_in_bfloat16_it_points_the_same_way() -> None:
    found = []
    for enabled in (False, True):
        method, autocast = small_method().float(), partial(torch.autocast, "cpu", torch.bfloat16, enabled=enabled)
        views, meta_views = ([view.float() for view in views_of(seed)] for seed in (1, 2))
        gradients = learn(method, views=views, meta_views=meta_views, autocast=autocast)
        assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
        found.append(torch.cat([gradient.flatten() for gradient in gradients.values()]))
        with autocast():
            assert method(views, FACTS)["loss"].dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.95


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "set")


def feed_of(dataset: Path, *overrides: str) -> Feed:
    data = open_dataset(dataset)
    return Feed(open_store(data, size=32), index_videos(data), load_config("meta-uscl", [*SETTINGS, *overrides]), torch.device("cpu"))


def test_the_meta_batch_follows_from_the_position(dataset: Path) -> None:
    feed = feed_of(dataset)
    made = {(batch.epoch, batch.number): batch for batch in feed(0, 0)}
    again = next(iter(feed_of(dataset)(1, 1)))
    meta, same = made[1, 1].meta, again.meta
    assert meta is not None
    assert same is not None
    assert torch.equal(meta.frames, same.frames)
    assert torch.equal(meta.augmentations.values, same.augmentations.values)
    assert meta.meta is None
    for (epoch, number), batch in made.items():
        assert batch.meta is not None
        assert (batch.meta.epoch, batch.meta.number) == (2 + epoch, number)
        np.testing.assert_array_equal(batch.meta.videos, feed.epoch_batches(2 + epoch)[number])
        assert batch.meta.facts.labels.tolist() == feed.index.labels[batch.meta.videos].tolist()
    data = open_dataset(dataset)
    plain = Feed(open_store(data, size=32), index_videos(data), load_config("ppi", SETTINGS), torch.device("cpu"))
    assert all(batch.meta is None for batch in plain(0, 0))


def test_a_step_moves_both_networks_each_by_its_own_gradient(dataset: Path) -> None:
    feed = feed_of(dataset, "optimizer.name=sgd", "optimizer.momentum=0", "weight_decay=0.1", "meta.rate=0.5")
    method = make_method(feed.config, 0)[0].train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    batch = next(iter(feed(0, 0)))
    outcome = Step(feed.config, method, make_optimizer(feed.config, method), torch.device("cpu"), "float32")(batch, 0.01)

    hand = make_method(feed.config, 0)[0].train()
    step = Step(feed.config, hand, make_optimizer(feed.config, hand), torch.device("cpu"), "float32")
    views, meta_views = step._views(batch), step._views(batch.meta)
    hand.learn_first(views, batch.facts, meta_views, batch.meta.facts, 0.01, nullcontext)
    with torch.no_grad():
        for parameter in hand.weigher.parameters():
            parameter -= 0.5 * parameter.grad
    hand.zero_grad()
    expected = hand(views, batch.facts)
    expected["loss"].backward()
    with torch.no_grad():
        for parameter in hand.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * (parameter.grad + 0.1 * parameter)
    for name, value in hand.state_dict().items():
        torch.testing.assert_close(method.state_dict()[name], value, rtol=1e-5, atol=1e-7)
    assert not torch.equal(method.state_dict()["weigher.0.weight"], before["weigher.0.weight"])
    assert outcome["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-5)
    assert set(outcome["terms"]) == {"contrast", "weighted_contrast", "effective_rows", "meta_loss"}


@pytest.mark.parametrize("broken", ["meta", "step"])
def test_a_step_that_is_refused_leaves_both_networks_as_they_were(dataset: Path, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = feed_of(dataset)
    method = make_method(feed.config, 0)[0].train()
    optimizer = make_optimizer(feed.config, method)
    step = Step(feed.config, method, optimizer, torch.device("cpu"), "float32")
    batch = next(iter(feed(0, 0)))
    step(batch, 1e-3)
    if broken == "meta":
        original = method.learn_first

        def spoil(*arguments: Any) -> dict[str, torch.Tensor]:
            terms = original(*arguments)
            method.weigher[0].bias.grad.fill_(float("inf"))
            return terms

        monkeypatch.setattr(method, "learn_first", spoil)
    else:
        monkeypatch.setattr("uscl.methods.meta_uscl.nt_xent_rows", lambda a, b, *_, **__: torch.cat([a, b]).sum(1) * float("nan"))
        monkeypatch.setattr(method, "learn_first", lambda *_: _set(method.weigher))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    states = [{key: value.clone() for key, value in optimizer.state[p].items()} for p in method.weigher.parameters()]
    outcome = step(batch, 1e-3)
    assert not torch.isfinite(outcome["loss"]) or not torch.isfinite(outcome["grad_norm"])
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    for parameter, state in zip(method.weigher.parameters(), states, strict=True):
        assert all(torch.equal(optimizer.state[parameter][key], value) for key, value in state.items())


def _set(network: nn.Module) -> dict[str, torch.Tensor]:
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    return {"meta_loss": torch.zeros(())}


def test_a_run_stopped_and_resumed_is_the_undisturbed_one(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*SETTINGS, TINY_NETWORK, "optimizer.clip_norm=5"]
    whole = pretrain(dataset, out=tmp_path / "whole", recipe="meta-uscl", overrides=overrides).out
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    for line in lines:
        assert all(math.isfinite(line[name]) for name in ("contrast", "weighted_contrast", "meta_loss", "effective_rows"))
        assert line["loss"] == line["weighted_contrast"]
    append = run_folder.append_metrics

    def stop_after_two(out: Path, line: dict[str, Any]) -> None:
        append(out, line)
        if line["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run_folder, "append_metrics", stop_after_two)
    with pytest.raises(Stopped):
        pretrain(dataset, out=tmp_path / "again", recipe="meta-uscl", overrides=overrides)
    monkeypatch.setattr(run_folder, "append_metrics", append)
    again = pretrain(dataset, out=tmp_path / "again", recipe="meta-uscl", overrides=overrides, resume=True).out
    for name in ("model", "optimizer"):
        assert sha256_file(again / f"checkpoints/last/{name}.safetensors") == sha256_file(whole / f"checkpoints/last/{name}.safetensors")
    assert metrics_of(again) == metrics_of(whole)


@pytest.mark.parametrize("setting", ["compile=model", "compile=step", "cuda_graph=true"])
def test_what_cannot_be_is_refused_in_a_line(setting: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(RecipeError, match=rf"^{key}: is .*meta-uscl.*use --set {key}=") as caught:
        make_method(load_config("meta-uscl", [setting]), 0)
    assert "\n" not in str(caught.value)
