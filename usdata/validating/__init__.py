"""Does a data set keep every promise of the contract?

Comes in: a data set folder, or a published manifest without pictures. Goes out: each promise (docs/contracts/data-set.md) with what
breaks it. Cheap by default: tables are read, pictures are only looked for. `deep` decodes every picture; `raw` makes the pictures of some
clips (with `deep` of all) again from their raw bytes. Guarantees: the data set is only read; what could not be looked at says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usdata import manifest
from usdata.engines import runner
from usdata.errors import UserError
from usdata.validating.consistency import check_copies, check_counts, check_parts, check_references
from usdata.validating.pictures import check_paths, check_pictures, check_pixels
from usdata.validating.promise import Promise
from usdata.validating.schema import check_columns, check_files, check_order, check_values

RAW_SAMPLES = 20

__all__ = ["RAW_SAMPLES", "Promise", "ValidationResult", "validate"]


@dataclass(frozen=True)
class ValidationResult:
    """What was looked at.

    Attributes:
        dataset: The data set's name.
        digest: Of its tables, as dataset.json has it.
        promises: In the order in which they were looked at.
        seconds: Wall time.
    """

    dataset: str
    digest: str
    promises: list[Promise]
    seconds: float

    @property
    def holds(self) -> bool:
        """Nothing was found that breaks a promise."""
        return all(promise.holds for promise in self.promises)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        promises = [promise.to_json() for promise in self.promises]
        return {
            "dataset": self.dataset,
            "digest": self.digest,
            "holds": self.holds,
            "promises": promises,
            "seconds": round(self.seconds, 3),
        }


def validate(
    dataset: str | Path,
    *,
    deep: bool = False,
    raw: str | Path | None = None,
    samples: int = RAW_SAMPLES,
    workers: int | None = None,
) -> ValidationResult:
    """Hold a data set against the contract.

    Args:
        dataset: Its folder.
        deep: Decode every picture and compare its pixels with their digest; with `raw`, make all of them again.
        raw: Folder of raw clips: make the pictures of some clips again and compare.
        samples: How many clips, spread evenly over the set.
        workers: Processes for `deep` and `raw`; all processors by default.

    Raises:
        DataSetError: The folder is no data set, or a table is missing or unreadable.
        UserError: The folder of raw clips is missing or empty, or `samples` is none.
    """
    start = time.monotonic()
    if samples < 1:
        raise UserError("--samples", f"{samples} is no number of clips", "give 1 or more")
    run = runner("local", workers)
    opened = manifest.open_dataset(dataset)
    folder, about = opened.folder, opened.about
    tables = {name: manifest.read_table(folder, name) for name in manifest.SCHEMAS}
    columns = check_columns(folder, about)
    checks: list[Callable[[], Promise]] = [
        lambda: check_order(tables),
        lambda: check_values(tables),
        lambda: check_references(tables),
        lambda: check_copies(tables, about),
        lambda: check_counts(tables, about),
        lambda: check_parts(tables, about),
        lambda: check_paths(tables),
        lambda: check_pictures(folder, tables),
    ]
    promises = [check_files(folder, about), columns]
    # With columns of another type nothing further can be asked.
    if not any(" is " in fault and "column '" in fault for fault in columns.broken):
        order, values = checks[0](), checks[1]()
        promises += [order, values]
        if any(" is null at " in fault for fault in values.broken):
            return ValidationResult(opened.name, opened.digest, promises, time.monotonic() - start)
        promises += [check() for check in checks[2:]]
        if deep and (folder / "images").exists():
            promises.append(check_pixels(folder, tables, run))
        if raw is not None:
            from usdata.validating.raw import check_raw

            promises += check_raw(opened, Path(raw), None if deep else samples, run)
    return ValidationResult(opened.name, opened.digest, promises, time.monotonic() - start)
