"""Real lung clips: as many frames, and the same times, as FFmpeg's own program gives."""

from pathlib import Path

import numpy as np
import pytest

from tests.usdata.readers.generated import decoded_gray, times
from usdata.readers import frame_time, open_clip

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "pocus_lung" / "videos"
CLIPS = sorted(path for path in REAL.rglob("*") if path.is_file())
# Two of each kind of file, evenly from the sorted list, so that the few odd ones (edit lists, GIF, MPEG-PS) are among them.
SAMPLE = [
    path
    for suffix in (".mp4", ".mov", ".avi", ".mpeg", ".gif")
    for same in [[clip for clip in CLIPS if clip.suffix.lower() == suffix]]
    for path in same[:: max(1, len(same) // 2)][:2]
]

pytestmark = [pytest.mark.real_data, pytest.mark.skipif(not CLIPS, reason="the real clips are not in ../shared/data")]


def check(path: Path) -> None:
    expected = times(path)
    with open_clip(path) as clip:
        got = [frame_time(frame, clip.info) for frame in clip.frames()]
    assert got == expected, path.name
    assert (clip.decode_errors, clip.first_error) == (0, None), path.name


@pytest.mark.parametrize("path", SAMPLE, ids=lambda path: path.name)
def test_count_and_times_are_ffmpegs(path: Path) -> None:
    check(path)


@pytest.mark.parametrize("path", SAMPLE[1::2], ids=lambda path: path.name)
def test_pixels_are_ffmpegs_to_a_level(path: Path) -> None:
    with open_clip(path) as clip:
        frames = np.stack([frame.pixels for frame in clip.frames()])
    expected = decoded_gray(path, clip.info.width, clip.info.height)
    assert frames.shape == expected.shape
    # FFmpeg's fixed-point scaling to full range falls a level short of the rounded value in some sizes.
    assert max(np.abs(frame.astype(int) - truth).max() for frame, truth in zip(frames, expected, strict=True)) <= 1


@pytest.mark.slow
def test_every_clip() -> None:
    assert len(CLIPS) == 124
    for path in CLIPS:
        check(path)
