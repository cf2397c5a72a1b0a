"""What a data set holds, counted.

Comes in: an opened data set folder. Goes out: one dictionary of plain values (JSON as it stands): the flow of files and frames with
reasons, counts by source, label, patient, group, split and fold, distributions, licences, duplicates. Guarantees: every number is a
count of rows of the manifest, nothing is estimated, and equal tables give an equal dictionary. A patient is a patient id within its source.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from usdata.auditing.acquisition import acquisition_by_label, shortcut_probe
from usdata.manifest import DataSet

UNLABELLED = "unlabelled"
HISTOGRAM_BINS = 24
EXCLUSION_REASONS = ("near_repeat", "repeats_period", "redundant", "blank", "damaged", "invalid", "not_sampled", "clip_excluded")
# Strictest first: what a reader of a mixed set must obey.
LICENCE_KINDS = ("nd", "nc", "sa", "by", "public domain")
_ABBREVIATIONS = {"nd", "nc", "sa", "by"}
_SPELT_OUT = {"nd": "no ?deriv", "nc": "non-? ?commercial", "sa": "share-? ?alike|odbl", "public domain": "public domain"}
_PERMISSIVE = {"mit", "bsd", "apache", "mpl", "isc"}
_PUBLIC_DOMAIN = {"cc0", "pddl", "unlicense"}

# (column, table, question, unit)
DISTRIBUTIONS = (
    ("duration_s", "clips", "How long are the clips?", "seconds"),
    ("fps", "clips", "At what frame rate were they recorded?", "Hz"),
    ("frames", "clips", "How many frames of each clip are kept?", "frames"),
    ("quality_mean", "frames", "How bright are the frames?", "mean gray level, 0 to 255"),
    ("quality_std", "frames", "How much contrast do they have?", "standard deviation of gray levels"),
    ("quality_sharpness", "frames", "How sharp are they?", "variance of the Laplacian"),
)


@dataclass(frozen=True)
class Tables:
    """A data set's tables, made ready for counting.

    Attributes:
        dataset: The opened data set.
        videos: A row per source video, with `label_name` (null becomes "unlabelled"), `patient` (source and id; null if unknown) and
            `frames` (its rows in the frames table).
        kept: The rows of `videos` whose status is ok.
        frames: A row per kept frame, with `label_name` and `patient`.
        labels: Label names in the order of the data set's classes, other names after them, "unlabelled" never among them.
    """

    dataset: DataSet
    videos: pd.DataFrame
    kept: pd.DataFrame
    frames: pd.DataFrame
    labels: list[str]


def prepare(dataset: DataSet) -> Tables:
    """The tables of a data set with the columns that counting needs."""
    frames = _with_names(dataset.frames).sort_values(["source", "video_id", "frame_index"], ignore_index=True)
    videos = _with_names(dataset.videos).sort_values(["source", "video_id"], ignore_index=True)
    per_video = frames.groupby("video_id").size()
    videos["frames"] = videos["video_id"].map(per_video).fillna(0).astype("int64")
    present = set(videos["label"].dropna()) | set(frames["label"].dropna())
    labels = [*(name for name in dataset.classes if name in present), *sorted(present - set(dataset.classes))]
    kept = videos[videos["status"] == "ok"].reset_index(drop=True)
    return Tables(dataset=dataset, videos=videos, kept=kept, frames=frames, labels=labels)


def _with_names(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    table["label_name"] = [label if isinstance(label, str) else UNLABELLED for label in table["label"]]
    table["patient"] = pd.Series(
        [
            f"{source}/{patient}" if isinstance(patient, str) else None
            for source, patient in zip(table["source"], table["patient_id"], strict=True)
        ],
        index=table.index,
        dtype="object",
    )
    return table


def statistics(tables: Tables) -> dict[str, Any]:
    """Everything that the audit counts, as plain values.

    Returns:
        A dictionary with the keys set, flow, totals, by_source_label, by_source, by_label, by_split, by_fold, by_patient, by_group,
        clips_per_patient, clips_per_group, labels, majority, acquisition, shortcut, distributions, licences, duplicates.
    """
    kept, frames = tables.kept, tables.frames
    order = [*tables.labels, UNLABELLED]
    in_splits = frames.drop_duplicates(["video_id", "split"])
    with_fold = frames[frames["fold"].notna()].assign(fold=lambda table: table["fold"].astype("int64"))
    in_folds = with_fold.drop_duplicates(["video_id", "fold"])
    return {
        "set": _identity(tables),
        "flow": _flow(tables),
        "totals": _counts(kept, int(kept["frames"].sum())) | {"sources": int(kept["source"].nunique()), "labels": len(tables.labels)},
        "by_source_label": _count_by(kept, ["source", "label_name"], kept, order),
        "by_source": _count_by(kept, ["source"], kept, order),
        "by_label": _count_by(kept, ["label_name"], kept, order),
        "by_split": _count_by(in_splits, ["split"], frames, ["train", "val", "test"]),
        "by_split_label": _count_by(in_splits, ["split", "label_name"], frames, order),
        "by_fold": _count_by(in_folds, ["fold"], with_fold, order),
        "by_fold_label": _count_by(in_folds, ["fold", "label_name"], with_fold, order),
        "by_patient": _members(kept[kept["patient"].notna()], "patient"),
        "by_group": _members(kept, "group_id"),
        "clips_per_patient": _spread(kept.loc[kept["patient"].notna(), "patient"].value_counts()),
        "clips_per_group": _spread(kept["group_id"].value_counts()),
        "labels": _label_status(tables),
        "majority": {"by_clip": _majority(kept["label"], tables.labels), "by_frame": _majority(frames["label"], tables.labels)},
        "acquisition": acquisition_by_label(kept, tables.labels),
        "shortcut": shortcut_probe(kept),
        "distributions": _distributions(tables),
        "licences": _licences(kept),
        "duplicates": [_plain(row) for row in _records(tables.dataset.duplicates, ["video_id_a", "video_id_b", "kind"])],
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


def _flow(tables: Tables) -> dict[str, Any]:
    videos, excluded = tables.videos, tables.dataset.excluded
    status = videos["status"].value_counts()
    failed_ids = set(videos.loc[videos["status"] == "failed", "video_id"])
    reasons = Counter(excluded.loc[~excluded["video_id"].isin(failed_ids), "reason"])
    decoded = videos.groupby("status")["frames_decoded"].sum()
    looked_at = int(decoded.get("ok", 0) + decoded.get("excluded", 0))
    frames_kept = len(tables.frames)
    return {
        "clips": {
            "found": len(videos),
            "failed": int(status.get("failed", 0)),
            "excluded": int(status.get("excluded", 0)),
            "kept": int(status.get("ok", 0)),
            "failures": _reasons(videos, "failed"),
            "exclusions": _reasons(videos, "excluded"),
        },
        "frames": {
            "decoded": looked_at,
            **{reason: int(reasons.pop(reason, 0)) for reason in EXCLUSION_REASONS},
            **{f"other: {reason}": int(count) for reason, count in sorted(reasons.items())},
            "kept": frames_kept,
            "unaccounted": looked_at - frames_kept - int((~excluded["video_id"].isin(failed_ids)).sum()),
            "in_failed_clips": int(decoded.get("failed", 0)),
        },
    }


def _reasons(videos: pd.DataFrame, status: str) -> list[dict[str, str]]:
    rows = videos[videos["status"] == status].sort_values("path")
    return [
        {"video_id": video, "path": path, "reason": reason if isinstance(reason, str) else "no reason was recorded"}
        for video, path, reason in zip(rows["video_id"], rows["path"], rows["reason"], strict=True)
    ]


def _counts(clips: pd.DataFrame, frames: int) -> dict[str, int]:
    return {
        "patients": int(clips["patient"].nunique()),
        "groups": int(clips["group_id"].nunique()),
        "clips": int(clips["video_id"].nunique()),
        "frames": frames,
    }


def _count_by(clips: pd.DataFrame, keys: list[str], framed: pd.DataFrame, order: Sequence[str]) -> list[dict[str, Any]]:
    """Counts per value of the keys; `framed` is either clips with a `frames` column or a table with a row per frame."""
    frame_counts = framed.groupby(keys)["frames"].sum() if "frames" in framed else framed.groupby(keys).size()
    position = {name: index for index, name in enumerate(order)}
    rows = []
    for key, members in clips.groupby(keys):
        values: Any = key if isinstance(key, tuple) else (key,)
        named = {
            "label" if name == "label_name" else name: value.item() if isinstance(value, np.generic) else value
            for name, value in zip(keys, values, strict=True)
        }
        rows.append(named | _counts(members, int(frame_counts[values if len(keys) > 1 else values[0]])))
    columns = ["label" if name == "label_name" else name for name in keys]
    return sorted(rows, key=lambda row: [(position.get(row[column], -1), row[column]) for column in columns])


def _members(clips: pd.DataFrame, key: str) -> list[dict[str, Any]]:
    return [
        {key: str(name), "clips": len(members), "frames": int(members["frames"].sum()), "labels": sorted(set(members["label"].dropna()))}
        for name, members in clips.groupby(key)
    ]


def _spread(counts: pd.Series) -> dict[str, float] | None:
    if counts.empty:
        return None
    return {"count": len(counts), "min": int(counts.min()), "median": float(counts.median()), "max": int(counts.max())}


def _label_status(tables: Tables) -> dict[str, Any]:
    clips, frames = tables.kept["label"], tables.frames["label"]
    unlabelled = int(clips.isna().sum())
    return {
        "clips_labelled": len(clips) - unlabelled,
        "clips_unlabelled": unlabelled,
        "share_unlabelled": unlabelled / len(clips) if len(clips) else None,
        "frames_labelled": int(frames.notna().sum()),
        "frames_unlabelled": int(frames.isna().sum()),
    }


def _majority(values: pd.Series, labels: Sequence[str]) -> dict[str, Any] | None:
    """The most frequent label and the accuracy of always answering it; of equal ones, the first in the order of classes."""
    counts = values.dropna().value_counts()
    if counts.empty:
        return None
    label = max(labels, key=lambda name: (int(counts.get(name, 0)), -labels.index(name)))
    return {"label": label, "rate": int(counts[label]) / int(counts.sum()), "of": int(counts.sum())}


def _distributions(tables: Tables) -> dict[str, Any]:
    result = {}
    for column, table, question, unit in DISTRIBUTIONS:
        series = (tables.kept if table == "clips" else tables.frames)[column].astype("float64")
        values = np.sort(series[np.isfinite(series)].to_numpy())
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


def licence_kind(licence: str | None) -> str | None:
    """What a licence asks at its strictest, or None where the text is missing or not one we know: then a person has to read it.

    The order, strictest first: no derivatives (nd), non-commercial (nc), share alike (sa), attribution (by), public domain.
    """
    terms = licence_terms(licence) if isinstance(licence, str) else set()
    return next((kind for kind in LICENCE_KINDS if kind in terms), None)


def licence_terms(licence: str) -> set[str]:
    """The terms that a licence's name speaks of, among nd, nc, sa, by and public domain."""
    text = licence.lower()
    words = set(re.findall(r"[a-z]+0?", text))
    # "by" alone is an English word: the abbreviations count only in a Creative Commons name or standing by themselves.
    creative_commons = bool(words & {"cc", "creative"}) or words <= _ABBREVIATIONS
    terms = words & _ABBREVIATIONS if creative_commons else set()
    terms |= {kind for kind, spelling in _SPELT_OUT.items() if re.search(spelling, text)}
    if words & _PERMISSIVE:
        terms.add("by")
    if words & _PUBLIC_DOMAIN:
        terms.add("public domain")
    return terms


def licence_strictness(licence: str) -> tuple[bool, ...]:
    """A sort key: greater is stricter, and BY-NC-ND is stricter than BY-ND."""
    terms = licence_terms(licence)
    return tuple(kind in terms for kind in LICENCE_KINDS)


def _licences(kept: pd.DataFrame) -> list[dict[str, Any]]:
    names = kept["licence"].where(kept["licence"].notna(), None)
    rows = []
    for name in sorted(set(names.dropna())):
        clips = kept[names == name]
        rows.append({"licence": name, "kind": licence_kind(name), "clips": len(clips), "frames": int(clips["frames"].sum())})
    rows.sort(key=lambda row: ([not flag for flag in licence_strictness(row["licence"])], row["licence"]))
    unknown = kept[names.isna()]
    if len(unknown):
        rows.append({"licence": None, "kind": None, "clips": len(unknown), "frames": int(unknown["frames"].sum())})
    return rows


def _records(table: pd.DataFrame, keys: list[str]) -> Iterable[dict[str, Any]]:
    return ({str(name): value for name, value in row.items()} for row in table.sort_values(keys).to_dict("records"))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
