"""Maps of an evaluation's features, coloured by columns of its data set.

In: the features of held-out frames, and columns. Out: SVG with what it shows in words, and how far neighbours share a column's value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from uscl.evaluation.report import called, percent
from uscl.evaluation.reporting import charts
from uscl.evaluation.reporting.feature_map import principal_components, tsne
from uscl.evaluation.reporting.neighbours import shared_by_neighbours
from uscl.evaluation.selection import column_values
from usdata.manifest import DataSet

NEIGHBOURS_COUNTED = 10
MAP_FRAMES = 1500
MOST_VALUES = charts.COLOURS
NOT_KNOWN = "not known"


@dataclass(frozen=True)
class FeatureMap:
    """Maps of one of the weights' features, coloured by a column.

    Attributes:
        weights: Whose.
        column: Of the manifest.
        drawings: Name of the method and its picture.
        legend: Of the colours.
        near: Share of nearest frames of other groups with the same value, and of any frames; None: cannot be told.
    """

    weights: str
    column: str
    drawings: list[tuple[str, Markup]]
    legend: Markup
    near: tuple[float, float] | None


def draw_maps(
    name: str, own: pd.DataFrame, features: NDArray[np.float32], dataset: DataSet, rows: NDArray[np.int64], columns: Sequence[str]
) -> tuple[list[FeatureMap], list[str]]:
    """Maps by principal components and t-SNE, coloured by each of the columns; and what could not be drawn."""
    kept = np.linspace(0, len(rows) - 1, min(MAP_FRAMES, len(rows))).astype(int)
    features, frames = features[kept], dataset.frames.iloc[rows[kept]]
    groups = own["independent_group"].to_numpy(dtype=str)[kept]
    flat, shares = principal_components(features)
    places = {"principal components": flat}
    if (curved := tsne(features)) is not None:
        places["t-SNE"] = curved
    found, notes = [], []
    for column in columns:
        values = value_names(column_values(dataset, frames, column))
        names, counts = np.unique(values, return_counts=True)
        order = sorted(range(len(names)), key=lambda place: (-counts[place], names[place])) if not _binned(names) else range(len(names))
        names = names[list(order)]
        if len(names) < 2:
            notes.append(f"No map by {column}: it is '{names[0]}' for every frame.")
            continue
        number_of = {text: number for number, text in enumerate(names.tolist())}
        which = np.array([number_of[text] for text in values.tolist()], dtype=np.int64)
        near = shared_by_neighbours(features, groups, values, NEIGHBOURS_COUNTED)
        drawings = []
        for method, place in places.items():
            told = f" ({percent(shares[0])} and {percent(shares[1])} % of the variance)" if method == "principal components" else ""
            shown = ", ".join(names[:MOST_VALUES])
            said = f"{len(place)} frames by {method} of the features of {called(name)}{told}, coloured by {column}: {shown}"
            drawings.append((f"{method}{told}", charts.feature_map(place, which, said=said)))
        found.append(FeatureMap(name, column, drawings, charts.legend(names.tolist()), near))
    return found, notes


def value_names(values: pd.Series) -> NDArray[np.str_]:
    """(n,) what each value of a column is called: lists joined, more than seven numbers cut into five parts of equal size."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and values.nunique() > MOST_VALUES:
        edges = np.unique(np.quantile(values.dropna().to_numpy(dtype=np.float64), np.linspace(0, 1, 6)))
        part = np.clip(np.searchsorted(edges, values.to_numpy(dtype=np.float64, na_value=np.nan), side="right") - 1, 0, len(edges) - 2)
        texts = [f"{number + 1}: {edges[number]:.4g} to {edges[number + 1]:.4g}" for number in range(len(edges) - 1)]
        return np.array([NOT_KNOWN if pd.isna(value) else texts[place] for value, place in zip(values, part, strict=True)], dtype=str)
    return np.array([_value_name(value) for value in values], dtype=str)


def _value_name(value: object) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(sorted(str(member) for member in value)) or "none"
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return NOT_KNOWN
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _binned(names: NDArray[np.str_]) -> bool:
    return all(name == NOT_KNOWN or name[:2] == f"{place + 1}:" for place, name in enumerate(names.tolist()))
