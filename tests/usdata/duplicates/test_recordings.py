"""Frames joined to the recordings that they were planted in, by nothing but their pictures."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from usdata.duplicates.recordings import NEAR_COPY, NEIGHBOURS, SAME_RECORDING, describe_frame, find_recordings


def texture(seed: int, size: int = 160) -> NDArray[np.float64]:
    return cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (size, size)), (0, 0), 2.5) * 300 + 110


def recording(seed: int, frames: int) -> list[NDArray[np.uint8]]:
    """A texture that is deformed a little further each frame, with noise."""
    base, noise = texture(seed), np.random.default_rng([seed, 1])
    found = []
    for step in range(frames):
        matrix = np.array([[1 + 0.002 * step, 0, 0.6 * step], [0, 1, 0.4 * step]])
        moved = cv2.warpAffine(base, matrix, base.shape[::-1], borderMode=cv2.BORDER_REFLECT)
        found.append(np.clip(moved + noise.normal(0, 6, base.shape), 0, 255).astype(np.uint8))
    return found


def planted() -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    frames = [(seed, frame) for seed in range(8) for frame in recording(seed, 5)]
    order = np.random.default_rng(3).permutation(len(frames))
    return np.stack([describe_frame(frames[place][1]) for place in order]), np.array([frames[place][0] for place in order])


def test_planted_recordings_are_found() -> None:
    described, truth = planted()
    found = find_recordings(described, np.arange(len(truth)) % 4).number
    same = truth[:, None] == truth
    assert ((found[:, None] == found) == same).all()
    firsts = [int(np.flatnonzero(found == number)[0]) for number in range(found.max() + 1)]
    assert firsts == sorted(firsts)


def strewn() -> NDArray[np.int8]:
    """Points in few directions: of many, one is among the other's nearest and not the other way round."""
    rng = np.random.default_rng(4)
    centres = np.repeat(rng.normal(size=(6, 7)), 10, axis=0)
    return np.clip(30 * (centres + 0.7 * rng.normal(size=centres.shape)) @ rng.normal(size=(7, 40)) / 3, -127, 127).astype(np.int8)


@pytest.mark.parametrize("described", [planted()[0], strewn()], ids=["planted", "strewn"])
def test_it_is_what_the_definition_says(described: NDArray[np.int8]) -> None:
    """Brute force: pair by pair, then a walk."""
    count = len(described)
    parts = np.arange(count) % 3
    found = find_recordings(described, parts)
    values = described.astype(float)
    units = values / np.linalg.norm(values, axis=1, keepdims=True)
    likeness = units @ units.T
    near = [sorted((j for j in range(count) if j != i), key=lambda j, i=i: -likeness[i, j])[:NEIGHBOURS] for i in range(count)]
    reached = list(range(count))
    for _ in range(count):
        for i in range(count):
            for j in range(count):
                mutual = j in near[i] and i in near[j] and likeness[i, j] >= SAME_RECORDING
                if i != j and (mutual or likeness[i, j] >= NEAR_COPY):
                    reached[i] = reached[j] = min(reached[i], reached[j])
    assert [sorted(set(reached)).index(each) for each in reached] == found.number.tolist()
    other = parts[:, None] != parts
    assert np.allclose(found.likeness, np.where(other, likeness, -1).max(axis=1))
    assert (found.copied == (np.where(other, likeness, -1) >= NEAR_COPY).any(axis=1)).all()


def test_equal_frames_are_one_recording_however_many() -> None:
    """More equal ones than a frame has neighbours, so that mutual neighbours alone would leave some out."""
    one = describe_frame(recording(1, 1)[0])
    found = find_recordings(np.stack([one] * 40 + [describe_frame(recording(2, 1)[0])]), np.arange(41) % 2)
    assert found.number.tolist() == [0] * 40 + [1]
    assert found.copied.tolist() == [True] * 40 + [False]


def test_flat_frames_are_like_nothing() -> None:
    flat = describe_frame(np.full((64, 64), 7, np.uint8))
    assert not flat.any()
    found = find_recordings(np.stack([flat, flat, flat]), np.array([0, 1, 1]))
    assert found.number.tolist() == [0, 1, 2]
    assert not found.copied.any()


def test_the_order_of_frames_decides_nothing() -> None:
    described, truth = planted()
    order = np.random.default_rng(5).permutation(len(truth))
    a = find_recordings(described, truth).number
    b = find_recordings(described[order], truth[order]).number
    assert ((a[order][:, None] == a[order]) == (b[:, None] == b)).all()
