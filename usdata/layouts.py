"""How a source names its clips, patients and labels on disk: raw folder and recipe in, one row per file or clip out.

Two general layouts: `table` (a CSV names the clips and what is known of them) and `files` (every media file, or folder of images, is a
clip; facts come from a regular expression over its path). Every file under RAW ends in exactly one row: a clip to be read, or one that is
excluded or failed with its reason.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from usdata.duplicates.groups import group_ids
from usdata.errors import ReadError, RecipeError, UserError, nearest
from usdata.files import sha256_text
from usdata.privacy import pseudonym, read_secret
from usdata.readers import data_files
from usdata.readers.archives import head_as_file, list_members
from usdata.readers.identify import ARCHIVE_KINDS, CLIP_KINDS, KNOWN_BUT_UNREAD, STILL_KINDS, identify
from usdata.readers.naming import find_sequences
from usdata.recipe import Recipe, Source

UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9._+-]")
MAXIMUM_NAME_LENGTH = 120
PUBLIC_FACTS = ("organ", "probe", "view", "manufacturer", "licence", "label")


@dataclass(frozen=True)
class RawVideo:
    """A clip as the raw folder and the recipe tell of it, before it is decoded.

    Attributes:
        name: With the source the video_id: `<source>/<name>`.
        path: File or folder of images, relative to RAW, with forward slashes.
        keys: What it shares with clips that must stay in one group ('patient:12', 'group:ward_3').
        facts: organ, probe, view, manufacturer, licence, label, mm_per_pixel_x, mm_per_pixel_y; absent if unknown.
        members: The files that it is made of, relative to RAW; empty where there is nothing to read.
        status: ok (to be read), excluded or failed.
        reason: Why it is not to be read.
    """

    source: str
    path: str
    name: str
    members: tuple[str, ...] = ()
    patient_id: str | None = None
    keys: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    status: str = "ok"
    reason: str | None = None

    @property
    def video_id(self) -> str:
        """`<source>/<name>`."""
        return f"{self.source}/{self.name}"


def list_videos(recipe: Recipe, raw: Path) -> list[RawVideo]:
    """Every file or clip under RAW, sorted by video_id.

    Raises:
        UserError: RAW is missing or empty, a table is missing or lacks a column, a label is not in the label map, two clips would have one
            name, or ids are private and there is no secret, or one of them stands in something that would leave.
    """
    if not raw.is_dir():
        raise UserError(raw, "no such folder of raw clips", "give the folder that holds them with --raw")
    kinds = RawFiles(raw)
    files = kinds.paths
    if not files and not kinds.odd:
        raise UserError(raw, "the folder of raw clips is empty", "put the clips there, or give another folder with --raw")
    rows: list[RawVideo] = []
    claimed: set[str] = set()
    private = _PrivateIds()
    for source in recipe.sources:
        if not (raw / source.root).is_dir() and not any(path.startswith(f"{PurePosixPath(source.root)}/") for path in files):
            raise UserError(raw / source.root, f"the folder of source '{source.name}' is missing", "place it there, or change its 'root'")
        if source.layout == "table":
            found = _from_table(source, raw, files, kinds, private)
        else:
            found = _from_files(source, [path for path in files if path not in claimed], kinds, private)
        for row in found:
            if twice := claimed.intersection(row.members):
                raise RecipeError(sorted(twice)[0], "is named twice, by two rows or two sources", "name each clip once")
            claimed.update(row.members)
            rows.append(row)
    tables = {str(PurePosixPath(source.root) / source.table): source.name for source in recipe.sources if source.table}
    strays = []
    known = set(files)
    for path in sorted({*files, *kinds.odd} - claimed):
        reason = f"the table of source '{tables[path]}'" if path in tables else kinds.why_not_a_clip(path)
        status = "failed" if path in kinds.unreadable else "excluded"
        members = (path,) if path in known else ()
        strays.append(RawVideo(_source_of(path, recipe), path, _safe_name(path), members=members, status=status, reason=reason))
    rows = _named_apart(rows, strays)
    _refuse_private(private.seen, rows, recipe)
    return sorted(rows, key=lambda row: (row.source, row.video_id))


def assign_groups(rows: Iterable[RawVideo], duplicates: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """group_id of every row: shared patients, shared group keys and confirmed duplicates joined."""
    return group_ids({row.video_id: row.keys for row in rows}, duplicates)


def _walk(raw: Path) -> tuple[list[str], dict[str, str]]:
    """The regular files under a folder in order, and everything else there with the reason why it is not read."""
    files: list[str] = []
    odd: dict[str, str] = {}

    def note(error: OSError) -> None:
        odd[Path(error.filename).relative_to(raw).as_posix()] = f"the folder cannot be listed ({error.strerror})"

    for folder, folders, names in os.walk(raw, onerror=note):
        for name in sorted([*folders, *names]):
            path = Path(folder) / name
            inside = path.relative_to(raw).as_posix()
            try:
                inside.encode("utf-8")
            except UnicodeEncodeError:
                # No text column can hold such a name, so the row says where it is as nearly as text can.
                odd[os.fsencode(inside).decode("utf-8", "replace")] = "its name is not UTF-8: rename it"
                folders[:] = [folder for folder in folders if folder != name]
                continue
            if name in folders:
                if path.is_symlink():
                    odd[inside] = "a link to a folder, which is not followed: put the folder itself under the raw folder"
            elif path.is_file():
                files.append(inside)
            else:
                odd[inside] = "a broken link" if path.is_symlink() else "neither a file nor a folder"
    return sorted(files), odd


class RawFiles:
    """The files under RAW (or one of them alone) and in its archives, and what each is by its content.

    Attributes:
        paths: Relative to RAW, sorted. A zip or tar stands for the folder that it holds: `clips.zip/patient 1/a.dcm`.
        odd: What cannot be read as a file or looked into, with the reason.
        unreadable: Those among `paths` and `odd` that are there and failed, with the reason.
        archives: The archives that were looked into.
    """

    def __init__(self, raw: Path, *, only: str | None = None) -> None:
        self._raw = raw
        self._kinds: dict[str, str] = {}
        self.unreadable: dict[str, str] = {}
        self.archives: set[str] = set()
        files, self.odd = _walk(raw) if only is None else ([only], {})
        inside = []
        for path in files:
            if self[path] in ARCHIVE_KINDS:
                inside += self._looked_into(path)
        # An archive is accounted for by its members, a broken one by itself.
        self.paths = sorted({path for path in files if path not in self.archives and path not in self.odd} | set(inside))

    def _looked_into(self, archive: str) -> list[str]:
        try:
            members = list_members(self._raw / archive)
        except ReadError as error:
            self.odd[archive] = self.unreadable[archive] = error.reason
            return []
        self.archives.add(archive)
        found = []
        for member in members:
            path = f"{archive}/{member.name}"
            if member.reason is None:
                self._kinds[path] = member.kind
                found.append(path)
            else:
                self.odd[path] = self.unreadable[path] = member.reason
        return found

    def __getitem__(self, path: str) -> str:
        if path not in self._kinds:
            try:
                self._kinds[path] = identify(self._raw / path)
            except OSError as error:
                self._kinds[path] = "unreadable"
                self.unreadable[path] = f"cannot be read ({error.strerror})"
        return self._kinds[path]

    def is_clip(self, path: str) -> bool:
        """A clip, or what claims to be one: reading it will tell."""
        return self[path] in CLIP_KINDS or self[path] in KNOWN_BUT_UNREAD or self[path] == "empty"

    def companions(self, path: str) -> tuple[str, ...]:
        """The files that a header file refers to, those that are there: reading it will say what is missing."""
        if self[path] not in ("metaimage", "nrrd"):
            return ()
        folder = PurePosixPath(path).parent
        try:
            with head_as_file(self._raw / path) as file:
                named = [str(folder / name) for name in data_files(file)]
        except ReadError:  # the clip's own row will give the reason
            return ()
        return tuple(name for name in named if name != path and name in self._present)

    @cached_property
    def sequences(self) -> dict[str, tuple[str, ...]]:
        """Numbered images of one folder: `scan/left_#.png` to the images in order."""
        stills = [path for path in self.paths if self[path] in STILL_KINDS]
        return {pattern: tuple(images) for pattern, images in find_sequences(stills).items()}

    @cached_property
    def _present(self) -> frozenset[str]:
        return frozenset(self.paths)

    def why_not_a_clip(self, path: str) -> str:
        """The reason for a row that no source names."""
        if path in self.odd:
            return self.odd[path]
        if self.is_clip(path):
            return "no source of the recipe names it"
        if path in self.unreadable:
            return self.unreadable[path]
        if self[path] in ARCHIVE_KINDS:
            return "an archive within an archive, which is not unpacked"
        return f"not ultrasound media ({self[path]})"


def _images_in(folder: str, files: Iterable[str], kinds: RawFiles) -> tuple[str, ...]:
    """The images that a folder clip is made of: those directly in it, hidden ones left out, as the reader takes them."""
    inside = [path for path in files if str(PurePosixPath(path).parent) == folder and not PurePosixPath(path).name.startswith(".")]
    return tuple(path for path in inside if kinds[path] in STILL_KINDS)


def _source_of(path: str, recipe: Recipe) -> str:
    """The source whose root holds a path, the deepest root first; the first source for what lies outside all."""
    roots = [(PurePosixPath(source.root), source.name) for source in recipe.sources]
    around = [(len(root.parts), name) for root, name in roots if PurePosixPath(path).is_relative_to(root) or str(root) == "."]
    return max(around, key=lambda entry: entry[0])[1] if around else recipe.sources[0].name


def _from_table(source: Source, raw: Path, files: list[str], kinds: RawFiles, private: _PrivateIds) -> Iterator[RawVideo]:
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
        row = _row(source, path, str(PurePosixPath(given)), facts, values, private)
        if path in kinds.archives and len(clips := [each for each in files if each.startswith(f"{path}/") and kinds.is_clip(each)]) == 1:
            path = clips[0]  # an archive of one clip is as good a name for it
            row = replace(row, path=path)
        if path in existing:
            members: tuple[str, ...] = (path, *kinds.companions(path))
        else:
            members = _images_in(path, files, kinds) or kinds.sequences.get(path, ())
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


def _from_files(source: Source, files: list[str], kinds: RawFiles, private: _PrivateIds) -> Iterator[RawVideo]:
    prefix = "" if source.root == "." else str(PurePosixPath(source.root)) + "/"
    below = [path for path in files if path.startswith(prefix)]
    if source.unit == "sequence":
        of_these = set(below)
        clips = {pattern: images for pattern, images in kinds.sequences.items() if of_these.issuperset(images)}
    elif source.unit == "file":
        clips = {path: (path, *kinds.companions(path)) for path in below if kinds.is_clip(path)}
        data = {companion for members in clips.values() for companion in members[1:]}
        clips = {path: members for path, members in clips.items() if path not in data}
    else:
        folders = sorted({str(PurePosixPath(path).parent) for path in below})
        clips = {folder: images for folder in folders if (images := _images_in(folder, below, kinds))}
    for path, members in clips.items():
        inside = path.removeprefix(prefix)
        if path in (".", prefix.rstrip("/")):
            inside = source.name  # the images lie in the source's own folder
        match = re.search(source.pattern, inside) if source.pattern else None
        facts: dict[str, str] = dict(source.constants.items())
        facts |= {key: value for key, value in match.groupdict().items() if value} if match else {}
        row = replace(_row(source, path, inside, facts, facts, private), members=members)
        if source.pattern and match is None and row.status == "ok":
            row = replace(row, status="excluded", reason="its path does not match the source's pattern")
        yield row


def _row(source: Source, path: str, inside: str, facts: Mapping[str, str], values: Mapping[str, str], private: _PrivateIds) -> RawVideo:
    """One clip's row: facts checked and renamed, private ids replaced, exclusion rules applied."""
    name = facts.get("name") or (PurePosixPath(inside).name if source.names == "stem" else inside)
    patient, group = facts.get("patient"), facts.get("group")
    if source.patient_ids == "pseudonym":
        patient = private.replaced(patient, source, "patient")
        group = private.replaced(group, source, "group")
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
        source=source.name,
        path=path,
        name=_safe_name(name),
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


