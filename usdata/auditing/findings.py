"""What is wrong with a data set, or worth knowing before training on it.

Comes in: the counted tables. Goes out: findings, worst first, each with a stable id, a level, one sentence with the number, every row it is
about and one sentence of advice. Guarantees: a finding stands if and only if its condition holds in the manifest, and it lists all
of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from usdata.auditing.acquisition import ANATOMY
from usdata.auditing.against import conflicting_labels_against, leakage_against
from usdata.auditing.finding import LEVELS, Finding, count, records
from usdata.auditing.images import image_path, missing_images
from usdata.auditing.labels import few_groups_of_labels, odd_labels, unlabelled
from usdata.auditing.leakage import conflicting_labels, duplicate_clips, leakage_duplicates, leakage_groups, leakage_videos
from usdata.auditing.licences import strictest
from usdata.auditing.privacy import review_waiting, text_in_pictures
from usdata.auditing.tables import Tables, holding
from usdata.manifest import FRAMES, read_table

__all__ = ["find", "image_path"]

CONFOUNDED_V = 0.5
SHORTCUT_POINTS = 0.10
SHORTCUT_P_VALUE = 0.05


NEARLY_ALL_DIFFER = 0.9  # of the frames, though their changes fall to next to nothing in a cadence


def find(tables: Tables, statistics: dict[str, Any], *, pictures: bool = True) -> list[Finding]:
    """All findings of a data set, worst first; of equal level, in the order of the checks.

    Args:
        tables: The data set.
        statistics: What was counted of it.
        pictures: Look whether the images are there.
    """
    checks = (*CHECKS, missing_pictures) if pictures else CHECKS
    found = [finding for check in checks if (finding := check(tables, statistics)) is not None]
    if "against" in statistics:
        across = (leakage_against(statistics), conflicting_labels_against(statistics))
        found = [*(finding for finding in across if finding is not None), *found]
    return sorted(found, key=lambda finding: -LEVELS.index(finding.level))


def _failed_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    clips = statistics["flow"]["clips"]
    rows = tuple(f"{row['path']}: {row['reason']}" for row in clips["failures"])
    if not rows:
        return None
    message = f"{count(len(rows), 'file')} of {clips['found']:,} could not be read."
    return Finding("failed-clips", "warning", message, rows, "Fetch or export these files again, or leave them out by name in the recipe.")


DAMAGE_FLAGS = ("truncated", "decode_errors", "damaged_frames", "missing_frames")


def _damaged_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    marked = holding(tables.kept["flags"], *DAMAGE_FLAGS) | (tables.kept["decode_errors"] > 0).to_numpy()
    columns = ["video_id", "flags", "decode_errors", "frames_decoded", "frames_declared"]
    rows = []
    for clip in records(tables.kept.loc[marked, columns]):
        declared = "" if pd.isna(clip.frames_declared) else f" of {int(clip.frames_declared)} declared"
        errors = count(int(clip.decode_errors), "decode error")
        cut = "truncated, " if "truncated" in clip.flags else ""
        rows.append(f"{clip.video_id}: {cut}{errors}, {clip.frames_decoded}{declared} frames decoded")
    if not rows:
        return None
    message = f"{count(len(rows), 'kept clip is', 'kept clips are')} damaged: cut short, or with parts that the decoder refused."
    return Finding("damaged-clips", "warning", message, tuple(rows), "Look at them: frames after damage can be made up by the decoder.")


def _single_source_label(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    strong = [
        (name, entry["cramers_v"])
        for name, entry in statistics["acquisition"].items()
        if name not in ANATOMY and entry["cramers_v"] is not None and entry["cramers_v"] > CONFOUNDED_V
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
    if not _tells_the_label(probe):
        return None
    message = f"File metadata alone tells the label in {_accuracy(probe)}"
    advice = "Compare every model with this figure, not with chance, and re-encode or mask so that the picture is all a model can use."
    return Finding("shortcut", "warning", message, tuple(probe["features"]), advice)


def shortcut_surroundings(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """The label can be told from what lies around the field of view."""
    probe = statistics["surroundings"]
    if not _tells_the_label(probe):
        return None
    message = f"What lies around the field of view tells the label in {_accuracy(probe)}"
    advice = "Compare every model with this figure, and build with 'image.crop: mask', which stores nothing outside the field of view."
    if "outline of the field of view alone" in probe["saw"]:
        advice = "Compare every model with this figure: the shape of the field of view, which goes with the probe, gives the label away."
    return Finding("shortcut-surroundings", "warning", message, (probe["saw"],), advice)


def _tells_the_label(probe: dict[str, Any]) -> bool:
    """Whether a probe is right more often than the majority rate, by more than chance and by enough to matter."""
    if "why_not" in probe:
        return False
    result = probe["by_group"]
    return bool(result["accuracy"] - probe["majority"] > SHORTCUT_POINTS and result["p_value"] < SHORTCUT_P_VALUE)


def _accuracy(probe: dict[str, Any]) -> str:
    return (
        f"{probe['by_group']['accuracy']:.0%} of {probe['clips']:,} clips of unseen groups; "
        f"always answering the most frequent label gives {probe['majority']:.0%}."
    )


def _frozen_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    rows = tuple(tables.flagged("frozen")["video_id"])
    if not rows:
        return None
    message = f"{count(len(rows), 'kept clip is', 'kept clips are')} frozen: nothing moves in the picture."
    return Finding("frozen-clips", "warning", message, rows, "Treat them as still images: two of their frames are no two views.")


def _upconverted_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    clips = tables.flagged("upconverted")[["video_id", "fps", "fps_effective"]]
    rows = tuple(f"{clip.video_id}: {_hertz(clip.fps)}, {_effective(clip)}" for clip in records(clips))
    if not rows:
        return None
    message = f"{count(len(rows), 'clip was', 'clips were')} up-converted: the frame rate was raised after recording by repeating frames."
    return Finding("upconverted-clips", "warning", message, rows, "Measure time in seconds, and motion with fps_effective, not with fps.")


def _effective(clip: Any) -> str:
    if clip.fps_effective > NEARLY_ALL_DIFFER * clip.fps:
        return "and its repeats were coded anew: they differ by a little more than nothing"
    return f"of which {_hertz(clip.fps_effective)} differ"


def _hertz(rate: float) -> str:
    return "unknown rate" if pd.isna(rate) else f"{rate:.1f} Hz"


def _near_repeats(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    clips = tables.flagged("near_repeats")
    clips = clips[~holding(clips["flags"], "frozen", "upconverted")]
    repeats = _excluded_of(tables, "near_repeat")
    rows = [
        f"{clip.video_id}: {int(repeats.get(clip.video_id, 0))} of {clip.frames_decoded} frames repeat an earlier one"
        for clip in records(clips[["video_id", "frames_decoded"]])
    ]
    if not rows:
        return None
    clips_have = count(len(rows), "clip has", "clips have")
    message = f"{clips_have} many frames that repeat an earlier one: stretches that stand still, or an uneven raise of the frame rate."
    return Finding("near-repeats", "note", message, tuple(rows), "Measure time with fps_effective, not with fps.")


def _excluded_of(tables: Tables, reason: str) -> pd.Series:
    """video_id to frames left out for a reason, sorted."""
    return tables.excluded[tables.excluded["reason"] == reason].set_index("video_id")["frames"].sort_index()


def _blank_frames(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    blank = _excluded_of(tables, "blank")
    if blank.empty:
        return None
    rows = tuple(f"{video}: {count(int(number), 'blank frame')}" for video, number in blank.items())
    message = f"{count(int(blank.sum()), 'blank frame')} in {count(len(blank), 'clip')} {'was' if blank.sum() == 1 else 'were'} left out."
    return Finding("blank-frames", "note", message, rows, "Nothing to do; black lead-ins are common.")


def _short_clips(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    clips = tables.flagged("short")[["video_id", "frames_unique"]]
    rows = [f"{clip.video_id}: {count(int(clip.frames_unique), 'unique frame')}" for clip in records(clips)]
    if not rows:
        return None
    message = f"{count(len(rows), 'clip has', 'clips have')} few unique frames."
    return Finding(
        "short-clips", "note", message, tuple(rows), "Check that they are whole; pairs of views from them are nearly the same picture."
    )


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
    known = strictest(licences)
    if len(licences) < 2 and not unknown:
        return None
    rows = tuple(f"{row['licence'] or 'no licence given'}: {count(row['clips'], 'clip')}" for row in licences)
    terms = f"the strictest is {known}" if known else "none of them is one we know"
    if not unknown:
        message = f"Clips come under {count(len(licences), 'licence')}; {terms}."
        return Finding(
            "licence-mix", "note", message, rows, "Whoever passes the whole set on must keep the strictest terms, and name every source."
        )
    clips = sum(row["clips"] for row in unknown)
    message = f"{count(clips, 'clip has', 'clips have')} no known licence" + (f"; of the known ones {terms}." if known else ".")
    return Finding("licence-mix", "warning", message, rows, "Find out the terms before passing these clips, or anything made of them, on.")


def missing_pictures(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Images that the manifest names and that are not there."""
    folder = tables.dataset.folder
    stored = read_table(folder, FRAMES, columns=("source", "video_id", "frame_index", "path"))
    paths = stored.sort_by([(key, "ascending") for key in ("source", "video_id", "frame_index")]).column("path").to_pylist()
    paths += [path for column in ("key_frames_path", "overlay_path") for path in tables.kept[column].dropna()]
    rows = missing_images(folder, paths)
    if not rows:
        return None
    message = f"{count(len(rows), 'image')} of {len(paths):,} that the manifest names {'is' if len(rows) == 1 else 'are'} missing."
    return Finding("missing-images", "error", message, tuple(rows), "Build the set again: what is there stays, what is missing is made.")


def _unaccounted_frames(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    excluded = tables.excluded.groupby("video_id")["frames"].sum()
    accounted = tables.kept["frames"] + tables.kept["video_id"].map(excluded).fillna(0).astype("int64")
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
    _unaccounted_frames,
    _failed_clips,
    _damaged_clips,
    _shortcut,
    shortcut_surroundings,
    _single_source_label,
    few_groups_of_labels,
    odd_labels,
    _unknown_patients,
    review_waiting,
    _frozen_clips,
    _upconverted_clips,
    _licence_mix,
    text_in_pictures,
    _near_repeats,
    _blank_frames,
    _short_clips,
    unlabelled,
)
