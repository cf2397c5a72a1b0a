"""Small inline SVG pictures for the report: bars and histograms.

Comes in: plain counts and rates. Goes out: SVG text, every text in it escaped, colours from the page's own style sheet, so that light and
dark both work. Bars are laid out in percent: they stretch with the page, and their text stays beside them as text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from usdata.auditing.page_text import visible

HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT, AXIS_HEIGHT = 320, 124, 18
MOST_BINS = 24


def short_number(value: float) -> str:
    """A number for an axis: '0.52', '7.5', '31', '1,240'."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}"


def stacked_bar(parts: Sequence[tuple[str, int, str]], title: str, whole: int | None = None) -> Markup:
    """A horizontal bar of parts of a whole.

    Args:
        parts: (name, number, style class) from left to right; parts of zero are left out.
        title: What the whole is, read out where the picture is not seen.
        whole: The number that fills the width; the sum of the parts if None.
    """
    total = sum(number for _, number, _ in parts)
    whole = whole or total
    pieces, x = [], 0.0
    for name, number, style in parts:
        if not number:
            continue
        width = 100 * number / whole
        pieces.append(
            Markup('<rect class="{}" x="{:.3f}%" width="{:.3f}%" height="100%"><title>{}: {:,} of {:,}</title></rect>').format(
                style, x, width, visible(name), number, total
            )
        )
        x += width
    spoken = "; ".join(f"{visible(name)} {number:,}" for name, number, _ in parts if number)
    return Markup('<svg class="bar" role="img" aria-label="{}: {}">{}</svg>').format(visible(title), spoken, Markup("").join(pieces))


def rate_bar(rate: float, style: str, title: str, mark: float | None = None) -> Markup:
    """A bar of a rate between 0 and 1 on a track, with a line across where something else stands.

    Args:
        rate: 0 to 1.
        style: Style class of the bar.
        title: What it says, with the numbers.
        mark: 0 to 1: where the line stands; None for no line.
    """
    line = Markup("")
    if mark is not None:
        line = Markup('<line class="mark" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%"/>').format(100 * mark)
    return Markup(
        '<svg class="rate" role="img" aria-label="{0}"><title>{0}</title><rect class="track" x="0" y="25%" width="100%" height="50%"/>'
        '<rect class="{1}" x="0" y="25%" width="{2:.2f}%" height="50%"/>{3}</svg>'
    ).format(visible(title), style, 100 * min(1.0, max(0.0, rate)), line)


def whole_numbers(numbers: Iterable[int], question: str) -> dict[str, Any] | None:
    """The distribution of small whole numbers (clips of each patient), in the shape that `histogram` draws; None without numbers."""
    tally = Counter(numbers)
    if not tally:
        return None
    low, high = min(tally), max(tally)
    width = max(1, -(-(high - low + 1) // MOST_BINS))
    bins = (high - low) // width + 1
    counts = [0] * bins
    for number, times in tally.items():
        counts[(number - low) // width] += times
    ordered = sorted(tally.elements())
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    edges = [low - 0.5 + width * index for index in range(bins + 1)]
    return {"question": question, "counts": counts, "edges": edges, "min": low, "max": high, "median": middle, "count": len(ordered)}


def histogram(distribution: dict[str, Any]) -> Markup:
    """The histogram of one of the audit's distributions, its median marked, its ends written under it and its tallest bin over it."""
    counts, edges = distribution["counts"], distribution["edges"]
    plot = HISTOGRAM_HEIGHT - AXIS_HEIGHT
    slot = HISTOGRAM_WIDTH / len(counts)
    # A lone bin would fill the picture; no bar is wider than an eighth of it.
    bar = min(slot - 1, HISTOGRAM_WIDTH / 8)
    tallest = max(counts)
    bars = []
    for index, number in enumerate(counts):
        if number:
            height = max(1.5, (plot - AXIS_HEIGHT) * number / tallest)
            bars.append(
                Markup(
                    '<rect class="bin" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{} to {}: {:,}</title></rect>'
                ).format(
                    index * slot + (slot - bar) / 2,
                    plot - height,
                    bar,
                    height,
                    short_number(edges[index]),
                    short_number(edges[index + 1]),
                    number,
                )
            )
    at = HISTOGRAM_WIDTH * (distribution["median"] - edges[0]) / (edges[-1] - edges[0])
    label = f"median {short_number(distribution['median'])}"
    peak = (counts.index(tallest) + 0.5) * slot
    return Markup(
        '<svg class="histogram" viewBox="0 0 {0} {1}" role="img" aria-label="{2} {3}, from {4} to {5}">{6}'
        '<text x="{7:.1f}" y="12" text-anchor="{8}">{9:,}</text><line class="axis" x1="0" x2="{0}" y1="{10}" y2="{10}"/>'
        '<line class="median" x1="{11:.1f}" x2="{11:.1f}" y1="{12}" y2="{10}"/>{13}</svg>'
    ).format(
        HISTOGRAM_WIDTH,
        HISTOGRAM_HEIGHT,
        visible(distribution["question"]),
        label,
        short_number(distribution["min"]),
        short_number(distribution["max"]),
        Markup("").join(bars),
        min(HISTOGRAM_WIDTH, max(0.0, peak)),
        _anchor(peak, 24),
        tallest,
        plot,
        at,
        AXIS_HEIGHT,
        _axis(distribution, at, label),
    )


def _anchor(x: float, margin: float) -> str:
    return "start" if x < margin else "end" if x > HISTOGRAM_WIDTH - margin else "middle"


def _axis(distribution: dict[str, Any], at: float, label: str) -> Markup:
    """The median's label, and the ends where they do not stand on the same spot."""
    low, high = short_number(distribution["min"]), short_number(distribution["max"])
    anchor = _anchor(at, 60)
    text = Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>')
    y = HISTOGRAM_HEIGHT - 4
    pieces = [Markup('<text class="strong" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(at, y, anchor, label)]
    if low != high and anchor != "start":
        pieces.append(text.format(0, y, "start", low))
    if low != high and anchor != "end":
        pieces.append(text.format(HISTOGRAM_WIDTH, y, "end", high))
    return Markup("").join(pieces)
