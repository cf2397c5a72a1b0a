"""Honest evaluation: frozen or fine-tuned backbones on held-out patients; and beside it the protocol of published figures, named so.

In: a labelled data set and one or more sets of weights. Out: a folder with `evaluation.json`, `predictions.parquet` and `report.html`, and
the same as a value. All weights are judged on the same folds; the folds are proved free of leakage before anything is computed, or their
figures are marked; nothing is chosen on a held-out frame but what the published protocol chooses. Equal input gives equal files on one
device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from uscl.evaluation import probes
from uscl.evaluation.finetune import BatchNorm, TrainedLayers
from uscl.evaluation.folds import Folds, FoldsBy, leaky_folds, plan_folds
from uscl.evaluation.guard import guard
from uscl.evaluation.held_out import HeldOut, Judged, hold_out, steps
from uscl.evaluation.protocols import Protocol, Row, plan_rows, summarise_rows, trained_alike
from uscl.evaluation.selection import ROW, listed, select_frames
from uscl.evaluation.shares import check_shares, curve
from uscl.evaluation.summary import Held, summarise
from uscl.evaluation.weights import architectures, provenance, refuse_untrainable, result_names, trained_size
from uscl.evaluation.writing import PARTS, predictions_table, write_results
from uscl.frames import open_store
from uscl.models import load_backbone
from uscl.whole_folder import check_folder
from usdata.console import progress
from usdata.errors import UserError, nearest
from usdata.manifest import open_dataset

Kind = Literal["linear", "finetune", "knn"]


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

    def __repr__(self) -> str:
        from uscl.evaluation.report import answer

        return "\n".join([*answer(self.summary), f"report: {self.folder / 'report.html'}"])


def evaluate(
    kind: Kind,
    dataset: str | Path,
    *,
    weights: str | Sequence[str],
    out: str | Path,
    image_size: int | None = None,
    seeds: int = 1,
    folds: int | None = None,
    where: str | Sequence[str] = (),
    classes: str | Sequence[str] | None = None,
    protocol: Protocol = "honest",
    folds_by: FoldsBy = "group",
    epochs: int | None = None,
    choose_epochs: bool = False,
    trained_layers: TrainedLayers | None = None,
    batch_norm: BatchNorm | None = None,
    label_shares: Sequence[float] | None = None,
    allow_overlap: Sequence[str] = (),
    without_overlap: bool = False,
    pretraining_sets: Sequence[str] = (),
    overwrite: bool = False,
) -> EvaluationResult:
    """Judge weights on the held-out groups of a labelled data set.

    Args:
        kind: "linear" (logistic regression on frozen features), "knn" (nearest neighbours of frozen features) or "finetune".
        dataset: Data set folder.
        weights: What to judge, on the same folds: run folders, files of weights, 'random', 'imagenet', 'resnet50' or 'timm/NAME' (what is
            published for it). Differences are taken to 'random' where it is among them, else to the first. 'random' and 'imagenet' are of
            the architecture of the first run or file (resnet18 where there is none); 'NAME:WEIGHTS' says another one
            ('timm/vit_small_patch16_224:random').
        out: Folder for the results.
        image_size: Height and width in pixels; by default the one the weights were trained at, else 224.
        seeds: Number of repetitions, each with its own folds, random weights and order of training.
        folds: Number of folds; by default the data set's own, else 5.
        where: Filters, see `select_frames`.
        classes: Keep these labels only.
        protocol: "honest"; "published": the best epoch on each test fold (finetune), in folds as `folds_by` says, marked as optimistic;
            "both": side by side.
        folds_by: Of the published protocol: "group" (the honest folds), "video", "frame", or "set" (the set's own, leaking or not).
        epochs: Of fine-tuning, 30, published 100; fixed unless `choose_epochs`.
        choose_epochs: Fine-tune for the number of epochs that is best on groups set apart from the training folds, at most `epochs`.
        trained_layers: Of fine-tuning, besides the head: nothing, the last residual block (the default), the last stage, or everything.
        batch_norm: Statistics of BatchNorm layers that are not trained: "frozen" (the default) or "moving" (as published).
        label_shares: Percentages of the labelled training groups to learn from besides, for `label_efficiency` in the results.
        allow_overlap: Weights, as they are called in results, that may have been trained on clips or patients evaluated here.
        without_overlap: Leave out, for all weights, clips that any others were trained on, with their groups.
        pretraining_sets: 'NAME=SET', or 'SET' for all weights that do not say: data set folders that weights were trained on.
        overwrite: Replace the results of an earlier evaluation in `out`.

    Raises:
        UserError: The data set has no labels or too few groups, the folds would leak, weights were trained on what is evaluated and no
            word was given on it, weights are missing, settings contradict each other, or `out` exists.
    """
    weights, where, classes = listed(weights), listed(where), None if classes is None else listed(classes)
    _check_settings(kind, weights, image_size, seeds, folds, epochs, trained_layers, batch_norm, protocol, folds_by)
    rows = plan_rows(
        kind,
        protocol=protocol,
        folds_by=folds_by,
        epochs=epochs,
        choose_epochs=choose_epochs,
        trained_layers=trained_layers,
        batch_norm=batch_norm,
        label_shares=label_shares,
    )
    shares = check_shares(label_shares) if label_shares is not None else []
    out = Path(out)
    check_folder(out, parts=PARTS, overwrite=overwrite)
    opened = open_dataset(dataset)
    names = result_names(weights)
    asked = dict(zip(names, architectures(weights), strict=True))
    provenances = {name: provenance(*each) for name, each in asked.items()}
    if rows[0].training is not None:
        refuse_untrainable(asked, rows[0].training.trained_layers)
    frames, filtered = select_frames(opened, where=where, classes=classes)
    guarded = guard(
        opened,
        frames,
        {name: word for name, (_, word) in asked.items()},
        provenances,
        allow_overlap=allow_overlap,
        without_overlap=without_overlap,
        pretraining_sets=pretraining_sets,
    )
    frames, groups = guarded.kept(frames, opened)
    filtered |= guarded.clips_left_out > 0

    def division(by: FoldsBy, seed: int) -> Folds:
        if by == "group":
            return plan_folds(frames, groups, opened.duplicates, seed=seed, count=folds, filtered=filtered, subject=opened.name)
        return leaky_folds(frames, by, seed=seed, count=folds, subject=opened.name)

    divisions = {by: [division(by, seed) for seed in range(seeds)] for by in dict.fromkeys(row.folds_by for row in rows)}
    size = image_size if image_size is not None else trained_size(provenances)
    store = open_store(opened, size=size)
    class_names = [name for name in opened.classes if name in set(frames["label"])]
    labels = np.array([class_names.index(label) for label in frames["label"]], dtype=np.int64)
    judged = Judged(store, frames[ROW].to_numpy(dtype=np.int64), labels, groups, len(class_names), opened.name)

    found = _hold_out_all(kind, asked, judged, divisions, rows, shares, size)
    held = {
        row.key: [Held(name, seed, each.probabilities[row.key]) for name, seed, each in found if row.key in each.probabilities]
        for row in rows
    }
    chosen = {row.key: [{"weights": name, **one} for name, _, each in found for one in each.chosen.get(row.key, [])] for row in rows}
    notes = sorted({note for _, _, each in found for note in each.notes})
    settings = {
        "kind": kind,
        "image_size": size,
        "seeds": seeds,
        "folds_asked_for": folds,
        "where": list(where),
        "classes": list(classes) if classes is not None else None,
        "protocol": protocol,
        "folds_by": folds_by,
        "label_shares": shares or None,
        "allow_overlap": list(allow_overlap),
        "without_overlap": without_overlap,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        **_settings_of(kind, rows[0]),
    }

    def told(some: Sequence[Held], called: Sequence[str], own: Mapping[str, str], parts: Sequence[Folds]) -> dict[str, Any]:
        about = {name: provenances[own[name]] for name in called}
        return summarise(opened, frames, groups, labels, class_names, list(parts), list(some), list(called), about, settings, notes)

    seen = guarded.allowed
    summary = summarise_rows(
        rows, names, held, divisions, chosen, told, frames=frames, groups=groups, duplicates=opened.duplicates, seen=seen
    )
    if shares:
        by_share = {
            share: [Held(rows[0].name(name, seen), seed, each.by_share[share]) for name, seed, each in found if share in each.by_share]
            for share in shares
        }
        # What is drawn depends on the seed and the fold, and not on the weights.
        used = {share: [fold for name, _, each in found if name == names[0] for fold in each.used.get(share, [])] for share in shares}
        own = {rows[0].name(name, seen): name for name in names}
        summary["label_efficiency"] = curve(shares, by_share, used, lambda some: told(some, list(own), own, divisions[rows[0].folds_by]))
        summary["notes"] += summary["label_efficiency"].pop("notes")
    summary["overlap"] = guarded.to_json()
    summary["notes"] = [*guarded.notes(), *summary["notes"]]
    predictions = predictions_table(frames, groups, class_names, rows, divisions, held, seen)
    write_results(out, summary, predictions, opened, overwrite=overwrite)
    return EvaluationResult(folder=out, summary=summary, predictions=predictions)


def _check_settings(
    kind: str,
    weights: str | Sequence[str],
    image_size: int | None,
    seeds: int,
    folds: int | None,
    epochs: int | None,
    trained_layers: str | None,
    batch_norm: str | None,
    protocol: str,
    folds_by: str,
) -> None:
    if kind not in get_args(Kind):
        raise UserError(f"evaluation '{kind}'", "is not known", nearest(kind, get_args(Kind)))
    words = (
        ("--trained-layers", trained_layers, TrainedLayers),
        ("--batch-norm", batch_norm, BatchNorm),
        ("--protocol", protocol, Protocol),
        ("--folds-by", folds_by, FoldsBy),
    )
    for option, word, known in words:
        if word is not None and word not in get_args(known):
            raise UserError(f"{option} {word}", "is not known", nearest(word, get_args(known)))
    if not weights:
        raise UserError("--weights", "names nothing to evaluate", "give a run folder, a .safetensors file or 'random'")
    for option, value, least in (("--seeds", seeds, 1), ("--epochs", epochs, 1), ("--folds", folds, 2), ("--image-size", image_size, 32)):
        if value is not None and value < least:
            raise UserError(f"{option} {value}", "is too small", f"give {least} or more")


def _hold_out_all(
    kind: str,
    asked: Mapping[str, tuple[str, str]],
    judged: Judged,
    divisions: Mapping[FoldsBy, Sequence[Folds]],
    rows: Sequence[Row],
    shares: Sequence[float],
    size: int,
) -> list[tuple[str, int, HeldOut]]:
    """All fits: of each of the weights, of each seed, of each training; shares of the labels go with the main row's."""
    trainings = [(alike, tuple(shares) if alike[0] is rows[0] else ()) for alike in trained_alike(rows)]
    total = len(asked) * sum(steps(alike, each.count, some) for alike, some in trainings for each in divisions[alike[0].folds_by])
    found = []
    with progress(f"evaluating ({kind})", total, "epochs" if kind == "finetune" else "fits") as advance:
        for name, (architecture, word) in asked.items():
            for seed in range(len(divisions[rows[0].folds_by])):
                backbone, _ = load_backbone(word, name=architecture, seed=seed, image_size=size)
                for alike, some in trainings:
                    division = divisions[alike[0].folds_by][seed]
                    held = hold_out(kind, backbone, judged, division, alike, shares=some, name=name, advance=advance)
                    found.append((name, seed, held))
    return found


def _settings_of(kind: str, row: Row) -> dict[str, Any]:
    """The fixed numbers of the main row, for the record."""
    if row.training is not None:
        return {**asdict(row.training), "choose_epochs": row.epoch == "validation"}
    if kind == "linear":
        return {"C": probes.REGULARISATION_C, "max_iterations": probes.MAX_ITERATIONS}
    return {"neighbours": probes.NEIGHBOURS, "temperature": probes.NEIGHBOUR_TEMPERATURE}
