"""Weights that others saved, made with torch itself: what is certain is mapped to the last bit, the rest is refused by name."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from uscl.config import BACKBONES
from uscl.foreign import fit, read_weights
from uscl.models import load_backbone, projector
from uscl.torchvision_compat import torchvision
from usdata.errors import UserError


@cache
def trained() -> nn.Module:
    """torchvision's network in evaluation mode, with statistics that are not those of a new one."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = torchvision.models.resnet18(weights=None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
    return network.eval()


@cache
def tiny() -> dict[str, torch.Tensor]:
    """The beginning of a network, which stands for all of it where only names matter."""
    return {key: value for key, value in trained().state_dict().items() if key.startswith(("conv1.", "bn1.", "layer1.0.conv1"))}


SHAPES = {"small": {key: value.shape for key, value in tiny().items()}}


class PublishedUSCL(nn.Module):
    """The shape of the published network: a ResNet's children without the last, and heads."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(network.children())[:-1])
        self.linear = nn.Linear(512, 512)
        self.fc = nn.Linear(256, 12)
        self.l1 = nn.Linear(512, 512)
        self.l2 = nn.Linear(512, 256)
        self.out_1 = nn.Linear(512, 12)
        self.out_2 = nn.Linear(12, 12)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.features(frames).flatten(1)


def assert_gives(path: Path, expected: torch.Tensor, frames: torch.Tensor) -> None:
    backbone, provenance = load_backbone(path)
    assert (backbone.name, provenance["kind"], len(provenance["sha256"])) == ("resnet18", "file", 64)
    with torch.no_grad():
        assert torch.equal(backbone(frames), expected)


@torch.no_grad()
def test_a_published_uscl_checkpoint_gives_its_own_features(tmp_path: Path) -> None:
    published = PublishedUSCL(trained()).eval()
    frames = torch.randn(2, 3, 40, 48)
    expected = published(frames)
    state = published.state_dict()
    assert {key.split(".")[1] for key in state if key.startswith("features.")} == {"0", "1", "4", "5", "6", "7"}
    torch.save(state, tmp_path / "best_model.pth")
    torch.save({"epoch": 3, "state_dict": nn.DataParallel(published).state_dict()}, tmp_path / "wrapped.pth")
    for name in ("best_model.pth", "wrapped.pth"):
        assert_gives(tmp_path / name, expected, frames)
    for strange in ("features.3.weight", "features.8.weight", "attention.weight"):
        with pytest.raises(UserError, match=f"unknown tensor '{strange}'"):
            fit({**state, strange: torch.zeros(1)}, Path("strange.pth"), SHAPES, "small")


WRAPPINGS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "plain": lambda state: state,
    "with fc": lambda state: {**state, "fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)},
    "state_dict": lambda state: {"epoch": 7, "arch": "resnet18", "best_acc1": torch.tensor(1.0), "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}},
    "module": lambda state: {f"module.{key}": value for key, value in state.items()},
    "backbone": lambda state: {f"backbone.{key}": value for key, value in state.items()} | {"projector.0.weight": torch.zeros(2, 2)},
    "module.encoder": lambda state: {"state_dict": {f"module.encoder.{key}": value for key, value in state.items()}},
    "encoder.module": lambda state: {f"encoder.module.{key}": value for key, value in state.items()},
    "MoCo": lambda state: {
        "state_dict": {f"module.encoder_q.{key}": value for key, value in state.items()}
        | {f"module.encoder_q.fc.{number}.weight": torch.zeros(2, 2) for number in (0, 2)}
        | {f"module.encoder_k.{key}": value + 1 for key, value in state.items()}
        | {"module.queue": torch.zeros(2, 2)}
    },
    "older than BatchNorm's counters": lambda state: {key: value for key, value in state.items() if "tracked" not in key},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappers_and_prefixes_come_off(tmp_path: Path, wrapping: str) -> None:
    torch.save(WRAPPINGS[wrapping](tiny()), tmp_path / "weights.pth")
    name, state = fit(read_weights(tmp_path / "weights.pth")[0], tmp_path / "weights.pth", SHAPES, "small")
    lacking = tiny().keys() - state.keys()
    assert (name, lacking) == ("small", {"bn1.num_batches_tracked"} if wrapping.startswith("older") else set())
    assert all(torch.equal(value, tiny()[key]) for key, value in state.items())


@torch.no_grad()
def test_the_kind_of_file_is_told_by_its_content(tmp_path: Path) -> None:
    frames = torch.randn(1, 3, 32, 32)
    network = trained()
    expected = nn.Sequential(*list(network.children())[:-1])(frames).flatten(1)
    torch.save(network.state_dict(), tmp_path / "old.tar", _use_new_zipfile_serialization=False)
    torch.save(network.state_dict(), tmp_path / "torch.safetensors")
    save_file(network.state_dict(), tmp_path / "safetensors.bin")
    for name in ("old.tar", "torch.safetensors", "safetensors.bin"):
        assert_gives(tmp_path / name, expected, frames)


def test_no_length_of_a_header_is_taken_for_a_pickle(tmp_path: Path) -> None:
    """The first byte of safetensors is the low one of a length, which may be that of a pickle (0x80) or of a zip ('P')."""
    seen = set()
    for padding in range(0, 256, 8):
        path = tmp_path / "weights.safetensors"
        save_file(tiny(), path, metadata={"note": "x" * padding})
        seen.add(path.read_bytes()[0])
        assert read_weights(path)[0].keys() == tiny().keys()
    assert {0x80, ord("P")} <= seen


def test_the_tensors_say_which_backbone_it_is() -> None:
    shapes = {}
    for name in BACKBONES:
        with torch.device("meta"):
            state = getattr(torchvision.models, name)(weights=None).state_dict()
        shapes[name] = {key: value.shape for key, value in state.items() if not key.startswith("fc.")}
    for name in BACKBONES:
        state = {key: torch.ones(()).expand(shape) for key, shape in shapes[name].items()}
        assert fit(state, Path("weights.pth"), shapes, "resnet18")[0] == name


def test_timms_names_are_torchvisions(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet18", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "timm.pth")
    frames = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(frames), pre_logits=True)
        assert torch.allclose(load_backbone(tmp_path / "timm.pth")[0](frames), expected, atol=1e-6)


class Planted:
    """Runs a program in whoever unpickles it."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.proof}'",)


