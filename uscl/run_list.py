"""Runs side by side: what each was, how far it came, and in which settings it differs from the others.

In comes a folder with runs somewhere below it; out comes a row a run, sorted by name. A run that cannot be read is a row that says so. Only
the records of a run are read, no weights, so nothing heavy is imported.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from uscl.config import flat
from uscl.metric_lines import whole_lines
from usdata.console import safe_text
from usdata.errors import UserError

# As in uscl.run_folder, which imports torch.
CONFIG, RUN, METRICS, LOG = "config.yaml", "run.json", "metrics.jsonl", "log.txt"
# How far below the given folder runs are looked for.
DEPTH = 4
# A run that says it is running and has written nothing for so long was most likely killed.
SILENT_AFTER_S = 3600


@dataclass(frozen=True)
class Row:
    """A run. What is not known is None.

    Attributes:
        name: Its folder, below the one that was asked about.
        recipe: Name of the recipe.
        status: running, finished, stopped, failed, silent (says that it is running, and has written nothing for an hour), started (nothing
            is trained yet) or broken.
        steps: Of the last line of metrics.
        epochs: Begun by then.
        loss: Of the last line, and the following four too.
        positive_similarity: Mean cosine of the two views of a video.
        negative_similarity: Mean cosine of views of different videos.
        knn_accuracy: As measured last.
        views_per_s: Median over the lines.
        dataset_name: What was trained on.
        dataset_digest: Of it.
        differences: The settings that are not the same in all runs that are shown.
        problem: Why it is broken.
    """

    name: str
    recipe: str | None
    status: str
    steps: int | None
    epochs: int | None
    loss: float | None
    positive_similarity: float | None
    negative_similarity: float | None
    knn_accuracy: float | None
    views_per_s: float | None
    dataset_name: str | None
    dataset_digest: str | None
    differences: dict[str, Any]
    problem: str | None


def runs(folder: str | Path = ".") -> list[Row]:
    """The runs in a folder and below it, sorted by name.

    Raises:
        UserError: There is no such folder, or no run in it.
    """
    top = Path(folder)
    if not top.is_dir():
        raise UserError(top, "no such folder", "give the folder that your runs lie in")
    found = sorted(_find(top, DEPTH))
    if not found:
        raise UserError(top, "holds no run", "give the folder that your runs lie in; 'uscl pretrain SET --out RUN' makes one")
    read = [_read(path, path.relative_to(top).as_posix() if path != top else path.resolve().name) for path in found]
    settings = [flat(config) for config, _ in read]
    known = [each for each in settings if each]
    keys = sorted({key for each in known for key in each})
    differing = [key for key in keys if any(each.get(key) != known[0].get(key) for each in known)]
    rows = []
    for each, (_, facts) in zip(settings, read, strict=True):
        rows.append(Row(**facts, differences={key: each[key] for key in differing if key in each}))
    return rows


def _find(folder: Path, depth: int) -> list[Path]:
    if sum((folder / name).is_file() for name in (CONFIG, RUN, METRICS, LOG)) >= 2:
        return [folder]
    if depth == 0 or (folder / "dataset.json").is_file():
        return []
    try:
        inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except PermissionError:
        return []  # nobody's runs, as far as this user is concerned
    # A link is looked at, but not what lies below it, which might be where we come from.
    return [run for entry in inside for run in _find(entry, 0 if entry.is_symlink() else depth - 1)]


def _read(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's settings, and its row but for what needs the other runs."""
    problems: list[str] = []
    config = _mapping(folder / CONFIG, problems)
    record = _mapping(folder / RUN, problems) if (folder / RUN).is_file() else {}
    lines = _lines(folder / METRICS, problems)
    if lines and not (folder / RUN).is_file():
        problems.append(f"{RUN} is missing")  # it is written before the first step
    last = lines[-1] if lines else {}
    dataset = record.get("dataset")
    dataset = dataset if isinstance(dataset, dict) else {}
    accuracies = [line["knn_accuracy"] for line in lines if "knn_accuracy" in line]
    rates = [rate for line in lines if (rate := _number(line.get("views_per_s"))) is not None]
    status = record.get("status") or "started"
    if status == "running" and time.time() - _last_written(folder) > SILENT_AFTER_S:
        status = "silent"
    steps = last.get("step", record.get("steps"))
    return config, {
        "name": name,
        "recipe": record.get("recipe"),
        "status": "broken" if problems else status,
        "steps": steps,
        "epochs": last["epoch"] + 1 if isinstance(last.get("epoch"), int) else record.get("epochs"),
        "loss": _number(last.get("loss")),
        "positive_similarity": _number(last.get("positive_similarity")),
        "negative_similarity": _number(last.get("negative_similarity")),
        "knn_accuracy": _number(accuracies[-1]) if accuracies else None,
        "views_per_s": statistics.median(rates) if rates else None,
        "dataset_name": dataset.get("name"),
        "dataset_digest": dataset.get("digest"),
        "problem": "; ".join(problems) or None,
    }


