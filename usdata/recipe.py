"""The recipe of a data set: what to build from which raw files, as one YAML file, typed and validated.

A recipe is found by name among those shipped (`manifests/*.yaml`) or by its path. A key that is not known is an error that names the
nearest right one. The resolved recipe, defaults filled in, has one canonical JSON text; its sha256 is the recipe's digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from usdata.errors import RecipeError, nearest
from usdata.files import canonical_json, sha256_text
from usdata.sampling import SamplingRule

SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

VideoField = Literal[
    "path", "name", "patient", "group", "label", "organ", "probe", "view", "manufacturer", "licence", "mm_per_pixel_x", "mm_per_pixel_y"
]  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ExcludeRule(_Section):
    """Clips to leave out, with the reason that their rows will give."""

    where: dict[str, list[str] | str] = Field(min_length=1)
    """Column of the table (or a contract field) to one value or a list of values; all entries must match."""
    reason: str = Field(min_length=1)
    """Why; it stands in the clip's row of videos.parquet."""


class Expected(_Section):
    """What a whole copy of a source gives; what is found is compared with it and told, never forced."""

    videos: int | None = Field(default=None, ge=0)
    """Clips that are kept."""
    frames: int | None = Field(default=None, ge=0)
    """Frames that are kept."""


class Source(_Section):
    """Where clips of one source lie and what is known of them."""

    name: str
    """Letters, digits and '._+-'; the first part of every video_id."""
    layout: Literal["table", "files"] = "table"
    """table: a CSV names the clips; files: every media file (or folder of images) below the root is a clip."""
    root: str = "."
    """Folder below RAW that holds this source."""
    table: str | None = None
    """The CSV, relative to the root (layout: table)."""
    columns: dict[VideoField, str] = Field(default_factory=dict)
    """Which column of the table holds which fact; `path` is needed (layout: table)."""
    label_columns: list[str] = Field(default_factory=list)
    """Further columns whose values are kept in `labels` as 'column=value'."""
    pattern: str | None = None
    """Regular expression searched in each clip's path below the root; named groups give facts (layout: files)."""
    unit: Literal["file", "folder", "sequence"] = "file"
    """What a clip is (layout: files): a file; a folder of images; or a sequence, the images of a folder that differ in one number alone."""
    constants: dict[VideoField, str] = Field(default_factory=dict)
    """Facts that hold for every clip of the source."""
    label_map: dict[str, str | None] | None = None
    """Label as given to label as wanted; null makes a clip unlabelled; a label that is not listed is an error."""
    names: Literal["path", "stem"] = "path"
    """A clip's name: its whole path below the root, or the file's stem alone (then stems must not repeat)."""
    patient_ids: Literal["pseudonym", "public"] = "pseudonym"
    """pseudonym: ids are replaced by keyed hashes and need a secret; public: they are a published set's own and stay."""
    sampling: SamplingRule = SamplingRule(rule="rate", hz=3.0)
    """Which of a clip's unique frames are kept."""
    exclude: list[ExcludeRule] = Field(default_factory=list)
    """Clips to leave out, each with a reason."""
    expected: Expected = Expected()
    """What a whole copy gives; a build says where it finds otherwise."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not SOURCE_NAME.fullmatch(self.name):
            raise ValueError(f"name '{self.name}' may hold letters, digits and '._+-' only")
        if self.layout == "table" and (self.table is None or "path" not in self.columns):
            raise ValueError("layout 'table' needs 'table' (the CSV) and 'columns.path'")
        if self.layout == "files" and (self.table is not None or self.columns):
            raise ValueError("layout 'files' takes no 'table' and no 'columns'; give facts by 'pattern' and 'constants'")
        if "path" in self.constants or "name" in self.constants:
            raise ValueError("'constants' cannot set 'path' or 'name': they differ from clip to clip")
        for place in (self.root, self.table or "."):
            if Path(place).is_absolute() or ".." in Path(place).parts:
                raise ValueError(f"'{place}' must lie below RAW")
        if self.pattern is not None:
            try:
                groups = re.compile(self.pattern).groupindex
            except re.error as error:
                raise ValueError(f"pattern is no regular expression ({error})") from None
            known = set(VideoField.__args__) - {"path"}  # type: ignore[attr-defined]
            for group in groups:
                if group not in known:
                    raise ValueError(f"pattern names the group '{group}'; {nearest(group, known)}")
        return self


class Reading(_Section):
    """How raw files are decoded."""

    backend: Literal["auto", "pyav", "opencv", "decord"] = "auto"
    """Who decodes videos; auto: the first of PyAV, OpenCV and decord that can."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Wall-clock limit for one clip; a decoder that hangs costs its clip, not the build."""
    memory_mb: int = Field(default=1024, ge=256)
    """Memory in MB that reading one clip may take (Linux); a header that claims a monstrous picture costs its clip, not the machine."""
    truncated: Literal["keep", "exclude"] = "keep"
    """Clips that end before their end (fewer frames than declared, a container that breaks off): keep what decodes, or exclude the clip."""


