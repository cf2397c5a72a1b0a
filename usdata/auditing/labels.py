"""What the labels are: how many clips have one, at what level they were given, and which names look like mistakes.

Comes in: the tables. Goes out: counts and sentences. Guarantees: a level is only stated as far as the counts prove it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from usdata.auditing.finding import Finding, count
from usdata.auditing.tables import Tables

# What stands for "no label" in tables of all kinds, without case, spaces and punctuation at the ends.
_MISSING = {"", "nan", "none", "null", "nil", "na", "n/a", "unknown", "undefined", "missing", "unlabelled", "unlabeled", "tbd", "todo"}


def label_status(tables: Tables) -> dict[str, Any]:
    """Clips and frames with a label and without."""
    clips = tables.kept["label"]
    unlabelled = int(clips.isna().sum())
    labelled_frames = int(tables.places.loc[tables.places["label"].notna(), "frames"].sum())
    return {
        "clips_labelled": len(clips) - unlabelled,
        "clips_unlabelled": unlabelled,
        "share_unlabelled": unlabelled / len(clips) if len(clips) else None,
        "frames_labelled": labelled_frames,
        "frames_unlabelled": int(tables.places["frames"].sum()) - labelled_frames,
    }


def majority(tables: Tables) -> dict[str, Any]:
    """The most frequent label and the accuracy of always answering it, by clip and by frame."""
    by_clip, by_frame = tables.kept["label"].value_counts(), tables.places.groupby("label")["frames"].sum()
    return {"by_clip": _most_frequent(by_clip, tables.labels), "by_frame": _most_frequent(by_frame, tables.labels)}


def _most_frequent(counts: pd.Series, labels: Sequence[str]) -> dict[str, Any] | None:
    """Of equally frequent ones, the first in the order of classes."""
    total = int(counts.sum())
    if not total:
        return None
    label = max(labels, key=lambda name: (int(counts.get(name, 0)), -labels.index(name)))
    return {"label": label, "rate": int(counts[label]) / int(total), "of": total}


def label_levels(tables: Tables) -> dict[str, Any]:
    """At what level labels are given, as far as the clips of one patient or group tell.

    Returns:
        `sentence`, `level` (clip; patient, where all clips of each have one label; unknown; none), `clips_labelled`, `groups_labelled`,
        `groups_of_one_label`, `groups_of_several`, `patients_of_several` and `varies_within_patient` (None where no patient is known).
    """
    labelled = tables.kept[tables.kept["label"].notna()]
    of_groups = labelled.groupby("group_id")["label"].agg(["nunique", "size"])
    of_patients = labelled.groupby("patient")["label"].nunique()
    # A group may join patients that a duplicate or a batch joins: where patients are known, they tell.
    units = labelled.groupby(labelled["patient"].astype("object").fillna(labelled["group_id"]))["label"].agg(["nunique", "size"])
    several = int((of_groups["nunique"] > 1).sum())
    level, sentence = _level(len(labelled), units)
    return {
        "sentence": sentence,
        "level": level,
        "clips_labelled": len(labelled),
        "groups_labelled": len(of_groups),
        "groups_of_one_label": len(of_groups) - several,
        "groups_of_several": several,
        "patients_of_several": int((of_patients > 1).sum()),
        "varies_within_patient": bool((of_patients > 1).any()) if len(of_patients) else None,
    }


def _level(clips: int, units: pd.DataFrame) -> tuple[str, str]:
    """At what level, in a word and a sentence; a unit is a patient, or a group where the patient is unknown."""
    if not clips:
        return "none", "No clip has a label."
    several, more_clips = int((units["nunique"] > 1).sum()), int((units["size"] > 1).sum())
    of = f"{several or more_clips:,} of {count(len(units), 'patient or group', 'patients or groups')}"
    if several:
        return "clip", f"Labels are given clip by clip: {of} have clips of different labels. A frame has its clip's label."
    if not more_clips:
        return "unknown", "Every patient or group has one labelled clip: whether labels were given by clip or by patient cannot be told."
    return "patient", (
        f"All clips of a patient or group have one label, and {of} have two clips or more: it may have been given to the patient, and then "
        "not every clip, and no frame, need show it."
    )


def odd_labels(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Label names that differ in case, spaces or punctuation alone, or that look like a missing value."""
    clips = tables.kept["label"].value_counts().to_dict()
    spellings: dict[str, list[str]] = {}
    for name in sorted(tables.labels):
        spellings.setdefault(re.sub(r"[\s_.-]+", "", name.casefold()), []).append(name)
    alike = [names for names in spellings.values() if len(names) > 1]
    missing = [name for name in sorted(tables.labels) if name.strip(" \t-?.()<>#").casefold() in _MISSING]
    if not alike and not missing:
        return None
    rows = [" = ".join(f"'{name}' ({count(clips.get(name, 0), 'clip')})" for name in names) for names in alike]
    rows += [f"'{name}' ({count(clips.get(name, 0), 'clip')}) reads like a missing label" for name in missing]
    message = f"{count(len(rows), 'label name looks', 'label names look')} like a mistake of spelling or a missing value."
    advice = "Map them with the recipe's 'label_map': one name a class, and null for clips without a label."
    return Finding("odd-labels", "warning", message, tuple(rows), advice)


def unlabelled(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Clips without a label."""
    rows = tuple(tables.kept.loc[tables.kept["label"].isna(), "video_id"])
    if not rows:
        return None
    share = f"{len(rows):,} of {count(len(tables.kept), 'clip')} ({len(rows) / len(tables.kept):.0%})"
    message = f"{share} {'has' if len(rows) == 1 else 'have'} no label."
    return Finding("unlabelled", "note", message, rows, "They serve pretraining; evaluation passes them over.")


def few_groups_of_labels(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Labels with fewer groups than there are folds, or, where there are none, than the usual five."""
    folds: pd.Series = tables.places["fold"].dropna()
    asked = tables.dataset.about.get("recipe", {}).get("folds", {}).get("count", 0)
    number = max(int(folds.max()) + 1 if len(folds) else 0, int(asked))
    wanted = number if number > 1 else USUAL_FOLDS
    few = [row for row in statistics["by_label"] if row["label"] in tables.labels and row["groups"] < wanted]
    if not few:
        return None
    rows = tuple(f"{row['label']}: {count(row['groups'], 'group')}, {_enough_for(row['groups'])}" for row in few)
    labels_have, them = count(len(few), "label has", "labels have"), "it" if len(few) == 1 else "them"
    if number > 1:
        message = f"{labels_have} fewer groups than the {number} folds: not every fold can test {them}."
    else:
        message = f"{labels_have} fewer than {USUAL_FOLDS} groups: cross-validation with that many folds cannot test {them} in each."
    return Finding("too-few-groups", "warning", message, rows, "Use fewer folds, or report these labels apart.")


USUAL_FOLDS = 5


def _enough_for(groups: int) -> str:
    return f"enough for {groups} folds" if groups > 1 else "too few for any folds"
