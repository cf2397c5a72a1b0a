"""The recipe of a data set: what to build from which raw files, typed and validated.

The resolved recipe, defaults filled in, has one canonical JSON text; its sha256 is the recipe's digest. `recipe_files` reads recipes from
YAML.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from usdata.errors import nearest
from usdata.files import canonical_json, sha256_text
from usdata.imaging.geometry import geometry_from
from usdata.known_layouts import filled_in
from usdata.sampling import SamplingRule

SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

VideoField = Literal[
    "path", "name", "patient", "group", "label", "organ", "probe", "view", "manufacturer", "licence", "mm_per_pixel_x", "mm_per_pixel_y"
]  # fmt: skip


# Written out, because a type checker reads it; a test holds it equal to the known layouts.
LayoutName = Literal[
    "table", "files", "class-folders", "us4-clips", "us4-folders", "clust", "pocus", "covid-blues", "echonet", "camus"
]  # fmt: skip


def _compiled(pattern: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{key} is no regular expression ({error})") from None


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ExcludeRule(_Section):
    """Clips to leave out, with the reason that their rows will give."""

    where: dict[str, list[str] | str] = Field(min_length=1)
    """Column of the table (or a contract field) to one value or a list of values; all entries must match."""
    reason: str = Field(min_length=1)
    """Why; it stands in the clip's row of videos.parquet."""


