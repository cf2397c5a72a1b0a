"""How sure a metric is: intervals that resample whole groups.

In: predictions with the group of each item. Out: any metric's values over resampled groups, and from them an interval. Every draw is
seeded, and two models judged on the same draws make a paired comparison.

What is resampled: the independent groups (patients), with replacement, each with all of its items under all seeds. Seeds of folds, and of
random weights, are averaged over, not resampled: the models stay as they were trained. So an interval says what another choice of patients
to be held out would change, and not what another training would; the spread over folds and seeds stands beside it for that.

Which interval: the percentiles of resampled groups cover too little where groups are few, so seven kinds were compared with planted truth
(`benchmarks/interval_coverage.py`, docs/results/intervals.md): 30 and 60 groups of unequal size, frames of one group correlated, accuracy
and balanced accuracy by frame and by video, metrics and paired differences, 66 and 90 % of the videos right. Nominal is 95 %; the lowest
and the highest coverage, in percent of 400 runs:

    interval                                         metrics                    differences
    percentile                                       85 to 95                   88 to 93
    basic                                            78 to 94                   86 to 93
    BCa                                              89 to 94                   85 to 92
    studentised                                      93 to 100, without bound   90 to 94
    mean ± t · sd · sqrt(g / (g - 1))                84 to 95                   89 to 94
    widened percentile                               90 to 97                   93 to 97
    widened accelerated percentile                   93 to 96                   92 to 96
    percentile, frames or videos as if independent   28 to 76                   29 to 84

So a metric has the accelerated percentile interval (Efron 1987, without the bias correction), and a difference the plain percentile
interval (an estimated skewness only adds noise where there is little), both at levels widened as Hesterberg (2015, section 3.3) does: from
the normal quantile to t times sqrt(h / (h - 1)), with effective numbers of groups (`widened_quantile`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm, t

from uscl.evaluation.metrics.points import (
    CALIBRATION_BINS,
    brier_terms,
    calibration_gaps,
    class_scores_of_confusion,
    log_loss_terms,
    scores_of_confusion,
)
from uscl.evaluation.metrics.predictions import Predictions, concatenate

RESAMPLES = 2000
LEVEL = 0.95
# What `resampled_scores` gives; `resample` gives all of `points.METRICS`.
RESAMPLED_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
NORMAL_QUANTILE = float(norm.ppf((1 + LEVEL) / 2))
_DRAWS_AT_ONCE = 256
# Groups of a class below which its figures are hardly known.
SMALL_CLASS = 6


@dataclass(frozen=True)
class Resampled:
    """The values of all metrics over R resamples of groups; NaN where a resample lacks what a metric needs.

    Attributes:
        overall: Name in `METRICS` to (R,) values.
        by_class: Name in `CLASS_METRICS` to (R, C) values.
    """

    overall: dict[str, NDArray[np.float64]]
    by_class: dict[str, NDArray[np.float64]]


def bootstrap_draws(group_count: int, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """(resamples, group_count): how often each group stands in each resample of `group_count` groups drawn with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(group_count, np.full(group_count, 1.0 / group_count), size=resamples)


def left_out_draws(group_count: int) -> NDArray[np.int64]:
    """(group_count, group_count): every group once, but one left out in each row: the draws of the jackknife."""
    return 1 - np.eye(group_count, dtype=np.int64)


def group_confusions(predictions: Predictions, group_count: int) -> NDArray[np.int64]:
    """(group_count, C, C): each group's own confusion matrix, rows the truth."""
    matrices = np.zeros((group_count, predictions.class_count, predictions.class_count), dtype=np.int64)
    np.add.at(matrices, (predictions.groups, predictions.truth, predictions.predicted), 1)
    return matrices


