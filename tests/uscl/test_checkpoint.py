"""Checkpoints: whole or absent, damage noticed, any optimizer's state to the last bit, and clear words where nothing can be written."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from uscl import checkpoint
from uscl.checkpoint import Position, find, load, numbered, save, set_aside, tidy, verify
from usdata.errors import UserError

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "Adam, fused": lambda parameters: torch.optim.Adam(parameters, fused=True, weight_decay=1e-2),
    "AdamW, amsgrad": lambda parameters: torch.optim.AdamW(parameters, amsgrad=True),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "SGD with momentum, fused": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=True),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, momentum=0.5, centered=True),
    "Adagrad": torch.optim.Adagrad,
    "NAdam": torch.optim.NAdam,
    "Adafactor": torch.optim.Adafactor,
}


def network(seed: int = 0) -> nn.Module:
    """Convolution, BatchNorm and a layer that has no gradient in the first steps."""
    torch.manual_seed(seed)
    layers = {"conv": nn.Conv2d(1, 4, 3), "norm": nn.BatchNorm2d(4), "head": nn.Linear(4, 3), "late": nn.Linear(3, 2)}
    return nn.ModuleDict(layers)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int, *, late_from: int = 2) -> None:
    """Steps whose batches depend on their numbers alone; the last layer takes part from one of them on."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        hidden = model["norm"](model["conv"](torch.randn(5, 1, 6, 6, generator=generator))).relu().mean((2, 3))
        out = model["head"](hidden)
        loss = (model["late"](out) if step >= late_from else out).square().sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def position(step: int = 1, epoch: int = 0) -> Position:
    return Position(step, epoch, 0, 1.5, "config", "data")


