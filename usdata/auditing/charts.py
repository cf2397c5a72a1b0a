"""Small inline SVG pictures for the report: a stacked bar and a histogram.

Comes in: plain counts. Goes out: SVG text, every text in it escaped, colours from the
page's own style sheet, so that light and dark both work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT, AXIS_HEIGHT = 320, 110, 18


def short_number(value: float) -> str:
    """A number for an axis: '0.52', '7.5', '31', '1,240'."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}"


def stacked_bar(parts: Sequence[tuple[str, int, str]], title: str) -> Markup:
    """A horizontal bar of parts of a whole.

    Args:
        parts: (name, number, style class) from left to right; parts of zero are left out.
        title: What the whole is, read out where the picture is not seen.
    """
    total = sum(number for _, number, _ in parts)
    pieces, x = [], 0.0
    for name, number, style in parts:
        if not number:
            continue
        width = 1000 * number / total
        pieces.append(
            Markup('<rect class="{}" x="{:.2f}" y="0" width="{:.2f}" height="28"><title>{}: {:,} of {:,}</title></rect>').format(
                escape(style), x, max(width - 1.5, 1.0), name, number, total
            )
        )
        x += width
    return Markup('<svg class="bar" viewBox="0 0 1000 28" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>').format(
        title, Markup("").join(pieces)
    )


def histogram(distribution: dict[str, Any]) -> Markup:
    """The histogram of one of the audit's distributions, its median marked and its ends written under it."""
    counts, edges = distribution["counts"], distribution["edges"]
    plot = HISTOGRAM_HEIGHT - AXIS_HEIGHT
    slot = HISTOGRAM_WIDTH / len(counts)
    # A lone bin would fill the picture; no bar is wider than an eighth of it.
    bar = min(slot - 1, HISTOGRAM_WIDTH / 8)
    tallest = max(counts)
    bars = []
    for index, number in enumerate(counts):
        if number:
            height = max(1.5, (plot - 4) * number / tallest)
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
    span = edges[-1] - edges[0]
    median = HISTOGRAM_WIDTH * (distribution["median"] - edges[0]) / span
    anchor = "start" if median < 60 else "end" if median > HISTOGRAM_WIDTH - 60 else "middle"
    low, high = short_number(distribution["min"]), short_number(distribution["max"])
    ends = Markup('<text x="0" y="{0}">{1}</text><text x="{2}" y="{0}" text-anchor="end">{3}</text>').format(
        HISTOGRAM_HEIGHT - 4, low, HISTOGRAM_WIDTH, high
    )
    if low == high:
        ends = Markup("")
    label = f"median {short_number(distribution['median'])}"
    # The median's label gives way to an end's where both would stand on the same spot.
    if anchor != "middle":
        ends = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            HISTOGRAM_WIDTH if anchor == "start" else 0,
            HISTOGRAM_HEIGHT - 4,
            "end" if anchor == "start" else "start",
            high if anchor == "start" else low,
        )
    return Markup(
        '<svg class="histogram" viewBox="0 0 {0} {1}" role="img" aria-label="{2} {3}">{4}'
        '<line class="axis" x1="0" x2="{0}" y1="{5}" y2="{5}"/><line class="median" x1="{6:.1f}" x2="{6:.1f}" y1="0" y2="{5}"/>{7}'
        '<text class="strong" x="{6:.1f}" y="{8}" text-anchor="{9}">{10}</text></svg>'
    ).format(
        HISTOGRAM_WIDTH,
        HISTOGRAM_HEIGHT,
        distribution["question"],
        label,
        Markup("").join(bars),
        plot,
        median,
        ends,
        HISTOGRAM_HEIGHT - 4,
        anchor,
        label,
    )
