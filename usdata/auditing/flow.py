"""What was found and what became of it, step by step: the flow diagram that reporting guidelines ask for.

Comes in: the tables. Goes out: the totals, and the stages found, decoded, mode, field_of_view, unique, split, each with what is left after
it and what it left out, by reason. Guarantees: at every stage what was there is what is left plus what was left out, clips and frames.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from usdata.auditing.tables import Tables

EXCLUSION_REASONS = ("near_repeat", "repeats_period", "redundant", "blank", "damaged", "invalid", "not_sampled", "clip_excluded")
# Frames of kept clips that are left out because they show nothing, or nothing new; the other reason is that the rule did not take them.
_NOT_UNIQUE = ("damaged", "invalid", "blank", "near_repeat", "repeats_period", "redundant")
_OF_A_STAGE = (
    ("mode", re.compile(r"^is .*, which the recipe does not keep \(modes\)$")),
    ("field_of_view", re.compile(r"^held back for review|^rejected in review$")),
    ("decoded", re.compile(r"^cut short: ")),
)
# What differs from clip to clip, so that clips left out for one reason are counted together.
_DETAIL = re.compile(r" \(line \d+\)|(?<=^cut short: ).*(?= decode \(read)")
REASONS_SHOWN = 50
NO_REASON = "no reason was recorded"


def flow(tables: Tables) -> dict[str, Any]:
    """The flow of files and frames.

    Returns:
        `clips` and `frames` (totals, and for clips each failure and exclusion), and `stages`: {"stage", "clips", "frames" (None where
        nothing is decoded yet), "left_out": [{"reason", "clips", "frames"}]}; the last one has `parts`, the frames of each split.
    """
    videos, excluded = tables.videos, tables.excluded
    status = videos["status"].value_counts()
    failed = excluded["video_id"].isin(videos.loc[videos["status"] == "failed", "video_id"])
    # Frames that went with their clip: what some of them would have been left out for anyway says nothing.
    whole = excluded["video_id"].isin(excluded.loc[excluded["reason"] == "clip_excluded", "video_id"]) & ~failed
    reasons = excluded[~failed & ~whole].groupby("reason")["frames"].sum().to_dict()
    reasons["clip_excluded"] = int(excluded.loc[whole, "frames"].sum())
    told = sum(reasons.values())
    decoded = videos.groupby("status")["frames_decoded"].sum()
    looked_at = int(decoded.get("ok", 0) + decoded.get("excluded", 0))
    frames_kept = int(tables.places["frames"].sum())
    return {
        "clips": {
            "found": len(videos),
            "failed": int(status.get("failed", 0)),
            "excluded": int(status.get("excluded", 0)),
            "kept": int(status.get("ok", 0)),
            "failures": _listed(videos, "failed"),
            "exclusions": _listed(videos, "excluded"),
        },
        "frames": {
            "decoded": looked_at,
            **{reason: int(reasons.pop(reason, 0)) for reason in EXCLUSION_REASONS},
            **{f"other: {reason}": int(count) for reason, count in sorted(reasons.items())},
            "kept": frames_kept,
            "unaccounted": looked_at - frames_kept - int(told),
            "in_failed_clips": int(decoded.get("failed", 0)),
        },
        "stages": _stages(tables),
    }


def _listed(videos: pd.DataFrame, status: str) -> list[dict[str, str]]:
    rows = videos[videos["status"] == status].sort_values("path")
    return [
        {"video_id": video, "path": path, "reason": reason if isinstance(reason, str) else NO_REASON}
        for video, path, reason in zip(rows["video_id"], rows["path"], rows["reason"], strict=True)
    ]


def _stages(tables: Tables) -> list[dict[str, Any]]:
    videos = tables.videos
    lost = videos[videos["status"] != "ok"]
    lost = pd.DataFrame(
        {
            "stage": [_stage_of(*row) for row in zip(lost["status"], lost["reason"], lost["frames_decoded"], strict=True)],
            "reason": [_DETAIL.sub("", reason) if isinstance(reason, str) else NO_REASON for reason in lost["reason"]],
            "clips": 1,
            "frames": lost["frames_decoded"].to_numpy(),
        }
    )
    of_kept = tables.excluded[tables.excluded["video_id"].isin(tables.kept["video_id"])]
    frame_reasons = of_kept.groupby("reason")["frames"].sum().sort_values(ascending=False)
    stages: list[dict[str, Any]] = [{"stage": "found", "clips": len(videos), "frames": None, "left_out": []}]
    clips, frames = len(videos), int(videos["frames_decoded"].sum())
    for stage in ("decoded", "mode", "field_of_view", "unique", "split"):
        left_out = _left_out(lost[lost["stage"] == stage])
        if stage in ("unique", "split"):
            of_stage = [reason for reason in frame_reasons.index if (reason in _NOT_UNIQUE) == (stage == "unique")]
            left_out += [_row(reason.replace("_", " "), 0, int(frame_reasons[reason])) for reason in of_stage]
        if stage == "split":
            kept = int(tables.places["frames"].sum())
            unaccounted = frames - sum(row["frames"] for row in left_out) - kept
            left_out += [_row("unaccounted", 0, unaccounted)] if unaccounted else []
        clips -= sum(row["clips"] for row in left_out)
        frames -= sum(row["frames"] for row in left_out)
        stages.append({"stage": stage, "clips": clips, "frames": frames, "left_out": left_out})
    by_split = tables.places.groupby("split").agg(clips=("video_id", "nunique"), frames=("frames", "sum"))
    order = {name: place for place, name in enumerate(("train", "val", "test"))}
    parts = sorted(by_split.index, key=lambda name: (order.get(name, len(order)), name))
    stages[-1]["parts"] = [{"split": name, "clips": int(by_split.clips[name]), "frames": int(by_split.frames[name])} for name in parts]
    return stages


def _stage_of(status: str, reason: object, frames_decoded: int) -> str:
    """At which stage a clip was left out."""
    if status == "failed" or not frames_decoded:
        return "decoded"
    return next((stage for stage, pattern in _OF_A_STAGE if isinstance(reason, str) and pattern.search(reason)), "unique")


def _left_out(lost: pd.DataFrame) -> list[dict[str, Any]]:
    """Reasons with their clips and frames, the most frequent first; beyond the first fifty they are counted as one."""
    if lost.empty:
        return []
    sums = lost.groupby("reason")[["clips", "frames"]].sum().reset_index().sort_values(["clips", "reason"], ascending=[False, True])
    rows = [_row(*row) for row in sums.itertuples(index=False)]
    if len(rows) > REASONS_SHOWN:
        rest = rows[REASONS_SHOWN:]
        rows = rows[:REASONS_SHOWN]
        rows.append(_row(f"{len(rest):,} other reasons", sum(row["clips"] for row in rest), sum(row["frames"] for row in rest)))
    return rows


def _row(reason: str, clips: int, frames: int) -> dict[str, Any]:
    return {"reason": str(reason), "clips": int(clips), "frames": int(frames)}
