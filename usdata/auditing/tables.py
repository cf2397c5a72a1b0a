"""A data set's tables, made ready for counting.

Comes in: an opened data set. Goes out: its clips, and its frames summed up to a row a clip and place (split, fold). Guarantees: only the
columns that are needed are read, a million frames cost seconds, and the rows' order in the files does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from usdata import manifest
from usdata.manifest import DataSet

UNLABELLED = "unlabelled"
MEASURES = ("quality_mean", "quality_std", "quality_sharpness")
_PLACE_KEYS = ["source", "video_id", "patient_id", "group_id", "label", "split", "fold"]
# Long JSON texts that nothing here counts.
_UNUSED = {"regions", "fov_geometry", "fov_polygon", "ruler", "key_frames", "key_frames_box"}


@dataclass(frozen=True)
class Tables:
    """A data set's tables.

    Attributes:
        dataset: The opened data set.
        videos: A row per source video, with `label_name` (null becomes "unlabelled"), `patient` (source and id; null if unknown) and
            `frames` (its rows in the frames table).
        kept: The rows of `videos` whose status is ok.
        places: The frames table summed up: a row for each clip, label, split and fold, with `label_name`, `patient` and `frames`.
        excluded: excluded.parquet summed up: video_id, reason and `frames`.
        labels: Label names in the order of the data set's classes, other names after them, "unlabelled" never among them.
    """

    dataset: DataSet
    videos: pd.DataFrame
    kept: pd.DataFrame
    places: pd.DataFrame
    excluded: pd.DataFrame
    labels: list[str]

    @cached_property
    def frames(self) -> pd.DataFrame:
        """A row per kept frame, all columns, with `label_name` and `patient`; for pictures, not for counting."""
        return _with_names(self.dataset.frames).sort_values(["source", "video_id", "frame_index"], ignore_index=True)

    @cached_property
    def measures(self) -> dict[str, NDArray[np.float64]]:
        """Measures of quality, one number a kept frame."""
        table = manifest.read_table(self.dataset.folder, manifest.FRAMES, columns=MEASURES)
        return {name: table.column(name).to_numpy() for name in MEASURES}

    def frames_of(self, videos: pd.Series) -> pd.DataFrame:
        """video_id, frame_index and path of the kept frames of some clips, in order."""
        table = manifest.read_table(self.dataset.folder, manifest.FRAMES, columns=("video_id", "frame_index", "path"))
        wanted = table.filter(pc.is_in(table.column("video_id"), value_set=pa.array(videos, pa.string())))
        return wanted.to_pandas().sort_values(["video_id", "frame_index"], ignore_index=True)

    def flagged(self, flag: str) -> pd.DataFrame:
        """The kept clips that carry a flag."""
        return self.kept[holding(self.kept["flags"], flag)]


def prepare(dataset: DataSet) -> Tables:
    """The tables of a data set with the columns that counting needs.

    Raises:
        DataSetError: A table is missing or unreadable.
    """
    places = _places(dataset)
    columns = [name for name in manifest.VIDEOS_SCHEMA.names if name not in _UNUSED]
    videos = manifest.read_table(dataset.folder, manifest.VIDEOS, columns=columns).to_pandas()
    videos = _with_names(videos).sort_values(["source", "video_id"], ignore_index=True)
    per_video = places.groupby("video_id")["frames"].sum()
    videos["frames"] = videos["video_id"].map(per_video).fillna(0).astype("int64")
    present = set(videos["label"].dropna()) | set(places["label"].dropna())
    labels = [*(name for name in dataset.classes if name in present), *sorted(present - set(dataset.classes))]
    kept = videos[videos["status"] == "ok"].reset_index(drop=True)
    excluded = _summed(manifest.read_table(dataset.folder, manifest.EXCLUDED, columns=("video_id", "reason")), ["video_id", "reason"])
    return Tables(dataset=dataset, videos=videos, kept=kept, places=places, excluded=excluded, labels=labels)


def _places(dataset: DataSet) -> pd.DataFrame:
    places = _with_names(_summed(manifest.read_table(dataset.folder, manifest.FRAMES, columns=_PLACE_KEYS), _PLACE_KEYS))
    return places.sort_values(["source", "video_id", "split", "fold", "label_name"], ignore_index=True)


def _summed(table: pa.Table, keys: list[str]) -> pd.DataFrame:
    """The number of rows for each combination of the keys, as `frames`."""
    counted = table.group_by(keys, use_threads=False).aggregate([([], "count_all")])
    return counted.rename_columns([*keys, "frames"]).sort_by([(key, "ascending") for key in keys]).to_pandas()


def holding(lists: pd.Series, *words: str) -> NDArray[np.bool_]:
    """Which lists hold any of some words."""
    wanted = set(words)
    return np.fromiter((not wanted.isdisjoint(each) for each in lists), bool, len(lists))


def rows_with_value(dataset: DataSet, column: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Some columns of frames.parquet, of the rows that have a value in one of them."""
    table = manifest.read_table(dataset.folder, manifest.FRAMES, columns=columns)
    return table.filter(pc.is_valid(table.column(column))).to_pandas()


def _with_names(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `label_name` and `patient`."""
    label = table["label"].astype("str")
    known = table["patient_id"].notna()
    patient = (table["source"].astype("str") + "/" + table["patient_id"].astype("str")).where(known)
    return table.assign(label_name=label.where(table["label"].notna(), UNLABELLED), patient=patient)
