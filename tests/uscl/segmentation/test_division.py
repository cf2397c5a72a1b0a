"""Folds of frames with masks keep groups whole and classes learnable."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from uscl.evaluation.folds import Folds
from uscl.segmentation.division import NOTHING, group_strata, mask_folds
from usdata.errors import UserError

NO_DUPLICATES = pd.DataFrame({"video_id_a": [], "video_id_b": [], "kind": []})
NAMES = ["wall", "vessel"]


def table(groups: int, fold: list[int] | None = None) -> pd.DataFrame:
    """Two frames of one clip a group."""
    number = np.repeat(np.arange(groups), 2)
    return pd.DataFrame(
        {
            "frame_id": [f"s/{group}/{place}" for place, group in enumerate(number)],
            "video_id": [f"s/{group}" for group in number],
            "source": "s",
            "patient_id": None,
            "group_id": [f"g{group:02d}" for group in number],
            "fold": [np.nan] * len(number) if fold is None else fold,
            "duplicate_group": None,
        }
    )


def divided(groups: int, rare: int, fold: list[int] | None = None, **settings: object) -> Folds:
    frames = table(groups, fold)
    holds = np.stack([np.ones(len(frames), bool), np.arange(len(frames)) // 2 < rare], axis=1)
    given = {"seed": 0, "count": None, "whole": True, "subject": "set"} | settings
    return mask_folds(frames, frames["group_id"].to_numpy(dtype=str), NO_DUPLICATES, holds, NAMES, **given)  # type: ignore[arg-type]


def test_groups_stay_whole_and_the_rare_class_is_dealt_out() -> None:
    folds = divided(12, rare=4, count=4)
    assert (folds.count, folds.origin) == (4, "made")
    assert all(len(set(folds.fold[2 * group : 2 * group + 2])) == 1 for group in range(12))
    assert sorted(folds.fold[:8:2]) == [0, 1, 2, 3]
    assert sorted(np.bincount(folds.fold)) == [6, 6, 6, 6]


def test_the_sets_own_folds_are_taken_where_the_set_is_whole() -> None:
    own = [0, 0, 1, 1, 0, 0, 1, 1]
    folds = divided(4, rare=4, fold=own)
    assert (folds.origin, folds.fold.tolist()) == ("data set", own)
    assert divided(4, rare=4, fold=own, whole=False).origin == "made"
    assert divided(4, rare=4, fold=own, seed=1).origin == "made"


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(UserError, match="frames of 3 independent groups have masks, too few for 5 folds; use --folds 3"):
        divided(3, rare=3, count=5)
    with pytest.raises(UserError, match="frames of 1 independent group have masks, too few for 2 folds"):
        divided(1, rare=1)
    with pytest.raises(UserError, match="class 'vessel' stands in fold 0 only"):
        divided(4, rare=2, fold=[0, 0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(UserError, match="both in training and in test"):
        divided(2, rare=2, fold=[0, 1, 0, 1])


def test_strata_are_the_rarest_class_and_small_ones_join_the_commonest() -> None:
    groups = np.array(["a", "a", "b", "c", "d", "e"])
    holds = np.array([[1, 0], [1, 1], [1, 0], [1, 0], [1, 1], [0, 0]], dtype=bool)
    assert group_strata(groups, holds, NAMES, least=1).tolist() == ["vessel", "vessel", "wall", "wall", "vessel", NOTHING]
    assert group_strata(groups, holds, NAMES, least=2).tolist() == ["vessel", "vessel", "wall", "wall", "vessel", "vessel"]
