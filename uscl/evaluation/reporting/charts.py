"""Small inline SVG pictures for the page of an evaluation: intervals, reliability, curves and maps of features.

In: plain numbers. Out: SVG text, every text in it escaped, colours from the page's style sheet, so that light and dark both work. Bars are
laid out in percent: they stretch with the page, and their text stays beside them as text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from usdata.console import safe_text

PLOT_WIDTH, PLOT_HEIGHT = 330, 250
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 10, 38
COUNTS_HEIGHT = 34
MAP_SIDE, MAP_MARGIN = 320, 8
# As many colours as the style sheet has for curves and values; what comes after them is gray.
COLOURS = 7


def interval_bar(
    value: float | None,
    ends: Sequence[float] | None,
    *,
    low: float = 0.0,
    high: float = 1.0,
    mark: float | None = None,
    said: str = "",
    doubtful: bool = False,
) -> Markup:
    """A dot in its interval, on a track from `low` to `high`.

    Args:
        value: Where the dot stands; None: no dot.
        ends: Of the interval; None: not known.
        low: Value at the left end.
        high: At the right end.
        mark: Where a line across stands; None for no line.
        said: What it says, with the numbers, for those who do not see it.
        doubtful: The value is known to be optimistic, and is drawn in the colour of warnings.
    """

    def percent(number: float) -> float:
        return 100 * min(1.0, max(0.0, (number - low) / (high - low)))

    parts = [Markup('<line class="track" x1="0" x2="100%" y1="50%" y2="50%"/>')]
    if mark is not None:
        parts.append(Markup('<line class="mark" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%"/>').format(percent(mark)))
    if ends is not None:
        across = Markup('<line class="range" x1="{:.2f}%" x2="{:.2f}%" y1="50%" y2="50%"/>')
        parts.append(across.format(percent(ends[0]), percent(ends[1])))
    if value is not None:
        parts.append(Markup('<circle class="dot" cx="{:.2f}%" cy="50%" r="4.5"/>').format(percent(value)))
    style = "interval doubtful" if doubtful else "interval"
    return Markup('<svg class="{}" role="img" aria-label="{}">{}</svg>').format(style, safe_text(said), Markup("").join(parts))


@dataclass(frozen=True)
class Curve:
    """A line of points with their intervals.

    Attributes:
        name: What it is called.
        x: (n,) rising.
        y: (n,) 0 to 1.
        ends: (n,) low and high of each; None where not known.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    ends: Sequence[tuple[float, float] | None]


