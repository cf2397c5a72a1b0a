"""What a comparison of two versions of a data set found: plain values, named as the manifest names them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Side:
    """One of the two sets.

    Attributes:
        called: Its folder's name, or the path as it was given where both folders have one name.
        name: The data set's name.
        digest: Of its tables.
        schema_version: Of its contract.
        clips: Rows of videos.parquet.
        frames: Kept frames.
    """

    called: str
    name: str
    digest: str
    schema_version: int
    clips: int
    frames: int


@dataclass(frozen=True)
class Change:
    """One thing that is another one: its name (video_id, key, package), the value in A and the value in B; None: absent or null."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class StatusChange:
    """A clip whose status or whose reason for it changed."""

    video_id: str
    before: str
    after: str
    reason_before: str | None
    reason_after: str | None


@dataclass(frozen=True)
class Regrouping:
    """How clips that are in both sets stand together.

    Attributes:
        merged: name is the group in B, before the groups of A that it joins, after the number of clips.
        torn: name is the group in A, before the number of clips, after the groups of B that hold them.
        renamed: Other names for the same clips; nothing moved.
        learned: video_id of clips whose patient was unknown in A.
        forgotten: video_id of clips whose patient is unknown in B.
    """

    merged: tuple[Change, ...] = ()
    torn: tuple[Change, ...] = ()
    renamed: tuple[Change, ...] = ()
    learned: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """Whether anything changed."""
        return any(vars(self).values())


@dataclass(frozen=True)
class Crossing:
    """A group that stands in one part in A and in another in B: what was trained on one set is tested on the other.

    Attributes:
        part_before: Where it has clips in A.
        part_after: Where it has clips in B, another part.
        group_before: group_id in A.
        group_after: group_id in B; other names are told apart by the clips, or the patient, that both hold.
        patients: The patients of it that B knows.
        clips_before: Its clips in that part of A.
        clips_after: Its clips in that part of B.
    """

    part_before: str
    part_after: str
    group_before: str
    group_after: str
    patients: tuple[str, ...]
    clips_before: int
    clips_after: int


@dataclass(frozen=True)
class ClipFrames:
    """Kept frames of a clip that is in both sets: how many came, went, or have other pixels under the same frame_index."""

    video_id: str
    added: int
    removed: int
    pixels: int


@dataclass(frozen=True)
class FrameChanges:
    """Kept frames.

    Attributes:
        by_clip: Clips in both sets whose frames differ.
        in_added_clips: Frames of clips that only B has.
        in_removed_clips: Frames of clips that only A has.
        moved: Frames in both sets that stand in another split.
    """

    by_clip: tuple[ClipFrames, ...] = ()
    in_added_clips: int = 0
    in_removed_clips: int = 0
    moved: int = 0

    def total(self, what: str) -> int:
        """All of `added`, `removed` or `pixels`."""
        return sum(getattr(clip, what) for clip in self.by_clip)


@dataclass(frozen=True)
class FieldOfViewChange:
    """A clip whose field of view changed; `overlap` is the boxes' intersection over union, None where one set has no box."""

    video_id: str
    origin_before: str | None
    origin_after: str | None
    overlap: float | None


@dataclass(frozen=True)
class ColumnChange:
    """Another column of a table with other values: of how many rows that both sets have, and the first of them."""

    table: str
    column: str
    rows: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class Count:
    """Clips and frames of a source, label and split; label None: unlabelled."""

    source: str
    label: str | None
    split: str
    clips_before: int
    clips_after: int
    frames_before: int
    frames_after: int


