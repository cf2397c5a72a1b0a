"""The verdict on two clips: planted changes alone and together, strangers, look-alikes that move alike, loops, stills, order."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from tests.usdata.duplicates.scans import key_frames, scan
from usdata.duplicates.candidates import candidates
from usdata.duplicates.content import Match, _evenly, coarse_match, verified
from usdata.duplicates.descriptors import describe
from usdata.duplicates.key_frames import KeyFrames


def compared(a: KeyFrames, b: KeyFrames) -> Match | None:
    found = candidates(describe(a.mean)[None], describe(b.mean)[None])
    if not found:
        return None
    _, flip, placement = coarse_match(a, b, found[0].starts)
    return verified(a, b, flip=flip, placement=placement)


def lighter(pictures: np.ndarray) -> np.ndarray:
    return np.clip(255 * (pictures / 255.0) ** 0.7 * 1.1, 0, 255).astype(np.uint8)


def smaller(pictures: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(picture, (120, 100), interpolation=cv2.INTER_AREA) for picture in pictures])


def coded(pictures: np.ndarray) -> np.ndarray:
    encoded = [cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 30])[1] for picture in pictures]
    return np.stack([np.asarray(cv2.imdecode(each, cv2.IMREAD_GRAYSCALE), np.uint8) for each in encoded])


def written_on(pictures: np.ndarray) -> np.ndarray:
    marked = pictures.copy()
    for picture in marked:
        cv2.putText(picture, "LEFT 3 cm", (30, 120), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 1)
    return marked


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "coded": coded,
    "lighter": lighter,
    "smaller": smaller,
    "written on": written_on,
    "part": lambda pictures: pictures[8:22],
    "half the rate": lambda pictures: pictures[::2],
    "cropped": lambda pictures: pictures[:, 20:180, 36:228],
    "mirrored": lambda pictures: np.ascontiguousarray(pictures[:, :, ::-1]),
    "cropped and mirrored": lambda pictures: np.ascontiguousarray(pictures[:, 10:180, 30:210, None][:, :, ::-1, 0]),
    "part, lighter": lambda pictures: lighter(pictures[4:24]),
    "backwards": lambda pictures: pictures[::-1],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(3))
def test_a_changed_copy_is_found_either_way_round(change: str, seed: int) -> None:
    pictures = scan(seed, 32)
    original, copy = key_frames("original", pictures), key_frames("copy", CHANGES[change](pictures))
    for a, b in ((original, copy), (copy, original)):
        match = compared(a, b)
        assert match is not None
        assert (match.a, match.b) == (a.video_id, b.video_id)
        assert match.flip == ("mirrored" in change)
        assert match.score > 0.6
        assert match.motion is not None
        assert match.motion > 0.5


def test_strangers_are_not() -> None:
    clips = [key_frames(str(seed), scan(seed)) for seed in range(12)]
    assert all(compared(a, b) is None for a in clips for b in clips if a is not b)


def test_what_stands_still_alone_does_not_make_them_the_same() -> None:
    """One patient, one place, another minute: the layers stand where they stood, the speckle is another."""
    a, b = scan(0, 24).astype(float), scan(1, 24).astype(float)
    other = np.clip(a.mean(axis=0) + (b - b.mean(axis=0)), 0, 255).astype(np.uint8)
    assert compared(key_frames("a", scan(0, 24)), key_frames("b", other)) is None


def test_layers_that_rise_and_fall_alike_do_not_either() -> None:
    """Breathing: each clip has few phases, which look like those of the other, and many frames find the same few: a view, no copy."""
    still, phases = scan(3, 1)[0].astype(float), scan(4, 8).astype(float) - 80
    rng = np.random.default_rng(0)
    first, second = (
        np.stack(
            [
                np.clip(still + 0.8 * phases[0] * np.sin(number * speed + start) + scan(int(rng.integers(1000, 9000)), 1)[0] * 0.25, 0, 255)
                for number in range(40)
            ]
        ).astype(np.uint8)
        for speed, start in ((0.3, 0.0), (0.41, 2.0))
    )
    match = compared(key_frames("a", first), key_frames("b", second))
    assert match is None or match.kind == "view"


def test_scale_shift_and_interval_are_those_that_were_planted() -> None:
    pictures = scan(5, 40, height=400, width=480)
    padded = np.pad(pictures, ((0, 0), (30, 10), (50, 20)))
    original = key_frames("a", padded, (50, 30, 480, 400))
    part = np.stack([cv2.resize(picture[40:380, 60:460], (300, 272), interpolation=cv2.INTER_AREA) for picture in pictures[10:30]])
    match = compared(original, key_frames("b", part))
    assert match is not None
    assert match.scale_x == pytest.approx(300 / 400, rel=0.01)
    assert match.scale_y == pytest.approx(272 / 340, rel=0.01)
    # x in b = scale * (x in a - 50 - 60)
    assert match.shift_x == pytest.approx(-110 * 0.75, abs=2)
    assert match.shift_y == pytest.approx(-70 * 0.8, abs=2)
    assert match.frames_a[0] in range(9, 13)
    assert match.frames_a[1] in range(27, 31)
    assert all(abs(frame_a - 10 - frame_b) <= 1 for frame_a, frame_b in match.frames)
    mirrored = compared(original, key_frames("b", np.ascontiguousarray(part[:, :, ::-1])))
    assert mirrored is not None
    # x in b = 300 - scale * (x in a - 110)
    assert mirrored.flip
    assert mirrored.shift_x == pytest.approx(300 + 110 * 0.75, abs=2)


def test_a_loop_is_found_in_its_one_period() -> None:
    pictures = scan(6, 16)
    match = compared(key_frames("loop", np.concatenate([pictures, pictures, pictures])), key_frames("once", pictures))
    assert match is not None


def test_stills_are_found_among_frames_and_among_stills() -> None:
    pictures = scan(7, 24)
    still = key_frames("still", coded(pictures[12:13]))
    for other in (key_frames("clip", pictures), key_frames("copy", lighter(pictures[12:13]))):
        assert compared(still, other) is not None
        assert compared(other, still) is not None
    assert compared(still, key_frames("other", scan(8, 1))) is None
    assert compared(still, key_frames("other", scan(8, 24))) is None


def test_a_frozen_clip_is_compared_by_its_picture() -> None:
    rng = np.random.default_rng(0)
    frozen = np.repeat(scan(9, 1), 12, axis=0)
    noisy = np.clip(coded(frozen).astype(float) + rng.normal(0, 2, frozen.shape), 0, 255).astype(np.uint8)
    match = compared(key_frames("a", frozen), key_frames("b", noisy))
    assert match is not None
    assert match.motion is None
    assert compared(key_frames("a", frozen), key_frames("b", np.repeat(scan(10, 1), 12, axis=0))) is None


def test_time_must_run_evenly() -> None:
    index = np.arange(0, 60, 2)
    places = np.arange(30)
    assert _evenly(index, index * 2 + 7, places, places), "another rate"
    assert _evenly(index, index, places, places[::-1]), "backwards"
    rough = np.sort(np.random.default_rng(0).permutation(30)[:12])
    assert _evenly(index, index, rough, np.clip(rough + np.tile([0, 1, -1], 4), 0, 29)), "a frame beside"
    for seed in range(20):
        shuffled = np.random.default_rng(seed).permutation(30)
        assert not _evenly(index, index, places, shuffled)
    assert _evenly(index, index, places[:1], places[5:6])


def test_the_same_place_at_another_moment_is_a_view_and_no_copy() -> None:
    """Parts of one recording that share no frame, where little moves."""
    pictures = scan(11, 48).astype(float)
    mean = pictures.mean(axis=0)
    calm = np.clip(mean + 0.45 * (pictures - mean), 0, 255).astype(np.uint8)
    match = compared(key_frames("a", calm[:20]), key_frames("b", calm[28:]))
    assert match is not None
    assert match.kind == "view"
    assert match.score > 0.82
    again = compared(key_frames("a", calm[:20]), key_frames("b", calm[4:28]))
    assert again is not None
    assert again.kind == "content"
