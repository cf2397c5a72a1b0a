"""Dice and IoU against loops over pixels, items and resamples."""

from __future__ import annotations

import numpy as np
import pytest

from uscl.evaluation.metrics import bootstrap_draws, left_out_draws
from uscl.segmentation.scores import (
    LEVELS,
    MEAN,
    METRICS,
    averages,
    dice,
    differences,
    intervals,
    iou,
    level_items,
    pixel_counts,
    resampled,
)

CLASSES = 3


def looped(truth: np.ndarray, predicted: np.ndarray, value: int) -> tuple[float, float]:
    """Dice and IoU of a class, pixel by pixel."""
    both = either = sizes = 0
    for a, b in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        both += a == value and b == value
        either += a == value or b == value
        sizes += (a == value) + (b == value)
    return (2 * both / sizes, both / either) if either else (1.0, 1.0)


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, CLASSES + 1, (12, 5, 7)).astype(np.uint8)
    truth[:4][truth[:4] == 3] = 0  # the first frames lack a class
    predicted = np.where(generator.random(truth.shape) < 0.6, truth, generator.integers(0, CLASSES + 1, truth.shape)).astype(np.uint8)
    predicted[0][predicted[0] == 3] = 1  # and the prediction of the very first, too
    return truth, predicted


@pytest.fixture(scope="module")
def counts(pictures: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.stack([pixel_counts(a, b, CLASSES) for a, b in zip(*pictures, strict=True)])


VIDEOS = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
GROUPS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3])


def test_dice_and_iou_are_those_of_loops(pictures: tuple[np.ndarray, np.ndarray], counts: np.ndarray) -> None:
    for truth, predicted, own in zip(*pictures, counts, strict=True):
        for index in range(CLASSES):
            assert (dice(own)[index], iou(own)[index]) == pytest.approx(looped(truth, predicted, index + 1))


def test_empty_and_empty_is_one_and_one_of_them_is_none() -> None:
    empty, full = np.zeros((3, 3), np.uint8), np.ones((3, 3), np.uint8)
    for truth, predicted, value in ((empty, empty, 1.0), (empty, full, 0.0), (full, empty, 0.0), (full, full, 1.0)):
        own = pixel_counts(truth, predicted, 1)
        assert dice(own).tolist() == iou(own).tolist() == [value]


def test_a_clip_and_a_group_are_all_their_pixels_together(pictures: tuple[np.ndarray, np.ndarray], counts: np.ndarray) -> None:
    truth, predicted = pictures
    for level, names in (("video", VIDEOS), ("group", GROUPS)):
        items = level_items([counts], level, VIDEOS, GROUPS)
        for name in np.unique(names):
            for index in range(CLASSES):
                expected = looped(truth[names == name], predicted[names == name], index + 1)
                assert (items.values["dice"][name, index], items.values["iou"][name, index]) == pytest.approx(expected)


def test_where_present_leaves_out_items_without_the_class(counts: np.ndarray) -> None:
    items = level_items([counts], "frame", VIDEOS, GROUPS)
    found = averages(items, "dice_where_present")
    assert found["items"] == [(counts[:, index, 2] > 0).sum() for index in range(CLASSES)]
    assert found["items"][2] < len(counts)
    expected = [np.mean([dice(own[index]) for own in counts if own[index, 2] > 0]) for index in range(CLASSES)]
    assert found["classes"] == pytest.approx(expected)
    assert found[MEAN] == pytest.approx(np.mean(expected))
    # The first frame lacks the class in truth and prediction, and counts as right where all items do.
    assert averages(items, "dice")["items"] == [len(counts)] * CLASSES
    assert items.values["dice"][0, 2] == 1.0


def test_a_class_that_nothing_holds_has_no_figure_where_present() -> None:
    counts = np.zeros((2, 2, 3), dtype=np.int64)
    counts[:, 0] = 4
    items = level_items([counts], "frame", np.array([0, 1]), np.array([0, 1]))
    assert averages(items, "dice_where_present") == {MEAN: 1.0, "classes": [1.0, None], "items": [2, 0]}
    drawn = resampled(items, "dice_where_present", np.concatenate([bootstrap_draws(2), left_out_draws(2)]))
    assert intervals(items, "dice_where_present", drawn)[2] is None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("metric", METRICS)
def test_resamples_are_those_of_repeated_groups(counts: np.ndarray, level: str, metric: str) -> None:
    items = level_items([counts], level, VIDEOS, GROUPS)
    draws = bootstrap_draws(4, resamples=6)
    drawn = resampled(items, metric, draws)
    for row, times in zip(drawn, draws, strict=True):
        chosen = [place for group, count in enumerate(times) for _ in range(count) for place in np.flatnonzero(items.groups == group)]
        values = items.values[metric][chosen]
        expected = [np.mean(column[np.isfinite(column)]) if np.isfinite(column).any() else np.nan for column in values.T]
        np.testing.assert_allclose(row[1:], expected)
        assert row[0] == pytest.approx(np.nanmean(expected))


def test_a_class_that_is_never_found_may_be_in_the_next_group() -> None:
    counts = np.zeros((8, 1, 3), dtype=np.int64)
    counts[..., 2] = 5
    items = level_items([counts], "frame", np.arange(8), np.arange(8))
    ends = intervals(items, "dice", resampled(items, "dice", np.concatenate([bootstrap_draws(8), left_out_draws(8)])))
    # Clopper and Pearson's upper end of none of eight.
    assert ends == [pytest.approx([0, 1 - 0.025 ** (1 / 8)])] * 2


def test_seeds_are_averaged_by_item(counts: np.ndarray) -> None:
    better = counts.copy()
    better[..., 0] = better[..., 1] = better[..., 2]
    both = level_items([counts, better], "frame", VIDEOS, GROUPS)
    np.testing.assert_allclose(both.values["dice"], (dice(counts) + 1) / 2)


def test_intervals_hold_the_figure_and_differences_are_paired(counts: np.ndarray) -> None:
    shifted = counts.copy()
    shifted[..., 0] = np.maximum(shifted[..., 0] - 1, 0)
    draws = np.concatenate([bootstrap_draws(4), left_out_draws(4)])
    items = {name: {level: level_items([own], level, VIDEOS, GROUPS) for level in LEVELS} for name, own in (("a", counts), ("b", shifted))}
    drawn = {
        name: {level: {metric: resampled(own[level], metric, draws) for metric in METRICS} for level in LEVELS}
        for name, own in items.items()
    }
    for level in LEVELS:
        ends = intervals(items["a"][level], "dice", drawn["a"][level]["dice"])[0]
        assert ends is not None
        assert ends[0] <= averages(items["a"][level], "dice")[MEAN] <= ends[1]
    found = differences(["a", "b"], "a", items, drawn, ["x", "y", "z"])
    row = next(row for row in found if row["level"] == "frame" and row["metric"] == "dice" and row["class"] is None)
    assert row["difference"] == pytest.approx(averages(items["b"]["frame"], "dice")[MEAN] - averages(items["a"]["frame"], "dice")[MEAN])
    # Every frame is worse by about as much, so the difference is sure though the figures are not.
    assert row["established"]
    low, high = row["interval"]
    ends = intervals(items["a"]["frame"], "dice", drawn["a"]["frame"]["dice"])[0]
    assert ends is not None
    assert high - low < ends[1] - ends[0]
