"""What a model card says of the data and the settings behind weights, as plain values that fit into a file's metadata."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from uscl.config import Config
from usdata.manifest import DataSet

# What a reader asks about first; all of it stands in the run's config.yaml. Folders that a user wrote there never leave the run.
_SETTINGS = (
    "method",
    "backbone",
    "image_size",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "temperature",
    "precision",
    "seed",
)


def training_data(dataset: DataSet, splits: Sequence[str]) -> dict[str, Any]:
    """Counts and licences of the clips that have frames in some splits: `frames`, `videos`, `groups`, `licences` (clips by name)."""
    frames = dataset.frames[dataset.frames["split"].isin(list(splits))]
    video_ids = set(frames["video_id"])
    return {
        "frames": len(frames),
        "videos": len(video_ids),
        "groups": int(frames["group_id"].nunique()),
        "licences": licences(dataset.videos, video_ids),
    }


def licences(videos: pd.DataFrame, video_ids: Collection[str]) -> dict[str, int]:
    """How many of the clips stand under which licence, by name; '' = none is named."""
    named = videos.loc[videos["video_id"].isin(list(video_ids)), "licence"].astype(object)
    counts = named.where(named.notna(), "").value_counts()
    return {str(name): int(counts[name]) for name in sorted(counts.index)}


def settings(config: Config) -> dict[str, Any]:
    """The settings of a run that a reader asks about first."""
    found: dict[str, Any] = {key: getattr(config, key) for key in _SETTINGS}
    return found | {
        "optimizer": config.optimizer.name,
        "pairs.policy": config.pairs.policy,
        "labels.weight": config.labels.weight,
        "labels.share": config.labels.share,
    }