@pytest.mark.parametrize("how", ["beside the weights", "zip", "pickle", "pickle of protocol 0"])
def test_a_program_in_a_file_is_never_run(tmp_path: Path, how: str) -> None:
    proof, path = tmp_path / "proof", tmp_path / "planted.pth"
    planted: Any = Planted(proof)
    if how == "beside the weights":
        planted = {"state_dict": tiny(), "args": planted}
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps(planted, protocol=0 if how.endswith("0") else pickle.DEFAULT_PROTOCOL))
    else:
        torch.save(planted, path)
    with pytest.raises(UserError, match=r"not loaded|no readable") as caught:
        load_backbone(path)
    assert "\n" not in str(caught.value)
    assert not proof.exists()
    # The file does what it is said to do, where it is read carelessly.
    if how.startswith("pickle"):
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert proof.exists()


def test_what_is_not_certain_is_refused_in_one_line(tmp_path: Path) -> None:
    good = tiny()
    broken = {**good, "conv1.weight": torch.full_like(good["conv1.weight"], float("nan"))}
    narrow = {**good, "conv1.weight": torch.zeros(64, 1, 7, 7)}
    twins = {f"{side}.{key}": value for side in ("backbone", "encoder") for key, value in good.items()}

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def script(path: Path) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)

    def no_torch_zip(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a", "b")

    cases: dict[str, tuple[Any, Callable[[Path], None] | None, str]] = {
        "namespace": ({"state_dict": good, "args": argparse.Namespace(lr=1)}, None, r"more than tensors \(argparse\.Namespace\)"),
        "whole module": (nn.Linear(2, 2), None, r"more than tensors \(torch\.nn\.modules\.linear\.Linear\)"),
        "script": (None, script, "TorchScript"),
        "lacking": ({key: value for key, value in good.items() if key != "bn1.bias"}, None, r"lacks tensor 'bn1\.bias'"),
        "lacking under a prefix": ({f"encoder.{key}": good[key] for key in good if key != "bn1.bias"}, None, r"lacks tensor 'bn1\.bias'"),
        "other network": (projector(512).state_dict(), None, r"lacks tensor 'bn1\.bias'"),
        "extra": ({**good, "attention": torch.zeros(1)}, None, "unknown tensor 'attention'"),
        "one channel": (narrow, None, r"\(64, 1, 7, 7\) where small has \(64, 3, 7, 7\)"),
        "not finite": (broken, None, r"'conv1\.weight' holds values that are not finite"),
        "two networks": (twins, None, r"more than one small \(under 'backbone\.', 'encoder\.'\)"),
        "a number": ({"epoch": 3}, None, "'epoch' is no tensor"),
        "a list": ([torch.zeros(1)], None, "holds a list"),
        "nothing": ({}, None, "no state dict"),
        "cut short": (good, cut, "no readable checkpoint of torch"),
        "zip": (None, no_torch_zip, "no readable checkpoint of torch"),
        "empty": (None, Path.touch, "no readable safetensors"),
    }
    for name, (content, then, words) in cases.items():
        path = tmp_path / f"{name}.pth"
        if content is not None:
            torch.save(content, path)
        if then is not None:
            then(path)
        with pytest.raises(UserError, match=words) as caught:
            fit(read_weights(path)[0], path, SHAPES, "small")
        assert "\n" not in str(caught.value), name
        assert str(path) in str(caught.value), name
