"""Label efficiency: the same test folds, with the labels of a share of the training groups.

In: labels and groups of the training rows, a share. Out: which rows keep their label; and the curve for `evaluation.json`. Shares are of
whole groups, drawn for each label by a seed, nested (what a small share holds, a larger one holds too), and no label is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uscl.evaluation.summary import Held
from usdata.errors import UserError

WHOLE = 100.0
# Apart from the other uses of a division's seed.
_STREAM = 0x5AE5


def parse_shares(text: str) -> list[float]:
    """'1,5,100' as percentages, ascending.

    Raises:
        UserError: One is no number above 0 and up to 100, or stands twice.
    """
    shares = []
    for word in text.split(","):
        try:
            share = float(word)
        except ValueError:
            share = float("nan")
        if not 0 < share <= WHOLE:
            raise UserError(f"--label-shares {text}", f"'{word.strip()}' is no percentage", "write numbers above 0 and up to 100: 1,10,100")
        shares.append(share)
    return check_shares(shares)


def check_shares(shares: Sequence[float]) -> list[float]:
    """The same, ascending.

    Raises:
        UserError: One is not above 0 and up to 100, or stands twice.
    """
    if not shares or not all(0 < share <= WHOLE for share in shares):
        raise UserError("--label-shares", f"holds {list(shares)}", "give percentages above 0 and up to 100")
    if max(shares) < 1:
        advice = f"for shares of the whole write {','.join(f'{100 * share:g}' for share in shares)}"
        raise UserError("--label-shares", "are percentages, and all of these are below 1 %", advice)
    if len(set(shares)) < len(shares):
        raise UserError("--label-shares", "names a share twice", "name each once")
    return sorted(float(share) for share in shares)


def labelled_rows(labels: NDArray[np.int64], groups: NDArray[np.str_], share: float, *, seed: tuple[int, int]) -> NDArray[np.int64]:
    """Positions of the training rows whose groups keep their labels.

    For each label its groups stand in a random order, and the first of them are taken: as many as the share of them, rounded, at least
    one. A group of several labels counts for each of them, and may be taken for any.

    Args:
        labels: (n,) class indices of the training rows.
        groups: (n,) their independent groups.
        share: Percentage.
        seed: (seed of the evaluation, number of the fold).
    """
    taken: set[str] = set()
    for label in np.unique(labels):
        own = np.unique(groups[labels == label])
        order = np.random.default_rng([*seed, _STREAM, int(label)]).permutation(len(own))
        count = max(1, int(np.floor(share * len(own) / WHOLE + 0.5)))
        taken.update(own[order[:count]].tolist())
    return np.flatnonzero(np.isin(groups, sorted(taken)))


def curve(
    shares: Sequence[float],
    held: Mapping[float, Sequence[Held]],
    used: Mapping[float, Sequence[Mapping[str, int]]],
    summarise: Callable[[Sequence[Held]], dict[str, Any]],
) -> dict[str, Any]:
    """The value of `label_efficiency`.

    Args:
        shares: Percentages, ascending.
        held: For each share the held-out probabilities of all weights and seeds.
        used: For each share what each fold was trained on: `seed`, `fold`, `groups`, `frames`.
        summarise: From held-out probabilities to what `evaluation.json` says of them.

    Returns:
        `notes`, `shares`, `trained_on` (for each share the folds' groups and frames), `weights` (for each: `points`, one a share: for each
        level the pooled metrics and their intervals) and `differences` (as those of the evaluation, each with its `share`).
    """
    points: dict[str, list[dict[str, Any]]] = {}
    differences = []
    for share in shares:
        told = summarise(held[share])
        for entry in told["weights"]:
            levels = {level: {"pooled": values["pooled"], "interval": values["interval"]} for level, values in entry["levels"].items()}
            points.setdefault(entry["name"], []).append({"share": share, "levels": levels})
        differences += [{"share": share, **each} for each in told["differences"]]
    same = [
        (less, more)
        for less, more in itertools.pairwise(shares)
        if [fold["groups"] for fold in used[less]] == [fold["groups"] for fold in used[more]]
    ]
    return {
        "notes": [
            f"{less:g} and {more:g} % of the labels are the same groups here, and so the same figures: at least one group a label is taken."
            for less, more in same
        ],
        "shares": list(shares),
        "unit": "percent of the labelled training groups of each label, at least one group a label",
        "trained_on": [{"share": share, "folds": [dict(fold) for fold in used[share]]} for share in shares],
        "weights": [{"name": name, "points": rows} for name, rows in points.items()],
        "differences": differences,
    }
