"""Metrics of held-out predictions, by frame and by video, with intervals that resample whole groups.

In: true class indices, class probabilities and the group of each item. Out: plain dictionaries of floats (None where a metric is not
defined). scikit-learn computes the metrics themselves; the bootstrap works on sums of per-group confusion matrices, which gives the same
numbers and takes milliseconds. Every draw is seeded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support, recall_score, roc_auc_score

RESAMPLES = 1000
INTERVAL_PERCENTILES = (2.5, 97.5)
CALIBRATION_BINS = 10
RESAMPLED_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class Predictions:
    """Held-out predictions of n items (frames or videos) over C classes.

    Attributes:
        truth: (n,) class indices.
        probabilities: (n, C); rows sum to 1.
        groups: (n,) indices of the independent group that each item belongs to.
    """

    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    groups: NDArray[np.int64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(n,) the most probable class; the first of them when several are equally probable."""
        return self.probabilities.argmax(axis=1)

    @property
    def class_count(self) -> int:
        """C."""
        return self.probabilities.shape[1]

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Predictions:
        """The predictions of some of the items."""
        return Predictions(self.truth[rows], self.probabilities[rows], self.groups[rows])


def by_video(frames: Predictions, videos: NDArray[np.int64]) -> Predictions:
    """One prediction a video: the mean of its frames' probabilities.

    Args:
        frames: Predictions of n frames.
        videos: (n,) index of each frame's video; all frames of a video share truth and group.
    """
    _, first, inverse, counts = np.unique(videos, return_index=True, return_inverse=True, return_counts=True)
    sums = np.zeros((len(first), frames.class_count))
    np.add.at(sums, inverse, frames.probabilities)
    return Predictions(frames.truth[first], sums / counts[:, None], frames.groups[first])


def concatenate(parts: list[Predictions]) -> Predictions:
    """All parts one after the other."""
    return Predictions(
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.groups for part in parts]),
    )


def scores(predictions: Predictions) -> dict[str, float | None]:
    """Accuracy, balanced accuracy, macro F1, macro one-vs-rest AUROC, calibration error and majority-class rate.

    Balanced accuracy (mean recall), macro F1 and AUROC are means over the classes that occur in `truth`: a class without a single true
    item has no recall. AUROC is None when fewer than two classes occur. The majority-class rate is the accuracy of always naming the most
    frequent class of `truth`.
    """
    truth, predicted = predictions.truth, predictions.predicted
    present = np.unique(truth)
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "balanced_accuracy": float(recall_score(truth, predicted, labels=present, average="macro", zero_division=0)),
        "macro_f1": float(f1_score(truth, predicted, labels=present, average="macro", zero_division=0)),
        "auroc": auroc(predictions),
        "calibration_error": calibration_error(predictions),
        "majority_rate": float(np.bincount(truth).max() / len(truth)),
    }


def auroc(predictions: Predictions) -> float | None:
    """Mean over the classes that occur of the one-vs-rest area under the ROC curve; None when fewer than two classes occur."""
    present = np.unique(predictions.truth)
    if len(present) < 2:
        return None
    areas = [roc_auc_score(predictions.truth == index, predictions.probabilities[:, index]) for index in present]
    return float(np.mean(areas))


def calibration_error(predictions: Predictions, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error of the winning class' probability, equal-width bins (Guo et al. 2017, equation 3); 0 is best, 1 worst."""
    confidence = predictions.probabilities.max(axis=1)
    correct = (predictions.predicted == predictions.truth).astype(np.float64)
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(which, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def confusion(predictions: Predictions) -> NDArray[np.int64]:
    """(C, C) counts: rows are the truth, columns the prediction."""
    return confusion_matrix(predictions.truth, predictions.predicted, labels=np.arange(predictions.class_count)).astype(np.int64)


def per_class(predictions: Predictions) -> list[dict[str, float | int | None]]:
    """Precision, recall, F1 and support of each class; precision is None for a class never named, recall for a class that never occurs."""
    labels = np.arange(predictions.class_count)
    precision, recall, f1, support = precision_recall_fscore_support(
        predictions.truth, predictions.predicted, labels=labels, zero_division=np.nan
    )
    return [
        {"precision": _number(precision[k]), "recall": _number(recall[k]), "f1": _number(f1[k]), "support": int(support[k])} for k in labels
    ]


def spread(values: list[float | None]) -> dict[str, float | int | None]:
    """Mean and standard deviation (n - 1) of the values that are defined, and how many those are."""
    defined = np.array([value for value in values if value is not None], dtype=np.float64)
    return {
        "mean": float(defined.mean()) if len(defined) else None,
        "std": float(defined.std(ddof=1)) if len(defined) > 1 else None,
        "count": len(defined),
    }


def group_confusions(predictions: Predictions, group_count: int) -> NDArray[np.int64]:
    """(group_count, C, C): each group's own confusion matrix, rows the truth."""
    matrices = np.zeros((group_count, predictions.class_count, predictions.class_count), dtype=np.int64)
    np.add.at(matrices, (predictions.groups, predictions.truth, predictions.predicted), 1)
    return matrices


def bootstrap_draws(group_count: int, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """(resamples, group_count): how often each group stands in each resample of `group_count` groups drawn with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(group_count, np.full(group_count, 1.0 / group_count), size=resamples)


def resampled_scores(matrices: NDArray[np.int64], draws: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The resampled metrics, each (resamples,), from per-group confusion matrices.

    The cluster bootstrap (Davison & Hinkley 1997, section 3.8): whole groups are drawn with replacement, because frames of one patient are
    no independent observations. Drawing a group twice adds its confusion matrix twice, so a resample's matrix is a weighted sum.

    Args:
        matrices: (groups, C, C) from `group_confusions`.
        draws: (resamples, groups) from `bootstrap_draws`; give the same draws to two models for a paired comparison.
    """
    summed = np.tensordot(draws.astype(np.float64), matrices.astype(np.float64), axes=1)
    return scores_of_confusion(summed)


def scores_of_confusion(matrices: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Accuracy, balanced accuracy and macro F1 of (..., C, C) confusion matrices, over the classes that occur in each; NaN for an empty
    one."""
    correct = np.diagonal(matrices, axis1=-2, axis2=-1)
    true_items, named_items = matrices.sum(axis=-1), matrices.sum(axis=-2)
    present = true_items > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        class_count = present.sum(axis=-1)
        recall = np.where(present, correct / true_items, 0.0)
        f1 = np.where(present, 2 * correct / (true_items + named_items), 0.0)
        return {
            "accuracy": correct.sum(axis=-1) / true_items.sum(axis=-1),
            "balanced_accuracy": recall.sum(axis=-1) / class_count,
            "macro_f1": f1.sum(axis=-1) / class_count,
        }


def interval(values: NDArray[np.float64]) -> list[float]:
    """The percentile interval [low, high] that holds 95 % of the resampled values."""
    low, high = np.nanpercentile(values, INTERVAL_PERCENTILES)
    return [float(low), float(high)]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
