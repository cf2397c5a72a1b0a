"""Descriptors of many clips, read a band at a time: as an array, or in a Parquet file with a row group a band.

Whoever compares clips asks for one or two bands at once, so that the memory needed does not grow with the number of clips; only the whole
pictures' descriptors, 63 bytes a clip, are held of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from usdata.duplicates.descriptors import CELLS, NUMBERS
from usdata.errors import DataSetError

BAND = 4096  # clips, 18 MB
SCHEMA = pa.schema([("video_id", pa.string()), ("descriptor", pa.binary(len(CELLS) * NUMBERS))])

Descriptors = NDArray[np.int8]  # (clips, len(CELLS), NUMBERS)


class Bands:
    """Descriptors in an array, in bands of BAND clips."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors

    def __len__(self) -> int:
        """Clips."""
        return len(self._descriptors)

    @property
    def number(self) -> int:
        """Bands."""
        return -(-len(self) // BAND)

    def band(self, number: int) -> Descriptors:
        """(up to BAND, len(CELLS), NUMBERS): the clips from number * BAND on."""
        return self._descriptors[number * BAND : (number + 1) * BAND]

    @cached_property
    def wholes(self) -> NDArray[np.int8]:
        """(clips, NUMBERS): of the whole pictures."""
        parts = [self.band(number)[:, 0] for number in range(self.number)]
        return np.concatenate([np.zeros((0, NUMBERS), np.int8), *parts])


class StoredBands(Bands):
    """Descriptors in a Parquet file, as `write_bands` leaves them.

    Raises:
        DataSetError: The file is another one, or not whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise self._unusable(str(error)) from error
        groups = [self._file.metadata.row_group(number).num_rows for number in range(self._file.metadata.num_row_groups)]
        if self._file.schema_arrow != SCHEMA or any(rows != BAND for rows in groups[:-1]) or any(rows > BAND for rows in groups):
            raise self._unusable("its columns or row groups are others")

    def __len__(self) -> int:
        """Clips."""
        return int(self._file.metadata.num_rows)

    def band(self, number: int) -> Descriptors:
        """As of an array; read anew each time."""
        column = self._file.read_row_group(number, columns=["descriptor"]).column(0).combine_chunks()
        values = np.frombuffer(column.buffers()[1], np.int8)
        return values[: len(column) * SCHEMA.field(1).type.byte_width].reshape(len(column), len(CELLS), NUMBERS)

    @cached_property
    def video_ids(self) -> list[str]:
        """Whose they are, in their order."""
        return [str(each) for each in self._file.read(columns=["video_id"]).column(0).to_pylist()]

    def _unusable(self, reason: str) -> DataSetError:
        return DataSetError(self._path, f"holds no descriptors: {reason}", "delete it and run the same command again")


def write_bands(path: Path, parts: Iterable[tuple[Sequence[str], Descriptors]]) -> StoredBands:
    """Write descriptors as they come, one row a clip, and open what was written.

    Args:
        path: Parquet file to be written.
        parts: Some clips' ids and their descriptors at a time, (clips, len(CELLS), NUMBERS); of any number.
    """
    with pq.ParquetWriter(path, SCHEMA, compression="none", use_dictionary=False, write_statistics=False) as writer:
        waiting: list[pa.RecordBatch] = []
        for ids, descriptors in parts:
            waiting.append(_batch(ids, descriptors))
            if sum(batch.num_rows for batch in waiting) >= BAND:
                waiting = _written(writer, waiting, least=BAND)
        _written(writer, waiting, least=1)
    return StoredBands(path)


def _written(writer: pq.ParquetWriter, batches: list[pa.RecordBatch], *, least: int) -> list[pa.RecordBatch]:
    """What is left when whole bands, or all of it, are written."""
    table = pa.Table.from_batches(batches, SCHEMA).combine_chunks()
    while table.num_rows >= least:
        writer.write_table(table[:BAND], row_group_size=BAND)
        table = table[BAND:]
    return list(table.to_batches())


def _batch(ids: Sequence[str], descriptors: Descriptors) -> pa.RecordBatch:
    data = pa.py_buffer(np.ascontiguousarray(descriptors, np.int8))
    column = pa.FixedSizeBinaryArray.from_buffers(SCHEMA.field(1).type, len(descriptors), [None, data])
    return pa.record_batch([pa.array(ids, pa.string()), column], schema=SCHEMA)
