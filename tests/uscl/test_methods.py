"""USCL's loss and gradients against the formula written out by hand, and the feed's fields against direct recomputation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.uscl.tiny_set import metrics_of, write_set
from uscl.augment import draw_augmentations
from uscl.config import load_config, recipe_names
from uscl.draws import beta, uniform
from uscl.feed import Feed
from uscl.frames import open_store
from uscl.methods import Facts, make_method
from uscl.pairs import PairDrawer, index_videos
from uscl.train import pretrain
from usdata.errors import RecipeError, UserError
from usdata.manifest import open_dataset


def by_hand(z: torch.Tensor, o: torch.Tensor, labels: list[int], temperature: float, weight: float) -> torch.Tensor:
    """USCL.md's loss with loops: rows 0..N-1 of z and o are view a, rows N..2N-1 view b."""
    count = len(z) // 2
    z = z / z.norm(dim=1, keepdim=True)
    total = z.new_zeros(())
    for i in range(2 * count):
        others = [torch.exp(z[i] @ z[k] / temperature) for k in range(2 * count) if k != i]
        total = total - (z[i] @ z[(i + count) % (2 * count)] / temperature - torch.log(torch.stack(others).sum()))
    loss = total / (2 * count)
    known = [i for i, label in enumerate(labels) if label >= 0]
    for view in range(2):
        for i in known:
            row = o[view * count + i]
            loss = loss - weight * (row[labels[i]] - torch.logsumexp(row, 0)) / len(known)
    return loss


@pytest.mark.parametrize("classifier_on", ["features", "projections"])
@pytest.mark.parametrize("labels", [[0, 2, -1, 1], [-1, -1, -1, -1]])
def test_loss_and_gradients_are_those_of_the_formula(classifier_on: str, labels: list[int]) -> None:
    config = load_config("uscl", [f"labels.classifier_on={classifier_on}", "image_size=32", "temperature=0.3", "labels.weight=0.7"])
    torch.manual_seed(3)
    method, backbone = make_method(config, 3)
    method.double().eval()  # BatchNorm with fixed statistics, so that the two forwards below see the same network
    view_a, view_b = torch.randn(2, 4, 1, 32, 32, dtype=torch.float64)
    ours = method((view_a, view_b), Facts(torch.tensor(labels), torch.arange(4)))["loss"]
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(ours, parameters, allow_unused=True)

    features = torch.cat([backbone(view_a), backbone(view_b)])
    z = method.projector(features)
    o = method.classifier(features if classifier_on == "features" else z)
    expected = by_hand(z, o, labels, 0.3, 0.7)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-10)
    for parameter, one, two in zip(
        parameters, gradients, torch.autograd.grad(expected, parameters, allow_unused=True, materialize_grads=True), strict=True
    ):
        torch.testing.assert_close(torch.zeros_like(parameter) if one is None else one, two, atol=1e-9, rtol=1e-7)


def test_a_collapsed_network_costs_the_logarithm() -> None:
    z = torch.ones(10, 4, dtype=torch.float64)
    assert by_hand(z, z, [-1] * 5, 0.5, 0.0).item() == pytest.approx(math.log(9))


def test_weighted_pairs_weigh_the_loss_of_a_collapsed_network_too() -> None:
    method, _ = make_method(load_config("uscl", ["image_size=32", "labels.weight=0", "temperature=0.3"]), 0)
    weights = torch.tensor([0.25, 1.0, 0.5])
    with torch.no_grad():
        method.projector[2].weight.zero_()  # every projection is the last layer's bias
    outcome = method(tuple(torch.randn(2, 3, 1, 32, 32)), Facts(torch.full((3,), -1), torch.arange(3), pair_weights=weights))
    assert outcome["loss"].item() == pytest.approx(weights.mean().item() * math.log(5), rel=1e-5)
    assert float(outcome["collapsed_loss"]) == pytest.approx(outcome["loss"].item(), rel=1e-5)
    assert "collapsed_loss" not in method(tuple(torch.randn(2, 3, 1, 32, 32)), Facts(torch.full((3,), -1), torch.arange(3)))