class Hygiene(_Section):
    """What counts as a repeat or as blank. Defaults: measured on lung clips, see docs/guide/build.md."""

    near_repeat_difference: float = Field(default=0.5, ge=0)
    """Mean absolute difference in gray levels, over lit pixels, below which a frame repeats the last unique one."""
    blank_mean: float = Field(default=4.0, ge=0)
    """A frame with a smaller mean gray level is blank."""
    blank_std: float = Field(default=2.0, ge=0)
    """A frame with a smaller standard deviation is blank."""
    keep_damaged: bool = False
    """Keep frames that the decoder could only conceal (it lost data, and no clean key frame has come since)."""


class Image(_Section):
    """How kept frames are stored: gray PNG, lossless."""

    max_side: int | None = Field(default=None, ge=16)
    """Shrink so that the longer side has at most this many pixels; null keeps the source's size."""


class Duplicates(_Section):
    """When clips that share frames count as the same scan."""

    join_score: float = Field(default=0.5, gt=0, le=1)
    """Share of the shorter clip's kept frames that must stand, pixel for pixel, in the other for the two to join one group."""


class Folds(_Section):
    """Cross-validation folds by group, stratified by label."""

    count: int = Field(default=5, ge=0)
    """Number of folds; 0: none."""
    seed: int = Field(default=0, ge=0)
    """Another seed draws another assignment."""


class Split(_Section):
    """Train, validation and test parts by group, stratified by label; what is in neither val nor test is train."""

    val: float = Field(default=0.0, ge=0, lt=1)
    """Share of frames wanted in val."""
    test: float = Field(default=0.0, ge=0, lt=1)
    """Share of frames wanted in test."""
    seed: int = Field(default=0, ge=0)
    """Another seed draws another assignment."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError("val and test together must leave something for train")
        return self


class Recipe(_Section):
    """What to build."""

    name: str
    """The data set's name."""
    description: str = ""
    """One line for people."""
    sources: list[Source] = Field(min_length=1)
    """Where the clips lie; at least one."""
    read: Reading = Reading()
    """How files are decoded."""
    hygiene: Hygiene = Hygiene()
    """What counts as a repeat or as blank."""
    image: Image = Image()
    """How frames are stored."""
    duplicates: Duplicates = Duplicates()
    """When clips join one group."""
    folds: Folds = Folds()
    """Cross-validation folds."""
    split: Split = Split()
    """Train, validation and test parts."""
    classes: list[str] | None = None
    """Order of the labels for label_index; null: the labels found, sorted."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError("two sources have the same name")
        return self

    @property
    def digest(self) -> str:
        """The sha256 of the canonical JSON of the resolved recipe."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))