def _mapping(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"{path.name} {error.strerror.lower() if isinstance(error, OSError) and error.strerror else 'is damaged'}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path.name} is damaged")
        return {}
    return found


def _lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The lines of metrics up to the first that is damaged."""
    lines = []
    for number, line in enumerate(whole_lines(path), start=1):
        if line is None:
            problems.append(f"line {number} of {path.name} is damaged")
            break
        lines.append(line)
    return lines


def _number(value: Any) -> float | None:
    """A number that JSON has a word for."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _last_written(folder: Path) -> float:
    return max((folder / name).stat().st_mtime for name in (CONFIG, RUN, METRICS, LOG) if (folder / name).is_file())


def print_runs(rows: Iterable[Row], width: int | None = None) -> None:
    """Print runs on standard output, two lines each: figures in columns, then data set and settings (or what is broken).

    Args:
        rows: Of `runs`.
        width: Columns; None: those of the terminal, and as many as it takes where there is none.
    """
    if width is None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    figures = [_figures(row) for row in rows]
    header = ("", "recipe", "status", "steps", "epochs", "loss", "similarity", "kNN", "views/s")
    widths = [max(len(line[column]) for line in (header, *(line for line, _ in figures))) for column in range(len(header))]
    if width is not None:
        widths[0] = max(8, min(widths[0], width - sum(widths[1:]) - 2 * (len(header) - 1)))
    _print_line(header, widths, width)
    for line, below in figures:
        _print_line(line, widths, width)
        print(_cut(f"  {below}", width))


def _figures(row: Row) -> tuple[tuple[str, ...], str]:
    similarity = "-"
    if row.positive_similarity is not None and row.negative_similarity is not None:
        similarity = f"{row.positive_similarity:.2f}/{row.negative_similarity:.2f}"
    line = (
        row.name,
        row.recipe or "-",
        row.status,
        "-" if row.steps is None else str(row.steps),
        "-" if row.epochs is None else str(row.epochs),
        "-" if row.loss is None else f"{row.loss:.3f}",
        similarity,
        "-" if row.knn_accuracy is None else f"{row.knn_accuracy:.3f}",
        "-" if row.views_per_s is None else f"{row.views_per_s:.0f}",
    )
    dataset = f"{row.dataset_name} {(row.dataset_digest or '')[:8]}".strip() if row.dataset_name else "no data set known"
    settings = " ".join(f"{key}={_short(value)}" for key, value in row.differences.items())
    below = row.problem if row.problem is not None else f"{dataset}  {settings}".rstrip()
    return tuple(safe_text(text) for text in line), safe_text(below)


def _short(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "[" + ",".join(_short(each) for each in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print_line(texts: tuple[str, ...], widths: list[int], width: int | None) -> None:
    """Words to the left, numbers to the right."""
    cells = [_cut(text, size).ljust(size) for text, size in zip(texts[:3], widths[:3], strict=True)]
    cells += [text.rjust(size) for text, size in zip(texts[3:], widths[3:], strict=True)]
    print(_cut("  ".join(cells).rstrip(), width))


def _cut(text: str, size: int | None) -> str:
    return text if size is None or len(text) <= size else text[: size - 1] + "\N{HORIZONTAL ELLIPSIS}"
