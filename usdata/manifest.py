"""The contract between `usdata` and everything that reads its data sets: Arrow schemas, reading, writing.

A data set is a folder (see docs/contracts/data-set.md). This module knows its Parquet tables and `dataset.json`, and is the one thing of
`usdata` that `uscl` builds on. Tables are sorted, carry the schema version and the recipe's digest in their Parquet metadata, hold no image
bytes and no path that leaves the folder, and their bytes depend on their rows alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from usdata.console import safe_text
from usdata.errors import DataSetError
from usdata.files import atomic, sha256_file, write_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from usdata.auditing import AuditResult
    from usdata.notebook.cards import Html

SCHEMA_VERSION = 5
ROW_GROUP_ROWS = 65_536

DATASET_JSON = "dataset.json"
VIDEOS = "videos.parquet"
FRAMES = "frames.parquet"
EXCLUDED = "excluded.parquet"
DUPLICATES = "duplicates.parquet"
# What `usdata audit` writes beside the tables; whatever changes the tables removes it.
REPORT_FILES = ("report.html", "report.json", "report.md", "ATTRIBUTION.md")
CROISSANT_JSON = "croissant.json"  # of an export, put beside a whole set

STATUSES = ("ok", "failed", "excluded")


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    """A schema whose fields carry their meaning; a `?` at the end of the name allows nulls."""
    return pa.schema(
        [pa.field(name.rstrip("?"), kind, nullable=name.endswith("?"), metadata={"description": text}) for name, kind, text in columns]
    )


VIDEOS_SCHEMA = _schema(
    ("video_id", pa.string(), "<source>/<name>, stable and unique"),
    ("source", pa.string(), "the data source that the clip belongs to"),
    ("patient_id?", pa.string(), "pseudonym (or a public set's own id); null if unknown"),
    ("group_id", pa.string(), "the patient if known, else the finest unit known not to share patients; joins confirmed duplicates"),
    ("path", pa.string(), "relative to RAW, with forward slashes; it may lead into an archive, or name numbered images (left_#.png)"),
    ("sha256?", pa.string(), "of the raw file's bytes (of a frame folder: of its files' digests in order); null if it could not be read"),
    (
        "packets_sha256?",
        pa.string(),
        "of the video packets' payloads in stream order (h264 and hevc: of their slices), equal in every container; null where frames are "
        "not read as packets (images, raw pixels, other decoders than PyAV)",
    ),
    (
        "luma_sha256?",
        pa.string(),
        "of all decoded gray frames in order, folded (usdata/duplicates/layers.py); lossless re-encoding leaves it; null if not read",
    ),
    ("bytes", pa.int64(), "size of the raw file or folder"),
    ("container?", pa.string(), "what the bytes are, by content"),
    ("codec?", pa.string(), "codec of the video stream or the image"),
    ("pixel_format?", pa.string(), "pixel format as decoded"),
    ("width?", pa.int32(), "pixels, as decoded"),
    ("height?", pa.int32(), "pixels, as decoded"),
    ("fps?", pa.float64(), "true mean frame rate in Hz from the stream's timestamps; null if unknown"),
    ("fps_effective?", pa.float64(), "rate in Hz of frames that differ from the one before"),
    ("rate_source?", pa.string(), "where the times come from: stream, timestamps, or the name of a DICOM attribute; null without times"),
    ("time_base?", pa.string(), "seconds per tick as a fraction 'n/d'; a frame's exact time is pts x time_base"),
    ("frames_declared?", pa.int64(), "what the container claims; null if it claims nothing"),
    ("frames_decoded", pa.int64(), "what decoded"),
    ("frames_unique", pa.int64(), "decoded frames that are neither damaged nor blank nor near-repeats of the last unique one"),
    ("decode_errors", pa.int64(), "packets or frames that the decoder refused"),
    ("notes", pa.list_(pa.string()), "what the file claims and was not believed, and what it lacks; a sentence each"),
    ("duration_s?", pa.float64(), "last timestamp minus first, plus one frame; null without timestamps"),
    ("organ?", pa.string(), "as the source says"),
    ("probe?", pa.string(), "convex, linear, phased, ... as the source says"),
    ("view?", pa.string(), "as the source says"),
    ("manufacturer?", pa.string(), "as the recipe says, else the file"),
    ("device?", pa.string(), "the scanner's model, as the file says"),
    ("colour_kind?", pa.string(), "gray, tinted (one hue a gray level) or colour; null if no frame was kept"),
    ("mm_per_pixel_x?", pa.float64(), "spacing of the raw picture, as the recipe says, else the file; null if unknown"),
    ("mm_per_pixel_y?", pa.float64(), "spacing of the raw picture, as the recipe says, else the file; null if unknown"),
    ("regions?", pa.string(), "JSON of the parts of the picture that the file describes (DICOM's ultrasound regions); null = none"),
    ("label?", pa.string(), "the class used for training and evaluation; null = unlabelled"),
    ("labels", pa.list_(pa.string()), "every label that the source gives, as 'name=value'"),
    ("licence?", pa.string(), "licence of this clip"),
    ("mode?", pa.string(), "b_mode, colour_doppler, elastography, m_mode, spectral or unknown; null if the clip was not read"),
    ("fov_kind?", pa.string(), "rectangle or annulus_sector; null = no field of view was determined"),
    ("fov_x?", pa.int32(), "box of the field of view in raw pixels"),
    ("fov_y?", pa.int32(), "box of the field of view in raw pixels"),
    ("fov_width?", pa.int32(), "box of the field of view in raw pixels"),
    ("fov_height?", pa.int32(), "box of the field of view in raw pixels"),
    ("fov_geometry?", pa.string(), "JSON of the geometry's parameters in raw pixels"),
    ("fov_polygon?", pa.string(), "JSON of the outline's corners [x, y] in raw pixels"),
    ("fov_stored_geometry?", pa.string(), "JSON of the geometry's parameters in pixels of the stored images"),
    ("fov_confidence?", pa.float64(), "0 to 1; of the estimate, also where it was not accepted"),
    ("fov_origin?", pa.string(), "override, dicom_region, estimate, consensus or none; null if the clip was not read"),
    ("fov_views?", pa.int32(), "pictures side by side: 1, or 2 for a dual view; null = unknown"),
    (
        "overlays",
        pa.list_(pa.string()),
        "in the field of view or across its edge: text, caliper (small crosses), graphics (what else is bright and still), ruler, ecg, "
        "pointer; unknown: too few frames",
    ),
    ("overlay_share?", pa.float64(), "share of the field of view that they cover, 0 to 1"),
    ("overlay_path?", pa.string(), "mask of them at the stored size (PNG, 255 = overlay), relative to the data set; null = none found"),
    ("overlay_sha256?", pa.string(), "of that mask's pixels, as pixel_sha256 in frames.parquet"),
    ("ruler?", pa.string(), "JSON of the depth ruler: its place, its ticks and their distance in raw pixels; null = none found"),
    ("spacing_source?", pa.string(), "where mm_per_pixel comes from: recipe, file or ruler; null = unknown"),
    ("depth_mm?", pa.float64(), "depth of scan, as the file says"),
    ("period_frames?", pa.int64(), "decoded frames after which a loop or a palindrome begins again; null = neither"),
    ("patient_sex?", pa.string(), "F, M or O, as the file says"),
    ("patient_age?", pa.string(), "age band in years: 0-9, 10-19, ..., 80-89, 90+"),
    ("study_year?", pa.int32(), "as the file says; of all dates only the year leaves"),
    (
        "key_frames_path?",
        pa.string(),
        "picture of the frames by which the same scan is found in other clips, one below another, 64 pixels wide; relative to the data "
        "set; null = all are too dark or too flat",
    ),
    ("key_frames_sha256?", pa.string(), "of that picture's pixels, as pixel_sha256 in frames.parquet"),
    ("key_frames?", pa.list_(pa.int64()), "their frame_index"),
    ("key_frames_box?", pa.list_(pa.int32()), "what they were cut from: x, y, width, height in raw pixels"),
    (
        "flags",
        pa.list_(pa.string()),
        "hygiene: blank, blank_frames, damaged_frames, decode_errors, dual_view, frozen, invalid_frames, loop, missing_frames, "
        "near_repeats, palindrome, short, title, truncated, upconverted",
    ),
    ("review?", pa.string(), "needed, accepted or rejected; null = nobody needs to look"),
    ("review_reason?", pa.string(), "why a person must look, or had to"),
    ("reviewer?", pa.string(), "who looked"),
    ("reviewed_on?", pa.string(), "the day, YYYY-MM-DD"),
    ("status", pa.string(), "ok, failed or excluded"),
    ("reason?", pa.string(), "why not ok; null when ok"),
    ("frames_kept", pa.int64(), "rows of this clip in frames.parquet"),
)

FRAMES_SCHEMA = _schema(
    ("frame_id", pa.string(), "<video_id>/<frame_index>, unique"),
    ("video_id", pa.string(), "row of videos.parquet"),
    ("source", pa.string(), "as in videos.parquet"),
    ("patient_id?", pa.string(), "as in videos.parquet"),
    ("group_id", pa.string(), "as in videos.parquet"),
    ("frame_index", pa.int64(), "0-based position among the frames that decode, forward from the first"),
    ("pts?", pa.int64(), "timestamp in ticks of the video's time_base"),
    ("time_s?", pa.float64(), "pts x time_base in seconds, from the clip's first frame"),
    ("path", pa.string(), "of the stored image, relative to the data set"),
    ("width", pa.int32(), "of the stored image"),
    ("height", pa.int32(), "of the stored image"),
    ("organ?", pa.string(), "as in videos.parquet"),
    ("probe?", pa.string(), "as in videos.parquet"),
    ("label?", pa.string(), "as in videos.parquet; null = unlabelled"),
    ("label_index?", pa.int64(), "position of the label in dataset.json's classes; null = unlabelled"),
    ("split", pa.string(), "train, val or test"),
    ("fold?", pa.int64(), "0-based fold; null if the recipe asks for none"),
    ("fingerprint", pa.string(), "256-bit perceptual hash of the stored image, 64 hexadecimal digits"),
    ("pixel_sha256", pa.string(), "of the stored pixels: '<height>x<width>x<channels>' and a newline, then the bytes row by row"),
    (
        "quality_mean",
        pa.float64(),
        "mean gray level inside the field of view (all of the picture where there is none), 0 to 255; the measures below likewise",
    ),
    ("quality_std", pa.float64(), "standard deviation of the gray levels"),
    ("quality_sharpness", pa.float64(), "variance of the 3x3 Laplacian"),
    ("quality_contrast", pa.float64(), "95th minus 5th percentile of the gray levels"),
    ("quality_saturation", pa.float64(), "share of pixels at 250 gray levels and more, 0 to 1"),
    ("fov_x?", pa.int32(), "box of the field of view in stored pixels"),
    ("fov_y?", pa.int32(), "box of the field of view in stored pixels"),
    ("fov_width?", pa.int32(), "box of the field of view in stored pixels"),
    ("fov_height?", pa.int32(), "box of the field of view in stored pixels"),
    ("duplicate_group?", pa.string(), "shared by frames with equal pixels in different clips: the first such frame_id; null = none"),
)

EXCLUDED_SCHEMA = _schema(
    ("video_id", pa.string(), "row of videos.parquet"),
    ("source", pa.string(), "as in videos.parquet"),
    ("frame_index", pa.int64(), "0-based position among the frames that decode"),
    ("pts?", pa.int64(), "timestamp in ticks of the video's time_base"),
    ("time_s?", pa.float64(), "seconds from the clip's first frame"),
    (
        "reason",
        pa.string(),
        "damaged, invalid, blank, near_repeat, repeats_period (of a loop), redundant (too like the last kept frame), not_sampled (not "
        "compared with it), or clip_excluded (the whole clip was)",
    ),
    (
        "duplicate_of?",
        pa.int64(),
        "frame_index of the frame that a near_repeat repeats, or of the last kept one, which a redundant frame is like",
    ),
    ("difference?", pa.float64(), "of a near_repeat: mean absolute difference in gray levels to that frame"),
    ("similarity?", pa.float64(), "of a redundant frame: correlation with that frame, both reduced to 64x64, -1 to 1"),
)

DUPLICATES_SCHEMA = _schema(
    ("video_id_a", pa.string(), "the earlier of the two ids"),
    ("video_id_b", pa.string(), "the later of the two ids"),
    (
        "kind",
        pa.string(),
        "the strongest that holds: file (equal bytes), packets (equal coded pictures), luma (all decoded gray frames equal), pixels "
        "(equal stored frames), content (a copy, verified by laying frames on one another), or view (no copy: the probe in one place at "
        "another moment)",
    ),
    (
        "score",
        pa.float64(),
        "pixels: share of the shorter clip's kept frames that stand in the other; content and view: median correlation of the frames that "
        "are found; 1 for the other kinds",
    ),
    ("motion?", pa.float64(), "content and view: the same of what changes from frame to frame; null where that cannot be told"),
    ("scale", pa.float64(), "along the width: raw pixels of b to one of a"),
    ("scale_y", pa.float64(), "along the height"),
    ("shift_x", pa.float64(), "raw pixels: x in b = scale * x in a + shift_x; mirrored: x in b = shift_x - scale * x in a"),
    ("shift_y", pa.float64(), "raw pixels: y in b = scale_y * y in a + shift_y"),
    ("flip", pa.bool_(), "b is mirrored left to right"),
    ("first_frame_a", pa.int64(), "aligned interval, first frame_index in a"),
    ("last_frame_a", pa.int64(), "aligned interval, last frame_index in a"),
    ("first_frame_b", pa.int64(), "aligned interval, first frame_index in b"),
    ("last_frame_b", pa.int64(), "aligned interval, last frame_index in b"),
)

SCHEMAS = {VIDEOS: VIDEOS_SCHEMA, FRAMES: FRAMES_SCHEMA, EXCLUDED: EXCLUDED_SCHEMA, DUPLICATES: DUPLICATES_SCHEMA}
SORT_KEYS = {
    VIDEOS: ("source", "video_id"),
    FRAMES: ("source", "video_id", "frame_index"),
    EXCLUDED: ("source", "video_id", "frame_index"),
    DUPLICATES: ("video_id_a", "video_id_b", "kind"),
}


def table_from_rows(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a sorted Arrow table of the named file's schema.

    Args:
        name: One of the four Parquet file names of the contract.
        rows: Mappings that hold every column; a missing or unknown column is a fault of ours and raises.

    Raises:
        ValueError: A row lacks a column, has one too many, or holds null where none may be.
    """
    schema = SCHEMAS[name]
    ordered = sorted(rows, key=lambda row: tuple(row[key] for key in SORT_KEYS[name]))
    columns = set(schema.names)
    for row in ordered:
        if row.keys() != columns:
            raise ValueError(f"a row of {name} lacks {sorted(columns - row.keys())} or has unknown {sorted(row.keys() - columns)}")
    arrays = [pa.array([row[field.name] for row in ordered], type=field.type) for field in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    table.validate(full=True)
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(f"{name}: null in {field.name}, which may not be null")
    return table


def write_table(folder: Path, name: str, table: pa.Table, *, recipe_digest: str) -> None:
    """Write one table of the contract: zstd, row groups of 64 k rows, page index; atomically, and equal rows give equal bytes."""
    metadata = {"usdata.schema_version": str(SCHEMA_VERSION), "usdata.recipe_digest": recipe_digest}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    with atomic(folder / name) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_page_index=True, store_schema=True, version="2.6"
        )


