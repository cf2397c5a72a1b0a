"""From held-out probabilities to everything that `evaluation.json` holds.

In: the folds and, for each of the weights and seeds, every frame's probabilities. Out: plain dictionaries: metrics by frame and by video,
for each fold and pooled, intervals over resampled groups, paired differences, confusion matrices.

Pooled means: the predictions of all folds (and seeds) together, each made by the model that did not see the frame. AUROC ranks
probabilities of one division's models against each other, so its pooled value is the mean over seeds.
"""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uscl.evaluation import metrics
from uscl.evaluation.folds import Folds
from uscl.evaluation.metrics import Predictions
from usdata.manifest import DataSet

EVALUATION = "evaluation.json"
PREDICTIONS = "predictions.parquet"
REPORT = "report.html"
FORMAT_VERSION = 1
FEW_GROUPS = 20
BOOTSTRAP_SEED = 0
LEVELS = ("frame", "video")


@dataclass(frozen=True)
class Held:
    """The held-out probabilities of one of the weights under one seed: (n, C), a row a frame."""

    weights: str
    seed: int
    probabilities: NDArray[np.float64]


def summarise(
    dataset: DataSet,
    frames: pd.DataFrame,
    groups: NDArray[np.str_],
    labels: NDArray[np.int64],
    class_names: list[str],
    divisions: list[Folds],
    held: list[Held],
    names: list[str],
    provenance: dict[str, dict[str, Any]],
    settings: dict[str, Any],
    notes: list[str],
) -> dict[str, Any]:
    """The content of `evaluation.json`; see the module."""
    group_names, group = np.unique(groups, return_inverse=True)
    videos = np.unique(frames["video_id"].to_numpy(dtype=str), return_inverse=True)[1]
    draws = metrics.bootstrap_draws(len(group_names), seed=BOOTSTRAP_SEED)
    reference = "random" if "random" in names else names[0]
    resampled: dict[str, dict[str, dict[str, NDArray[np.float64]]]] = {}
    entries = []
    for name in names:
        own = [entry for entry in held if entry.weights == name]
        levels = {}
        resampled[name] = {}
        for level in LEVELS:
            levels[level], resampled[name][level] = _level(level, own, divisions, labels, group, videos, draws, class_names)
        # Thousands of clips' digests say nothing to a reader; what was found by them is told by the guard.
        about = {key: value for key, value in provenance[name].items() if key not in ("clips", "clips_whole")}
        entries.append({"name": name, "provenance": about, "levels": levels})
    return {
        "format_version": FORMAT_VERSION,
        "settings": settings,
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "classes": class_names,
            "frames": len(frames),
            "videos": int(videos.max()) + 1,
            "groups": len(group_names),
            "frames_without_label": int(dataset.frames["label"].isna().sum()),
        },
        "classes": _class_sizes(labels, videos, group, class_names),
        "folds": [_division(division, labels, groups, videos, class_names) for division in divisions],
        "weights": entries,
        "reference": reference if len(names) > 1 else None,
        "differences": _differences(names, reference, entries, resampled) if len(names) > 1 else [],
        "interval": {"method": "percentile, independent groups drawn with replacement", "level": 0.95, "resamples": len(draws)},
        "notes": _notes(divisions, labels, class_names, len(group_names)) + notes,
        "versions": _versions(),
    }


