"""Do the tables say the same as one another, and as dataset.json?

Comes in: the tables, as they were read. Goes out: promises. Guarantees: as in `usdata.validating.schema`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from usdata import manifest
from usdata.duplicates.leaks import find_leaks
from usdata.manifest import DUPLICATES, EXCLUDED, FRAMES, VIDEOS
from usdata.validating.promise import Promise
from usdata.validating.schema import AGAIN, places

COPIED = ("source", "patient_id", "group_id", "organ", "probe", "label")


def check_references(tables: Mapping[str, pa.Table]) -> Promise:
    """Every row of another table is of a clip that is there, and as it should be; no frame is both kept and left out."""
    videos, frames, excluded, pairs = (tables[name] for name in (VIDEOS, FRAMES, EXCLUDED, DUPLICATES))
    ids, kept = videos.column("video_id"), videos.filter(pc.equal(videos.column("status"), "ok")).column("video_id")
    broken = [f"{EXCLUDED}: {video} is no clip of {VIDEOS}" for video in _strangers(excluded.column("video_id"), ids)]
    broken += [f"{FRAMES}: {video} is no kept clip of {VIDEOS}" for video in _strangers(frames.column("video_id"), kept)]
    for column in ("video_id_a", "video_id_b"):
        broken += [f"{DUPLICATES}: {video} is no kept clip of {VIDEOS}" for video in _strangers(pairs.column(column), kept)]
    swapped = pc.greater_equal(pairs.column("video_id_a"), pairs.column("video_id_b"))
    broken += [f"{DUPLICATES}: {pairs.column('video_id_a')[place]} does not stand before its twin" for place in places(swapped)]
    named = _frame_ids(frames)
    wrong = pc.invert(pc.equal(named, frames.column("frame_id")))
    broken += [f"{FRAMES}: frame_id {frames.column('frame_id')[place]} should be {named[place]}" for place in places(wrong)]
    both = pc.is_in(_frame_ids(excluded), value_set=pc.unique(named))
    broken += [f"{_frame_ids(excluded)[place]} is both kept and excluded" for place in places(both)]
    rows = frames.num_rows + excluded.num_rows + pairs.num_rows
    return Promise(
        "references", "Each frame and pair is of clips that are there, and is named after them.", rows, "rows", tuple(broken), AGAIN
    )


def check_copies(tables: Mapping[str, pa.Table], about: Mapping[str, Any]) -> Promise:
    """What frames.parquet repeats of videos.parquet is the same there; label_index is the label's place among the classes."""
    videos, frames = tables[VIDEOS], tables[FRAMES]
    place = pc.index_in(frames.column("video_id"), value_set=videos.column("video_id").combine_chunks())
    broken = []
    for column in COPIED:
        original = videos.column(column).combine_chunks().take(place.combine_chunks())
        for row in places(_differ(frames.column(column).combine_chunks(), original)):
            found, wanted = frames.column(column)[row].as_py(), original[row].as_py()
            broken.append(f"{frames.column('frame_id')[row]}: {column} is {found}, of its clip {wanted}")
    classes = pa.array(list(about["classes"]), pa.string())
    wanted_index = pc.cast(pc.index_in(frames.column("label"), value_set=classes), pa.int64()).combine_chunks()
    for row in places(_differ(frames.column("label_index").combine_chunks(), wanted_index)):
        label, index = frames.column("label")[row].as_py(), frames.column("label_index")[row].as_py()
        broken.append(f"{frames.column('frame_id')[row]}: label_index {index} is not the place of '{label}' among the classes")
    text = "Frames carry their clip's source, patient, group and label, and its place among the classes."
    return Promise("copies", text, frames.num_rows, "frames", tuple(broken), AGAIN)


