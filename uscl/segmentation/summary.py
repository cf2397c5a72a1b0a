"""The content of `segmentation.json`: settings, data set, folds, Dice and IoU with intervals, differences, average precision, notes.

In: pixel counts of each of the weights under each seed. Out: plain values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uscl.evaluation import metrics
from uscl.evaluation.folds import Folds
from uscl.evaluation.report import called
from uscl.evaluation.summary import FEW_GROUPS
from uscl.segmentation.held_out import HeldOut
from uscl.segmentation.instances import average_precision, true_instances
from uscl.segmentation.masks import Masks
from uscl.segmentation.scores import LEVELS, MEAN, METRICS, averages, differences, intervals, level_items, resampled

FORMAT_VERSION = 1
SEGMENTATION = "segmentation.json"
SCORES = "scores.parquet"
REPORT = "report.html"
MASKS = "masks"
POSITION = "position alone"


def summarise(
    frames: pd.DataFrame,
    groups: NDArray[np.str_],
    masks: Masks,
    divisions: Sequence[Folds],
    held: Mapping[str, Sequence[HeldOut]],
    reference: str | None,
    *,
    with_instances: bool,
) -> dict[str, Any]:
    """Everything that follows from the held-out predictions.

    Args:
        frames: Rows of frames.parquet.
        groups: (n,) independent group of each.
        masks: The truth.
        divisions: The folds of each seed.
        held: By weights' name, and `POSITION` last: what was made of the frames under each seed.
        reference: The weights that the others are compared with; None where there is only one.
        with_instances: The head finds instances, so average precision is told, also where it found none.
    """
    group_names, group = np.unique(groups, return_inverse=True)
    video_names, video = np.unique(frames["video_id"].to_numpy(dtype=str), return_inverse=True)
    draws = np.concatenate([metrics.bootstrap_draws(len(group_names)), metrics.left_out_draws(len(group_names))])
    items = {name: {level: level_items([one.counts for one in own], level, video, group) for level in LEVELS} for name, own in held.items()}
    drawn = {
        name: {level: {metric: resampled(items[name][level], metric, draws) for metric in METRICS} for level in LEVELS} for name in held
    }
    entries: list[dict[str, Any]] = [
        {
            "name": name,
            "levels": {level: _level(items[name][level], drawn[name][level], masks.names) for level in LEVELS},
            "never_predicted": [title for index, title in enumerate(masks.names) if not any(one.counts[:, index, 1].any() for one in own)],
            "per_fold": _per_fold(own, divisions, video, group),
            "per_seed": [
                {"seed": division.seed, **_means(level_items([one.counts], "frame", video, group))}
                for one, division in zip(own, divisions, strict=True)
            ],
        }
        for name, own in held.items()
    ]
    real = [name for name in held if name != POSITION]
    if with_instances:
        truth = [true_instances(masks.read(row)) for row in range(len(masks.files))]
        for entry in entries:
            if entry["name"] != POSITION:
                entry["average_precision"] = _average_precision(truth, held[entry["name"]], masks.names)
    holds = next(iter(held.values()))[0].counts[..., 2] > 0
    return {
        "format_version": FORMAT_VERSION,
        "dataset": {
            "frames": len(frames),
            "videos": len(video_names),
            "groups": len(group_names),
            "classes": [
                {
                    "class": name,
                    "value": value,
                    "frames": int(holds[:, index].sum()),
                    "videos": len(np.unique(video[holds[:, index]])),
                    "groups": len(np.unique(group[holds[:, index]])),
                }
                for index, (name, value) in enumerate(zip(masks.names, masks.values, strict=True))
            ],
        },
        "weights": entries[:-1],
        "baseline": entries[-1],
        "reference": reference,
        "differences": differences(real, reference, items, drawn, masks.names) if reference else [],
        "interval": {"level": metrics.LEVEL, "resamples": metrics.RESAMPLES, "of": "independent groups"},
        "folds": [_division(division, groups, frames) for division in divisions],
    }


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the figures; each line is there only where it is true."""
    found = []
    data = summary["dataset"]
    if data["groups"] < FEW_GROUPS:
        found.append(f"With {data['groups']} independent groups the intervals are rough.")
    for each in data["classes"]:
        if each["groups"] < metrics.SMALL_CLASS:
            told = f"{each['groups']} independent group{'s' if each['groups'] != 1 else ''}"
            found.append(
                f"Class '{each['class']}' stands in {told}: how its figures would change with others can hardly be told from so few."
            )
    for entry in summary["weights"]:
        if entry["never_predicted"]:
            named = ", ".join(f"'{name}'" for name in entry["never_predicted"])
            found.append(f"With {called(entry['name'])} no pixel of any held-out frame is taken for {named}: it was not learnt.")
    without = data["frames_without_mask"]
    if without:
        found.append(f"{without:,} frames have no mask and are left out." if without > 1 else "1 frame has no mask and is left out.")
    return found


