"""Exact duplicates, in layers: clips with equal bytes, equal coded pictures, equal luma; and stored frames with equal pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

# Kinds of pairs that are equal as a whole, strongest first, with the column of videos.parquet that says so.
_DIGEST_OF_KIND = {"file": "sha256", "packets": "packets_sha256", "luma": "luma_sha256"}
WHOLE_CLIP_KINDS = tuple(_DIGEST_OF_KIND)
# A picture that stands in more clips than this is a title card or a test pattern and says nothing of a scan.
MOST_CLIPS_OF_A_SCAN = 20
# A clip of fewer unique frames is a picture and no scan: equal packets or luma then say no more than an equal picture does.
LEAST_UNIQUE_FRAMES = 2


def exact_duplicates(
    videos: Iterable[Mapping[str, Any]], frames: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Pairs of clips that hold the same file, the same coded pictures, the same decoded frames, or some of the same stored frames.

    Coded pictures and decoded frames say something of clips of at least two unique pictures alone: what is blank all the way through, or
    one title card, is equal to its like and no scan. Such clips are compared by their files and their stored frames.

    Args:
        videos: Rows with video_id, sha256, packets_sha256, luma_sha256, frames_unique and status.
        frames: Rows with frame_id, video_id, frame_index, pixel_sha256 and quality_std.

    Returns:
        Rows of duplicates.parquet, one a pair, of the strongest kind that holds: file, packets, luma, pixels. And frame_id to
        duplicate_group for frames that stand in more than one clip.
    """
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    by_frames: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    by_pixels: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for frame in sorted(frames, key=lambda row: (row["video_id"], row["frame_index"])):
        by_frames[frame["video_id"]].append(frame)
        by_pixels[frame["pixel_sha256"]].append(frame)

    duplicate_group: dict[str, str] = {}
    shared: dict[tuple[str, str], tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
    for equal in by_pixels.values():
        clips = {frame["video_id"] for frame in equal}
        if len(clips) < 2:
            continue
        first = min(frame["frame_id"] for frame in equal)
        duplicate_group |= {frame["frame_id"]: first for frame in equal}
        # A picture of one gray level, which a rule over all decoded frames keeps, says nothing either.
        if len(clips) > MOST_CLIPS_OF_A_SCAN or equal[0]["quality_std"] == 0:
            continue
        for frame_a, frame_b in combinations(equal, 2):
            if frame_a["video_id"] != frame_b["video_id"]:
                indices = shared[frame_a["video_id"], frame_b["video_id"]]
                indices[0].add(frame_a["frame_index"])
                indices[1].add(frame_b["frame_index"])
    for (a, b), (in_a, in_b) in shared.items():
        shorter, found = min((len(by_frames[a]), len(in_a)), (len(by_frames[b]), len(in_b)))
        score = found / shorter
        pairs[a, b] = _row(a, b, "pixels", score, in_a, in_b)

    read = [video for video in videos if video["status"] == "ok"]
    for kind, column in reversed(_DIGEST_OF_KIND.items()):  # the stronger one replaces the weaker
        by_digest: dict[str, list[str]] = defaultdict(list)
        for video in read:
            if video[column] is not None and (kind == "file" or video["frames_unique"] >= LEAST_UNIQUE_FRAMES):
                by_digest[video[column]].append(video["video_id"])
        for same in by_digest.values():
            for a, b in combinations(sorted(same), 2):
                pairs[a, b] = _row(a, b, kind, 1.0, *({frame["frame_index"] for frame in by_frames[video]} for video in (a, b)))
    return [pairs[key] for key in sorted(pairs)], duplicate_group


def with_content(exact: Iterable[Mapping[str, Any]], scans: Iterable[Mapping[str, Any]], join_score: float) -> list[dict[str, Any]]:
    """Rows of duplicates.parquet, one a pair: an exact one where there is one, else the one by content.

    Two clips that share a few equal frames, and show the same scan besides, are told by what they show.

    Args:
        exact: Rows of kind file, packets, luma and pixels.
        scans: Rows by content.
        join_score: From which share of equal frames on `pixels` says as much.
    """
    exact = list(exact)
    weak = [row for row in exact if row["kind"] == "pixels" and row["score"] < join_score]
    strong = [row for row in exact if row["kind"] != "pixels" or row["score"] >= join_score]
    pairs = {(row["video_id_a"], row["video_id_b"]): dict(row) for row in (*weak, *scans, *strong)}
    return [pairs[key] for key in sorted(pairs)]


def _row(a: str, b: str, kind: str, score: float, frames_a: set[int], frames_b: set[int]) -> dict[str, Any]:
    return {
        "video_id_a": a,
        "video_id_b": b,
        "kind": kind,
        "score": score,
        "motion": None,
        "scale": 1.0,
        "scale_y": 1.0,
        "shift_x": 0.0,
        "shift_y": 0.0,
        "flip": False,
        "first_frame_a": min(frames_a, default=0),
        "last_frame_a": max(frames_a, default=0),
        "first_frame_b": min(frames_b, default=0),
        "last_frame_b": max(frames_b, default=0),
    }
