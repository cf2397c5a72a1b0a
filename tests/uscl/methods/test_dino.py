"""DINO: the loss against loops in numpy and lightly's, the teacher and the centre against their formulas, several processes, a resume."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.uscl.tiny_set import TINY_NETWORK, metrics_of, write_set
from uscl import batch_norm, distributed, processes
from uscl.config import load_config
from uscl.gradient_cache import cached_gradients
from uscl.methods import Facts, Method, make_method
from uscl.methods.dino import self_distillation
from uscl.models import load_backbone
from uscl.optimizers import make_optimizer
from uscl.train import pretrain

SETTINGS = ["image_size=32", "projector.hidden=16", "projector.width=8", "dino.prototypes=12"]
VIDEOS = 3


def by_hand(
    student: np.ndarray, teacher: np.ndarray, centre: np.ndarray, temperature: float, teacher_temperature: float
) -> tuple[float, float]:
    """The loss and the teacher's mean entropy."""
    videos = len(student) // 2
    loss = entropy = 0.0
    for i in range(2 * videos):
        other = (i + videos) % (2 * videos)
        scores = [(teacher[i][k] - centre[k]) / teacher_temperature for k in range(len(centre))]
        target = [math.exp(score) / sum(math.exp(each) for each in scores) for score in scores]
        said = [score / temperature for score in student[other]]
        whole = math.log(sum(math.exp(score) for score in said))
        loss -= sum(q * (score - whole) for q, score in zip(target, said, strict=True))
        entropy -= sum(q * math.log(q) for q in target)
    return loss / (2 * videos), entropy / (2 * videos)


def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator)
    return student, teacher, torch.randn(5, dtype=torch.float64, generator=generator)


def test_the_loss_is_the_formula_and_lightlys() -> None:
    from lightly.loss import DINOLoss  # after uscl.torchvision_compat, as it imports torchvision

    student, teacher, centre = drawn()
    loss, entropy = self_distillation(student, teacher, centre, 0.1, 0.4)
    expected = by_hand(student.numpy(), teacher.numpy(), centre.numpy(), 0.1, 0.4)
    assert (loss.item(), entropy.item()) == pytest.approx(expected, abs=1e-10)
    lightly = DINOLoss(output_dim=5, teacher_temp=0.4, student_temp=0.1).double()
    lightly.center.copy_(centre)
    assert loss.item() == pytest.approx(
        lightly(list(teacher.chunk(2)), list(student.chunk(2)), teacher_temp=0.4).item(), abs=1e-6
    )  # theirs is float32


