"""Which epoch is taken: by a validation part of the training folds, or, as published, by the test fold itself.

In: predictions after every epoch, and the truth. Out: an epoch. The validation part is of whole groups, and holds no test row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score

from usdata.errors import UserError

# Of each label's groups; five folds in all are usual, and a fifth of the rest is too.
VALIDATION_SHARE = 0.2
SMALLEST_PROBABILITY = 1e-12
# Apart from the other uses of a division's seed.
_STREAM = 0xC400


def validation_rows(labels: NDArray[np.int64], groups: NDArray[np.str_], *, seed: tuple[int, int], subject: str) -> NDArray[np.int64]:
    """Positions of the training rows that choose the epoch: a fifth of each label's groups, at least one, drawn by the seed.

    No group that is the last of a label is taken away from training. A label with a single group therefore chooses nothing.

    Args:
        labels: (n,) class indices of the training rows.
        groups: (n,) their independent groups.
        seed: (seed of the evaluation, number of the fold).
        subject: What an error is about: the data set.

    Raises:
        UserError: Fewer than two labels have two groups.
    """
    of_label = {int(label): np.unique(groups[labels == label]) for label in np.unique(labels)}
    left = {label: set(own.tolist()) for label, own in of_label.items()}
    taken: set[str] = set()
    for label in sorted(of_label, key=lambda label: (len(of_label[label]), label)):
        own = of_label[label]
        wanted = max(1, round(VALIDATION_SHARE * len(own)))
        for group in own[np.random.default_rng([*seed, _STREAM, label]).permutation(len(own))].tolist():
            if len(taken & set(own.tolist())) >= wanted:
                break
            if group not in taken and all(len(other - {group}) for other in left.values() if group in other):
                taken.add(group)
                for other in left.values():
                    other.discard(group)
    rows = np.flatnonzero(np.isin(groups, sorted(taken)))
    if len(np.unique(labels[rows])) < 2:
        reason = f"--choose-epochs: the training part of fold {seed[1]} has too few groups to set some apart, two of two labels at least"
        raise UserError(subject, reason, "leave the option out: --epochs is fixed then")
    return rows


def best_validated(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> int:
    """The epoch, from 0, of the highest balanced accuracy; of several the one of the lowest cross-entropy, of these the first.

    Args:
        probabilities: (E, m, C) of the validation rows after each epoch.
        truth: (m,) class indices.
    """
    accuracy = [round(float(balanced_accuracy_score(truth, each.argmax(axis=1))), 12) for each in probabilities]
    own = np.take_along_axis(probabilities, truth[None, :, None], axis=2)[..., 0]
    loss = -np.log(np.maximum(own, SMALLEST_PROBABILITY)).mean(axis=1)
    return min(range(len(accuracy)), key=lambda epoch: (-accuracy[epoch], loss[epoch], epoch))


def best_on_test(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> int:
    """The first epoch, from 0, of the highest accuracy on the reported rows: the choice that makes published figures optimistic."""
    return int((probabilities.argmax(axis=2) == truth).mean(axis=1).argmax())
