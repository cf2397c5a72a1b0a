"""Networks of timm in the place of torchvision's: the library's own to the last bit, a run from end to end, and errors in one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.uscl.evaluation.texture_set import write_texture_set
from tests.uscl.tiny_set import metrics_of, write_set
from uscl import batch_norm, checkpoint, run_folder
from uscl.backbones import check_backbone, make_backbone, seeded_backbone, timm_config
from uscl.config import load_config
from uscl.evaluation import evaluate
from uscl.gradient_cache import cached_gradients
from uscl.methods import Facts, make_method
from uscl.models import load_backbone
from uscl.train import pretrain
from uscl.utilisation import operations_per_view
from usdata.errors import Stopped, UserError
from usdata.files import sha256_file

timm = pytest.importorskip("timm")

# A transformer, for one size of views and without BatchNorm; and a network whose BatchNorm holds its activation.
TRANSFORMER, CONVOLUTIONS = "timm/test_vit", "timm/test_efficientnet"
SIZE = 32


def own_network(name: str, **settings: Any) -> torch.nn.Module:
    if name == TRANSFORMER:
        settings = {"img_size": SIZE, **settings}
    return timm.create_model(name.removeprefix("timm/"), **{"num_classes": 0, **settings}).eval()


@pytest.mark.parametrize("name", [TRANSFORMER, CONVOLUTIONS])
@torch.no_grad()
def test_it_is_timms_network(name: str) -> None:
    backbone, network = seeded_backbone(name, 1, SIZE).eval(), own_network(name)
    network.load_state_dict(backbone.tensors(), strict=True)
    frames = torch.randn(3, 1, SIZE, SIZE)
    features = backbone(frames)
    assert features.shape == (3, backbone.width)
    assert torch.equal(features, network(frames.repeat(1, 3, 1, 1)))
    assert torch.equal(features, backbone(frames.repeat(1, 3, 1, 1)))
    assert backbone.image_size == (SIZE if name == TRANSFORMER else None)
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    again, other = seeded_backbone(name, 1, SIZE).tensors(), seeded_backbone(name, 2, SIZE).tensors()
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(value, again[key]) for key, value in backbone.tensors().items())
    assert not all(torch.equal(value, other[key]) for key, value in backbone.tensors().items())


@pytest.mark.skipif(not timm.is_model("cpubone_b0_bfrobust"), reason="this timm is older than the network")
def test_nothing_is_dropped_at_random() -> None:
    """timm drops branches of this network, and a share of what its head reads."""
    for name in ("timm/cpubone_b0_bfrobust",):
        with torch.device("meta"):
            backbone, network = make_backbone(name, 64), timm.create_model(name.removeprefix("timm/"), num_classes=0)

        def shares(module: torch.nn.Module) -> list[float]:
            found = [(getattr(layer, "drop_prob", 0), getattr(layer, "p", 0)) for layer in module.modules()]
            return [share for pair in found for share in pair if isinstance(share, float) and share > 0]

        assert shares(network), name
        assert not shares(backbone), name


def test_a_convolutions_gradient_is_the_same_twice() -> None:
    backbone = seeded_backbone(CONVOLUTIONS, 0).train()
    frames = torch.randn(4, 1, SIZE, SIZE)
    assert torch.equal(backbone(frames), backbone(frames))


def test_wrong_names_and_sizes_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, words in (
        ("resnet19", r"backbone 'resnet19' is not known; did you mean 'resnet18'.*timm/NAME"),
        ("timm/vit_tinny_patch16_224", r"is no network of timm; the nearest are timm/vit_tiny_patch16_224"),
        ("timm/zzzzzz", r"is no network of timm; timm\.list_models\(\)"),
        ("timm/hf-hub:someone/something", "is no network of timm"),
        ("timm/test_vit.nowhere", r"asks for weights 'nowhere'.*test_vit\.r160_in1k"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            load_config("uscl", [f"backbone={name}"])
        assert "\n" not in str(caught.value)
    for name, size, words in (
        (TRANSFORMER, 40, r"does not take views of 40x40 pixels \(.*divisible"),
        ("timm/inception_v3", 64, "does not take views of 64x64"),
        ("timm/qwen3_vit_88m_enc", 64, r"gives no feature vector but \(2, 4, 1024\)"),
    ):
        if name == "timm/qwen3_vit_88m_enc" and not timm.is_model("qwen3_vit_88m_enc"):
            continue  # this timm is older than the network
        with pytest.raises(UserError, match=words) as caught:
            check_backbone(name, size)
        assert "\n" not in str(caught.value)
    timm_config.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm: is not installed.*pip install 'usdata-uscl\[timm\]'"):
        load_config("uscl", [f"backbone={TRANSFORMER}"])


def test_torchvisions_names_are_known_without_torch() -> None:
    code = "import sys; from uscl.config import load_config; load_config('uscl', ['backbone=resnet50']); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_views_operations_are_the_layers_products() -> None:
    backbone = seeded_backbone(TRANSFORMER, 0, SIZE)
    width, patch, tokens = backbone.width, 16, (SIZE // 16) ** 2 + 1
    hidden = backbone.tensors()["blocks.0.mlp.fc1.weight"].shape[0]
    block = tokens * width * (3 * width + width + 2 * hidden) + 2 * tokens**2 * width
    blocks = len({key.split(".")[1] for key in backbone.tensors() if key.startswith("blocks.")})
    embedding = (tokens - 1) * 3 * patch**2 * width
    assert operations_per_view(backbone, SIZE, backward=False) == 2 * (embedding + blocks * block)


def test_weights_with_a_head_and_of_another_size_are_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = own_network(TRANSFORMER, num_classes=7, img_size=64)
    torch.save({"state_dict": published.state_dict()}, tmp_path / "published.pth")
    backbone, provenance = load_backbone(tmp_path / "published.pth", name=TRANSFORMER, image_size=SIZE)
    assert (provenance["kind"], provenance["backbone"], backbone.image_size) == ("file", TRANSFORMER, SIZE)
    whole, found = published.state_dict(), backbone.tensors()
    assert {key for key in found if found[key].shape != whole[key].shape} == {"pos_embed"}
    assert all(torch.equal(value, whole[key]) for key, value in found.items() if key != "pos_embed")
    positions = timm.layers.resample_abs_pos_embed(whole["pos_embed"], [2, 2], num_prefix_tokens=1)
    assert torch.allclose(found["pos_embed"], positions, atol=1e-6)
    with pytest.raises(UserError, match="is no timm/test_efficientnet: it lacks tensor") as caught:
        load_backbone(tmp_path / "published.pth", name=CONVOLUTIONS)
    assert "\n" not in str(caught.value)


SETTINGS = [f"image_size={SIZE}", "epochs=2", "batch_size=4", "device=cpu", "checkpoint.every_epochs=1", "checkpoint.log_every_steps=1"]
SETTINGS += ["tensorboard=off", "probe.every_epochs=0"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "set")


@pytest.mark.parametrize("name", [TRANSFORMER, CONVOLUTIONS])
def test_a_run_from_end_to_end(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    settings = [*SETTINGS, f"backbone={name}", "precision=bfloat16", "average.decay=0.9"]
    append = run_folder.append_metrics

    def append_and_stop(out: Path, line: dict[str, Any]) -> None:
        append(out, line)
        if line["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    run, stopped = tmp_path / "run", tmp_path / "stopped"
    pretrain(dataset, out=run, overrides=settings)
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "append_metrics", append_and_stop)
        with pytest.raises(Stopped):
            pretrain(dataset, out=stopped, overrides=settings)
    pretrain(dataset, out=stopped, overrides=settings, resume=True)
    for file in ("checkpoints/last/model.safetensors", "checkpoints/last/extra.safetensors", "export/backbone.safetensors"):
        assert sha256_file(run / file) == sha256_file(stopped / file), file
    assert metrics_of(run) == metrics_of(stopped)

    card = (run / "export" / "README.md").read_text()
    code = (
        card.partition("```python\n")[2].partition("```")[0].replace("backbone.safetensors", str(run / "export" / "backbone.safetensors"))
    )
    scope: dict[str, Any] = {}
    exec(code, scope)  # what the card tells its reader to do
    backbone, provenance = load_backbone(run)
    assert (provenance["backbone"], provenance["image_size"], provenance["kind"]) == (name, SIZE, "run")
    frames = torch.randn(2, 1, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(scope["network"].eval()(frames.repeat(1, 3, 1, 1)), backbone(frames))
    saved = json.loads((run / "run.json").read_text())["export"]
    assert (saved["backbone"], saved["width"]) == (name, backbone.width)
    assert "timm.create_model(" in saved["loads_into"]
    average = load_file(run / "checkpoints/last/extra.safetensors")
    assert all(torch.equal(value, average[f"average.backbone.network.{key}"]) for key, value in backbone.tensors().items())
    from_checkpoint, told = load_backbone(run / "checkpoints/last/model.safetensors")
    assert (told["backbone"], told["kind"]) == (name, "file")
    trained = load_file(run / "checkpoints/last/model.safetensors")
    assert all(torch.equal(value, trained[f"backbone.network.{key}"]) for key, value in from_checkpoint.tensors().items())

    if name != TRANSFORMER:
        return  # what follows does not depend on it
    shutil.rmtree(stopped)
    pretrain(dataset, out=stopped, overrides=[*SETTINGS, f"backbone={name}", "epochs=1"], init_from=run)
    assert json.loads((stopped / "run.json").read_text())["initial_weights"]["kind"] == "run"
    with pytest.raises(UserError, match=f"is a {name}, and the run's backbone is resnet18"):
        pretrain(dataset, out=tmp_path / "wrong", overrides=SETTINGS, init_from=run)

    textures = write_texture_set(tmp_path / "textures", textures=("across", "down") * 4)
    found = evaluate("knn", textures, weights=["random", "resnet18:random", str(run)], out=tmp_path / "knn", folds=2)
    told = {row["name"]: row for row in found.summary["weights"]}
    assert {name: row["provenance"]["backbone"] if "provenance" in row else row["backbone"] for name, row in told.items()} == {
        "random": name,
        "resnet18:random": "resnet18",
        "run": name,
    }
    probabilities = found.predictions.groupby("weights")["probability_across"].apply(list)
    assert probabilities["random"] != probabilities["resnet18:random"]
    with pytest.raises(UserError, match=f"random: are of {name}, which has no last residual block.*--trained-layers all") as caught:
        evaluate("finetune", textures, weights=["random", str(run)], out=tmp_path / "finetuned", folds=2)
    assert "\n" not in str(caught.value)
    tuned = evaluate("finetune", textures, weights=[str(run)], out=tmp_path / "all", folds=2, epochs=1, trained_layers="all", image_size=64)
    assert tuned.predictions["probability_across"].between(0, 1).all()


def test_a_dry_run_tells_what_does_not_fit(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not take views of 40x40"):
        pretrain(dataset, out=tmp_path / "run", overrides=[*SETTINGS, f"backbone={TRANSFORMER}", "image_size=40"], dry_run=True)


def test_the_cached_gradient_is_that_of_the_whole_batch() -> None:
    config = load_config("uscl", [f"backbone={TRANSFORMER}", f"image_size={SIZE}"])
    views = tuple(torch.randn(5, 1, SIZE, SIZE, dtype=torch.float64) for _ in range(2))
    facts = Facts(torch.tensor([0, 1, -1, 1, 0]), torch.arange(5))
    whole, parts = (make_method(config, 2)[0].double().train() for _ in range(2))
    loss = whole(views, facts)["loss"]
    loss.backward()
    found = cached_gradients(parts, views, facts, 2)
    assert found["loss"].item() == pytest.approx(loss.item(), abs=1e-12)
    for (name, expected), parameter in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert torch.allclose(parameter.grad, expected.grad, rtol=1e-8, atol=1e-12), name


@pytest.mark.parametrize("name", [TRANSFORMER, CONVOLUTIONS])
def test_a_process_without_a_video_has_gradients_of_zero(name: str) -> None:
    backbone = seeded_backbone(name, 0, SIZE).train()
    features = backbone(torch.zeros(0, 1, SIZE, SIZE))
    assert features.shape == (0, backbone.width)
    features.sum().backward()
    assert all(not parameter.grad.any() for parameter in backbone.parameters())


def test_batchnorm_of_several_processes_keeps_the_activation_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.randn(4, 1, SIZE, SIZE)
    names = list(seeded_backbone(CONVOLUTIONS, 0).state_dict())
    for training in (True, False):
        alone, one_of_two = (seeded_backbone(CONVOLUTIONS, 0).train(training) for _ in range(2))
        with monkeypatch.context() as patched:
            patched.setattr("uscl.processes.world_size", lambda: 2)
            batch_norm.prepare(one_of_two, whole_batch=False, device=torch.device("cpu"))
        assert any(isinstance(layer, batch_norm.OwnPartBatchNorm) for layer in one_of_two.modules())
        assert list(one_of_two.state_dict()) == names
        assert torch.equal(one_of_two(frames), alone(frames))
        synchronised = seeded_backbone(CONVOLUTIONS, 0).eval()
        with monkeypatch.context() as patched:
            patched.setattr("uscl.processes.world_size", lambda: 2)
            batch_norm.prepare(synchronised, whole_batch=True, device=torch.device("cuda"))
            assert any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in synchronised.modules())
            assert torch.equal(synchronised(frames), seeded_backbone(CONVOLUTIONS, 0).eval()(frames))
            with pytest.raises(UserError, match=r"EvoNorm.*several processes cannot share"):
                batch_norm.prepare(timm.layers.EvoNorm2dB0(8), whole_batch=False, device=torch.device("cpu"))


def test_a_networks_state_goes_through_a_checkpoint(tmp_path: Path) -> None:
    method, backbone = make_method(load_config("uscl", [f"backbone={TRANSFORMER}", f"image_size={SIZE}"]), 0)
    optimizer = torch.optim.Adam(method.parameters())
    checkpoint.save(tmp_path / "last", method, optimizer, checkpoint.Position(0, 0, 0, 0.0, "", ""))
    save_file(backbone.tensors(), tmp_path / "weights.safetensors")
    other = make_method(load_config("uscl", [f"backbone={TRANSFORMER}", f"image_size={SIZE}", "seed=1"]), 0)[1]
    other.load_tensors(load_file(tmp_path / "weights.safetensors"))
    assert all(torch.equal(value, other.tensors()[key]) for key, value in backbone.tensors().items())
