"""Can the label be told without looking at the ultrasound? A classifier that sees only what should not matter.

Comes in: clips, and numbers of each that a model of tissue would not need (here: the file's metadata; `surroundings` asks the pixels
outside the field of view). Goes out: its accuracy on groups that it has not seen, beside the majority rate. Guarantees: seeded,
independent of the rows' order; where there is too little to say, the result carries the reason instead of a number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from usdata.auditing.acquisition import UNKNOWN

METADATA_FEATURES = ("codec", "container", "fps", "width", "height", "duration", "bytes per second")
PROBE_FOLDS = 5
PROBE_TREES = 50
PROBE_SEED = 0
MINIMUM_GROUPS_PER_LABEL = 3
# More clips change the figure in the third decimal and cost minutes.
MOST_CLIPS = 4000


def shortcut_probe(kept: pd.DataFrame) -> dict[str, Any]:
    """How well a random forest tells the label from the file's metadata alone.

    Labels with fewer than three groups are left out and named. Folds keep groups together ("by_group", what generalisation to new
    patients would show) or ignore them ("by_clip", what a careless split would show). Of sets of more than 4,000 clips, that many are used,
    drawn by group.

    Returns:
        {"features", "left_out"} with either "why_not" (a sentence), or "clips", "clips_in_all", "folds", "labels", "majority" and, for each
        of by_group and by_clip, accuracy, balanced_accuracy and p_value (one-sided exact binomial test of the accuracy against the
        majority rate).
    """
    return {"features": list(METADATA_FEATURES)} | probe(kept, _metadata, most=MOST_CLIPS)


def probe(kept: pd.DataFrame, features_of: Callable[[pd.DataFrame], NDArray[np.float64]], *, most: int) -> dict[str, Any]:
    """The result of a probe, see `shortcut_probe`.

    Args:
        kept: Clips with video_id, group_id, label and whatever the features are made of.
        features_of: Gives (clips, features) numbers.
        most: Clips that are used at most.
    """
    labelled = kept[kept["label"].notna()].sort_values("video_id", ignore_index=True)
    groups_per_label = labelled.groupby("label")["group_id"].nunique()
    used = sorted(groups_per_label[groups_per_label >= MINIMUM_GROUPS_PER_LABEL].index)
    result: dict[str, Any] = {"left_out": sorted(set(groups_per_label.index) - set(used))}
    if len(used) < 2:
        have = f"{len(used)} of {len(groups_per_label)} labels have" if len(groups_per_label) else "there is no label that has"
        return result | {"why_not": f"It needs two labels with at least {MINIMUM_GROUPS_PER_LABEL} groups each, and {have} that many."}
    every = labelled[labelled["label"].isin(used)]
    clips = _drawn(every, most).reset_index(drop=True)
    folds = int(min(PROBE_FOLDS, clips.groupby("label")["group_id"].nunique().min()))
    features, truth = features_of(clips), clips["label"].to_numpy(dtype="object").astype(str)
    by_group = StratifiedGroupKFold(folds, shuffle=True, random_state=PROBE_SEED).split(features, truth, clips["group_id"].to_numpy())
    by_clip = StratifiedKFold(folds, shuffle=True, random_state=PROBE_SEED).split(features, truth)
    majority = float(max(np.unique(truth, return_counts=True)[1]) / len(truth))
    return result | {
        "clips": len(clips),
        "clips_in_all": len(every),
        "folds": folds,
        "labels": used,
        "majority": majority,
        "by_group": _cross_validated(features, truth, by_group, majority),
        "by_clip": _cross_validated(features, truth, by_clip, majority),
    }


def _drawn(clips: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most about that many clips: whole groups, in an order that only their names decide, but of each label its first groups."""
    if len(clips) <= most:
        return clips
    order = {name: hashlib.sha256(name.encode()).digest() for name in clips["group_id"].unique()}
    ranked = clips.assign(rank=clips["group_id"].map(order)).sort_values(["rank", "video_id"])
    first = ranked.drop_duplicates(["label", "group_id"]).groupby("label").head(MINIMUM_GROUPS_PER_LABEL)["group_id"]
    in_front = ranked["group_id"].isin(first)
    ranked = pd.concat([ranked[in_front], ranked[~in_front]])
    groups = ranked["group_id"].drop_duplicates()
    sizes = ranked["group_id"].value_counts()[groups].cumsum().to_numpy()
    taken = groups[: max(int(np.searchsorted(sizes, most, side="right")), first.nunique())]
    return clips[clips["group_id"].isin(taken)]


def _metadata(clips: pd.DataFrame) -> NDArray[np.float64]:
    """(clips, 7) numbers; a missing one is -1, which no measured one can be."""
    columns: list[Any] = [
        pd.factorize(clips[name].astype("object").where(clips[name].notna(), UNKNOWN), sort=True)[0] for name in ("codec", "container")
    ]
    duration = clips["duration_s"].astype("float64")
    columns += [clips[name].astype("float64").fillna(-1).to_numpy() for name in ("fps", "width", "height")]
    columns += [duration.fillna(-1).to_numpy(), (clips["bytes"] / duration.where(duration > 0)).fillna(-1).to_numpy()]
    return np.stack([np.asarray(column, dtype="float64") for column in columns], axis=1)


def _cross_validated(
    features: NDArray[np.float64], truth: NDArray[Any], splits: Iterable[tuple[Any, Any]], majority: float
) -> dict[str, float]:
    predicted = np.empty_like(truth)
    for train, test in splits:
        if len(test):
            forest = RandomForestClassifier(PROBE_TREES, random_state=PROBE_SEED, n_jobs=1)
            predicted[test] = forest.fit(features[train], truth[train]).predict(features[test])
    correct = int((predicted == truth).sum())
    return {
        "accuracy": correct / len(truth),
        "balanced_accuracy": float(balanced_accuracy_score(truth, predicted)),
        "p_value": float(binomtest(correct, len(truth), majority, alternative="greater").pvalue),
    }
