"""Which epoch is taken, against brute force; and who chooses it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from uscl.evaluation.choosing import best_on_test, best_validated, validation_rows
from usdata.errors import UserError


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_choices_equal_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = np.concatenate([[0, 1, 2], generator.integers(0, 3, 9)])
    probabilities = generator.dirichlet((1, 1, 1), size=(6, 12))
    accuracy = [accuracy_score(truth, each.argmax(axis=1)) for each in probabilities]
    assert best_on_test(probabilities, truth) == accuracy.index(max(accuracy))
    balanced = [balanced_accuracy_score(truth, each.argmax(axis=1)) for each in probabilities]
    tied = [epoch for epoch, value in enumerate(balanced) if value == pytest.approx(max(balanced))]
    assert best_validated(probabilities, truth) == min(tied, key=lambda epoch: log_loss(truth, probabilities[epoch], labels=[0, 1, 2]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15)), min_size=1, max_size=60), st.integers(0, 9))
def test_validation_is_of_whole_groups_and_takes_no_last_group(rows: list[tuple[int, int]], seed: int) -> None:
    labels = np.array([label for label, _ in rows])
    groups = np.array([f"g{group}" for _, group in rows])
    several_groups = sum(len(set(groups[labels == label])) > 1 for label in set(labels.tolist()))
    if several_groups < 2:
        with pytest.raises(UserError, match="--choose-epochs"):
            validation_rows(labels, groups, seed=(seed, 0), subject="set")
        return
    if any(len(set(labels[groups == group])) > 1 for group in set(groups.tolist())):
        return  # whether groups of several labels leave any to choose on depends on them
    apart = validation_rows(labels, groups, seed=(seed, 0), subject="set")
    rest = np.setdiff1d(np.arange(len(labels)), apart)
    assert set(groups[apart]).isdisjoint(groups[rest])
    assert set(labels[rest]) == set(labels)
    assert len(set(labels[apart])) >= 2


def test_validation_holds_a_fifth_of_each_labels_groups() -> None:
    labels = np.repeat([0] * 20 + [1] * 10, 3)
    groups = np.repeat([f"g{group:02d}" for group in range(30)], 3)
    apart = validation_rows(labels, groups, seed=(0, 0), subject="set")
    assert np.bincount(labels[apart]).tolist() == [12, 6]
    other = validation_rows(labels, groups, seed=(1, 0), subject="set")
    assert apart.tolist() != other.tolist()
