"""Reading splits and folds as others publish them: a table, lists of names, or a tree of folders; nothing is matched to clips here.

A CSV, TSV or JSON with a column of names and one of parts; `train.txt`, `val.txt`, `test.txt` with a name a line; `train/`, `val/` and
`test/`, or `split0/` ... `split4/`, with files below them, as the POCUS benchmark publishes its folds. Every name that is read comes out.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from usdata.errors import UserError, nearest
from usdata.files import canonical_json, sha256_file, sha256_text

NAME_COLUMNS = (
    "frame_id", "image_path", "image", "image_name", "image_file", "frame_path", "video_id", "video_path", "video", "video_name", "clip",
    "clip_id", "path", "filepath", "file_path", "filename", "file_name", "file", "name",
)  # fmt: skip
PART_COLUMNS = ("split", "fold", "set", "part", "subset", "partition")
WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
NUMBERED = re.compile(r"(?:(?:split|fold|cv|part|set|subset)[ _-]?)?(\d+)", re.IGNORECASE)
TABLES = (".csv", ".tsv", ".json")
LISTS = (".txt", ".lst", ".list")
MOST_BYTES = 1 << 30
GIVE = "give a CSV, TSV or JSON table, a folder of train.txt, val.txt and test.txt, or one of train/ and test/ or split0/, split1/, ..."


@dataclass(frozen=True)
class Published:
    """A published split or published folds, as read.

    Attributes:
        name: The file's or folder's own name.
        sha256: Of the file's bytes; of a folder of the canonical JSON of its [part, name] pairs, sorted.
        column: "split" (train, val, test) or "fold" (numbers from 0).
        entries: (name, part) each; a part is train, val, test or a number.
        notes: What a person should know, such as how folds were renumbered.
    """

    name: str
    sha256: str
    column: str
    entries: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)


def read_published(place: str | Path, *, column: str | None = None) -> Published:
    """Read a published split.

    Args:
        place: A table, or a folder of lists or of folders.
        column: The table's column that holds the parts, where there are several.

    Raises:
        UserError: It is missing, is none of these, holds no names, or its parts are neither train, val and test nor numbers.
    """
    path = Path(place)
    if not path.exists():
        raise UserError(path, "no such file or folder", GIVE)
    if path.is_dir():
        if column is not None:
            raise UserError("--column", "is for tables, and this is a folder", "leave it out")
        return _of_folder(path)
    if path.suffix.lower() not in TABLES:
        advice = "give the folder that holds the lists" if path.suffix.lower() in LISTS else GIVE
        raise UserError(path, "is no CSV, TSV or JSON table", advice)
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _table_rows(path)
    pairs = _pairs_of(path, rows, column)
    return _made(path, sha256_file(path), pairs, [])


def _text(path: Path) -> str:
    if path.stat().st_size > MOST_BYTES:
        raise UserError(path, "is larger than 1 GiB", "give the table of names alone")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(path, "is no text in UTF-8", "save it as UTF-8, or give the right file") from None
    if "\0" in text:
        raise UserError(path, "is no text (it holds zero bytes)", "give the right file")
    return text


def _table_rows(path: Path) -> list[dict[str, str]]:
    text = _text(path)
    first = text.split("\n", 1)[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(path, f"is no readable table ({error})", "mend the file") from None
    rows = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise UserError(path, "holds no rows" if rows else "is empty", "give a table with a line of column names and a row a clip")
    header, *body = rows
    for line, row in enumerate(body, 2):
        if len(row) != len(header):
            raise UserError(path, f"row {line} has {len(row)} cells and the first {len(header)}", "mend the row")
    return [dict(zip(header, row, strict=True)) for row in body]


def _json_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a list of objects, of {name: part}, or of {part: [names]}."""
    try:
        value = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(path, f"is no readable JSON ({error})", "mend the file") from None
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        return [{str(key): _cell(cell) for key, cell in row.items()} for row in value]
    if isinstance(value, Mapping) and value and all(isinstance(names, list) for names in value.values()):
        return [{"name": _cell(name), "split": str(part)} for part, names in value.items() for name in names]
    if isinstance(value, Mapping) and value and all(isinstance(part, str | int) for part in value.values()):
        return [{"name": str(name), "split": _cell(part)} for name, part in value.items()]
    shapes = 'give [{"name": ..., "split": ...}, ...], {"name": "train", ...} or {"train": ["name", ...], ...}'
    raise UserError(path, "holds no table of names and parts", shapes)


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _pairs_of(path: Path, rows: list[dict[str, str]], column: str | None) -> list[tuple[str, str]]:
    header = list(dict.fromkeys(key for row in rows for key in row))
    known = {key.strip().lower().replace(" ", "_"): key for key in header}
    if column is not None and column not in header:
        raise UserError(f"--column {column}", f"is no column of {path.name}", nearest(column, header))
    parts = [column] if column is not None else [known[name] for name in PART_COLUMNS if name in known]
    if not parts:
        raise UserError(path, f"has no column of parts ({_listed(PART_COLUMNS)})", f"name it with --column; there are {_listed(header)}")
    if len(parts) > 1:
        raise UserError(path, f"has {len(parts)} columns of parts ({_listed(parts)})", f"choose one, such as --column {parts[0]}")
    names = [known[name] for name in NAME_COLUMNS if name in known and known[name] != parts[0]]
    if not names:
        raise UserError(
            path, f"has no column that names clips or frames; there are {_listed(header)}", "call it video_id, path or frame_id"
        )
    pairs = []
    for number, row in enumerate(rows, 1):
        name, part = row.get(names[0], ""), row.get(parts[0], "")
        if not name or not part:
            raise UserError(path, f"row {number} has no {names[0] if not name else parts[0]}", "mend the row, or leave it out")
        pairs.append((name, part))
    return pairs


