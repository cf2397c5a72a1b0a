"""Checks of what stands in a data set twice, and of whether folds and splits can be trusted.

Comes in: the counted tables. Goes out: at most one finding a check, listing every pair, group or label concerned.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd

from usdata.auditing.finding import Finding, count
from usdata.auditing.tables import Tables, rows_with_value
from usdata.duplicates.exact import MOST_CLIPS_OF_A_SCAN
from usdata.duplicates.groups import connected_components


def _pairs(tables: Tables, *, views: bool = True) -> list[tuple[str, str]]:
    """Pairs of duplicates.parquet; without `views` those that are copies."""
    table = tables.dataset.duplicates
    table = table if views else table[table["kind"] != "view"]
    return sorted(set(zip(table["video_id_a"], table["video_id_b"], strict=True)))


def _facts(tables: Tables, pairs: list[tuple[str, str]], column: str) -> dict[str, Any]:
    """video_id to a fact of videos.parquet, of the clips of some pairs; None where it is null."""
    clips = tables.videos[tables.videos["video_id"].isin({video for pair in pairs for video in pair})]
    return {video: value if isinstance(value, str) else None for video, value in zip(clips["video_id"], clips[column], strict=True)}


def duplicate_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Clips that show the same scan: a warning, and an error where the set takes them for different patients or groups."""
    pairs = _pairs(tables, views=False)
    if not pairs:
        return None
    patients, groups = _facts(tables, pairs, "patient_id"), _facts(tables, pairs, "group_id")
    rows, strangers = [], 0
    for a, b in pairs:
        why = [
            f"{kind} {of[a]} and {of[b]}"
            for kind, of in (("patients", patients), ("groups", groups))
            if of.get(a) is not None and of.get(b) is not None and of[a] != of[b]
        ]
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
    pairs = _pairs(tables, views=False)
    labels_of = {video: label for video, label in _facts(tables, pairs, "label").items() if label is not None}
    rows = _contradictions(pairs, labels_of)
    labels = tables.kept[["group_id", "label"]].dropna().drop_duplicates().sort_values(["group_id", "label"])
    several = labels[labels.duplicated("group_id", keep=False)].groupby("group_id")["label"].agg(", ".join)
    mixed = [f"group {group}: {names}" for group, names in several.items()]
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
    rows, counts = [], []
    for name, key in (("group", "group_id"), ("patient", "patient")):
        leaking = _in_two_parts(tables.places, key)
        rows += [f"{name} {value}: {_places(members)}" for value, members in leaking.groupby(key)]
        if len(leaking):
            counts.append(count(leaking[key].nunique(), name))
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
    leaking = _in_two_parts(tables.places, "video_id")
    if leaking.empty:
        return None
    rows = tuple(f"{video}: {_places(members)}" for video, members in leaking.groupby("video_id"))
    clips_have = count(len(rows), "clip has", "clips have")
    message = f"{clips_have} frames in more than one split or fold: these were made frame by frame, not by clip."
    return Finding(
        "leakage-videos", "error", message, rows, "Make folds and splits anew with 'usdata split': neighbours in time are alike."
    )


def _in_two_parts(places: pd.DataFrame, key: str) -> pd.DataFrame:
    """The places of those groups, patients or clips that stand in more than one split or fold."""
    known = places[places[key].notna()]
    spread = known.groupby(key).agg(splits=("split", "nunique"), folds=("fold", "nunique"))
    return known[known[key].isin(spread[(spread["splits"] > 1) | (spread["folds"] > 1)].index)]


def _places(rows: pd.DataFrame) -> str:
    return _named(set(rows["split"]), set(rows["fold"].dropna()))


def _named(splits: set[str], folds: set[float]) -> str:
    numbers = [str(int(fold)) for fold in sorted(folds)]
    return ", ".join([*sorted(splits), *([f"fold{'s' if len(numbers) > 1 else ''} {' '.join(numbers)}"] if numbers else [])])


def leakage_duplicates(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Verified pairs, and clips that share a frame with equal pixels, that stand in different splits or folds.

    A frame that stands in more clips than a scan does (a title card) gives one row with the number of its clips, not a row a pair.
    """
    pairs, crowds = set(_pairs(tables)), {}
    shared = rows_with_value(tables.dataset, "duplicate_group", ("video_id", "duplicate_group")).drop_duplicates()
    for name, videos in shared.groupby("duplicate_group")["video_id"].agg(sorted).items():
        if len(videos) <= MOST_CLIPS_OF_A_SCAN:
            pairs.update(combinations(videos, 2))
        else:
            crowds[str(name)] = videos
    wanted = {video for pair in pairs for video in pair} | {video for videos in crowds.values() for video in videos}
    standing: dict[str, tuple[set[str], set[float]]] = {}
    at = tables.places[tables.places["video_id"].isin(wanted)]
    for video, split, fold in zip(at["video_id"], at["split"], at["fold"], strict=True):
        splits, folds = standing.setdefault(video, (set(), set()))
        splits.add(split)
        folds.update(() if pd.isna(fold) else (fold,))
    rows = []
    for a, b in sorted(pairs):
        if a in standing and b in standing and _apart([standing[a], standing[b]]):
            rows.append(f"{a} ({_named(*standing[a])}) = {b} ({_named(*standing[b])})")
    found = len(rows)
    for name, videos in sorted(crowds.items()):
        parts = [standing[video] for video in videos if video in standing]
        if _apart(parts):
            everywhere = _named(set().union(*(splits for splits, _ in parts)), set().union(*(folds for _, folds in parts)))
            rows.append(f"frame {name}: in {len(videos):,} clips ({everywhere})")
    if not rows:
        return None
    told = [count(found, "pair of clips with the same frames stands", "pairs of clips with the same frames stand")] if found else []
    if len(rows) > found:
        told.append(count(len(rows) - found, "frame that many clips hold stands", "frames that many clips hold stand"))
    message = f"{' and '.join(told)} on two sides of a split or fold."
    return Finding(
        "leakage-duplicates", "error", message, tuple(rows), "Make the splits anew with 'usdata split', which keeps such clips together."
    )


def _apart(parts: list[tuple[set[str], set[float]]]) -> bool:
    """Whether these places together are more than one split or more than one fold."""
    return any(len(set().union(*(part[kind] for part in parts))) > 1 for kind in (0, 1)) if parts else False
