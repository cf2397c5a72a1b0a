"""From held-out probabilities to everything that `evaluation.json` holds.

In: the folds and, for each of the weights and seeds, every frame's probabilities. Out: plain dictionaries: metrics by frame, video and
patient, for each fold, each seed and pooled, intervals over resampled groups, paired differences, confusion matrices, reliability.

Pooled means: the predictions of all folds (and seeds) together, each made by the model that did not see the frame. AUROC and average
precision rank probabilities of one division's models against each other, so their pooled values are means over seeds.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uscl.evaluation import metrics
from uscl.evaluation.folds import EXTERNAL, Folds
from uscl.evaluation.metrics import Predictions, Resampled
from usdata.manifest import DataSet

EVALUATION = "evaluation.json"
PREDICTIONS = "predictions.parquet"
REPORT = "report.html"
FORMAT_VERSION = 2
MEANS_OVER_CLASSES = ("balanced_accuracy", "macro_f1")
FEW_GROUPS = 20
BOOTSTRAP_SEED = 0
LEVELS: dict[str, Callable[[Predictions, NDArray[np.int64]], Predictions]] = {
    "frame": lambda frames, videos: frames,
    "video": metrics.by_video,
    "video_vote": metrics.by_video_vote,
    "patient": metrics.by_patient,
}
INTERVAL = (
    "independent groups drawn with replacement, all seeds of a group together; accelerated percentiles for metrics and plain percentiles"
    " for differences, widened for few groups of unequal size and for classes in which no resample differs"
)


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
    draws = every_draw(len(group_names))
    reference = "random" if "random" in names else names[0]
    judged: dict[str, dict[str, Judgement]] = {}
    entries: list[dict[str, Any]] = []
    for name in names:
        own = [entry for entry in held if entry.weights == name]
        levels = {}
        judged[name] = {}
        for level in LEVELS:
            levels[level], judged[name][level] = _level(level, own, divisions, labels, group, videos, draws, class_names)
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
        "differences": _differences(names, reference, judged) if len(names) > 1 else [],
        "pairs": _pairs(names, reference, judged),
        "interval": {
            "method": INTERVAL,
            "level": metrics.LEVEL,
            "resamples": metrics.RESAMPLES,
            "groups": len(group_names),
            "quantiles": {level: entries[0]["levels"][level]["quantile"] for level in LEVELS},
        },
        "notes": _notes(divisions, labels, class_names, group) + notes,
        "versions": _versions(),
    }


@dataclass(frozen=True)
class Judgement:
    """What held-out predictions of all seeds are worth on one level.

    Attributes:
        pooled: Metric to its value, see the module.
        interval: Metric to [low, high], or None where it has none.
        quantile: How many standard deviations the intervals reach.
        resampled: The metrics over the resamples of groups, and over the groups left out.
        class_items: (groups, C) items of each class in each group.
    """

    pooled: dict[str, float | None]
    interval: dict[str, list[float] | None]
    quantile: float
    resampled: Resampled
    class_items: NDArray[np.int64]


def every_draw(group_count: int) -> NDArray[np.int64]:
    """(R + groups, groups): the resamples of groups, and behind them the jackknife's rows: one pass gives both."""
    draws = metrics.bootstrap_draws(group_count, seed=BOOTSTRAP_SEED)
    return np.concatenate([draws, metrics.left_out_draws(group_count)])


def judge(per_seed: list[Predictions], draws: NDArray[np.int64]) -> Judgement:
    """All metrics of the predictions of each seed, with their intervals.

    Args:
        per_seed: Of one level, each of all groups.
        draws: From `every_draw`.
    """
    class_items = metrics.group_confusions(per_seed[0], draws.shape[1]).sum(axis=2)
    quantile = metrics.widened_quantile(class_items)
    groups = float(metrics.effective_groups(class_items).sum())
    resampled = metrics.resample(per_seed, draws)
    pooled = metrics.pooled_scores(per_seed)

    def ends(name: str) -> list[float] | None:
        found = _interval(resampled.overall[name], quantile, None if name in metrics.LOWER_IS_BETTER else groups)
        value, recalls = pooled[name], resampled.by_class["recall"][: metrics.RESAMPLES]
        if found is None or value is None or name not in MEANS_OVER_CLASSES:
            return found
        # What is always right can only be worse, what is always wrong only better.
        below, above = (metrics.unvarying_reach(recalls, class_items, at=end) for end in (1.0, 0.0))
        return [min(max(end, 0.0), 1.0) for end in metrics.with_reach(found, value, below, above)]

    return Judgement(pooled, {name: ends(name) for name in metrics.METRICS}, quantile, resampled, class_items)


