"""Dice and IoU by frame, clip and group, with intervals that resample whole groups.

In: for each held-out frame and class the pixels of the intersection, of the prediction and of the truth. Out: plain numbers. A clip's or
group's Dice is that of all its frames' pixels together. Dice = 2 |A and B| / (|A| + |B|), IoU = |A and B| / |A or B|; where neither the
truth nor the prediction holds the class both are 1, which flatters rare classes, so the mean over items whose truth holds it stands beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uscl.evaluation import metrics

LEVELS = ("frame", "video", "group")
# Over all items, and over those whose truth holds the class.
METRICS = ("dice", "iou", "dice_where_present", "iou_where_present")
MEAN = "mean"


@dataclass(frozen=True)
class Items:
    """What is averaged on one level.

    Attributes:
        values: Metric in `METRICS` to (items, C), mean over seeds; NaN where an item does not count.
        groups: (items,) which group each belongs to, 0 to group_count - 1.
        group_count: How many there are.
    """

    values: dict[str, NDArray[np.float64]]
    groups: NDArray[np.int64]
    group_count: int


def pixel_counts(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], class_count: int) -> NDArray[np.int64]:
    """(C, 3) pixels of the intersection, the prediction and the truth for each class 1 to C of two masks (H, W)."""
    pairs = np.bincount(truth.ravel().astype(np.int64) * (class_count + 1) + predicted.ravel(), minlength=(class_count + 1) ** 2)
    table = pairs.reshape(class_count + 1, class_count + 1)
    return np.stack([np.diagonal(table), table.sum(axis=0), table.sum(axis=1)], axis=1)[1:]


def dice(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(...) Dice of (..., 3) pixel counts; 1 where prediction and truth are both empty."""
    both, predicted, truth = np.moveaxis(counts.astype(np.float64), -1, 0)
    return np.where(predicted + truth > 0, 2 * both / np.maximum(predicted + truth, 1), 1.0)


def iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(...) intersection over union of (..., 3) pixel counts; 1 where prediction and truth are both empty."""
    both, predicted, truth = np.moveaxis(counts.astype(np.float64), -1, 0)
    return np.where(predicted + truth > 0, both / np.maximum(predicted + truth - both, 1), 1.0)


def level_items(
    counts: Sequence[NDArray[np.int64]],
    level: str,
    videos: NDArray[np.int64],
    groups: NDArray[np.int64],
    rows: NDArray[np.int64] | None = None,
) -> Items:
    """The items of a level.

    Args:
        counts: Of each seed (n, C, 3).
        level: One of `LEVELS`.
        videos: (n,) which clip each frame is of.
        groups: (n,) which group each frame is of.
        rows: Take these frames only.
    """
    rows = np.arange(len(videos)) if rows is None else rows
    names = {"frame": np.arange(len(videos)), "video": videos, "group": groups}[level][rows]
    _, first, item = np.unique(names, return_index=True, return_inverse=True)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in METRICS}
    for one in counts:
        summed = np.zeros((len(first), *one.shape[1:]), dtype=np.int64)
        np.add.at(summed, item, one[rows])
        present = summed[..., 2] > 0
        for name, values in (("dice", dice(summed)), ("iou", iou(summed))):
            found[name].append(values)
            found[f"{name}_where_present"].append(np.where(present, values, np.nan))
    # What the truth holds does not depend on the seed, so NaN stands at the same places.
    return Items({name: np.mean(values, axis=0) for name, values in found.items()}, groups[rows][first], int(groups.max()) + 1)


def averages(items: Items, metric: str) -> dict[str, Any]:
    """(C,) means of each class over the items that count, None where none does; and the mean over the classes that have one."""
    values = items.values[metric]
    counted = np.isfinite(values).sum(axis=0)
    sums = np.nansum(values, axis=0)
    each = [float(total / count) if count else None for total, count in zip(sums, counted, strict=True)]
    known = [value for value in each if value is not None]
    return {MEAN: float(np.mean(known)) if known else None, "classes": each, "items": counted.tolist()}


def resampled(items: Items, metric: str, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R, 1 + C) the mean over classes and each class' average over resampled groups; NaN where a resample lacks the class.

    Args:
        items: Of one level.
        metric: One of `METRICS`.
        draws: (R, groups), from `bootstrap_draws` or `left_out_draws`; the same ones for two models make a paired comparison.
    """
    values = items.values[metric]
    known = np.isfinite(values)
    sums = np.zeros((items.group_count, values.shape[1]))
    np.add.at(sums, items.groups, np.where(known, values, 0.0))
    weights = draws.astype(np.float64)
    totals, counts = weights @ sums, weights @ class_items(items, metric).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(counts > 0, totals / counts, np.nan)
        defined = np.isfinite(each)
        mean = np.where(defined, each, 0.0).sum(axis=1) / defined.sum(axis=1)
    return np.concatenate([mean[:, None], each], axis=1)


def class_items(items: Items, metric: str) -> NDArray[np.int64]:
    """(groups, C) how many items of each group count for each class."""
    known = np.isfinite(items.values[metric])
    counts = np.zeros((items.group_count, known.shape[1]), dtype=np.int64)
    np.add.at(counts, items.groups, known.astype(np.int64))
    return counts


def intervals(items: Items, metric: str, values: NDArray[np.float64]) -> list[list[float] | None]:
    """(1 + C) intervals of what `resampled` gives over bootstrap draws followed by the left-out ones; None where none is defined."""
    counts = class_items(items, metric)
    found: list[list[float] | None] = []
    for column in range(values.shape[1]):
        own = counts if column == 0 else counts[:, [column - 1]]
        if not own.any():
            found.append(None)
            continue
        skew = metrics.acceleration(values[metrics.RESAMPLES :, column])
        # Where all items are 0 (or 1) no resample differs, and still the next patient may.
        groups = float(metrics.effective_groups(own).min())
        ends = metrics.interval(values[: metrics.RESAMPLES, column], quantile=metrics.widened_quantile(own), skew=skew, groups=groups)
        found.append(ends if np.isfinite(ends).all() else None)
    return found


def differences(
    names: Sequence[str],
    reference: str,
    items: Mapping[str, Mapping[str, Items]],
    drawn: Mapping[str, Mapping[str, Mapping[str, NDArray[np.float64]]]],
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """Each of the weights less the reference, on the same resamples of groups.

    Args:
        names: Of all weights.
        reference: One of them.
        items: By weights and level.
        drawn: By weights, level and metric what `resampled` gave.
        class_names: Of the classes.
    """
    found = []
    for name in names:
        for level in LEVELS if name != reference else ():
            for metric in METRICS:
                own, other = averages(items[name][level], metric), averages(items[reference][level], metric)
                values = drawn[name][level][metric] - drawn[reference][level][metric]
                counts = class_items(items[name][level], metric)
                for column, what in enumerate((None, *class_names)):
                    mine = own[MEAN] if what is None else own["classes"][column - 1]
                    its = other[MEAN] if what is None else other["classes"][column - 1]
                    if mine is None or its is None:
                        continue
                    quantile = metrics.widened_quantile(counts if what is None else counts[:, [column - 1]])
                    low, high = metrics.interval(values[: metrics.RESAMPLES, column], quantile=quantile)
                    if not np.isfinite([low, high]).all():
                        continue
                    row = {"weights": name, "reference": reference, "level": level, "metric": metric, "class": what}
                    found.append({**row, "difference": mine - its, "interval": [low, high], "established": low > 0 or high < 0})
    return found
