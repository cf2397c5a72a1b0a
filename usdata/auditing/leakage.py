"""Checks of what stands in a data set twice, and of whether folds and splits can be trusted.

Comes in: the counted tables. Goes out: at most one finding a check, listing every pair, group or label concerned.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd

from usdata.auditing.finding import Finding, count, records
from usdata.auditing.statistics import Tables
from usdata.duplicates.groups import connected_components


def _clip_facts(tables: Tables) -> dict[str, Any]:
    return {clip.video_id: clip for clip in records(tables.videos)}


def _pairs(tables: Tables, *, views: bool = True) -> list[tuple[str, str]]:
    """Pairs of duplicates.parquet; without `views` those that are copies."""
    table = tables.dataset.duplicates
    table = table if views else table[table["kind"] != "view"]
    return sorted(set(zip(table["video_id_a"], table["video_id_b"], strict=True)))


def duplicate_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Clips that show the same scan: a warning, and an error where the set takes them for different patients or groups."""
    pairs, clips = _pairs(tables, views=False), _clip_facts(tables)
    if not pairs:
        return None
    rows, strangers = [], 0
    for a, b in pairs:
        first, second = clips.get(a), clips.get(b)
        why = []
        if first is not None and second is not None:
            if isinstance(first.patient_id, str) and isinstance(second.patient_id, str) and first.patient_id != second.patient_id:
                why.append(f"patients {first.patient_id} and {second.patient_id}")
            if first.group_id != second.group_id:
                why.append(f"groups {first.group_id} and {second.group_id}")
        strangers += bool(why)
        rows.append(f"{a} = {b}" + (f" (under different {', '.join(why)})" if why else ""))
    message = f"{count(len(pairs), 'pair of clips shows', 'pairs of clips show')} the same scan twice"
    if not strangers:
        return Finding(
            "duplicate-clips", "warning", message + ".", tuple(rows), "Keep one clip of each pair, or know that it counts twice."
        )
    message += f", {strangers:,} of them under different patients or groups."
    advice = "Do not trust the patient ids of their source; 'usdata split' keeps such pairs in one part."
    return Finding("duplicate-clips", "error", message, tuple(rows), advice)


