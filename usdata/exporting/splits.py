"""The rows of frames.parquet, split by split.

In: the table. Out: each split's rows in the manifest's order. Guarantees: every row is in one of them, or the set is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from usdata.errors import DataSetError
from usdata.manifest import FRAMES

SPLITS = ("train", "val", "test")


def by_split(dataset: Path, frames: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Name and rows of each split that has rows, in the order train, val, test.

    Raises:
        DataSetError: A row is in none of them.
    """
    present = set(pc.unique(frames["split"]).to_pylist())
    if unknown := sorted(map(str, present - set(SPLITS))):
        raise DataSetError(dataset / FRAMES, f"names the split '{unknown[0]}'", "the contract has train, val and test")
    for split in SPLITS:
        if split in present:
            yield split, frames if present == {split} else frames.filter(pc.equal(frames["split"], split))
