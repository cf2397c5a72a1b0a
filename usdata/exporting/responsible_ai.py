"""What a data set's manifest knows of the questions of Croissant's vocabulary for responsible AI.

In: a data set. Out: its `rai:` properties. Guarantees: every sentence is counted from the tables or said by the recipe; what neither knows
(who collected, who annotated, for what use) is left out and not made up.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from usdata.manifest import FRAMES, DataSet


def responsible_ai(data: DataSet) -> dict[str, Any]:
    """The properties, by their names in JSON-LD; those with nothing to say are absent."""
    videos = data.videos
    kept = videos[videos["frames_kept"] > 0]
    said: dict[str, Any] = {
        "rai:dataCollectionRawData": _raw(videos),
        "rai:dataCollectionMissingData": _missing(kept),
        "rai:dataPreprocessingProtocol": _preprocessing(data.about.get("recipe")),
        "rai:dataAnnotationProtocol": [_labels(kept)],
        "rai:dataBiases": _classes(data),
        "rai:dataLimitations": _limits(data, kept),
        "rai:personalSensitiveInformation": _personal(data.about.get("privacy"), kept),
    }
    return {name: value for name, value in said.items() if value}


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _raw(videos: pd.DataFrame) -> str:
    status = videos["status"].value_counts()
    text = f"{_counted(len(videos), 'ultrasound clip')}: {int(status.get('ok', 0)):,} used, {int(status.get('excluded', 0)):,} left out, "
    return text + f"{int(status.get('failed', 0)):,} unreadable. Each is a row of videos.parquet, with its digest and the reason."


def _missing(kept: pd.DataFrame) -> str:
    facts = {"label": "label", "patient_id": "patient", "fps": "frame rate", "mm_per_pixel_x": "spacing of pixels", "licence": "licence"}
    counts = {name: int(kept[column].isna().sum()) for column, name in facts.items()}
    gaps = [f"{name} of {number:,}" for name, number in counts.items() if number]
    return f"Of {_counted(len(kept), 'clip')} with frames, unknown: {', '.join(gaps)}." if gaps else ""


def _preprocessing(recipe: Any) -> list[str]:
    """What the recipe asked for; dataset.json has it whole."""
    if not isinstance(recipe, dict):
        return []
    said = []
    for source in recipe.get("sources", []):
        sampling = source.get("sampling") or {}
        given = ", ".join(f"{key} {value}" for key, value in sorted(sampling.items()) if value is not None and key != "rule")
        if sampling.get("rule"):
            said.append(f"Frames of {source.get('name')} are sampled by the rule '{sampling['rule']}' ({given}).")
    image = recipe.get("image") or {}
    if image:
        said.append("Images: " + ", ".join(f"{key} {'none' if value is None else value}" for key, value in sorted(image.items())) + ".")
    said.append("Blank, frozen, repeated and damaged frames are not kept; excluded.parquet names each with the reason.")
    return said


def _labels(kept: pd.DataFrame) -> str:
    labelled = int(kept["label"].notna().sum())
    return f"Labels are the sources' own and belong to whole clips: {labelled:,} of {_counted(len(kept), 'clip')} have one."


def _classes(data: DataSet) -> list[str]:
    if not data.classes:
        return []
    counts = Counter(pq.read_table(data.folder / FRAMES, columns=["label"])["label"].to_pylist())
    kept = data.videos[data.videos["frames_kept"] > 0]
    clips, sources = kept["label"].value_counts(), kept.groupby("label")["source"].nunique()
    return [
        f"Class {name}: {_counted(counts[name], 'frame')} of {_counted(int(clips.get(name, 0)), 'clip')} "
        f"from {_counted(int(sources.get(name, 0)), 'source')}."
        for name in data.classes
    ]


def _limits(data: DataSet, kept: pd.DataFrame) -> list[str]:
    groups = kept["group_id"].nunique()
    said = [f"Frames of a clip and clips of a patient are not independent: {_counted(groups, 'group')} (group_id) share no patient."]
    if len(data.duplicates):
        said.append(f"{_counted(len(data.duplicates), 'pair')} of clips show the same scan (duplicates.parquet).")
    waiting = int((kept["review"] == "needed").sum())
    if waiting:
        said.append(f"{_counted(waiting, 'clip')} wait for a person to look at them (review, review_reason).")
    return said


def _personal(privacy: Any, kept: pd.DataFrame) -> list[str]:
    said = []
    if isinstance(privacy, dict):
        said.append(f"Patient ids: {privacy.get('identifiers', 'unknown')}. Dates: {privacy.get('dates', 'unknown')}.")
        if privacy.get("release"):
            said.append("Built as a release: pixels outside the field of view are zero.")
        else:
            said.append("Not built as a release: what is written on the pictures still stands there.")
    given = [name for column, name in (("patient_sex", "sex"), ("patient_age", "age band")) if kept[column].notna().any()]
    if given:
        said.append(f"Known of some patients: {', '.join(given)}.")
    return said
