"""Probes against planted classes and a brute-force vote."""

from __future__ import annotations

import numpy as np
import pytest

from uscl.evaluation import probes


def planted(seed: int, *, rows: int = 90, width: int = 12, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = np.random.default_rng(99).normal(size=(classes, width)) * 4
    return (centres[labels] + generator.normal(size=(rows, width))).astype(np.float32), labels


def test_linear_probe_finds_planted_classes_and_is_blind_to_scale() -> None:
    train, labels = planted(0)
    test, truth = planted(1)
    probabilities, notes = probes.linear_probe(train, labels, test, class_count=3)
    assert notes == []
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == truth).mean() > 0.98
    scale = np.logspace(-3, 3, train.shape[1]).astype(np.float32)
    rescaled, _ = probes.linear_probe(train * scale + 5, labels, test * scale + 5, class_count=3)
    np.testing.assert_allclose(rescaled, probabilities, atol=1e-2)


def test_linear_probe_never_sees_the_held_out_rows() -> None:
    train, labels = planted(0)
    test, _ = planted(1)
    alone, _ = probes.linear_probe(train, labels, test[:1], class_count=3)
    together, _ = probes.linear_probe(train, labels, np.concatenate([test[:1], test[1:] * 1000]), class_count=3)
    np.testing.assert_array_equal(alone[0], together[0])


def test_what_the_optimiser_complains_about_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MAX_ITERATIONS", 1)
    train, labels = planted(0)
    probabilities, notes = probes.linear_probe(train, labels, train, class_count=3)
    assert len(notes) == 1
    assert "converge" in notes[0]
    assert np.isfinite(probabilities).all()


def test_constant_features_give_the_class_shares() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities, _ = probes.linear_probe(np.ones((4, 5), np.float32), labels, np.ones((2, 5), np.float32), class_count=2)
    np.testing.assert_allclose(probabilities, [[0.75, 0.25]] * 2, atol=1e-3)


def test_knn_equals_a_slow_vote() -> None:
    train, labels = planted(2, rows=50)
    test, _ = planted(3, rows=20)
    found = probes.knn_probe(train, labels, test, class_count=3, neighbours=7)
    for row, query in enumerate(test.astype(float)):
        cosine = [float(query @ other / np.linalg.norm(query) / np.linalg.norm(other)) for other in train.astype(float)]
        votes = np.zeros(3)
        for index in sorted(range(len(train)), key=lambda i: -cosine[i])[:7]:
            votes[labels[index]] += np.exp(cosine[index] / 0.07)
        np.testing.assert_allclose(found[row], votes / votes.sum(), rtol=1e-9)


def test_knn_with_fewer_rows_than_neighbours_and_with_zero_features() -> None:
    train = np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32)
    found = probes.knn_probe(train, np.array([0, 1, 1]), np.array([[2, 0], [0, 0]], dtype=np.float32), class_count=3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found[0].argmax() == 0
    np.testing.assert_allclose(found[1], [1 / 3, 2 / 3, 0])
