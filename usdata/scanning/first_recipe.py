"""A first recipe for what a scan found: one that builds as it is, with the guesses in it marked for a person to check.

A CSV that names clips becomes a source of layout `table`, with the columns whose names tell what they hold; what no table names becomes a
source of layout `files`, numbered images first. Nothing is guessed from values: a wrong patient column would leak patients between folds.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from usdata.console import safe_text
from usdata.errors import UserError
from usdata.files import write_text
from usdata.layouts.tables import separator_of
from usdata.recipe import SOURCE_NAME
from usdata.recipe_files import load_recipe
from usdata.scanning import ScannedFile, ScanResult

# Words that columns of public sets use, in the order of trust; letters only, lower case.
COLUMN_WORDS = {
    "patient": ("patientid", "patient", "subjectid", "subject", "pid", "caseid", "case"),
    "group": ("group", "groupid", "examid", "exam", "studyid", "study", "batch"),
    "label": ("label", "class", "diagnosis", "category", "target"),
    "probe": ("probe", "transducer"),
    "organ": ("organ", "anatomy"),
    "view": ("view", "bluepoint", "position"),
    "manufacturer": ("manufacturer", "vendor"),
    "licence": ("licence", "license"),
}
# A table that names fewer of its own rows' files than this is a table of something else.
NAMED_SHARE = 0.5
# How names tell the patient, the usual ways first: each is held against the names that were found, and only one that fits them is proposed.
PATIENT_PATTERNS = (
    r"(?P<patient>[^/_]+)_[^/]*$",
    r"(?P<patient>[^/_]+_\d+)_[^/]*$",
    r"(?P<patient>[^/-]+)-[^/]*$",
    r"(?P<patient>[^/-]+-\d+)-[^/]*$",
    r"(?P<patient>[A-Za-z]*\d+)[^/\d][^/]*$",
    r"(?P<patient>[^/]+)/[^/]+$",
    r"^(?P<patient>[^/]+)/",
)
# Shorter values of a patient column stand in many names by chance.
SHORTEST_ID = 2


@dataclass(frozen=True)
class ClipTable:
    """A CSV that names clips.

    Attributes:
        path: In the scanned folder.
        path_column: The column that names them.
        columns: All columns.
        named: The paths of the clips it names.
        rows: By column.
    """

    path: str
    path_column: str
    columns: list[str]
    named: frozenset[str]
    rows: list[dict[str, str]]

    @property
    def guessed(self) -> dict[str, str]:
        """Contract field to the column that seems to hold it."""
        words = {re.sub(r"[^a-z]", "", column.lower()): column for column in reversed(self.columns) if column != self.path_column}
        return {
            field: next(words[word] for word in known if word in words)
            for field, known in COLUMN_WORDS.items()
            if any(word in words for word in known)
        }


def refuse_existing(path: Path) -> None:
    """Refuse to write a recipe over another file.

    Raises:
        UserError: The file exists.
    """
    if path.exists():
        raise UserError(path, "exists already", "remove it, or give another file")


def write_first_recipe(result: ScanResult, path: Path) -> str:
    """Write a recipe for the clips of a scan.

    Args:
        result: The scan.
        path: The YAML file to write.

    Returns:
        What it takes and what to check, in a line.

    Raises:
        UserError: The file exists, or there is no clip to build from.
    """
    refuse_existing(path)
    if not result.clips:
        raise UserError(result.raw, "holds no clip that can be read, so there is nothing to build", "see what was refused: usdata scan")
    tables = clip_tables(result)
    named = {clip for table in tables for clip in table.named}
    left = [clip for clip in result.clips if clip.path not in named]
    names = _Names()
    blocks = [_table_source(table, result, names) for table in tables] + _file_sources(left, result.raw, names)
    name = _word(result.raw.resolve().name)
    head = "# A first recipe, written by 'usdata scan'. Lines marked with (?) are guesses: check them.\n"
    head += f"name: {_quoted(name)}  # (?) the set's; reports and other sets know it by this\n"
    write_text(path, head + "sources:\n" + "\n".join(blocks))
    load_recipe(path)
    said = [f"{len(blocks)} {'source' if len(blocks) == 1 else 'sources'}, {len(result.clips)} clips"]
    if tables:
        said.append("tables " + ", ".join(table.path for table in tables))
    by_header = all(clip.kind == "dicom" for clip in left)
    untold = "labels; patients are those that the DICOM headers name" if by_header else "labels and no patients yet"
    said.append("check the lines marked (?)" if tables else f"no table names the clips, so they have no {untold}")
    return "; ".join(said)


def clip_tables(result: ScanResult) -> list[ClipTable]:
    """The CSV files that name clips; of two that name the same clip only the first one counts."""
    clips = {clip.path for clip in result.clips}
    found: list[ClipTable] = []
    taken: set[str] = set()
    for file in result.files:
        if file.kind != "text" or PurePosixPath(file.path).suffix.lower() not in (".csv", ".txt"):
            continue
        table = _read(result.raw, file.path, clips)
        if table is not None and not table.named & taken:
            found.append(table)
            taken |= table.named
    return found


def _read(raw: Path, path: str, clips: set[str]) -> ClipTable | None:
    folder = PurePosixPath(path).parent
    try:
        text = (raw / path).read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator_of(text))
        rows = [{(key or "").strip(): (value or "").strip() for key, value in row.items() if key is not None} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error):  # a text that is no table tells nothing of clips
        return None
    if not rows:
        return None
    named = {column: [str(folder / row[column]) for row in rows if row.get(column)] for column in rows[0]}
    best = max(named, key=lambda column: len(clips.intersection(named[column])))
    hits = clips.intersection(named[best])
    if len(hits) < NAMED_SHARE * len(rows):
        return None
    return ClipTable(path, best, list(rows[0]), frozenset(hits), rows)


PATIENTS_BY_HEADER = """\
    # Patients are those that the DICOM headers name; keyed hashes take their place, by a secret: docs/guide/privacy.md
    patient_ids: pseudonym"""
# Patients of two sets are one where both the source's name and the id are equal.
ONE_SOURCE = "equal patient ids in sources of one name are one patient, in other sets too"


class _Names:
    """Names of sources, each given once."""

    def __init__(self) -> None:
        self._given: Counter[str] = Counter()

    def fresh(self, name: str) -> str:
        self._given[name] += 1
        return name if self._given[name] == 1 else self.fresh(f"{name}-{self._given[name]}")


def _table_source(table: ClipTable, result: ScanResult, names: _Names) -> str:
    folder = str(PurePosixPath(table.path).parent)
    lines = [
        f"  - name: {_quoted(names.fresh(_source_name(folder, result.raw)))}  # (?) {ONE_SOURCE}",
        "    layout: table",
        f"    root: {_quoted(folder)}",
        f"    table: {_quoted(PurePosixPath(table.path).name)}",
        "    columns:",
        f"      path: {_quoted(table.path_column)}",
    ]
    lines += [f"      {field}: {_quoted(column)}  # (?)" for field, column in table.guessed.items()]
    if "label" not in table.guessed:
        lines.append("      # label: COLUMN")
    if "patient" in table.guessed:
        lines.append(
            "    # Patient ids are replaced by keyed hashes, which needs a secret; 'public' keeps them: only for ids of a published set."
        )
        lines.append("    patient_ids: pseudonym  # (?)")
        column = table.guessed["patient"]
        if any(len(row[column]) >= SHORTEST_ID and row[column].lower() in row[table.path_column].lower() for row in table.rows):
            lines.append("    paths: pseudonym  # (?) for paths hold ids of that column; remove it where the ids are public")
    else:
        lines.append("    # patient: COLUMN        (without it every clip counts as another patient)")
    others = [column for column in table.columns if column not in (table.path_column, *table.guessed.values())]
    if others:
        lines.append("    # other columns: " + safe_text(", ".join(others)))
    return "\n".join([*lines, _SAMPLING])


_SAMPLING = "    sampling: {rule: rate, hz: 3}\n"


def _file_sources(clips: Sequence[ScannedFile], raw: Path, names: _Names) -> list[str]:
    """A source a top folder and unit.

    Numbered images come first, so that they are not taken as stills, and what lies at the top last, so that it does not take the rest.
    """
    by_root: dict[tuple[str, str], list[str]] = defaultdict(list)
    several = len({_top(clip.path) for clip in clips}) > 1
    for clip in clips:
        root = _top(clip.path) if several else "."
        by_root["sequence" if clip.kind == "sequence" else "file", root].append(clip.path)
    headers = {clip.path for clip in clips if clip.kind == "dicom"}
    blocks = []
    for (unit, root), paths in sorted(by_root.items(), key=lambda entry: (entry[0][0] != "sequence", entry[0][1] == ".", entry[0][1])):
        name = names.fresh(_source_name(root, raw) + ("-sequences" if unit == "sequence" else ""))
        lines = [f"  - name: {_quoted(name)}  # (?) {ONE_SOURCE}", "    layout: files", f"    root: {_quoted(root)}", f"    unit: {unit}"]
        below = Counter(str(PurePosixPath(path).relative_to(root).parent) for path in paths)
        if len(below) > 1:
            lines.append("    # If folders tell the label:    pattern: '^(?P<label>[^/]+)/'")
        if headers.issuperset(paths):
            lines.append(PATIENTS_BY_HEADER)
        else:
            lines += _patient_hint([str(PurePosixPath(path).relative_to(root)) for path in paths])
        blocks.append("\n".join([*lines, _SAMPLING]))
    return blocks


def _patient_hint(paths: Sequence[str]) -> list[str]:
    """Comments on how the patient may be told from the names; a pattern only where it fits these, and with what it would give."""
    lines = ["    # As it stands every clip counts as another patient."]
    for pattern in PATIENT_PATTERNS:
        found = [match["patient"] for path in paths if (match := re.search(pattern, path))]
        if len(found) == len(paths) and 1 < len(set(found)) < len(paths):
            lines += [
                f"    # If names tell the patient (this pattern finds {len(set(found))} in {len(paths)} clips; check it):",
                f"    # pattern: {_quoted(pattern)}",
                "    # paths: pseudonym    # hides such names; needed where the ids are private (patient_ids: public says they are not)",
            ]
            return lines
    lines.append("    # If names tell the patient, give a pattern with (?P<patient>...): docs/guide/your-own-clips.md")
    return lines


def _top(path: str) -> str:
    parts = PurePosixPath(path).parts
    return parts[0] if len(parts) > 1 else "."


def _source_name(folder: str, raw: Path) -> str:
    return _word(raw.resolve().name if folder == "." else folder)


def _word(text: str) -> str:
    """A text as a name that a recipe takes."""
    word = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-.")
    return word if SOURCE_NAME.fullmatch(word) else "clips"


def _quoted(text: str) -> str:
    """A text as a YAML scalar, whatever it holds."""
    if not text.isprintable():
        return json.dumps(text)
    return "'" + text.replace("'", "''") + "'"
