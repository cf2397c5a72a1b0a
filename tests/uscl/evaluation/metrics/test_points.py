"""Metrics against scikit-learn, hand counts and published figures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, log_loss, roc_auc_score

from uscl.evaluation import metrics
from uscl.evaluation.metrics import Predictions


def random_predictions(seed: int, *, items: int = 200, classes: int = 3, groups: int = 20, signal: float = 1.0) -> Predictions:
    generator = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), generator.integers(0, classes, items - classes)])
    logits = generator.normal(size=(items, classes)) + signal * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    group = np.concatenate([np.arange(groups), generator.integers(0, groups, items - groups)])
    return Predictions(truth, probabilities, group)


def from_confusion(matrix: np.ndarray) -> Predictions:
    """Items whose confusion matrix is the given one."""
    truth, predicted = [np.repeat(indices.ravel(), matrix.ravel()) for indices in np.indices(matrix.shape)]
    return Predictions(truth, np.eye(len(matrix))[predicted], np.zeros(len(truth), dtype=np.int64))


@pytest.mark.parametrize(("seed", "classes"), [(0, 2), (1, 3), (2, 7)])
def test_scores_agree_with_scikit_learn(seed: int, classes: int) -> None:
    predictions = random_predictions(seed, classes=classes)
    found = metrics.scores(predictions)
    assert found["accuracy"] == pytest.approx(np.mean(predictions.predicted == predictions.truth))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(predictions.truth, predictions.predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(predictions.truth, predictions.predicted, average="macro"))
    scores = predictions.probabilities[:, 1] if classes == 2 else predictions.probabilities
    assert found["auroc"] == pytest.approx(roc_auc_score(predictions.truth, scores, multi_class="ovr", average="macro"))
    one_hot = np.eye(classes)[predictions.truth]
    assert found["average_precision"] == pytest.approx(average_precision_score(one_hot, predictions.probabilities, average="macro"))
    assert found["log_loss"] == pytest.approx(log_loss(predictions.truth, predictions.probabilities))
    for index, row in enumerate(metrics.per_class(predictions)):
        assert row["auroc"] == pytest.approx(roc_auc_score(one_hot[:, index], predictions.probabilities[:, index]))
        assert row["average_precision"] == pytest.approx(average_precision_score(one_hot[:, index], predictions.probabilities[:, index]))


@pytest.mark.parametrize("ties", [False, True])
def test_scores_equal_an_independent_reimplementation_with_loops(ties: bool) -> None:
    predictions = random_predictions(11, items=60)
    if ties:
        rounded = np.round(predictions.probabilities * 4) + 1
        predictions = Predictions(predictions.truth, rounded / rounded.sum(axis=1, keepdims=True), predictions.groups)
    probabilities, truth = predictions.probabilities.tolist(), predictions.truth.tolist()
    areas, averages = [], []
    for index in range(3):
        ours = [row[index] for row, label in zip(probabilities, truth, strict=True) if label == index]
        others = [row[index] for row, label in zip(probabilities, truth, strict=True) if label != index]
        areas.append(np.mean([1.0 if own > other else 0.5 if own == other else 0.0 for own in ours for other in others]))
        averages.append(np.mean([sum(o >= own for o in ours) / sum(o >= own for o in ours + others) for own in ours]))
    found = metrics.scores(predictions)
    assert found["auroc"] == pytest.approx(np.mean(areas))
    assert found["average_precision"] == pytest.approx(np.mean(averages))
    brier = [sum((p - (index == label)) ** 2 for index, p in enumerate(row)) for row, label in zip(probabilities, truth, strict=True)]
    assert found["brier_score"] == pytest.approx(np.mean(brier))
    assert found["log_loss"] == pytest.approx(np.mean([-np.log(row[label]) for row, label in zip(probabilities, truth, strict=True)]))


def test_precision_and_recall_of_a_known_matrix() -> None:
    matrix = np.array([[8, 2, 0], [1, 15, 4], [0, 0, 0]])
    predictions = from_confusion(matrix)
    assert (metrics.confusion(predictions) == matrix).all()
    first, second, absent = metrics.per_class(predictions)
    assert (first["precision"], first["recall"], first["support"]) == (pytest.approx(8 / 9), pytest.approx(0.8), 10)
    assert (second["precision"], second["recall"], second["support"]) == (pytest.approx(15 / 17), pytest.approx(0.75), 20)
    assert (absent["precision"], absent["recall"], absent["support"]) == (0.0, None, 0)
    found = metrics.scores(predictions)
    assert found["accuracy"] == pytest.approx(23 / 30)
    assert found["balanced_accuracy"] == pytest.approx((0.8 + 0.75) / 2), "a class that never occurs has no recall"
    assert found["majority_rate"] == pytest.approx(20 / 30)


def published_matrices() -> list[np.ndarray]:
    """All whole-number confusion matrices of 655 COVID-19, 349 pneumonia and 1,112 regular frames with the published recall and precision.

    Recall gives the diagonal, precision the column sums; one count of the six that are left is then free.
    """
    rows, recalls, precisions = (655, 349, 1112), (0.9374, 0.9398, 0.9685), (0.9446, 0.9507, 0.9607)
    found = []
    diagonals = [
        [right for right in range(total + 1) if round(right / total, 4) == recall] for total, recall in zip(rows, recalls, strict=True)
    ]
    for right in itertools.product(*diagonals):
        columns = [
            [total for total in range(own, 2117) if round(own / total, 4) == precision]
            for own, precision in zip(right, precisions, strict=True)
        ]
        for named in itertools.product(*columns):
            for free in range(rows[0] - right[0] + 1):
                first = rows[0] - right[0] - free
                third_second = named[1] - right[1] - free
                third_first = rows[2] - right[2] - third_second
                second_first = named[0] - right[0] - third_first
                second_third = rows[1] - right[1] - second_first
                matrix = np.array([[right[0], free, first], [second_first, right[1], second_third], [third_first, third_second, right[2]]])
                if (matrix >= 0).all() and matrix[:, 2].sum() == named[2]:
                    found.append(matrix)
    return found


def test_the_published_figures_of_pocus() -> None:
    """Recall .9374/.9398/.9685, precision .9446/.9507/.9607, 2019 of 2116: 18 matrices have these, and all say the same but who is taken
    for whom."""
    matrices = published_matrices()
    assert len(matrices) == 18
    assert {tuple(np.diagonal(matrix)) for matrix in matrices} == {(614, 328, 1077)}
    assert {tuple(matrix.sum(axis=0)) for matrix in matrices} == {(650, 345, 1121)}
    for matrix in matrices:
        predictions = from_confusion(matrix)
        assert (metrics.confusion(predictions) == matrix).all()
        rows = metrics.per_class(predictions)
        assert [round(row["recall"] or 0, 4) for row in rows] == [0.9374, 0.9398, 0.9685]
        assert [round(row["precision"] or 0, 4) for row in rows] == [0.9446, 0.9507, 0.9607]
        assert [row["support"] for row in rows] == [655, 349, 1112]
        found = metrics.scores(predictions)
        assert round((found["accuracy"] or 0) * 2116) == 2019
        assert round(100 * (found["accuracy"] or 0), 2) == 95.42
        assert round(100 * (found["majority_rate"] or 0), 1) == 52.6
        assert found["macro_f1"] == pytest.approx(np.mean([2 * 614 / 1305, 2 * 328 / 694, 2 * 1077 / 2233]))
        assert found["balanced_accuracy"] == pytest.approx(np.mean([614 / 655, 328 / 349, 1077 / 1112]))


def test_one_class_has_no_auroc_and_a_missing_class_does_not_count() -> None:
    one = Predictions(np.zeros(4, dtype=np.int64), np.full((4, 3), 1 / 3), np.arange(4))
    assert metrics.scores(one)["auroc"] is None
    assert metrics.scores(one)["average_precision"] is None
    assert metrics.per_class(one)[0]["auroc"] is None
    assert metrics.scores(one)["balanced_accuracy"] == 1.0, "ties go to the first class"


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.35, 0.65]])
    predictions = Predictions(np.array([0, 1, 0, 1]), probabilities, np.arange(4))
    # Bin .9-1: two items, one right, gap |1 - 1.9| ; bin .6-.7: two items, both right, gap |2 - 1.3|.
    assert metrics.calibration_error(predictions) == pytest.approx((0.9 + 0.7) / 4)
    certain = Predictions(np.array([0, 1]), np.eye(2), np.arange(2))
    assert metrics.calibration_error(certain) == 0.0


def test_reliability_bins_hold_all_items_and_give_the_calibration_error() -> None:
    predictions = random_predictions(4, items=300)
    bins = metrics.reliability(predictions)
    confidence, right = predictions.probabilities.max(axis=1), predictions.predicted == predictions.truth
    assert sum(row["count"] or 0 for row in bins) == 300
    assert bins[0] == {"low": 0.0, "high": 0.1, "count": 0, "confidence": None, "accuracy": None}, "three classes: one has a third"
    error = 0.0
    for row in bins:
        inside = (confidence >= row["low"]) & (confidence < row["high"])
        assert row["count"] == inside.sum()
        if inside.any():
            assert row["confidence"] == pytest.approx(confidence[inside].mean())
            assert row["accuracy"] == pytest.approx(right[inside].mean())
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.calibration_error(predictions) == pytest.approx(error)


def test_seeds_are_pooled_but_never_ranked_against_each_other() -> None:
    """One seed's probabilities are much surer: together they would rank worse than each does."""
    first = random_predictions(6)
    second = Predictions(first.truth, (first.probabilities + 3) / 10, first.groups)
    together = metrics.pooled_scores([first, second])
    assert together["auroc"] == pytest.approx(metrics.auroc(first))
    assert together["auroc"] != pytest.approx(metrics.auroc(metrics.concatenate([first, second])), abs=1e-3)
    assert together["average_precision"] == pytest.approx(metrics.average_precision(first))
    assert together["accuracy"] == pytest.approx(metrics.scores(first)["accuracy"])
    rows = metrics.pooled_per_class([first, second])
    assert [row["auroc"] for row in rows] == pytest.approx(metrics.class_auroc(first))
    assert [row["support"] for row in rows] == (2 * np.bincount(first.truth)).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 30))
def test_matrix_scores_equal_item_scores_for_any_predictions(seed: int, classes: int, items: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, items)
    predictions = Predictions(truth, np.eye(classes)[generator.integers(0, classes, items)], np.zeros(items, dtype=np.int64))
    by_item = metrics.scores(predictions)
    by_matrix = metrics.scores_of_confusion(metrics.confusion(predictions)[None].astype(float))
    for name in metrics.RESAMPLED_METRICS:
        assert by_matrix[name][0] == pytest.approx(by_item[name])


def test_spread_leaves_out_what_is_not_defined() -> None:
    assert metrics.spread([0.5, None, 0.7]) == {"mean": pytest.approx(0.6), "std": pytest.approx(np.std([0.5, 0.7], ddof=1)), "count": 2}
    assert metrics.spread([None]) == {"mean": None, "std": None, "count": 0}
    assert metrics.spread([0.4])["std"] is None