def _level(
    level: str,
    own: list[Held],
    divisions: list[Folds],
    labels: NDArray[np.int64],
    group: NDArray[np.int64],
    videos: NDArray[np.int64],
    draws: NDArray[np.int64],
    class_names: list[str],
) -> tuple[dict[str, Any], Judgement]:
    """All metrics of one of the weights on one level."""
    per_seed, per_fold = [], []
    for entry in own:
        division = divisions[entry.seed]
        frames = Predictions(labels, entry.probabilities, group)
        per_seed.append(LEVELS[level](frames, videos))
        for number, _, test in division:
            held_out = LEVELS[level](frames.take(test), videos[test])
            per_fold.append({"seed": entry.seed, "fold": number, "items": len(held_out.truth), **metrics.scores(held_out)})
    judged = judge(per_seed, draws)
    pooled = metrics.concatenate(per_seed)
    by_seed = [{"seed": entry.seed, **metrics.scores(items)} for entry, items in zip(own, per_seed, strict=True)]
    rows = metrics.pooled_per_class(per_seed)
    return {
        "items": len(per_seed[0].truth),
        "pooled": judged.pooled,
        "interval": judged.interval,
        "quantile": judged.quantile,
        "over_folds": {name: metrics.spread([fold[name] for fold in per_fold]) for name in metrics.METRICS},
        "over_seeds": {name: metrics.spread([seed[name] for seed in by_seed]) for name in metrics.METRICS},
        "per_fold": per_fold,
        "per_seed": by_seed,
        "per_class": [
            {"class": name, **rows[index], "interval": _class_intervals(judged.resampled, judged.class_items, index, rows[index])}
            for index, name in enumerate(class_names)
        ],
        "confusion": metrics.confusion(pooled).tolist(),
        "reliability": metrics.reliability(pooled),
    }, judged


def _class_intervals(
    resampled: Resampled, class_items: NDArray[np.int64], index: int, row: Mapping[str, float | int | None]
) -> dict[str, list[float] | None]:
    """Of one class' metrics: widened by its own groups, which are fewer than all; of few at least the binomial's, of none None."""
    own = class_items[:, [index]]
    if not own.any():
        return dict.fromkeys(metrics.CLASS_METRICS)
    quantile, groups = metrics.widened_quantile(own), float(metrics.effective_groups(own).sum())
    found: dict[str, list[float] | None] = {}
    for metric in metrics.CLASS_METRICS:
        ends, value = _interval(resampled.by_class[metric][:, index], quantile, groups), row[metric]
        small = int((own > 0).sum()) < metrics.SMALL_CLASS
        found[metric] = metrics.at_least_binomial(ends, value, groups) if small and ends is not None and value is not None else ends
    return found


def _interval(values: NDArray[np.float64], quantile: float, groups: float | None) -> list[float] | None:
    """Of a metric: from its values over the resamples, and over the groups left out, which follow them; None where it is not defined."""
    skew = metrics.acceleration(values[metrics.RESAMPLES :])
    return _defined(metrics.interval(values[: metrics.RESAMPLES], quantile=quantile, skew=skew, groups=groups))


def _defined(ends: list[float]) -> list[float] | None:
    return ends if np.isfinite(ends).all() else None


def _differences(names: list[str], reference: str, judged: dict[str, dict[str, Judgement]]) -> list[dict[str, Any]]:
    """Each of the weights less the reference."""
    return [
        row for name in names if name != reference for row in _difference(name, reference, judged[name], judged[reference], metrics.METRICS)
    ]


def _pairs(names: list[str], reference: str, judged: dict[str, dict[str, Judgement]]) -> list[dict[str, Any]]:
    """Each later one of the other weights less each earlier one, by the metrics of the named class alone."""
    others = [name for name in names if name != reference]
    return [
        row
        for place, earlier in enumerate(others)
        for later in others[place + 1 :]
        for row in _difference(later, earlier, judged[later], judged[earlier], metrics.RESAMPLED_METRICS)
    ]


def _difference(
    name: str, reference: str, judged: dict[str, Judgement], judged_reference: dict[str, Judgement], compared: Sequence[str]
) -> list[dict[str, Any]]:
    """One of the weights less another, by the same resamples of groups; metrics that are not defined are left out."""
    found = []
    for level in LEVELS:
        one, two = judged[level], judged_reference[level]
        recalls = one.resampled.by_class["recall"] - two.resampled.by_class["recall"]
        reach = metrics.unvarying_reach(recalls[: metrics.RESAMPLES], one.class_items)
        for metric in compared:
            values = one.resampled.overall[metric] - two.resampled.overall[metric]
            ends = _defined(metrics.interval(values[: metrics.RESAMPLES], quantile=one.quantile))
            own, other = one.pooled[metric], two.pooled[metric]
            if ends is None or own is None or other is None:
                continue
            difference = own - other
            low, high = metrics.with_reach(ends, difference, reach, reach) if metric in MEANS_OVER_CLASSES else ends
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
    group: NDArray[np.int64],
) -> list[str]:
    """What a reader must know beside the figures; each line is there only where it is true."""
    notes = []
    group_count = int(group.max()) + 1
    if group_count < FEW_GROUPS:
        notes.append(f"With {group_count} independent group{'' if group_count == 1 else 's'} the intervals are rough.")
    in_group = np.unique(np.stack([group, labels], axis=1), axis=0)
    counts = {name: int((in_group[:, 1] == index).sum()) for index, name in enumerate(class_names)}
    few = {name: count for name, count in counts.items() if 0 < count < metrics.SMALL_CLASS}
    if few:
        told = ", ".join(f"'{name}' in {count}" for name, count in few.items())
        notes.append(
            f"Classes that stand in few independent groups: {told}. How their figures would change with other groups can hardly be told."
        )
    several = int((np.bincount(in_group[:, 0]) > 1).sum())
    if several:
        which = f"{several} independent group{' holds' if several == 1 else 's hold'} videos of several classes"
        notes.append(f"{which}; by patient each gives one item for each of its classes.")
    for division in divisions:
        for number, _, test in division:
            missing = [name for index, name in enumerate(class_names) if not (labels[test] == index).any()]
            told = ", ".join(f"'{name}'" for name in missing)
            if missing and division.origin == EXTERNAL:
                notes.append(
                    f"No frame here is of class {told}: means over classes are over the others, and what is taken for it is wrong."
                )
            elif missing:
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
