"""`uscl predict`: a fitted classifier on the frames of a data set, labelled or not.

    PREDICTIONS/frames.parquet     a row a frame, sorted and keyed as the manifest: `predicted`, `probability_<class>` of each class
    PREDICTIONS/videos.parquet     a row a clip: the mean of its frames' probabilities, and `overlap`, why the clip is not new to the model
    PREDICTIONS/predictions.json   what model and data set they are of, how many clips are not new, and why; written last

In: a classifier's folder and a data set. Frames pass in blocks, so memory does not grow with their number; equal input gives equal bytes on
one kind of device. A prediction is no evaluation: clips that the classifier was fitted on are predicted too, and are told of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uscl.classifier import FittedClassifier, open_classifier
from uscl.embedding import BLOCK_ROWS, KEYS, feature_blocks, key_columns, key_fields
from uscl.evaluation.selection import ROW, matching_frames
from uscl.frames import open_store
from uscl.run_folder import TRAINED_ON, uscl_version
from uscl.whole_folder import check_folder, whole_folder
from usdata.console import say
from usdata.duplicates.guard import Seen, seen_clips
from usdata.duplicates.record import open_record
from usdata.files import write_json
from usdata.manifest import DataSet, open_dataset
from usdata.signals import stop_signals

FRAMES, VIDEOS, ABOUT = "frames.parquet", "videos.parquet", "predictions.json"
PARTS = (ABOUT, FRAMES, VIDEOS)
PREDICTIONS_VERSION = 1


@dataclass(frozen=True)
class PredictResult:
    """What was predicted.

    Attributes:
        out: The folder with the tables.
        about: The content of its `predictions.json`.
        videos: The content of its `videos.parquet`.
    """

    out: Path
    about: dict[str, Any]
    videos: pd.DataFrame


def predict(
    dataset: str | Path,
    *,
    model: str | Path,
    out: str | Path,
    where: Sequence[str] = (),
    compare: bool = True,
    threads: int | None = None,
    overwrite: bool = False,
) -> PredictResult:
    """Predict the classes of a data set's frames and clips.

    Args:
        dataset: Data set folder; labels are not needed, and are copied beside the predictions where there are any.
        model: Folder of a classifier, made by `uscl.fit`.
        out: Folder to make.
        where: Filters, see `uscl.evaluation.selection.select_frames`; 'label=' keeps what has no label.
        compare: Look for clips that the classifier, or its weights, were trained on. It changes no prediction.
        threads: As for `uscl.embed`.
        overwrite: Replace earlier predictions at `out`.

    Raises:
        UserError: `out` is taken, the classifier or the data set cannot be read, or a filter is wrong.
    """
    out = Path(out)
    check_folder(out, parts=PARTS, overwrite=overwrite)
    classifier = open_classifier(model)
    opened = open_dataset(dataset)
    frames = matching_frames(opened, where=where)
    with stop_signals(), whole_folder(out, parts=PARTS, overwrite=overwrite) as folder:
        video_ids = pd.unique(frames["video_id"])
        seen, notes = (
            _compared(Path(model), opened, video_ids.tolist()) if compare else ({}, ["Clips were not compared with its training."])
        )
        store = open_store(opened, size=classifier.about["image_size"])
        position = pd.Categorical(frames["video_id"], categories=video_ids).codes.astype(np.int64)
        sums = np.zeros((len(video_ids), len(classifier.classes)))
        metadata = {
            "uscl.predictions_version": str(PREDICTIONS_VERSION),
            "uscl.model_sha256": classifier.about["sha256"],
            "uscl.dataset_digest": opened.digest,
        }
        schema = pa.schema([*key_fields(), *_class_fields(classifier.classes)], metadata=metadata)
        blocks = feature_blocks(classifier.backbone, store, frames[ROW].to_numpy(dtype=np.int64), subject=model, threads=threads)
        with pq.ParquetWriter(folder / FRAMES, schema, **_parquet()) as writer:
            start = 0
            for features in blocks:
                rows = slice(start, start + len(features))
                start = rows.stop
                probabilities = classifier.probabilities(features)
                np.add.at(sums, position[rows], probabilities)
                columns = [*key_columns(frames.iloc[rows]), *_class_columns(classifier, probabilities)]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=BLOCK_ROWS)
        counts = np.bincount(position, minlength=len(video_ids))
        table = _video_table(frames, classifier, sums / counts[:, None], counts, seen, metadata)
        pq.write_table(table, folder / VIDEOS, **_parquet())
        about = _about(classifier, opened, where, len(frames), table, seen, notes)
        write_json(folder / ABOUT, about)
    for note in notes:
        say(note)
    return PredictResult(out, about, table.to_pandas())


def _parquet() -> dict[str, Any]:
    names = [*(name for name, _, _, _ in KEYS), "predicted", "overlap", "overlap_in"]
    return {"compression": "zstd", "version": "2.6", "use_dictionary": names, "write_page_index": True}


def _class_fields(classes: Sequence[str]) -> list[pa.Field]:
    told = {"description": "the class with the largest probability; of equal ones the first"}
    fields = [pa.field("predicted", pa.string(), nullable=False, metadata=told)]
    return fields + [pa.field(f"probability_{name}", pa.float64(), nullable=False) for name in classes]


def _class_columns(classifier: FittedClassifier, probabilities: NDArray[np.float64]) -> list[pa.Array]:
    predicted = pa.array(np.array(classifier.classes, dtype=object)[probabilities.argmax(axis=1)], type=pa.string())
    return [predicted, *(pa.array(np.ascontiguousarray(column)) for column in probabilities.T)]


def _video_table(
    frames: pd.DataFrame,
    classifier: FittedClassifier,
    probabilities: NDArray[np.float64],
    counts: NDArray[np.int64],
    seen: dict[str, Seen],
    metadata: dict[str, str],
) -> pa.Table:
    """A row a clip, in the order of the frames."""
    first = frames.drop_duplicates("video_id")
    names = ("video_id", "source", "group_id", "label")
    fields = [field for field in key_fields() if field.name in names]
    columns = [pa.array(first[field.name], type=field.type, from_pandas=True) for field in fields]
    told = {
        "frames": "frames of the clip that were predicted",
        "overlap": "why the clip is not new to the model: file, packets, luma, pixels, content, view, patient or group; null = it is new",
        "overlap_in": "the data set, of the fit or of the pretraining before it, in which it or its like stands; null = none or not known",
    }
    fields += [pa.field("frames", pa.int64(), nullable=False, metadata={"description": told["frames"]}), *_class_fields(classifier.classes)]
    fields += [pa.field(name, pa.string(), metadata={"description": told[name]}) for name in ("overlap", "overlap_in")]
    found = [seen.get(name) for name in first["video_id"]]
    columns += [pa.array(counts), *_class_columns(classifier, probabilities)]
    columns.append(pa.array([None if each is None else each.kind for each in found], type=pa.string()))
    columns.append(pa.array([None if each is None else each.trained_in for each in found], type=pa.string()))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=metadata))


def _compared(model: Path, dataset: DataSet, video_ids: Sequence[str]) -> tuple[dict[str, Seen], list[str]]:
    """The clips that are not new to the classifier, and what a reader must know of them."""
    if not (model / TRAINED_ON).is_file():
        return {}, [f"{model} came without its {TRAINED_ON}: which of these clips it was trained on is not known."]
    record = open_record(model / TRAINED_ON)
    seen = seen_clips(record, dataset, video_ids)
    notes = []
    if seen:
        kinds = Counter((each.trained_in or "a set that is not known", each.kind) for each in seen)
        told = ", ".join(f"{count} by {kind} in {name}" for (name, kind), count in sorted(kinds.items()))
        notes.append(
            f"{len(seen)} of {len(video_ids)} clips are not new to this model or its weights ({told}): how it does on them says nothing of "
            "how good it is. The column overlap of videos.parquet has which."
        )
    if not record.whole:
        notes.append("Its weights were trained on clips that are not all known, so more may not be new.")
    return {each.video_id: each for each in seen}, notes


def _about(
    classifier: FittedClassifier,
    dataset: DataSet,
    where: Sequence[str],
    frames: int,
    videos: pa.Table,
    seen: dict[str, Seen],
    notes: list[str],
) -> dict[str, Any]:
    predicted = Counter(videos.column("predicted").to_pylist())
    return {
        "predictions_version": PREDICTIONS_VERSION,
        "model": {key: classifier.about[key] for key in ("head", "sha256", "classes", "image_size", "backbone", "weights", "dataset")},
        "dataset": {"name": dataset.name, "digest": dataset.digest, "where": list(where)},
        "frames": frames,
        "videos": len(videos),
        "videos_by_class": {name: predicted[name] for name in classifier.classes},
        "videos_not_new": len(seen),
        "notes": notes,
        "uscl_version": uscl_version(),
    }