def conflicting_labels(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Labels that contradict each other: an error among clips that duplicates join, a note inside a group."""
    mixed = []
    rows = _contradictions(
        _pairs(tables, views=False), {video: clip.label for video, clip in _clip_facts(tables).items() if isinstance(clip.label, str)}
    )
    for group, members in tables.kept.groupby("group_id"):
        labels = sorted(set(members["label"].dropna()))
        if len(labels) > 1:
            mixed.append(f"group {group}: {', '.join(labels)}")
    if not rows and not mixed:
        return None
    parts = []
    if rows:
        parts.append(
            f"{count(len(rows), 'pair', 'pairs')} of duplicate clips {'carries' if len(rows) == 1 else 'carry'} two different labels"
        )
    if mixed:
        parts.append(
            f"{count(len(mixed), 'group')} of patients, exams and copies {'holds' if len(mixed) == 1 else 'hold'} clips of different labels"
        )
    advice = (
        "Settle which label is right, or leave these clips out: one of the two is wrong."
        if rows
        else "That can be right (a patient has more than one finding), and metrics by patient must then say how they choose."
    )
    return Finding("conflicting-labels", "error" if rows else "note", "; ".join(parts) + ".", (*rows, *mixed), advice)


def _contradictions(pairs: list[tuple[str, str]], labels: dict[str, str]) -> list[str]:
    """Clips with different labels that a pair of duplicates joins, or a chain of pairs: each such pair, and where only a chain joins two
    labels the first clip of each."""
    rows: dict[tuple[str, str], str] = {}
    for a, b in pairs:
        if a in labels and b in labels and labels[a] != labels[b]:
            rows[a, b] = f"{a} = {b} ({labels[a]} and {labels[b]})"
    joined = connected_components(sorted({video for pair in pairs for video in pair}), pairs)
    for members in {id(members): set(members) for members in joined.values()}.values():
        first: dict[str, str] = {}
        for video in sorted(members):
            if video in labels:
                first.setdefault(labels[video], video)
        here = {frozenset((labels.get(a, ""), labels.get(b, ""))) for a, b in rows if a in members}
        for a, b in combinations(sorted(first.values()), 2):
            if frozenset((labels[a], labels[b])) not in here:
                rows[a, b] = f"{a} = {b} through others ({labels[a]} and {labels[b]})"
    return [rows[pair] for pair in sorted(rows)]


def leakage_groups(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Groups and patients with frames in more than one split, or in more than one fold."""
    frames = tables.frames
    rows, counts = [], []
    for name, key in (("group", "group_id"), ("patient", "patient")):
        known = frames[frames[key].notna()]
        spread = known.groupby(key).agg(splits=("split", "nunique"), folds=("fold", "nunique"))
        leaking = spread[(spread["splits"] > 1) | (spread["folds"] > 1)].index
        for value, members in known[known[key].isin(leaking)].groupby(key):
            rows.append(f"{name} {value}: {_places(members)}")
        if len(leaking):
            counts.append(count(len(leaking), name))
    if not rows:
        return None
    single = rows[1:] == []
    message = f"{' and '.join(counts)} {'stands' if single else 'stand'} in more than one split or fold."
    return Finding(
        "leakage-groups",
        "error",
        message,
        tuple(rows),
        "Make folds and splits anew by group with 'usdata split': any score on these is too good.",
    )


def leakage_videos(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Clips whose own frames stand in more than one split or fold: parts that were made frame by frame."""
    frames = tables.frames
    spread = frames.groupby("video_id").agg(splits=("split", "nunique"), folds=("fold", "nunique"))
    leaking = spread[(spread["splits"] > 1) | (spread["folds"] > 1)].index
    if leaking.empty:
        return None
    rows = tuple(f"{video}: {_places(members)}" for video, members in frames[frames["video_id"].isin(leaking)].groupby("video_id"))
    clips_have = count(len(rows), "clip has", "clips have")
    message = f"{clips_have} frames in more than one split or fold: these were made frame by frame, not by clip."
    return Finding(
        "leakage-videos", "error", message, rows, "Make folds and splits anew with 'usdata split': neighbours in time are alike."
    )


def _places(frames: pd.DataFrame) -> str:
    splits = sorted(set(frames["split"]))
    folds = [str(int(fold)) for fold in sorted(set(frames["fold"].dropna()))]
    return ", ".join([*splits, *([f"fold{'s' if len(folds) > 1 else ''} {' '.join(folds)}"] if folds else [])])


def leakage_duplicates(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Verified pairs, and clips that share a frame with equal pixels, that stand in different splits or folds."""
    frames = tables.frames
    pairs = set(_pairs(tables))
    shared = frames[frames["duplicate_group"].notna()]
    for _, members in shared.groupby("duplicate_group"):
        pairs.update(combinations(sorted(set(members["video_id"])), 2))
    standing = {
        video: members
        for video, members in frames[frames["video_id"].isin({video for pair in pairs for video in pair})].groupby("video_id")
    }
    rows = []
    for a, b in sorted(pairs):
        if a not in standing or b not in standing:
            continue
        both = pd.concat([standing[a], standing[b]])
        if both["split"].nunique() > 1 or both["fold"].nunique() > 1:
            rows.append(f"{a} ({_places(standing[a])}) = {b} ({_places(standing[b])})")
    if not rows:
        return None
    pairs_stand = count(len(rows), "pair of clips with the same frames stands", "pairs of clips with the same frames stand")
    message = f"{pairs_stand} on two sides of a split or fold."
    return Finding(
        "leakage-duplicates", "error", message, tuple(rows), "Make the splits anew with 'usdata split', which keeps such clips together."
    )


def too_few_groups(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Labels with fewer groups than there are folds."""
    folds = tables.frames["fold"].dropna()
    number = int(folds.max()) + 1 if len(folds) else 0
    few = [row for row in statistics["by_label"] if row["label"] in tables.labels and row["groups"] < number]
    if not few:
        return None
    rows = tuple(f"{row['label']}: {count(row['groups'], 'group')}" for row in few)
    labels_have = count(len(few), "label has", "labels have")
    message = f"{labels_have} fewer groups than the {number} folds: not every fold can test {'it' if len(few) == 1 else 'them'}."
    return Finding("too-few-groups", "warning", message, rows, "Use fewer folds, or report these labels apart.")