def shipped_recipes() -> dict[str, Path]:
    """Name and file of each recipe that comes with the package."""
    installed = Path(str(resources.files("usdata"))) / "manifests"
    folder = installed if installed.is_dir() else Path(__file__).resolve().parent.parent / "manifests"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Find, read, override and validate a recipe.

    Args:
        recipe: The name of a shipped recipe, or a YAML file.
        overrides: `a.b=c` each; a list is entered by position (`sources.0.sampling.hz=5`), values are YAML.

    Raises:
        RecipeError: It is not found, is no YAML, or does not validate; the message names the key and the nearest right one.
    """
    values = _load_values(recipe, seen=())
    for override in overrides:
        _apply_override(values, override)
    return _validated(values, subject=str(recipe))


def _load_values(recipe: str | Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = _find(recipe)
    if path in seen:
        raise RecipeError(path, "its 'base' leads back to itself", "remove one 'base' of the circle")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(path, f"cannot be read ({error.strerror})", "check the file's permissions") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(path, f"is no readable YAML ({' '.join(str(error).split())})", "mend the file") from None
    if not isinstance(values, dict):
        raise RecipeError(path, "holds no recipe", "start from a shipped one, such as 'manifests/phantom.yaml'")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise RecipeError(path, "'base' is no name or path of a recipe", "name one, such as 'base: pocus-lung'")
    beside = path.parent / base
    return _merged(_load_values(beside if beside.is_file() else base, (*seen, path)), values)


def _find(recipe: str | Path) -> Path:
    shipped = shipped_recipes()
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    path = Path(recipe)
    if path.is_file():
        return path.resolve()
    looks_like_file = path.suffix in {".yaml", ".yml"} or len(path.parts) > 1
    advice = "give the path of a YAML file, or a shipped recipe's name" if looks_like_file else nearest(str(recipe), shipped)
    raise RecipeError(recipe, "no such recipe", advice)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid upon `base`, mapping by mapping; sources are matched by their names, other lists are replaced whole."""
    result = dict(base)
    for key, value in over.items():
        if key == "sources" and isinstance(value, list) and isinstance(base.get(key), list):
            result[key] = _merged_sources(base[key], value)
        elif isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            result[key] = _merged(base[key], value)
        else:
            result[key] = value
    return result


def _merged_sources(base: list[Any], over: list[Any]) -> list[Any]:
    def name_of(source: Any) -> Any:
        return source.get("name") if isinstance(source, Mapping) else None

    changes = {name_of(source): source for source in over}
    known = {name_of(source) for source in base}
    kept = [_merged(source, changes[name_of(source)]) if name_of(source) in changes else source for source in base]
    return kept + [source for source in over if name_of(source) not in known]


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override}", "is not of the form a.b=c", "write for example --set folds.count=3")
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}", f"'{text}' is no YAML value", "quote it") from None
    place: Any = values
    parts = key.split(".")
    for part, following in pairwise(parts):
        if isinstance(place, list):
            place = _item(place, part, override)
        elif isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {} if not following.isdigit() else []
            place = place[part]
        else:
            raise RecipeError(
                f"--set {override}", f"'{part}' lies below a plain value", "see the recipe's keys in docs/contracts/recipe.md"
            )
    if isinstance(place, list):
        _item(place, parts[-1], override)
        place[int(parts[-1])] = value
    elif isinstance(place, dict):
        place[parts[-1]] = value
    else:
        raise RecipeError(
            f"--set {override}", f"'{parts[-1]}' lies below a plain value", "see the recipe's keys in docs/contracts/recipe.md"
        )


def _item(place: list[Any], part: str, override: str) -> Any:
    if not part.isdigit() or int(part) >= len(place):
        raise RecipeError(f"--set {override}", f"'{part}' is no position in a list of {len(place)}", "positions count from 0")
    return place[int(part)]


def _validated(values: dict[str, Any], subject: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(subject, *explain_validation(error, Recipe)) from None


def explain_validation(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """The first validation error as (reason, advice); an unknown key comes with the nearest known one."""
    first = next((e for e in error.errors() if e["type"] == "extra_forbidden" or e["loc"][-1:] == ("[key]",)), error.errors()[0])
    place = ".".join(str(part) for part in first["loc"]) or "the recipe"
    if first["type"] == "literal_error" and first["loc"][-1:] == ("[key]",):
        wrong = str(first["loc"][-2])
        return f"unknown key '{'.'.join(str(part) for part in first['loc'][:-1])}'", nearest(wrong, VideoField.__args__)  # type: ignore[attr-defined]
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        return f"unknown key '{place}'", nearest(str(first["loc"][-1]), known)
    message = first["msg"].removeprefix("Value error, ")
    given = f" (given: {first['input']!r})" if isinstance(first["input"], (str, int, float, bool)) else ""
    return f"'{place}': {message[0].lower() + message[1:]}{given}", "see the keys in docs/contracts/recipe.md"


def _keys_at(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Names of the fields that a nested model has at a place of the recipe."""
    current: type[BaseModel] = model
    for part in place:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation if part in current.model_fields else None
        nested = [annotation, *getattr(annotation, "__args__", ())]
        found = next((kind for kind in nested if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if found is None:
            return list(VideoField.__args__)  # type: ignore[attr-defined]
        current = found
    return list(current.model_fields)
