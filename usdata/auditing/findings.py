"""What is wrong with a data set, or worth knowing before training on it.

Comes in: the counted tables. Goes out: findings, worst first, each with a stable id, a level, one sentence with the number, every row it is
about and one sentence of advice. Guarantees: a finding stands if and only if its condition holds in the manifest, and it lists all
of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from usdata.auditing.finding import LEVELS, Finding, count, records
from usdata.auditing.leakage import conflicting_labels, duplicate_clips, leakage_duplicates, leakage_groups, leakage_videos, too_few_groups
from usdata.auditing.statistics import Tables

CONFOUNDED_V = 0.5
SHORTCUT_POINTS = 0.10
SHORTCUT_P_VALUE = 0.05
STILL_KINDS = {"png", "jpeg", "jpg", "bmp", "tiff", "tif", "webp", "pgm", "ppm", "jpeg2000"}


def find(tables: Tables, statistics: dict[str, Any]) -> list[Finding]:
    """All findings of a data set, worst first; of equal level, in the order of the checks."""
    found = [finding for check in CHECKS if (finding := check(tables, statistics)) is not None]
    return sorted(found, key=lambda finding: -LEVELS.index(finding.level))


def image_path(folder: Path, relative: str) -> Path | None:
    """Where an image of the manifest lies, or None if its path leaves the folder."""
    path = PurePosixPath(relative)
    return None if path.is_absolute() or ".." in path.parts or "\\" in relative else folder / path


def _failed_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    clips = statistics["flow"]["clips"]
    rows = tuple(f"{row['path']}: {row['reason']}" for row in clips["failures"])
    if not rows:
        return None
    message = f"{count(len(rows), 'file')} of {clips['found']:,} could not be read."
    return Finding("failed-clips", "warning", message, rows, "Fetch or export these files again, or leave them out by name in the recipe.")


DAMAGE_FLAGS = ("truncated", "decode_errors", "damaged_frames", "missing_frames")


def _damaged_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    rows = []
    for clip in records(tables.kept):
        marks = [flag.replace("_", " ") for flag in DAMAGE_FLAGS if flag in clip.flags]
        if not marks and not clip.decode_errors:
            continue
        declared = "" if pd.isna(clip.frames_declared) else f" of {int(clip.frames_declared)} declared"
        errors = count(int(clip.decode_errors), "decode error")
        rows.append(
            f"{clip.video_id}: {'truncated, ' if 'truncated' in marks else ''}{errors}, {clip.frames_decoded}{declared} frames decoded"
        )
    if not rows:
        return None
    message = f"{count(len(rows), 'kept clip is', 'kept clips are')} damaged: cut short, or with parts that the decoder refused."
    return Finding("damaged-clips", "warning", message, tuple(rows), "Look at them: frames after damage can be made up by the decoder.")


def _single_source_label(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    strong = [
        (name, entry["cramers_v"])
        for name, entry in statistics["acquisition"].items()
        if entry["cramers_v"] is not None and entry["cramers_v"] > CONFOUNDED_V
    ]
    if not strong:
        return None
    rows = tuple(f"{name}: Cramér's V {value:.2f}" for name, value in strong)
    names = ", ".join(name for name, _ in strong)
    message = f"The label goes with {count(len(strong), 'fact')} of acquisition ({names}): Cramér's V above {CONFOUNDED_V}."
    advice = "A model can learn the device or the hospital instead of the disease: test on a source where the two do not go together."
    return Finding("single-source-label", "warning", message, rows, advice)


def _shortcut(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    probe = statistics["shortcut"]
    if "why_not" in probe:
        return None
    result, majority = probe["by_group"], probe["majority"]
    if result["accuracy"] - majority <= SHORTCUT_POINTS or result["p_value"] >= SHORTCUT_P_VALUE:
        return None
    message = (
        f"File metadata alone tells the label in {result['accuracy']:.0%} of {probe['clips']:,} clips of unseen groups; "
        f"always answering the most frequent label gives {majority:.0%}."
    )
    advice = "Compare every model with this figure, not with chance, and re-encode or mask so that the picture is all a model can use."
    return Finding("shortcut", "warning", message, tuple(probe["features"]), advice)


def _frozen_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    rows = tuple(clip.video_id for clip in records(tables.kept) if "frozen" in clip.flags)
    if not rows:
        return None
    message = f"{count(len(rows), 'kept clip is', 'kept clips are')} frozen: nothing moves in the picture."
    return Finding("frozen-clips", "warning", message, rows, "Treat them as still images: two of their frames are no two views.")


def _near_repeats(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    rows = []
    excluded = tables.dataset.excluded
    repeats_of = excluded.loc[excluded["reason"] == "near_repeat", "video_id"].value_counts()
    for clip in records(tables.kept):
        if "near_repeats" in clip.flags and "frozen" not in clip.flags:
            repeats = int(repeats_of.get(clip.video_id, 0))
            rows.append(f"{clip.video_id}: {repeats} of {clip.frames_decoded} frames repeat an earlier one")
    if not rows:
        return None
    clips_have = count(len(rows), "clip has", "clips have")
    message = f"{clips_have} many near-repeated frames: the frame rate was raised after recording."
    return Finding("near-repeats", "note", message, tuple(rows), "Measure time with fps_effective, not with fps.")


def _blank_frames(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    excluded = tables.dataset.excluded
    blank = excluded.loc[excluded["reason"] == "blank", "video_id"].value_counts().sort_index()
    if blank.empty:
        return None
    rows = tuple(f"{video}: {count(int(number), 'blank frame')}" for video, number in blank.items())
    message = f"{count(int(blank.sum()), 'blank frame')} in {count(len(blank), 'clip')} {'was' if blank.sum() == 1 else 'were'} left out."
    return Finding("blank-frames", "note", message, rows, "Nothing to do; black lead-ins are common.")


def _short_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    rows = [f"{clip.video_id}: {count(int(clip.frames_unique), 'unique frame')}" for clip in records(tables.kept) if "short" in clip.flags]
    if not rows:
        return None
    message = f"{count(len(rows), 'clip has', 'clips have')} few unique frames."
    return Finding(
        "short-clips", "note", message, tuple(rows), "Check that they are whole; pairs of views from them are nearly the same picture."
    )


def _unlabelled(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    rows = tuple(tables.kept.loc[tables.kept["label"].isna(), "video_id"])
    if not rows:
        return None
    share = f"{len(rows):,} of {count(len(tables.kept), 'clip')} ({len(rows) / len(tables.kept):.0%})"
    message = f"{share} {'has' if len(rows) == 1 else 'have'} no label."
    return Finding("unlabelled", "note", message, rows, "They serve pretraining; evaluation passes them over.")


def _unknown_patients(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    rows = tuple(tables.kept.loc[tables.kept["patient"].isna(), "video_id"])
    if not rows:
        return None
    message = (
        f"The patient of {len(rows):,} of {count(len(tables.kept), 'clip')} ({len(rows) / len(tables.kept):.0%}) is unknown, "
        "so their splits are only as good as their groups."
    )
    return Finding("unknown-patients", "warning", message, rows, "Add patient ids to the recipe where the source gives them.")


def _licence_mix(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    licences = statistics["licences"]
    unknown = [row for row in licences if row["kind"] is None]
    known = [row for row in licences if row["kind"] is not None]
    if len(licences) < 2 and not unknown:
        return None
    rows = tuple(f"{row['licence'] or 'no licence given'}: {count(row['clips'], 'clip')}" for row in licences)
    strictest = f"the strictest is {known[0]['licence']}" if known else "none of them is one we know"
    if not unknown:
        message = f"Clips come under {count(len(licences), 'licence')}; {strictest}."
        return Finding(
            "licence-mix", "note", message, rows, "Whoever passes the whole set on must keep the strictest terms, and name every source."
        )
    clips = sum(row["clips"] for row in unknown)
    message = f"{count(clips, 'clip has', 'clips have')} no known licence" + (f"; of the known ones {strictest}." if known else ".")
    return Finding("licence-mix", "warning", message, rows, "Find out the terms before passing these clips, or anything made of them, on.")


def _missing_images(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    folder = tables.dataset.folder
    rows = []
    beside = [path for column in ("key_frames_path", "overlay_path") for path in tables.kept[column].dropna()]
    for relative in (*tables.frames["path"], *beside):
        path = image_path(folder, relative)
        if path is None or not path.is_file():
            rows.append(relative)
    if not rows:
        return None
    named, are = len(tables.frames) + len(beside), "is" if len(rows) == 1 else "are"
    message = f"{count(len(rows), 'image')} of {named:,} that the manifest names {are} missing."
    return Finding("missing-images", "error", message, tuple(rows), "Build the set again: what is there stays, what is missing is made.")


def _unaccounted_frames(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    accounted = tables.kept["frames"] + tables.kept["video_id"].map(tables.dataset.excluded["video_id"].value_counts()).fillna(0).astype(
        "int64"
    )
    wrong = tables.kept[accounted != tables.kept["frames_decoded"]]
    if wrong.empty:
        return None
    rows = tuple(
        f"{video}: {decoded} decoded, {known} kept or excluded"
        for video, decoded, known in zip(wrong["video_id"], wrong["frames_decoded"], accounted[wrong.index], strict=True)
    )
    message = f"The frames of {count(len(rows), 'clip do', 'clips do')} not add up: decoded is not kept plus excluded."
    return Finding("unaccounted-frames", "error", message, rows, "Build the set again; if it stays, report it as a fault of usdata.")


Check = Callable[[Tables, dict[str, Any]], Finding | None]
CHECKS: Iterable[Check] = (
    leakage_groups,
    leakage_videos,
    leakage_duplicates,
    duplicate_clips,
    conflicting_labels,
    _missing_images,
    _unaccounted_frames,
    _failed_clips,
    _damaged_clips,
    _shortcut,
    _single_source_label,
    too_few_groups,
    _unknown_patients,
    _frozen_clips,
    _licence_mix,
    _near_repeats,
    _blank_frames,
    _short_clips,
    _unlabelled,
)
