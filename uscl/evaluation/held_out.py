"""Every frame judged by a model that did not see it: the fits of all folds of one division, for one of the weights.

In: a backbone, decoded frames, labels, folds, and which rows of the evaluation one fit serves. Out: held-out probabilities for each row and
each share of the labels. Labels of the held-out fold are read by nothing but the published protocol's choice of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uscl.backbones import Backbone
from uscl.evaluation import probes
from uscl.evaluation.choosing import best_on_test, best_validated, validation_rows
from uscl.evaluation.features import pooled_features
from uscl.evaluation.finetune import Inputs, Training, finetune, prepare_inputs
from uscl.evaluation.folds import Folds
from uscl.evaluation.protocols import Row
from uscl.evaluation.shares import WHOLE, labelled_rows
from uscl.frames import FrameStore
from usdata.errors import UserError


@dataclass(frozen=True)
class Judged:
    """What is judged, in one order: rows of the store, class indices, independent groups."""

    store: FrameStore
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    class_count: int
    subject: str


@dataclass
class HeldOut:
    """What the fits of one division gave.

    Attributes:
        probabilities: By the row's key, (n, C).
        by_share: By the share of the labels, (n, C), of the first row.
        used: By the share, for each fold the groups and frames that were trained on.
        chosen: By the row's key, for each fold the epoch that was taken, from 1, where it was chosen.
        notes: What there is to say about the fits.
    """

    probabilities: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    by_share: dict[float, NDArray[np.float64]] = field(default_factory=dict)
    used: dict[float, list[dict[str, int]]] = field(default_factory=dict)
    chosen: dict[str, list[dict[str, int]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def hold_out(
    kind: str,
    backbone: Backbone,
    judged: Judged,
    division: Folds,
    alike: Sequence[Row],
    *,
    shares: Sequence[float] = (),
    name: str,
    advance: Callable[[int], None],
) -> HeldOut:
    """Fit and predict fold by fold.

    Args:
        kind: "linear", "knn" or "finetune".
        backbone: The weights.
        judged: Frames, labels and groups.
        division: Who is held out when.
        alike: Rows that one fit serves.
        shares: Percentages of the labels to fit with besides; 100 is what is fitted anyway.
        name: What messages call the weights.
        advance: Is told of each fit, of fine-tuning of each epoch.

    Raises:
        UserError: Probabilities are not finite, or a fold has too few groups to choose an epoch.
    """
    found = HeldOut()
    count = (len(judged.labels), judged.class_count)
    training = alike[0].training
    features: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
    inputs = Inputs(None, None)
    if training is None:
        features = pooled_features(backbone, judged.store, judged.rows, name=name)
    else:
        inputs = prepare_inputs(backbone, judged.store, judged.rows, training, name=name)

    def fit(train: NDArray[np.int64], test: NDArray[np.int64], number: int, told: str) -> dict[str, NDArray[np.float64]]:
        if training is not None:
            return _tuned(backbone, inputs, judged, train, test, alike, training, (division.seed, number), found, advance)
        if kind == "knn":
            values = probes.knn_probe(features[train], judged.labels[train], features[test], class_count=judged.class_count)
        else:
            values, said = probes.linear_probe(features[train], judged.labels[train], features[test], class_count=judged.class_count)
            found.notes += [f"{name}, seed {division.seed}, fold {number}{told}: {line}" for line in said]
        advance(1)
        return {row.key: values for row in alike}

    for number, train, test in division:
        for key, values in fit(train, test, number, "").items():
            _put(found.probabilities, key, test, values, count, name, number)
        for share in shares:
            rows = (
                train
                if share == WHOLE
                else train[labelled_rows(judged.labels[train], judged.groups[train], share, seed=(division.seed, number))]
            )
            if share == WHOLE:
                values = found.probabilities[alike[0].key][test]
            else:
                values = fit(rows, test, number, f", {share:g} % of the labels")[alike[0].key]
            _put(found.by_share, share, test, values, count, name, number)
            used = {"seed": division.seed, "fold": number, "groups": len(np.unique(judged.groups[rows])), "frames": len(rows)}
            found.used.setdefault(share, []).append(used)
    return found


def _tuned(
    backbone: Backbone,
    inputs: Inputs,
    judged: Judged,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    alike: Sequence[Row],
    training: Training,
    seed: tuple[int, int],
    found: HeldOut,
    advance: Callable[[int], None],
) -> dict[str, NDArray[np.float64]]:
    """Probabilities of the held-out rows by each row's epoch of one training."""
    settings: dict[str, Any] = {"class_count": judged.class_count, "training": training, "seed": seed, "advance": advance}
    where = {"seed": seed[0], "fold": seed[1]}
    if alike[0].epoch == "validation":
        apart = validation_rows(judged.labels[train], judged.groups[train], seed=seed, subject=judged.subject)
        rest, watched = np.delete(train, apart), train[apart]
        tried = finetune(backbone, inputs, judged.labels, rest, watched, every_epoch=True, **settings)
        epoch = best_validated(tried.probabilities, judged.labels[watched])
        found.chosen.setdefault(alike[0].key, []).append(
            {**where, "epoch": epoch + 1, "validation_groups": len(np.unique(judged.groups[watched]))}
        )
        # Once more with the labels of the validation part, as far: they have done their work, and are too many to waste.
        fit = finetune(backbone, inputs, judged.labels, train, test, stop_after=epoch + 1, **settings)
        advance(training.epochs - epoch - 1)
        return {alike[0].key: fit.probabilities[-1]}
    choosing = any(row.epoch == "test" for row in alike)
    fit = finetune(backbone, inputs, judged.labels, train, test, every_epoch=choosing, **settings)
    values = {}
    for row in alike:
        epoch = best_on_test(fit.probabilities, judged.labels[test]) if row.epoch == "test" else len(fit.probabilities) - 1
        values[row.key] = fit.probabilities[epoch]
        if row.epoch == "test":
            found.chosen.setdefault(row.key, []).append({**where, "epoch": epoch + 1})
    return values


def _put(
    into: dict[Any, NDArray[np.float64]],
    key: Any,
    test: NDArray[np.int64],
    values: NDArray[np.float64],
    count: tuple[int, int],
    name: str,
    number: int,
) -> None:
    if not np.isfinite(values).all():
        raise UserError(name, f"the probabilities of fold {number} are not finite", "the weights hold numbers that are not finite")
    into.setdefault(key, np.full(count, np.nan))[test] = values


def steps(alike: Sequence[Row], fold_count: int, shares: Sequence[float]) -> int:
    """How often `advance` is told of one, for one of the weights and one division."""
    fits = fold_count * (1 + sum(share != WHOLE for share in shares))
    training = alike[0].training
    return fits if training is None else fits * training.epochs * (2 if alike[0].epoch == "validation" else 1)
