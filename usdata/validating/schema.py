"""Is each table what the contract says: its columns, its order, its keys, its values?

Comes in: a data set folder. Goes out: promises. Guarantees: every row of every table is looked at, none by a Python loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from usdata import manifest
from usdata.validating.promise import Promise

AGAIN = "build the set again with 'usdata build'; if it stays, report it as a fault of usdata"
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    manifest.VIDEOS: {
        "status": manifest.STATUSES,
        "review": ("needed", "accepted", "rejected"),
        "fov_kind": ("rectangle", "annulus_sector"),
        "fov_origin": ("override", "dicom_region", "estimate", "consensus", "none"),
        "mode": ("b_mode", "colour_doppler", "elastography", "m_mode", "spectral", "unknown"),
        "colour_kind": ("gray", "tinted", "colour"),
        "spacing_source": ("recipe", "file", "ruler"),
    },
    manifest.FRAMES: {"split": ("train", "val", "test")},
    manifest.EXCLUDED: {
        "reason": ("damaged", "invalid", "blank", "near_repeat", "repeats_period", "redundant", "not_sampled", "clip_excluded")
    },
    manifest.DUPLICATES: {"kind": ("file", "packets", "luma", "pixels", "content", "view")},
}
SHA256, FINGERPRINT = r"^[0-9a-f]{64}$", r"^[0-9a-f]{64}$"
SHAPES = {
    manifest.VIDEOS: {name: SHA256 for name in ("sha256", "packets_sha256", "luma_sha256", "overlay_sha256", "key_frames_sha256")},
    manifest.FRAMES: {"pixel_sha256": SHA256, "fingerprint": FINGERPRINT},
}
RANGES: dict[str, dict[str, tuple[float, float | None]]] = {
    manifest.VIDEOS: {"bytes": (0, None), "frames_decoded": (0, None), "frames_kept": (0, None), "fov_confidence": (0, 1)},
    manifest.FRAMES: {
        "frame_index": (0, None),
        "width": (1, None),
        "height": (1, None),
        "fold": (0, None),
        "quality_mean": (0, 255),
        "quality_saturation": (0, 1),
    },
    manifest.EXCLUDED: {"frame_index": (0, None), "similarity": (-1.001, 1.001)},
    manifest.DUPLICATES: {"score": (-1.001, 1.001), "scale": (0, None), "scale_y": (0, None)},
}


def check_files(folder: Path, about: Mapping[str, Any]) -> Promise:
    """The tables' bytes are those that dataset.json was written for."""
    found = manifest.tables_digest(folder)
    broken = () if found == about["digest"] else (f"dataset.json says {about['digest'][:16]}..., the tables give {found[:16]}...",)
    text = "The tables are the ones that dataset.json was written for (digest)."
    return Promise(
        "digest", text, len(manifest.SCHEMAS), "tables", broken, "a table was changed or exchanged: fetch or build the set again"
    )


def check_columns(folder: Path, about: Mapping[str, Any]) -> Promise:
    """Names, types and nulls of columns; what Parquet says of itself."""
    broken = [fault for name in manifest.SCHEMAS for fault in _faults(folder, name, about)]
    text = "Each table has the contract's columns, types, compression and metadata."
    return Promise("columns", text, len(manifest.SCHEMAS), "tables", tuple(broken), AGAIN)


