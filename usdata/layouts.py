"""How a source names its clips, patients and labels on disk: raw folder and recipe in, one row per file or clip out.

Two general layouts: `table` (a CSV names the clips and what is known of them) and `files` (every media file, or folder of images, is a
clip; facts come from a regular expression over its path). Every file under RAW ends in exactly one row: a clip to be read, or one that is
excluded or failed with its reason.
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from usdata.duplicates.groups import group_ids
from usdata.errors import RecipeError, UserError, nearest
from usdata.files import sha256_text
from usdata.privacy import pseudonym, read_secret
from usdata.readers.identify import KNOWN_BUT_UNREAD, STILL_KINDS, VIDEO_KINDS, identify
from usdata.recipe import Recipe, Source

UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9._+-]")
MAXIMUM_NAME_LENGTH = 120
PUBLIC_FACTS = ("organ", "probe", "view", "manufacturer", "licence", "label")


@dataclass(frozen=True)
class RawVideo:
    """A clip as the raw folder and the recipe tell of it, before it is decoded.

    Attributes:
        video_id: `<source>/<name>`.
        path: File or folder of images, relative to RAW, with forward slashes.
        keys: What it shares with clips that must stay in one group ('patient:12', 'group:ward_3').
        facts: organ, probe, view, manufacturer, licence, label, mm_per_pixel_x, mm_per_pixel_y; absent if unknown.
        status: ok (to be read), excluded or failed.
        reason: Why it is not to be read.
    """

    video_id: str
    source: str
    path: str
    patient_id: str | None = None
    keys: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    status: str = "ok"
    reason: str | None = None


def list_videos(recipe: Recipe, raw: Path) -> list[RawVideo]:
    """Every file or clip under RAW, sorted by video_id.

    Raises:
        UserError: RAW is missing or empty, a table is missing or lacks a column, a label is not in the label map, two clips would have one
            name, or patient ids are private and there is no secret.
    """
    if not raw.is_dir():
        raise UserError(raw, "no such folder of raw clips", "give the folder that holds them with --raw")
    files = sorted(_walk(raw))
    if not files:
        raise UserError(raw, "the folder of raw clips is empty", "put the clips there, or give another folder with --raw")
    rows: list[RawVideo] = []
    claimed: set[str] = set()
    for source in recipe.sources:
        root = PurePosixPath(source.root)
        if not (raw / root).is_dir():
            raise UserError(raw / root, f"the folder of source '{source.name}' is missing", "place it there, or change the source's 'root'")
        found = _from_table(source, raw, files) if source.layout == "table" else _from_files(source, raw, files, claimed)
        for row, members in found:
            if twice := claimed.intersection(members):
                raise RecipeError(sorted(twice)[0], "is claimed twice by the recipe's sources", "give each source its own root")
            claimed.update(members)
            rows.append(row)
    first = recipe.sources[0].name
    tables = {str(PurePosixPath(source.root) / source.table): source.name for source in recipe.sources if source.table}
    for path in files:
        if path not in claimed:
            reason = f"the table of source '{tables[path]}'" if path in tables else _why_not_a_clip(raw / path)
            rows.append(RawVideo(f"{first}/{_safe_name(path)}", first, path, status="excluded", reason=reason))
    _check_unique(rows)
    return sorted(rows, key=lambda row: (row.source, row.video_id))


def assign_groups(rows: Iterable[RawVideo], duplicates: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """group_id of every row: shared patients, shared group keys and confirmed duplicates joined."""
    return group_ids({row.video_id: row.keys for row in rows}, duplicates)


def _walk(raw: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(raw):
        folders.sort()
        for name in names:
            yield (Path(folder) / name).relative_to(raw).as_posix()


def _from_table(source: Source, raw: Path, files: list[str]) -> Iterator[tuple[RawVideo, list[str]]]:
    assert source.table is not None
    table = raw / source.root / source.table
    existing = set(files)
    for line, values in _read_table(source, table):
        given = values[source.columns["path"]]
        if not given:
            raise UserError(table, f"line {line} has no path", "fill the column or remove the line")
        where = PurePosixPath(source.root) / PurePosixPath(source.table).parent / given
        if PurePosixPath(given).is_absolute() or ".." in where.parts:
            raise UserError(table, f"line {line} names a path outside the raw folder", "give paths relative to the table")
        path = str(where)
        facts: dict[str, str] = dict(source.constants.items())
        facts |= {key: values[column] for key, column in source.columns.items() if values[column]}
        facts["path"] = given
        row = _row(source, path, str(PurePosixPath(given)), facts, values)
        members = [path] if path in existing else [file for file in files if file.startswith(path + "/")]
        if not members and row.status == "ok":
            row = replace(row, status="failed", reason=f"listed in {source.table} (line {line}), but not there")
        yield row, members


def _read_table(source: Source, table: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            table, f"the table of source '{source.name}' cannot be read ({error.strerror})", "place it there, or change 'table'"
        ) from None
    except UnicodeDecodeError:
        raise UserError(table, "the table is not UTF-8 text", "save it as UTF-8 CSV") from None
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        columns = list(reader.fieldnames or [])
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


def _from_files(source: Source, raw: Path, files: list[str], claimed: set[str]) -> Iterator[tuple[RawVideo, list[str]]]:
    prefix = "" if source.root == "." else str(PurePosixPath(source.root)) + "/"
    below = [path for path in files if path.startswith(prefix) and path not in claimed]
    clips: dict[str, list[str]] = defaultdict(list)
    for path in below:
        kind = identify(raw / path)
        if source.unit == "file" and (kind in VIDEO_KINDS or kind in STILL_KINDS or kind in KNOWN_BUT_UNREAD or kind == "empty"):
            clips[path].append(path)
        elif source.unit == "folder" and kind in STILL_KINDS:
            clips[str(PurePosixPath(path).parent)].append(path)
    for path, members in sorted(clips.items()):
        inside = path.removeprefix(prefix)
        match = re.search(source.pattern, inside) if source.pattern else None
        found = {key: value for key, value in match.groupdict().items() if value} if match else {}
        facts: dict[str, str] = dict(source.constants.items())
        facts |= found
        row = _row(source, path, inside, facts, facts)
        if source.pattern and match is None and row.status == "ok":
            row = replace(row, status="excluded", reason="its path does not match the source's pattern")
        yield row, members


def _row(source: Source, path: str, inside: str, facts: Mapping[str, str], values: Mapping[str, str]) -> RawVideo:
    """One clip's row: facts checked and renamed, private ids replaced, exclusion rules applied."""
    name = facts.get("name") or (PurePosixPath(inside).name if source.names == "stem" else inside)
    patient, group = facts.get("patient"), facts.get("group")
    if source.patient_ids == "pseudonym":
        patient = _private(patient, path, source, "patient")
        group = _private(group, path, source, "group")
    label = facts.get("label")
    if label is not None and source.label_map is not None:
        if label not in source.label_map:
            raise RecipeError(
                f"label '{label}'", f"of {path} is not in the label_map of source '{source.name}'", nearest(label, source.label_map)
            )
        label = source.label_map[label]
    known = {key: facts[key] for key in (*PUBLIC_FACTS, "mm_per_pixel_x", "mm_per_pixel_y") if facts.get(key)}
    known.pop("label", None)
    if label is not None:
        known["label"] = label
    for key in ("mm_per_pixel_x", "mm_per_pixel_y"):
        if key in known:
            _check_spacing(known[key], key, path)
    row = RawVideo(
        video_id=f"{source.name}/{_safe_name(name)}",
        source=source.name,
        path=path,
        patient_id=patient,
        keys=tuple(f"{kind}:{value}" for kind, value in (("patient", patient), ("group", group)) if value),
        facts=known,
        labels=tuple(f"{column}={values[column]}" for column in source.label_columns if values.get(column)),
    )
    for rule in source.exclude:
        for column in rule.where:
            if column not in values and column not in VIDEO_FACTS:
                raise RecipeError(
                    f"exclude.where.{column}", f"is no column of source '{source.name}'", nearest(column, {*values, *VIDEO_FACTS})
                )
        wanted = {key: [value] if isinstance(value, str) else value for key, value in rule.where.items()}
        if all((values.get(key) if key in values else facts.get(key, "")) in accepted for key, accepted in wanted.items()):
            return replace(row, status="excluded", reason=rule.reason)
    return row


