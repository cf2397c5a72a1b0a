"""Damage is counted and survived: truncated files, overwritten bytes, wrong names; the oracle is FFmpeg's own count of frames."""

import random
from pathlib import Path

import numpy as np
import pytest

from tests.usdata.readers.generated import X264, decoded_gray, encode, pattern
from usdata.errors import ReadError
from usdata.readers import BACKENDS, open_clip

WIDTH, HEIGHT, COUNT = 96, 64, 60
KINDS = {
    "h264.mp4": (*X264, "-g", "10", "-pix_fmt", "yuv420p", "-movflags", "+faststart"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "2"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "2"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", "2", "-f", "vob"),
    "ffv1.mkv": ("-c:v", "ffv1", "-level", "3", "-pix_fmt", "gray", "-slicecrc", "1"),
    "wmv2.wmv": ("-c:v", "wmv2", "-q:v", "2"),
    "clip.gif": (),
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intact")
    for name, options in KINDS.items():
        encode(folder / name, pattern(COUNT, WIDTH, HEIGHT), *options)
    return folder


def overwritten(data: bytes, seed: int, length: int = 400) -> bytes:
    """The data with `length` bytes in its middle replaced by noise."""
    middle = len(data) // 2
    return data[:middle] + random.Random(seed).randbytes(length) + data[middle + length :]


@pytest.mark.parametrize("name", KINDS)
def test_a_truncated_file_gives_what_is_there_and_says_so(intact: Path, tmp_path: Path, name: str) -> None:
    data = (intact / name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(data[: len(data) * 6 // 10])
    expected = decoded_gray(cut, WIDTH, HEIGHT)
    with open_clip(cut, backend="pyav") as clip:
        frames = list(clip.frames())
    assert 0 < len(frames) < COUNT
    assert len(frames) == len(expected)
    assert clip.decode_errors > 0
    assert clip.first_error


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi", "mjpeg.avi", "mpeg2.mpg", "ffv1.mkv"])
def test_overwritten_bytes_cost_what_they_hit(intact: Path, tmp_path: Path, name: str) -> None:
    bad = tmp_path / name
    bad.write_bytes(overwritten((intact / name).read_bytes(), seed=3))
    expected = decoded_gray(bad, WIDTH, HEIGHT)
    with open_clip(intact / name) as clip:
        clean = [frame.pixels for frame in clip.frames()]
    with open_clip(bad, backend="pyav") as clip:
        frames = list(clip.frames())
    assert len(frames) == len(expected)
    assert clip.decode_errors > 0
    # The damage lies in the middle: the clip goes on to its true last frame, and what precedes the damage is untouched.
    np.testing.assert_array_equal(frames[-1].pixels, clean[-1])
    assert not frames[-1].damaged
    for frame, truth in zip(frames[: COUNT // 4], clean, strict=False):
        assert not frame.damaged
        np.testing.assert_array_equal(frame.pixels, truth)


def test_a_concealed_frame_is_flagged(intact: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mpg"
    bad.write_bytes(overwritten((intact / "mpeg2.mpg").read_bytes(), seed=3))
    with open_clip(intact / "mpeg2.mpg") as clip:
        clean = {frame.pts: frame.pixels for frame in clip.frames()}
    with open_clip(bad, backend="pyav") as clip:
        frames = list(clip.frames())
    wrong = [frame for frame in frames if not np.array_equal(frame.pixels, clean[frame.pts])]
    assert len(wrong) >= 2  # the frame hit, and those predicted from it
    assert all(frame.damaged for frame in wrong)
    assert sum(frame.damaged for frame in frames) < COUNT // 2


@pytest.mark.parametrize("seed", range(70))
def test_noise_anywhere_never_raises_anything_but_read_error(intact: Path, tmp_path: Path, seed: int) -> None:
    name = sorted(KINDS)[seed % len(KINDS)]
    generator = random.Random(seed)
    data = bytearray((intact / name).read_bytes())
    for _ in range(generator.randint(1, 60)):
        data[generator.randrange(len(data))] = generator.randrange(256)
    if seed % 3 == 0:
        del data[generator.randrange(len(data)) :]
    bad = tmp_path / name
    bad.write_bytes(data)
    try:
        clip = open_clip(bad, backend="pyav")
    except ReadError:
        return
    with clip:
        for frame in clip.frames():
            assert frame.pixels.shape == (clip.info.height, clip.info.width)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"path,label\nclip.mp4,regular\n" * 10, "is text"),
        (bytes(128) + b"DICM" + bytes(200), "."),
        (b"ObjectType = Image\nNDims = 3\n", "."),
        (b"PK\x03\x04" + bytes(60), "ZIP archive"),
        (b"\x1f\x8b" + bytes(60), r"compressed \(gzip\)"),
        (b"%PDF-1.7\n" + bytes(60), "PDF"),
        (random.Random(5).randbytes(5000), "unknown kind"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100), "."),
    ],
    ids=["empty", "text", "dicom", "metaimage", "zip", "gzip", "pdf", "noise", "bare ftyp"],
)
def test_what_is_no_video_says_what_it_is(tmp_path: Path, content: bytes, reason: str, backend: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=reason):
        open_clip(path, backend=backend)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="does not exist"):
        open_clip(tmp_path / "none.mp4")