class _PrivateIds:
    """Private identifiers met in tables and paths: each is replaced by its pseudonym and remembered, so that it is found where it leaks."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._secret: bytes | None = None

    def replaced(self, identifier: str | None, source: Source, kind: str) -> str | None:
        """The pseudonym of an identifier; null stays null."""
        if identifier is None:
            return None
        if self._secret is None:
            self._secret = read_secret()
        self.seen.add(identifier)
        return pseudonym(identifier, secret=self._secret, name_space=f"{source.name}/{kind}")


def _refuse_private(private: set[str], rows: Iterable[RawVideo], recipe: Recipe) -> None:
    """Refuse when a private id stands in anything that leaves: a pseudonym protects nobody beside the id itself.

    An id of three characters and more counts anywhere in a path, name, label or fact; a shorter one, which occurs by chance, only in
    paths and names and only between characters that are no letters or digits.
    """
    if not private:
        return
    longer = [re.escape(identifier) for identifier in private if len(identifier) > 2]
    shorter = [rf"(?<![^\W_]){re.escape(identifier)}(?![^\W_])" for identifier in private if len(identifier) <= 2]
    anywhere = re.compile("|".join(sorted(longer)), re.IGNORECASE) if longer else None
    in_paths = re.compile("|".join(sorted([*longer, *shorter])), re.IGNORECASE)
    advice = "rename it or leave it out, or set 'patient_ids: public' if these ids may be published"
    for row in rows:
        if in_paths.search(row.path) or in_paths.search(row.name):
            raise UserError(row.path, "the path or name holds a private id of the table", advice)
        leaving = [*row.labels, *row.facts.values()]
        if anywhere is not None and (found := next((text for text in leaving if anywhere.search(text)), None)):
            raise UserError(row.path, f"'{found.split('=')[0]}' holds a private id of the table", advice)
    if anywhere is not None and anywhere.search(recipe.model_dump_json()):
        raise UserError(recipe.name, "the recipe holds a private id, which dataset.json would show", "exclude clips by another column")


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


def _named_apart(rows: Sequence[RawVideo], strays: Sequence[RawVideo]) -> list[RawVideo]:
    """All rows with names that stay apart also where upper and lower case are one.

    A clip's name is the recipe's to choose, so two equal ones are an error; what no source names gives way.
    """
    taken: dict[str, RawVideo] = {}
    result = []
    for row in rows:
        if (other := taken.get(row.video_id)) is not None:
            advice = "set 'names: path' for the source" if row.path != other.path else "name each clip once"
            raise RecipeError(row.path, f"would have the same video_id ('{row.video_id}') as {other.path}", advice)
        taken[row.video_id] = row
    of_rows = Counter(row.video_id.casefold() for row in rows)
    of_all = of_rows + Counter(row.video_id.casefold() for row in strays)
    for row, count in [(row, of_rows) for row in rows] + [(row, of_all) for row in strays]:
        apart = count[row.video_id.casefold()] == 1
        result.append(row if apart else replace(row, name=f"{row.name}-{sha256_text(row.path)[:8]}"))
    return result
