"""Writing other columns or rows into tables of a data set that stands: a whole new folder beside it, then both exchanged.

The data set that stands is never touched: everything that stays the same is linked (copied where links cannot be), the tables and, last,
`dataset.json` are written anew, and the finished folder takes the old one's place in one step. Killed at any moment, a whole data set
stands, the old one or the new one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from usdata import manifest
from usdata.building.staging import disk_errors, locked, put_in_place
from usdata.files import write_json

# Reports would tell of the old tables.
MADE_ANEW = {*manifest.SCHEMAS, manifest.DATASET_JSON, *manifest.REPORT_FILES, manifest.CROISSANT_JSON}


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A hidden folder beside the data set for its successor; no build of the set runs meanwhile, and it is gone afterwards."""
    building, staging = out.parent / f".{out.name}.building", out.parent / f".{out.name}.splitting"
    with disk_errors(out), locked(building):
        try:
            shutil.rmtree(staging, ignore_errors=True)  # of one that was killed
            staging.mkdir()
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            with suppress(OSError):  # it holds the finished clips of a build that was stopped
                building.rmdir()


def write_successor(out: Path, staging: Path, about: Mapping[str, Any], others: Mapping[str, pa.Table]) -> manifest.DataSet:
    """Write the tables, some of them other ones, then dataset.json; all else is linked only when it takes its place.

    Args:
        out: The data set that stands.
        staging: From `staged`.
        about: dataset.json to be, without digest; its `recipe_digest` goes into every table.
        others: File name to the table that it is to hold, in the contract's order; tables that are not among them stay as they are.
    """
    for name, schema in manifest.SCHEMAS.items():
        table = others[name] if name in others else manifest.read_table(out, name)
        # One piece a column, and the schema of the contract: bytes depend on rows alone, not on how they were read.
        arrays = [_whole(table.column(field.name)).cast(field.type) for field in schema]
        fresh = pa.Table.from_arrays(arrays, schema=schema)
        manifest.write_table(staging, name, fresh, recipe_digest=about["recipe_digest"])
    manifest.write_about(staging, about)
    return manifest.open_dataset(staging)


def with_parts(frames: pa.Table, split: Sequence[str], fold: Sequence[int | None]) -> pa.Table:
    """frames.parquet with other splits and folds.

    Args:
        frames: The table.
        split: One value a row, in its order.
        fold: Likewise.
    """
    for name, values in (("split", split), ("fold", fold)):
        place = frames.schema.get_field_index(name)
        frames = frames.set_column(place, name, pa.array(values, type=manifest.FRAMES_SCHEMA.field(name).type))
    return frames


def take_place(out: Path, staging: Path) -> None:
    """Put the successor where the data set stands; dataset.json, the mark of a whole set, comes last into it."""
    mark = staging / manifest.DATASET_JSON
    about = manifest.open_dataset(staging).about
    mark.unlink()
    for path in sorted(out.iterdir()):
        if path.name in MADE_ANEW:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, staging / path.name, symlinks=True, copy_function=_link)
        else:
            _link(str(path), str(staging / path.name))
    write_json(mark, about)
    os.sync()  # before the exchange says that everything is there
    put_in_place(staging, out)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
