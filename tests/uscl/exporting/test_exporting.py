"""`uscl export`: what torchvision, timm and ONNX Runtime make of an export is what the network makes, and the card says what is known."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.uscl.evaluation.texture_set import write_texture_set
from uscl.backbones import Backbone
from uscl.config import load_config
from uscl.embedding import embed
from uscl.evaluation import evaluate
from uscl.evaluation.features import weights_digest
from uscl.exporting import export
from uscl.exporting.backbone_file import export_backbone
from uscl.exporting.model_card import backbone_card, evaluation_section
from uscl.exporting.training_data import settings, training_data
from uscl.fitting import fit
from uscl.models import load_backbone
from uscl.predicting import predict
from uscl.torchvision_compat import torchvision
from usdata.errors import UserError
from usdata.files import canonical_json
from usdata.manifest import open_dataset

SIZE = 40


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texture_set(tmp_path_factory.mktemp("exporting") / "set", textures=("across", "down") * 4, frames_per_video=4)


@pytest.fixture(scope="module")
def run(textures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a finished run hands out, without the run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    backbone, _ = load_backbone("random", seed=4)
    data = open_dataset(textures)
    facts = {"recipe": "simclr", "method": "uscl", "image_size": SIZE, "steps": 7, "epochs": 2, "dataset_name": "a|b <i>"}
    facts |= {"dataset_digest": data.digest, "splits": "train", "clips": "[]", "clips_whole": "yes", "config_digest": "0c" * 32}
    facts |= {"training_data": canonical_json(training_data(data, ["train"])), "settings": canonical_json(settings(load_config("simclr")))}
    facts["training_data"] = canonical_json(training_data(data, ["train"]) | {"licences": {"": 2, "CC BY-NC-ND 4.0": 6}})
    export_backbone(folder, backbone, {**facts, "uscl_version": "1"})
    return folder


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, SIZE, SIZE), dtype=np.uint8)


def expected(run: Path, gray: np.ndarray) -> np.ndarray:
    """By torchvision's own network on three channels."""
    network = torchvision.models.resnet18(weights=None)
    network.load_state_dict(load_file(run / "export" / "backbone.safetensors"), strict=False)
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        found: np.ndarray = network.eval()(normalised(gray)).numpy()
    return found


def normalised(gray: np.ndarray) -> torch.Tensor:
    return ((torch.from_numpy(gray).float() / 255 - 0.5) / 0.25).repeat(1, 3, 1, 1)


