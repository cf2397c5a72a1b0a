"""A checkpoint of the published structure is judged under its own name, as the ResNet that it holds."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.uscl.test_foreign import PublishedUSCL
from tests.uscl.tiny_set import write_set
from uscl.backbones import seeded_backbone
from uscl.evaluation import evaluate
from uscl.torchvision_compat import torchvision


def test_a_published_checkpoint_is_judged_as_its_resnet(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", frames_per_video=(3,) * 6, labels=("a", "b"))
    backbone = seeded_backbone("resnet18", 7)
    network = torchvision.models.resnet18(weights=None)
    network.load_state_dict({**network.state_dict(), **backbone.tensors()})
    torch.save(PublishedUSCL(network).state_dict(), tmp_path / "best_model.pth")
    save_file({key: value.contiguous() for key, value in backbone.tensors().items()}, tmp_path / "same.safetensors")
    weights = [str(tmp_path / name) for name in ("best_model.pth", "same.safetensors")] + ["random"]
    result = evaluate("linear", data, weights=weights, out=tmp_path / "out", image_size=32, folds=2)
    assert [entry["name"] for entry in result.summary["weights"]] == ["best_model.pth", "same.safetensors", "random"]
    columns = [name for name in result.predictions.columns if name.startswith("probability_")]
    published, same, other = (
        result.predictions.loc[result.predictions["weights"] == name, columns].to_numpy()
        for name in ("best_model.pth", "same.safetensors", "random")
    )
    assert np.array_equal(published, same)
    assert not np.allclose(published, other)
    assert any("It is not known what best_model.pth was trained on" in note for note in result.summary["notes"])
