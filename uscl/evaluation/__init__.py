"""Honest evaluation: frozen or fine-tuned backbones on held-out patients.

In: a labelled data set and one or more sets of weights. Out: a folder with `evaluation.json`, `predictions.parquet` and `report.html`, and
the same as a value. All weights are judged on the same folds; the folds are proved free of leakage before anything is computed; nothing is
chosen on a held-out frame; equal input gives equal files on one device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from uscl.backbones import Backbone, ResNet
from uscl.config import BACKBONES
from uscl.evaluation import finetune, probes
from uscl.evaluation.features import layer3_activations, pooled_features, weights_digest
from uscl.evaluation.folds import Folds, independent_groups, plan_folds
from uscl.evaluation.guard import Guarded, guard
from uscl.evaluation.selection import ROW, select_frames
from uscl.evaluation.summary import EVALUATION, PREDICTIONS, REPORT, Held, summarise
from uscl.frames import FrameStore, open_store
from uscl.models import load_backbone, named_architecture
from usdata.console import progress
from usdata.errors import UserError, nearest
from usdata.files import atomic, write_json, write_text
from usdata.manifest import DataSet, open_dataset

Kind = Literal["linear", "finetune", "knn"]
TrainedLayers = Literal["last-block", "all"]
DEFAULT_IMAGE_SIZE = 224
RANDOM, IMAGENET = "random", "imagenet"


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        folder: Where its files lie.
        summary: The content of `evaluation.json`: settings, data set, folds, metrics, intervals, confusion matrices.
        predictions: The content of `predictions.parquet`: a row per weights, seed and held-out frame.
    """

    folder: Path
    summary: dict[str, Any]
    predictions: pd.DataFrame


def evaluate(
    kind: Kind,
    dataset: str | Path,
    *,
    weights: Sequence[str],
    out: str | Path,
    image_size: int | None = None,
    seeds: int = 1,
    folds: int | None = None,
    where: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    epochs: int = 30,
    trained_layers: TrainedLayers = "last-block",
    allow_overlap: Sequence[str] = (),
    without_overlap: bool = False,
    pretraining_sets: Sequence[str] = (),
    overwrite: bool = False,
) -> EvaluationResult:
    """Judge weights on the held-out groups of a labelled data set.

    Args:
        kind: "linear" (logistic regression on frozen features), "knn" (nearest neighbours of frozen features) or "finetune".
        dataset: Data set folder.
        weights: What to judge, on the same folds: run folders, .safetensors files, 'random', 'imagenet'. Differences are taken to
            'random' where it is among them, else to the first. 'random' and 'imagenet' are of the architecture of the first run or file
            (resnet18 where there is none); 'NAME:WEIGHTS' says another one ('timm/vit_small_patch16_224:random').
        out: Folder for the results.
        image_size: Height and width in pixels; by default the one the weights were trained at, else 224.
        seeds: Number of repetitions, each with its own folds, random weights and order of training.
        folds: Number of folds; by default the data set's own, else 5.
        where: Filters, see `select_frames`.
        classes: Keep these labels only.
        epochs: Of fine-tuning; fixed, never chosen.
        trained_layers: Of fine-tuning: the last residual stage and the head, or everything.
        allow_overlap: Weights, as they are called in results, that may have been trained on clips or patients evaluated here.
        without_overlap: Leave out, for all weights, clips that any others were trained on, with their groups.
        pretraining_sets: 'NAME=SET', or 'SET' for all weights that do not say: data set folders that weights were trained on.
        overwrite: Replace the results of an earlier evaluation in `out`.

    Raises:
        UserError: The data set has no labels or too few groups, the folds would leak, weights were trained on what is evaluated and no
            word was given on it, weights are missing, or `out` exists.
    """
    _check_settings(kind, weights, image_size, seeds, folds, epochs, trained_layers)
    out = Path(out)
    _refuse_existing(out, overwrite)
    opened = open_dataset(dataset)
    names = _names(weights)
    asked = _architectures(weights)
    provenance = {name: _provenance(*each) for name, each in zip(names, asked, strict=True)}
    _check_last_block(kind, trained_layers, provenance)
    frames, filtered = select_frames(opened, where=where, classes=classes)
    groups = independent_groups(frames, opened.duplicates)
    guarded = guard(
        opened,
        frames,
        groups,
        {name: word for name, (_, word) in zip(names, asked, strict=True)},
        provenance,
        allow_overlap=allow_overlap,
        without_overlap=without_overlap,
        pretraining_sets=pretraining_sets,
    )
    if guarded.left_out.any():
        frames, groups, filtered = _without(frames, guarded, opened), groups[~guarded.left_out], True
    divisions = [
        plan_folds(frames, groups, opened.duplicates, seed=seed, count=folds, filtered=filtered, subject=opened.name)
        for seed in range(seeds)
    ]
    size = image_size if image_size is not None else _trained_size(provenance)
    store = open_store(opened, size=size)
    class_names = [name for name in opened.classes if name in set(frames["label"])]
    labels = np.array([class_names.index(label) for label in frames["label"]], dtype=np.int64)

    held: list[Held] = []
    notes: list[str] = []
    total = len(names) * sum(division.count for division in divisions)
    with progress(f"evaluating ({kind})", total, "folds") as advance:
        for name, (architecture, word) in zip(names, asked, strict=True):
            for division in divisions:
                backbone, _ = load_backbone(word, name=architecture, seed=division.seed, image_size=size)
                found, said = _held_out(
                    kind, backbone, store, frames, labels, division, len(class_names), epochs, trained_layers, name, advance
                )
                held.append(Held(weights=name, seed=division.seed, probabilities=found))
                notes += said

    settings = {
        "kind": kind,
        "image_size": size,
        "seeds": seeds,
        "folds_asked_for": folds,
        "where": list(where),
        "classes": list(classes) if classes is not None else None,
        "allow_overlap": list(allow_overlap),
        "without_overlap": without_overlap,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        **_protocol(kind, epochs, trained_layers),
    }
    summary = summarise(opened, frames, groups, labels, class_names, divisions, held, names, provenance, settings, sorted(set(notes)))
    summary["overlap"] = guarded.to_json()
    summary["notes"] = [*guarded.notes(), *summary["notes"]]
    predictions = _predictions(frames, groups, class_names, divisions, held)
    _write(out, summary, predictions, opened)
    return EvaluationResult(folder=out, summary=summary, predictions=predictions)


