"""The tables of a data set without clips that could not be made again.

Comes in: the published manifest, and the reason of each such clip. Goes out: tables and dataset.json of what is there. Guarantees: the
clips that are left out stay rows, failed with their reason; groups, splits and folds of the others stay as they were published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from usdata import manifest

PREFIX = "not rebuilt: "


def write_without(opened: manifest.DataSet, folder: Path, faults: Mapping[str, Sequence[str]]) -> None:
    """Write the four tables and dataset.json.

    Args:
        opened: The published manifest.
        folder: Where to.
        faults: video_id to why the clip is left out.
    """
    tables = {name: manifest.read_table(opened.folder, name).select(manifest.SCHEMAS[name].names) for name in manifest.SCHEMAS}
    gone = pa.array(sorted(faults))
    videos = [_without_pictures(row, faults.get(row["video_id"])) for row in tables[manifest.VIDEOS].to_pylist()]
    frames = tables[manifest.FRAMES].filter(pc.invert(pc.is_in(tables[manifest.FRAMES].column("video_id"), value_set=gone)))
    frames = _shared_with_others(frames)
    excluded = tables[manifest.EXCLUDED].filter(pc.invert(pc.is_in(tables[manifest.EXCLUDED].column("video_id"), value_set=gone)))
    pairs = tables[manifest.DUPLICATES]
    either = pc.or_(pc.is_in(pairs.column("video_id_a"), value_set=gone), pc.is_in(pairs.column("video_id_b"), value_set=gone))
    pairs = pairs.filter(pc.invert(either))
    rows = {
        manifest.VIDEOS: videos,
        manifest.FRAMES: frames,
        manifest.EXCLUDED: excluded.to_pylist(),
        manifest.DUPLICATES: pairs.to_pylist(),
    }
    for name, table_rows in rows.items():
        table = manifest.table_from_rows(name, table_rows)
        manifest.write_table(folder, name, table, recipe_digest=str(opened.about["recipe_digest"]))
    statuses = [row["status"] for row in videos]
    counts = {"found": len(videos), **{status: statuses.count(status) for status in manifest.STATUSES}, "frames": len(frames)}
    licences = sorted(str(row["licence"] or "unknown") for row in videos if row["status"] == "ok")
    about = dict(opened.about) | {
        "counts": counts,
        "duplicates": dict(opened.about.get("duplicates", {})) | {"pairs": pairs.num_rows},
        "licences": {name: licences.count(name) for name in licences},
        "rebuilt_from": {"digest": opened.digest, "left_out": len(faults)},
    }
    # It is no longer what the recipe makes of the raw files, and must not be taken for it.
    about = {key: value for key, value in about.items() if key not in ("input_digest", "digest", "schema_version")}
    manifest.write_about(folder, about)


def _without_pictures(row: dict[str, object], why: Sequence[str] | None) -> dict[str, object]:
    if why is None:
        return row
    nothing = dict.fromkeys(("overlay_path", "overlay_sha256", "key_frames_path", "key_frames_sha256", "key_frames", "key_frames_box"))
    return row | nothing | {"status": "failed", "reason": PREFIX + "; ".join(why), "frames_kept": 0}


def _shared_with_others(frames: pa.Table) -> list[dict[str, object]]:
    """Rows of frames; what was equal to frames of clips that are gone alone is equal to nothing now, and is named after the first left."""
    rows: list[dict[str, object]] = frames.to_pylist()
    first: dict[object, object] = {}
    clips: dict[object, set[object]] = {}
    for row in rows:
        if row["duplicate_group"] is not None:
            first.setdefault(row["duplicate_group"], row["frame_id"])
            clips.setdefault(row["duplicate_group"], set()).add(row["video_id"])
    for row in rows:
        group = row["duplicate_group"]
        row["duplicate_group"] = first[group] if group is not None and len(clips[group]) > 1 else None
    return rows
