"""The audit as one HTML page that opens without a network.

Comes in: statistics, findings and the tables. Goes out: the page's text. Guarantees: everything that comes from the data is escaped,
nothing is loaded from elsewhere, no path of the machine is in it, it stays under 5 MB, and an equal data set gives an equal page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from usdata.auditing.acquisition import UNKNOWN
from usdata.auditing.charts import histogram, short_number, stacked_bar
from usdata.auditing.contact_sheets import Thumbnail, Thumbnailer, evenly_over_groups, first_frames, worst
from usdata.auditing.finding import LEVELS, Finding, count
from usdata.auditing.statistics import UNLABELLED, Tables

THUMBNAILS_PER_LABEL = 24
THUMBNAILS_OF_LABELS = 240
WORST_SHOWN = 8
PAIRS_SHOWN_AS_PICTURES = 4
ROWS_SHOWN = 1000
ATTRIBUTE_VALUES_SHOWN = 8
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


def breakable(text: object) -> Markup:
    """Escaped text in which a line may break after an underscore or a slash."""
    return Markup(re.sub(r"([_/])", r"\1<wbr>", str(escape(text))))


def frame_parts(frames: dict[str, int]) -> list[tuple[str, int, str]]:
    """The frames' flow as (name, number, style) parts of the decoded ones, the kept ones first, empty ones left out."""
    parts = [(name, frames[key], style) for key, (name, style) in FRAME_STEPS.items()]
    parts += [(key.removeprefix("other: "), number, "aside") for key, number in frames.items() if key.startswith("other: ")]
    return [part for part in parts if part[1] > 0]


def clip_parts(clips: dict[str, Any]) -> list[tuple[str, int, str]]:
    """The files' flow as (name, number, style) parts of the found ones, empty ones left out."""
    parts = [("kept", clips["kept"], "kept"), ("excluded", clips["excluded"], "excluded"), ("failed", clips["failed"], "failed")]
    return [part for part in parts if part[1] > 0]


def render(tables: Tables, statistics: dict[str, Any], findings: Sequence[Finding], *, pictures: bool = True) -> str:
    """The page as HTML text; without `pictures` no image is looked at."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value: "–" if value is None else short_number(value)
    environment.filters["breakable"] = breakable
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.0%}"
    environment.globals.update(count=count, histogram=histogram, stacked_bar=stacked_bar, rows_shown=ROWS_SHOWN)
    thumbnailer = Thumbnailer(tables.dataset.folder)
    return environment.get_template("report.html.jinja").render(
        statistics=statistics,
        summary=summary(statistics, findings),
        findings=findings,
        levels=[(level, sum(finding.level == level for finding in findings)) for level in reversed(LEVELS)],
        clip_parts=clip_parts(statistics["flow"]["clips"]),
        frame_parts=frame_parts(statistics["flow"]["frames"]),
        sheets=_sheets(tables, thumbnailer) if pictures else [],
        montages=_montages(tables, thumbnailer) if pictures else [],
        pairs=_pairs(tables, statistics, thumbnailer) if pictures else [],
        acquisition=_acquisition(statistics, tables.labels),
        unknown_facts=[name for name, entry in statistics["acquisition"].items() if _all_unknown(entry)],
        by_source=[(source, list(rows)) for source, rows in groupby(statistics["by_source_label"], key=lambda row: row["source"])],
        labels=tables.labels,
    )


def _sheets(tables: Tables, thumbnailer: Thumbnailer) -> list[tuple[str, int, list[Thumbnail]]]:
    present = set(tables.frames["label_name"])
    names = [name for name in (*tables.labels, UNLABELLED) if name in present]
    each = max(1, min(THUMBNAILS_PER_LABEL, THUMBNAILS_OF_LABELS // max(1, len(names))))
    sheets = []
    for name in names:
        frames = tables.frames[tables.frames["label_name"] == name]
        thumbnails = [thumbnail for thumbnail in thumbnailer.make(evenly_over_groups(frames, each)) if thumbnail.uri]
        if thumbnails:
            sheets.append((name, len(frames), thumbnails))
    return sheets


def _montages(tables: Tables, thumbnailer: Thumbnailer) -> list[tuple[str, str, list[Thumbnail]]]:
    montages = []
    for measure, title, unit in (
        ("quality_sharpness", "The least sharp", "sharpness"),
        ("quality_std", "The least contrast", "contrast"),
    ):
        thumbnails = [thumbnail for thumbnail in thumbnailer.make(worst(tables.frames, measure, WORST_SHOWN), measure) if thumbnail.uri]
        if thumbnails:
            montages.append((title, unit, thumbnails))
    return montages


def _pairs(tables: Tables, statistics: dict[str, Any], thumbnailer: Thumbnailer) -> list[list[Thumbnail]]:
    pairs = []
    for row in statistics["duplicates"][:PAIRS_SHOWN_AS_PICTURES]:
        at = [(row["video_id_a"], row["first_frame_a"]), (row["video_id_b"], row["first_frame_b"])]
        thumbnails = thumbnailer.make(first_frames(tables.frames, at))
        if len(thumbnails) == 2 and all(thumbnail.uri for thumbnail in thumbnails):
            pairs.append(thumbnails)
    return pairs


def _all_unknown(entry: dict[str, Any]) -> bool:
    return [row["value"] for row in entry["values"]] == [UNKNOWN]


def _acquisition(statistics: dict[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Attributes with at least one clip, each with its commonest values; the shade of a cell is its share of the label's clips."""
    tables = []
    for name, entry in statistics["acquisition"].items():
        if not entry["values"] or _all_unknown(entry):
            continue
        totals = {label: sum(row["labels"].get(label, 0) for row in entry["values"]) for label in labels}
        rows = [
            {
                "value": row["value"],
                "clips": row["clips"],
                "cells": [
                    (row["labels"].get(label, 0), round(100 * row["labels"].get(label, 0) / (totals[label] or 1))) for label in labels
                ],
            }
            for row in entry["values"][:ATTRIBUTE_VALUES_SHOWN]
        ]
        tables.append({"name": name, "v": entry["cramers_v"], "rows": rows, "left": max(0, len(entry["values"]) - ATTRIBUTE_VALUES_SHOWN)})
    return tables
