"""A data set of an older schema version, brought to this one's in place: `usdata migrate`.

In: a data set folder that an older usdata made. Out: the same folder with the tables of today, exchanged in one step for the old one.
Guarantees: what stood in the tables stays, images are linked and not touched, what could not be known is told and kept in dataset.json,
and a set that cannot be brought further honestly is refused and left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from usdata import manifest
from usdata.building.staging import recover
from usdata.errors import DataSetError
from usdata.migrating.steps import ADDED, STEPS, Stage
from usdata.successor import staged, take_place, write_successor

AGAIN = "build the set again with 'usdata build'"

__all__ = ["MigrateResult", "migrate"]


@dataclass(frozen=True)
class MigrateResult:
    """What a migration did.

    Attributes:
        out: The data set folder.
        name: The data set's name.
        before: Its schema version before.
        after: And now.
        written: The folder was changed.
        digest_before: Its digest before.
        digest: And now.
        computed: Sentences on columns that were made from the pictures.
        unknown: Sentences on what stays unknown, as dataset.json keeps them.
        report_gone: An audit's files stood there; they told of the old tables and were removed.
    """

    out: Path
    name: str
    before: int
    after: int
    written: bool
    digest_before: str
    digest: str
    computed: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    report_gone: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**vars(self), "out": str(self.out)}


def migrate(dataset: str | Path) -> MigrateResult:
    """Bring a data set to the schema version of this usdata, in place; one that has it already stays as it is.

    Args:
        dataset: The data set folder.

    Raises:
        DataSetError: The folder is no data set, a newer usdata made it, its tables are not those that were written, or a column that may
            not be null cannot be known.
    """
    out = Path(dataset).resolve() if Path(dataset).is_symlink() else Path(dataset).absolute()
    recover(out)
    about = manifest.read_about(out if out.exists() else Path(dataset))
    before = manifest.version_of(out, about)
    name, old_digest = str(about["name"]), str(about["digest"])
    if before == manifest.SCHEMA_VERSION:
        return MigrateResult(out, name, before, before, False, old_digest, old_digest)
    if before > manifest.SCHEMA_VERSION:
        manifest.open_dataset(out)  # says what to do
    if "recipe_digest" not in about:
        raise DataSetError(out / manifest.DATASET_JSON, "names no recipe_digest, which every build writes", AGAIN)
    had_report = any((out / name).is_file() for name in manifest.REPORT_FILES)
    with staged(out) as staging:
        stage = Stage(out, before, dict(about), _tables(out, about, before))
        while stage.version < manifest.SCHEMA_VERSION:
            stage = STEPS[stage.version](stage)
        earlier = about.get("migrated", {})
        unknown = [*earlier.get("unknown", []), *stage.unknown]
        stage.about["migrated"] = {"from": earlier.get("from", before), "unknown": unknown}
        successor = write_successor(out, staging, stage.about, stage.tables)
        for table in manifest.SCHEMAS:
            _refuse_nulls(out, table, manifest.read_table(staging, table))
        digest = successor.digest
        take_place(out, staging)
    computed, told = list(stage.computed), list(stage.unknown)
    return MigrateResult(out, name, before, stage.version, True, old_digest, digest, computed, told, had_report)


def _tables(folder: Path, about: dict[str, Any], version: int) -> dict[str, pa.Table]:
    """The tables as that version wrote them.

    Raises:
        DataSetError: One is missing, is not what was written, or lacks a column.
    """
    tables = {}
    for name, schema in manifest.SCHEMAS.items():
        path = folder / name
        if not path.is_file():
            raise DataSetError(path, "this table of the data set is missing", AGAIN)
        try:
            tables[name] = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise DataSetError(path, f"is no readable Parquet file ({str(error).splitlines()[0]})", AGAIN) from None
        later = {column for since, added in ADDED.items() if since > version for column in added.get(name, ())}
        missing = [column for column in schema.names if column not in later and column not in tables[name].column_names]
        if missing:
            raise DataSetError(path, f"lacks the columns {', '.join(missing)} of schema version {version}", AGAIN)
        # Only what that version had: a column of the same name that somebody added is not ours.
        tables[name] = tables[name].select([column for column in schema.names if column not in later])
    if manifest.tables_digest(folder) != about["digest"]:
        raise DataSetError(folder, "its tables are not those that dataset.json names (another digest)", f"{AGAIN}, or restore them")
    return tables


def _refuse_nulls(out: Path, name: str, table: pa.Table) -> None:
    for column in manifest.SCHEMAS[name]:
        if not column.nullable and table.column(column.name).null_count:
            raise DataSetError(out / name, f"holds null in {column.name}, which may not be null", AGAIN)