def test_gradients_against_finite_differences() -> None:
    student, teacher, centre = drawn()
    assert torch.autograd.gradcheck(lambda s: self_distillation(s, teacher, centre, 0.1, 0.4)[0], student.requires_grad_())
    loss = self_distillation(student, teacher.requires_grad_(), centre, 0.1, 0.4)[0]
    loss.backward()
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 3])
def test_even_and_certain_scores_stay_finite(dtype: torch.dtype, count: int) -> None:
    for fill in (0.0, 1.0, 1e9):
        scores = torch.full((2 * count, 4), fill, dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss, entropy = self_distillation(scores, scores, torch.zeros(4), 0.1, 0.04)
        loss.backward()
        assert loss.dtype == torch.promote_types(dtype, torch.float32)
        assert (loss.item(), entropy.item()) == pytest.approx((math.log(4), math.log(4)), abs=1e-5)
        assert torch.isfinite(scores.grad).all()
    certain = torch.tensor([[1e4, 0, 0]] * 2 * count, dtype=dtype, requires_grad=True)
    loss, entropy = self_distillation(certain, certain, torch.zeros(3), 0.1, 0.04)
    loss.backward()
    assert (loss.item(), entropy.item()) == (0, 0)
    assert torch.isfinite(certain.grad).all()


def problem() -> tuple[torch.Tensor, Facts]:
    views = torch.randn(2, VIDEOS, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return views, Facts(torch.tensor([0, -1, 1]), torch.arange(VIDEOS))


def small(*overrides: str) -> Method:
    method = make_method(load_config("dino", [*SETTINGS, "labels.weight=0.2", *overrides]), 2)[0].double()
    with torch.no_grad():
        method.teacher_prototypes.weight.add_(0.1)  # else a student compared with itself would look the same
        method.centre.copy_(torch.linspace(-0.2, 0.3, 12))
    return method


def unit(rows: torch.Tensor) -> np.ndarray:
    array = rows.detach().numpy()
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_the_method_is_student_teacher_and_centre() -> None:
    method = small().eval()
    views, facts = problem()
    frames = views.flatten(0, 1)
    features = method.backbone(frames)
    scores = unit(method.projector(features)) @ unit(method.prototypes.weight).T
    teacher = unit(method.teacher_projector(method.teacher_backbone(frames))) @ unit(method.teacher_prototypes.weight).T
    centre = method.centre.numpy().copy()
    outcome = method(views, facts)
    loss, entropy = by_hand(scores, teacher, centre, 0.1, 0.04)
    assert outcome["terms"]["distillation"].item() == pytest.approx(loss, abs=1e-8)
    assert outcome["terms"]["teacher_entropy"].item() == pytest.approx(entropy, abs=1e-8)
    assert outcome["loss"].item() == pytest.approx(loss + 0.2 * outcome["terms"]["cross_entropy"].item(), abs=1e-8)
    torch.testing.assert_close(outcome["projections"], method.projector(features))
    np.testing.assert_array_equal(method.centre.numpy(), centre)  # looking moves nothing

    method.train()
    method.compare(method.eval().embed(views), facts)
    np.testing.assert_array_equal(method.centre.numpy(), centre)
    embedded = method.embed(views)
    method.training = True  # of the method alone: BatchNorm's layers stay as they are
    outcome = method.compare(embedded, facts)
    np.testing.assert_allclose(method.centre.numpy(), 0.9 * centre + 0.1 * teacher.mean(axis=0), atol=1e-12)
    outcome["loss"].backward()
    assert all((parameter.grad is None) == ("teacher" in name) for name, parameter in method.named_parameters())


def test_the_teacher_follows_along_the_cosine_and_prototypes_are_frozen() -> None:
    method = small("epochs=4", "dino.teacher_momentum=0.8", "dino.frozen_epochs=1")
    method.begin(8)  # two steps an epoch
    assert all(
        torch.equal(a, b)
        for teacher, student in method._networks()
        for a, b in zip(teacher.parameters(), student.parameters(), strict=True)
    )
    begun = method.prototypes.weight.detach().clone()
    expected = method.teacher_backbone.conv1.weight.clone()
    prototypes = begun.clone()
    for step in range(8):
        with torch.no_grad():
            for parameter in method.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.5)
            method.after_step()
        momentum = 1 - 0.2 * (math.cos(math.pi * step / 8) + 1) / 2
        expected = momentum * expected + (1 - momentum) * method.backbone.conv1.weight.detach()
        torch.testing.assert_close(method.teacher_backbone.conv1.weight, expected)
        assert torch.equal(method.prototypes.weight, begun) == (step < 2)
        prototypes = momentum * prototypes + (1 - momentum) * method.prototypes.weight.detach()
        torch.testing.assert_close(method.teacher_prototypes.weight, prototypes)
    constant = small("dino.momentum_schedule=constant", "dino.teacher_momentum=0.8")  # of a length that nobody told
    before = constant.teacher_prototypes.weight.clone()
    constant.after_step()
    constant.after_step()
    weight = constant.prototypes.weight.detach()
    torch.testing.assert_close(constant.teacher_prototypes.weight, 0.64 * before + 0.36 * weight)


def test_the_gradient_in_parts_is_that_of_one_graph() -> None:
    views, facts = problem()
    whole, parts = (small() for _ in range(2))
    for method in (whole, parts):
        method.eval().training = True  # fixed statistics: the parts see what the whole sees
    whole(views, facts)["loss"].backward()
    cached_gradients(parts, tuple(views), facts, 2)
    torch.testing.assert_close(parts.centre, whole.centre, rtol=1e-10, atol=1e-12)
    assert not torch.equal(whole.centre, small().centre)
    for (name, one), two in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None) == ("teacher" in name)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-8, atol=1e-10, msg=name)