def _check_settings(
    kind: str, weights: Sequence[str], image_size: int | None, seeds: int, folds: int | None, epochs: int, trained_layers: str
) -> None:
    if kind not in get_args(Kind):
        raise UserError(f"evaluation '{kind}'", "is not known", nearest(kind, get_args(Kind)))
    if trained_layers not in get_args(TrainedLayers):
        raise UserError(f"--trained-layers {trained_layers}", "is not known", nearest(trained_layers, get_args(TrainedLayers)))
    if not weights:
        raise UserError("--weights", "names nothing to evaluate", "give a run folder, a .safetensors file or 'random'")
    if len(set(weights)) < len(weights):
        raise UserError("--weights", "names the same weights twice", "name each once")
    for option, value, least in (("--seeds", seeds, 1), ("--epochs", epochs, 1), ("--folds", folds, 2), ("--image-size", image_size, 32)):
        if value is not None and value < least:
            raise UserError(f"{option} {value}", f"is too small, the least is {least}")


def _refuse_existing(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(out, "is a file, and the results need a folder", "name another --out")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(out, "exists already and is left as it is", "name another --out, or pass --overwrite")


def _without(frames: pd.DataFrame, guarded: Guarded, dataset: DataSet) -> pd.DataFrame:
    """The frames without those that the guard leaves out."""
    kept = frames[~guarded.left_out].reset_index(drop=True)
    if kept["label"].nunique() < 2:
        reason = f"without the {guarded.clips_left_out} clips that stand in the pretraining or in their groups, no two classes are left"
        raise UserError(dataset.folder, reason, "evaluate on another set, or keep them by name with --allow-overlap")
    return kept


def _names(weights: Sequence[str]) -> list[str]:
    """How each of the weights is called in results: the word itself, or the shortest end of its path that no other one has."""
    parts = {word: Path(word).resolve().parts[1:] for word in weights if word not in (RANDOM, IMAGENET) and Path(word).exists()}
    names = []
    for word in weights:
        own = parts.get(word, (word,))
        others = [parts.get(other, (other,)) for other in weights if other != word]
        if own in others:
            raise UserError("--weights", f"names the same weights twice ({word})", "name each once")
        # A word that is no path, and a path that is the end of another one, are called by all they have.
        length = next((size for size in range(1, len(own)) if all(own[-size:] != other[-size:] for other in others)), len(own))
        names.append("/".join(own[-length:]))
    return names


def _architectures(weights: Sequence[str]) -> list[tuple[str, str]]:
    """Of each of the weights the backbone that is asked for, and the weights without it; a file that says what it is wins in the end."""
    named = [named_architecture(word) for word in weights]
    first = next((word for name, word in named if not name and word not in (RANDOM, IMAGENET)), None)
    usual = BACKBONES[0] if first is None else load_backbone(first)[0].name
    return [(name or (usual if word in (RANDOM, IMAGENET) else BACKBONES[0]), word) for name, word in named]


def _check_last_block(kind: str, trained_layers: str, provenance: dict[str, dict[str, Any]]) -> None:
    if kind == "finetune" and trained_layers == "last-block":
        for name, entry in provenance.items():
            if entry["backbone"] not in BACKBONES:
                reason = f"are of {entry['backbone']}, which has no last residual block that could be trained alone"
                raise UserError(name, reason, "give --trained-layers all")


def _provenance(architecture: str, word: str) -> dict[str, Any]:
    backbone, provenance = load_backbone(word, name=architecture)
    return {**provenance, "weights_sha256": weights_digest(backbone)}


def _trained_size(provenance: dict[str, dict[str, Any]]) -> int:
    sizes = {entry["image_size"]: name for name, entry in provenance.items() if entry["image_size"]}
    if len(sizes) > 1:
        told = ", ".join(f"{name} at {size}" for size, name in sorted(sizes.items()))
        raise UserError("--weights", f"were trained at different image sizes ({told})", "say at which to compare them with --image-size")
    return next(iter(sizes), DEFAULT_IMAGE_SIZE)


def _held_out(
    kind: str,
    backbone: Backbone,
    store: FrameStore,
    frames: pd.DataFrame,
    labels: NDArray[np.int64],
    division: Folds,
    class_count: int,
    epochs: int,
    trained_layers: str,
    name: str,
    advance: Callable[[int], None],
) -> tuple[NDArray[np.float64], list[str]]:
    """(n, C) probabilities of every frame from the model that did not see it, and what there is to say about the fits."""
    rows = frames[ROW].to_numpy(dtype=np.int64)
    probabilities = np.full((len(rows), class_count), np.nan)
    notes: list[str] = []
    features: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
    hidden, pixels = torch.zeros(0), np.zeros(0, dtype=np.uint8)
    if kind != "finetune":
        features = pooled_features(backbone, store, rows, name=name)
    elif trained_layers == "last-block":
        assert isinstance(backbone, ResNet)  # others have been refused
        hidden = layer3_activations(backbone, store, rows, name=name)
    else:
        pixels = store.pixels[rows]
    for number, train, test in division:
        seed = (division.seed, number)
        if kind == "linear":
            probabilities[test], said = probes.linear_probe(features[train], labels[train], features[test], class_count=class_count)
            notes += [f"{name}, seed {division.seed}, fold {number}: {line}" for line in said]
        elif kind == "knn":
            probabilities[test] = probes.knn_probe(features[train], labels[train], features[test], class_count=class_count)
        elif isinstance(backbone, ResNet) and trained_layers == "last-block":
            fit = finetune.finetune_last_stage(backbone, hidden, labels, train, test, class_count=class_count, epochs=epochs, seed=seed)
            probabilities[test] = fit[0]
        else:
            fit = finetune.finetune_all(backbone, pixels, labels, train, test, class_count=class_count, epochs=epochs, seed=seed)
            probabilities[test] = fit[0]
        if not np.isfinite(probabilities[test]).all():
            raise UserError(name, f"the probabilities of fold {number} are not finite", "the weights hold numbers that are not finite")
        advance(1)
    return probabilities, notes


def _protocol(kind: str, epochs: int, trained_layers: str) -> dict[str, Any]:
    """The fixed numbers of the kind of evaluation, for the record."""
    if kind == "linear":
        return {"C": probes.REGULARISATION_C, "max_iterations": probes.MAX_ITERATIONS}
    if kind == "knn":
        return {"neighbours": probes.NEIGHBOURS, "temperature": probes.NEIGHBOUR_TEMPERATURE}
    return {
        "epochs": epochs,
        "trained_layers": trained_layers,
        "learning_rate": finetune.LEARNING_RATE,
        "weight_decay": finetune.WEIGHT_DECAY,
        "batch_size": finetune.BATCH,
    }


def _predictions(
    frames: pd.DataFrame, groups: NDArray[np.str_], class_names: list[str], divisions: list[Folds], held: list[Held]
) -> pd.DataFrame:
    parts = []
    for entry in held:
        table = frames[["frame_id", "video_id", "group_id"]].copy()
        table["independent_group"] = groups
        table["fold"] = divisions[entry.seed].fold
        table["seed"] = entry.seed
        table["weights"] = entry.weights
        table["label"] = frames["label"]
        table["predicted"] = np.array(class_names)[entry.probabilities.argmax(axis=1)]
        for index, name in enumerate(class_names):
            table[f"probability_{name}"] = entry.probabilities[:, index]
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _write(out: Path, summary: dict[str, Any], predictions: pd.DataFrame, dataset: DataSet) -> None:
    """All three files; `evaluation.json` last, so a folder that has one is whole."""
    from uscl.evaluation.reporting.collection import Evaluation
    from uscl.evaluation.reporting.page import render
    from uscl.evaluation.reporting.pictures import Pictures, worst_mistakes

    out.mkdir(parents=True, exist_ok=True)
    (out / EVALUATION).unlink(missing_ok=True)
    with atomic(out / PREDICTIONS) as temporary:
        pq.write_table(pa.Table.from_pandas(predictions, preserve_index=False), temporary, compression="zstd")
    evaluation = Evaluation("", summary, predictions)
    pictures = Pictures([worst_mistakes(evaluation, summary["weights"][-1]["name"], dataset)])
    write_text(out / REPORT, render([evaluation], {"": pictures}))
    write_json(out / EVALUATION, summary)