def curves(given: Sequence[Curve], *, x_name: str, mark: float | None, said: str) -> Markup:
    """Curves over a logarithmic axis, each with its intervals as a band, and a legend; `mark` is a dashed line across (chance)."""
    positions = sorted({place for curve in given for place in curve.x})
    first, last = math.log(positions[0]), math.log(positions[-1])
    width, height = PLOT_WIDTH - LEFT - RIGHT, PLOT_HEIGHT - TOP - BOTTOM

    def at_x(place: float) -> float:
        return LEFT + width * ((math.log(place) - first) / (last - first) if last > first else 0.5)

    def at_y(value: float) -> float:
        return TOP + height * (1 - value)

    parts = [_frame(at_y)]
    for place in positions:
        label = Markup('<text class="quiet" x="{:.1f}" y="{}" text-anchor="middle">{:g}</text>')
        parts.append(label.format(at_x(place), TOP + height + 14, place))
    parts.append(_x_name(x_name))
    if mark is not None:
        line = Markup('<line class="mark" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        parts.append(line.format(LEFT, LEFT + width, at_y(mark), at_y(mark)))
    for number, curve in enumerate(given):
        style = _colour(number)
        known = [(at_x(x), at_y(ends[0]), at_y(ends[1])) for x, ends in zip(curve.x, curve.ends, strict=True) if ends is not None]
        if len(known) > 1:
            outline = [f"{x:.1f},{high:.1f}" for x, _, high in known] + [f"{x:.1f},{low:.1f}" for x, low, _ in reversed(known)]
            parts.append(Markup('<polygon class="{} band" points="{}"/>').format(style, " ".join(outline)))
        points = [(at_x(x), at_y(y)) for x, y in zip(curve.x, curve.y, strict=True)]
        parts.append(Markup('<polyline class="{} curve" points="{}"/>').format(style, " ".join(f"{x:.1f},{y:.1f}" for x, y in points)))
        parts += [Markup('<circle class="{} point" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(style, x, y) for x, y in points]
    return _svg("plot", PLOT_WIDTH, PLOT_HEIGHT, said, parts) + legend([curve.name for curve in given])


def roc(given: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64]]], *, said: str) -> Markup:
    """Receiver operating characteristics: the share of a class that is found, over the share of the others that is taken for it.

    Args:
        given: Name, (n,) false and (n,) true positive rates, both rising from 0 to 1.
        said: What they say, with the numbers.
    """
    width, height = PLOT_WIDTH - LEFT - RIGHT, PLOT_HEIGHT - TOP - BOTTOM
    parts = [_frame(lambda value: TOP + height * (1 - value))]
    parts.append(Markup('<line class="mark" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(LEFT, TOP + height, LEFT + width, TOP))
    for number, (_, wrong, right) in enumerate(given):
        points = " ".join(f"{LEFT + width * x:.1f},{TOP + height * (1 - y):.1f}" for x, y in zip(wrong, right, strict=True))
        parts.append(Markup('<polyline class="{} curve" points="{}"/>').format(_colour(number), points))
    parts += _ticks_across(TOP + height + 14)
    parts.append(_x_name("others taken for it"))
    return _svg("plot", PLOT_WIDTH, PLOT_HEIGHT, said, parts) + legend([name for name, _, _ in given])


def reliability(bins: Sequence[dict[str, float | int | None]], *, said: str) -> Markup:
    """A reliability diagram: how often the winning class is right, over its mean probability; below it how many items each bin holds."""
    filled = [entry for entry in bins if entry["count"]]
    most = max((int(entry["count"] or 0) for entry in filled), default=1)
    width, height = PLOT_WIDTH - LEFT - RIGHT, PLOT_HEIGHT - TOP - BOTTOM - COUNTS_HEIGHT

    def at_x(value: float) -> float:
        return LEFT + width * value

    def at_y(value: float) -> float:
        return TOP + height * (1 - value)

    floor = TOP + height + COUNTS_HEIGHT
    parts = [_frame(at_y), Markup('<line class="mark" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(LEFT, TOP + height, at_x(1), TOP)]
    for entry in filled:
        low, high, count = float(entry["low"] or 0), float(entry["high"] or 0), int(entry["count"] or 0)
        confidence, accuracy = float(entry["confidence"] or 0), float(entry["accuracy"] or 0)
        tall = (COUNTS_HEIGHT - 8) * count / most
        bar = Markup('<rect class="count" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
        parts.append(bar.format(at_x(low) + 1, floor - tall, at_x(high) - at_x(low) - 2, tall))
        gap = Markup('<line class="gap" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>')
        parts.append(gap.format(at_x(confidence), at_y(confidence), at_y(accuracy)))
        title = f"{count} with probability {100 * low:.0f} to {100 * high:.0f} %: {100 * accuracy:.0f} % right"
        dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>')
        parts.append(dot.format(at_x(confidence), at_y(accuracy), title))
    parts += _ticks_across(floor + 14)
    parts.append(_x_name("probability of the winning class, and items below"))
    return _svg("plot", PLOT_WIDTH, PLOT_HEIGHT, said, parts)


def feature_map(places: NDArray[np.float64], which: NDArray[np.int64], *, said: str) -> Markup:
    """Dots (n, 2), coloured by the number of their value (n,); those beyond the colours are gray, and lie below."""
    low, spans = places.min(axis=0), np.ptp(places, axis=0)
    scale = (MAP_SIDE - 2 * MAP_MARGIN) / max(float(spans.max()), 1e-12)
    # Both axes have one scale; the picture is as tall as the dots need.
    width, height = np.maximum(scale * spans + 2 * MAP_MARGIN, MAP_SIDE / 3).tolist()
    across = width / 2 + scale * (places[:, 0] - low[0] - spans[0] / 2)
    down = height / 2 - scale * (places[:, 1] - low[1] - spans[1] / 2)
    parts = []
    for number in sorted(set(np.minimum(which, COLOURS).tolist()), reverse=True):
        own = np.flatnonzero(np.minimum(which, COLOURS) == number)
        # A round cap of a line of no length is a dot, in a sixth of the text of a circle.
        path = "".join(f"M{across[row]:.1f} {down[row]:.1f}h0" for row in own)
        parts.append(Markup('<path class="{} dots" d="{}"/>').format(_colour(number), path))
    return _svg("map", round(width), round(height), said, parts)


def legend(names: Sequence[str]) -> Markup:
    """Names beside their colours; those beyond the colours are one entry."""
    shown = [(_colour(number), name) for number, name in enumerate(names[:COLOURS])]
    if len(names) > COLOURS:
        shown.append(("rest", f"{len(names) - COLOURS} more"))
    entries = Markup("").join(Markup('<li class="{}"><i></i>{}</li>').format(style, safe_text(name)) for style, name in shown)
    return Markup('<ul class="legend">{}</ul>').format(entries)


def _colour(number: int) -> str:
    return f"s{number}" if number < COLOURS else "rest"


def _frame(at_y: Callable[[float], float]) -> Markup:
    """Lines across at the quarters, with the percentages of every other one."""
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        line = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        parts.append(line.format(LEFT, PLOT_WIDTH - RIGHT, at_y(tick), at_y(tick)))
        if tick in (0, 0.5, 1):
            label = Markup('<text class="quiet" x="{}" y="{:.1f}" text-anchor="end">{:.0f} %</text>')
            parts.append(label.format(LEFT - 6, at_y(tick) + 4, 100 * tick))
    return Markup("").join(parts)


def _ticks_across(y: float) -> list[Markup]:
    """Percentages below a plot from 0 to 1."""
    label = Markup('<text class="quiet" x="{:.1f}" y="{}" text-anchor="{}">{:.0f} %</text>')
    width = PLOT_WIDTH - LEFT - RIGHT
    return [label.format(LEFT + width * tick, y, "end" if tick == 1 else "middle", 100 * tick) for tick in (0, 0.5, 1)]


def _x_name(text: str) -> Markup:
    place = Markup('<text class="quiet" x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
    return place.format((LEFT + PLOT_WIDTH - RIGHT) / 2, PLOT_HEIGHT - 6, text)


def _svg(style: str, width: int, height: int, said: str, parts: Sequence[Markup]) -> Markup:
    whole = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return whole.format(style, width, height, safe_text(said), Markup("").join(parts))
