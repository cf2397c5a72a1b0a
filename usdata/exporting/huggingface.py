"""Parquet shards with the pictures inside, as the library `datasets` and the Hugging Face Hub read them.

In: a data set. Out: `data/<split>-<k>-of-<n>.parquet`, a row a frame in the manifest's order, and a dataset card (README.md).
Guarantees: the column `image` holds the stored PNG's own bytes; the schema names it a picture and `label` a class; a missing label is null,
which `datasets` gives as None; one row group of pictures at a time is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from usdata.exporting.dataset_card import dataset_card
from usdata.exporting.images import stored_png
from usdata.exporting.licences import copy_attribution
from usdata.exporting.splits import by_split
from usdata.manifest import FRAMES, FRAMES_SCHEMA, VIDEOS, VIDEOS_SCHEMA, DataSet, read_table

# The Hub's own bounds: files of some 500 MB, and row groups of 100 rows so that its viewer can seek among pictures.
SHARD_BYTES = 500_000_000
ROW_GROUP_ROWS = 100
ROW_GROUP_BYTES = 64_000_000

NAMES = {"train": "train", "val": "validation", "test": "test"}
_REPLACED = ("path", "label", "label_index")
_VALUES = {pa.string(): "string", pa.int64(): "int64", pa.int32(): "int32", pa.float64(): "float64"}


def export_huggingface(data: DataSet, folder: Path, *, images: str, advance: Callable[[int], None]) -> int:
    """Write all kept frames below a folder; gives the number of clips.

    Raises:
        DataSetError: An image of the data set is missing or damaged, or a split is none of the contract's.
    """
    frames = read_table(data.folder, FRAMES)
    licences = _licence_by_clip(data)
    schema = shard_schema(data.classes)
    names = []
    for split, rows in by_split(data.folder, frames):
        names.append(NAMES[split])
        _write_split(data.folder, folder / "data", NAMES[split], rows, licences, schema, advance)
    (folder / "README.md").write_text(dataset_card(data, frames, schema, names, copy_attribution(data, folder)), encoding="utf-8")
    return len(pc.unique(frames["video_id"]))


def shard_schema(classes: list[str]) -> pa.Schema:
    """Columns of a shard, with the features that `datasets` reads in the schema's metadata.

    A set without classes has a label of text, all null: `datasets` knows no class label of zero classes.
    """
    picture = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    label = pa.int64() if classes else pa.string()
    about_label = "class of the frame, null = unlabelled"
    about_image = "bytes: the stored PNG, pixel for pixel; path: its place in the data set"
    fields = [
        pa.field("image", picture, metadata={"description": about_image}),
        pa.field("label", label, metadata={"description": about_label}),
        *(_column(field) for field in FRAMES_SCHEMA if field.name not in _REPLACED),
        VIDEOS_SCHEMA.field("licence"),
    ]
    features: dict[str, Any] = {field.name: {"dtype": _VALUES[field.type], "_type": "Value"} for field in fields if field.name != "image"}
    features["image"] = {"_type": "Image"}
    if classes:
        features["label"] = {"names": classes, "_type": "ClassLabel"}
    ordered = {field.name: features[field.name] for field in fields}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": ordered}}, ensure_ascii=False)})


def _column(field: pa.Field) -> pa.Field:
    """A column of frames.parquet, nullable as `datasets` makes all; what it shares with videos.parquet is explained as it is there."""
    shared = field.name in VIDEOS_SCHEMA.names and field.metadata[b"description"].startswith(b"as in")
    return (VIDEOS_SCHEMA.field(field.name) if shared else field).with_nullable(True)


def _licence_by_clip(data: DataSet) -> dict[str, str | None]:
    videos = read_table(data.folder, VIDEOS)
    return dict(zip(videos["video_id"].to_pylist(), videos["licence"].to_pylist(), strict=True))


def _write_split(
    dataset: Path,
    folder: Path,
    name: str,
    rows: pa.Table,
    licences: dict[str, str | None],
    schema: pa.Schema,
    advance: Callable[[int], None],
) -> None:
    """Write the shards of one split; their number, which each file's name must tell, is known when the last is written."""
    folder.mkdir(exist_ok=True)
    shards = 0
    groups = _row_groups(dataset, rows, licences, schema)
    group = next(groups, None)
    while group is not None:
        path = folder / f"{shards}.part"
        size = 0
        with _writer(path, schema) as writer:
            while group is not None and (size == 0 or size + group.nbytes <= SHARD_BYTES):
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
                size += group.nbytes
                advance(len(group))
                group = next(groups, None)
        shards += 1
    for number in range(shards):
        (folder / f"{number}.part").rename(folder / f"{name}-{number:05}-of-{shards:05}.parquet")


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer that neither compresses pictures again nor counts their bytes among the statistics."""
    columns = ["image.bytes", "image.path", *(field.name for field in schema if field.name != "image")]
    small = columns[1:]
    return pq.ParquetWriter(
        path,
        schema,
        version="2.6",
        compression={column: "zstd" if column in small else "none" for column in columns},
        use_dictionary=small,
        write_statistics=small,
        write_page_index=True,
    )


def _row_groups(dataset: Path, rows: pa.Table, licences: dict[str, str | None], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows with their pictures, as many at a time as a row group may hold."""
    pictures: list[dict[str, Any]] = []
    size = start = 0
    batches = rows.select(["path", "width", "height"]).to_batches(max_chunksize=1_000)
    for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
        path = row["path"]
        content = stored_png(dataset, path, row["width"], row["height"])
        if pictures and (len(pictures) == ROW_GROUP_ROWS or size + len(content) > ROW_GROUP_BYTES):
            yield _row_group(rows.slice(start, len(pictures)), pictures, licences, schema)
            pictures, size, start = [], 0, number
        pictures.append({"bytes": content, "path": path})
        size += len(content)
    if pictures:
        yield _row_group(rows.slice(start, len(pictures)), pictures, licences, schema)


def _row_group(rows: pa.Table, pictures: list[dict[str, Any]], licences: dict[str, str | None], schema: pa.Schema) -> pa.Table:
    label = schema.field("label").type
    columns = {
        "image": pa.array(pictures, type=schema.field("image").type),
        "label": rows["label_index"].cast(label) if label == pa.int64() else pa.nulls(len(rows), label),
        "licence": pa.array([licences.get(video_id) for video_id in rows["video_id"].to_pylist()], type=pa.string()),
    }
    return pa.Table.from_arrays([columns[name] if name in columns else rows[name] for name in schema.names], schema=schema)