@dataclass(frozen=True)
class DataSet:
    """A data set folder, opened for reading. Tables are read when they are first asked for.

    Attributes:
        folder: The data set's folder.
        about: `dataset.json`: name, recipe, digests, classes, counts, versions, licences.
    """

    folder: Path
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """The data set's name."""
        return str(self.about["name"])

    @property
    def digest(self) -> str:
        """The sha256 over the tables' bytes: equal digests, equal manifests."""
        return str(self.about["digest"])

    @property
    def classes(self) -> list[str]:
        """Label names in the order of `label_index`."""
        return list(self.about["classes"])

    @cached_property
    def videos(self) -> pd.DataFrame:
        """`videos.parquet` as a data frame."""
        return self._read(VIDEOS)

    @cached_property
    def frames(self) -> pd.DataFrame:
        """`frames.parquet` as a data frame."""
        return self._read(FRAMES)

    @cached_property
    def excluded(self) -> pd.DataFrame:
        """`excluded.parquet` as a data frame."""
        return self._read(EXCLUDED)

    @cached_property
    def duplicates(self) -> pd.DataFrame:
        """`duplicates.parquet` as a data frame."""
        return self._read(DUPLICATES)

    def images(self, which: Any) -> NDArray[np.uint8] | list[Any]:
        """The pictures that a selection names, held against the manifest's digests.

        Args:
            which: A position in `.frames` or a frame_id gives one picture (H, W) uint8; a video_id all kept frames of the clip, (T, H, W)
                where they are of one size, else a list; a slice, a list of these, a Boolean mask over `.frames`, or rows of it, such as
                `data.frames.query("label == 'covid'")`, give a list in that order.

        Raises:
            UserError: It names nothing in this set.
            DataSetError: A picture is missing, damaged or another one.
        """
        from usdata.notebook.images import images

        return images(self, which)

    def audit(self, *, write_report: bool = False, **options: Any) -> AuditResult:
        """`usdata.audit` of this set; the folder stays as it is unless `write_report` is given."""
        from usdata.auditing import audit

        return audit(self.folder, write_report=write_report, **options)

    def sheet(self, which: Any = None, *, columns: int = 8) -> Html:
        """A contact sheet for a notebook: of a selection as in `images`, or of frames spread evenly over the groups."""
        from usdata.notebook.cards import sheet

        return sheet(self, which, columns=columns)

    def __repr__(self) -> str:
        counts = self.about.get("counts", {})
        told = [f"{counts[key]:,} {name}" for key, name in (("ok", "clips"), ("frames", "frames")) if isinstance(counts.get(key), int)]
        told.append(f"{len(self.classes):,} classes")
        return safe_text(f"<DataSet {self.name}: {', '.join(told)}; digest {self.digest[:16]}>")

    def _repr_html_(self) -> str:
        from usdata.notebook.cards import card

        return card(self)

    def _read(self, name: str) -> pd.DataFrame:
        return read_table(self.folder, name).to_pandas()