def _level(
    level: str,
    own: list[Held],
    divisions: list[Folds],
    labels: NDArray[np.int64],
    group: NDArray[np.int64],
    videos: NDArray[np.int64],
    draws: NDArray[np.int64],
    class_names: list[str],
) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
    """All metrics of one of the weights by frame or by video, and the resampled values."""
    per_seed, per_fold = [], []
    for entry in own:
        division = divisions[entry.seed]
        frames = Predictions(labels, entry.probabilities, group)
        items = metrics.by_video(frames, videos) if level == "video" else frames
        per_seed.append(items)
        for number, _, test in division:
            held_out = frames.take(test)
            held_out = metrics.by_video(held_out, videos[test]) if level == "video" else held_out
            per_fold.append({"seed": entry.seed, "fold": number, "items": len(held_out.truth), **metrics.scores(held_out)})
    pooled = metrics.concatenate(per_seed)
    values = metrics.scores(pooled)
    aurocs = [metrics.auroc(items) for items in per_seed]
    values["auroc"] = None if None in aurocs else float(np.mean([area for area in aurocs if area is not None]))
    resampled = metrics.resampled_scores(metrics.group_confusions(pooled, draws.shape[1]), draws)
    names = [name for name in values if name != "majority_rate"]
    return {
        "items": len(per_seed[0].truth),
        "pooled": values,
        "interval": {name: metrics.interval(resampled[name]) for name in metrics.RESAMPLED_METRICS},
        "over_folds": {name: metrics.spread([fold[name] for fold in per_fold]) for name in names},
        "per_fold": per_fold,
        "per_class": [{"class": name, **row} for name, row in zip(class_names, metrics.per_class(pooled), strict=True)],
        "confusion": metrics.confusion(pooled).tolist(),
    }, resampled


def _differences(
    names: list[str], reference: str, entries: list[dict[str, Any]], resampled: dict[str, dict[str, dict[str, NDArray[np.float64]]]]
) -> list[dict[str, Any]]:
    """Each of the weights less the reference, by the same resamples of groups."""
    pooled = {entry["name"]: {level: entry["levels"][level]["pooled"] for level in LEVELS} for entry in entries}
    found = []
    for name in names:
        if name == reference:
            continue
        for level in LEVELS:
            for metric in metrics.RESAMPLED_METRICS:
                low, high = metrics.interval(resampled[name][level][metric] - resampled[reference][level][metric])
                difference = pooled[name][level][metric] - pooled[reference][level][metric]
                found.append(
                    {
                        "weights": name,
                        "reference": reference,
                        "level": level,
                        "metric": metric,
                        "difference": difference,
                        "interval": [low, high],
                        "established": low > 0 or high < 0,
                    }
                )
    return found


def _class_sizes(labels: NDArray[np.int64], videos: NDArray[np.int64], group: NDArray[np.int64], names: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "class": name,
            "frames": int((labels == index).sum()),
            "videos": len(np.unique(videos[labels == index])),
            "groups": len(np.unique(group[labels == index])),
        }
        for index, name in enumerate(names)
    ]


def _division(
    division: Folds, labels: NDArray[np.int64], groups: NDArray[np.str_], videos: NDArray[np.int64], class_names: list[str]
) -> dict[str, Any]:
    parts = []
    for number, train, test in division:
        counts = np.bincount(labels[test], minlength=len(class_names))
        parts.append(
            {
                "fold": number,
                "train_frames": len(train),
                "test_frames": len(test),
                "test_videos": len(np.unique(videos[test])),
                "test_groups": sorted(set(groups[test].tolist())),
                "test_frames_by_class": dict(zip(class_names, counts.tolist(), strict=True)),
                "classes_missing_in_test": [name for name, count in zip(class_names, counts, strict=True) if count == 0],
            }
        )
    return {"seed": division.seed, "origin": division.origin, "count": division.count, "parts": parts}


def _notes(
    divisions: list[Folds],
    labels: NDArray[np.int64],
    class_names: list[str],
    group_count: int,
) -> list[str]:
    """What a reader must know beside the figures; each line is there only where it is true."""
    notes = []
    if group_count < FEW_GROUPS:
        notes.append(f"With {group_count} independent groups the intervals are rough, and rather too narrow than too wide.")
    for division in divisions:
        for number, _, test in division:
            missing = [name for index, name in enumerate(class_names) if not (labels[test] == index).any()]
            if missing:
                told = ", ".join(f"'{name}'" for name in missing)
                which = f"Seed {division.seed}, fold {number}"
                notes.append(f"{which}: no held-out frame of class {told}; the fold's own figures are over the classes it has.")
    return notes


def _versions() -> dict[str, str]:
    packages = ("numpy", "scikit-learn", "torch", "torchvision", "usdata-uscl")
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return {"python": platform.python_version(), **found}
