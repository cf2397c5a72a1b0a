"""`uscl export`: weights for other software, in a folder with their model card.

In: a run, a file of weights, or a fitted classifier. Out: a folder, whole or absent: tensors under torchvision's names, a folder of timm,
or an ONNX graph. What timm and ONNX Runtime make of theirs is tried before the folder gets its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from usdata.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from usdata.manifest import DataSet

Format = Literal["safetensors", "timm", "onnx"]
InputType = Literal["uint8", "float32"]
CARD = "README.md"
FILES = {
    "safetensors": ("backbone.safetensors",),
    "timm": ("model.safetensors", "config.json"),
    "onnx": ("backbone.onnx",),
}
CLASSIFIER_FILE = "classifier.onnx"
PARTS = (CARD, *(name for names in FILES.values() for name in names), CLASSIFIER_FILE)
# Real frames on which an ONNX graph is compared.
COMPARED_FRAMES = 16


@dataclass(frozen=True)
class ExportResult:
    """What was exported.

    Attributes:
        out: The folder.
        files: Names in it.
        difference: onnx: the largest difference between ONNX Runtime and torch, relative to the largest value; None otherwise.
        compared: onnx: on how many frames of the data set, beside random ones.
    """

    out: Path
    files: list[str]
    difference: float | None = None
    compared: int = 0


def export(
    weights: str | Path,
    *,
    format: Format,
    out: str | Path,
    image_size: int | None = None,
    input_type: InputType = "uint8",
    dataset: str | Path | None = None,
    evaluation: str | Path | None = None,
    overwrite: bool = False,
) -> ExportResult:
    """Write weights for other software, with a model card.

    Args:
        weights: As for `uscl.embed`; for "onnx" also the folder of a classifier with a linear head, made by `uscl.fit`.
        format: "safetensors" (tensors under the names of torchvision, or of timm for its networks), "timm" (a folder that timm reads) or
            "onnx" (a graph from gray levels to features, and to probabilities of a classifier).
        out: Folder to make.
        image_size: Height and width of a frame in pixels; by default as trained, else 224.
        input_type: onnx: of its input, gray levels 0 to 255.
        dataset: Data set folder: frames of it are passed through the ONNX graph as a check, and where it is what the weights were trained
            on and they do not say it themselves, counts and licences come from it.
        evaluation: Folder of a `uscl evaluate` of these weights, or of a `uscl validate` of this classifier; its figures go into the card.
        overwrite: Replace an earlier export at `out`.

    Raises:
        UserError: `out` is taken, the weights cannot be read or do not fit the format, an extra is not installed, or a check fails.
    """
    from uscl.classifier import is_classifier
    from uscl.whole_folder import check_folder, whole_folder
    from usdata.manifest import open_dataset

    out = Path(out)
    for option, value, allowed in (("--format", format, get_args(Format)), ("--input", input_type, get_args(InputType))):
        if value not in allowed:
            raise UserError(f"{option} {value}", "is not known", nearest(value, allowed))
    check_folder(out, parts=PARTS, overwrite=overwrite)
    opened = open_dataset(dataset) if dataset is not None else None
    with whole_folder(out, parts=PARTS, overwrite=overwrite) as folder:
        if is_classifier(Path(weights)):
            found = _export_classifier(folder, Path(weights), format, image_size, input_type, opened, evaluation)
        else:
            found = _export_backbone(folder, weights, format, image_size, input_type, opened, evaluation)
        names = sorted(path.name for path in folder.iterdir())
    return ExportResult(out, names, *found)


def _export_backbone(
    folder: Path,
    weights: str | Path,
    format: str,
    image_size: int | None,
    input_type: str,
    dataset: DataSet | None,
    evaluation: str | Path | None,
) -> tuple[float | None, int]:
    from uscl.embedding import described, sized_backbone
    from uscl.exporting.backbone_file import card_facts, metadata_of, torchvision_usage
    from uscl.exporting.model_card import backbone_card, evaluation_section, frames_told
    from uscl.exporting.onnx_graph import onnx_usage, write_onnx
    from uscl.exporting.tensor_file import write_tensors
    from uscl.exporting.timm_folder import write_timm
    from usdata.files import sha256_file, write_text

    backbone, provenance, size = sized_backbone(weights, image_size)
    about = described(backbone, provenance)
    judged = evaluation_section(Path(evaluation), about["weights_sha256"]) if evaluation is not None else None
    facts = _facts(weights, provenance, size, dataset)
    name = FILES[format][0]
    found: tuple[float | None, int] = (None, 0)
    if format == "safetensors":
        write_tensors(folder / name, backbone.tensors(), metadata_of(backbone, facts))
        usage = f"{torchvision_usage(backbone, name)}\n\n{frames_told(facts)}"
    elif format == "timm":
        usage = f"{write_timm(folder, backbone, facts, size)}\n\n{frames_told(facts)}"
    else:
        frames = _frames(dataset, size)
        # The digests of the clips are for the leakage guard, which reads no ONNX.
        told = {key: value for key, value in metadata_of(backbone, facts).items() if key not in ("clips", "clips_whole", "format")}
        told["weights_sha256"] = about["weights_sha256"]
        difference = write_onnx(folder / name, backbone, None, size=size, input_type=input_type, frames=frames, metadata=told)
        found = (difference, len(frames))
        usage = onnx_usage(name, input_type, size, None)
    digests = {each: sha256_file(folder / each) for each in FILES[format]}
    write_text(folder / CARD, backbone_card(card_facts(backbone, {"kind": provenance["kind"], **facts}), usage, digests, judged))
    return found


def _export_classifier(
    folder: Path,
    model: Path,
    format: str,
    image_size: int | None,
    input_type: str,
    dataset: DataSet | None,
    evaluation: str | Path | None,
) -> tuple[float | None, int]:
    import torch

    from uscl.classifier import LinearHead, open_classifier
    from uscl.exporting.model_card import classifier_card, evaluation_section
    from uscl.exporting.onnx_graph import onnx_usage, write_onnx
    from usdata.files import canonical_json, sha256_file, write_text

    if format != "onnx":
        reason = f"is a fitted classifier, which --format {format} has no place for"
        raise UserError(model, reason, "take --format onnx, or export the weights that it was fitted on; model.safetensors has all tensors")
    classifier = open_classifier(model)
    judged = evaluation_section(Path(evaluation), classifier.about["sha256"]) if evaluation is not None else None
    size = classifier.about["image_size"]
    if image_size not in (None, size):
        raise UserError(f"--image-size {image_size}", f"is not what this classifier was fitted at ({size})", "leave it out")
    if not isinstance(classifier.head, LinearHead):
        raise UserError(model, "votes by its neighbours, which is no graph", "fit it with --head linear or finetune")
    head = torch.nn.Linear(classifier.backbone.width, len(classifier.classes))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(classifier.head.weight))
        head.bias.copy_(torch.from_numpy(classifier.head.bias))
    frames = _frames(dataset, size)
    told = {
        "classes": canonical_json(classifier.classes),
        "image_size": str(size),
        "model_sha256": classifier.about["sha256"],
        **{key: str(classifier.about["dataset"][of]) for key, of in (("dataset_name", "name"), ("dataset_digest", "digest"))},
        "uscl_version": classifier.about["uscl_version"],
    }
    path = folder / CLASSIFIER_FILE
    difference = write_onnx(path, classifier.backbone, head, size=size, input_type=input_type, frames=frames, metadata=told)
    usage = onnx_usage(path.name, input_type, size, classifier.classes)
    write_text(folder / CARD, classifier_card(classifier.about, usage, {path.name: sha256_file(path)}, judged))
    return difference, len(frames)


def _facts(weights: str | Path, provenance: Mapping[str, Any], size: int, dataset: DataSet | None) -> dict[str, Any]:
    """What is known of weights: by their file, else by the run that it lies in, else by the data set that they name."""
    from uscl.config import make_config, read_settings
    from uscl.exporting.training_data import settings, training_data
    from uscl.foreign import read_weights
    from uscl.models import EXPORTED_BACKBONE, named_architecture
    from uscl.run_folder import CONFIG
    from usdata.errors import RecipeError
    from usdata.files import canonical_json

    facts: dict[str, Any] = {key: provenance.get(key) for key in ("dataset_name", "dataset_digest", "splits", "recipe", "steps")}
    path = Path(named_architecture(str(weights))[1])
    path = path / EXPORTED_BACKBONE if path.is_dir() else path
    if path.is_file():
        facts |= read_weights(path)[1]
    facts["image_size"] = size
    config = path.resolve().parent.parent / CONFIG
    if "settings" not in facts and path.match(EXPORTED_BACKBONE) and config.is_file():
        try:
            facts["settings"] = canonical_json(settings(make_config(read_settings(config.read_text(encoding="utf-8"), CONFIG), CONFIG)))
        except RecipeError:
            facts["settings"] = None  # of another version of this program: the digest of the configuration stands there all the same
    if "training_data" not in facts and dataset is not None and dataset.digest == facts["dataset_digest"]:
        facts["training_data"] = canonical_json(training_data(dataset, str(facts["splits"]).split(", ")))
    return facts


def _frames(dataset: DataSet | None, size: int) -> NDArray[np.uint8]:
    """Frames of a data set, spread evenly over its rows."""
    import numpy as np

    if dataset is None or dataset.frames.empty:
        return np.zeros((0, size, size), dtype=np.uint8)
    from uscl.frames import image_path, read_gray, resize

    places = np.unique(np.linspace(0, len(dataset.frames) - 1, COMPARED_FRAMES).astype(int))
    return np.stack([resize(read_gray(image_path(dataset, name)), size) for name in dataset.frames["path"].iloc[places]])