def _of_folder(folder: Path) -> Published:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    lists = [path for path in entries if path.is_file() and path.suffix.lower() in LISTS and _part(path.stem) is not None]
    trees = [path for path in entries if path.is_dir() and _part(path.name) is not None]
    if not lists and not trees:
        raise UserError(folder, "holds neither lists nor folders of train, val and test, or of numbered folds", GIVE)
    if lists and trees:
        raise UserError(
            folder, f"holds both lists ({lists[0].name}) and folders ({trees[0].name}/)", "give one of them, in a folder of its own"
        )
    rest = [path.name for path in entries if path not in lists and path not in trees]
    notes = [f"not read, for they name no part: {_listed(rest)}"] if rest else []
    pairs: list[tuple[str, str]] = []
    for path in lists:
        names = [line.strip() for line in _text(path).splitlines()]
        pairs += [(name, path.stem) for name in names if name]
    for path in trees:
        inner = [sub.name for sub in path.iterdir() if sub.is_dir() and sub.name.lower() in WORDS]
        if inner and path.name.lower() not in WORDS:
            advice = f"give one of them: {path}"
            raise UserError(folder, f"has {inner[0]}/ inside {path.name}/: that is a split of its own, not a fold", advice)
        pairs += [(name, path.name) for name in _files_below(path)]
    if not pairs:
        raise UserError(folder, "names nothing: its lists or folders are empty", "give the folder that holds the names")
    digest = sha256_text(canonical_json(sorted([part, name] for name, part in pairs)))
    return _made(folder, digest, pairs, notes)


def _files_below(folder: Path) -> list[str]:
    """Files at any depth, relative to the folder, sorted; hidden ones are none."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)


def _part(text: str) -> str | None:
    """train, val, test or a number as text; None for everything else."""
    word = WORDS.get(text.strip().lower())
    match = NUMBERED.fullmatch(text.strip())
    return word or (str(int(match[1])) if match else None)


def _made(path: Path, digest: str, pairs: Iterable[tuple[str, str]], notes: list[str]) -> Published:
    entries = []
    for name, given in pairs:
        part = _part(given)
        if part is None:
            raise UserError(path, f"'{given}' (of {name}) is no part", "the parts are train, val and test, or the numbers of folds")
        entries.append((str(PurePosixPath(name.replace("\\", "/"))), part))
    numbers = sorted({int(part) for _, part in entries if part.isdigit()})
    words = sorted({part for _, part in entries if not part.isdigit()})
    if numbers and words:
        raise UserError(path, f"has both parts ({', '.join(words)}) and numbers of folds ({numbers[0]}, ...)", "give one kind at a time")
    if len(numbers) == 1:
        raise UserError(path, f"has one fold only ({numbers[0]})", "give all folds")
    if numbers and numbers != list(range(len(numbers))):
        rank = {str(number): str(position) for position, number in enumerate(numbers)}
        entries = [(name, rank[part]) for name, part in entries]
        notes = [*notes, f"its folds {numbers[0]} to {numbers[-1]} are 0 to {len(numbers) - 1} here"]
    # Named by the folder itself, also where it is given as '.'.
    return Published(path.resolve().name, digest, "fold" if numbers else "split", entries, notes)


def _listed(names: Iterable[str]) -> str:
    names = [name or "(no name)" for name in names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
