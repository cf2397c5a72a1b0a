"""Gray, tinted, colour: planted pictures, through a lossy codec too."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.usdata.clips import speckle_frames
from tests.usdata.readers.generated import X264, encode
from usdata.imaging.colour import ColourKind
from usdata.readers import open_clip

GRAY = np.stack(speckle_frames(12, height=288, width=384))


def as_gray(frames: np.ndarray) -> np.ndarray:
    return frames[..., None].repeat(3, axis=3)


def as_sepia(frames: np.ndarray) -> np.ndarray:
    """Brown tint as scanners have it: black stays black, each level has one colour."""
    return np.stack([cv2.merge([frame, (frame * 0.8).astype(np.uint8), (frame * 0.5).astype(np.uint8)]) for frame in frames])


def with_doppler(frames: np.ndarray) -> np.ndarray:
    coloured = as_gray(frames).copy()
    coloured[:, 90:180, 120:180] = (220, 30, 20)
    coloured[:, 90:180, 180:240] = (20, 40, 220)
    return coloured


def with_logo(frames: np.ndarray) -> np.ndarray:
    marked = as_gray(frames).copy()
    marked[:, 4:12, 4:16] = (20, 200, 40)
    return marked


def with_ecg(frames: np.ndarray) -> np.ndarray:
    marked = as_gray(frames).copy()
    for column in range(383):
        heights = [int(270 + 12 * np.sin(place / 20)) for place in (column, column + 1)]
        for frame in marked:
            cv2.line(frame, (column, heights[0]), (column + 1, heights[1]), (40, 200, 180), 2)
    return marked


CASES = [(as_gray, "gray"), (with_logo, "gray"), (with_ecg, "gray"), (as_sepia, "tinted"), (with_doppler, "colour")]


@pytest.mark.parametrize(("paint", "word"), CASES)
def test_planted_colours(paint, word: str) -> None:
    kind = ColourKind()
    for frame in paint(GRAY):
        kind.offer(lambda frame=frame: frame)
    assert kind.word == word


@pytest.mark.parametrize(("paint", "word"), CASES)
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_through_a_lossy_codec(tmp_path: Path, paint, word: str, backend: str) -> None:
    path = encode(tmp_path / "clip.mp4", paint(GRAY), *X264, "-pix_fmt", "yuv420p")
    kind = ColourKind()
    with open_clip(path, backend=backend) as clip:
        for frame in clip.frames():
            assert frame.pixels.ndim == 2
            kind.offer(clip.rgb)
    assert kind.word == word


@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj444p", "yuv422p"])
@pytest.mark.parametrize(("paint", "word"), CASES)
def test_a_frame_is_given_without_colour_only_where_its_rgb_has_none(tmp_path: Path, paint, word: str, pixels: str) -> None:
    """And both give the same word."""
    path = encode(tmp_path / "clip.mp4", paint(GRAY), *X264, "-pix_fmt", pixels)
    by_rgb, by_picture = ColourKind(), ColourKind()
    with open_clip(path) as clip:
        for _ in clip.frames():
            by_rgb.offer(clip.rgb)
            by_picture.offer(clip.picture)
            rgb, picture = clip.rgb(), clip.picture()
            assert (picture.ndim == 2) == (paint is as_gray)
            assert (rgb == (picture[..., None] if picture.ndim == 2 else picture)).all()
    assert by_rgb.word == by_picture.word == word


def test_colour_that_comes_late_is_seen() -> None:
    kind = ColourKind()
    frames = np.concatenate([as_gray(GRAY), with_doppler(GRAY)])
    looks = []
    for number, frame in enumerate(frames):
        kind.offer(lambda frame=frame, number=number: looks.append(number) or frame)
    assert looks == [0, 1, 4, 16]
    assert kind.word == "colour"


def test_nothing_seen_is_no_word() -> None:
    assert ColourKind().word is None
