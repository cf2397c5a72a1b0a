"""Metrics against scikit-learn, hand counts and slow loops."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

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


def test_metrics_of_the_published_pocus_recalls() -> None:
    """Recall .9374/.9398/.9685 on 655/349/1112 frames is the published 95.42 % accuracy: 614 + 328 + 1077 of 2116."""
    matrix = np.array([[614, 20, 21], [10, 328, 11], [18, 17, 1077]])
    predictions = from_confusion(matrix)
    assert [round(row["recall"] or 0, 4) for row in metrics.per_class(predictions)] == [0.9374, 0.9398, 0.9685]
    assert metrics.scores(predictions)["accuracy"] == pytest.approx(2019 / 2116)
    assert metrics.scores(predictions)["majority_rate"] == pytest.approx(1112 / 2116)


def test_one_class_has_no_auroc_and_a_missing_class_does_not_count() -> None:
    one = Predictions(np.zeros(4, dtype=np.int64), np.full((4, 3), 1 / 3), np.arange(4))
    assert metrics.scores(one)["auroc"] is None
    assert metrics.scores(one)["balanced_accuracy"] == 1.0, "ties go to the first class"


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.35, 0.65]])
    predictions = Predictions(np.array([0, 1, 0, 1]), probabilities, np.arange(4))
    # Bin .9-1: two items, one right, gap |1 - 1.9| ; bin .6-.7: two items, both right, gap |2 - 1.3|.
    assert metrics.calibration_error(predictions) == pytest.approx((0.9 + 0.7) / 4)
    certain = Predictions(np.array([0, 1]), np.eye(2), np.arange(2))
    assert metrics.calibration_error(certain) == 0.0


def test_a_video_is_the_mean_of_its_frames() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.4, 0.6]])
    frames = Predictions(np.array([0, 0, 1, 0]), probabilities, np.array([5, 5, 6, 5]))
    videos = metrics.by_video(frames, np.array([0, 0, 2, 1]))
    np.testing.assert_allclose(videos.probabilities, [[0.65, 0.35], [0.4, 0.6], [0.2, 0.8]])
    assert videos.truth.tolist() == [0, 0, 1]
    assert videos.groups.tolist() == [5, 5, 6]


def test_bootstrap_equals_a_slow_loop_over_the_same_draws() -> None:
    predictions = random_predictions(3, items=120, groups=9)
    draws = metrics.bootstrap_draws(9, resamples=40, seed=7)
    assert (draws.sum(axis=1) == 9).all()
    fast = metrics.resampled_scores(metrics.group_confusions(predictions, 9), draws)
    for number, draw in enumerate(draws):
        rows = np.concatenate([np.flatnonzero(predictions.groups == group) for group, times in enumerate(draw) for _ in range(times)])
        slow = metrics.scores(predictions.take(rows))
        for name in metrics.RESAMPLED_METRICS:
            assert fast[name][number] == pytest.approx(slow[name])


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


def test_bootstrap_takes_milliseconds() -> None:
    predictions = random_predictions(5, items=20_000, classes=5, groups=300)
    start = time.perf_counter()
    metrics.resampled_scores(metrics.group_confusions(predictions, 300), metrics.bootstrap_draws(300))
    assert time.perf_counter() - start < 0.5


def test_group_interval_covers_where_the_frame_interval_does_not() -> None:
    """Frames of one patient succeed or fail together: the interval by frames is far too narrow, the one by groups holds near 95 %."""
    generator = np.random.default_rng(0)
    groups, frames_each, trials = 40, 25, 150
    covered = {"groups": 0, "frames": 0}
    for trial in range(trials):
        easy = generator.beta(1.4, 0.6, groups)  # the chance to be right, by patient; 0.7 on average
        right = generator.random((groups, frames_each)) < easy[:, None]
        truth = np.tile(np.arange(groups)[:, None] % 2, (1, frames_each))
        predicted = np.where(right, truth, 1 - truth).ravel()
        group = np.repeat(np.arange(groups), frames_each)
        for unit, index, count in (("groups", group, groups), ("frames", np.arange(groups * frames_each), groups * frames_each)):
            predictions = Predictions(truth.ravel(), np.eye(2)[predicted], index)
            draws = metrics.bootstrap_draws(count, resamples=200, seed=trial)
            low, high = metrics.interval(metrics.resampled_scores(metrics.group_confusions(predictions, count), draws)["accuracy"])
            covered[unit] += low <= 0.7 <= high
    assert covered["groups"] / trials > 0.87
    assert covered["frames"] / trials < 0.6


def test_spread_leaves_out_what_is_not_defined() -> None:
    assert metrics.spread([0.5, None, 0.7]) == {"mean": pytest.approx(0.6), "std": pytest.approx(np.std([0.5, 0.7], ddof=1)), "count": 2}
    assert metrics.spread([None]) == {"mean": None, "std": None, "count": 0}
    assert metrics.spread([0.4])["std"] is None
