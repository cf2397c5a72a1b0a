"""External validation: fitted classifiers as they are, on a labelled set that they have not seen.

In: folders that `uscl fit` made, and a labelled data set, of another hospital or scanner as a rule. Out: the files of an evaluation, which
`uscl report` and model cards take as they take any other. Nothing is fitted, chosen or adapted on the set; clips that a classifier or
its weights were trained on are refused, as in `uscl evaluate`. Intervals resample the set's independent groups.

It is a command of its own, not a kind of `uscl evaluate`: there are no folds, no seeds and no training to ask for, and what is judged is a
file with a digest that others may use, not a way of making one. It is not part of `uscl predict`, which refuses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from uscl.classifier import FittedClassifier, open_classifier
from uscl.embedding import feature_blocks
from uscl.evaluation import EvaluationResult
from uscl.evaluation.folds import EXTERNAL, Folds
from uscl.evaluation.guard import guard
from uscl.evaluation.protocols import Row, summarise_rows
from uscl.evaluation.selection import ROW, listed, select_frames
from uscl.evaluation.summary import Held, summarise
from uscl.evaluation.weights import IMAGENET, RANDOM, result_names
from uscl.evaluation.writing import PARTS, predictions_table, write_results
from uscl.frames import open_store
from uscl.whole_folder import check_folder
from usdata.errors import UserError
from usdata.manifest import open_dataset

LEAST_GROUPS = 2  # of each class that occurs


def validate(
    dataset: str | Path,
    *,
    models: str | Path | Sequence[str | Path],
    out: str | Path,
    where: str | Sequence[str] = (),
    classes: str | Sequence[str] | None = None,
    allow_overlap: Sequence[str] = (),
    without_overlap: bool = False,
    pretraining_sets: Sequence[str] = (),
    overwrite: bool = False,
) -> EvaluationResult:
    """Judge fitted classifiers on a labelled data set that they were not fitted on.

    Args:
        dataset: Data set folder.
        models: Folders that `uscl fit` made, of the same classes; differences are taken to the first.
        out: Folder for the results: evaluation.json, predictions.parquet, report.html.
        where: Filters, see `select_frames`.
        classes: Keep frames with these labels only. What is predicted is any class that the classifiers know.
        allow_overlap: Classifiers, as they are called in results, that may have been trained on clips or patients judged here.
        without_overlap: Leave out, for all of them, clips that any was trained on, with their groups.
        pretraining_sets: 'NAME=SET', or 'SET' for all that do not say: data set folders that classifiers were trained on.
        overwrite: Replace the results of an earlier evaluation in `out`.

    Raises:
        UserError: A folder is no classifier, the classifiers know different classes, a label is none of theirs, the set has no two
            classes or a class of one group, a classifier was trained on what is judged and no word was given on it, or `out` exists.
    """
    words = [str(models)] if isinstance(models, str | Path) else [str(model) for model in models]
    where, classes = listed(where), None if classes is None else listed(classes)
    if not words:
        raise UserError("--model", "names no classifier", "give a folder made by 'uscl fit'")
    out = Path(out)
    check_folder(out, parts=PARTS, overwrite=overwrite)
    # A folder called like weights that everybody knows is not those weights.
    called = [f"model {name}" if name in (RANDOM, IMAGENET) else name for name in result_names(words, option="--model")]
    classifiers = dict(zip(called, map(open_classifier, words), strict=True))
    names = list(classifiers)
    class_names = _common_classes(classifiers)
    opened = open_dataset(dataset)
    frames, _ = select_frames(opened, where=where, classes=classes)
    _refuse_unknown_labels(frames, class_names, str(opened.folder))
    provenances = {name: _provenance(classifier) for name, classifier in classifiers.items()}
    _refuse_copies({name: about["weights_sha256"] for name, about in provenances.items()})
    guarded = guard(
        opened,
        frames,
        dict(zip(names, words, strict=True)),
        provenances,
        allow_overlap=allow_overlap,
        without_overlap=without_overlap,
        pretraining_sets=pretraining_sets,
    )
    frames, groups = guarded.kept(frames, opened)
    _refuse_few_groups(frames, groups, str(opened.folder))
    labels: NDArray[np.int64] = np.array([class_names.index(label) for label in frames["label"]], dtype=np.int64)
    rows = frames[ROW].to_numpy(dtype=np.int64)
    held = []
    for name, classifier in classifiers.items():
        store = open_store(opened, size=classifier.about["image_size"])
        blocks = [classifier.probabilities(block) for block in feature_blocks(classifier.backbone, store, rows, subject=name)]
        order = [classifier.classes.index(each) for each in class_names]
        held.append(Held(name, 0, np.concatenate(blocks)[:, order]))
    sizes = {classifier.about["image_size"] for classifier in classifiers.values()}
    settings = {
        "kind": EXTERNAL,
        "image_size": sizes.pop() if len(sizes) == 1 else None,
        "seeds": 1,
        "where": list(where),
        "classes": list(classes) if classes is not None else None,
        "protocol": EXTERNAL,
        "label_shares": None,
        "allow_overlap": list(allow_overlap),
        "without_overlap": without_overlap,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    row = Row(EXTERNAL)
    all_held_out = [Folds(seed=0, origin=EXTERNAL, fold=np.zeros(len(frames), dtype=np.int64), count=1)]
    summary = summarise_rows(
        [row],
        names,
        {row.key: held},
        {"group": all_held_out},
        {row.key: []},
        lambda some, called, own, parts: summarise(
            opened, frames, groups, labels, class_names, list(parts), list(some), list(called), provenances, settings, []
        ),
        frames=frames,
        groups=groups,
        duplicates=opened.duplicates,
        seen=guarded.allowed,
    )
    summary["overlap"] = guarded.to_json()
    home = [
        f"{name} was fitted on other clips of this very set: it is no other hospital."
        for name, about in provenances.items()
        if about["dataset_digest"] == opened.digest and name not in guarded.allowed
    ]
    summary["notes"] = [*guarded.notes(), *home, *guarded.patient_notes(), *summary["notes"]]
    predictions = predictions_table(frames, groups, class_names, [row], {"group": all_held_out}, {row.key: held}, guarded.allowed)
    write_results(out, summary, predictions, opened, overwrite=overwrite)
    return EvaluationResult(folder=out, summary=summary, predictions=predictions)


def _common_classes(classifiers: dict[str, FittedClassifier]) -> list[str]:
    """The classes that all of them know, in the order of the first.

    Raises:
        UserError: They do not know the same.
    """
    (first, known), *others = ((name, classifier.classes) for name, classifier in classifiers.items())
    for name, own in others:
        if set(own) != set(known):
            told = f"knows other classes ({', '.join(own)}) than {first} ({', '.join(known)})"
            raise UserError(f"--model {name}", told, "judge each by itself, or fit both with the same --classes")
    return known


def _refuse_copies(digests: dict[str, str]) -> None:
    first: dict[str, str] = {}
    for name, digest in digests.items():
        if digest in first:
            raise UserError(f"--model {name}", f"is a copy of {first[digest]}", "name each once")
        first[digest] = name


def _refuse_unknown_labels(frames: pd.DataFrame, class_names: Sequence[str], subject: str) -> None:
    strange = sorted(set(frames["label"]) - set(class_names))
    if strange:
        shared = [name for name in class_names if name in set(frames["label"])]
        told = f"has labels that the classifier does not know ({', '.join(strange)}); it knows {', '.join(class_names)}"
        renamed = ", ".join(f"{name}: ..." for name in strange[:2]) + (", ..." if len(strange) > 2 else "")
        advice = f"rename them by label_map: {{{renamed}}} in the source of its recipe, and build it again with --overwrite"
        if len(shared) >= 2:
            advice = f"leave them out with --classes {','.join(shared)}, or {advice}"
        raise UserError(subject, told, advice)


def _refuse_few_groups(frames: pd.DataFrame, groups: NDArray[np.str_], subject: str) -> None:
    """With one group there is nothing to resample: figures would look certain."""
    counts = pd.Series(groups).groupby(frames["label"].to_numpy()).nunique()
    few = sorted(counts.index[counts < LEAST_GROUPS])
    if few:
        told = ", ".join(f"'{name}'" for name in few)
        verb = f"classes {told} stand" if len(few) > 1 else f"class {told} stands"
        ways = (
            [f"leave {'them' if len(few) > 1 else 'it'} out with --where 'label!={'|'.join(few)}'"] if len(counts) - len(few) >= 2 else []
        )
        reason = f"{verb} in one independent group, and of one no interval can be told"
        raise UserError(subject, reason, ", or ".join([*ways, "label clips of more patients"]))


def _weights_told(weights: dict[str, Any]) -> str:
    """What its backbone was before it was fitted, in words."""
    if weights.get("dataset_name"):
        return f"pretrained on {weights['dataset_name']}" + (f" by {weights['recipe']}" if weights.get("recipe") else "")
    return {"random": "random weights", "imagenet": "ImageNet weights"}.get(str(weights.get("kind")), "weights of a file")


def _provenance(classifier: FittedClassifier) -> dict[str, Any]:
    """Where a classifier comes from, for `evaluation.json`, and for the guard where its own record is missing."""
    about = classifier.about
    return {
        "kind": "classifier",
        "weights_sha256": about["sha256"],
        "head": about["head"],
        "backbone": about["backbone"],
        "image_size": about["image_size"],
        "backbone_weights": _weights_told(about["weights"]),
        "backbone_sha256": about["weights"].get("weights_sha256"),
        "backbone_dataset_digest": about["weights"].get("dataset_digest"),
        "dataset_name": about["dataset"]["name"],
        "dataset_digest": about["dataset"]["digest"],
        "fitted_on": {key: about["dataset"][key] for key in ("frames", "videos", "groups", "classes", "where")},
        "seed": None,
    }
