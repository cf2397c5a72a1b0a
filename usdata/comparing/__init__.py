"""Two versions of a data set, side by side: what was added, removed, relabelled, regrouped, moved, seen or stored otherwise.

In: two data set folders, A the earlier. Out: every difference as a value, the dangerous ones first. Guarantees: only tables and
dataset.json are read (pictures may be gone), nothing is written, and columns are compared whole, so that a million frames take seconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from usdata import manifest
from usdata.comparing import clips, descriptions, frames, parts
from usdata.comparing.result import Change, ColumnChange, CompareResult, FrameChanges, Side

__all__ = ["Change", "CompareResult", "compare"]

# Told by name in the result, or another one wherever the clip has another name.
_TOLD = {
    "video_id", "source", "patient_id", "group_id", "sha256", "label", "labels", "status", "reason", "frames_kept", "fov_kind", "fov_x",
    "fov_y", "fov_width", "fov_height", "fov_geometry", "fov_origin", "fov_views", "fov_polygon", "fov_stored_geometry",
}  # fmt: skip
_NAMED_AFTER_CLIP = {"overlay_path", "key_frames_path"}


def compare(a: str | Path, b: str | Path) -> CompareResult:
    """Tell what differs from one version of a data set to another.

    Args:
        a: The earlier version's folder; its tables and dataset.json are enough.
        b: The later one's.

    Raises:
        DataSetError: One is no data set or of another schema version, or names a clip or a frame twice.
    """
    folders = (Path(a), Path(b))
    opened = (manifest.open_dataset(folders[0]), manifest.open_dataset(folders[1]))
    videos = (manifest.read_table(folders[0], manifest.VIDEOS), manifest.read_table(folders[1], manifest.VIDEOS))
    duplicates = (manifest.read_table(folders[0], manifest.DUPLICATES), manifest.read_table(folders[1], manifest.DUPLICATES))
    matching = clips.match(*videos, folders)
    framed = (frames.read_frames(folders[0], matching.ids_a), frames.read_frames(folders[1], matching.ids_b))
    matched = frames.match_frames(framed, matching, folders)
    in_parts = (parts.parts_of(folders[0], framed[0]), parts.parts_of(folders[1], framed[1]))
    folds = (parts.folds_of(folders[0], framed[0]), parts.folds_of(folders[1], framed[1]))
    moved_folds, fold_names = parts.fold_moves(folds, matching)
    alone = {"a": matching.alone("a"), "b": matching.alone("b")}
    excluded, excluded_rows = frames.excluded_reasons(folders)
    classes, label_index = descriptions.classes_changes(opened[0].about, opened[1].about)
    grouped = [clips.objects(table, "group_id", places).tolist() for table, places in zip(videos, (matching.a, matching.b), strict=True)]
    patients = [clips.patients_of(table)[places].tolist() for table, places in zip(videos, (matching.a, matching.b), strict=True)]
    names = [str(name) for name in matching.names]
    return CompareResult(
        a=_side(opened[0], called(folders)[0], videos[0].num_rows, len(framed[0].clip)),
        b=_side(opened[1], called(folders)[1], videos[1].num_rows, len(framed[1].clip)),
        crossings=parts.crossings(videos, in_parts, matching),
        clips_both=len(matching.a),
        clips_added=tuple(sorted(matching.ids_b[alone["b"]])),
        clips_removed=tuple(sorted(matching.ids_a[alone["a"]])),
        clips_renamed=tuple(
            Change(str(after), str(before), str(after))
            for before, after in zip(matching.ids_a[matching.a[matching.renamed]], matching.names[matching.renamed], strict=True)
        ),
        clips_changed=clips.column_changes(videos, matching, "sha256"),
        status=clips.status_changes(videos, matching),
        labels=clips.column_changes(videos, matching, "label"),
        source_labels=clips.column_changes(videos, matching, "labels"),
        patients=clips.regrouped(patients[0], patients[1], names),
        groups=clips.regrouped(grouped[0], grouped[1], names),
        splits=parts.split_moves(in_parts, matching),
        folds=moved_folds,
        fold_names=fold_names,
        frames=FrameChanges(
            by_clip=frames.by_clip(framed, matching, matched, frames.column_differs(folders, matched, "pixel_sha256")),
            in_added_clips=int(np.isin(framed[1].clip, alone["b"]).sum()),
            in_removed_clips=int(np.isin(framed[0].clip, alone["a"]).sum()),
            moved=int(frames.column_differs(folders, matched, "split").sum()),
        ),
        excluded=excluded,
        excluded_rows=excluded_rows,
        fields_of_view=clips.field_of_view_changes(videos, matching),
        classes=classes,
        label_index=label_index,
        duplicates=clips.duplicate_changes(duplicates, matching),
        columns=_columns(videos, folders, matching, matched, equal_classes=not classes),
        recipe=descriptions.recipe_changes(opened[0].about, opened[1].about),
        versions=descriptions.version_changes(opened[0].about, opened[1].about),
        about=descriptions.other_changes(opened[0].about, opened[1].about),
        counts=parts.counts(videos, in_parts),
    )


def called(folders: tuple[Path, Path]) -> tuple[str, str]:
    """What the two are called: the folders' names, or the paths as they were given where the names are one."""
    names = (folders[0].resolve().name, folders[1].resolve().name)
    return names if names[0] != names[1] else (str(folders[0]), str(folders[1]))


def _side(dataset: manifest.DataSet, name: str, number_of_clips: int, number_of_frames: int) -> Side:
    return Side(name, dataset.name, dataset.digest, int(dataset.about["schema_version"]), number_of_clips, number_of_frames)


def _columns(
    videos: tuple[pa.Table, pa.Table],
    folders: tuple[Path, Path],
    matching: clips.Matching,
    matched: frames.MatchedFrames,
    *,
    equal_classes: bool,
) -> tuple[ColumnChange, ...]:
    found = []
    of_clip = {}
    for column in manifest.VIDEOS_SCHEMA.names:
        if column in _TOLD and column not in manifest.FRAMES_SCHEMA.names:
            continue
        flags = clips.changed(videos, matching, column)
        of_clip[column] = flags
        if column in _NAMED_AFTER_CLIP:
            flags = flags & ~matching.renamed
        if column not in _TOLD and flags.any():
            first = matching.names[np.flatnonzero(flags)[: frames.FIRST]]
            found.append(ColumnChange("videos", column, int(flags.sum()), tuple(map(str, first))))
    return (*found, *frames.frame_columns(folders, matching, matched, of_clip, equal_classes=equal_classes))
