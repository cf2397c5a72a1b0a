"""The digest of luma: against its own definition in whole numbers, against single changes, and through lossless codecs."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.usdata.readers.generated import encode, ffmpeg, pattern
from usdata.duplicates.layers import BLOCKS, LumaDigest
from usdata.readers import open_clip


def digest(*frames: np.ndarray) -> str:
    luma = LumaDigest()
    for frame in frames:
        luma.add(frame)
    return luma.hexdigest()


def by_definition(frame: np.ndarray) -> str:
    """As the module's docstring has it, in Python's own integers."""
    content = frame.tobytes()
    columns = len(content) // (8 * BLOCKS)
    words = [int.from_bytes(content[8 * place : 8 * place + 8], "little") for place in range(BLOCKS * columns)]
    expected = hashlib.sha256(f"{frame.shape[0]}x{frame.shape[1]}\n".encode())
    for fold, shift in ((0, 0), (1, 32)):
        names = (f"usdata luma {fold} {block}".encode() for block in range(BLOCKS))
        odd = [int.from_bytes(hashlib.sha256(name).digest()[:8], "little") | 1 for name in names]
        for column in range(columns):
            total = sum(odd[block] * (words[block * columns + column] >> shift) for block in range(BLOCKS))
            expected.update((total % 2**64).to_bytes(8, "little"))
    expected.update(content[8 * BLOCKS * columns :])
    return expected.hexdigest()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (16, 32), (25, 41), (64, 80)])
def test_it_is_what_it_says(height: int, width: int) -> None:
    frame = np.random.default_rng(height).integers(0, 256, (height, width)).astype(np.uint8)
    assert digest(frame) == by_definition(frame)


def test_every_single_pixel_and_bit_counts() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (25, 41)).astype(np.uint8)
    seen = {digest(frame)}
    for place in range(frame.size):
        changed = frame.copy()
        changed.flat[place] ^= 1 << place % 8
        seen.add(digest(changed))
    assert len(seen) == frame.size + 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([1, 128, 255]))
def test_several_changes_do_not_cancel(seed: int, changes: int, by: int) -> None:
    """In one column of words too, and in the highest byte of each, where products see least."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (32, 32)).astype(np.uint8)
    changed = frame.copy()
    # 1,024 bytes: two columns of words, so every second word meets in a sum.
    places = 16 * rng.choice(BLOCKS, changes, replace=False) + rng.integers(0, 8)
    changed.flat[places] ^= by
    assert digest(changed) != digest(frame)


def test_shape_and_order_count() -> None:
    a, b = np.random.default_rng(1).integers(0, 256, (2, 16, 24)).astype(np.uint8)
    assert len({digest(a, b), digest(b, a), digest(a), digest(a, a), digest(a.reshape(24, 16)), digest()}) == 6


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ffv1.mkv", ("-c:v", "ffv1")),
        ("huffyuv.avi", ("-c:v", "huffyuv", "-pix_fmt", "yuv422p")),
        ("ffvhuff.mkv", ("-c:v", "ffvhuff")),
        ("x264.mp4", ("-c:v", "libx264", "-qp", "0", "-preset", "ultrafast")),
        ("more_chroma.mkv", ("-c:v", "ffv1", "-pix_fmt", "yuv444p")),
    ],
)
def test_lossless_reencoding_leaves_it(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    source = encode(tmp_path / "source.mp4", pattern(12, 96, 64), "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20")
    done = ffmpeg("-v", "error", "-i", source, "-fps_mode", "passthrough", *options, tmp_path / name)
    assert done.returncode == 0, done.stderr.decode()
    again = ffmpeg("-v", "error", "-i", source, "-c:v", "libx264", "-crf", "21", tmp_path / "lossy.mp4")
    assert again.returncode == 0, again.stderr.decode()
    found = {}
    for path in (source, tmp_path / name, tmp_path / "lossy.mp4"):
        with open_clip(path) as clip:
            found[path.name] = digest(*(frame.pixels for frame in clip.frames()))
    assert found[name] == found["source.mp4"] != found["lossy.mp4"]
