"""The contract's tables: bytes follow rows alone, wrong rows and wrong folders are refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from usdata import manifest
from usdata.errors import DataSetError


def pair(a: str, b: str) -> dict[str, Any]:
    numbers = {"score": 1.0, "motion": None, "scale": 1.0, "scale_y": 1.0, "shift_x": 0.0, "shift_y": 0.0, "flip": False}
    frames = {"first_frame_a": 0, "last_frame_a": 1, "first_frame_b": 0, "last_frame_b": 1}
    return {"video_id_a": a, "video_id_b": b, "kind": "file", **numbers, **frames}


def whole(folder: Path) -> Path:
    for name in manifest.SCHEMAS:
        manifest.write_table(folder, name, manifest.table_from_rows(name, []), recipe_digest="r")
    manifest.write_about(folder, {"name": "tiny", "classes": []})
    return folder


def test_bytes_depend_on_rows_and_not_on_their_order(tmp_path: Path) -> None:
    rows = [pair("s/a", "s/b"), pair("s/a", "s/c"), pair("s/0", "s/b")]
    for name, order in (("one", rows), ("two", rows[::-1])):
        manifest.write_table(tmp_path / name, manifest.DUPLICATES, manifest.table_from_rows(manifest.DUPLICATES, order), recipe_digest="r")
    assert (tmp_path / "one" / manifest.DUPLICATES).read_bytes() == (tmp_path / "two" / manifest.DUPLICATES).read_bytes()
    assert pq.read_table(tmp_path / "one" / manifest.DUPLICATES).column("video_id_a").to_pylist() == ["s/0", "s/a", "s/a"]
    assert [path.name for path in (tmp_path / "one").iterdir()] == [manifest.DUPLICATES]


@pytest.mark.parametrize("change", [{"unknown": 1}, {"score": None}, {"score": "high"}])
def test_rows_that_break_the_schema_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        manifest.table_from_rows(manifest.DUPLICATES, [pair("s/a", "s/b") | change])


def test_compression_row_groups_and_metadata(tmp_path: Path) -> None:
    manifest.write_table(
        tmp_path, manifest.DUPLICATES, manifest.table_from_rows(manifest.DUPLICATES, [pair("s/a", "s/b")]), recipe_digest="abc"
    )
    metadata = pq.read_metadata(tmp_path / manifest.DUPLICATES)
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert metadata.row_group(0).column(0).has_column_index
    assert metadata.metadata[b"usdata.recipe_digest"] == b"abc"
    assert metadata.metadata[b"usdata.schema_version"] == str(manifest.SCHEMA_VERSION).encode()


def test_open_and_digest(tmp_path: Path) -> None:
    dataset = manifest.open_dataset(whole(tmp_path))
    assert dataset.digest == manifest.tables_digest(tmp_path)
    assert len(dataset.frames) == len(dataset.videos) == len(dataset.excluded) == len(dataset.duplicates) == 0


def test_what_is_no_data_set_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="no such data set folder"):
        manifest.open_dataset(tmp_path / "missing")
    with pytest.raises(DataSetError, match="is not a data set"):
        manifest.open_dataset(tmp_path)
    folder = whole(tmp_path / "set")
    (folder / manifest.FRAMES).write_bytes(b"no parquet")
    with pytest.raises(DataSetError, match="no readable Parquet"):
        _ = manifest.open_dataset(folder).frames
    (folder / manifest.FRAMES).unlink()
    with pytest.raises(DataSetError, match="is missing"):
        _ = manifest.open_dataset(folder).frames
    about = json.loads((folder / manifest.DATASET_JSON).read_text())
    (folder / manifest.DATASET_JSON).write_text(json.dumps(about | {"schema_version": 99}))
    with pytest.raises(DataSetError, match="schema version 99"):
        manifest.open_dataset(folder)
    (folder / manifest.DATASET_JSON).write_text("{")
    with pytest.raises(DataSetError, match="no readable JSON"):
        manifest.open_dataset(folder)
