"""What the data set says of privacy, and what of it waits for a person.

Comes in: the tables and dataset.json. Goes out: sentences, rows, and findings. Guarantees: nothing is claimed that dataset.json or the
tables do not say; text in a picture is never called harmless.
"""

from __future__ import annotations

from typing import Any

from usdata.auditing.finding import Finding, count
from usdata.auditing.tables import Tables, holding

_OUTSIDE = {
    "none": "Pictures are stored whole: what is written outside the field of view is in them.",
    "box": "Pictures are cut to the box of the field of view: what is written in the box's corners is in them.",
    "mask": "Nothing outside the field of view is stored.",
}


def privacy(tables: Tables) -> dict[str, Any]:
    """Privacy as dataset.json and the tables tell it.

    Returns:
        `statement`, sentences, and `rows`, {"what", "value"}.
    """
    about = tables.dataset.about
    told, recipe = about.get("privacy") or {}, about.get("recipe") or {}
    held, waiting, text, accepted = _held(tables), _waiting(tables), _text(tables), _answered(tables, "accepted")
    rejected = _answered(tables, "rejected")
    whole, crop = tables.kept["fov_kind"].isna(), recipe.get("image", {}).get("crop", "unknown")
    sentences = [
        "This is a release: only pixels inside the field of view are stored."
        if told.get("release")
        else "This is no release: it is for work in the house, and not to be passed on as it is."
        if told
        else "dataset.json says nothing of privacy."
    ]
    if told.get("identifiers"):
        sentences.append(f"Patient ids: {told['identifiers']}.")
    if told.get("dates"):
        sentences.append(f"Dates: {told['dates']}.")
    if told.get("private_sources"):
        sentences.append(f"Private sources: {', '.join(told['private_sources'])}.")
    if crop in _OUTSIDE:
        sentences.append(_OUTSIDE[crop])
        if crop != "none" and whole.any():
            sentences.append(f"{count(int(whole.sum()), 'kept clip has', 'kept clips have')} no field of view and is stored whole.")
    if text:
        sentences.append(f"{count(len(text), 'kept clip has', 'kept clips have')} text inside the field of view that nobody has cleared.")
    if held or waiting:
        wait = count(len(held) + len(waiting), "clip waits", "clips wait")
        sentences.append(f"{wait} for a person to look, {len(held):,} of them held back until then.")
    rows: list[dict[str, Any]] = [
        {"what": "release", "value": "unknown" if "release" not in told else "yes" if told["release"] else "no"},
        {"what": "standard", "value": told.get("standard") or "none named"},
        {"what": "patient ids", "value": told.get("identifiers") or "unknown"},
        {"what": "stored of a picture", "value": crop},
        {"what": "clips waiting for review, kept", "value": len(waiting)},
        {"what": "clips held back for review", "value": len(held)},
        {"what": "clips accepted in review", "value": accepted},
        {"what": "clips rejected in review", "value": rejected},
        {"what": "kept clips with text inside the field of view, not cleared", "value": len(text)},
        {"what": "kept clips without a field of view", "value": int(whole.sum())},
    ]
    rows += [
        {"what": f"{method['code']} {method['meaning']}", "value": method["how"]} for method in told.get("methods", []) if "code" in method
    ]
    return {"statement": sentences, "rows": rows}


def review_waiting(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Clips that a person has yet to look at."""
    held, waiting = _held(tables), _waiting(tables)
    if not held and not waiting:
        return None
    given = tables.videos["review_reason"].astype("object").where(tables.videos["review_reason"].notna(), "no reason was recorded")
    reasons = dict(zip(tables.videos["video_id"], given, strict=True))
    marks = dict.fromkeys(held, " (held back)")
    rows = tuple(f"{video}{marks.get(video, '')}: {reasons[video]}" for video in sorted([*held, *waiting]))
    message = f"{count(len(rows), 'clip waits', 'clips wait')} for a person to look"
    message += f", {len(held):,} of them held back until then." if held else "; they are in the set meanwhile."
    return Finding("review-waiting", "warning", message, rows, "Look at them: 'usdata review SET --raw RAW' makes a page for it.")


def text_in_pictures(tables: Tables, statistics: dict[str, Any]) -> Finding | None:
    """Kept clips with text over the tissue that nobody has cleared."""
    rows = tuple(_text(tables))
    if not rows:
        return None
    message = f"{count(len(rows), 'kept clip has', 'kept clips have')} text inside the field of view: it may name a person."
    advice = "Look at them before the set leaves the house; 'image.overlays: inpaint' in the recipe paints over what is found."
    return Finding("text-in-pictures", "note", message, rows, advice)


def _waiting(tables: Tables) -> list[str]:
    return sorted(tables.kept.loc[tables.kept["review"] == "needed", "video_id"])


def _held(tables: Tables) -> list[str]:
    """Clips that were left out because a person has to look first."""
    out = tables.videos[tables.videos["status"] == "excluded"]
    held = (out["review"] == "needed") & out["reason"].astype("str").str.startswith("held back for review")
    return sorted(out.loc[held, "video_id"])


def _answered(tables: Tables, answer: str) -> int:
    return int((tables.videos["review"] == answer).sum())


def _text(tables: Tables) -> list[str]:
    painted = (tables.dataset.about.get("recipe") or {}).get("image", {}).get("overlays", "keep") != "keep"
    if painted:
        return []
    shown = tables.kept[holding(tables.kept["overlays"], "text")]
    return sorted(shown.loc[shown["review"] != "accepted", "video_id"])
