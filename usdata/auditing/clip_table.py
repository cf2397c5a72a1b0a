"""One row per clip, for the report.

Comes in: the videos table. Goes out: rows of plain values. Guarantees: at most `CLIPS_SHOWN` rows and `CLIP_BYTES` bytes; where these are
too few, failed and excluded clips go first, then those that wait for a person, then those with flags, then the rest, evenly spread.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from usdata.auditing.contact_sheets import spaced
from usdata.auditing.page_text import fitting

CLIPS_SHOWN = 2000
CLIP_BYTES = 1_500_000


def clip_rows(videos: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of the report's clip table, sorted by source and clip.

    Args:
        videos: The videos table with `label_name` and `frames`, sorted by source and clip.

    Returns:
        Rows with clip, status, reason, source, label, patient, group, fps, fps_effective, frames, flags (text), review (text); what is
        unknown is "" or None.
    """
    chosen = _most_telling(videos, CLIPS_SHOWN)
    rows = [_row(row) for row in videos.loc[chosen].to_dict("records")]
    shown = {row["clip"] for row in fitting(rows, CLIPS_SHOWN, CLIP_BYTES)}
    return sorted((row for row in rows if row["clip"] in shown), key=lambda row: (row["source"], row["clip"]))


def _most_telling(videos: pd.DataFrame, number: int) -> list[Any]:
    """The index of at most `number` rows, what needs attention first."""
    rest = pd.Series(True, index=videos.index)
    chosen: list[Any] = []
    for telling in (
        videos["status"] != "ok",
        videos["review"] == "needed",
        videos["flags"].map(len) > 0,
        pd.Series(True, index=videos.index),
    ):
        members = list(videos.index[telling & rest])
        rest &= ~telling
        left = number - len(chosen)
        chosen += members if len(members) <= left else [members[place] for place in spaced(len(members), left)]
    return chosen


def _row(clip: dict[Any, Any]) -> dict[str, Any]:
    review = _text(clip["review"])
    return {
        "clip": clip["video_id"],
        "status": clip["status"],
        "reason": _text(clip["reason"]),
        "source": clip["source"],
        "label": _text(clip["label"]),
        "patient": _text(clip["patient_id"]),
        "group": clip["group_id"],
        "fps": _number(clip["fps"]),
        "fps_effective": _number(clip["fps_effective"]),
        "frames": int(clip["frames"]),
        "flags": ", ".join(clip["flags"]).replace("_", " "),
        "review": f"{review}: {_text(clip['review_reason'])}" if review == "needed" and _text(clip["review_reason"]) else review,
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
