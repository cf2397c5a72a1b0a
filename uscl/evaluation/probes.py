"""Probes of frozen features: logistic regression and k nearest neighbours.

In: features and class indices of the training folds, features of the held-out fold. Out: class probabilities of the held-out rows. Nothing
is fitted on, or chosen by, held-out rows: the standardisation comes from the training rows, and no hyperparameter is tuned.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

REGULARISATION_C = 1.0
MAX_ITERATIONS = 5000
NEIGHBOURS = 20
NEIGHBOUR_TEMPERATURE = 0.07
QUERY_BATCH = 1024


def linear_probe(
    train: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32], *, class_count: int
) -> tuple[NDArray[np.float64], list[str]]:
    """Probabilities of the held-out rows by multinomial logistic regression on standardised features.

    L2 penalty with C = 1, lbfgs, no class weights, all fixed beforehand.

    Args:
        train: (n, D) features of the training rows.
        labels: (n,) their class indices; every class occurs.
        test: (m, D) features of the held-out rows.
        class_count: C.

    Returns:
        (m, C) probabilities, and what the optimiser complained about (nothing when it converged).
    """
    scaler, model, notes = fit_logistic(train, labels)
    probabilities = np.zeros((len(test), class_count))
    probabilities[:, model.classes_] = model.predict_proba(scaler.transform(test.astype(np.float64)))
    return probabilities, notes


def fit_logistic(train: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[StandardScaler, LogisticRegression, list[str]]:
    """The standardisation, the logistic regression behind it, and what the optimiser complained about; see `linear_probe`."""
    scaler = StandardScaler().fit(train.astype(np.float64))
    model = LogisticRegression(C=REGULARISATION_C, max_iter=MAX_ITERATIONS)
    # One BLAS thread: the products are small, and threads that wait for each other on a busy machine took twelve times as long.
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(scaler.transform(train.astype(np.float64)), labels)
    return scaler, model, [f"logistic regression: {' '.join(str(warning.message).split())}" for warning in caught]


def knn_probe(
    train: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32], *, class_count: int, neighbours: int = NEIGHBOURS
) -> NDArray[np.float64]:
    """Probabilities of the held-out rows by their nearest training rows.

    Cosine similarity s, the `neighbours` nearest (fewer when there are fewer training rows), each voting for its class with weight
    exp(s / 0.07) (Wu et al. 2018, section 3.4). Of equally near rows the earlier counts.

    Args:
        train: (n, D) features of the training rows.
        labels: (n,) their class indices.
        test: (m, D) features of the held-out rows.
        class_count: C.
        neighbours: k.

    Returns:
        (m, C) shares of the votes.
    """
    k = min(neighbours, len(train))
    bank = _unit_rows(train)
    one_hot = np.eye(class_count)[labels]
    votes = np.zeros((len(test), class_count))
    for start in range(0, len(test), QUERY_BATCH):
        similarity = _unit_rows(test[start : start + QUERY_BATCH]) @ bank.T
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        near = np.take_along_axis(similarity, nearest, axis=1)
        # Only ratios of the weights matter; with the largest exponent at zero none overflows.
        weights = np.exp((near - near[:, :1]) / NEIGHBOUR_TEMPERATURE)
        votes[start : start + QUERY_BATCH] = np.einsum("mk,mkc->mc", weights, one_hot[nearest])
    return votes / votes.sum(axis=1, keepdims=True)


def _unit_rows(features: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = features.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
