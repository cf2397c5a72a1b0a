"""Evaluations as they lie in folders, read back, and what can be said of several at once.

In: folders that `uscl evaluate` or `uscl validate` made. Out: their content, checked, under names that tell them apart; flat rows of
figures and comparisons.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from uscl.evaluation.report import answer, called, levels_of, method_of, percent, points
from uscl.evaluation.summary import EVALUATION, FORMAT_VERSION, PREDICTIONS
from usdata.errors import UserError

# What a comparison is judged by, where one figure must do.
MAIN_METRIC, MAIN_LEVEL = "balanced_accuracy", "frame"
CHANCE_OF_A_MISS = 0.05
NEEDED = ("format_version", "settings", "dataset", "folds", "weights", "interval", "classes", "notes")


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.

    Attributes:
        name: The end of its folder's path that tells it from the others.
        summary: The content of `evaluation.json`.
        predictions: The content of `predictions.parquet`.
    """

    name: str
    summary: dict[str, Any]
    predictions: pd.DataFrame

    @property
    def title(self) -> str:
        """Data set and method in a few words."""
        return f"{self.summary['dataset']['name']}, {method_of(self.summary)}"


def read_evaluations(folders: Sequence[str | Path]) -> list[Evaluation]:
    """Evaluations in the order given.

    Raises:
        UserError: A folder is named twice, is no evaluation, or one that was not finished or that a newer version wrote.
    """
    if not folders:
        raise UserError("EVAL", "names no evaluation", "give folders that 'uscl evaluate' or 'uscl validate' made")
    parts = [Path(folder).resolve().parts[1:] or ("evaluation",) for folder in folders]
    for folder, own in zip(folders, parts, strict=True):
        if parts.count(own) > 1:
            raise UserError(folder, "is named twice", "name each evaluation once")
    found = []
    for folder, own in zip(folders, parts, strict=True):
        others = [other for other in parts if other != own]
        length = next((size for size in range(1, len(own)) if all(own[-size:] != other[-size:] for other in others)), len(own))
        found.append(_read(Path(folder), "/".join(own[-length:])))
    return found


def _read(folder: Path, name: str) -> Evaluation:
    path = folder / EVALUATION
    if not folder.is_dir():
        raise UserError(folder, "is no folder", "give one that 'uscl evaluate' or 'uscl validate' made")
    if not path.is_file():
        raise UserError(folder, f"holds no {EVALUATION}, so it is no finished evaluation", "make it with 'uscl evaluate ... --out DIR'")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(path, f"cannot be read ({error})", "evaluate again, with --overwrite") from None
    version = summary.get("format_version") if isinstance(summary, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(path, f"is of format {version}, and this version reads up to {FORMAT_VERSION}", "update usdata-uscl")
    if not isinstance(version, int) or any(key not in summary for key in NEEDED) or not summary["weights"]:
        raise UserError(path, "is no evaluation of weights", "evaluate again, with --overwrite")
    try:
        predictions = pd.read_parquet(folder / PREDICTIONS)
    except (ValueError, OSError) as error:
        raise UserError(folder / PREDICTIONS, f"cannot be read ({error})", "evaluate again, with --overwrite") from None
    return Evaluation(name, summary, predictions)


def figures(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A row for each of the weights, levels and metrics: `value` pooled over all folds, `low` and `high` of its interval (or None)."""
    summary = evaluation.summary
    shared = {"evaluation": evaluation.name, "dataset": summary["dataset"]["name"], "kind": summary["settings"]["kind"]}
    rows = []
    for entry in summary["weights"]:
        for level in levels_of(summary):
            values = entry["levels"][level]
            for metric, value in values["pooled"].items():
                low, high = values["interval"].get(metric) or (None, None)
                row = {**shared, "weights": entry["name"], "level": level, "metric": metric, "value": value, "low": low, "high": high}
                rows.append({**row, "items": values["items"], "groups": summary["dataset"]["groups"]})
    return rows


def comparisons(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The differences that the evaluation found, each with the evaluation's name and data set."""
    about = {"evaluation": evaluation.name, "dataset": evaluation.summary["dataset"]["name"]}
    return [{**about, **entry} for entry in evaluation.summary.get("differences", [])]


def main_entries(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The weights as they were judged by the main protocol; those of others (published ones, beside it) are left out."""
    main = summary["weights"][0].get("protocol")
    return [entry for entry in summary["weights"] if entry.get("protocol") == main]


def main_comparisons(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Those by balanced accuracy of frames in the main protocol: one for each of the weights that has a reference."""
    found = []
    for evaluation in evaluations:
        main = evaluation.summary["weights"][0].get("protocol")
        found += [row for row in comparisons(evaluation) if row.get("protocol") == main]
    return [row for row in found if row["metric"] == MAIN_METRIC and row["level"] == MAIN_LEVEL]


def answer_of_all(evaluations: Sequence[Evaluation]) -> list[str]:
    """The answer in sentences; of several evaluations how many comparisons came out how, then each in one sentence."""
    if len(evaluations) == 1:
        return answer(evaluations[0].summary)
    rows = [row for row in main_comparisons(evaluations) if not row.get("optimistic")]
    sentences = []
    if len(rows) > 1:
        better = sum(row["established"] and row["difference"] > 0 for row in rows)
        worse = sum(row["established"] and row["difference"] < 0 for row in rows)
        references = sorted({called(row["reference"]) for row in rows})
        to = f"than {references[0]}" if len(references) == 1 else "than what they were compared with"
        open_ones = len(rows) - better - worse
        sentences.append(
            f"Of {len(rows)} comparisons by balanced accuracy of frames, {better} established that the weights"
            f" are better {to}, and {worse} that they are worse; in {open_ones} a difference is not established."
        )
    for evaluation in evaluations:
        reached = []
        for entry in evaluation.summary["weights"]:
            frame = entry["levels"][MAIN_LEVEL]
            ends = frame["interval"].get(MAIN_METRIC)
            told = f"{called(entry['name'])} {percent(frame['pooled'][MAIN_METRIC])} %"
            reached.append(told + (f" [{percent(ends[0])}, {percent(ends[1])}]" if ends else ""))
        against = [
            f"{called(row['weights'])} less {called(row['reference'])} {points(row['difference'])} points"
            f" [{points(row['interval'][0])}, {points(row['interval'][1])}]"
            for row in main_comparisons([evaluation])
        ]
        judged = evaluation.summary["dataset"]
        told = f"{evaluation.name}, {evaluation.title}, {judged['videos']} clips of {judged['groups']} groups: {'; '.join(reached)}"
        sentences.append(f"{told}. {'; '.join(against)}." if against else f"{told}.")
    if len(rows) > 1:
        sentences.append(
            f"Intervals are at 95 % each: of {len(rows)} comparisons without any difference about {CHANCE_OF_A_MISS * len(rows):.2g} would"
            " look established."
        )
    return sentences
