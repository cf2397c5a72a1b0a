"""The same scan by its pictures: signatures against planted changes, matching against brute force, order and mirrors."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from usdata.duplicates.content import BLOCK, CANDIDATE, SAME, _rising, candidates, matches, verified
from usdata.duplicates.signatures import CUTS, SIDE, ClipSignature, coarser, correlations, flipped, lit_box, signature


def tissue(seed: int, frames: int = 8, side: int = 200) -> np.ndarray:
    """Speckle that drifts a little, of one make for all seeds."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((side + 2 * frames, side + 2 * frames)).astype(np.float32), (0, 0), 2.5)
    noise = np.clip((noise - noise.mean()) / noise.std() * 30 + 80, 0, 255).astype(np.uint8)
    return np.stack([noise[2 * place : 2 * place + side, place : place + side] for place in range(frames)])


def clip(name: str, pictures: np.ndarray) -> ClipSignature:
    vectors = [vector for picture in pictures if (vector := signature(picture)) is not None]
    indices = np.arange(len(vectors), dtype=np.int64)
    both = np.stack(vectors)[:, None].repeat(CUTS, axis=1)
    return ClipSignature(name, indices, tuple(f"{name}/{index}.png" for index in indices), both)


def test_signatures_are_unit_vectors_and_stand_what_files_go_through() -> None:
    picture = tissue(0)[0]
    plain = signature(picture)
    assert plain is not None
    assert plain.shape == (SIDE * SIDE,)
    assert float(plain @ plain) == pytest.approx(1.0, abs=1e-5)
    bright = (255 * (picture / 255.0) ** 0.7).astype(np.uint8)
    large = cv2.resize(picture, (320, 320), interpolation=cv2.INTER_CUBIC)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)
    padded = np.pad(picture, ((30, 10), (5, 50)))
    for other, box in ((bright, None), (large, None), (jpeg, None), (padded, (5, 30, 200, 200))):
        vector = signature(np.asarray(other, np.uint8), box)
        assert vector is not None
        assert float(plain @ vector) > 0.85
    stranger = signature(tissue(1)[0])
    assert stranger is not None
    assert abs(float(plain @ stranger)) < 0.2
    mirrored = signature(np.ascontiguousarray(picture[:, ::-1]))
    assert mirrored is not None
    assert float(flipped(plain[None])[0] @ mirrored) > 0.95


def test_frames_are_compared_by_the_cuts_that_agree() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(3 + place, CUTS, 50)).astype(np.float32) for place in range(2))
    found = correlations(a, b)
    assert found.shape == (3, 4)
    assert found[1, 2] == pytest.approx(max(float(one @ other) for one in a[1] for other in b[2]), rel=1e-5)
    picture = np.zeros((60, 80), np.uint8)
    picture[10:30, 20:70] = 90
    picture[5, 3] = 255  # a speck is no part of the picture
    assert lit_box([picture, np.zeros_like(picture)]) == (20, 10, 50, 20)
    assert lit_box([np.zeros_like(picture)]) is None


def test_dark_and_flat_frames_have_none() -> None:
    assert signature(np.zeros((100, 100), np.uint8)) is None
    assert signature(np.full((100, 100), 90, np.uint8)) is None
    assert signature((tissue(0)[0] // 40).astype(np.uint8)) is None


def test_candidates_are_those_of_brute_force_over_blocks() -> None:
    clips = [clip(str(seed), tissue(seed, frames=2, side=100)) for seed in range(BLOCK + 5)]
    clips[3] = clip("copy", tissue(BLOCK + 2, frames=2, side=100))
    clips[BLOCK + 1] = clip("mirror", np.ascontiguousarray(tissue(7, frames=2, side=100)[:, :, ::-1]))
    expected = []
    for a, b in combinations(range(len(clips)), 2):
        small = coarser(clips[b].vectors)
        ways = [coarser(clips[a].vectors)[:, 0] @ vectors[:, 0].T for vectors in (small, flipped(small))]
        scores = [max(np.median(way.max(axis=1)), np.median(way.max(axis=0))) for way in ways]
        if max(scores) >= CANDIDATE:
            expected.append((a, b, scores[1] > scores[0]))
    assert sorted(candidates(clips, clips, within=True)) == expected
    assert {(3, BLOCK + 2, False), (7, BLOCK + 1, True)} <= set(expected)


def test_a_part_is_found_with_its_interval_and_another_order_is_none() -> None:
    whole, part = clip("whole", tissue(4, frames=12)), clip("part", tissue(4, frames=12)[3:9])
    for a, b in ((whole, part), (part, whole)):
        match = verified(a, b, flip=False)
        assert match is not None
        assert match.score > 0.95
        interval = match.frames_a if a is whole else match.frames_b
        assert interval == (3, 8)
        assert (match.a, match.b) == (a.video_id, b.video_id)
    backwards = clip("backwards", tissue(4, frames=12)[::-1])
    assert verified(whole, backwards, flip=False) is not None, "a palindrome's second half is a copy too"
    order = [0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11]
    far = np.stack([tissue(20 + place)[0] for place in range(12)])  # frames that are not alike
    assert verified(clip("far", far), clip("shuffled", far[order]), flip=False) is None
    assert verified(whole, clip("stranger", tissue(5, frames=12)), flip=False) is None
    assert SAME > CANDIDATE


def test_matches_are_sorted_and_each_pair_comes_once() -> None:
    clips = [clip(name, tissue(seed)) for name, seed in (("c", 1), ("a", 1), ("b", 2), ("d", 1))]
    found = matches(clips, clips, within=True, whole=lambda a, b: (clips[a], clips[b]))
    assert [(match.a, match.b) for match in found] == [("a", "d"), ("c", "a"), ("c", "d")]
    other = matches(clips[:1], clips[2:], within=False, whole=lambda a, b: (clips[a], clips[2 + b]))
    assert [(match.a, match.b) for match in other] == [("c", "d")]


@pytest.mark.parametrize(("numbers", "length"), [([], 0), ([3], 1), ([1, 1, 1], 3), ([3, 2, 1], 1), ([0, 4, 1, 2, 3, 9, 5], 5)])
def test_the_longest_rising_run(numbers: list[int], length: int) -> None:
    assert _rising(np.asarray(numbers, np.intp)) == length
