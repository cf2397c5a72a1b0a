"""Which clips that are evaluated were trained on, or share a patient or a group with one that was.

In: the record of what was trained on, and the clips of a data set. Out: the clips that were seen, each with the strongest reason. What is
equal is found by digests, what was re-encoded, cropped, mirrored or cut shorter by laying key frames on one another. Patients and groups
are compared by name within one source: pseudonyms of different secrets never meet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from usdata import manifest
from usdata.cataloguing.overlaps import known_overlaps
from usdata.duplicates.content import Match
from usdata.duplicates.exact import exact_duplicates
from usdata.duplicates.kept_matches import compared_with_record, kept_matches
from usdata.duplicates.record import Record, frames_of
from usdata.duplicates.search import Clips, same_scans
from usdata.engines import runner
from usdata.manifest import DataSet, read_table

# The strongest first; the first five are the same scan, verified.
KINDS = ("file", "packets", "luma", "pixels", "content", "view", "patient", "group")
SAME_SCAN = KINDS[:5]


@dataclass(frozen=True)
class Seen:
    """A clip that was trained on, or is not independent of one that was.

    Attributes:
        video_id: The clip that is evaluated.
        kind: Of KINDS, the strongest that holds.
        score: As in duplicates.parquet; 1 for a patient or a group.
        trained_on: video_id of the clip that was trained on; None where only its file's digest is known.
        trained_in: Name of the data set that it was taken from; None likewise.
        place: Of that clip in the record's rows.
    """

    video_id: str
    kind: str
    score: float
    trained_on: str | None
    trained_in: str | None
    place: int


def seen_clips(record: Record, dataset: DataSet, video_ids: Collection[str], *, workers: int | None = None) -> list[Seen]:
    """The clips of a data set that were seen, by name.

    Args:
        record: What was trained on.
        dataset: What is evaluated.
        video_ids: Which of its clips.
        workers: Processes; None: all processors.

    Raises:
        UserError: The record is damaged.
        DataSetError: The data set's key frames cannot be read.
    """
    wanted = set(video_ids)
    videos = [row for row in read_table(dataset.folder, manifest.VIDEOS).to_pylist() if row["video_id"] in wanted]
    found: dict[str, Seen] = {}
    _keep(found, _exact(record.rows, videos, frames_of(dataset, wanted)))
    # What is equal needs no closer look.
    rest = [row for row in videos if row["video_id"] not in found]
    _keep(found, _by_content(record, dataset.folder, rest, workers))
    for kind, column in (("patient", "patient_id"), ("group", "group_id")):
        _keep(found, _by_name(record.rows, videos, kind, column))
    return [found[name] for name in sorted(found)]


def _keep(found: dict[str, Seen], more: Sequence[Seen]) -> None:
    """Add the clips that are not among them yet, and replace those whose reason is weaker."""
    for seen in more:
        known = found.get(seen.video_id)
        if known is None or _strength(seen) < _strength(known):
            found[seen.video_id] = seen


def _strength(seen: Seen) -> tuple[int, float, int]:
    return KINDS.index(seen.kind), -seen.score, seen.place


def _seen(video_id: str, kind: str, score: float, rows: Sequence[Mapping[str, Any]], place: int) -> Seen:
    return Seen(video_id, kind, score, rows[place]["video_id"], rows[place]["dataset_name"], place)


def _exact(rows: Sequence[Mapping[str, Any]], videos: Sequence[Mapping[str, Any]], frames: Sequence[Mapping[str, Any]]) -> list[Seen]:
    """Equal files, coded pictures, luma, stored frames."""
    # Marks keep the two sides apart; "0" sorts before "1", so a pair names the trained clip first.
    both = [{**row, "video_id": f"0 {place:09d}", "status": "ok"} for place, row in enumerate(rows)]
    both += [{**row, "video_id": f"1 {row['video_id']}"} for row in videos]
    # Of what was trained on only the clips that share a picture: a large record has millions of frames.
    wanted = {frame["pixel_sha256"] for frame in frames}
    pictures = [
        {
            "frame_id": f"0 {place:09d} {index}",
            "video_id": f"0 {place:09d}",
            "frame_index": index,
            "pixel_sha256": digest,
            "quality_std": 1.0,
        }
        for place, row in enumerate(rows)
        if not wanted.isdisjoint(row["pixel_sha256"])
        for index, digest in enumerate(row["pixel_sha256"])
    ]
    pictures += [{**frame, "frame_id": f"1 {frame['frame_id']}", "video_id": f"1 {frame['video_id']}"} for frame in frames]
    pairs, _ = exact_duplicates(both, pictures)
    return [
        _seen(pair["video_id_b"][2:], pair["kind"], pair["score"], rows, int(pair["video_id_a"][2:]))
        for pair in pairs
        if pair["video_id_a"][0] == "0" and pair["video_id_b"][0] == "1"
    ]


def _by_content(record: Record, folder: Path, videos: Sequence[Mapping[str, Any]], workers: int | None) -> list[Seen]:
    """The same scan under other bytes."""
    evaluated = Clips.of(folder, videos)
    if not evaluated.rows or all(row["key_frames"] is None for row in record.rows):
        return []
    sources = {str(row["source"]) for row in record.rows if row["source"] is not None}, {str(row["source"]) for row in videos}
    hinted = bool(known_overlaps(*sources))

    def compared() -> list[Match]:
        with TemporaryDirectory(prefix="usdata-guard-") as place:
            return same_scans(record.unpack(Path(place)), evaluated, runner("local", workers), hinted=hinted)

    question = compared_with_record(record.path, videos, hinted)
    matches = kept_matches(folder, question, compared)
    return [_seen(match.b, match.kind, match.score, record.rows, int(match.a)) for match in matches]


def _by_name(rows: Sequence[Mapping[str, Any]], videos: Sequence[Mapping[str, Any]], kind: str, column: str) -> list[Seen]:
    """The same patient or group of the same source."""
    known: dict[tuple[str, str], int] = {}
    for place, row in enumerate(rows):
        if row["source"] is not None and row[column] is not None:
            known.setdefault((row["source"], row[column]), place)
    # A clip that is a group of its own has its own name for one, which says nothing in another set.
    named = [row for row in videos if row[column] is not None and not str(row[column]).partition("/")[2].startswith("video:")]
    keys = {row["video_id"]: (row["source"], row[column]) for row in named}
    return [_seen(video_id, kind, 1.0, rows, known[key]) for video_id, key in keys.items() if key in known]
