"""What an audit says in a few words, for the page and for the terminal.

Comes in: statistics and findings. Goes out: three sentences, a verdict, and the flow of files and frames as named parts. Guarantees: the
parts of a flow add up to its whole; equal statistics give equal words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from usdata.auditing.finding import LEVELS, Finding, count
from usdata.auditing.tables import UNLABELLED

FRAME_STEPS = {
    "kept": ("kept", "kept"),
    "not_sampled": ("not sampled", "aside"),
    "near_repeat": ("near repeats", "repeat"),
    "redundant": ("too like the last kept", "repeat"),
    "repeats_period": ("of a loop, again", "repeat"),
    "blank": ("blank", "blank"),
    "damaged": ("damaged", "excluded"),
    "invalid": ("marked invalid", "excluded"),
    "clip_excluded": ("of excluded clips", "excluded"),
    "unaccounted": ("unaccounted", "failed"),
}


def summary(statistics: dict[str, Any], findings: Sequence[Finding]) -> list[str]:
    """Three sentences: what this set is, how much of it there is, and what is wrong with it."""
    what = _what(statistics)
    return [what[0].upper() + what[1:], _how_much(statistics), _what_is_wrong(findings)]


def _what(statistics: dict[str, Any]) -> str:
    about, totals = statistics["set"], statistics["totals"]
    if not totals["clips"]:
        return "no clip could be kept."
    organs = f"{_and(about['organs'])} ultrasound" if about["organs"] else "ultrasound"
    labels = [row["label"] for row in statistics["by_label"] if row["label"] != UNLABELLED]
    labelled = f"with {count(len(labels), 'label')} ({_listed(labels)})" if labels else "without labels"
    return (
        f"{count(totals['clips'], 'clip')} of {organs} from {count(totals['sources'], 'source')} ({_listed(about['sources'])}), {labelled}."
    )


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _how_much(statistics: dict[str, Any]) -> str:
    totals, clips, frames = statistics["totals"], statistics["flow"]["clips"], statistics["flow"]["frames"]
    people = count(totals["patients"], "known patient") if totals["patients"] else "no known patient"
    return (
        f"{clips['kept']:,} of {count(clips['found'], 'file')} found are kept, in {count(totals['groups'], 'group')} with {people}; "
        f"{frames['kept']:,} of {count(frames['decoded'], 'decoded frame')} are kept."
    )


def _what_is_wrong(findings: Sequence[Finding]) -> str:
    if any(finding.level != "note" for finding in findings):
        return f"{verdict(findings)[:-1]}; the worst: {findings[0].message}"
    return verdict(findings)


def verdict(findings: Sequence[Finding]) -> str:
    """One sentence: how many findings of each level."""
    numbers = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    parts = [count(numbers[level], level) for level in reversed(LEVELS) if numbers[level]]
    if not parts:
        return "The audit found nothing wrong."
    if numbers["error"] or numbers["warning"]:
        return f"The audit found {_and(parts)}."
    return f"The audit found no error and no warning, and left {_and(parts)}."


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def frame_parts(frames: dict[str, int]) -> list[tuple[str, int, str]]:
    """The frames' flow as (name, number, style) parts of the decoded ones, the kept ones first, empty ones left out."""
    parts = [(name, frames[key], style) for key, (name, style) in FRAME_STEPS.items()]
    parts += [(key.removeprefix("other: "), number, "aside") for key, number in frames.items() if key.startswith("other: ")]
    return [part for part in parts if part[1] > 0]


def clip_parts(clips: dict[str, Any]) -> list[tuple[str, int, str]]:
    """The files' flow as (name, number, style) parts of the found ones, empty ones left out."""
    parts = [("kept", clips["kept"], "kept"), ("excluded", clips["excluded"], "excluded"), ("failed", clips["failed"], "failed")]
    return [part for part in parts if part[1] > 0]
