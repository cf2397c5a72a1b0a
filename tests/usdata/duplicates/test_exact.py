"""Exact duplicates among planted ones."""

from typing import Any

from usdata.duplicates.exact import exact_duplicates


def video(name: str, sha256: str) -> dict[str, Any]:
    return {"video_id": name, "sha256": sha256, "status": "ok"}


def frame(video_id: str, index: int, pixels: str) -> dict[str, Any]:
    return {"frame_id": f"{video_id}/{index}", "video_id": video_id, "frame_index": index, "pixel_sha256": pixels}


def test_equal_files_and_equal_frames_are_found_and_scored() -> None:
    videos = [video("s/a", "1"), video("s/b", "1"), video("s/c", "2"), video("s/d", "3")]
    frames = [frame(name, index, f"ab{index}") for name in ("s/a", "s/b") for index in (0, 4)]
    frames += [frame("s/c", 0, "c0"), frame("s/c", 1, "shared"), frame("s/c", 2, "c2"), frame("s/c", 3, "c3")]
    frames += [frame("s/d", 7, "shared"), frame("s/d", 8, "d8")]
    pairs, groups = exact_duplicates(videos, frames)
    assert [(pair["video_id_a"], pair["video_id_b"], pair["kind"], pair["score"]) for pair in pairs] == [
        ("s/a", "s/b", "file", 1.0),
        ("s/c", "s/d", "pixels", 0.5),
    ]
    assert (pairs[1]["first_frame_a"], pairs[1]["first_frame_b"]) == (1, 7)
    assert groups == {"s/a/0": "s/a/0", "s/b/0": "s/a/0", "s/a/4": "s/a/4", "s/b/4": "s/a/4", "s/c/1": "s/c/1", "s/d/7": "s/c/1"}


def test_repeats_inside_one_clip_are_no_duplicates_of_clips() -> None:
    pairs, groups = exact_duplicates([video("s/a", "1")], [frame("s/a", 0, "x"), frame("s/a", 9, "x")])
    assert (pairs, groups) == ([], {})