def test_what_the_feed_makes_belongs_to_its_videos(tmp_path: Path) -> None:
    groups = ["p0", "p0", "p1", "p1", "p2", "p2", "p3"]
    data = open_dataset(write_set(tmp_path / "set", frames_per_video=(5, 1, 4, 2, 6, 3, 4), labels=("a", "b", None), groups=groups))
    config = load_config("uscl", ["batch_size=4", "image_size=16", "pairs.exclude_same_group=true", "seed=11"])
    index = index_videos(data)
    store = open_store(data, size=16)
    feed = Feed(store, index, config, torch.device("cpu"))
    made = list(feed(0, 0))[:4]
    frames = data.frames
    for batch in made:
        assert len(set(batch.videos.tolist())) == len(batch.videos)
        assert batch.facts.same_group is not None
        for place, video in enumerate(batch.videos):
            own = frames[frames.video_id == index.video_ids[video]]
            label = own.label_index.iloc[0]
            assert batch.facts.labels[place].item() == (-1 if np.isnan(label) else label)
            stored = store.pixels[own.index.to_numpy()]
            for frame in batch.frames[place].numpy():
                assert any(np.array_equal(frame, pixels) for pixels in stored)
            alone = PairDrawer(index, config.pairs)(config.seed, batch.epoch, np.array([video]))
            np.testing.assert_allclose(batch.coefficients[place].numpy(), alone.coefficients[0], rtol=1e-6)
            np.testing.assert_array_equal(batch.frames[place].numpy(), store.pixels[alone.frame_rows[0]])
            for other, neighbour in enumerate(batch.videos):
                assert batch.facts.same_group[place, other].item() == (groups[video] == groups[neighbour])
        expected = draw_augmentations(config.augment, seed=11, epoch=batch.epoch, videos=batch.videos, views=2, store_size=16)
        for name, values in vars(expected).items():
            torch.testing.assert_close(getattr(batch.augmentations, name), values)


def test_small_coefficients_are_as_frequent_as_published() -> None:
    """P(c < 0.1) = 0.2048 for Beta(0.5, 0.5)."""
    drawn = beta(uniform(5, stream=1, epoch=0, item=np.arange(40_000), draws=1), 0.5, 0.5)
    assert (drawn < 0.1).mean() == pytest.approx(0.2048, abs=0.006)


@pytest.mark.parametrize(
    ("recipe", "override", "named"),
    [
        ("simclr", "moco.queue=3", r"moco\.queue: changes nothing in method 'uscl'; use --set moco\.queue=4096"),
        ("moco-v2", "dino.prototypes=7", r"dino\.prototypes: changes nothing"),
        ("hico", "meta.rate=0.1", r"meta\.rate: changes nothing"),
        ("vicreg", "temperature=0.1", r"temperature: changes nothing in method 'vicreg'"),
        ("barlow-twins", "pairs.exclude_same_group=true", r"pairs\.exclude_same_group: changes nothing"),
        ("supervised", "projector.width=8", r"projector: changes nothing"),
    ],
)
def test_settings_that_would_change_nothing_are_refused(recipe: str, override: str, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        make_method(load_config(recipe, [override]), 2)


SMALL = {"moco": ["moco.queue=16"], "dino": ["dino.prototypes=16"]}


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_takes_steps_of_finite_loss_and_keeps_its_spread(recipe: str, tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", frames_per_video=(12,) * 9, labels=("a", "b", "c"))
    settings = ["image_size=32", "epochs=3", "batch_size=9", "device=cpu", "learning_rate=3e-4", "optimizer.name=adam"]
    settings += [
        "schedule.warmup_epochs=0",
        "checkpoint.log_every_steps=1",
        "probe.every_epochs=0",
        *SMALL.get(load_config(recipe).method, ()),
    ]
    if recipe != "supervised":
        settings += ["projector.hidden=32", "projector.width=16"]
    if recipe == "ucl":
        settings.append("pairs.min_distance_frames=5")
    run = pretrain(data, out=tmp_path / "run", recipe=recipe, overrides=settings).out
    lines = metrics_of(run)
    assert len(lines) == 3
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
    assert all("collapsed_loss" in line for line in lines) == ("contrast" in lines[0])
    # A network that gives every frame the same features has a spread of a hundredth of this, and less.
    assert lines[-1]["feature_spread"] > 0.1 / math.sqrt(512)


def test_a_term_must_not_take_the_name_of_another_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from uscl.methods import Method\n"
        "class Mine(Method):\n"
        "    def loss(self, projections, facts):\n"
        "        value = projections.square().mean()\n"
        "        return value, {'epoch': value}\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = ["method=mine:Mine", "image_size=32", "epochs=1", "batch_size=6", "device=cpu", "labels.weight=0"]
    with pytest.raises(UserError, match=r"names a term 'epoch'"):
        pretrain(write_set(tmp_path / "set"), out=tmp_path / "run", overrides=settings)


def test_a_part_of_one_video_is_told_in_one_line(tmp_path: Path) -> None:
    settings = ["image_size=32", "epochs=1", "batch_size=5", "micro_batch_size=2", "device=cpu", "moco.queue=16"]
    with pytest.raises(UserError, match=r"micro_batch_size: .*a part of one video"):
        pretrain(write_set(tmp_path / "set", frames_per_video=(4,) * 5), out=tmp_path / "run", recipe="moco-v2", overrides=settings)
