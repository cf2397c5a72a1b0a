"""Layout `table`: a CSV names the clips and what is known of them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from usdata.errors import UserError, nearest
from usdata.layouts.raw_files import RawFiles
from usdata.layouts.rows import PrivateIds, RawVideo, facts_of_path, inside_root, row_of
from usdata.recipe import Source


def from_table(source: Source, raw: Path, files: list[str], kinds: RawFiles, private: PrivateIds) -> Iterator[RawVideo]:
    """A row for every line of a source's table, whether its clip is there or not.

    Raises:
        UserError: The table is missing, is no CSV, lacks a column, or names a path outside RAW.
    """
    assert source.table is not None
    table = raw / source.root / source.table
    existing = set(files)
    lines: dict[str, int] = {}
    for line, values in _read_table(source, table):
        given = values[source.columns["path"]]
        if not given:
            raise UserError(table, f"line {line} has no path", "fill the column or remove the line")
        if source.path_template is not None:
            given = source.path_template.replace("{}", given)
        where = PurePosixPath(source.root) / PurePosixPath(source.table).parent / given
        if PurePosixPath(given).is_absolute() or ".." in where.parts:
            raise UserError(table, f"line {line} names a path outside the raw folder", "give paths relative to the table")
        path = str(where)
        if (first := lines.setdefault(path, line)) != line:
            raise UserError(table, f"lines {first} and {line} both name '{given}'", "keep one line a clip")
        facts: dict[str, str] = dict(source.constants.items()) | (facts_of_path(inside_root(path, source), source) or {})
        facts |= {key: values[column] for key, column in source.columns.items() if values[column]}
        facts["path"] = given
        row = row_of(source, path, str(PurePosixPath(given)), facts, values, private)
        if path in kinds.archives and len(clips := [each for each in files if each.startswith(f"{path}/") and kinds.is_clip(each)]) == 1:
            path = clips[0]  # an archive of one clip is as good a name for it
            row = replace(row, path=path)
        if path in existing:
            members: tuple[str, ...] = (path, *kinds.companions(path))
        else:
            members = kinds.folders.get(path, ()) or kinds.sequences.get(path, ())
        if not members and row.status == "ok":
            what = "a folder with no image directly in it" if (raw / path).is_dir() else "not there"
            row = replace(row, status="failed", reason=f"listed in {source.table} (line {line}), but {what}")
        yield replace(row, members=members)


def _read_table(source: Source, table: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            table, f"the table of source '{source.name}' cannot be read ({error.strerror})", "place it there, or change 'table'"
        ) from None
    except UnicodeDecodeError:
        raise UserError(table, "the table is not UTF-8 text", "save it as UTF-8 CSV") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator_of(text), strict=True)
    try:
        columns = [column.strip() for column in reader.fieldnames or []]
        reader.fieldnames = columns
        if doubled := [column for column, count in Counter(columns).items() if count > 1]:
            raise UserError(table, f"has the column '{doubled[0]}' twice", "rename one of them")
        wanted = [*source.columns.values(), *source.label_columns]
        for column in wanted:
            if column not in columns:
                raise UserError(table, f"has no column '{column}'", nearest(column, columns))
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise UserError(table, f"line {reader.line_num} does not have {len(columns)} values", "mend the line")
            rows.append((reader.line_num, {key: value.strip() for key, value in row.items()}))
    except csv.Error as error:
        raise UserError(table, f"line {reader.line_num} is no CSV ({error})", "mend the line") from None
    if not rows:
        raise UserError(table, "the table has no rows", "list the clips in it, one line each")
    return rows


def separator_of(text: str) -> str:
    """What separates the columns of a table: the comma, or the semicolon or tab where the first line holds more of them."""
    first = text.split("\n", 1)[0]
    return max(",;\t", key=first.count)
