"""One clip's row: its facts checked and renamed, private ids replaced, exclusion rules applied, its name made safe and unique."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from usdata.errors import ReadError, RecipeError, UserError, nearest
from usdata.files import sha256_text
from usdata.privacy.identifiers import Identifiers, looks_private
from usdata.privacy.pseudonyms import pseudonym, read_secret
from usdata.readers.archives import head_as_file
from usdata.recipe import Recipe, Source

UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9._+-]")
MAXIMUM_NAME_LENGTH = 120
PUBLIC_FACTS = ("organ", "probe", "view", "manufacturer", "licence", "label")
VIDEO_FACTS = ("path", "name", "patient", "group", *PUBLIC_FACTS, "mm_per_pixel_x", "mm_per_pixel_y")


@dataclass(frozen=True)
class RawVideo:
    """A clip as the raw folder and the recipe tell of it, before it is decoded.

    Attributes:
        name: With the source the video_id: `<source>/<name>`.
        path: File or folder of images, relative to RAW, with forward slashes.
        keys: What it shares with clips that must stay in one group ('patient:12', 'group:ward_3').
        facts: organ, probe, view, manufacturer, licence, label, mm_per_pixel_x, mm_per_pixel_y; absent if unknown.
        told: What its header tells beside: patient_sex, patient_age, study_year, depth_mm, probe; absent if unknown.
        shown: The path that leaves in place of `path`; None: `path` itself.
        burned_in: Its header says that a person's data stand in the pixels.
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
    told: Mapping[str, str] = field(default_factory=dict)
    shown: str | None = None
    burned_in: bool = False

    @property
    def video_id(self) -> str:
        """`<source>/<name>`."""
        return f"{self.source}/{self.name}"

    @property
    def public_path(self) -> str:
        """The path as it leaves."""
        return self.path if self.shown is None else self.shown


def inside_root(path: str, source: Source) -> str:
    """A path relative to its source's root."""
    return path if source.root == "." else path.removeprefix(f"{PurePosixPath(source.root)}/")


def is_aside(path: str, source: Source) -> str | None:
    """The reason that the source itself gives for a file that is no clip; None for all others."""
    inside = inside_root(path, source)
    return next((aside.reason for aside in source.asides if re.search(aside.pattern, inside)), None)


def facts_of_path(inside: str, source: Source) -> dict[str, str] | None:
    """What a clip's path tells by the source's pattern; None where it does not match, nothing where there is no pattern."""
    if source.pattern is None:
        return {}
    match = re.search(source.pattern, inside)
    return None if match is None else {key: value for key, value in match.groupdict().items() if value}


def row_of(source: Source, path: str, inside: str, facts: Mapping[str, str], values: Mapping[str, str], private: PrivateIds) -> RawVideo:
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
        name=safe_name(name),
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


def _check_spacing(text: str, key: str, path: str) -> None:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1000:
        raise UserError(path, f"{key} '{text}' is no spacing in millimetres", "mend the value in the table")


class PrivateIds:
    """Private identifiers met in tables, paths and headers: each is replaced by its pseudonym and remembered, so that it is found where it
    leaks.

    Attributes:
        identifiers: Those met.
    """

    def __init__(self) -> None:
        self.identifiers = Identifiers()
        self._secret: bytes | None = None

    def replaced(self, identifier: str | None, source: Source, kind: str) -> str | None:
        """The pseudonym of an identifier; null stays null."""
        if identifier is None:
            return None
        self.identifiers.add_id(identifier)
        return self.pseudonym(identifier, f"{source.name}/{kind}")

    def pseudonym(self, text: str, name_space: str) -> str:
        """A text's pseudonym, under the secret that is read when it is first needed."""
        if self._secret is None:
            self._secret = read_secret()
        return pseudonym(text, secret=self._secret, name_space=name_space)

    @property
    def mark(self) -> str | None:
        """Tells one secret from another, and nothing else; None where none was needed."""
        return None if self._secret is None else self.pseudonym("", "usdata/secret")


