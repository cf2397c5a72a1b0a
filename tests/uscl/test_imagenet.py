"""Published weights: found by their names, checked by their hashes, and seen through our normalisation as through their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.uscl.tiny_set import write_set
from uscl.backbones import seeded_backbone
from uscl.config import load_config
from uscl.imagenet import fold_normalisation, imagenet_backbone
from uscl.models import PIXEL_MEAN, PIXEL_STD, load_backbone
from uscl.starting import initialise, initialised
from uscl.torchvision_compat import torchvision
from uscl.train import pretrain
from usdata.errors import UserError
from usdata.files import sha256_file

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def theirs(gray: torch.Tensor, mean: Any = MEAN, std: Any = STD) -> torch.Tensor:
    """(N, 1, H, W) gray levels of 0..1 as their networks take them."""
    means, stds = (torch.tensor(values, dtype=gray.dtype)[None, :, None, None] for values in (mean, std))
    return (gray.repeat(1, 3, 1, 1) - means) / stds


def trained_resnet() -> torch.nn.Module:
    """torchvision's network with statistics that are not those of a new one."""
    torch.manual_seed(3)
    network = torchvision.models.resnet18(weights=None)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@torch.no_grad()
def test_the_first_layers_see_what_they_were_trained_on() -> None:
    network = trained_resnet().double()
    gray = torch.rand(2, 1, 40, 40, dtype=torch.float64)
    expected, features = network.bn1(network.conv1(theirs(gray))), network.layer1(network.maxpool(network.bn1(network.conv1(theirs(gray)))))
    ours = ((gray - PIXEL_MEAN) / PIXEL_STD).repeat(1, 3, 1, 1)
    unfolded = network.bn1(network.conv1(ours))
    assert fold_normalisation(network, "conv1", MEAN, STD)
    found = network.bn1(network.conv1(ours))
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))  # where nothing of the padding is seen
    assert torch.allclose(found[inside], expected[inside], atol=1e-12)
    assert (unfolded[inside] - expected[inside]).abs().max() > 0.1
    assert not torch.allclose(found, expected, atol=1e-3)
    assert (network.layer1(network.maxpool(found)) - features).abs().mean() < 0.1 * features.abs().mean()


@torch.no_grad()
def test_patches_have_no_border_and_what_cannot_be_folded_is_left() -> None:
    timm = pytest.importorskip("timm")
    gray = torch.rand(2, 1, 32, 32, dtype=torch.float64)
    ours = ((gray - PIXEL_MEAN) / PIXEL_STD).repeat(1, 3, 1, 1)
    network = timm.create_model("test_vit", num_classes=0, img_size=32).double().eval()
    expected = network(theirs(gray))
    assert fold_normalisation(network, "patch_embed.proj", MEAN, STD, 32)
    assert torch.allclose(network(ours), expected, atol=1e-12)
    # A BatchNorm that holds its activation, and weights that are normalised themselves.
    network = timm.create_model("test_efficientnet", num_classes=0).double().eval()
    expected = network.bn1(network.conv_stem(theirs(gray)))[..., 2:-2, 2:-2]
    assert fold_normalisation(network, "conv_stem", MEAN, STD)
    assert torch.allclose(network.bn1(network.conv_stem(ours))[..., 2:-2, 2:-2], expected, atol=1e-12)
    network = timm.create_model("test_nfnet", num_classes=0).double().eval()
    expected = network(ours)
    assert not fold_normalisation(network, "stem.conv1", MEAN, STD)
    assert torch.equal(network(ours), expected)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's folder of downloads, empty, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torchvision.models.ResNet18_Weights.DEFAULT.value, "url", "file:///nowhere/resnet18-01234567.pth")
    return folder


def test_a_file_that_is_not_here_is_named_with_its_place(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"not on this machine.*bring file:///nowhere/resnet18-01234567\.pth to ") as caught:
        load_backbone("imagenet")
    assert str(hub / "resnet18-01234567.pth") in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="'resnet19': is not known"):
        load_backbone("imagenet", name="resnet19")
    (hub / "resnet18-01234567.pth").write_bytes(b"another file")
    with pytest.raises(UserError, match="is not what it is called: its sha256 does not begin with 01234567"):
        load_backbone("imagenet")


def test_a_run_starts_from_torchvisions_file(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained_resnet()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    digest = sha256_file(tmp_path / "weights.pth")
    file = hub / f"resnet18-{digest[:8]}.pth"
    shutil.copy(tmp_path / "weights.pth", file)
    monkeypatch.setattr(torchvision.models.ResNet18_Weights.DEFAULT.value, "url", f"https://download.pytorch.org/models/{file.name}")
    backbone, provenance = load_backbone("imagenet")
    assert (provenance["kind"], provenance["sha256"], provenance["image_size"]) == ("imagenet", digest, 224)
    assert torch.equal(backbone.layer4[1].conv2.weight, network.layer4[1].conv2.weight)
    assert torch.allclose(backbone.conv1.weight, network.conv1.weight * (PIXEL_STD / torch.tensor(STD))[None, :, None, None])
    dataset, out = write_set(tmp_path / "set"), tmp_path / "run"
    few = [
        "image_size=32",
        "epochs=1",
        "batch_size=4",
        "device=cpu",
        "learning_rate=1e-30",
        "weight_decay=0",
        "tensorboard=off",
        "probe.every_epochs=0",
    ]
    pretrain(dataset, out=out, overrides=few, init_from="imagenet")
    trained = load_backbone(out)[0]
    assert torch.equal(trained.conv1.weight, backbone.conv1.weight)
    config = load_config("uscl", few)
    assert initialised(out, "imagenet", config)["sha256"] == digest
    with pytest.raises(UserError, match="differs from what this run started from"):
        initialised(out, "random", config)
    # 'random' is what a run starts from anyway.
    found = seeded_backbone("resnet18", 7)
    assert initialise(found, "random", config) == initialise(found, None, config) == {"kind": "random", "seed": 0}


def test_timms_file_is_found_where_it_was_brought(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    file = hub / "test_vit.r160_in1k.safetensors"
    with pytest.raises(UserError, match=r"not on this machine.*bring https://huggingface\.co/timm/test_vit\.r160_in1k/resolve") as caught:
        load_backbone("imagenet", name="timm/test_vit")
    assert f"to {file} by hand" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="timm publishes none for it"):
        load_backbone("imagenet", name="timm/botnet50ts_256")
    network = timm.create_model("test_vit").eval()
    save_file(network.state_dict(), file)
    for name in ("timm/test_vit", "timm/test_vit.r160_in1k"):
        backbone, digest, size = imagenet_backbone(name)
        assert (digest, size, backbone.image_size) == (sha256_file(file), 160, 160)
    gray = torch.rand(1, 1, 160, 160)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(theirs(gray, [0.5] * 3, [0.5] * 3)), pre_logits=True)
        assert torch.allclose(backbone.eval()((gray - PIXEL_MEAN) / PIXEL_STD), expected, atol=1e-5)
    assert imagenet_backbone("timm/test_vit", 32)[0].image_size == 32
