"""Resampled metrics against slow loops, intervals against closed forms, and coverage of a planted truth."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from tests.benchmark_programs import program
from tests.uscl.evaluation.metrics.test_points import random_predictions
from uscl.evaluation import metrics
from uscl.evaluation.metrics import Predictions


def rounded(predictions: Predictions) -> Predictions:
    """With many equal probabilities."""
    coarse = np.round(predictions.probabilities * 5) + 1
    return Predictions(predictions.truth, coarse / coarse.sum(axis=1, keepdims=True), predictions.groups)


@pytest.mark.parametrize("ties", [False, True])
def test_all_resampled_metrics_equal_scikit_learn_on_the_resampled_items(ties: bool) -> None:
    parts = [random_predictions(3, items=120, groups=9), random_predictions(4, items=120, groups=9)]
    parts = [Predictions(parts[0].truth, part.probabilities, parts[0].groups) for part in parts]
    parts = [rounded(part) for part in parts] if ties else parts
    draws = np.concatenate([metrics.bootstrap_draws(9, resamples=6, seed=7), metrics.left_out_draws(9)])
    assert (draws.sum(axis=1) == [9] * 6 + [8] * 9).all()
    fast = metrics.resample(parts, draws)
    assert set(fast.overall) == set(metrics.METRICS)
    assert set(fast.by_class) == set(metrics.CLASS_METRICS)
    for number, draw in enumerate(draws):
        rows = np.concatenate([np.flatnonzero(parts[0].groups == group) for group, times in enumerate(draw) for _ in range(times)])
        drawn = [part.take(rows) for part in parts]
        slow = metrics.pooled_scores(drawn)
        for name in metrics.METRICS:
            assert fast.overall[name][number] == pytest.approx(slow[name]), name
        for index, row in enumerate(metrics.pooled_per_class(drawn)):
            for name in metrics.CLASS_METRICS:
                assert fast.by_class[name][number, index] == pytest.approx(row[name]), name
    confusions = metrics.group_confusions(metrics.concatenate(parts), 9)
    for name, values in metrics.resampled_scores(confusions, draws).items():
        np.testing.assert_allclose(values, fast.overall[name])


def test_a_resample_without_a_class_counts_over_the_others() -> None:
    predictions = random_predictions(1, items=60, groups=6)
    predictions = Predictions(predictions.groups // 2, predictions.probabilities, predictions.groups)  # class 0: groups 0 and 1
    draws = np.array([[0, 0, 2, 1, 2, 1], [0, 0, 0, 0, 3, 3]])
    found = metrics.resample([predictions], draws)
    left = np.concatenate([np.flatnonzero(predictions.groups == group) for group in (2, 2, 3, 4, 4, 5)])
    slow = metrics.scores(predictions.take(left))
    for name in ("balanced_accuracy", "auroc", "average_precision"):
        assert found.overall[name][0] == pytest.approx(slow[name])
    assert np.isnan(found.by_class["recall"][0, 0])
    assert np.isnan(found.by_class["auroc"][0, 0])
    assert np.isnan(found.overall["auroc"][1]), "one class alone has no AUROC"
    assert metrics.interval(found.overall["auroc"][1:]) == pytest.approx([np.nan, np.nan], nan_ok=True)


def test_resampling_is_quick() -> None:
    predictions = random_predictions(5, items=20_000, classes=5, groups=300)
    start = time.process_time()
    metrics.resampled_scores(metrics.group_confusions(predictions, 300), metrics.bootstrap_draws(300))
    assert time.process_time() - start < 1


def test_the_same_seed_gives_the_same_draws() -> None:
    assert (metrics.bootstrap_draws(7, seed=3) == metrics.bootstrap_draws(7, seed=3)).all()
    assert (metrics.bootstrap_draws(7, seed=3) != metrics.bootstrap_draws(7, seed=4)).any()


def test_effective_numbers_of_groups() -> None:
    equal = np.repeat([[5, 0], [0, 7]], 4, axis=0)
    np.testing.assert_allclose(metrics.effective_groups(equal), [4, 4])
    np.testing.assert_allclose(metrics.effective_groups(np.array([[100, 0], [1, 0], [1, 0]])), 102**2 / 10_002)
    # One class, equal groups: Hesterberg's widening of the interval of a mean.
    one = np.full((20, 1), 3)
    assert metrics.widened_quantile(one) == pytest.approx(t.ppf(0.975, 19) * np.sqrt(20 / 19))
    assert metrics.widened_quantile(np.full((100_000, 3), 2)) == pytest.approx(norm.ppf(0.975), abs=1e-3)
    assert metrics.widened_quantile(np.eye(3, dtype=np.int64)) == pytest.approx(t.ppf(0.975, 1)), "one group a class"
    assert metrics.widened_quantile(equal) > metrics.widened_quantile(np.concatenate([equal, equal]))


def test_the_interval_of_a_mean_is_students() -> None:
    """For values without skewness the widened percentiles are mean +- t s / sqrt(g)."""
    generator = np.random.default_rng(0)
    values = np.sort(generator.normal(size=12))
    values = np.concatenate([values, -values])
    draws = metrics.bootstrap_draws(24, resamples=40_000)
    means = draws @ values / 24
    wide = metrics.widened_quantile(np.ones((24, 1), dtype=np.int64))
    skew = metrics.acceleration((metrics.left_out_draws(24) @ values) / 23)
    assert skew == pytest.approx(0, abs=1e-12)
    low, high = metrics.interval(means, quantile=wide, skew=skew)
    reach = t.ppf(0.975, 23) * values.std(ddof=1) / np.sqrt(24)
    assert (low, high) == (pytest.approx(-reach, rel=0.05), pytest.approx(reach, rel=0.05))


def test_acceleration_moves_both_ends_towards_the_long_tail() -> None:
    values = np.random.default_rng(1).exponential(size=15)
    left_out = (metrics.left_out_draws(15) @ values) / 14
    skew = metrics.acceleration(left_out)
    centred = values - values.mean()
    assert skew == pytest.approx((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
    assert skew > 0.02
    # Resampled values that are normal quantiles themselves: the ends are z / (1 - skew z) (Efron 1987, equation 6.6 without bias).
    resampled = norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    assert metrics.interval(resampled) == pytest.approx([-1.96, 1.96], abs=0.001)
    assert metrics.interval(resampled, quantile=2.2, skew=0.05) == pytest.approx([-2.2 / 1.11, 2.2 / 0.89], abs=0.001)
    assert metrics.interval(resampled, quantile=2.2, skew=0.6)[1] == resampled.max(), "past the turning point: the last resample"
    assert metrics.acceleration(np.full(5, 0.7)) == 0


def test_all_right_is_not_certain() -> None:
    """Of 12 groups all are right: by the binomial 12 of 12 have [0.735, 1] (Clopper and Pearson 1934)."""
    always = np.ones(50)
    assert metrics.interval(always, groups=12) == [pytest.approx(binomtest(12, 12).proportion_ci(0.95, "exact").low), 1.0]
    assert metrics.interval(1 - always, groups=12) == [0.0, pytest.approx(binomtest(0, 12).proportion_ci(0.95, "exact").high)]
    assert metrics.interval(always) == [1, 1], "not for differences, or what is no share"
    assert metrics.interval(np.array([1.0, 1.0, 0.9]), groups=12)[1] == pytest.approx(1, abs=1e-3)


def test_a_small_class_without_an_error_is_not_certain_either() -> None:
    """25 groups, one of them wrong, and 3 that are all right, of which [0.292, 1] is known (Clopper and Pearson 1934)."""
    truth = np.repeat([0, 1], [25, 3])
    matrices = np.zeros((28, 2, 2), dtype=np.int64)
    matrices[np.arange(28), truth, truth] = 1
    matrices[0, 0] = [0, 1]
    draws = metrics.bootstrap_draws(28, seed=3)
    parts = [Predictions(truth, np.eye(2)[np.where(np.arange(28) == 0, 1, truth)], np.arange(28))]
    recalls = metrics.resample(parts, draws).by_class["recall"]
    items = matrices.sum(axis=2)
    alone = binomtest(3, 3).proportion_ci(0.95, "exact").low
    below = metrics.unvarying_reach(recalls, items, at=1.0)
    assert below == pytest.approx((1 - alone) / 2)
    assert metrics.unvarying_reach(recalls, items, at=0.0) == 0, "a class without an error cannot be better"
    assert metrics.unvarying_reach(recalls[:, [0, 0]], items) == 0, "both vary"
    assert metrics.with_reach([0.8, 0.95], 0.9, 0.0, 0.0) == pytest.approx([0.8, 0.95])
    assert metrics.with_reach([0.8, 0.95], 0.9, 0.24, 0.0) == pytest.approx([0.9 - 0.26, 0.95])


def test_an_interval_of_few_groups_is_never_narrower_than_the_binomials() -> None:
    for right, groups in ((1, 3), (2, 5), (4, 4), (0, 2)):
        exact = binomtest(right, groups).proportion_ci(0.95, "exact")
        assert metrics.at_least_binomial([0.5, 0.5], right / groups, groups) == pytest.approx([min(0.5, exact.low), max(0.5, exact.high)])
    assert metrics.at_least_binomial([0.0, 1.0], 0.5, 4) == [0.0, 1.0], "a wider one stays"
    low, high = metrics.at_least_binomial([0.125, 0.25], 0.17, 2.0)
    assert low == pytest.approx(0, abs=1e-3)
    assert 0.84 < high < 0.99, "between what none and one of two would give"


def test_intervals_cover_where_one_class_is_small() -> None:
    benchmark = program("interval_coverage")
    found = benchmark.small_class_coverage((25, 5), (0.95, 0.80), runs=100)
    assert found[benchmark.OURS][0] < 0.9
    assert found[benchmark.REACHING][0] >= 0.95


@pytest.mark.parametrize("groups", [30])
def test_intervals_cover_and_those_of_frames_do_not(groups: int) -> None:
    """The benchmark in small; docs/results/intervals.md has it whole."""
    benchmark = program("interval_coverage")
    found = benchmark.coverage(groups, benchmark.SIGNALS["weak"], runs=40, population=20_000)
    for case in ("frame accuracy", "frame balanced accuracy", "video accuracy", "video balanced accuracy"):
        assert found[benchmark.REACHING][case]["covered"] >= 0.88
        assert found[benchmark.REACHING_DIFFERENCE][f"{case} difference"]["covered"] >= 0.88
    assert found[benchmark.NAIVE]["frame accuracy"]["covered"] < 0.6
    assert found[benchmark.NAIVE]["frame balanced accuracy"]["covered"] < 0.6


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("groups", [30, 60])
@pytest.mark.parametrize("signal", ["weak", "strong"])
def test_coverage_is_nominal(groups: int, signal: str) -> None:
    """95 ± 3 % of 400 runs."""
    benchmark = program("interval_coverage")
    found = benchmark.coverage(groups, benchmark.SIGNALS[signal], runs=400)
    for case in found[benchmark.REACHING]:
        kind = benchmark.REACHING_DIFFERENCE if case.endswith("difference") else benchmark.REACHING
        assert 0.92 <= found[kind][case]["covered"] <= 0.98, (case, found[kind][case])


def test_choosing_on_the_test_fold_lifts_predictions_that_know_nothing() -> None:
    benchmark = program("selection_optimism")
    runs = [benchmark.drawn(np.random.default_rng([run, 0]), whole_videos=True) for run in range(8)]
    best, last = (np.mean([run[way]["video balanced accuracy"] for run in runs]) for way in (benchmark.BEST, benchmark.LAST))
    assert abs(last - 1 / 3) < 0.05
    assert best > last + 0.12
