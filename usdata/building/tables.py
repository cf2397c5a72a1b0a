"""What needs all clips: exact duplicates, groups, label indices, folds; then the four tables and, last, dataset.json."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from usdata import manifest
from usdata.duplicates.content import CONTENT_KINDS
from usdata.duplicates.exact import WHOLE_CLIP_KINDS, exact_duplicates, with_content
from usdata.duplicates.groups import independent_units
from usdata.duplicates.search import VERSION as DUPLICATES_VERSION
from usdata.errors import UserError
from usdata.layouts import RawVideo, assign_groups
from usdata.privacy.identifiers import Identifiers
from usdata.privacy.statement import statement
from usdata.recipe import Recipe
from usdata.splits import fold_of_groups, label_counts, split_of_groups


@lru_cache(maxsize=1)
def decoder_versions() -> dict[str, str]:
    """Versions of what decides about pixels and bytes; they are part of a build's identity."""
    packages = ("av", "decord", "h5py", "imagecodecs", "nibabel", "numpy", "opencv-python-headless", "pillow", "pyarrow", "pydicom")
    return {name: found for name in packages if (found := _version_of(name)) is not None}


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_tables(
    rows: Sequence[RawVideo],
    results: Mapping[str, dict[str, Any]],
    hashes: Mapping[str, tuple[str, int]],
    recipe: Recipe,
    folder: Path,
    identity: Mapping[str, str],
    identifiers: Identifiers,
    scans: Sequence[Mapping[str, Any]] = (),
) -> tuple[dict[str, Any], list[str]]:
    """What needs all clips: exact duplicates, groups, label indices, folds; then the four tables and, last, dataset.json. Also notes.

    `identity` is what tells this build's input from another one's (`usdata.building.identity`).
    """
    videos = [_video_row(row, results[row.video_id], hashes.get(row.path)) | _reviewed(row.video_id, recipe) for row in rows]
    _clear(videos, identifiers)
    facts = {video["video_id"]: video for video in videos}
    frames: list[dict[str, Any]] = [
        {**frame, "frame_id": f"{video_id}/{frame['frame_index']}", "video_id": video_id}
        for video_id, result in results.items()
        if facts[video_id]["status"] == "ok"
        for frame in result["kept"]
    ]
    exact, duplicate_group = exact_duplicates(videos, frames)
    pairs = with_content(exact, scans, recipe.duplicates.join_score)
    sure = {*WHOLE_CLIP_KINDS, *CONTENT_KINDS}
    same_scan = [pair for pair in pairs if pair["kind"] in sure or pair["score"] >= recipe.duplicates.join_score]
    groups = assign_groups(rows, [(pair["video_id_a"], pair["video_id_b"]) for pair in same_scan])
    for video in videos:
        video["group_id"] = groups[video["video_id"]]
    classes = _classes(recipe, videos)
    shared_frames = [{"video_id": frame["video_id"], "duplicate_group": duplicate_group.get(frame["frame_id"])} for frame in frames]
    units, notes = _units(independent_units(videos, shared_frames, pairs), {groups[frame["video_id"]] for frame in frames}, recipe)
    counts = label_counts([(units[groups[frame["video_id"]]], facts[frame["video_id"]]["label"]) for frame in frames])
    folds, splits = fold_of_groups(counts, recipe.folds), split_of_groups(counts, recipe.split)
    for frame in frames:
        video = facts[frame["video_id"]]
        shared = {key: video[key] for key in ("source", "patient_id", "group_id", "organ", "probe", "label")}
        frame |= shared | {
            "label_index": None if video["label"] is None else classes.index(video["label"]),
            "split": splits[units[video["group_id"]]],
            "fold": folds[units[video["group_id"]]],
            "duplicate_group": duplicate_group.get(frame["frame_id"]),
        }
    excluded = [
        {**frame, "video_id": video_id, "source": facts[video_id]["source"]}
        for video_id, result in results.items()
        for frame in result["excluded"]
    ]
    tables = {manifest.VIDEOS: videos, manifest.FRAMES: frames, manifest.EXCLUDED: excluded, manifest.DUPLICATES: pairs}
    for name, table_rows in tables.items():
        manifest.write_table(folder, name, manifest.table_from_rows(name, table_rows), recipe_digest=recipe.digest)
    statuses = Counter(video["status"] for video in videos)
    about = {
        "name": recipe.name,
        "description": recipe.description,
        "recipe": recipe.model_dump(mode="json"),
        "recipe_digest": recipe.digest,
        **identity,
        "classes": classes,
        "counts": {"found": len(videos), **{status: statuses[status] for status in manifest.STATUSES}, "frames": len(frames)},
        "duplicates": {"version": DUPLICATES_VERSION if recipe.duplicates.content else None, "pairs": len(pairs)},
        "privacy": statement(recipe),
        "licences": dict(sorted(Counter(video["licence"] or "unknown" for video in videos if video["status"] == "ok").items())),
        "versions": {**decoder_versions(), "python": platform.python_version(), "usdata": version("usdata-uscl")},
    }
    manifest.write_about(folder, about)
    return manifest.open_dataset(folder).about, [*notes, *_notes(recipe, counts, folds, splits)]


def _classes(recipe: Recipe, videos: Sequence[Mapping[str, Any]]) -> list[str]:
    found = sorted({video["label"] for video in videos if video["label"] is not None and video["status"] == "ok"})
    if recipe.classes is None:
        return found
    if unknown := [label for label in found if label not in recipe.classes]:
        raise UserError(f"label '{unknown[0]}'", "is not among the recipe's classes", "add it to 'classes', or map it with 'label_map'")
    return list(recipe.classes)


