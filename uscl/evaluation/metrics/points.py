"""Metrics of held-out predictions.

In: true class indices and class probabilities. Out: plain dictionaries of floats (None where a metric is not defined). scikit-learn
computes what it has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

from uscl.evaluation.metrics.predictions import Predictions, concatenate

CALIBRATION_BINS = 10
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision", "calibration_error", "brier_score", "log_loss")
CLASS_METRICS = ("precision", "recall", "f1", "auroc", "average_precision")
# They rank items by probability, which is fair among items of one division only: see `pooled_scores`.
RANKING_METRICS = ("auroc", "average_precision")
LOWER_IS_BETTER = ("calibration_error", "brier_score", "log_loss")


def scores(predictions: Predictions) -> dict[str, float | None]:
    """All of `METRICS`, and the majority-class rate.

    Balanced accuracy (mean recall), macro F1, AUROC and average precision are means over the classes that occur in `truth`: a class
    without a single true item has no recall. AUROC and average precision set one class against the rest; they are None when fewer than two
    classes occur. Brier score and log loss: see `brier_score`, `scikit-learn.metrics.log_loss`. The majority-class rate is the accuracy of
    always naming the most frequent class of `truth`.
    """
    truth, predicted = predictions.truth, predictions.predicted
    present = np.unique(truth)
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "balanced_accuracy": float(recall_score(truth, predicted, labels=present, average="macro", zero_division=0)),
        "macro_f1": float(f1_score(truth, predicted, labels=present, average="macro", zero_division=0)),
        "auroc": auroc(predictions),
        "average_precision": average_precision(predictions),
        "calibration_error": calibration_error(predictions),
        "brier_score": brier_score(predictions),
        "log_loss": float(log_loss(truth, predictions.probabilities, labels=np.arange(predictions.class_count))),
        "majority_rate": float(np.bincount(truth).max() / len(truth)),
    }


def pooled_scores(parts: Sequence[Predictions]) -> dict[str, float | None]:
    """`scores` of the parts (seeds) together.

    AUROC and average precision are the mean of the parts' own: they would rank one division's models against another's.
    """
    values = scores(concatenate(list(parts)))
    for name, of in (("auroc", auroc), ("average_precision", average_precision)):
        values[name] = _mean([of(part) for part in parts])
    return values


def auroc(predictions: Predictions) -> float | None:
    """Mean over the classes that occur of the one-vs-rest area under the ROC curve; None when fewer than two classes occur."""
    return _mean([area for area in class_auroc(predictions) if area is not None])


def average_precision(predictions: Predictions) -> float | None:
    """Mean over the classes that occur of the one-vs-rest average precision; None when fewer than two classes occur.

    Average precision is the sum over thresholds of precision times the recall gained, without interpolation. By chance it is the class'
    share of the items, where AUROC is 0.5.
    """
    return _mean([area for area in class_average_precision(predictions) if area is not None])


def class_auroc(predictions: Predictions) -> list[float | None]:
    """Each class' area under the ROC curve against the rest; None for a class that no item has, or every item."""
    return [
        float(roc_auc_score(predictions.truth == index, predictions.probabilities[:, index])) if _both(predictions, index) else None
        for index in range(predictions.class_count)
    ]


def class_average_precision(predictions: Predictions) -> list[float | None]:
    """Each class' average precision against the rest; None for a class that no item has, or every item."""
    return [
        float(average_precision_score(predictions.truth == index, predictions.probabilities[:, index]))
        if _both(predictions, index)
        else None
        for index in range(predictions.class_count)
    ]


