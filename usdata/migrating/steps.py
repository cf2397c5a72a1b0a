"""What changed from one schema version to the next, and how a set is brought one version further.

In: the tables and description of a set of version N. Out: those of version N + 1, and sentences on what could not be known. Guarantees:
what stood in a table stays as it is; a new column is computed from what is there, or null, or the step is refused; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from usdata.console import progress
from usdata.errors import DataSetError
from usdata.manifest import DUPLICATES, EXCLUDED, FRAMES, VIDEOS

TEXT, WHOLE, PIXELS, REAL = pa.string(), pa.int64(), pa.int32(), pa.float64()

# Version to the columns that came with it, by table. No version took a column away.
ADDED: Mapping[int, Mapping[str, Mapping[str, pa.DataType]]] = {
    2: {VIDEOS: {"rate_source": TEXT, "notes": pa.list_(TEXT), "device": TEXT, "colour_kind": TEXT, "regions": TEXT}},
    3: {
        VIDEOS: {
            **dict.fromkeys(("mode", "fov_polygon", "fov_stored_geometry"), TEXT),
            **{"fov_confidence": REAL, "fov_origin": TEXT, "fov_views": PIXELS},
            **{"overlays": pa.list_(TEXT), "overlay_share": REAL, "overlay_path": TEXT, "ruler": TEXT, "spacing_source": TEXT},
            **{"depth_mm": REAL, "period_frames": WHOLE, "patient_sex": TEXT, "patient_age": TEXT, "study_year": PIXELS},
            **dict.fromkeys(("review", "review_reason", "reviewer", "reviewed_on"), TEXT),
        },
        FRAMES: {"quality_contrast": REAL, "quality_saturation": REAL},
    },
    4: {
        VIDEOS: {
            **{"packets_sha256": TEXT, "luma_sha256": TEXT},
            **{"key_frames_path": TEXT, "key_frames": pa.list_(WHOLE), "key_frames_box": pa.list_(PIXELS)},
        },
        EXCLUDED: {"similarity": REAL},
        DUPLICATES: {"motion": REAL, "scale_y": REAL},
    },
    5: {VIDEOS: {"overlay_sha256": TEXT, "key_frames_sha256": TEXT}},
}

# Version to what it brought, for the contract's page.
CHANGES: Mapping[int, str] = {
    1: "the first: `videos`, `frames`, `excluded` and `duplicates`",
    2: "what a file says of its rate, device, colours and regions, and notes on what was not believed",
    3: "the field of view, overlays, modes, depth and ruler, a patient's sex and age band, reviews; contrast and saturation of frames",
    4: "digests of packets and luma, key frames, pairs of clips found by content; redundant frames with their likeness",
    5: "digests of the pictures of key frames and of the masks of overlays",
}


@dataclass(frozen=True)
class Stage:
    """A set on its way.

    Attributes:
        folder: Where its pictures lie; they are only read.
        version: The schema version of the tables as they are now.
        about: dataset.json.
        tables: File name to table.
        computed: Sentences on what was made from the pictures.
        unknown: Sentences on what stays unknown.
    """

    folder: Path
    version: int
    about: dict[str, Any]
    tables: dict[str, pa.Table]
    computed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = field(default=())


def to_2(stage: Stage) -> Stage:
    """Facts of the file that version 1 did not ask for are unknown; the notes say so."""
    videos = stage.tables[VIDEOS]
    notes = [["made under schema version 1, which kept no notes"]] * len(videos)
    tables = stage.tables | {VIDEOS: _with(videos, 2, VIDEOS, {"notes": notes})}
    said = "rate_source, device, colour_kind and regions of all clips are null, and their notes say that none were kept"
    return replace(stage, version=2, tables=tables, unknown=(*stage.unknown, said))


def to_3(stage: Stage) -> Stage:
    """Contrast and saturation of each frame are measured on its picture, for they may not be null; what is seen of a clip is unknown.

    Raises:
        DataSetError: A picture is missing or another one.
    """
    videos, frames = stage.tables[VIDEOS], stage.tables[FRAMES]
    overlays = [["unknown"] if status == "ok" else [] for status in videos.column("status").to_pylist()]
    measured = _measured(stage.folder, frames)
    tables = {VIDEOS: _with(videos, 3, VIDEOS, {"overlays": overlays}), FRAMES: _with(frames, 3, FRAMES, measured)}
    computed = f"quality_contrast and quality_saturation of {len(frames):,} frames were measured on their pictures"
    said = (
        "mode, field of view, ruler, depth, loops, the patient's sex and age band and reviews of all clips are null, and their overlays "
        "are 'unknown': nobody looked"
    )
    return replace(stage, version=3, tables=stage.tables | tables, computed=(*stage.computed, computed), unknown=(*stage.unknown, said))


def to_4(stage: Stage) -> Stage:
    """Digests and key frames, which need the raw clips, are null; of pairs, which all have equal pictures, both scales are one."""
    pairs = stage.tables[DUPLICATES]
    tables = {
        VIDEOS: _with(stage.tables[VIDEOS], 4, VIDEOS, {}),
        EXCLUDED: _with(stage.tables[EXCLUDED], 4, EXCLUDED, {}),
        DUPLICATES: _with(pairs, 4, DUPLICATES, {"scale_y": pairs.column("scale").to_pylist()}),
    }
    # No version: nobody searched for the same scan by content, and the audit does not renew what was never made.
    about = stage.about | {"duplicates": {"version": None, "pairs": len(pairs)}}
    said = (
        "packets_sha256, luma_sha256 and key frames of all clips are null: the same scan under another name is known only where files or "
        "stored frames are equal"
    )
    return replace(stage, version=4, about=about, tables=stage.tables | tables, unknown=(*stage.unknown, said))


def to_5(stage: Stage) -> Stage:
    """Digests of key frames and of masks are made of these pictures; null where a picture cannot be read."""
    videos = stage.tables[VIDEOS]
    paths = {name: videos.column(f"{name}_path").to_pylist() for name in ("overlay", "key_frames")}
    digests: dict[str, list[str | None]] = {}
    lost = 0
    with progress("reading pictures", sum(len(column) for column in paths.values()), "pictures") as advance:
        for name, column in paths.items():
            digests[f"{name}_sha256"] = []
            for path in column:
                digest = None if path is None else _digest(stage.folder, path)
                lost += path is not None and digest is None
                digests[f"{name}_sha256"].append(digest)
                advance(1)
    made = sum(digest is not None for column in digests.values() for digest in column)
    computed = [f"overlay_sha256 and key_frames_sha256 were made of {made:,} pictures"] if made else []
    missing = "picture is missing or cannot be read" if lost == 1 else "pictures are missing or cannot be read"
    said = [f"{lost:,} {missing}: its digest is null" if lost == 1 else f"{lost:,} {missing}: their digests are null"] if lost else []
    tables = stage.tables | {VIDEOS: _with(videos, 5, VIDEOS, digests)}
    return replace(stage, version=5, tables=tables, computed=(*stage.computed, *computed), unknown=(*stage.unknown, *said))


# From a version to the step that leads one further.
STEPS: Mapping[int, Callable[[Stage], Stage]] = {1: to_2, 2: to_3, 3: to_4, 4: to_5}


def _with(table: pa.Table, version: int, name: str, values: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A table with the columns that a version added: these values, null where none are given."""
    for column, kind in ADDED[version][name].items():
        made = pa.array(values[column], type=kind) if column in values else pa.nulls(len(table), kind)
        table = table.append_column(column, made)
    return table


def _measured(folder: Path, frames: pa.Table) -> dict[str, list[float]]:
    from usdata.stored_images import frame_measures
    from usdata.stored_pixels import stored_pixels

    measured: dict[str, list[float]] = {column: [] for column in ADDED[3][FRAMES]}
    rows = frames.select(["path", "pixel_sha256"]).to_pylist()
    with progress("measuring frames", len(rows), "frames") as advance:
        for row in rows:
            try:
                pixels = stored_pixels(folder, row["path"], pixel_sha256=row["pixel_sha256"])
            except DataSetError as error:
                reason = f"{error.reason}, and contrast and saturation of frames, which schema version 3 needs, are measured on it"
                raise DataSetError(error.subject, reason, "build the set again with 'usdata build'") from None
            measures = frame_measures(pixels)
            for column, values in measured.items():
                values.append(measures[column])
            advance(1)
    return measured


def _digest(folder: Path, path: str) -> str | None:
    from usdata.duplicates.fingerprints import pixel_digest
    from usdata.stored_pixels import stored_pixels

    try:
        return pixel_digest(stored_pixels(folder, path))
    except DataSetError:
        return None  # the caller counts and tells them