def stored(folder: Path, step: int = 1, **more: object) -> Path:
    """A checkpoint of a network after some steps."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    steps(model, optimizer, 0, step)
    save(folder, model, optimizer, position(step), **more)  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("stop", [1, 4], ids=["before the last layer trains", "after"])
def test_a_resume_is_exact_for_every_optimizer(tmp_path: Path, name: str, stop: int) -> None:
    # torch's fused SGD cannot take a gradient that comes later than the others.
    late_from = 0 if name == "SGD with momentum, fused" else 2
    undisturbed = network()
    steps(undisturbed, OPTIMIZERS[name](undisturbed.parameters()), 0, 8, late_from=late_from)

    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    steps(model, optimizer, 0, stop, late_from=late_from)
    save(tmp_path / "last", model, optimizer, position(stop))
    resumed = network(seed=7)
    optimizer = OPTIMIZERS[name](resumed.parameters())
    assert load(tmp_path / "last", resumed, optimizer) == {}
    steps(resumed, optimizer, stop, 8, late_from=late_from)
    for key, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("options", [{"fused": True}, {"capturable": True}], ids=["fused", "capturable"])
def test_a_resume_on_a_gpu_keeps_steps_where_the_optimizer_wants_them(tmp_path: Path, options: dict[str, bool]) -> None:
    parameter = nn.Linear(3, 3).cuda()
    optimizer = torch.optim.Adam(parameter.parameters(), **options)  # type: ignore[arg-type]
    parameter(torch.ones(1, 3, device="cuda")).sum().backward()
    optimizer.step()
    save(tmp_path / "last", parameter, optimizer, position())
    before = {key: value.clone() for key, value in optimizer.state[parameter.weight].items()}
    load(tmp_path / "last", parameter, optimizer)
    for key, value in optimizer.state[parameter.weight].items():
        assert value.device == before[key].device
        assert torch.equal(value, before[key])


def test_the_layout_of_the_parameters_is_kept(tmp_path: Path) -> None:
    model = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    save(tmp_path / "last", model, optimizer, position())
    load(tmp_path / "last", model, optimizer)
    assert optimizer.state[model.weight]["exp_avg"].is_contiguous(memory_format=torch.channels_last)
    assert optimizer.state[model.weight]["step"].device.type == "cpu"


def test_extra_tensors_pass_through_and_the_files_are_plain(tmp_path: Path) -> None:
    average = {"average.conv.weight": torch.randn(4, 1, 3, 3), "average.step": torch.tensor(7)}
    folder = stored(tmp_path / "last", step=3, extra=average)
    model = network()
    extra = load(folder, model, torch.optim.Adam(model.parameters()))
    assert extra.keys() == average.keys()
    assert all(torch.equal(value, average[key]) for key, value in extra.items())
    moments = load_file(folder / "optimizer.safetensors")
    assert moments["conv.weight.exp_avg"].shape == (4, 1, 3, 3)
    assert moments["conv.weight.step"] == 3
    assert verify(folder) == position(3)


def test_another_network_or_optimizer_is_refused(tmp_path: Path) -> None:
    folder = stored(tmp_path / "last", step=3)
    model = network()
    with pytest.raises(UserError, match="optimizer is Adam, and the run's is SGD"):
        load(folder, model, torch.optim.SGD(model.parameters()))
    with pytest.raises(UserError, match=r"late\.bias\.exp_avg' belongs to no parameter that is trained"):
        load(folder, model, torch.optim.Adam([parameter for name, parameter in model.named_parameters() if name != "late.bias"]))
    with pytest.raises(UserError, match="cannot be used") as caught:
        load(folder, model["head"], torch.optim.Adam(model["head"].parameters()))
    assert "\n" not in str(caught.value)


def test_an_optimizer_that_keeps_more_than_tensors_is_refused(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum((parameter.square().sum() for parameter in model.parameters()), torch.zeros(()))
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with pytest.raises(TypeError, match="LBFGS keeps a int as 'func_evals'"):
        save(tmp_path / "lbfgs", model, optimizer, position())
    assert not (tmp_path / "lbfgs").exists()


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def another_step(file: Path) -> None:
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"epoch": state["epoch"] + 1}))


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "one bit of the weights": ("model.safetensors", flip),
    "one bit of the optimizer": ("optimizer.safetensors", flip),
    "one bit of the extra tensors": ("extra.safetensors", flip),
    "cut short": ("optimizer.safetensors", lambda file: file.write_bytes(file.read_bytes()[:100])),
    "a file lacking": ("model.safetensors", Path.unlink),
    "state lacking": ("state.json", Path.unlink),
    "state empty": ("state.json", lambda file: file.write_text("")),
    "state of another kind": ("state.json", lambda file: file.write_text("[]")),
    "state with another epoch": ("state.json", another_step),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_last_checkpoint_is_noticed_and_the_one_before_is_used(tmp_path: Path, how: str) -> None:
    extra = {"average.a": torch.ones(3)}
    stored(tmp_path / "last", step=1, extra=extra)
    stored(tmp_path / "last", step=2, extra=extra)
    assert find(tmp_path) == checkpoint.Found(tmp_path / "last", position(2))
    file, damage = DAMAGE[how]
    damage(tmp_path / "last" / file)
    found = find(tmp_path)
    assert found is not None
    assert (found.folder, found.position) == (tmp_path / "previous", position(1))
    assert found.damage is not None
    assert found.damage.startswith("last: ")
    assert file in found.damage
    # The next saves must not put the damaged one in the place of the whole one.
    set_aside(found)
    stored(tmp_path / "last", step=2, extra=extra)
    assert {entry.name: verify(entry).step for entry in tmp_path.iterdir() if entry.name != "last-damaged"} == {"last": 2, "previous": 1}

    damage(tmp_path / "last" / file)
    damage(tmp_path / "previous" / file)
    with pytest.raises(UserError, match=r"no checkpoint can be used \(last: .*previous: .*--overwrite") as caught:
        find(tmp_path)
    assert "\n" not in str(caught.value)
    stored(tmp_path / "step-000001", step=1)
    stored(tmp_path / "step-000010", step=10)
    flip(tmp_path / "step-000010" / "model.safetensors")
    with pytest.raises(UserError, match="step-000001 is whole"):
        find(tmp_path)


def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The save is cut before each call that changes names or contents, as a kill would, with nothing tidied up behind it."""

    class Killed(BaseException):
        pass

    cuts = 0
    for name in ("last", "best"):
        for cut in range(100):
            root = tmp_path / f"{name}-{cut}"
            for step in (1, 2):
                stored(root / name, step=step)
            calls = 0

            def counted(original: Callable[..., object], cut: int = cut) -> Callable[..., object]:
                def call(*arguments: object, **options: object) -> object:
                    nonlocal calls
                    calls += 1
                    if calls > cut:
                        raise Killed
                    return original(*arguments, **options)

                return call

            with monkeypatch.context() as patched:
                patched.setattr(Path, "rename", counted(Path.rename))
                patched.setattr(Path, "mkdir", counted(Path.mkdir))
                patched.setattr(Path, "unlink", counted(Path.unlink))
                patched.setattr(checkpoint, "_write_tensors", counted(checkpoint._write_tensors))
                patched.setattr(checkpoint, "write_json", counted(checkpoint.write_json))
                patched.setattr(shutil, "rmtree", counted(shutil.rmtree))
                try:
                    stored(root / name, step=3)
                    whole = True
                except Killed:
                    whole = False
            tidy(root)
            assert not list(root.glob(".*"))
            if name == "last":
                found = find(root)
                assert found is not None
                assert found.damage is None
                assert found.position.step in (1, 2, 3)
                assert found.position.step == 3 or not whole
                assert found.position.step >= 2 or not (root / "last").exists()
            else:
                assert verify(root / name).step in (2, 3)
            # And the run goes on from there.
            stored(root / name, step=4)
            assert verify(root / name).step == 4
            shutil.rmtree(root)
            if whole:
                break
            cuts += 1
    assert cuts >= 16


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A real refusal of the system to write more: the limit on the size of a file (Python ignores the signal that comes with it)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 1500, 5000], ids=["weights", "optimizer", "extra tensors"])
def test_what_cannot_be_written_leaves_the_checkpoints_before_it(tmp_path: Path, size: int) -> None:
    for step in (1, 2):
        stored(tmp_path / "last", step=step)
    stored(tmp_path / "step-000002", step=2)
    extra = {"queue": torch.zeros(10_000)} if size == 5000 else {}
    for name in ("last", "step-000002", "step-000003"):
        with files_no_larger_than(size), pytest.raises(UserError, match=r"cannot be saved \(File too large\).*--resume") as caught:
            stored(tmp_path / name, step=3, extra=extra)
        assert "\n" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)
    assert {entry.name: verify(entry).step for entry in tmp_path.iterdir()} == {"last": 2, "previous": 1, "step-000002": 2}


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="cannot be saved"):
        stored(tmp_path / "checkpoints" / "last")


def test_numbered_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("step-1000000", "step-000020", "step-999999", "step-x", "best"):
        (tmp_path / name).mkdir()
    assert list(numbered(tmp_path)) == [20, 999999, 1000000]