def calibration_error(predictions: Predictions, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error of the winning class' probability, equal-width bins (Guo et al. 2017, equation 3); 0 is best, 1 worst.

    It never is below 0, so chance alone lifts it: the fewer items, the more.
    """
    which, gaps = calibration_gaps(predictions, bins)
    return float(np.abs(np.bincount(which, weights=gaps, minlength=bins)).sum() / len(gaps))


def calibration_gaps(predictions: Predictions, bins: int = CALIBRATION_BINS) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(n,) the bin of each item's confidence, and (n,) 1 or 0 for right or wrong less the confidence."""
    confidence = predictions.probabilities.max(axis=1)
    correct = (predictions.predicted == predictions.truth).astype(np.float64)
    return np.minimum((confidence * bins).astype(np.int64), bins - 1), correct - confidence


def reliability(predictions: Predictions, bins: int = CALIBRATION_BINS) -> list[dict[str, float | int | None]]:
    """What a reliability diagram shows: for each bin of confidence how often the winning class is right.

    Returns:
        For each of the bins of equal width: `low` and `high` (the confidence it is for), `count` of items, and their mean `confidence` and
        `accuracy`, None for an empty bin. The mean of |accuracy - confidence|, weighted by count, is the calibration error.
    """
    confidence = predictions.probabilities.max(axis=1)
    which, gaps = calibration_gaps(predictions, bins)
    counts = np.bincount(which, minlength=bins)
    sums = np.bincount(which, weights=confidence, minlength=bins)
    right = np.bincount(which, weights=gaps + confidence, minlength=bins)
    return [
        {
            "low": number / bins,
            "high": (number + 1) / bins,
            "count": int(count),
            "confidence": float(sums[number] / count) if count else None,
            "accuracy": float(right[number] / count) if count else None,
        }
        for number, count in enumerate(counts)
    ]


def brier_score(predictions: Predictions) -> float:
    """Mean over items of the squared distance between probabilities and truth, summed over the classes (Brier 1950); 0 is best, 2 worst."""
    return float(brier_terms(predictions).mean())


def brier_terms(predictions: Predictions) -> NDArray[np.float64]:
    """(n,) each item's part in the Brier score."""
    return ((predictions.probabilities - np.eye(predictions.class_count)[predictions.truth]) ** 2).sum(axis=1)


def log_loss_terms(predictions: Predictions) -> NDArray[np.float64]:
    """(n,) each item's part in the log loss: minus the logarithm of the true class' probability, which scikit-learn takes for at least
    2.2e-16."""
    eps = np.finfo(np.float64).eps
    clipped = np.clip(predictions.probabilities[np.arange(len(predictions.truth)), predictions.truth], eps, 1 - eps)
    return -np.log(clipped)


def confusion(predictions: Predictions) -> NDArray[np.int64]:
    """(C, C) counts: rows are the truth, columns the prediction."""
    return confusion_matrix(predictions.truth, predictions.predicted, labels=np.arange(predictions.class_count)).astype(np.int64)


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


def class_scores_of_confusion(matrices: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """(..., C) precision, recall and F1 of (..., C, C) confusion matrices.

    As in `per_class`: NaN where a class is never named (precision), never occurs (recall), or neither (F1).
    """
    correct = np.diagonal(matrices, axis1=-2, axis2=-1)
    true_items, named_items = matrices.sum(axis=-1), matrices.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"precision": correct / named_items, "recall": correct / true_items, "f1": 2 * correct / (true_items + named_items)}


def per_class(predictions: Predictions) -> list[dict[str, float | int | None]]:
    """Precision, recall, F1, support, AUROC and average precision of each class, against the rest.

    Precision is None for a class never named, recall for a class that never occurs, AUROC and average precision for one that no item has,
    or every item.
    """
    return pooled_per_class([predictions])


def pooled_per_class(parts: Sequence[Predictions]) -> list[dict[str, float | int | None]]:
    """`per_class` of the parts (seeds) together; AUROC and average precision are the mean of the parts' own."""
    together = concatenate(list(parts))
    labels = np.arange(together.class_count)
    precision, recall, f1, support = precision_recall_fscore_support(
        together.truth, together.predicted, labels=labels, zero_division=np.nan
    )
    areas = list(zip(*(class_auroc(part) for part in parts), strict=True))
    averages = list(zip(*(class_average_precision(part) for part in parts), strict=True))
    return [
        {
            "precision": _number(precision[k]),
            "recall": _number(recall[k]),
            "f1": _number(f1[k]),
            "support": int(support[k]),
            "auroc": _mean(areas[k]),
            "average_precision": _mean(averages[k]),
        }
        for k in labels
    ]


def spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Mean and standard deviation (n - 1) of the values that are defined, and how many those are."""
    defined = np.array([value for value in values if value is not None], dtype=np.float64)
    return {
        "mean": float(defined.mean()) if len(defined) else None,
        "std": float(defined.std(ddof=1)) if len(defined) > 1 else None,
        "count": len(defined),
    }


def _both(predictions: Predictions, index: int) -> bool:
    """Whether some items have the class and some do not."""
    return 0 < int((predictions.truth == index).sum()) < len(predictions.truth)


def _mean(values: Sequence[float | None]) -> float | None:
    """None when one of them is, or there is none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined and len(defined) == len(values) else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
