"""`uscl fit`: a classifier from weights and a labelled data set, to be used on any number of other sets by `uscl predict`.

Fitting is a command of its own because the two have different lives: labels are used once, and what came of them is a thing with a digest
that can be copied, described, exported and used for years, on machines where the labelled set is not. Everything is fitted on all that was
selected and nothing is held out, so how good it is, is for `uscl evaluate` to say, on the same weights and labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from uscl.backbones import Backbone
from uscl.classifier import CARD, PARTS, LinearHead, NeighbourHead, save_classifier
from uscl.embedding import described, feature_blocks, sized_backbone
from uscl.evaluation import finetune, probes
from uscl.evaluation.finetune import TrainedLayers
from uscl.evaluation.selection import ROW, select_frames
from uscl.exporting.model_card import classifier_card
from uscl.exporting.training_data import licences
from uscl.frames import FrameStore, open_store
from uscl.models import named_architecture
from uscl.run_folder import TRAINED_ON, uscl_version
from uscl.trained_on import known
from uscl.whole_folder import check_folder, whole_folder
from usdata.console import say
from usdata.duplicates.record import write_record
from usdata.errors import UserError, nearest
from usdata.files import write_text
from usdata.manifest import open_dataset
from usdata.signals import stop_signals

Head = Literal["linear", "knn", "finetune"]


@dataclass(frozen=True)
class FitResult:
    """What was fitted.

    Attributes:
        out: The classifier's folder.
        about: The content of its `model.json`.
    """

    out: Path
    about: dict[str, Any]


def fit(
    dataset: str | Path,
    *,
    weights: str | Path,
    out: str | Path,
    head: Head = "linear",
    image_size: int | None = None,
    where: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    epochs: int = 30,
    trained_layers: TrainedLayers = "last-block",
    overwrite: bool = False,
) -> FitResult:
    """Fit a classifier on the labelled frames of a data set.

    Args:
        dataset: Data set folder.
        weights: As for `uscl.embed`.
        out: Folder to make for the classifier.
        head: "linear" (logistic regression on frozen features, as `uscl evaluate linear` fits it), "knn" (nearest neighbours; the
            features of all frames go into the file) or "finetune" (a head, and the last block or all of the network).
        image_size: Height and width in pixels; by default the one the weights were trained at, else 224.
        where: Filters, see `select_frames`.
        classes: Keep these labels only.
        epochs: Of fine-tuning; fixed, never chosen.
        trained_layers: Of fine-tuning.
        overwrite: Replace an earlier classifier at `out`.

    Raises:
        UserError: `out` is taken, a setting is wrong, the set has fewer than two classes, or weights or data cannot be read.
    """
    out = Path(out)
    for option, value, allowed in (("--head", head, get_args(Head)), ("--trained-layers", trained_layers, get_args(TrainedLayers))):
        if value not in allowed:
            raise UserError(f"{option} {value}", "is not known", nearest(value, allowed))
    if epochs < 1:
        raise UserError(f"--epochs {epochs}", "is too small", "give 1 or more")
    check_folder(out, parts=PARTS, overwrite=overwrite)
    opened = open_dataset(dataset)
    frames, _ = select_frames(opened, where=where, classes=classes)
    backbone, provenance, size = sized_backbone(weights, image_size)
    if head == "finetune":
        finetune.trained_part(backbone, trained_layers, name=str(weights))  # refused where there is no such part
    class_names = [name for name in opened.classes if name in set(frames["label"])]
    labels = np.array([class_names.index(label) for label in frames["label"]], dtype=np.int64)
    before = known(named_architecture(str(weights))[1], provenance)
    with stop_signals(), whole_folder(out, parts=PARTS, overwrite=overwrite) as folder:
        # What cannot be read of the clips is found before the fit.
        video_ids = set(frames["video_id"])
        write_record(
            folder / TRAINED_ON,
            opened,
            video_ids,
            labelled=video_ids,
            earlier=before.record,
            digests=before.digests,
            whole=before.whole,
        )
        store = open_store(opened, size=size)
        about = described(backbone, provenance)
        tuned, fitted, settings, notes = _fitted(
            backbone, store, frames[ROW].to_numpy(dtype=np.int64), labels, head, len(class_names), epochs, trained_layers, str(weights)
        )
        for note in notes:
            say(note)
        counts = [
            {
                "class": name,
                "frames": int((labels == index).sum()),
                "videos": int(frames["video_id"][labels == index].nunique()),
                "groups": int(frames["group_id"][labels == index].nunique()),
            }
            for index, name in enumerate(class_names)
        ]
        whole = save_classifier(
            folder,
            tuned,
            fitted,
            {
                "head": head,
                "classes": class_names,
                "image_size": size,
                "backbone": backbone.name,
                "weights": about,
                "dataset": {
                    "name": opened.name,
                    "digest": opened.digest,
                    "frames": len(frames),
                    "videos": len(video_ids),
                    "groups": int(frames["group_id"].nunique()),
                    "classes": counts,
                    "licences": licences(opened.videos, video_ids),
                    "where": list(where),
                },
                "settings": settings,
                "notes": notes,
                "uscl_version": uscl_version(),
            },
        )
        write_text(folder / CARD, classifier_card(whole))
    return FitResult(out, whole)


def _fitted(
    backbone: Backbone,
    store: FrameStore,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    head: str,
    class_count: int,
    epochs: int,
    trained_layers: TrainedLayers,
    subject: str,
) -> tuple[Backbone, LinearHead | NeighbourHead, dict[str, Any], list[str]]:
    """The backbone as it is or as it was tuned, the head, the numbers that were fixed, and what there is to say about the fit."""
    if head == "finetune":
        training = replace(
            finetune.HONEST, epochs=epochs, trained_layers=trained_layers, views="light" if trained_layers == "all" else "whole"
        )
        inputs = finetune.prepare_inputs(backbone, store, rows, training, name=subject)
        model, loss = finetune.finetuned_classifier(backbone.cpu(), inputs, labels, class_count=class_count, training=training)
        weight, bias = (parameter.detach().double().numpy() for parameter in (model.head.weight, model.head.bias))
        settings = {
            "epochs": epochs,
            "trained_layers": trained_layers,
            "learning_rate": training.learning_rate,
            "weight_decay": training.weight_decay,
            "batch_size": training.batch_size,
            "last_loss": round(loss, 6),
        }
        return model.backbone, LinearHead(weight, bias), settings, []
    features = np.concatenate(list(feature_blocks(backbone, store, rows, subject=subject)))
    if head == "knn":
        settings = {"neighbours": probes.NEIGHBOURS, "temperature": probes.NEIGHBOUR_TEMPERATURE}
        return backbone, NeighbourHead(features, labels), settings, []
    scaler, model, notes = probes.fit_logistic(features, labels)
    weight, bias = model.coef_, model.intercept_
    if class_count == 2:
        # scikit-learn fits two classes as one odds, whose softmax with nought is the same.
        weight, bias = np.concatenate([np.zeros_like(weight), weight]), np.concatenate([np.zeros_like(bias), bias])
    weight = weight / scaler.scale_
    head_found = LinearHead(np.ascontiguousarray(weight), bias - weight @ scaler.mean_)
    return backbone, head_found, {"C": probes.REGULARISATION_C, "max_iterations": probes.MAX_ITERATIONS}, notes
