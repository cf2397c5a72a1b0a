"""The page of one evaluation or several: from their content and pictures to HTML.

In: evaluations, and pictures where there are any. Out: one page that loads nothing, runs no script and escapes every name; what an
evaluation does not hold is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

from uscl.evaluation.folds import EXTERNAL
from uscl.evaluation.report import (
    LEVEL_NAMES,
    METRIC_NAMES,
    called,
    chance,
    levels_of,
    percent,
    points,
    protocol,
)
from uscl.evaluation.reporting import charts
from uscl.evaluation.reporting.collection import MAIN_METRIC, Evaluation, answer_of_all, main_comparisons, main_entries
from uscl.evaluation.reporting.coloured_maps import NEIGHBOURS_COUNTED
from uscl.evaluation.reporting.pictures import NEIGHBOURS, Pictures
from usdata.console import safe_text

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
CHART_LEVELS = ("frame", "video", "patient")
CURVE_LEVELS = ("frame", "patient")
# Rows of differences between weights of which neither is the reference; evaluation.json has all.
MOST_PAIRS = 30
# Classes that have a receiver operating characteristic, and points of each.
MOST_CURVES, CURVE_POINTS = 8, 200
COMPARED_METRICS = ("balanced_accuracy", "accuracy", "macro_f1", "auroc")
# Told as they are, the others in percent.
PLAIN_METRICS = ("brier_score", "log_loss")
CLASS_METRIC_NAMES = {"precision": "precision", "recall": "recall", "f1": "F1", "auroc": "AUROC", "average_precision": "average precision"}
LONGEST_NAME = 80
# A sentence breaks at its spaces; a file name has none.
LONGEST_WORD = 12
KNOWN_LEVELS = {
    "none": "nothing: no ultrasound",
    "clips": "its clips",
    "files": "digests of its files",
    "unknown": "not known",
}


def page_environment(templates: Path) -> jinja2.Environment:
    """What every page of ours is made by: names are escaped, and a name that a template does not know is an error.

    Args:
        templates: Folder of the page's templates.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: safe_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters |= {"percent": percent, "points": points, "called": called, "short": short, "breakable": breakable}
    return environment


def page_style() -> str:
    """The style sheet of every page of ours."""
    return (Path(__file__).parent / "page" / "report.css").read_text(encoding="utf-8")


def render(evaluations: Sequence[Evaluation], pictures: Mapping[str, Pictures]) -> str:
    """The page.

    Args:
        evaluations: At least one.
        pictures: By name of the evaluation; those without have none.
    """
    environment = page_environment(Path(__file__).parent / "page")
    environment.globals |= {"level_names": LEVEL_NAMES, "neighbours": NEIGHBOURS, "neighbours_counted": NEIGHBOURS_COUNTED}
    names = sorted({evaluation.summary["dataset"]["name"] for evaluation in evaluations})
    title = f"Evaluation on {', '.join(names)}" if len(evaluations) == 1 else f"{len(evaluations)} evaluations on {', '.join(names)}"
    return environment.get_template("report.html.jinja").render(
        title=title,
        policy=POLICY,
        style=Markup((Path(__file__).parent / "page" / "report.css").read_text(encoding="utf-8")),
        answer=answer_of_all(evaluations),
        judged_on=_judged_on(evaluations),
        sections=[_section(number, evaluation, pictures.get(evaluation.name)) for number, evaluation in enumerate(evaluations)],
        compared=_differences(main_comparisons(evaluations)) if len(evaluations) > 1 else [],
        compared_span=_span(main_comparisons(evaluations)),
    )


def _judged_on(evaluations: Sequence[Evaluation]) -> str:
    """What the figures of the page are on, in a word or two."""
    if any(told["folds_by"] != "group" for evaluation in evaluations for told in evaluation.summary.get("protocols", [])):
        return "honest and as published"
    external = [evaluation.summary["settings"]["kind"] == EXTERNAL for evaluation in evaluations]
    words = "external validation" if all(external) else "held-out groups and external validation" if any(external) else "held-out groups"
    known = any(entry.get("optimistic") for evaluation in evaluations for entry in evaluation.summary["weights"])
    return f"{words}, some of it optimistic" if known else words


