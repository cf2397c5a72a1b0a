"""The page of a segmentation: from `segmentation.json` and some pictures to HTML.

In: the summary, the weights whose frames are shown, these frames. Out: one page that loads nothing, runs no script and escapes every name.
Its style is that of the page of an evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from uscl.evaluation.report import called, points
from uscl.evaluation.reporting import charts
from uscl.evaluation.reporting.page import POLICY, page_environment, page_style
from uscl.segmentation.pictures import COLOURS, ShownFrame
from uscl.segmentation.report import LEVEL_NAMES, METRIC_NAMES, PRESENT, answer, figure, method

COMPARED = (PRESENT, "iou_where_present")
SHEET_NAMES = {"worst": "The worst frames", "middling": "Frames around the median", "best": "The best frames"}


def render(summary: Mapping[str, Any], judged: str, shown: Mapping[str, Sequence[ShownFrame]]) -> str:
    """The page.

    Args:
        summary: The content of `segmentation.json`.
        judged: The weights whose predictions are shown.
        shown: Of `contact_sheet`.
    """
    environment = page_environment(Path(__file__).parent / "page")
    style = page_style()
    entries = [*summary["weights"], summary["baseline"]]
    classes = [each["class"] for each in summary["dataset"]["classes"]]
    rows = _differences(summary)
    return environment.get_template("segmentation.html.jinja").render(
        title=f"Segmentation on {summary['dataset']['name']}",
        policy=POLICY,
        style=Markup(style),
        summary=summary,
        answer=answer(summary),
        bars=[_bars(entry) for entry in entries],
        metrics=[_metrics(entry) for entry in entries],
        metric_names=list(METRIC_NAMES.values()),
        classes=[_class(summary, index) for index in range(len(classes))],
        differences=rows,
        span=_span(rows),
        precision=[entry for entry in summary["weights"] if "average_precision" in entry],
        judged=judged,
        sheets=[(SHEET_NAMES[name], own) for name, own in shown.items()],
        legend=[(_css(number), name) for number, name in enumerate(classes)],
        method=method(summary),
        folds=[(division["seed"], part) for division in summary["folds"] for part in division["parts"]],
    )


def _css(number: int) -> str:
    blue, green, red = COLOURS[number % len(COLOURS)]
    return f"rgb({red} {green} {blue})"


def _bars(entry: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for level, name in LEVEL_NAMES.items():
        values = entry["levels"][level]["mean"][PRESENT]
        told = figure(values)
        bar = charts.interval_bar(values["value"], values["interval"], said=f"{called(entry['name'])} by {name}: {told} %")
        value, _, interval = told.partition(" ")
        rows.append({"level": name, "bar": bar, "value": value, "interval": interval})
    return {"name": entry["name"], "rows": rows}


def _metrics(entry: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        {"level": name, "items": entry["levels"][level]["items"], "cells": [_cell(entry["levels"][level]["mean"][m]) for m in METRIC_NAMES]}
        for level, name in LEVEL_NAMES.items()
    ]
    return {"name": entry["name"], "rows": rows}


def _cell(values: Mapping[str, Any]) -> tuple[str, str]:
    value, _, interval = figure(values).partition(" ")
    return value, interval


def _class(summary: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A class' counts, and for each of the weights its figures by frame."""
    found = dict(summary["dataset"]["classes"][index])
    rows = []
    for entry in [*summary["weights"], summary["baseline"]]:
        values = entry["levels"]["frame"]["classes"][index]
        rows.append({"name": entry["name"], "cells": [_cell(values[metric]) for metric in METRIC_NAMES]})
    return found | {"rows": rows}


def _differences(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [row for row in summary["differences"] if row["metric"] in COMPARED and row["level"] != "video"]
    span = _span(rows)
    found = []
    for row in rows:
        low, high = row["interval"]
        ends = f"[{points(low)}, {points(high)}]"
        what = f"{called(row['weights'])} less {called(row['reference'])}"
        said = f"{what}, {row['class'] or 'all classes'} by {LEVEL_NAMES[row['level']]}: {points(row['difference'])} points {ends}"
        bar = charts.interval_bar(row["difference"], row["interval"], low=-span, high=span, mark=0.0, said=said)
        told = {"what": what, "by": LEVEL_NAMES[row["level"]], "called": METRIC_NAMES[row["metric"]], "told": points(row["difference"])}
        found.append({**row, **told, "ends": ends, "bar": bar})
    return found


def _span(rows: Sequence[Mapping[str, Any]]) -> float:
    """Half the width of the differences' axis: the farthest end, in whole five points."""
    farthest = max((abs(end) for row in rows for end in row["interval"]), default=0.05)
    return max(0.05, -(-farthest // 0.05) * 0.05)