def one_step(recipe: str) -> dict[str, torch.Tensor]:
    """The state after a step of plain SGD on this process' part of `problem`, with BatchNorm of the whole batch."""
    settings = [*SETTINGS, "labels.weight=0.2", "optimizer.name=sgd", "learning_rate=0.1", "dino.teacher_momentum=0.5"]
    config = load_config(recipe, settings)
    method = make_method(config, 2)[0].double().train()
    batch_norm.prepare(method, whole_batch=True, device=torch.device("cpu"))
    method.begin(1000)
    optimizer = make_optimizer(config, method)
    views, facts = problem()
    method(views[:, distributed.own_part(VIDEOS)].unbind(), facts)["loss"].backward()
    distributed.average_gradients(method)
    batch_norm.average_statistics(method, VIDEOS)
    optimizer.step()
    method.after_step()
    return {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}


@pytest.mark.slow
def test_two_processes_step_as_one(tmp_path: Path) -> None:
    """Both methods of this page: HiCo gathers three levels."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[3]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.uscl.methods.test_dino", str(tmp_path)],
            cwd=root,
            env=os.environ | address | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    expected = {recipe: one_step(recipe) for recipe in ("dino", "hico")}
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    for recipe, alone in expected.items():
        states = [load_file(tmp_path / f"{recipe}-{rank}.safetensors") for rank in range(2)]
        for name, tensor in alone.items():
            assert torch.equal(states[0][name], states[1][name]), name
            torch.testing.assert_close(states[0][name], tensor, rtol=1e-7, atol=1e-9, msg=f"{recipe} {name}")


def test_a_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    dataset = write_set(tmp_path / "set", frames_per_video=(2, 3, 1, 2))
    settings = [*SETTINGS, "epochs=1", "batch_size=2", "device=cpu", "checkpoint.log_every_steps=1", "probe.every_epochs=0", TINY_NETWORK]
    settings += ["checkpoint.keep_every_steps=1", "dino.teacher_momentum=0.9", "dino.frozen_epochs=0.5", "schedule.warmup_epochs=0"]
    run = pretrain(dataset, out=tmp_path / "run", recipe="dino", overrides=settings).out
    checkpoints = run / "checkpoints"
    whole, lines = load_file(checkpoints / "last" / "model.safetensors"), metrics_of(run)
    assert int(whole["steps_taken"]) == int(whole["steps_in_all"]) == len(lines) == 2
    assert whole["centre"].abs().sum() > 0
    assert not torch.equal(whole["teacher_backbone.network.conv1.0.weight"], whole["backbone.network.conv1.0.weight"])
    # The student is what a checkpoint gives.
    student = load_backbone(checkpoints / "last" / "model.safetensors")[0].tensors()
    assert torch.equal(student["conv1.0.weight"], whole["backbone.network.conv1.0.weight"])

    (checkpoints / "last").rename(tmp_path / "last")
    (checkpoints / "step-000001").rename(checkpoints / "last")
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(about | {"status": "stopped"}))
    pretrain(dataset, out=run, recipe="dino", overrides=settings, resume=True)
    assert metrics_of(run) == lines
    again = load_file(checkpoints / "last" / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_a_run_in_small_parts_and_bfloat16_starts_from_weights(tmp_path: Path) -> None:
    dataset = write_set(tmp_path / "set", frames_per_video=(2, 3, 1))
    backbone = load_backbone("random", seed=7)[0]
    save_file(backbone.state_dict(), tmp_path / "start.safetensors")
    settings = [*SETTINGS, "epochs=1", "batch_size=3", "micro_batch_size=2", "device=cpu", "precision=bfloat16", "probe.every_epochs=0"]
    settings += ["dino.teacher_momentum=1", "projector.batch_norm=true"]
    run = pretrain(dataset, out=tmp_path / "run", recipe="dino", overrides=settings, init_from=tmp_path / "start.safetensors").out
    state = load_file(run / "checkpoints" / "last" / "model.safetensors")
    assert torch.equal(state["teacher_backbone.conv1.weight"], backbone.conv1.weight)  # of momentum 1 it stays what it began as
    assert not torch.equal(state["backbone.conv1.weight"], backbone.conv1.weight)
    assert metrics_of(run)[-1]["distillation"] >= metrics_of(run)[-1]["teacher_entropy"] > 0


def main(folder: str) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    with processes.joined():
        for recipe in ("dino", "hico"):
            state = {name: tensor.contiguous() for name, tensor in one_step(recipe).items()}
            save_file(state, Path(folder) / f"{recipe}-{processes.rank()}.safetensors")
        processes.wait_for_all()


if __name__ == "__main__":
    main(sys.argv[1])
