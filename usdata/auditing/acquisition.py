"""Can the label be told from how a clip was acquired, without looking at the picture?

Comes in: the kept clips. Goes out: contingency tables of each acquisition fact against the label with Cramér's V, and the accuracy of a
classifier that sees nothing but the file's metadata. Guarantees: seeded, independent of the rows' order; where there is too little
to say, the result carries the reason instead of a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, chi2_contingency
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

UNKNOWN = "unknown"
ATTRIBUTES = ("source", "container", "codec", "fps", "size", "probe", "manufacturer")
PROBE_FEATURES = ("codec", "container", "fps", "width", "height", "duration", "bytes per second")
PROBE_FOLDS = 5
PROBE_TREES = 50
PROBE_SEED = 0
MINIMUM_GROUPS_PER_LABEL = 3


def cramers_v(table: np.ndarray) -> float | None:
    """Bias-corrected Cramér's V of a contingency table: 0 = independent, 1 = one tells the other.

    The correction of Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", Journal of the Korean Statistical Society 42 (2013),
    keeps V near 0 for independent variables with many values and few rows.

    Args:
        table: (rows, columns) counts.

    Returns:
        A value in [0, 1], or None where it is not defined: fewer than two values on a side, or no value seen twice.
    """
    table = np.asarray(table, dtype="float64")
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0] if table.size else table
    if table.ndim != 2 or min(table.shape, default=0) < 2:
        return None
    n = table.sum()
    rows, columns = table.shape
    phi_squared = chi2_contingency(table, correction=False).statistic / n
    corrected = max(0.0, phi_squared - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    if smaller <= 1e-9:
        return None
    return float(min(1.0, np.sqrt(corrected / smaller)))


def acquisition_by_label(kept: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """For each acquisition fact, how its values and the labels go together, over the labelled clips.

    Returns:
        Attribute -> {"values": [{"value", "clips", "labels": {label: clips}}], "cramers_v": number or None}. A missing value counts as the
        value "unknown", since a fact that is missing for one label only gives the label away just as well.
    """
    labelled = kept[kept["label"].notna()]
    facts = _facts(labelled)
    result: dict[str, Any] = {}
    for attribute in ATTRIBUTES:
        table = pd.crosstab(facts[attribute], labelled["label"]) if len(labelled) else pd.DataFrame()
        values: list[dict[str, Any]] = [
            {
                "value": str(value),
                "clips": int(counts.sum()),
                "labels": {label: int(counts[label]) for label in labels if label in table.columns},
            }
            for value, counts in table.iterrows()
        ]
        values.sort(key=lambda row: (-row["clips"], row["value"]))
        result[attribute] = {"values": values, "cramers_v": cramers_v(table.to_numpy())}
    return result


def _facts(clips: pd.DataFrame) -> pd.DataFrame:
    facts = {
        name: [value if isinstance(value, str) else UNKNOWN for value in clips[name]] for name in ATTRIBUTES if name not in ("fps", "size")
    }
    facts["fps"] = [f"{fps:.0f}" if np.isfinite(fps) else UNKNOWN for fps in clips["fps"].astype("float64")]
    facts["size"] = [
        f"{width:.0f}\N{MULTIPLICATION SIGN}{height:.0f}" if np.isfinite(width) and np.isfinite(height) else UNKNOWN
        for width, height in zip(clips["width"].astype("float64"), clips["height"].astype("float64"), strict=True)
    ]
    return pd.DataFrame(facts, index=clips.index)


def shortcut_probe(kept: pd.DataFrame) -> dict[str, Any]:
    """How well a random forest tells the label from the file's metadata alone.

    Labels with fewer than three groups are left out and named. Folds keep groups together ("by_group", what generalisation to new
    patients would show) or ignore them ("by_clip", what a careless split would show).

    Returns:
        {"features", "left_out"} with either "why_not" (a sentence), or "clips", "folds", "labels", "majority" and, for each of by_group and
        by_clip, accuracy, balanced_accuracy and p_value (one-sided exact binomial test of the accuracy against the majority rate).
    """
    labelled = kept[kept["label"].notna()].sort_values("video_id", ignore_index=True)
    groups_per_label = labelled.groupby("label")["group_id"].nunique()
    used = sorted(groups_per_label[groups_per_label >= MINIMUM_GROUPS_PER_LABEL].index)
    left_out = sorted(set(groups_per_label.index) - set(used))
    result: dict[str, Any] = {"features": list(PROBE_FEATURES), "left_out": left_out}
    if len(used) < 2:
        have = f"{len(used)} of {len(groups_per_label)} labels have" if len(groups_per_label) else "there is no label that has"
        return result | {"why_not": f"It needs two labels with at least {MINIMUM_GROUPS_PER_LABEL} groups each, and {have} that many."}
    clips = labelled[labelled["label"].isin(used)].reset_index(drop=True)
    folds = int(min(PROBE_FOLDS, groups_per_label[used].min()))
    features, truth = _features(clips), clips["label"].to_numpy(dtype="object").astype(str)
    by_group = StratifiedGroupKFold(folds, shuffle=True, random_state=PROBE_SEED).split(features, truth, clips["group_id"].to_numpy())
    by_clip = StratifiedKFold(folds, shuffle=True, random_state=PROBE_SEED).split(features, truth)
    majority = float(max(np.unique(truth, return_counts=True)[1]) / len(truth))
    return result | {
        "clips": len(clips),
        "folds": folds,
        "labels": used,
        "majority": majority,
        "by_group": _probe(features, truth, by_group, majority),
        "by_clip": _probe(features, truth, by_clip, majority),
    }


def _features(clips: pd.DataFrame) -> np.ndarray:
    """(clips, 7) numbers; a missing one is -1, which no measured one can be."""
    columns: list[Any] = [
        pd.factorize(clips[name].astype("object").where(clips[name].notna(), UNKNOWN), sort=True)[0] for name in ("codec", "container")
    ]
    duration = clips["duration_s"].astype("float64")
    columns += [clips[name].astype("float64").fillna(-1).to_numpy() for name in ("fps", "width", "height")]
    columns += [duration.fillna(-1).to_numpy(), (clips["bytes"] / duration.where(duration > 0)).fillna(-1).to_numpy()]
    return np.stack([np.asarray(column, dtype="float64") for column in columns], axis=1)


def _probe(features: np.ndarray, truth: np.ndarray, splits: Any, majority: float) -> dict[str, float]:
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
