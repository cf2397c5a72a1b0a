"""The record of the clips that something was trained on: what is needed to recognise them where their data set is not at hand.

One Parquet file, a row a clip: who it is, the digests of its file, coded pictures, luma and stored frames, and its key frames as the PNG of
the data set (pictures of 64 x 64 pixels, 60 to 130 kB a clip). It holds pictures of patients, so it travels only where the set may. Equal
arguments give equal bytes; it is written at once or not at all, in row groups, so memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from usdata import manifest
from usdata.duplicates.key_frames import read_key_frames
from usdata.duplicates.search import Clips
from usdata.errors import DataSetError, UserError
from usdata.files import atomic
from usdata.manifest import DataSet, read_table

RECORD_VERSION = 1
ROW_GROUP_CLIPS = 64
PICTURE = "key_frames_picture"
_VERSION_KEY, _WHOLE_KEY = b"usdata.record_version", b"usdata.record_whole"


def _schema() -> pa.Schema:
    """As in videos.parquet where the names are the same."""
    columns = (
        ("video_id", pa.string(), True, "as in videos.parquet; null: only the digest of the clip's file is known"),
        ("source", pa.string(), True, "as in videos.parquet; null likewise"),
        ("patient_id", pa.string(), True, "as in videos.parquet"),
        ("group_id", pa.string(), True, "as in videos.parquet; null where video_id is"),
        ("dataset_name", pa.string(), True, "the data set that the clip was taken from"),
        ("dataset_digest", pa.string(), True, "its digest"),
        ("labels_used", pa.bool_(), False, "whether the clip's label was trained on too"),
        ("sha256", pa.string(), True, "as in videos.parquet"),
        ("packets_sha256", pa.string(), True, "as in videos.parquet"),
        ("luma_sha256", pa.string(), True, "as in videos.parquet"),
        ("frames_unique", pa.int64(), False, "as in videos.parquet"),
        ("pixel_sha256", pa.list_(pa.string()), False, "of the stored frames, in order, as in frames.parquet; flat ones are left out"),
        ("key_frames", pa.list_(pa.int64()), True, "as in videos.parquet; null: all are too dark or too flat, or not known"),
        ("key_frames_box", pa.list_(pa.int32()), True, "as in videos.parquet"),
        (PICTURE, pa.binary(), True, "the picture of them, a PNG: one below another, 64 pixels wide"),
    )
    return pa.schema([pa.field(name, kind, nullable=null, metadata={"description": text}) for name, kind, null, text in columns])


RECORD_SCHEMA = _schema()
_LIGHT_COLUMNS = [name for name in RECORD_SCHEMA.names if name != PICTURE]


@dataclass(frozen=True)
class Record:
    """A record, opened. Everything but the pictures is read when it is first asked for.

    Attributes:
        path: The Parquet file.
        whole: Nothing else was trained on: whatever came before is in it, or there was nothing.
    """

    path: Path
    whole: bool

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """All but the pictures, in the file's order."""
        return [row for batch in self._batches(_LIGHT_COLUMNS) for row in batch]

    @property
    def digests(self) -> list[str]:
        """The sha256 of the clips' files, sorted."""
        return sorted({row["sha256"] for row in self.rows if row["sha256"] is not None})

    def unpack(self, folder: Path) -> Clips:
        """The clips with key frames, their pictures written into a folder; each is called by its place in `rows`, in nine digits."""
        found = []
        place = 0
        for batch in self._batches([PICTURE, "key_frames", "key_frames_box"]):
            for row in batch:
                if row[PICTURE] is not None:
                    name = f"{place:09d}"
                    (folder / f"{name}.png").write_bytes(row[PICTURE])
                    about = {"key_frames": row["key_frames"], "key_frames_box": row["key_frames_box"]}
                    found.append({"video_id": name, "key_frames_path": f"{name}.png", **about})
                place += 1
        return Clips.of(folder, found)

    def whole_rows(self) -> Iterator[dict[str, Any]]:
        """The rows with their pictures, one after another."""
        for batch in self._batches(RECORD_SCHEMA.names):
            yield from batch

    def _batches(self, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
        try:
            with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(batch_size=ROW_GROUP_CLIPS, columns=columns):
                    yield batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, str(error)) from None


def open_record(path: Path) -> Record:
    """Open a record.

    Raises:
        UserError: It is no readable Parquet, or no record of this version.
    """
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, str(error)) from None
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    version = metadata.get(_VERSION_KEY, b"none").decode()
    if version != str(RECORD_VERSION) or schema.names != RECORD_SCHEMA.names:
        raise UserError(path, f"is no record of version {RECORD_VERSION} of the clips that were trained on", _ADVICE)
    return Record(path, metadata.get(_WHOLE_KEY) == b"yes")