def with_header(row: RawVideo, raw: Path, source: Source, private: PrivateIds) -> RawVideo:
    """A DICOM clip's row with what its header tells: patient and study, and the facts that may leave.

    A header that cannot be understood fails the clip: nobody knows whose it is.
    """
    from usdata.privacy.dicom_header import person_of  # pydicom takes a while to import
    from usdata.readers.dicom import header_of

    known = private.identifiers if source.patient_ids == "pseudonym" else Identifiers()
    try:
        with head_as_file(raw / row.path) as file:
            person = person_of(file, header_of(file), known)
    except (OSError, ReadError) as error:
        words = error.reason if isinstance(error, ReadError) else f"cannot be read ({error.strerror})"
        return replace(row, status="failed", reason=words)
    patient, study = person.patient, person.study
    if source.patient_ids == "pseudonym":
        patient, study = private.replaced(patient, source, "patient"), private.replaced(study, source, "study")
    keys = [*row.keys]
    if row.patient_id is None and patient is not None:
        keys.append(f"patient:{patient}")
    if study is not None:
        keys.append(f"study:{study}")
    return replace(row, patient_id=row.patient_id or patient, keys=tuple(keys), told=person.facts, burned_in=person.burned_in)


def with_hidden_path(row: RawVideo, private: PrivateIds) -> RawVideo:
    """A row whose path and name leave as a pseudonym; the suffix stays, and says what kind of file it is."""
    hidden = private.pseudonym(row.path, f"{row.source}/path")
    suffix = PurePosixPath(row.path).suffix
    return replace(row, name=hidden, shown=hidden + (suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,5}", suffix) else ""))


def refuse_private(private: PrivateIds, rows: Collection[RawVideo], recipe: Recipe) -> None:
    """Refuse when a private id stands in anything that leaves: a pseudonym protects nobody beside the id itself.

    In a release, paths of private sources are refused by their looks too: nobody has told the names of the patients of a video file.
    """
    identifiers = private.identifiers
    of_private = {source.name for source in recipe.sources if source.patient_ids == "pseudonym"}
    advice = "set 'paths: pseudonym' for the source, rename it, or set 'patient_ids: public' if these ids may be published"
    for row in rows:
        if row.shown is None and identifiers and (identifiers.in_path(row.path) or identifiers.in_path(row.name)):
            raise UserError(row.path, "the path or name holds a private id of the table or of a header", advice)
        if row.shown is None and recipe.release and row.source in of_private and (looks := looks_private(row.path)):
            raise UserError(row.path, f"the path holds {looks}, and this is a release", advice)
        leaving = [*row.labels, *row.facts.values()]
        if identifiers and (found := next((text for text in leaving if identifiers.in_text(text)), None)):
            raise UserError(row.path, f"'{found.split('=')[0]}' holds a private id of the table or of a header", advice)
    if identifiers and identifiers.in_text(_leaving_of(recipe, {row.video_id for row in rows})):
        raise UserError(recipe.name, "the recipe holds a private id, which dataset.json would show", "exclude clips by another column")


def _leaving_of(recipe: Recipe, clips: Collection[str]) -> str:
    """What of a recipe might hold an identifier: all but geometries, which are numbers, and the clips' own names, which were looked at."""
    told = recipe.model_dump(mode="json")
    shapes, answers = told["field_of_view"].pop("overrides"), told.pop("review")
    unknown = [video_id for video_id in (*shapes, *answers) if video_id not in clips]
    return json.dumps([told, unknown, [answer["reviewer"] for answer in answers.values()]])


def safe_name(name: str) -> str:
    """A path or name as one folder name: letters, digits, '._+-'; what had to be changed is told apart by a digest's end."""
    path = PurePosixPath(name)
    stem = "__".join([*path.parts[:-1], path.stem])
    plain = f"{stem}_{path.suffix[1:]}" if path.suffix else stem
    safe = UNSAFE_IN_NAMES.sub("-", plain)[:MAXIMUM_NAME_LENGTH]
    if safe != plain or safe.startswith("."):
        safe = f"{safe.lstrip('.')}-{sha256_text(name)[:8]}"
    return safe


def named_apart(rows: Sequence[RawVideo], strays: Sequence[RawVideo]) -> list[RawVideo]:
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
        apart = row.shown is not None or count[row.video_id.casefold()] == 1
        result.append(row if apart else replace(row, name=f"{row.name}-{sha256_text(row.path)[:8]}"))
    return result