def short(name: str) -> str:
    """A name of at most 80 characters, its end kept."""
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]


def breakable(text: str) -> Markup:
    """Escaped text in which a line may break after an underscore, a slash, a dot or a hyphen inside a long word."""
    words = [re.sub(r"([_/.-])(?=.)", "\\1\0", word) if len(word) > LONGEST_WORD else word for word in safe_text(text).split(" ")]
    return Markup(str(escape(" ".join(words))).replace("\0", "<wbr>"))


def figure(metric: str, value: float | None) -> str:
    """A metric's value as it is told: in percent with one decimal, or plain with three."""
    if metric not in PLAIN_METRICS:
        return percent(value)
    return "–" if value is None else f"{value:.3f}"


def _section(number: int, evaluation: Evaluation, pictures: Pictures | None) -> dict[str, Any]:
    summary = evaluation.summary
    by_chance = chance(summary)
    compared = [row for row in summary.get("differences", []) if row["metric"] in COMPARED_METRICS and row["level"] in CHART_LEVELS]
    pairs = [row for row in summary.get("pairs", []) if row["metric"] == MAIN_METRIC and row["level"] in CHART_LEVELS]
    compared += pairs[:MOST_PAIRS]
    external = summary["settings"]["kind"] == EXTERNAL
    return {
        "anchor": f"e{number}",
        "held_out": "" if external else "held-out ",
        "seed": "" if external else " (seed 0)",
        "evaluation": evaluation,
        "summary": summary,
        "entries": main_entries(summary),
        "sentences": answer_of_all([evaluation]),
        "bars": [_bars(summary, entry, by_chance) for entry in summary["weights"]],
        "metrics": _metrics(summary),
        "classes": _classes(summary),
        "differences": _differences(compared),
        "more_pairs": max(0, len(pairs) - MOST_PAIRS),
        "span": _span(compared),
        "roc": _roc(evaluation),
        "reliability": _reliability(summary),
        "efficiency": _efficiency(summary, by_chance),
        "chance": by_chance,
        "folds": _folds(summary),
        "leaks": _leaks(summary),
        "protocol": protocol(summary),
        "pictures": pictures,
    }