def check_counts(tables: Mapping[str, pa.Table], about: Mapping[str, Any]) -> Promise:
    """Decoded is kept plus excluded for every clip, and dataset.json counts what is there."""
    videos = tables[VIDEOS]
    kept, left_out = (_rows_of(tables[name], videos) for name in (FRAMES, EXCLUDED))
    ids, status = videos.column("video_id"), videos.column("status")
    broken = []
    for place in places(pc.not_equal(kept, videos.column("frames_kept").combine_chunks())):
        broken.append(f"{ids[place]}: frames_kept is {videos.column('frames_kept')[place]}, rows in {FRAMES} {kept[place]}")
    read = pc.not_equal(status, "failed")
    adds = pc.equal(pc.add(kept, left_out), videos.column("frames_decoded").combine_chunks())
    for place in places(pc.and_(read, pc.invert(adds))):
        decoded = videos.column("frames_decoded")[place]
        broken.append(f"{ids[place]}: {decoded} frames decoded, {kept[place]} kept and {left_out[place]} excluded")
    ok = pc.equal(status, "ok")
    for place in places(pc.xor(ok, pc.greater(kept, 0))):
        broken.append(f"{ids[place]}: its status is {status[place]}, and {kept[place]} frames of it are kept")
    for place in places(pc.xor(ok, pc.is_null(videos.column("reason")))):
        broken.append(f"{ids[place]}: its status is {status[place]}, and its reason '{videos.column('reason')[place]}'")
    found = {"found": videos.num_rows, "frames": tables[FRAMES].num_rows}
    found |= {name: pc.sum(pc.equal(status, name)).as_py() or 0 for name in manifest.STATUSES}
    told = about.get("counts", {})
    broken += [
        f"{manifest.DATASET_JSON}: counts.{name} is {told.get(name)}, in the tables {found[name]}"
        for name in found
        if told.get(name) != found[name]
    ]
    pairs = about.get("duplicates", {}).get("pairs")
    if pairs != tables[DUPLICATES].num_rows:
        broken.append(f"{manifest.DATASET_JSON}: duplicates.pairs is {pairs}, in the table {tables[DUPLICATES].num_rows}")
    text = "Nothing is lost: of every clip, decoded frames are kept or excluded with a reason, and the counts add up."
    return Promise("counts", text, videos.num_rows, "clips", tuple(broken), AGAIN)


def check_parts(tables: Mapping[str, pa.Table], about: Mapping[str, Any]) -> Promise:
    """No patient, clip, group, equal frame or verified pair stands in two folds or two splits; folds are numbered from 0."""
    frames = tables[FRAMES]
    columns = ["video_id", "source", "patient_id", "group_id", "duplicate_group"]
    pairs = tables[DUPLICATES].select(["video_id_a", "video_id_b"]).to_pandas()
    broken, checked = [], 0
    for part in ("split", "fold"):
        # A row for each clip and part, not for each frame: this is what makes a million frames quick.
        distinct = frames.select([*columns, part]).group_by([*columns, part]).aggregate([]).to_pandas().rename(columns={part: "part"})
        distinct["part"] = distinct["part"].map(lambda value: value if isinstance(value, str) else str(int(value)), na_action="ignore")
        leaks = find_leaks(distinct, pairs)
        checked += sum(leaks.checked.values())
        broken += [f"{kind.replace('_', ' ')}: {leak}" for kind, found in leaks.found.items() for leak in found]
    folds = sorted(pc.unique(frames.column("fold").drop_null()).to_pylist())
    # A set that could only be rebuilt in part may lack a whole fold, and keeps the others' numbers.
    if folds != list(range(len(folds))) and "rebuilt_from" not in about:
        broken.append(f"folds are numbered {', '.join(map(str, folds))}")
    text = "No patient, group, clip, equal frame or verified pair stands in two folds or two splits."
    return Promise(
        "parts", text, checked, "patients, groups, clips and pairs", tuple(broken), "make folds and splits anew with 'usdata split'"
    )


def _frame_ids(table: pa.Table) -> Any:
    return pc.binary_join_element_wise(table.column("video_id"), pc.cast(table.column("frame_index"), pa.string()), "/")


def _strangers(values: pa.ChunkedArray, known: pa.ChunkedArray) -> list[str]:
    found = pc.unique(values)
    return sorted(found.filter(pc.invert(pc.is_in(found, value_set=known.combine_chunks()))).to_pylist())


def _rows_of(table: pa.Table, videos: pa.Table) -> pa.Array:
    """Number of rows of each clip, in the order of videos.parquet."""
    counted = table.select(["video_id"]).group_by("video_id").aggregate([([], "count_all")])
    place = pc.index_in(videos.column("video_id"), value_set=counted.column("video_id").combine_chunks())
    return pc.fill_null(counted.column("count_all").combine_chunks().take(place.combine_chunks()), 0)


def _differ(a: pa.Array, b: pa.Array) -> pa.Array:
    """Where two arrays are not the same; two nulls are."""
    same = pc.fill_null(pc.equal(a, b), False)
    return pc.invert(pc.or_(same, pc.and_(pc.is_null(a), pc.is_null(b))))