VIDEO_FACTS = ("path", "name", "patient", "group", *PUBLIC_FACTS, "mm_per_pixel_x", "mm_per_pixel_y")


def _private(identifier: str | None, path: str, source: Source, kind: str) -> str | None:
    if identifier is None:
        return None
    # A pseudonym protects nobody while the path beside it in the manifest spells the identifier out.
    if len(identifier) > 2 and identifier.casefold() in path.casefold():
        advice = "rename the files, or set 'patient_ids: public' if these ids may be published"
        raise UserError(path, f"the path holds the {kind}'s private id", advice)
    return pseudonym(identifier, secret=read_secret(), name_space=f"{source.name}/{kind}")


def _check_spacing(text: str, key: str, path: str) -> None:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1000:
        raise UserError(path, f"{key} '{text}' is no spacing in millimetres", "mend the value in the table")


def _safe_name(name: str) -> str:
    """A path or name as one folder name: letters, digits, '._+-'; what had to be changed is told apart by a digest's end."""
    path = PurePosixPath(name)
    stem = "__".join([*path.parts[:-1], path.stem])
    plain = f"{stem}_{path.suffix[1:]}" if path.suffix else stem
    safe = UNSAFE_IN_NAMES.sub("-", plain)[:MAXIMUM_NAME_LENGTH]
    if safe != plain or safe.startswith("."):
        safe = f"{safe.lstrip('.')}-{sha256_text(name)[:8]}"
    return safe


def _why_not_a_clip(path: Path) -> str:
    kind = identify(path)
    if kind in VIDEO_KINDS or kind in STILL_KINDS or kind in KNOWN_BUT_UNREAD:
        return "no source of the recipe names it"
    return f"not ultrasound media ({kind})"


def _check_unique(rows: Iterable[RawVideo]) -> None:
    by_id: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_id[row.video_id.casefold()].append(row.path)
    for video_id, paths in sorted(by_id.items()):
        if len(paths) > 1:
            raise RecipeError(
                paths[1], f"would have the same video_id ('{video_id}') as {paths[0]}", "set 'names: path' for the source, or rename one"
            )
