"""Exact duplicates: clips with equal bytes, and stored frames with equal pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

# A picture that stands in more clips than this is a title card or a test pattern and says nothing of a scan.
MOST_CLIPS_OF_A_SCAN = 20


def exact_duplicates(
    videos: Iterable[Mapping[str, Any]], frames: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Pairs of clips that hold the same file or the same stored frames.

    Blank frames never reach a manifest, so equal pixels mean an equal picture.

    Args:
        videos: Rows with video_id, sha256 and status.
        frames: Rows with frame_id, video_id, frame_index and pixel_sha256.

    Returns:
        Rows of duplicates.parquet, and frame_id to duplicate_group for frames that stand in more than one clip.
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
        if len(clips) > MOST_CLIPS_OF_A_SCAN:
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

    by_file: dict[str, list[str]] = defaultdict(list)
    for video in videos:
        if video["sha256"] is not None and video["status"] == "ok":
            by_file[video["sha256"]].append(video["video_id"])
    for same in by_file.values():
        for a, b in combinations(sorted(same), 2):
            pairs[a, b] = _row(a, b, "file", 1.0, *({frame["frame_index"] for frame in by_frames[video]} for video in (a, b)))
    return [pairs[key] for key in sorted(pairs)], duplicate_group


def with_content(exact: Iterable[Mapping[str, Any]], scans: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of duplicates.parquet, one a pair: an exact one where there is one, else the one by content."""
    pairs = {(row["video_id_a"], row["video_id_b"]): dict(row) for row in (*scans, *exact)}
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
