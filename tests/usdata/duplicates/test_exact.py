"""Exact duplicates among planted ones."""

from itertools import product
from typing import Any

import pytest

from usdata.duplicates.exact import exact_duplicates


def video(name: str, sha256: str, *, packets: str | None = None, luma: str | None = None, unique: int = 9) -> dict[str, Any]:
    digests = {"sha256": sha256, "packets_sha256": packets, "luma_sha256": luma}
    return {"video_id": name, "frames_unique": unique, "status": "ok"} | digests


def frame(video_id: str, index: int, pixels: str, quality_std: float = 30.0) -> dict[str, Any]:
    row = {"frame_id": f"{video_id}/{index}", "video_id": video_id, "frame_index": index, "pixel_sha256": pixels}
    return row | {"quality_std": quality_std}


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


@pytest.mark.parametrize("equal", list(product((True, False), repeat=4)))
def test_the_strongest_kind_alone_is_told(equal: tuple[bool, ...]) -> None:
    """All sixteen ways in which two clips can be equal; the kept frames of the second are other ones, as another rule would keep."""
    a, b = (
        video(name, *("0" if file else name,), packets="0" if packets else name, luma="0" if luma else name)
        for name in ("s/a", "s/b")
        for file, packets, luma, _ in (equal,)
    )
    frames = [frame("s/a", 2, "x"), frame("s/a", 4, "y"), frame("s/b", 3, "x" if equal[3] else "z"), frame("s/b", 8, "w")]
    pairs, _ = exact_duplicates([b, a], frames)
    strongest = next((kind for kind, holds in zip(("file", "packets", "luma", "pixels"), equal, strict=True) if holds), None)
    assert [pair["kind"] for pair in pairs] == ([strongest] if strongest else [])
    for pair in pairs:
        places = [pair[f"{end}_frame_{clip}"] for clip in "ab" for end in ("first", "last")]
        assert (pair["score"], places) == ((0.5, [2, 2, 3, 3]) if strongest == "pixels" else (1.0, [2, 4, 3, 8]))


@pytest.mark.parametrize("unique", [0, 1])
def test_blank_and_title_clips_do_not_join(unique: int) -> None:
    """A clip of black frames, kept by a rule over all that decode, or one title card from end to end."""
    videos = [video(name, name, packets="0", luma="0", unique=unique) for name in ("s/a", "s/b")]
    assert exact_duplicates(videos, [frame("s/a", 0, "x"), frame("s/b", 0, "y")])[0] == []


def test_even_pictures_pair_no_clips() -> None:
    frames = [frame(name, 0, "black", quality_std=0.0) for name in ("s/a", "s/b")]
    assert exact_duplicates([video("s/a", "1"), video("s/b", "2")], frames)[0] == []


def test_what_was_not_kept_or_has_no_digest_joins_nothing() -> None:
    videos = [video("s/a", "1"), video("s/b", "2"), video("s/c", "3", luma="0"), video("s/d", "4", luma="0") | {"status": "excluded"}]
    assert exact_duplicates(videos, [])[0] == []