def read_table(folder: Path, name: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """One table of a data set, its columns checked against the contract.

    Args:
        folder: The data set.
        name: One of the four Parquet file names of the contract.
        columns: Those to be read; None: all.

    Raises:
        DataSetError: The file is missing, is no Parquet, or lacks a column.
    """
    path = folder / name
    if not path.is_file():
        raise DataSetError(path, "this table of the data set is missing", "build the set again with 'usdata build'")
    try:
        names = pq.read_schema(path).names
        missing = [column for column in SCHEMAS[name].names if column not in names]
        table = None if missing else pq.read_table(path, columns=None if columns is None else list(columns))
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise DataSetError(path, f"is no readable Parquet file ({error})", "build the set again with 'usdata build'") from None
    if table is None:
        raise DataSetError(path, f"lacks the contract's columns {', '.join(missing)}", "build the set again with this version of usdata")
    return table


def open_dataset(folder: str | Path) -> DataSet:
    """Open a data set folder.

    Raises:
        DataSetError: The folder is missing, is not a data set, or was written under another schema version.
    """
    folder = Path(folder)
    about = read_about(folder)
    version = version_of(folder, about)
    if version < SCHEMA_VERSION:
        reason = f"has schema version {version}, and this usdata reads {SCHEMA_VERSION}"
        raise DataSetError(folder, reason, f"run 'usdata migrate {folder}'")
    if version > SCHEMA_VERSION:
        reason = f"was made by a newer usdata (schema version {version}, and this one reads {SCHEMA_VERSION})"
        raise DataSetError(folder, reason, "install that usdata")
    return DataSet(folder=folder, about=about)


_ABOUT_KINDS: Mapping[str, type] = {"name": str, "digest": str, "classes": list, "recipe_digest": str} | dict.fromkeys(
    ("recipe", "counts", "duplicates", "privacy", "licences", "versions"), dict
)


def read_about(folder: Path) -> dict[str, Any]:
    """What `dataset.json` says, whatever the schema version.

    Raises:
        DataSetError: The folder is missing, or is not a data set.
    """
    if not folder.is_dir():
        raise DataSetError(folder, "no such data set folder", "make one with 'usdata build RECIPE --raw RAW --out SET'")
    path = folder / DATASET_JSON
    if not path.is_file():
        raise DataSetError(
            folder, f"is not a data set (it holds no {DATASET_JSON})", "make one with 'usdata build RECIPE --raw RAW --out SET'"
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataSetError(path, f"is no readable JSON ({error})", "build the set again with 'usdata build'") from None
    if not isinstance(about, dict) or {"name", "digest", "classes", "schema_version"} - about.keys():
        raise DataSetError(path, "is not a data set's description", "build the set again with 'usdata build'")
    for key, kind in _ABOUT_KINDS.items():
        if key in about and not isinstance(about[key], kind):
            raise DataSetError(path, f"holds no {kind.__name__} as '{key}'", "build the set again with 'usdata build'")
    if not all(isinstance(name, str) for name in about["classes"]):
        raise DataSetError(path, "names classes that are no text", "build the set again with 'usdata build'")
    return about


def version_of(folder: Path, about: Mapping[str, Any]) -> int:
    """The schema version that `dataset.json` names.

    Raises:
        DataSetError: It is no version.
    """
    version = about["schema_version"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DataSetError(folder / DATASET_JSON, "names no schema version", "build the set again with 'usdata build'")
    return version


def is_inside(path: str) -> bool:
    """Whether a path of the tables stays in the data set's folder, by its text alone (a link may still lead out of it)."""
    place = PurePosixPath(path)
    return not place.is_absolute() and ".." not in place.parts and "\\" not in path and "\0" not in path


def duplicates_version(about: Mapping[str, Any]) -> int | None:
    """Version of the search for the same scan that a data set was made with, from its dataset.json; None where none was made."""
    version = about.get("duplicates", {}).get("version")
    return None if version is None else int(version)


def tables_digest(folder: Path) -> str:
    """The sha256 over the four tables' digests: what `dataset.json` calls `digest`."""
    lines = "".join(f"{name} {sha256_file(folder / name)}\n" for name in sorted(SCHEMAS))
    return hashlib.sha256(lines.encode("ascii")).hexdigest()


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write `dataset.json`; it is written last, so a folder that has one is whole."""
    write_json(folder / DATASET_JSON, {**about, "schema_version": SCHEMA_VERSION, "digest": tables_digest(folder)})
