"""The digest of luma: against its own definition in whole numbers, against single changes, and through lossless codecs."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.usdata.readers.generated import encode, ffmpeg, pattern
from usdata.duplicates.layers import LumaDigest
from usdata.readers import open_clip


def digest(*frames: np.ndarray) -> str:
    luma = LumaDigest()
    for frame in frames:
        luma.add(frame)
    return luma.hexdigest()


def by_definition(frame: np.ndarray) -> str:
    """As the module's docstring has it, in Python's own integers."""
    content = frame.tobytes()
    header = f"{frame.shape[0]}x{frame.shape[1]}\n".encode()
    if len(content) < 1 << 15:
        return hashlib.sha256(header + content).hexdigest()
    columns = len(content) // 512
    words = [int.from_bytes(content[8 * place : 8 * place + 8], "little") for place in range(64 * columns)]
    odd = [int.from_bytes(hashlib.sha256(f"usdata luma {block}".encode()).digest()[:8], "little") | 1 for block in range(64)]
    first = [sum(odd[block] * words[block * columns + column] for block in range(64)) % 2**64 for column in range(columns)]
    second = [0] * (columns + 1)
    for place, word in enumerate(words):
        second[place % (columns + 1)] ^= word
    folds = b"".join(word.to_bytes(8, "little") for word in (*first, *second))
    return hashlib.sha256(header + folds + content[512 * columns :]).hexdigest()


SIZES = [(1, 1), (25, 41), (181, 181), (128, 256), (150, 221), (191, 211)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_it_is_what_it_says(height: int, width: int) -> None:
    frame = np.random.default_rng(height).integers(0, 256, (height, width)).astype(np.uint8)
    assert digest(frame) == by_definition(frame)


@pytest.mark.parametrize(("height", "width"), [(25, 41), (150, 221)])
def test_every_single_pixel_counts(height: int, width: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)
    seen = {digest(frame)}
    for place in range(frame.size):
        frame.flat[place] ^= 1 << place % 8
        seen.add(digest(frame))
        frame.flat[place] ^= 1 << place % 8
    assert len(seen) == frame.size + 1


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.sampled_from([1, 128, 255]),
    st.sampled_from([64, 65, 99]),
    st.sampled_from(["first", "second", ""]),
)
def test_up_to_three_words_never_cancel(seed: int, changes: int, by: int, columns: int, meet: str) -> None:
    """Where they meet in a sum of the first fold or of the second, and in the highest byte of each, where products see least."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (64, 8 * columns)).astype(np.uint8)
    step = {"first": columns, "second": columns + 1, "": 1}[meet]
    words = rng.integers(0, step) + step * rng.choice(64 * columns // step - 1, min(changes, 64 * columns // step - 1), replace=False)
    changed = frame.copy()
    changed.flat[8 * words + 7] ^= by
    assert digest(changed) != digest(frame)


@given(st.integers(0, 2**32 - 1), st.integers(4, 400), st.sampled_from([64, 99]))
def test_noise_does_not_cancel(seed: int, changes: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (64, 8 * columns)).astype(np.uint8)
    changed = frame.copy()
    changed.flat[rng.choice(frame.size, changes, replace=False)] ^= 1
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
    source = encode(tmp_path / "source.mp4", pattern(12, 256, 192), "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20")
    done = ffmpeg("-v", "error", "-i", source, "-fps_mode", "passthrough", *options, tmp_path / name)
    assert done.returncode == 0, done.stderr.decode()
    again = ffmpeg("-v", "error", "-i", source, "-c:v", "libx264", "-crf", "21", tmp_path / "lossy.mp4")
    assert again.returncode == 0, again.stderr.decode()
    found = {}
    for path in (source, tmp_path / name, tmp_path / "lossy.mp4"):
        with open_clip(path) as clip:
            found[path.name] = digest(*(frame.pixels for frame in clip.frames()))
    assert found[name] == found["source.mp4"] != found["lossy.mp4"]
