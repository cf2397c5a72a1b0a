"""What a data set holds, counted.

Comes in: the tables of a data set. Goes out: one dictionary of plain values (JSON as it stands): the flow of files and frames with
reasons, counts by source, label, patient, group, split and fold, acquisition, probes, distributions, licences, privacy. Guarantees: every
count is one of rows of the manifest, nothing is estimated, and equal tables give an equal dictionary. A patient is a patient id within its
source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from usdata.auditing.acquisition import acquisition_by_label
from usdata.auditing.attribution import attribution
from usdata.auditing.flow import flow
from usdata.auditing.labels import label_levels, label_status, majority
from usdata.auditing.licences import licences, licences_by_source
from usdata.auditing.privacy import privacy
from usdata.auditing.probes import shortcut_probe
from usdata.auditing.reproducibility import reproducibility
from usdata.auditing.surroundings import surroundings_probe
from usdata.auditing.tables import MEASURES, UNLABELLED, Tables, prepare

__all__ = ["UNLABELLED", "Tables", "prepare", "statistics"]

HISTOGRAM_BINS = 24

# (column, table, question, unit)
DISTRIBUTIONS = (
    ("duration_s", "clips", "How long are the clips?", "seconds"),
    ("fps", "clips", "At what frame rate were they recorded?", "Hz"),
    ("frames", "clips", "How many frames of each clip are kept?", "frames"),
    ("quality_mean", "frames", "How bright are the frames?", "mean gray level, 0 to 255"),
    ("quality_std", "frames", "How much contrast do they have?", "standard deviation of gray levels"),
    ("quality_sharpness", "frames", "How sharp are they?", "variance of the Laplacian"),
)


def statistics(tables: Tables, *, pictures: bool = True) -> dict[str, Any]:
    """Everything that the audit counts, as plain values.

    Args:
        tables: The data set.
        pictures: Look at images for the probe on the surroundings.

    Returns:
        A dictionary with the keys set, flow, totals, sources, by_source_label, by_source_label_split, by_source, by_label, by_split,
        by_split_label, by_fold, by_fold_label, by_patient, by_group, clips_per_patient, clips_per_group, labels, label_levels, majority,
        acquisition, shortcut, surroundings, distributions, licences, licences_by_source, attribution, duplicates, privacy,
        reproducibility.
    """
    kept, places = tables.kept, tables.places
    order = [*tables.labels, UNLABELLED]
    in_splits = places.drop_duplicates(["video_id", "split"])
    with_fold = places[places["fold"].notna()].assign(fold=lambda table: table["fold"].astype("int64"))
    in_folds = with_fold.drop_duplicates(["video_id", "fold"])
    by_source = licences_by_source(kept)
    return {
        "set": _identity(tables),
        "flow": flow(tables),
        "totals": _counts(kept, int(kept["frames"].sum())) | {"sources": int(kept["source"].nunique()), "labels": len(tables.labels)},
        "sources": _sources(kept),
        "by_source_label": _count_by(kept, ["source", "label_name"], kept, order),
        "by_source_label_split": _count_by(in_splits, ["source", "label_name", "split"], places, order),
        "by_source": _count_by(kept, ["source"], kept, order),
        "by_label": _count_by(kept, ["label_name"], kept, order),
        "by_split": _count_by(in_splits, ["split"], places, ["train", "val", "test"]),
        "by_split_label": _count_by(in_splits, ["split", "label_name"], places, order),
        "by_fold": _count_by(in_folds, ["fold"], with_fold, order),
        "by_fold_label": _count_by(in_folds, ["fold", "label_name"], with_fold, order),
        "by_patient": _members(kept[kept["patient"].notna()], "patient"),
        "by_group": _members(kept, "group_id"),
        "clips_per_patient": _spread(kept.loc[kept["patient"].notna(), "patient"].value_counts()),
        "clips_per_group": _spread(kept["group_id"].value_counts()),
        "labels": label_status(tables),
        "label_levels": label_levels(tables),
        "majority": majority(tables),
        "acquisition": acquisition_by_label(kept, tables.labels),
        "shortcut": shortcut_probe(kept),
        "surroundings": surroundings_probe(tables, pictures=pictures),
        "distributions": _distributions(tables),
        "licences": licences(kept),
        "licences_by_source": by_source,
        "attribution": attribution(tables, by_source),
        "duplicates": [_plain(row) for row in _records(tables.dataset.duplicates, ["video_id_a", "video_id_b", "kind"])],
        "privacy": privacy(tables),
        "reproducibility": reproducibility(tables),
    }


def _identity(tables: Tables) -> dict[str, Any]:
    about = tables.dataset.about
    versions = about.get("versions")
    return {
        "name": tables.dataset.name,
        "digest": tables.dataset.digest,
        "recipe_digest": about.get("recipe_digest"),
        "schema_version": about["schema_version"],
        "classes": tables.dataset.classes,
        "sources": sorted(set(tables.kept["source"])),
        "organs": sorted(set(tables.kept["organ"].dropna())),
        "versions": {str(name): str(version) for name, version in sorted(versions.items())} if isinstance(versions, dict) else {},
    }


def _counts(clips: pd.DataFrame, frames: int) -> dict[str, int]:
    return {
        "patients": int(clips["patient"].nunique()),
        "groups": int(clips["group_id"].nunique()),
        "clips": int(clips["video_id"].nunique()),
        "frames": frames,
    }


def _count_by(clips: pd.DataFrame, keys: list[str], framed: pd.DataFrame, order: Sequence[str]) -> list[dict[str, Any]]:
    """Counts per value of the keys; rows of `framed` have `frames`."""
    grouped = clips.groupby(keys)
    columns = {"patients": "patient", "groups": "group_id", "clips": "video_id"}
    counts = grouped[list(columns.values())].nunique().rename(columns={column: name for name, column in columns.items()})
    counts["frames"] = framed.groupby(keys)["frames"].sum()
    position = {name: index for index, name in enumerate(order)}
    rows = []
    for record in counts.reset_index().to_dict("records"):
        named = {"label" if name == "label_name" else str(name): value for name, value in record.items()}
        rows.append({name: value if isinstance(value, str) else int(value) for name, value in named.items()})
    names = ["label" if name == "label_name" else name for name in keys]
    return sorted(rows, key=lambda row: [(position.get(row[name], -1), row[name]) for name in names])


def _sources(kept: pd.DataFrame) -> list[dict[str, Any]]:
    """What each source holds: organs, labels (as they are used, and as the source gives them), size, counts."""
    rows = []
    for row in _count_by(kept, ["source"], kept, []):
        clips = kept[kept["source"] == row["source"]]
        given = {text for texts in clips["labels"] for text in texts if text.startswith("label=")}
        rows.append(
            {"source": row["source"], "organs": sorted(set(clips["organ"].dropna())), "labels": int(clips["label"].nunique())}
            | {"labels_given": len(given) or int(clips["label"].nunique()), "fps": _median(clips["fps"])}
            | {"width": _median(clips["width"]), "height": _median(clips["height"])}
            | {name: row[name] for name in ("patients", "groups", "clips", "frames")}
            | {"frames_a_clip": row["frames"] / row["clips"]}
        )
    return rows


def _median(values: pd.Series) -> float | None:
    known = values.dropna()
    return float(known.median()) if len(known) else None


def _members(clips: pd.DataFrame, key: str) -> list[dict[str, Any]]:
    """Clips, frames and labels of each patient or group."""
    sums = clips.groupby(key)["frames"].agg(["size", "sum"])
    names = clips[[key, "label"]].dropna().drop_duplicates().sort_values([key, "label"]).groupby(key)["label"].agg(list).to_dict()
    return [
        {key: str(name), "clips": int(size), "frames": int(frames), "labels": names.get(name, [])}
        for name, size, frames in sums.itertuples()
    ]


def _spread(counts: pd.Series) -> dict[str, float] | None:
    if counts.empty:
        return None
    return {"count": len(counts), "min": int(counts.min()), "median": float(counts.median()), "max": int(counts.max())}


def _distributions(tables: Tables) -> dict[str, Any]:
    result = {}
    for column, table, question, unit in DISTRIBUTIONS:
        series = tables.measures[column] if column in MEASURES else tables.kept[column].astype("float64").to_numpy()
        values = np.sort(series[np.isfinite(series)])
        entry: dict[str, Any] = {
            "question": question,
            "of": table,
            "unit": unit,
            "count": len(values),
            "missing": len(series) - len(values),
        }
        if len(values):
            low, median, high = (float(value) for value in np.percentile(values, [5, 50, 95]))
            counts, edges = _histogram(values)
            entry |= {"min": float(values[0]), "p5": low, "median": median, "p95": high, "max": float(values[-1])}
            entry |= {"mean": float(values.mean()), "edges": edges, "counts": counts}
        result["frames_kept" if column == "frames" else column] = entry
    return result


def _histogram(values: np.ndarray) -> tuple[list[int], list[float]]:
    """Counts and edges; whole numbers of a small range get a bin each, so that no bin is empty by arithmetic alone."""
    span = float(values[-1] - values[0])
    whole = bool(np.all(values == np.round(values)))
    if whole:
        width = max(1, int(np.ceil((span + 1) / HISTOGRAM_BINS)))
        edges = np.arange(values[0] - 0.5, values[-1] + width, width)
    else:
        edges = np.linspace(values[0], values[-1], HISTOGRAM_BINS + 1) if span else np.array([values[0] - 0.5, values[0] + 0.5])
    counts, edges = np.histogram(values, bins=edges)
    return [int(count) for count in counts], [float(edge) for edge in edges]


def _records(table: pd.DataFrame, keys: list[str]) -> Iterable[dict[str, Any]]:
    return ({str(name): value for name, value in row.items()} for row in table.sort_values(keys).to_dict("records"))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