def _told(metric: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """A figure and its interval as they are told; no interval is an empty text."""
    ends = values["interval"].get(metric)
    return figure(metric, values["pooled"].get(metric)), f"[{figure(metric, ends[0])}, {figure(metric, ends[1])}]" if ends else ""


def _bars(summary: Mapping[str, Any], entry: Mapping[str, Any], by_chance: float) -> dict[str, Any]:
    rows = []
    for level in levels_of(dict(summary)):
        if level not in CHART_LEVELS:
            continue
        values = entry["levels"][level]
        value, interval = _told(MAIN_METRIC, values)
        said = f"{called(entry['name'])} by {level}: {value} % {interval}"
        bar = charts.interval_bar(
            values["pooled"].get(MAIN_METRIC),
            values["interval"].get(MAIN_METRIC),
            mark=by_chance,
            said=said,
            doubtful=bool(entry.get("optimistic")),
        )
        rows.append({"level": LEVEL_NAMES.get(level, level), "value": value, "interval": interval, "bar": bar})
    return {"name": entry["name"], "rows": rows}


def _metrics(summary: Mapping[str, Any]) -> dict[str, Any]:
    shown = [metric for metric in METRIC_NAMES if metric in summary["weights"][0]["levels"]["frame"]["pooled"]]
    levels = levels_of(dict(summary))
    heads = [METRIC_NAMES[metric] + ("" if metric in PLAIN_METRICS else " %") for metric in shown]
    blocks = []
    for entry in summary["weights"]:
        rows = [
            {
                "level": LEVEL_NAMES.get(level, level),
                "items": entry["levels"][level]["items"],
                "cells": [_told(metric, entry["levels"][level]) for metric in shown],
            }
            for level in levels
        ]
        blocks.append({"name": called(entry["name"]), "rows": rows})
    constant = {"accuracy": "majority_rate", MAIN_METRIC: None, "auroc": None}
    rows = []
    for level in levels:
        values = summary["weights"][0]["levels"][level]
        cells = []
        for metric in shown:
            if metric == "accuracy":
                cells.append((percent(values["pooled"].get(constant[metric])), ""))
            else:
                cells.append(({MAIN_METRIC: percent(chance(summary)), "auroc": "50.0"}.get(metric, ""), ""))
        rows.append({"level": LEVEL_NAMES.get(level, level), "items": values["items"], "cells": cells})
    blocks.append({"name": "always the most frequent class", "rows": rows})
    return {"heads": heads, "blocks": blocks}


def _classes(summary: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {row["class"]: row for row in summary["classes"]}
    first = summary["weights"][0]["levels"]["frame"]["per_class"][0]
    shown = [metric for metric in CLASS_METRIC_NAMES if metric in first]
    blocks = []
    for entry in summary["weights"]:
        rows: list[dict[str, Any]] = []
        for row in entry["levels"]["frame"]["per_class"]:
            told = _class_told(entry, len(rows))
            rows.append({"size": sizes[row["class"]], "cells": [_told(metric, told) for metric in shown]})
        blocks.append({"name": called(entry["name"]), "rows": rows})
    return {"heads": [f"{CLASS_METRIC_NAMES[metric]} %" for metric in shown], "blocks": blocks}


def _span(rows: Sequence[Mapping[str, Any]]) -> float:
    """How far the track of differences reaches to either side: a whole ten of points, past every interval."""
    most = max((abs(end) for row in rows if row["metric"] in COMPARED_METRICS for end in row["interval"]), default=0.1)
    return max(0.1, math.ceil(10 * most - 1e-9) / 10)


def _differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    span = _span(rows)
    found = []
    for row in rows:
        told, ends = points(row["difference"]), f"[{points(row['interval'][0])}, {points(row['interval'][1])}]"
        said = f"{called(row['weights'])} less {called(row['reference'])}, {METRIC_NAMES[row['metric']]} by {row['level']}: {told} {ends}"
        bar = charts.interval_bar(row["difference"], row["interval"], low=-span, high=span, mark=0, said=said)
        found.append({**row, "told": told, "ends": ends, "bar": bar, "called": METRIC_NAMES[row["metric"]]})
    return found


def _roc(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Of each class the curves of all weights, by held-out frames of the first seed."""
    from sklearn.metrics import roc_curve

    summary, predictions = evaluation.summary, evaluation.predictions
    classes = summary["dataset"]["classes"]
    if predictions.empty:
        return []
    found = []
    for index, name in list(enumerate(classes))[:MOST_CURVES]:
        drawn, told = [], []
        for entry in main_entries(dict(summary)):
            own = predictions[(predictions["weights"] == entry["name"]) & (predictions["seed"] == 0)]
            truth = (own["label"] == name).to_numpy()
            if truth.all() or not truth.any():
                continue
            wrong, right, _ = roc_curve(truth, own[f"probability_{name}"].to_numpy(dtype=np.float64))
            kept = np.unique(np.linspace(0, len(wrong) - 1, min(len(wrong), CURVE_POINTS)).astype(int))
            drawn.append((called(entry["name"]), wrong[kept], right[kept]))
            area, interval = _told("auroc", _class_told(entry, index))
            told.append(f"{called(entry['name'])} {area} % {interval}".rstrip())
        if drawn:
            said = f"{name} against the rest, AUROC: {'; '.join(told)}"
            found.append({"class": name, "chart": charts.roc(drawn, said=said), "told": f"AUROC: {'; '.join(told)}."})
    return found


def _class_told(entry: Mapping[str, Any], index: int) -> dict[str, Any]:
    row = entry["levels"]["frame"]["per_class"][index]
    return {"pooled": row, "interval": row.get("interval", {})}


def _reliability(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for entry in summary["weights"]:
        frame = entry["levels"]["frame"]
        bins = frame.get("reliability")
        if not bins:
            continue
        error, interval = _told("calibration_error", frame)
        filled = [row for row in bins if row["count"]]
        said = f"{called(entry['name'])}: " + "; ".join(
            f"of {row['count']} frames with mean probability {percent(row['confidence'])} % {percent(row['accuracy'])} % are right"
            for row in filled
        )
        sure = [row for row in filled if row["low"] >= 0.9]
        told = f"Calibration error {error} % {interval}."
        if sure:
            told += f" Of the {sure[0]['count']} frames called with 90 % or more, {percent(sure[0]['accuracy'])} % are right."
        found.append({"name": called(entry["name"]), "chart": charts.reliability(bins, said=said), "told": told})
    return found


def _efficiency(summary: Mapping[str, Any], by_chance: float) -> list[dict[str, Any]]:
    """Curves of balanced accuracy over the share of labelled groups, where the evaluation holds them."""
    held = summary.get("label_efficiency")
    if not held:
        return []
    found = []
    for level in CURVE_LEVELS:
        drawn, texts = [], []
        for entry in held["weights"]:
            rows = [(row["share"], row["levels"][level]) for row in entry["points"] if level in row["levels"]]
            known = [(share, values) for share, values in rows if values["pooled"].get(MAIN_METRIC) is not None]
            if not known:
                continue
            ends = [tuple(values["interval"][MAIN_METRIC]) if values["interval"].get(MAIN_METRIC) else None for _, values in known]
            drawn.append(charts.Curve(called(entry["name"]), [s for s, _ in known], [v["pooled"][MAIN_METRIC] for _, v in known], ends))
            texts.append(
                f"{called(entry['name'])} " + ", ".join(f"{percent(v['pooled'][MAIN_METRIC])} % at {share:g} %" for share, v in known)
            )
        if drawn:
            chart = charts.curves(drawn, x_name="labelled groups of the training folds, %", mark=by_chance, said="; ".join(texts))
            found.append({"level": LEVEL_NAMES[level], "chart": chart})
    return found


def _folds(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    if summary["settings"]["kind"] == EXTERNAL:
        return []
    rows: list[dict[str, Any]] = []
    for division in summary["folds"]:
        for part in division["parts"]:
            values = [entry["levels"]["frame"]["per_fold"][len(rows)].get(MAIN_METRIC) for entry in main_entries(dict(summary))]
            rows.append({"seed": division["seed"], "part": part, "values": [percent(value) for value in values]})
    return rows


def _leaks(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """What is known of what each of the weights was trained on, and what of it was found among the evaluated clips."""
    overlap = summary.get("overlap")
    if not overlap:
        return []
    rows = []
    for entry in overlap["weights"]:
        seen = len(entry["seen"])
        kinds: dict[str, int] = {}
        for each in entry["seen"]:
            kinds[each["kind"]] = kinds.get(each["kind"], 0) + 1
        told = f"{seen} of {overlap['clips']} clips ({', '.join(f'{count} by {kind}' for kind, count in sorted(kinds.items()))})"
        done = {"allowed": "kept: figures are optimistic", "left out": "left out, with their groups"}.get(entry["handling"] or "", "")
        known = KNOWN_LEVELS.get(entry["level"], entry["level"]) + ("" if entry["whole"] or entry["level"] == "unknown" else ", not of all")
        nothing = "cannot be told" if entry["level"] == "unknown" else "none"
        clips = str(entry["trained_clips"]) if entry["trained_clips"] else "–"
        rows.append({"name": called(entry["name"]), "known": known, "clips": clips, "seen": told if seen else nothing, "done": done or "–"})
    return rows