def resampled_scores(matrices: NDArray[np.int64], draws: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Accuracy, balanced accuracy and macro F1, each (resamples,), from per-group confusion matrices.

    The cluster bootstrap (Davison & Hinkley 1997, section 3.8): whole groups are drawn with replacement, because frames of one patient are
    no independent observations. Drawing a group twice adds its confusion matrix twice, so a resample's matrix is a weighted sum.

    Args:
        matrices: (groups, C, C) from `group_confusions`.
        draws: (resamples, groups) from `bootstrap_draws`; give the same draws to two models for a paired comparison.
    """
    return scores_of_confusion(_weighted(matrices, draws))


def resample(parts: Sequence[Predictions], draws: NDArray[np.int64]) -> Resampled:
    """All metrics over resampled groups, as `pooled_scores` and `pooled_per_class` would give them.

    Args:
        parts: The predictions of each seed.
        draws: (R, groups) from `bootstrap_draws` or `left_out_draws`; give the same draws to two models for a paired comparison.
    """
    together = concatenate(list(parts))
    count = draws.shape[1]
    confusions = _weighted(group_confusions(together, count), draws)
    items = _weighted(np.bincount(together.groups, minlength=count), draws)
    overall = scores_of_confusion(confusions)
    by_class = class_scores_of_confusion(confusions)
    areas, averages = (np.mean(values, axis=0) for values in zip(*(_ranking(part, draws) for part in parts), strict=True))
    by_class |= {"auroc": areas, "average_precision": averages}
    for name in ("auroc", "average_precision"):
        defined = np.isfinite(by_class[name])
        with np.errstate(invalid="ignore"):
            overall[name] = np.where(defined, by_class[name], 0.0).sum(axis=1) / defined.sum(axis=1)
    which, gaps = calibration_gaps(together)
    by_bin = np.zeros((count, CALIBRATION_BINS))
    np.add.at(by_bin, (together.groups, which), gaps)
    terms = {"brier_score": brier_terms(together), "log_loss": log_loss_terms(together)}
    with np.errstate(invalid="ignore"):
        overall["calibration_error"] = np.abs(_weighted(by_bin, draws)).sum(axis=1) / items
        for name, values in terms.items():
            overall[name] = _weighted(np.bincount(together.groups, weights=values, minlength=count), draws) / items
    return Resampled(overall, by_class)


def effective_groups(class_items: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) the effective number of groups of each class that occurs: (sum of items)² / sum of items² (Kish 1965, section 8.2).

    Equal groups count as they are; of a large one beside many small ones little more than the large one counts.

    Args:
        class_items: (groups, C) items of each class in each group.
    """
    sizes = class_items[:, class_items.sum(axis=0) > 0].astype(np.float64)
    effective: NDArray[np.float64] = sizes.sum(axis=0) ** 2 / (sizes**2).sum(axis=0)
    return effective


def widened_quantile(class_items: NDArray[np.int64]) -> float:
    """How many standard deviations an interval of level 0.95 must reach when a metric is a mean over classes with few groups.

    A resample of g groups varies less than a sample of g does, by the factor (g - 1) / g in variance, and a variance estimated from few
    groups is uncertain itself. Both are mended as for a mean of g values (Hesterberg 2015, section 3.3): Student's t for the normal
    quantile, times sqrt(g / (g - 1)). Here each class has its own groups, of unequal size: g is the harmonic mean h of their effective
    numbers, and the degrees of freedom are their sum less the number of classes.

    Args:
        class_items: (groups, C) items of each class in each group.

    Returns:
        1.96 with very many groups, 2.3 or so with 30; capped at t's with one degree of freedom, 12.7, where a class has but one group.
    """
    effective = effective_groups(class_items)
    most = float(t.ppf((1 + LEVEL) / 2, 1))
    freedom = float(effective.sum()) - len(effective)
    harmonic = len(effective) / float((1 / effective).sum())
    if freedom <= 1 or harmonic <= 1:
        return most
    return min(most, float(t.ppf((1 + LEVEL) / 2, freedom)) * np.sqrt(harmonic / (harmonic - 1)))


def acceleration(left_out: NDArray[np.float64]) -> float:
    """How fast the standard deviation of a metric changes with its value: a sixth of the skewness of the groups' influences (Efron 1987,
    equation 7.3 with the jackknife's influences); 0 where nothing varies.

    Args:
        left_out: (groups,) the metric without each of the groups in turn, from `left_out_draws`.
    """
    values = left_out[np.isfinite(left_out)]
    influences = values.mean() - values if len(values) else values
    scale = float((influences**2).sum()) ** 1.5
    return float((influences**3).sum()) / (6 * scale) if scale > 0 else 0.0


def interval(
    values: NDArray[np.float64], *, quantile: float = NORMAL_QUANTILE, skew: float = 0.0, groups: float | None = None
) -> list[float]:
    """The interval [low, high] between two percentiles of the resampled values; NaN where none is defined.

    Args:
        values: (R,) resampled values; those that are NaN do not count.
        quantile: How many standard deviations it reaches, from `widened_quantile`. The default is that of the plain percentile interval,
            which with 20 to 40 groups covers too little.
        skew: From `acceleration`; 0 for differences.
        groups: Of a share: how many groups it is of, effectively. Where all are right (or all wrong) no resample differs, and still the
            next patient may: then the other end is the exact binomial one of so many groups all right, 0.025 to the power 1 / groups.
    """
    defined = values[np.isfinite(values)]
    if not len(defined):
        return [np.nan, np.nan]
    if groups is not None and defined.min() == defined.max() and defined[0] in (0.0, 1.0):
        bound = float(((1 - LEVEL) / 2) ** (1 / groups))
        return [bound, 1.0] if defined[0] == 1 else [0.0, 1 - bound]
    ends = np.array([-quantile, quantile])
    # The transformation turns round where its denominator would change sign; there the last resample is the end.
    reach = np.maximum(1 - skew * ends, 1e-3)
    low, high = np.quantile(defined, norm.cdf(ends / reach))
    return [float(low), float(high)]


def unvarying_reach(values: NDArray[np.float64], class_items: NDArray[np.int64], *, at: float | None = None) -> float:
    """How far a mean over classes may lie from what was found, for the sake of small classes in which no resample differs.

    A class of few groups that are all right adds nothing to the spread of a mean over classes, and still its next patient may be wrong.
    With five groups and fewer that is usual, and intervals without it cover some 78 % in place of 95; with six and more they cover as they
    should, and with it they would cover too much (`benchmarks/interval_coverage.py`, with --small-classes and without).
    Not refused at level 0.95 are shares p whose product over these classes, each to the power of its groups, is 0.025 and more; their mean
    is farthest where all of it falls on the class with the fewest groups, so it is (1 - 0.025 to the power 1 / groups) / classes.

    Args:
        values: (R, C) resampled shares of each class that is held to vary (recalls, or differences of two recalls).
        class_items: (groups, C) items of each class in each group.
        at: Of the classes that do not vary only those whose every value is this one.

    Returns:
        0 where all small classes vary.
    """
    occurs = class_items.sum(axis=0) > 0
    own, effective = values[:, occurs], effective_groups(class_items)
    counts = (class_items[:, occurs] > 0).sum(axis=0)
    still = []
    for column, groups, count in zip(own.T, effective, counts, strict=True):
        known = column[np.isfinite(column)]
        if count < SMALL_CLASS and len(known) and np.ptp(known) == 0.0 and at in (None, known[0]):
            still.append(float(groups))
    return (1 - float(((1 - LEVEL) / 2) ** (1 / min(still)))) / len(effective) if still else 0.0


def at_least_binomial(ends: Sequence[float], value: float, groups: float) -> list[float]:
    """An interval [low, high] of a share of few groups, never narrower than the exact binomial one of so many groups that each are whole.

    Args:
        ends: Of the interval from resamples, which of two or three groups know nothing.
        value: The share.
        groups: Effective number of groups; need not be whole (Clopper & Pearson 1934, by quantiles of the Beta distribution).
    """
    right = value * groups
    low = float(beta.ppf((1 - LEVEL) / 2, right, groups - right + 1)) if right > 0 else 0.0
    high = float(beta.ppf((1 + LEVEL) / 2, right + 1, groups - right)) if right < groups else 1.0
    return [min(ends[0], low), max(ends[1], high)]


def with_reach(ends: Sequence[float], value: float, below: float, above: float) -> list[float]:
    """An interval [low, high] around a value that reaches farther, by what does not hang together with it.

    In squares, as MOVER puts intervals of independent parts together (Zou & Donner, Statistics in Medicine 2008).
    """
    low, high = ends
    return [float(value - np.hypot(value - low, below)), float(value + np.hypot(high - value, above))]


def _weighted(values: NDArray[Any], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R, ...) sums over groups of (groups, ...) values, each as often as it was drawn."""
    return np.tensordot(draws.astype(np.float64), values.astype(np.float64), axes=1)


def _ranking(items: Predictions, draws: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R, C) AUROC and (R, C) average precision of each class against the rest, items weighted by how often their group was drawn."""
    areas = np.full((len(draws), items.class_count), np.nan)
    averages = areas.copy()
    for index in range(items.class_count):
        order = np.argsort(-items.probabilities[:, index], kind="stable")
        ranked = items.probabilities[order, index]
        group = items.groups[order]
        positive = np.flatnonzero(items.truth[order] == index)
        # Of each positive item: how many items stand before those of equal probability, and how many up to and with them.
        before = np.searchsorted(-ranked, -ranked[positive], side="left")
        upto = np.searchsorted(-ranked, -ranked[positive], side="right")
        before_positive, upto_positive = np.searchsorted(positive, before), np.searchsorted(positive, upto)
        for start in range(0, len(draws), _DRAWS_AT_ONCE):
            rows = slice(start, start + _DRAWS_AT_ONCE)
            weights = draws[rows].T.astype(np.float64)[group]
            all_ = _running(weights)
            own = _running(weights[positive])
            right, named = own[upto_positive], all_[upto]
            wrong = ((named - right) + (all_[before] - own[before_positive])) / 2
            positives, negatives = own[-1], all_[-1] - own[-1]
            with np.errstate(invalid="ignore", divide="ignore"):
                precision = np.where(named > 0, right / named, 0.0)
                areas[rows, index] = (weights[positive] * (negatives - wrong)).sum(axis=0) / (positives * negatives)
                average = (weights[positive] * precision).sum(axis=0) / positives
                averages[rows, index] = np.where(negatives > 0, average, np.nan)
    return areas, averages


def _running(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n + 1, R): sums of the first 0, 1, ... n rows."""
    return np.concatenate([np.zeros((1, weights.shape[1])), np.cumsum(weights, axis=0)])
