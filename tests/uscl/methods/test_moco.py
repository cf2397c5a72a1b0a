"""MoCo against its formulas with loops: InfoNCE, whose keys the queue holds, the momentum copy, and that all of it is saved."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.uscl.tiny_set import write_set
from uscl import torchvision_compat  # noqa: F401 - lightly imports torchvision
from uscl.average import Average
from uscl.backbones import seeded_backbone
from uscl.config import load_config
from uscl.feed import Feed
from uscl.frames import open_store
from uscl.gradient_cache import cached_gradients
from uscl.losses import info_nce
from uscl.methods import Facts, make_method
from uscl.methods.moco import MoCo
from uscl.optimizers import make_optimizer
from uscl.pairs import index_videos
from uscl.step import Step
from uscl.train import pretrain
from usdata.manifest import open_dataset

SMALL = ["image_size=32", "moco.queue=5", "projector.hidden=16", "projector.width=6", "temperature=0.3"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(row: np.ndarray) -> np.ndarray:
    return row / math.sqrt(sum(value**2 for value in row))


def slow_info_nce(query: np.ndarray, key: np.ndarray, negatives: list[np.ndarray], temperature: float) -> float:
    """Equation 1 of the paper for one query, its key first."""
    scores = [math.exp(float(unit(query) @ unit(other)) / temperature) for other in [key, *negatives]]
    return -math.log(scores[0] / sum(scores))


def small_moco(*settings: str, classes: int = 0) -> MoCo:
    method = make_method(load_config("moco-v2", [*SMALL, *settings]), classes)[0]
    assert isinstance(method, MoCo)
    return method.double().train()


def test_info_nce_is_the_formula() -> None:
    q, k, negatives, hard = random(4, 3), random(4, 3, seed=1), random(6, 3, seed=2), random(4, 2, 3, seed=3)
    left_out, known = (
        torch.rand(4, 6, generator=torch.Generator().manual_seed(4)) < 0.4,
        torch.tensor([[1, 1], [0, 1], [0, 0], [1, 0]]).bool(),
    )
    for mask, far, real in ((None, None, None), (left_out, None, None), (left_out, hard, None), (left_out, hard, known)):
        expected = 0.0
        for i in range(4):
            others = [negatives[j].numpy() for j in range(6) if mask is None or not mask[i, j]]
            others += [] if far is None else [far[i, j].numpy() for j in range(2) if real is None or real[i, j]]
            expected += slow_info_nce(q[i].numpy(), k[i].numpy(), others, 0.2) / 4
        found = info_nce(q, k, negatives, 0.2, left_out=mask, hard=far, hard_known=real)
        assert found.item() == pytest.approx(expected, abs=1e-10)
    leaves = tuple(rows.requires_grad_() for rows in (q, k, negatives, hard))
    assert torch.autograd.gradcheck(lambda a, b, c, d: info_nce(a, b, c, 0.5, left_out=left_out, hard=d, hard_known=known), leaves)


def test_info_nce_is_lightlys() -> None:
    from lightly.loss import NTXentLoss

    theirs = NTXentLoss(temperature=0.2, memory_bank_size=(7, 4))
    bank = torch.nn.functional.normalize(random(7, 4, seed=2), dim=1)
    theirs.memory_bank.size = (7, 4)
    theirs.memory_bank.bank = bank.clone()
    theirs.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
    q, k = random(5, 4), random(5, 4, seed=1)
    assert info_nce(q, k, bank, 0.2).item() == pytest.approx(theirs(q, k).item(), abs=1e-8)


@pytest.mark.parametrize("fill", [0.0, 1.0, 1e18])
@pytest.mark.parametrize("count", [1, 3])
def test_info_nce_stays_finite(fill: float, count: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        z = torch.full((count, 4), fill, dtype=dtype, requires_grad=True)
        loss = info_nce(z, z.detach(), z.detach(), 0.07)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(math.log(1 + count), abs=1e-5)
        assert torch.isfinite(z.grad).all()
    nothing = info_nce(z, z, z, 0.07, left_out=torch.ones(count, count, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize(
    "settings", [[], ["pairs.distinct_groups=false"], ["pairs.distinct_groups=false", "pairs.exclude_same_group=true"]]
)
def test_negatives_are_the_queues_keys_of_other_groups(settings: list[str], views: int) -> None:
    method = small_moco(*settings)
    masked = settings != ["pairs.distinct_groups=false"]
    queue: list[tuple[np.ndarray, int]] = []
    batches = [[0, 1, 2], [3, 0], [1, 1, 4, 0], [5], [0, 1, 2, 3, 4, 5, 6]]  # the last is larger than the queue
    for number, groups in enumerate(batches):
        count = len(groups)
        rows = random(views * count, 6, seed=number)
        known = torch.rand(count, 2, generator=torch.Generator().manual_seed(number)) < 0.5
        facts = Facts(torch.full((count,), -1), torch.tensor(groups), views=views, hard=known)
        outcome = method.compare((random(views * count, 512), rows), facts)
        own, negatives = rows.numpy(), []
        for i in range(count):
            kept = [key for key, group in queue if not (masked and group == groups[i])]
            kept += [own[count + j] for j in range(count) if j != i and not (masked and groups[j] == groups[i])]
            kept += [own[view * count + i] for view in range(2, views) if known[i, view - 2]]
            negatives.append(kept)
        expected = [slow_info_nce(own[i], own[count + i], negatives[i], 0.3) for i in range(count)]
        assert outcome["loss"].item() == pytest.approx(sum(expected) / count, abs=1e-10)
        assert float(outcome["collapsed_loss"]) == pytest.approx(sum(math.log(1 + len(kept)) for kept in negatives) / count, abs=1e-10)
        assert outcome["features"].shape == (2 * count, 512)
        assert outcome["projections"].shape == (2 * count, 6)
        queue = [*queue, *((own[count + i], groups[i]) for i in range(count))][-5:]
        kept_groups = sorted(group for group in method.queue_groups.tolist() if group >= 0)
        assert kept_groups == sorted(group for _, group in queue)
    before = method.queue.clone()
    method.eval().compare((random(6, 512), random(6, 6)), Facts(torch.full((3,), -1), torch.arange(3)))
    assert torch.equal(method.queue, before)


def test_view_b_passes_the_key_network_and_has_no_gradient() -> None:
    method = small_moco()
    with torch.no_grad():
        for parameter in method.key_backbone.parameters():
            parameter.mul_(1.1)
    views = [random(3, 1, 32, 32, seed=number) for number in range(4)]
    features, projections = method.embed(views)
    keys = method.key_backbone(views[1])
    assert torch.allclose(features[3:6], keys)
    assert torch.allclose(projections[3:6], method.key_projector(keys))
    expected = method.backbone(torch.cat([views[0], *views[2:]]))
    assert torch.allclose(torch.cat([features[:3], features[6:]]), expected)
    loss = method.compare((features, projections), Facts(torch.full((3,), -1), torch.arange(3), views=4))["loss"]
    loss.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == name.startswith("key_"), name
    trained = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in method.named_parameters() if not name.startswith("key_")}


def test_the_key_network_follows_the_query_network() -> None:
    method = small_moco("moco.momentum=0.7")
    method.backbone = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).double()  # type: ignore[assignment]
    method.key_backbone = copy.deepcopy(method.backbone).requires_grad_(False)
    with torch.no_grad():
        for tensor in method.backbone.state_dict().values():
            tensor.add_(1)
    method.begin(10)
    for key, query in ((method.key_backbone, method.backbone), (method.key_projector, method.projector)):
        assert all(torch.equal(value, query.state_dict()[name]) for name, value in key.state_dict().items())
    before = {name: value.clone() for name, value in method.key_backbone.state_dict().items()}
    with torch.no_grad():
        for tensor in method.backbone.state_dict().values():
            tensor.add_(1)
    method.after_step()
    for name, new in method.backbone.state_dict().items():  # running statistics are each network's own
        expected = before[name] if "running" in name or "tracked" in name else 0.7 * before[name] + 0.3 * new
        assert torch.allclose(method.key_backbone.state_dict()[name], expected), name


@pytest.mark.parametrize("views", [2, 4])
def test_parts_give_the_gradient_of_the_whole(views: int) -> None:
    given = [random(5, 1, 32, 32, seed=number) for number in range(views)]  # parts of 3 and 2
    facts = Facts(torch.tensor([0, 1, -1, 1, 0]), torch.arange(5), views=views)
    whole, parts = (small_moco("labels.weight=0.2", classes=2) for _ in range(2))
    embedded = [whole.embed(each) for each in zip(*(view.split(3) for view in given), strict=True)]
    joined = tuple(torch.cat([part[i].unflatten(0, (views, -1)) for part in embedded], dim=1).flatten(0, 1) for i in range(2))
    expected = whole.compare(joined, facts)
    expected["loss"].backward()
    found = cached_gradients(parts, given, facts, 3)
    assert found["loss"].item() == pytest.approx(expected["loss"].item(), abs=1e-12)
    for (name, one), two in zip(parts.named_parameters(), whole.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None), name
        assert one.grad is None or torch.allclose(one.grad, two.grad, rtol=1e-9, atol=1e-12), name
    for (name, one), two in zip(parts.named_buffers(), whole.buffers(), strict=True):
        assert torch.equal(one, two), name


def test_its_state_is_that_of_the_module(tmp_path: Path) -> None:
    """A run that goes on from what was saved is the one that was not disturbed; a step that is refused leaves the queue as it was."""
    data = open_dataset(write_set(tmp_path / "set"))
    config = load_config("moco-v2", [*SMALL, "batch_size=3", "epochs=3", "moco.momentum=0.9"])
    batches = list(Feed(open_store(data, size=32), index_videos(data), config, torch.device("cpu"))(0, 0))

    def made() -> tuple[MoCo, torch.optim.Optimizer, Average, Step]:
        method = make_method(config, 0)[0].train()
        assert isinstance(method, MoCo)
        optimizer, average = make_optimizer(config, method), Average(method, 0.9)
        return method, optimizer, average, Step(config, method, optimizer, torch.device("cpu"), "bfloat16", average)

    method, optimizer, average, step = made()
    losses = [step(batch, 1e-3)["loss"].item() for batch in batches[:3]]
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert all(parameter in optimizer.state for parameter in method.parameters() if parameter.requires_grad)
    assert not any(parameter in optimizer.state for parameter in method.key_backbone.parameters())
    again, its_optimizer, its_average, its_step = made()
    again.load_state_dict({name: value.clone() for name, value in method.state_dict().items()})
    its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    its_average.load({name: value.clone() for name, value in average.tensors().items()})
    for batch in batches[3:5]:
        assert step(batch, 1e-3)["loss"].item() == its_step(batch, 1e-3)["loss"].item()
    states = [each.state_dict() | kept.tensors() for each, kept in ((method, average), (again, its_average))]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())

    with torch.no_grad():
        method.projector[2].weight.fill_(float("nan"))
    before = {name: value.clone() for name, value in method.named_buffers()}
    assert not math.isfinite(step(batches[5], 1e-3)["loss"].item())
    assert all(torch.equal(value, before[name]) for name, value in method.named_buffers())


def test_a_run_from_given_weights(tmp_path: Path) -> None:
    save_file(seeded_backbone("resnet18", 5).state_dict(), tmp_path / "start.safetensors")
    settings = [*SMALL, "epochs=2", "batch_size=6", "device=cpu", "learning_rate=1e-9", "checkpoint.log_every_steps=1", "average.decay=0.5"]
    settings += ["micro_batch_size=3"]
    run = pretrain(
        write_set(tmp_path / "set"), out=tmp_path / "run", recipe="moco-v2", overrides=settings, init_from=tmp_path / "start.safetensors"
    ).out
    saved, start = load_file(run / "checkpoints" / "last" / "model.safetensors"), load_file(tmp_path / "start.safetensors")
    # The keys' network starts from those weights too, and so does what is exported.
    exported = load_file(run / "export" / "backbone.safetensors")
    for name in ("conv1.weight", "layer4.1.conv2.weight"):
        assert torch.allclose(saved[f"key_backbone.{name}"], start[name], atol=1e-6)
        assert torch.allclose(exported[name], start[name], atol=1e-6)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # Six videos of six patients: the five other keys of the batch, then also those of other patients in a queue of five.
    assert lines[0]["collapsed_loss"] == pytest.approx(math.log(6), abs=1e-6)
    assert math.log(10) - 1e-6 < lines[1]["collapsed_loss"] < math.log(11)
    assert len(set(saved["queue_groups"].tolist())) == 5


def test_partners_of_other_videos_keep_their_groups_and_values_in_the_queue() -> None:
    """View b of `same-column` is of a partner: its group and value, not the video's, say whose negative the key is."""
    method, _ = make_method(
        load_config("moco-v2", ["moco.queue=8", "projector.width=4", "pairs.policy=same-column", "pairs.column=view"]), 0
    )
    method.train()
    first = facts_of_partners(groups=[0, 1, 2], partners=[1, 1, 5], keys=[0, 0, 1], apart=[(0, 1)])
    second = facts_of_partners(groups=[5, 1, 9], partners=[5, 3, 9], keys=[2, 1, -1], apart=[(0, 2)])
    method.compare((random(6, 512), random(6, 4)), first)
    left_out = method._left_out(second)
    queue_groups, queue_values = [1, 1, 5], [0, 0, 1]
    for i, (group, value) in enumerate(zip([5, 1, 9], [2, 1, -1], strict=True)):
        for place in range(8):
            empty = place >= 3
            expected = empty or group == queue_groups[place] or (value >= 0 and value == queue_values[place])
            assert left_out[i, place].item() == expected, (i, place)
        for j, (partner, other) in enumerate(zip([5, 3, 9], [2, 1, -1], strict=True)):
            apart = (min(i, j), max(i, j)) == (0, 2)
            assert left_out[i, 8 + j].item() == (i == j or group == partner or (value >= 0 and value == other) or apart), (i, j)


def facts_of_partners(*, groups: list[int], partners: list[int], keys: list[int], apart: list[tuple[int, int]]) -> Facts:
    count = len(groups)
    same = torch.eye(count, dtype=torch.bool)
    for i, j in apart:
        same[i, j] = same[j, i] = True
    unlabelled = torch.full((count,), -1)
    return Facts(
        unlabelled,
        torch.tensor(groups),
        same_group=same,
        keys=torch.tensor(keys),
        partner_labels=unlabelled,
        partner_groups=torch.tensor(partners),
    )