def _video_row(row: RawVideo, result: Mapping[str, Any], raw: tuple[str, int] | None) -> dict[str, Any]:
    facts = dict(result["video"])
    # What the recipe says goes before what the file says.
    told = {key: facts.pop(key) for key in ("manufacturer", "mm_per_pixel_x", "mm_per_pixel_y")}
    told |= {key: float(row.facts[key]) for key in ("mm_per_pixel_x", "mm_per_pixel_y") if key in row.facts}
    told |= {key: row.facts[key] for key in ("manufacturer",) if key in row.facts}
    if "mm_per_pixel_x" in row.facts:
        facts["spacing_source"] = "recipe"
    return {
        "video_id": row.video_id,
        "source": row.source,
        "patient_id": row.patient_id,
        "path": row.public_path,
        "sha256": raw[0] if raw else None,
        "bytes": raw[1] if raw else 0,
        **{key: row.facts.get(key) for key in ("organ", "probe", "view", "label", "licence")},
        "probe": row.facts.get("probe") or row.told.get("probe"),
        **told,
        "labels": list(row.labels),
        **dict.fromkeys(_NOT_DETERMINED),
        "patient_sex": row.told.get("patient_sex"),
        "patient_age": row.told.get("patient_age"),
        "study_year": int(row.told["study_year"]) if "study_year" in row.told else None,
        "depth_mm": float(row.told["depth_mm"]) if "depth_mm" in row.told else None,
        "overlays": [],
        **facts,
        "status": result["status"],
        "reason": result["reason"],
        "frames_kept": len(result["kept"]),
    }


def _reviewed(video_id: str, recipe: Recipe) -> dict[str, Any]:
    answer = recipe.review.get(video_id)
    return {} if answer is None else {"reviewer": answer.reviewer, "reviewed_on": answer.date.isoformat()}


def _clear(videos: list[dict[str, Any]], identifiers: Identifiers) -> None:
    """The last look at what a file brought: a device that holds an identifier is left out, a sentence that does stops the build."""
    if not identifiers:
        return
    for video in videos:
        for column in ("manufacturer", "device"):
            if video[column] is not None and identifiers.in_text(video[column]):
                video[column] = None
                video["notes"] = [*video["notes"], f"{column}: held an identifier, left out"]
        for text in (video["reason"], video["review_reason"], *video["notes"]):
            if text is not None and identifiers.in_text(text):
                advice = "set 'paths: pseudonym' for the source, or leave the clip out"
                raise UserError(video["path"], "what is told of this clip holds a private id of a table or header", advice)


# Columns that are null unless the per-video step, the file's header or a review says otherwise.
_NOT_DETERMINED = (
    "mode", "fov_kind", "fov_x", "fov_y", "fov_width", "fov_height", "fov_geometry", "fov_polygon", "fov_stored_geometry",
    "fov_confidence", "fov_origin", "fov_views", "overlay_share", "overlay_path", "overlay_sha256", "ruler", "spacing_source",
    "depth_mm", "period_frames", "patient_sex", "patient_age", "study_year", "review", "review_reason", "reviewer", "reviewed_on",
    "key_frames_path", "key_frames_sha256", "key_frames", "key_frames_box",
)  # fmt: skip


def _units(units: dict[str, str], groups: set[str], recipe: Recipe) -> tuple[dict[str, str], list[str]]:
    """What stands together in folds and splits, of the groups that have frames; and what is to be told of it.

    A title card in every clip leaves nothing independent, and so no folds at all: these are made of the groups then, as they always can.
    """
    independent = len({units[group] for group in groups})
    if independent == len(groups):
        return units, []
    if independent >= recipe.folds.count:
        return units, [f"{len(groups)} groups stand together as {independent} in folds and splits, because clips of them share frames"]
    told = f"{len(groups)} groups share frames and leave {independent} independent, too few for {recipe.folds.count} folds"
    follow = "folds and splits follow group_id alone, and the audit names what stands in two"
    return {group: group for group in units}, [f"{told}: {follow}"] if recipe.folds.count <= len(groups) else []


def _notes(recipe: Recipe, groups: Mapping[str, object], folds: Mapping[str, int | None], splits: Mapping[str, str]) -> list[str]:
    """What was asked for and could not be made of the groups that there are."""
    notes = []
    if recipe.folds.count > 1 and None in folds.values():
        notes.append(f"no folds were made: {len(groups)} groups are too few for {recipe.folds.count}")
    for part, share in (("val", recipe.split.val), ("test", recipe.split.test)):
        if share and part not in splits.values():
            notes.append(f"split '{part}' is empty: {len(groups)} groups are too few for a share of {share:g}")
    return notes


def source_counts(recipe: Recipe, kept: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """What each source gives beside what a whole copy of it gives.

    Args:
        recipe: With its expectations.
        kept: Source to the frames kept of each of its clips.
    """
    return [
        {
            "source": source.name,
            "clips": len(kept.get(source.name, ())),
            "clips_expected": source.expected.videos,
            "frames": sum(kept.get(source.name, ())),
            "frames_expected": source.expected.frames,
        }
        for source in recipe.sources
    ]


def unexpected_counts(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where a source gives other numbers of clips or frames than a whole copy of it."""
    notes = []
    for row in sources:
        expected = {unit: row[f"{unit}_expected"] for unit in ("clips", "frames")}
        other = [f"{row[unit]:,} of {number:,} {unit}" for unit, number in expected.items() if number not in (None, row[unit])]
        if other:
            notes.append(f"source '{row['source']}' gives {' and '.join(other)} of a whole copy")
    return notes
