"""A classifier that is kept: a backbone and a head in a folder of safetensors and JSON, nothing that runs a program.

    MODEL/model.safetensors    `backbone.*` under the names of its library; `head.weight` (C, D) and `head.bias` (C,) of a linear head, or
                               `head.features` (n, D) and `head.labels` (n,) of the neighbours
    MODEL/model.json           classes, size of pictures, what it was made of, and the sha256 of the tensors; written last
    MODEL/trained_on.parquet   the clips that it was trained on, to be recognised in what it is used on; holds small pictures of patients
    MODEL/README.md            its model card

In comes a folder or the parts; out come probabilities of features. Equal parts give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from uscl.backbones import Backbone, seeded_backbone
from uscl.evaluation.probes import knn_probe
from uscl.exporting.tensor_file import write_tensors
from uscl.foreign import read_weights
from uscl.run_folder import TRAINED_ON
from usdata.errors import UserError
from usdata.files import sha256_file, write_json

MODEL, ABOUT, CARD = "model.safetensors", "model.json", "README.md"
PARTS = (ABOUT, MODEL, TRAINED_ON, CARD)
MODEL_VERSION = 1
_ADVICE = "make one with 'uscl fit SET --weights WEIGHTS --out MODEL'"


@dataclass(frozen=True)
class LinearHead:
    """Probabilities are softmax(features @ weight.T + bias).

    Attributes:
        weight: (C, D) float64, with the standardisation of the features folded in.
        bias: (C,) float64.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def probabilities(self, features: NDArray[np.float32], class_count: int) -> NDArray[np.float64]:
        """(n, C) probabilities of (n, D) features."""
        logits = features.astype(np.float64) @ self.weight.T + self.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """By name."""
        return {"weight": self.weight, "bias": self.bias}


@dataclass(frozen=True)
class NeighbourHead:
    """Probabilities are shares of the votes of the nearest frames that it was fitted on, see `knn_probe`.

    Attributes:
        features: (n, D) float32 of the frames that it was fitted on.
        labels: (n,) their class indices.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]

    def probabilities(self, features: NDArray[np.float32], class_count: int) -> NDArray[np.float64]:
        """(n, C) probabilities of (n, D) features."""
        return knn_probe(self.features, self.labels, features, class_count=class_count)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """By name."""
        return {"features": self.features, "labels": self.labels}


@dataclass(frozen=True)
class FittedClassifier:
    """A backbone, a head, and what is known of them.

    Attributes:
        backbone: In evaluation mode.
        head: On its features.
        about: The content of `model.json`.
    """

    backbone: Backbone
    head: LinearHead | NeighbourHead
    about: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        """Names in the order of the probabilities."""
        return list(self.about["classes"])

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, C) probabilities of (n, D) features; the same whatever the number of threads."""
        with threadpool_limits(1, user_api="blas"):
            return self.head.probabilities(features, len(self.classes))


def save_classifier(folder: Path, backbone: Backbone, head: LinearHead | NeighbourHead, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write model.safetensors, then model.json, into a folder; what model.json says."""
    tensors = {f"backbone.{name}": value.detach().cpu() for name, value in backbone.tensors().items()}
    tensors |= {f"head.{name}": torch.from_numpy(value) for name, value in head.tensors().items()}
    write_tensors(folder / MODEL, tensors, {"model_version": str(MODEL_VERSION)})
    whole = {**about, "model_version": MODEL_VERSION, "file": MODEL, "sha256": sha256_file(folder / MODEL)}
    write_json(folder / ABOUT, whole)
    return whole


def is_classifier(folder: Path) -> bool:
    """Whether a folder holds a classifier."""
    return (folder / ABOUT).is_file()


def open_classifier(folder: str | Path) -> FittedClassifier:
    """Read a classifier back.

    Raises:
        UserError: The folder is none, or was changed after it was written.
    """
    folder = Path(folder)
    if not is_classifier(folder):
        raise UserError(folder, f"is no fitted classifier (it holds no {ABOUT})" if folder.is_dir() else "no such classifier", _ADVICE)
    about = _read_about(folder / ABOUT)
    path = folder / MODEL
    if not path.is_file() or sha256_file(path) != about["sha256"]:
        raise UserError(path, f"is missing, or is not the file that {ABOUT} tells of", _ADVICE)
    tensors, _ = read_weights(path)
    backbone = seeded_backbone(about["backbone"], 0, about["image_size"])
    backbone.load_tensors({name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")})
    head: LinearHead | NeighbourHead
    if about["head"] == "knn":
        head = NeighbourHead(tensors["head.features"].numpy(), tensors["head.labels"].numpy())
    else:
        head = LinearHead(tensors["head.weight"].numpy(), tensors["head.bias"].numpy())
    return FittedClassifier(backbone.eval(), head, about)


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(path, f"is no readable JSON ({error})", _ADVICE) from None
    kinds = {"model_version": int, "head": str, "classes": list, "image_size": int, "backbone": str, "sha256": str, "dataset": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(about, dict) or not isinstance(about.get(key), kind)]
    if wrong:
        raise UserError(path, f"is not the description of a classifier (it has no '{wrong[0]}')", _ADVICE)
    if about["model_version"] != MODEL_VERSION:
        raise UserError(path, f"has version {about['model_version']}, and this uscl reads {MODEL_VERSION}", "use the uscl that made it")
    return dict(about)
