"""Folds of frames with masks: by independent group, each class in training and, where it has groups enough, in every test fold.

In: frames, their groups, and which classes each one's mask holds. Out: `uscl.evaluation.folds.Folds`, proved free of leakage.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uscl.evaluation.folds import DEFAULT_FOLDS, Folds, make_folds, refuse_leakage
from usdata.errors import UserError

NOTHING = "background alone"


def mask_folds(
    frames: pd.DataFrame,
    groups: NDArray[np.str_],
    duplicates: pd.DataFrame,
    holds: NDArray[np.bool_],
    names: list[str],
    *,
    seed: int,
    count: int | None,
    whole: bool,
    subject: str,
) -> Folds:
    """The folds of one seed.

    Seed 0 of a whole set uses the set's own `fold` column where every frame has one; all else gets folds made here, stratified by the
    rarest class that a group holds.

    Args:
        frames: Rows of frames.parquet with masks.
        groups: (n,) of `independent_groups`.
        duplicates: duplicates.parquet.
        holds: (n, C) which classes each mask holds.
        names: (C,) of the classes.
        seed: Of the division.
        count: Number of folds; None: the set's own, else 5, or as many as there are groups.
        whole: No frame of the set was left out.
        subject: What an error is about: the data set.

    Raises:
        UserError: There are fewer groups than folds, a class would be missing from a training side, or folds would leak.
    """
    own = frames["fold"]
    has_own = count is None and whole and not own.isna().any() and own.nunique() >= 2
    if has_own and seed == 0:
        values, fold = np.unique(own.to_numpy(dtype=np.int64), return_inverse=True)
        folds = Folds(seed, "data set", fold.astype(np.int64), len(values))
    else:
        group_count = len(np.unique(groups))
        wanted = count if count is not None else int(own.nunique()) if has_own else min(DEFAULT_FOLDS, group_count)
        if group_count < max(wanted, 2):
            have = f"{group_count} independent group{'s' if group_count != 1 else ''}"
            advice = f"use --folds {group_count}" if group_count >= 2 else "draw masks for other patients, too"
            raise UserError(subject, f"frames of {have} have masks, too few for {max(wanted, 2)} folds", advice)
        strata = group_strata(groups, holds, names, least=wanted)
        folds = Folds(seed, "made", make_folds(strata, groups, count=wanted, seed=seed, subject=subject), wanted)
    refuse_leakage(frames, folds.fold, duplicates, subject=subject, groups=groups)
    for number, train, _ in folds:
        absent = [name for index, name in enumerate(names) if not holds[train, index].any()]
        if absent:
            reason = f"class '{absent[0]}' stands in fold {number} only, so nothing is left to learn it from when that fold is held out"
            raise UserError(subject, reason, "try another number of --folds, or leave the class out of the masks")
        if len(train) < 2:
            raise UserError(subject, f"fold {number} leaves {len(train)} frames to train on", "draw more masks")
    return folds


def group_strata(groups: NDArray[np.str_], holds: NDArray[np.bool_], names: list[str], *, least: int) -> NDArray[np.str_]:
    """(n,) what each frame's group is dealt out by: the rarest class that it holds; classes of too few groups join the commonest stratum.

    Args:
        groups: (n,).
        holds: (n, C).
        names: (C,).
        least: Groups that a stratum must have.
    """
    units, unit = np.unique(groups, return_inverse=True)
    held = np.zeros((len(units), len(names)), dtype=bool)
    np.logical_or.at(held, unit, holds)
    rarest_first = np.argsort(held.sum(axis=0), kind="stable")
    strata = np.array([next((names[place] for place in rarest_first if row[place]), NOTHING) for row in held], dtype=object)
    found, counts = np.unique(strata.astype(str), return_counts=True)
    few = found[counts < least]
    strata[np.isin(strata.astype(str), few)] = found[counts.argmax()]
    return strata.astype(str)[unit]