def test_timm_reads_its_folder(run: Path, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    result = export(run, format="timm", out=tmp_path / "timm")
    assert result.files == ["README.md", "config.json", "model.safetensors"]
    by_path = timm.create_model("resnet18", num_classes=0, checkpoint_path=str(tmp_path / "timm" / "model.safetensors"))
    by_folder = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    gray = frames(3)
    for network in (by_path, by_folder):
        with torch.no_grad():
            np.testing.assert_allclose(network.eval()(normalised(gray)).numpy(), expected(run, gray), rtol=0, atol=1e-4)
    config = timm.data.resolve_data_config({}, model=by_folder)
    assert [list(config[key]) for key in ("input_size", "mean", "std")] == [[3, SIZE, SIZE], [0.5] * 3, [0.25] * 3]


def test_the_card_says_how_to_resize_and_so_it_is(run: Path, textures: Path, tmp_path: Path) -> None:
    """A picture resized by the call in the card, through torchvision's network, gives what `uscl embed` gives."""
    export(run, format="safetensors", out=tmp_path / "out")
    assert f"cv2.resize(gray, ({SIZE}, {SIZE}), interpolation=cv2.INTER_AREA)" in (tmp_path / "out" / "README.md").read_text()
    features = pd.read_parquet(embed(textures, weights=run, out=tmp_path / "features.parquet", image_size=SIZE).out)
    pictures = [cv2.imread(str(textures / path), cv2.IMREAD_GRAYSCALE) for path in open_dataset(textures).frames["path"]]
    gray = np.stack([cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for picture in pictures])[:, None]
    np.testing.assert_allclose(expected(run, gray), np.stack(features["features"].to_list()), atol=1e-4)


def test_a_transformer_of_timm_comes_with_its_size(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    name = "timm/test_vit"
    export(f"{name}:random", format="timm", out=tmp_path / "timm", image_size=64)
    network = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    backbone, _ = load_backbone("random", name=name, image_size=64)
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network.eval()(pictures), backbone(pictures))
    assert "None: the weights are random." in (tmp_path / "timm" / "README.md").read_text()


def test_safetensors_are_the_runs_own_and_a_foreign_file_gets_torchvisions_names(run: Path, tmp_path: Path) -> None:
    export(run, format="safetensors", out=tmp_path / "again")
    own = run / "export" / "backbone.safetensors"
    assert (tmp_path / "again" / "backbone.safetensors").read_bytes() == own.read_bytes()
    assert (tmp_path / "again" / "README.md").read_text() == (run / "export" / "README.md").read_text()
    torch.save({f"module.encoder.{name}": value for name, value in load_file(own).items()}, tmp_path / "foreign.pth")
    export(tmp_path / "foreign.pth", format="safetensors", out=tmp_path / "foreign", image_size=SIZE)
    found, wanted = load_file(tmp_path / "foreign" / "backbone.safetensors"), load_file(own)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert "Not known: the file does not say." in (tmp_path / "foreign" / "README.md").read_text()
    loads = (tmp_path / "foreign" / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    exec(loads.replace("backbone.safetensors", str(own)), {})


@pytest.fixture(scope="module")
def graph(run: Path, textures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = export(run, format="onnx", out=tmp_path_factory.mktemp("graph") / "onnx", dataset=textures)
    assert result.difference is not None
    assert result.difference < 1e-4
    assert result.compared == 16
    return result.out


@pytest.mark.slow
def test_equal_weights_give_equal_graphs(graph: Path, run: Path, textures: Path, tmp_path: Path) -> None:
    export(run, format="onnx", out=tmp_path / "onnx", dataset=textures)
    assert (tmp_path / "onnx" / "backbone.onnx").read_bytes() == (graph / "backbone.onnx").read_bytes()


def test_onnx_runtime_gives_torchvisions_features_of_gray_levels(graph: Path, run: Path) -> None:
    path = graph / "backbone.onnx"
    session = onnxruntime.InferenceSession(str(path))
    assert [(each.name, each.type, each.shape) for each in session.get_inputs()] == [("frames", "tensor(uint8)", ["batch", 1, SIZE, SIZE])]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("features", ["batch", 512])]
    for count in (1, 6):
        gray = frames(count, seed=count)
        np.testing.assert_allclose(session.run(None, {"frames": gray})[0], expected(run, gray), rtol=0, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["weights_sha256"] == weights_digest(load_backbone(run)[0])
    assert "clips" not in metadata
    content = path.read_bytes()
    assert not any(place.encode() in content for place in (str(Path(__file__).parents[3]), str(graph.parent), sys.prefix))
    assert not any(node.metadata_props or node.doc_string for node in onnx.load(path).graph.node)


@pytest.mark.slow
def test_a_fitted_classifier_as_a_graph_says_what_predict_says(run: Path, textures: Path, tmp_path: Path) -> None:
    fit(textures, weights=run, out=tmp_path / "model")
    export(tmp_path / "model", format="onnx", out=tmp_path / "onnx", input_type="float32")
    predicted = pd.read_parquet(predict(textures, model=tmp_path / "model", out=tmp_path / "out", compare=False).out / "frames.parquet")
    features = pd.read_parquet(embed(textures, weights=run, out=tmp_path / "features.parquet").out)
    gray = np.stack([cv2.imread(str(textures / path), cv2.IMREAD_GRAYSCALE) for path in open_dataset(textures).frames["path"]])[:, None]
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "classifier.onnx"))
    found = session.run(None, {"frames": gray.astype(np.float32)})
    np.testing.assert_allclose(found[0], np.stack(features["features"].to_list()), atol=1e-4)
    np.testing.assert_allclose(found[1], predicted[["probability_across", "probability_down"]].to_numpy(), atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["across", "down"]
    for changed, said in (
        ({"format": "timm"}, "is a fitted classifier"),
        ({"image_size": 64}, "is not what this classifier was fitted at"),
        ({"evaluation": tmp_path}, "is for weights"),
    ):
        with pytest.raises(UserError, match=said):
            export(tmp_path / "model", **({"format": "onnx", "out": tmp_path / "x"} | changed))  # type: ignore[arg-type]
    fit(textures, weights=run, out=tmp_path / "model", head="knn", overwrite=True)
    with pytest.raises(UserError, match="votes by its neighbours"):
        export(tmp_path / "model", format="onnx", out=tmp_path / "x")
    assert not list(tmp_path.glob("*x*.part"))
    assert not (tmp_path / "x").exists()


def test_a_graph_that_differs_is_not_written(graph: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of other weights stands for an operator that a runtime computes otherwise; exporting them twice would take seconds."""

    class Program:
        model_proto = onnx.load(graph / "backbone.onnx")

    shifted = next(value for value in Program.model_proto.graph.initializer if value.name.endswith("layer1.0.conv1.weight"))
    shifted.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(shifted) * np.float32(1.01), shifted.name))
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    with pytest.raises(UserError, match=r"other values in ONNX Runtime than in torch \(up to .*nothing was written"):
        export(run, format="onnx", out=tmp_path / "onnx")
    assert not list(tmp_path.iterdir())


def test_the_card_says_what_is_known_and_an_evaluation_of_these_weights(run: Path, textures: Path, tmp_path: Path) -> None:
    result = evaluate(
        "knn", textures, weights=["random", str(run)], out=tmp_path / "evaluation", folds=2, allow_overlap=["run"], image_size=SIZE
    )
    export(run, format="safetensors", out=tmp_path / "out", evaluation=tmp_path / "evaluation")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n")
    for line in ("| CC BY-NC-ND 4.0 | 6 |", "| none is named | 2 |", "| frames | 32 |", "| videos | 8 |", "Not a medical device"):
        assert line in card
    assert "a\\|b &lt;i&gt;" in card
    assert "<i>" not in card
    assert "SimCLR" in card
    assert "chen2021uscl" in card
    seen = "(optimistic: has seen test clips)"
    own = next(entry for entry in result.summary["weights"] if entry["name"] == f"run {seen}")["levels"]["frame"]
    low, high = own["interval"]["balanced_accuracy"]
    assert f"| these weights {seen} | frame | {own['pooled']['balanced_accuracy']:.3f} [{low:.3f}, {high:.3f}] |" in card
    assert "| random | frame |" in card
    assert str(tmp_path) not in card

    evaluate(
        "knn",
        textures,
        weights=[str(run)],
        out=tmp_path / "published",
        folds=2,
        allow_overlap=["run"],
        image_size=SIZE,
        protocol="published",
        folds_by="frame",
    )
    digest = result.summary["weights"][1]["provenance"]["weights_sha256"]
    with pytest.raises(
        UserError, match=r"has optimistic figures of them alone \(run \(optimistic: published protocol, folds by frame, has seen"
    ):
        evaluation_section(tmp_path / "published", digest)
    for folder, said in ((tmp_path / "out", "holds no evaluation.json"), (tmp_path / "evaluation", "is of other weights")):
        with pytest.raises(UserError, match=said):
            evaluation_section(folder, "00")
    (tmp_path / "evaluation" / "evaluation.json").write_text('{"weights": [{}]}')
    with pytest.raises(UserError, match="is no evaluation that this version reads"):
        evaluation_section(tmp_path / "evaluation", "00")
    assert "Its licences were not recorded" in backbone_card({"backbone": "resnet18", "width": 512, "dataset_name": "old"}, "", {})


def test_mistakes(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "export" / "backbone.safetensors").unlink()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    mistakes: list[tuple[dict[str, object], str]] = [
        ({"format": "onxx"}, "--format onxx: is not known; did you mean 'onnx'"),
        ({"format": "onnx"}, r"needs onnxruntime, which is not installed; pip install 'usdata-uscl\[onnx\]'"),
        ({"input_type": "uint16"}, "--input uint16: is not known"),
        ({"out": run}, "exists already"),
        ({"out": run, "overwrite": True}, "which is no part of such a result, so nothing was deleted"),
        ({"weights": tmp_path / "unfinished"}, "no finished run"),
        ({"evaluation": run}, "holds no evaluation.json"),
        ({"dataset": run}, "is not a data set"),
    ]
    for changed, said in mistakes:
        arguments = {"weights": run, "format": "safetensors", "out": tmp_path / "x"} | changed
        with pytest.raises(UserError, match=said):
            export(**arguments)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unfinished"]
    assert isinstance(load_backbone(run)[0], Backbone)