@dataclass(frozen=True)
class CompareResult:
    """What differs from A to B. Clips are named as B names them.

    Attributes:
        a: The earlier set.
        b: The later one.
        crossings: Groups that stand in another part, the dangerous ones first: between train and test, then train and val.
        clips_both: Clips in both, renamed ones too.
        clips_added: video_id of clips that only B has.
        clips_removed: Of those that only A has.
        clips_renamed: Equal raw bytes under another video_id.
        clips_changed: Other raw bytes under one video_id, with both sha256.
        status: Clips that are kept, excluded or failed otherwise, or for another reason.
        labels: Relabelled clips.
        source_labels: Clips whose list of all labels changed.
        patients: How clips stand together by patient.
        groups: And by group.
        splits: Clips in both whose frames stand in other splits; "train+val" where they stand in several.
        folds: Clips that changed folds, whatever the folds' numbers.
        fold_names: Folds that are the same under another number.
        frames: Kept frames.
        excluded: Reasons for which frames are not kept, with their numbers, where these differ.
        excluded_rows: Rows of excluded.parquet differ in some way.
        fields_of_view: The least alike first.
        classes: The label names in the order of label_index, where they differ; name is "classes".
        label_index: Labels of both that have another index.
        duplicates: Verified pairs that came or went ("a = b"), or are of another kind.
        columns: All other columns of videos and frames.
        recipe: Keys of the recipe, dotted; a source is named by its name.
        versions: Of what decoded it.
        about: Other keys of dataset.json, dotted.
        counts: All counts by source, label and split, the equal ones too.
    """

    a: Side
    b: Side
    crossings: tuple[Crossing, ...] = ()
    clips_both: int = 0
    clips_added: tuple[str, ...] = ()
    clips_removed: tuple[str, ...] = ()
    clips_renamed: tuple[Change, ...] = ()
    clips_changed: tuple[Change, ...] = ()
    status: tuple[StatusChange, ...] = ()
    labels: tuple[Change, ...] = ()
    source_labels: tuple[Change, ...] = ()
    patients: Regrouping = field(default_factory=Regrouping)
    groups: Regrouping = field(default_factory=Regrouping)
    splits: tuple[Change, ...] = ()
    folds: tuple[Change, ...] = ()
    fold_names: tuple[Change, ...] = ()
    frames: FrameChanges = field(default_factory=FrameChanges)
    excluded: tuple[Change, ...] = ()
    excluded_rows: bool = False
    fields_of_view: tuple[FieldOfViewChange, ...] = ()
    classes: tuple[Change, ...] = ()
    label_index: tuple[Change, ...] = ()
    duplicates: tuple[Change, ...] = ()
    columns: tuple[ColumnChange, ...] = ()
    recipe: tuple[Change, ...] = ()
    versions: tuple[Change, ...] = ()
    about: tuple[Change, ...] = ()
    counts: tuple[Count, ...] = ()

    @property
    def rows_differ(self) -> bool:
        """Whether any row of a table differs, came or went."""
        frames = self.frames
        return (
            any(getattr(self, name) for name in _OF_ROWS)
            or self.patients.any
            or self.groups.any
            or bool(frames.by_clip or frames.in_added_clips or frames.in_removed_clips or frames.moved)
        )

    @property
    def differs(self) -> bool:
        """Whether anything differs: rows, classes, recipe, versions or the rest of dataset.json."""
        return self.rows_differ or any((self.classes, self.recipe, self.versions, self.about))

    @property
    def dangerous(self) -> tuple[Crossing, ...]:
        """Crossings between train and test."""
        return tuple(crossing for crossing in self.crossings if {crossing.part_before, crossing.part_after} == {"train", "test"})

    @property
    def sentence(self) -> str:
        """What B is, in a sentence or two."""
        from usdata.comparing.words import sentence

        return sentence(self)

    def __repr__(self) -> str:
        return f"<CompareResult: {self.sentence}>"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"sentence": self.sentence, "differs": self.differs, **asdict(self)}


_OF_ROWS = (
    "crossings", "clips_added", "clips_removed", "clips_renamed", "clips_changed", "status", "labels", "source_labels", "splits", "folds",
    "fold_names", "excluded", "excluded_rows", "fields_of_view", "label_index", "duplicates", "columns",
)  # fmt: skip