def write_record(
    path: Path,
    dataset: DataSet | None = None,
    video_ids: Collection[str] = (),
    *,
    labelled: Collection[str] = (),
    earlier: Record | None = None,
    digests: Collection[str] = (),
    whole: bool = True,
) -> None:
    """Write a record: the clips of a data set, then those of an earlier record, then those of which only a file's digest is known.

    Args:
        path: The Parquet file.
        dataset: Where the clips are trained on.
        video_ids: Which of its clips.
        labelled: Those of them whose labels are used.
        earlier: What the starting weights were trained on; a clip of the same data set stands once.
        digests: sha256 of clips' files that were trained on earlier.
        whole: False: more was trained on earlier, or may have been.

    Raises:
        DataSetError: Key frames cannot be read.
    """
    metadata = {_VERSION_KEY: str(RECORD_VERSION).encode(), _WHOLE_KEY: b"yes" if whole and (earlier is None or earlier.whole) else b"no"}
    schema = RECORD_SCHEMA.with_metadata(metadata)
    with (
        atomic(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", version="2.6", write_page_checksum=True) as writer,
    ):
        waiting: list[dict[str, Any]] = []
        for row in _all_rows(dataset, video_ids, labelled, earlier, digests):
            waiting.append(row)
            if len(waiting) == ROW_GROUP_CLIPS:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))


def _all_rows(
    dataset: DataSet | None, video_ids: Collection[str], labelled: Collection[str], earlier: Record | None, digests: Collection[str]
) -> Iterator[dict[str, Any]]:
    before = {_identity(row): row["labels_used"] for row in earlier.rows} if earlier is not None else {}
    files: set[str | None] = set()
    own = set()
    for row in [] if dataset is None else _rows_of(dataset, video_ids, labelled):
        own.add(_identity(row))
        files.add(row["sha256"])
        yield {**row, "labels_used": row["labels_used"] or before.get(_identity(row), False)}
    for row in [] if earlier is None else earlier.whole_rows():
        if row["video_id"] is None or _identity(row) not in own:
            files.add(row["sha256"])
            yield row
    unknown = dict.fromkeys(RECORD_SCHEMA.names) | {"labels_used": False, "frames_unique": 0, "pixel_sha256": []}
    for digest in sorted(set(digests) - files):
        yield {**unknown, "sha256": digest}


def _identity(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    return row["dataset_digest"], row["video_id"]


def _rows_of(dataset: DataSet, video_ids: Collection[str], labelled: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows of some clips of a data set, in the order of their ids."""
    wanted, with_labels = set(video_ids), set(labelled)
    frames = frames_of(dataset, wanted)
    pixels: dict[str, list[str]] = {}
    for frame in frames:
        if frame["quality_std"] > 0:
            pixels.setdefault(frame["video_id"], []).append(frame["pixel_sha256"])
    videos = [row for row in read_table(dataset.folder, manifest.VIDEOS).to_pylist() if row["video_id"] in wanted]
    for video in sorted(videos, key=lambda row: str(row["video_id"])):
        read = read_key_frames(dataset.folder, video)  # also the proof that the picture is the one that was written
        picture = None if read is None else (dataset.folder / video["key_frames_path"]).read_bytes()
        yield {
            **{name: video[name] for name in RECORD_SCHEMA.names if name in video},
            "dataset_name": dataset.name,
            "dataset_digest": dataset.digest,
            "labels_used": video["video_id"] in with_labels,
            "pixel_sha256": pixels.get(video["video_id"], []),
            PICTURE: picture,
        }


def frames_of(dataset: DataSet, video_ids: Collection[str]) -> list[dict[str, Any]]:
    """Of frames.parquet what exact duplicates are found by, of some clips, in order."""
    columns = ["frame_id", "video_id", "frame_index", "pixel_sha256", "quality_std"]
    rows = read_table(dataset.folder, manifest.FRAMES).select(columns).to_pylist()
    return sorted((row for row in rows if row["video_id"] in video_ids), key=lambda row: (row["video_id"], row["frame_index"]))


_ADVICE = "copy it again from where the run or the classifier was made, or make that again"


def _damaged(path: Path, reason: str) -> UserError:
    return DataSetError(path, f"cannot be read as the record of the clips that were trained on ({reason.splitlines()[0]})", _ADVICE)
