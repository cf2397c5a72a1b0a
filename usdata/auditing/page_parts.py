"""The report's parts that are neither a count nor a picture: what its charts and tables are drawn from.

Comes in: statistics. Goes out: plain values in the shape that the template draws. Guarantees: nothing is counted here that the
statistics do not hold; what is too many for a page is summed up as one rest, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from usdata.auditing.acquisition import UNKNOWN
from usdata.auditing.charts import whole_numbers
from usdata.auditing.finding import count

ATTRIBUTE_VALUES_SHOWN = 8
LABELS_SHOWN = 12
SOURCES_SHOWN = 7
HEAT_STEPS = 10
STAGE_NAMES = {
    "found": "Found",
    "decoded": "Decoded",
    "mode": "B-mode",
    "field_of_view": "Field of view",
    "unique": "Unique",
    "split": "In a split",
}


@dataclass(frozen=True)
class LabelBars:
    """Clips of each label, parted by source.

    Attributes:
        sources: (name, clips, style class), the largest first, the rest as one.
        rows: (label, clips, parts by source) in the labels' order.
        widest: Clips of the largest label.
        left: Labels that are not shown.
    """

    sources: list[tuple[str, int, str]]
    rows: list[tuple[str, int, list[tuple[str, int, str]]]]
    widest: int
    left: int


def label_bars(by_source_label: Sequence[dict[str, Any]], labels: Sequence[str]) -> LabelBars:
    """How the clips of each label part by source."""
    per_source, per_label = Counter[str](), Counter[str]()
    for row in by_source_label:
        per_source[row["source"]] += row["clips"]
        per_label[row["label"]] += row["clips"]
    ranked = sorted(per_source, key=lambda name: (-per_source[name], name))
    named, rest = ranked[:SOURCES_SHOWN], ranked[SOURCES_SHOWN:]
    styles = {name: f"s{index}" for index, name in enumerate(named)}
    sources = [(name, per_source[name], styles[name]) for name in named]
    if rest:
        sources.append((count(len(rest), "more source"), sum(per_source[name] for name in rest), "rest"))
    order = [*(label for label in labels if label in per_label), *sorted(set(per_label) - set(labels))]
    rows = []
    for label in order[:LABELS_SHOWN]:
        numbers = Counter({row["source"]: row["clips"] for row in by_source_label if row["label"] == label})
        parts = [(name, numbers[name], styles[name]) for name in named]
        parts.append(("other sources", sum(numbers[name] for name in rest), "rest"))
        rows.append((label, per_label[label], parts))
    return LabelBars(sources, rows, max(per_label.values(), default=0), max(0, len(order) - LABELS_SHOWN))


def member_histograms(statistics: dict[str, Any]) -> list[dict[str, Any]]:
    """How many clips patients and groups have; a set where every group is a patient gives one of the two."""
    per_patient = whole_numbers((row["clips"] for row in statistics["by_patient"]), "How many clips does a known patient have?")
    per_group = whole_numbers((row["clips"] for row in statistics["by_group"]), "How many clips does a group have?")
    if per_patient and per_group and per_patient["counts"] == per_group["counts"]:
        per_group = None
    named = ((per_patient, "patient"), (per_group, "group"))
    return [distribution | {"of": noun} for distribution, noun in named if distribution is not None]


def stages(statistics: dict[str, Any]) -> list[dict[str, Any]]:
    """The flow's stages, each with its parts of the files found: what is left, and what this stage left out."""
    rows = []
    listed = statistics["flow"].get("stages") or []
    before = listed[0]["clips"] if listed else 0
    for stage in listed:
        lost = max(0, before - stage["clips"])
        rows.append(
            {
                "name": STAGE_NAMES.get(stage["stage"], str(stage["stage"]).replace("_", " ")),
                "clips": stage["clips"],
                "frames": stage["frames"],
                "parts": [("go on", stage["clips"], "kept"), ("left out here", lost, "excluded")],
                "left_out": stage["left_out"],
                "splits": stage.get("parts") or [],
            }
        )
        before = stage["clips"]
    return rows


def probes(statistics: dict[str, Any]) -> list[dict[str, Any]]:
    """The shortcut probes that there are, each with a name and a sentence on what it saw."""
    found = []
    for key, name in (("shortcut", "From the file alone, without the picture"), ("surroundings", "From what stands around the picture")):
        probe = statistics.get(key)
        if probe is None:
            continue
        saw = probe.get("saw") or f"A random forest saw only {', '.join(probe.get('features', []))}."
        found.append({"name": name, "saw": saw, "probe": probe, "why_not": probe.get("why_not"), "left_out": probe.get("left_out") or []})
    return found


def _all_unknown(entry: dict[str, Any]) -> bool:
    return [row["value"] for row in entry["values"]] == [UNKNOWN]


def unknown_facts(statistics: dict[str, Any]) -> list[str]:
    """The acquisition facts that are unknown for every clip."""
    return [spaced_name(name) for name, entry in statistics["acquisition"].items() if _all_unknown(entry)]


def spaced_name(name: str) -> str:
    """A column's name as words."""
    return name.replace("_", " ")


def acquisition(statistics: dict[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Attributes with at least one clip, the most telling first, each with its commonest values.

    The shade of a cell (0 to 10) is its share of the label's clips.
    """
    shown, rest = labels[:LABELS_SHOWN], labels[LABELS_SHOWN:]
    tables = []
    for name, entry in statistics["acquisition"].items():
        if not entry["values"] or _all_unknown(entry):
            continue
        totals = {label: sum(row["labels"].get(label, 0) for row in entry["values"]) for label in labels}
        rows = []
        for row in entry["values"][:ATTRIBUTE_VALUES_SHOWN]:
            numbers = [(row["labels"].get(label, 0), totals[label]) for label in shown]
            if rest:
                numbers.append((sum(row["labels"].get(label, 0) for label in rest), sum(totals[label] for label in rest)))
            cells = [(number, round(HEAT_STEPS * number / (total or 1))) for number, total in numbers]
            rows.append({"value": row["value"], "clips": row["clips"], "cells": cells})
        left = max(0, len(entry["values"]) - ATTRIBUTE_VALUES_SHOWN)
        tables.append({"name": spaced_name(name), "v": entry["cramers_v"], "values": len(entry["values"]), "rows": rows, "left": left})
    return sorted(tables, key=lambda table: -1.0 if table["v"] is None else table["v"], reverse=True)


def acquisition_labels(labels: Sequence[str]) -> list[str]:
    """The heads of the columns that `acquisition` fills."""
    rest = len(labels) - LABELS_SHOWN
    return [*labels[:LABELS_SHOWN], *([count(rest, "more label")] if rest > 0 else [])]