def _faults(folder: Path, name: str, about: Mapping[str, Any]) -> Iterator[str]:
    wanted, file = manifest.SCHEMAS[name], pq.ParquetFile(folder / name)
    schema, parquet = file.schema_arrow, file.metadata
    for column in schema.names:
        if column not in wanted.names:
            yield f"{name}: has a column '{column}' that the contract does not know"
    for field in wanted:
        found = schema.field(field.name)
        if found.type != field.type:
            yield f"{name}: column '{field.name}' is {found.type}, not {field.type}"
    if [column for column in schema.names if column in wanted.names] != wanted.names:
        yield f"{name}: its columns stand in another order"
    metadata = schema.metadata or {}
    for key, value in (("schema_version", str(about["schema_version"])), ("recipe_digest", str(about.get("recipe_digest")))):
        found_value = metadata.get(f"usdata.{key}".encode(), b"nothing").decode("utf-8", "replace")
        if found_value != value:
            yield f"{name}: says {key} {found_value}, dataset.json {value}"
    for number in range(parquet.num_row_groups):
        group = parquet.row_group(number)
        if group.num_rows > manifest.ROW_GROUP_ROWS:
            yield f"{name}: row group {number} has {group.num_rows:,} rows, more than {manifest.ROW_GROUP_ROWS:,}"
        if any(group.column(column).compression != "ZSTD" for column in range(group.num_columns) if group.num_rows):
            yield f"{name}: row group {number} is not compressed with zstd"


def check_order(tables: Mapping[str, pa.Table]) -> Promise:
    """Rows are sorted by their key, and no key stands twice."""
    broken, rows = [], 0
    for name, table in tables.items():
        keys = manifest.SORT_KEYS[name]
        rows += table.num_rows
        if table.num_rows < 2:
            continue
        columns = [table.column(key).combine_chunks() for key in keys]
        rises: Any = None
        for column in reversed(columns):
            before, after = column.slice(0, len(column) - 1), column.slice(1)
            less = pc.less(before, after)
            rises = less if rises is None else pc.or_(less, pc.and_(pc.equal(before, after), rises))
        for place in places(pc.invert(rises)):
            shown = " / ".join(str(column[place + 1].as_py()) for column in columns)
            equal = all(column[place].as_py() == column[place + 1].as_py() for column in columns)
            broken.append(f"{name}: {shown} {'stands twice' if equal else 'is out of order'}")
    videos = tables[manifest.VIDEOS].column("video_id")
    broken += [f"{manifest.VIDEOS}: {video} stands twice" for video in _twice(videos)]
    return Promise("order", "Rows are sorted by their keys, and no key stands twice.", rows, "rows", tuple(sorted(set(broken))), AGAIN)


def check_values(tables: Mapping[str, pa.Table]) -> Promise:
    """No nulls where none may be, known words, digests that are digests, numbers in range."""
    broken, rows = [], 0
    for name, table in tables.items():
        rows += table.num_rows
        key = manifest.SORT_KEYS[name]
        for field in manifest.SCHEMAS[name]:
            if not field.nullable and table.column(field.name).null_count:
                broken += _named(table, key, pc.is_null(table.column(field.name)), f"{name}: {field.name} is null at")
        for column, words in WORDS.get(name, {}).items():
            known = pc.is_in(table.column(column), value_set=pa.array(words))
            wrong = pc.and_(pc.invert(known), pc.is_valid(table.column(column)))
            broken += _named(table, key, wrong, f"{name}: {column} is none of {', '.join(words)} at")
        for column, shape in SHAPES.get(name, {}).items():
            fits = pc.match_substring_regex(table.column(column), shape)
            broken += _named(table, key, pc.invert(fits), f"{name}: {column} is no digest at")
        for column, (low, high) in RANGES.get(name, {}).items():
            values = table.column(column)
            outside = [pc.less(values, low), *([] if high is None else [pc.greater(values, high)])]
            broken += _named(table, key, reduce(pc.or_, outside), f"{name}: {column} is outside [{low}, {'' if high is None else high}] at")
    return Promise("values", "Every value is one that the contract allows.", rows, "rows", tuple(broken), AGAIN)


def _named(table: pa.Table, key: tuple[str, ...], wrong: Any, what: str) -> list[str]:
    """'<what> <key of the row>' for each row for which `wrong` holds (null is no)."""
    return [f"{what} {' / '.join(str(table.column(name)[place].as_py()) for name in key)}" for place in places(wrong)]


def places(mask: Any) -> list[int]:
    """Positions at which a Boolean array holds; null does not."""
    mask = mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
    return list(pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist())


def _twice(values: pa.ChunkedArray) -> list[Any]:
    counts = pc.value_counts(values)
    return [entry["values"] for entry in counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist()]