def frame_table(
    frames: pd.DataFrame, groups: NDArray[np.str_], masks: Masks, divisions: Sequence[Folds], held: Mapping[str, Sequence[HeldOut]]
) -> pd.DataFrame:
    """A row per weights, seed and held-out frame: pixels of each class in truth, prediction and both."""
    parts = []
    for name, own in held.items():
        for one, division in zip(own, divisions, strict=True):
            table = frames[["frame_id", "video_id", "group_id"]].copy()
            table["independent_group"] = groups
            table["fold"], table["seed"], table["weights"] = division.fold, division.seed, name
            for index, title in enumerate(masks.names):
                for place, what in enumerate(("both", "predicted", "truth")):
                    table[f"{what}_{title}"] = one.counts[:, index, place]
            parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _level(items: Any, drawn: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"items": len(items.groups), MEAN: {}, "classes": [{"class": name} for name in names]}
    for metric in METRICS:
        values, ends = averages(items, metric), intervals(items, metric, drawn[metric])
        found[MEAN][metric] = {"value": values[MEAN], "interval": ends[0]}
        for index, entry in enumerate(found["classes"]):
            entry[metric] = {"value": values["classes"][index], "interval": ends[1 + index], "items": values["items"][index]}
    return found


def _means(items: Any) -> dict[str, float | None]:
    return {metric: averages(items, metric)[MEAN] for metric in METRICS}


def _per_fold(
    own: Sequence[HeldOut], divisions: Sequence[Folds], video: NDArray[np.int64], group: NDArray[np.int64]
) -> list[dict[str, Any]]:
    found = []
    for one, division in zip(own, divisions, strict=True):
        losses = {entry["fold"]: entry["training_loss"] for entry in one.losses}
        for number, _, test in division:
            values = _means(level_items([one.counts], "frame", video, group, test))
            last = losses[number][-1] if number in losses else None
            found.append({"seed": division.seed, "fold": number, "frames": len(test), **values, "last_training_loss": last})
    return found


def _average_precision(truth: Sequence[Sequence[Any]], own: Sequence[HeldOut], names: Sequence[str]) -> dict[str, Any]:
    """The mean over seeds; all held-out frames together."""
    seeds = [average_precision(truth, one.instances, names) for one in own]

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    found: dict[str, Any] = {key: mean([one[key] for one in seeds]) for key in ("ap", "ap50", "ap75")}
    found["classes"] = [
        {**each, "ap": mean([one["classes"][index]["ap"] for one in seeds])} for index, each in enumerate(seeds[0]["classes"])
    ]
    return found


def _division(division: Folds, groups: NDArray[np.str_], frames: pd.DataFrame) -> dict[str, Any]:
    videos = frames["video_id"].to_numpy(dtype=str)
    parts = [
        {
            "fold": number,
            "train_frames": len(train),
            "test_frames": len(test),
            "test_videos": len(np.unique(videos[test])),
            "test_groups": sorted(set(groups[test].tolist())),
        }
        for number, train, test in division
    ]
    return {"seed": division.seed, "origin": division.origin, "count": division.count, "parts": parts}
