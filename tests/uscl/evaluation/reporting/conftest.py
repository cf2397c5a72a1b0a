"""Two small evaluations with planted textures, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.uscl.evaluation.texture_set import write_texture_set
from uscl.backbones import seeded_backbone
from uscl.evaluation import evaluate

SIZE = 40


@dataclass(frozen=True)
class Made:
    """Where the things lie."""

    dataset: Path
    weights: Path
    linear: Path
    knn: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("reporting")
    dataset = write_texture_set(place / "set", textures=("across", "down", "blotches") * 3, folds=[video // 3 for video in range(9)])
    weights = place / "other.safetensors"
    save_file({name: value.contiguous() for name, value in seeded_backbone("resnet18", 5).state_dict().items()}, weights)
    for kind in ("linear", "knn"):
        evaluate(kind, dataset, weights=["random", str(weights)], out=place / kind, image_size=SIZE)
    return Made(dataset, weights, place / "linear", place / "knn")
