"""A run on one page, RUN/report.html: what it is, whether it learnt, and its curves, each of which answers a question.

In come run.json, config.yaml, metrics.jsonl and what the run said of itself; out goes one page that loads nothing from a network, runs no
script, escapes every name, and is equal where these are equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from uscl import run_folder
from uscl.config import Config, config_yaml
from uscl.diagnostics import verdict
from uscl.metric_lines import term_names
from usdata.files import write_text

REPORT = "report.html"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 220, 46, 12, 12, 26
MOST_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """One figure of metrics.jsonl in a plot.

    Attributes:
        key: Its name there.
        name: What it is called.
        style: "main", "other" or "reference" (dashed).
    """

    key: str
    name: str
    style: str = "main"


# Question, unit, curves.
Plot = tuple[str, str, tuple[Curve, ...]]

CONTRAST: Plot = (
    "Is the loss below that of a collapsed network?",
    "",
    (Curve("contrast", "contrastive loss"), Curve("collapsed_loss", "collapsed", "reference")),
)
PLOTS: tuple[Plot, ...] = (
    (
        "Are two views of one clip more alike than views of two?",
        "mean cosine",
        (Curve("positive_similarity", "of one clip"), Curve("negative_similarity", "of two", "other")),
    ),
    (
        "Do nearest neighbours of other groups share the label?",
        "accuracy by clip",
        (Curve("knn_accuracy", "neighbours"), Curve("knn_majority", "most frequent label", "reference")),
    ),
    ("How many dimensions do the features fill?", "RankMe", (Curve("rankme", "of the probe's frames"),)),
    ("Is the gradient calm?", "l2 norm", (Curve("grad_norm", "gradient"),)),
    ("How fast is it, and does it wait for data?", "views a second", (Curve("views_per_s", "views a second"),)),
)


def loss_plots(lines: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """What is drawn of the loss: a contrastive one beside that of a collapsed network, another by itself; and each of its other parts.

    Args:
        lines: Of metrics.jsonl; the last one names the parts.
    """
    names = term_names(lines[-1]) if lines else []
    if "contrast" in names:
        names.remove("contrast")
        first = CONTRAST
    else:
        first = ("Does the loss fall?", "", (Curve("loss", "loss"),))
    # A part that is alone is the loss itself, but for a weight.
    parts = names if len(names) > 1 or first is CONTRAST else []
    return [first, *((f"What becomes of its part {name}?", "without its weight", (Curve(name, name),)) for name in parts)]


def write_report(out: Path, config: Config, width: int) -> Path:
    """Write RUN/report.html from what stands in the run's folder.

    Args:
        out: The run's folder.
        config: Its configuration.
        width: Length of its backbone's feature vector.
    """
    run, lines = run_folder.read_run(out), run_folder.read_metrics(out)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sentence = verdict(lines, width, share_done=1)
    page = environment.get_template("run_report.html.jinja").render(
        sentences=_sentences(run, lines, sentence),
        warned=sentence is not None,
        run=run,
        plots=[
            (question, unit, curves, plot(lines, question, curves))
            for question, unit, curves in (*loss_plots(lines), *PLOTS)
            if _there(lines, curves[0])
        ],
        last=_last(lines),
        config=config_yaml(config),
        facts=[line for line in _log(out) if ": " in line][:8],
    )
    write_text(out / REPORT, page)
    return out / REPORT


def _log(out: Path) -> list[str]:
    path = out / run_folder.LOG
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _sentences(run: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], warning: str | None) -> list[str]:
    dataset = run.get("dataset", {})
    what = f"{run.get('recipe', 'a recipe')} on {dataset.get('name', 'a data set')}: {dataset.get('videos', 0):,} videos"
    far = f"{run.get('steps', 0):,} steps in {run.get('epochs', 0):,} epochs and {run.get('seconds', 0):,.0f} s"
    far += f"; it is {run.get('status', 'unknown')}"
    told = [f"{what}.", f"{far[0].upper()}{far[1:]}."]
    if not lines:
        return [*told, "No line of metrics was written."]
    last = lines[-1]
    if warning is not None:
        return [*told, f"{warning[0].upper()}{warning[1:]}."]
    if "contrast" in last:
        told.append(f"The contrastive loss is {last['contrast']:.3f}; a collapsed network would have {last['collapsed_loss']:.3f}.")
    elif last.get("loss") is not None:
        told.append(f"The loss is {last['loss']:.4g}; in the first line of metrics it was {lines[0]['loss']:.4g}.")
    probed = [line for line in lines if line.get("knn_accuracy") is not None]
    if probed:
        told.append(
            f"Nearest neighbours of other groups name {probed[-1]['knn_accuracy']:.0%} of clips rightly, the most frequent label "
            f"{probed[-1]['knn_majority']:.0%}: a thermometer, no evaluation."
        )
    return told


def _last(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    found: dict[str, Any] = {}
    for line in lines:
        found |= {key: value for key, value in line.items() if value is not None}
    return [
        (key, f"{value:,}" if isinstance(value, int) else f"{value:.4g}") for key, value in found.items() if isinstance(value, int | float)
    ]


def _there(lines: Sequence[Mapping[str, Any]], curve: Curve) -> bool:
    return any(line.get(curve.key) is not None for line in lines)


def plot(lines: Sequence[Mapping[str, Any]], question: str, curves: Sequence[Curve]) -> Markup:
    """Curves over steps as an inline picture.

    Args:
        lines: Of metrics.jsonl.
        question: Read out where the picture is not seen.
        curves: What is drawn.
    """
    points = {curve.key: _points(lines, curve.key) for curve in curves}
    steps = [step for found in points.values() for step, _ in found]
    values = [value for found in points.values() for _, value in found]
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    first, last = min(steps), max(steps)

    def place(step: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))
        return f"{x:.1f},{y:.1f}"

    parts = [Markup('<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM)]
    for tick in _ticks(low, high):
        x, y = place(first, tick).split(",")
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y))
        parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT - 6, float(y) + 4, f"{tick:.4g}"))
    for curve in curves:
        found = points[curve.key]
        if len(found) == 1:
            x, y = place(*found[0]).split(",")
            parts.append(Markup('<circle class="{}" cx="{}" cy="{}" r="3"/>').format(curve.style, x, y))
        elif found:
            drawn = " ".join(place(step, value) for step, value in found)
            parts.append(Markup('<polyline class="{}" points="{}"><title>{}</title></polyline>').format(curve.style, drawn, curve.name))
    ends = Markup('<text x="{}" y="{}">step {:,}</text><text x="{}" y="{}" text-anchor="end">{:,}</text>')
    parts.append(ends.format(LEFT, HEIGHT - 8, first, WIDTH - RIGHT, HEIGHT - 8, last))
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(WIDTH, HEIGHT, question, Markup("").join(parts))


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """Steps and values, evenly thinned; the last one stays."""
    found = [(int(line["step"]), float(line[key])) for line in lines if line.get(key) is not None and math.isfinite(line[key])]
    if len(found) <= MOST_POINTS:
        return found
    return [found[round(place * (len(found) - 1) / (MOST_POINTS - 1))] for place in range(MOST_POINTS)]


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between two."""
    step = 10 ** math.floor(math.log10(high - low))
    step = next(step * factor for factor in (0.2, 0.5, 1, 2) if (high - low) / (step * factor) <= 6)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
