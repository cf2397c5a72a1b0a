"""Do the labels go together with how a clip was acquired?

Comes in: the kept clips. Goes out: a contingency table of each acquisition fact against the label with Cramér's V. Guarantees: independent
of the rows' order; a missing value counts as a value of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

UNKNOWN = "unknown"
ATTRIBUTES = (
    "source", "container", "codec", "fps", "effective rate", "size", "probe", "manufacturer", "device", "depth", "spacing", "colour",
)  # fmt: skip
# What is scanned, and not how: shown where it varies, and no sign of a shortcut by itself, since a label may name an organ.
ANATOMY = ("organ", "view")
_COLUMNS = {"colour": "colour_kind"}
RATE_BIN_HZ = 5
DEPTH_BIN_MM = 20
SPACING_BIN_MM = 0.05


def cramers_v(table: np.ndarray) -> float | None:
    """Bias-corrected Cramér's V of a contingency table: 0 = independent, 1 = one tells the other.

    The correction of Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", Journal of the Korean Statistical Society 42 (2013),
    keeps V near 0 for independent variables with many values and few rows.

    Args:
        table: (rows, columns) counts.

    Returns:
        A value in [0, 1], or None where it is not defined: fewer than two values on a side, or no value seen twice.
    """
    table = np.asarray(table, dtype="float64")
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0] if table.size else table
    if table.ndim != 2 or min(table.shape, default=0) < 2:
        return None
    n = table.sum()
    rows, columns = table.shape
    phi_squared = chi2_contingency(table, correction=False).statistic / n
    corrected = max(0.0, phi_squared - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    if smaller <= 1e-9:
        return None
    return float(min(1.0, np.sqrt(corrected / smaller)))


def acquisition_by_label(kept: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """For each acquisition fact, how its values and the labels go together, over the labelled clips.

    Returns:
        Attribute -> {"values": [{"value", "clips", "labels": {label: clips}}], "cramers_v": number or None}. A missing value counts as the
        value "unknown", since a fact that is missing for one label only gives the label away just as well. Organ and view are there
        where they vary.
    """
    labelled = kept[kept["label"].notna()]
    facts = _facts(labelled)
    result: dict[str, Any] = {}
    for attribute in (*ATTRIBUTES, *(name for name in ANATOMY if facts[name].nunique() > 1)):
        table = pd.crosstab(facts[attribute], labelled["label"]) if len(labelled) else pd.DataFrame()
        shown = [label for label in labels if label in table.columns]
        counts, totals = table[shown].to_numpy(), table.to_numpy().sum(axis=1)
        values: list[dict[str, Any]] = [
            {"value": str(value), "clips": int(total), "labels": dict(zip(shown, row.tolist(), strict=True))}
            for value, total, row in zip(table.index, totals, counts, strict=True)
        ]
        values.sort(key=lambda row: (-row["clips"], row["value"]))
        result[attribute] = {"values": values, "cramers_v": cramers_v(table.to_numpy())}
    return result


def _facts(clips: pd.DataFrame) -> pd.DataFrame:
    """Each fact as text, binned where it is measured."""
    facts = {
        name: clips[_COLUMNS.get(name, name)].astype("object").where(clips[_COLUMNS.get(name, name)].notna(), UNKNOWN)
        for name in (*ATTRIBUTES, *ANATOMY)
        if _COLUMNS.get(name, name) in clips
    }
    facts["fps"] = _each(clips["fps"], "{:.0f}".format)
    facts["effective rate"] = _each(clips["fps_effective"], lambda rate: _bin(rate, RATE_BIN_HZ, "Hz"))
    facts["depth"] = _each(clips["depth_mm"], lambda depth: _bin(depth, DEPTH_BIN_MM, "mm"))
    facts["spacing"] = _each(clips["mm_per_pixel_y"], lambda spacing: _bin(spacing, SPACING_BIN_MM, "mm", 2))
    width, height = _each(clips["width"], "{:.0f}".format), _each(clips["height"], "{:.0f}".format)
    known = (width != UNKNOWN) & (height != UNKNOWN)
    facts["size"] = (width + "\N{MULTIPLICATION SIGN}" + height).where(known, UNKNOWN)
    return pd.DataFrame(facts, index=clips.index)


def _each(column: pd.Series, text: Any) -> pd.Series:
    """The texts of a column of numbers; each distinct number is written once."""
    numbers = column.astype("float64")
    texts = {number: text(number) for number in numbers.unique() if np.isfinite(number)}
    return numbers.map(texts).astype("object").fillna(UNKNOWN)


def _bin(value: float, width: float, unit: str, decimals: int = 0) -> str:
    """'20 to 25 Hz': the bin of a number, its lower end counted in."""
    low = np.floor(value / width + 1e-9) * width
    return f"{low:.{decimals}f} to {low + width:.{decimals}f} {unit}"