class Aside(_Section):
    """Files of a source that are no clips, with the reason that their rows will give."""

    pattern: str
    """Regular expression searched in a file's path below the root."""
    reason: str = Field(min_length=1)
    """Why it is no clip."""


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
    layout: LayoutName = "table"
    """table: a CSV names the clips; files: every media file (or folder of images) below the root is a clip; or a known layout's name, which
    fills in what is not given here (docs/contracts/layouts.md)."""
    root: str = "."
    """Folder below RAW that holds this source."""
    optional: bool = False
    """A missing root is told and not refused; one source at least must be there."""
    table: str | None = None
    """The CSV that names the clips, relative to the root; without one they are found by looking."""
    columns: dict[VideoField, str] = Field(default_factory=dict)
    """Which column of the table holds which fact; `path` is needed."""
    path_template: str | None = None
    """How the value in `columns.path` becomes a path: '{}' stands for the value ('Videos/{}.avi')."""
    label_columns: list[str] = Field(default_factory=list)
    """Further columns (or facts of the pattern and the facts file) whose values are kept in `labels` as 'column=value'."""
    pattern: str | None = None
    """Regular expression searched in each clip's path below the root; named groups give facts. Without a table, a clip that does not match
    is left out."""
    facts_file: str | None = None
    """Text file of 'key: value' lines beside a clip, with facts of its pattern in braces ('Info_{view}.cfg')."""
    unit: Literal["file", "folder", "sequence"] = "file"
    """What a clip is, without a table: a file; a folder of images; or a sequence, images of a folder that differ in one number alone."""
    asides: list[Aside] = Field(default_factory=list)
    """Files that belong to the source and are no clips, with the reason that their rows give."""
    constants: dict[VideoField, str] = Field(default_factory=dict)
    """Facts that hold for every clip of the source."""
    label_map: dict[str, str | None] | None = None
    """Label as given to label as wanted; null makes a clip unlabelled; a label that is not listed is an error."""
    names: Literal["path", "stem"] = "path"
    """A clip's name: its whole path below the root, or the file's stem alone (then stems must not repeat)."""
    patient_ids: Literal["pseudonym", "public"] = "pseudonym"
    """pseudonym: ids, of the table and of DICOM headers, are replaced by keyed hashes and need a secret; public: they are a published set's
    own and stay."""
    paths: Literal["keep", "pseudonym"] | None = None
    """How paths below RAW and clips' names leave: as they are, and refused where they hold an identifier that was met; or replaced by keyed
    hashes. Null: keep, but pseudonym for private ids in a release."""
    sampling: SamplingRule = SamplingRule(rule="rate", hz=3.0)
    """Which of a clip's unique frames are kept."""
    exclude: list[ExcludeRule] = Field(default_factory=list)
    """Clips to leave out, each with a reason."""
    expected: Expected = Expected()
    """What a whole copy gives; a build says where it finds otherwise."""

    def hides_paths(self, *, release: bool) -> bool:
        """Whether paths leave as pseudonyms."""
        return self.paths == "pseudonym" or (self.paths is None and release and self.patient_ids == "pseudonym")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_layout(cls, given: Any) -> Any:
        return filled_in(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not SOURCE_NAME.fullmatch(self.name):
            raise ValueError(f"name '{self.name}' may hold letters, digits and '._+-' only")
        if (self.layout == "table" or self.table is not None) and (self.table is None or "path" not in self.columns):
            raise ValueError("layout 'table' needs 'table' (the CSV) and 'columns.path'")
        if self.layout == "files" and (self.table is not None or self.columns):
            raise ValueError("layout 'files' takes no 'table' and no 'columns'; give facts by 'pattern' and 'constants'")
        if self.path_template is not None and self.path_template.count("{}") != 1:
            raise ValueError("'path_template' needs '{}' once, where the table's value goes")
        if "path" in self.constants or "name" in self.constants:
            raise ValueError("'constants' cannot set 'path' or 'name': they differ from clip to clip")
        for place in (self.root, self.table or "."):
            if Path(place).is_absolute() or ".." in Path(place).parts:
                raise ValueError(f"'{place}' must lie below RAW")
        for aside in self.asides:
            _compiled(aside.pattern, "asides.pattern")
        known = set(VideoField.__args__) - {"path"}  # type: ignore[attr-defined]
        for group in _compiled(self.pattern, "pattern").groupindex if self.pattern is not None else ():
            if group not in known:
                raise ValueError(f"pattern names the group '{group}'; {nearest(group, known)}")
        if self.facts_file is not None:
            for field in re.findall(r"\{(.*?)\}", self.facts_file):
                if field not in known:
                    raise ValueError(f"facts_file names the fact '{field}'; {nearest(field, known)}")
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
    repeated: Literal["one_period", "all"] = "one_period"
    """Of a clip that is a loop or a palindrome, frames of one period alone can be kept, or of all of it."""
    keep_damaged: bool = False
    """Keep frames that the decoder could only conceal (it lost data, and no clean key frame has come since)."""


class FieldOfView(_Section):
    """How the ultrasound is found in the picture; see docs/guide/field-of-view.md."""

    accept: float = Field(default=0.85, gt=0, le=1)
    """Least confidence of an estimate that is taken without a person; docs/guide/field-of-view.md has what it was measured to mean."""
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """video_id to a geometry that a person gives, in source pixels: {kind: rectangle, x, y, width, height} or {kind: annulus_sector,
    apex_x, apex_y, radius_inner, radius_outer, angle_left_deg, angle_right_deg}."""
    consensus: bool = True
    """A clip without a sure estimate may take what at least three clips of the same source, device and picture size agree on, where its own
    picture speaks for it."""
    unsure: Literal["keep", "hold"] = "keep"
    """A clip without a field of view: keep it, whole, and mark it for review; or hold it back until a person has looked."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for video_id, given in self.overrides.items():
            try:
                geometry_from(given)
            except (ValueError, AttributeError) as error:
                raise ValueError(f"overrides of '{video_id}': {error}") from None
        return self


Mode = Literal["b_mode", "colour_doppler", "elastography", "m_mode", "spectral", "unknown"]


class Answer(_Section):
    """What a person said of a clip that the build was not sure of; `usdata review` writes it."""

    answer: Literal["accept", "reject"]
    """accept: the geometry is the clip's field of view, and nothing in it tells who it is; reject: the clip is left out."""
    reviewer: str = Field(min_length=1, max_length=60)
    """Who looked; it stands in videos.parquet and dataset.json, so initials are better than a name."""
    date: datetime.date
    """The day."""
    geometry: str | None = None
    """JSON of the field of view that was shown, in source pixels; needed to accept."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.answer == "accept" and self.geometry is None:
            raise ValueError("an accepted clip needs the geometry that was shown")
        if self.geometry is not None:
            try:
                geometry_from(self.geometry)
            except json.JSONDecodeError:
                raise ValueError(f"its geometry is no JSON: {self.geometry}") from None
        return self


class Image(_Section):
    """How kept frames are stored: gray PNG, lossless."""

    crop: Literal["none", "box", "mask"] = "none"
    """none: whole pictures; box: cut to the field of view's box; mask: that, and everything outside the field of view black."""
    max_side: int | None = Field(default=None, ge=16)
    """Shrink so that the longer side has at most this many pixels; null keeps the source's size."""
    overlays: Literal["keep", "black", "inpaint"] = "keep"
    """What becomes of letters and graphics that are found over the tissue: keep; black; or inpaint, from what lies around them. A mask
    beside the images says where they are."""


class Duplicates(_Section):
    """When clips that share frames count as the same scan."""

    join_score: float = Field(default=0.5, gt=0, le=1)
    """Share of the shorter clip's kept frames that must stand, pixel for pixel, in the other for the two to join one group."""
    content: bool = True
    """Look for clips that show the same scan though no file or frame is equal (re-encoded, cropped, mirrored, ...); they join one group."""
    index: bool = False
    """Let an index (faiss, extra `index`) name the candidates, which may miss a pair in a hundred: for tens of thousands of clips."""


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
    field_of_view: FieldOfView = FieldOfView()
    """How the ultrasound is found in the picture."""
    modes: Annotated[list[Mode], Field(min_length=1)] | None = ["b_mode", "unknown"]
    """Which modes are kept; null: all. Told by the file's own words, strips and colour, see docs/guide/field-of-view.md."""
    review: dict[str, Answer] = Field(default_factory=dict)
    """video_id to what a person answered."""
    image: Image = Image()
    """How frames are stored."""
    release: bool = False
    """For a set that leaves the house: nothing outside the field of view is stored, and clips without a safe one, or with text in it, are
    held back for review. Needs 'image.crop: mask'."""
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
        if self.release and (self.image.crop != "mask" or self.field_of_view.unsure != "hold"):
            raise ValueError("'release: true' needs 'image.crop: mask' and 'field_of_view.unsure: hold'")
        return self

    @property
    def digest(self) -> str:
        """The sha256 of the canonical JSON of the resolved recipe."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))
