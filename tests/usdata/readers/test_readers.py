"""The same guarantees for every video backend, held against FFmpeg's own program over generated clips."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.usdata.readers.generated import COUNT, SAMPLES, X264, X264_B, Sample, decoded, decoded_gray, encode, ffmpeg, pattern, times
from usdata.errors import ReadError
from usdata.readers import BACKENDS, backends, frame_time, open_clip
from usdata.readers.opencv_video import why_refused
from usdata.readers.video import luma_table

# decord has wheels for x86-64 Linux and Windows only.
HERE = [backend for backend in BACKENDS if not backends()[backend].startswith("missing")]
CASES = [
    pytest.param(sample, backend, id=f"{sample.name}-{backend}") for sample in SAMPLES for backend in sample.backends if backend in HERE
]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for sample in SAMPLES:
        encode(folder / sample.name, pattern(COUNT, sample.width, sample.height), *sample.options)
    return folder


@pytest.mark.parametrize(("sample", "backend"), CASES)
def test_every_backend_gives_ffmpegs_frames(clips: Path, sample: Sample, backend: str) -> None:
    path = clips / sample.name
    expected = decoded_gray(path, sample.width, sample.height)
    with open_clip(path, backend=backend) as clip:
        frames = list(clip.frames())
    assert clip.info.container == sample.kind
    assert clip.info.backend == backend
    assert (clip.info.width, clip.info.height) == (sample.width, sample.height)
    assert [frame.index for frame in frames] == list(range(len(expected)))
    assert (clip.decode_errors, clip.first_error) == (0, None)
    for frame in frames:
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.flags.c_contiguous
        assert frame.pixels.shape == (sample.height, sample.width)
    difference = np.abs(np.stack([frame.pixels for frame in frames]).astype(int) - expected)
    # PyAV: FFmpeg's own scaling to full range is fixed-point and may fall a level short of the rounded one. The other two go through RGB
    # with that same arithmetic: a level for each of three channels' roundings, and the chroma that lossy codecs leave on gray content.
    assert difference.max() <= (1 if backend == "pyav" else 6)
    assert difference.mean() <= (0.5 if backend == "pyav" else 1.0)


@pytest.mark.parametrize(("sample", "backend"), CASES)
def test_every_backend_gives_ffmpegs_times(clips: Path, sample: Sample, backend: str) -> None:
    expected = times(clips / sample.name)
    with open_clip(clips / sample.name, backend=backend) as clip:
        got = [frame_time(frame, clip.info) for frame in clip.frames()]
    if backend == "pyav":
        assert got == expected
        return
    # The others give floats with a zero of their own, rounded to microseconds; decord's have 32 bits, so 2^-24 of a second here. A time
    # that cannot be true is None, never invented: OpenCV has none for the frame that reordering leaves in the decoder at the end.
    assert got[0] is not None or backend == "decord"
    known = [
        (time - got[0], truth - expected[0]) for time, truth in zip(got, expected, strict=True) if time is not None and got[0] is not None
    ]
    assert all(abs(time - truth) <= Fraction(2, 1_000_000) for time, truth in known)
    if backend == "opencv":
        assert len(known) >= len(expected) - 1
    else:
        assert len(known) == (0 if sample.kind == "mpegps" else len(expected))


@pytest.mark.parametrize(
    "sample", [sample for sample in SAMPLES if sample.codec in ("h264", "mpeg4", "mpeg2video", "vp9")], ids=lambda each: each.name
)
def test_gray_is_the_luma_that_ffmpeg_decoded_scaled_to_full_range(clips: Path, sample: Sample) -> None:
    native = "yuv444p" if sample.options[-1] == "yuv444p" else "yuv420p"
    samples_a_frame = sample.width * sample.height * (3 if native == "yuv444p" else 1) * (2 if native == "yuv444p" else 3) // 2
    raw = np.frombuffer(decoded(clips / sample.name, native, "-sws_flags", "neighbor"), np.uint8).reshape(-1, samples_a_frame)
    luma = raw[:, : sample.width * sample.height].reshape(-1, sample.height, sample.width).astype(float)
    if "full_range" not in sample.name:
        luma[:] = np.clip(np.rint((luma - 16) * 255 / 219), 0, 255)
    with open_clip(clips / sample.name) as clip:
        got = np.stack([frame.pixels for frame in clip.frames()])
    np.testing.assert_array_equal(got, luma)


def test_what_is_lossless_comes_back_exactly(clips: Path) -> None:
    source = pattern(COUNT, 96, 64)
    for name in ("ffv1_rgb.mkv", "uncompressed_bgr.avi"):
        for backend in HERE:
            with open_clip(clips / name, backend=backend, colour=True) as clip:
                got = np.stack([frame.pixels for frame in clip.frames()])
            np.testing.assert_array_equal(got, source, err_msg=f"{name} {backend}")


@pytest.mark.parametrize("backend", HERE)
def test_colour_is_rgb(tmp_path: Path, backend: str) -> None:
    source = pattern(6, 96, 64, colour=True)
    path = encode(tmp_path / "colour.mp4", source, *X264, "-crf", "1", "-pix_fmt", "yuv444p")
    with open_clip(path, backend=backend, colour=True) as clip:
        got = np.stack([frame.pixels for frame in clip.frames()])
    assert got.shape == source.shape
    expected = np.frombuffer(decoded(path, "rgb24"), np.uint8).reshape(source.shape)
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= 3  # three fixed-point products, each rounded or cut
    # An exchange of red and blue would give a mean of dozens of levels.
    assert np.abs(got.astype(int) - source).mean() < 2


def test_ten_bit_luma_keeps_its_range(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :, None], 64, axis=1).repeat(3, axis=3).repeat(4, axis=0)
    path = encode(tmp_path / "ten.mkv", ramp, "-c:v", "ffv1", "-pix_fmt", "yuv420p10le")
    expected = np.frombuffer(decoded(path, "yuv420p10le"), "<u2").reshape(4, -1)[:, : 64 * 256].reshape(4, 64, 256).astype(float)
    with open_clip(path) as clip:
        got = np.stack([frame.pixels for frame in clip.frames()])
    np.testing.assert_array_equal(got, np.clip(np.rint((expected - 64) * 255 / 876), 0, 255))
    # The way from 8-bit RGB to 10-bit luma and back is at most a level.
    assert np.abs(got.astype(int) - ramp[..., 0]).max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 16])
def test_luma_table_ends(bits: int) -> None:
    limited, full = luma_table(bits, False), luma_table(bits, True)
    step = 1 << (bits - 8)
    assert (limited[0], limited[16 * step], limited[235 * step], limited[-1]) == (0, 0, 255, 255)
    assert (full[0], full[-1]) == (0, 255)
    assert np.all(np.diff(limited.astype(int)) >= 0)


@pytest.mark.parametrize("turn", [90, 180, 270])
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_rotation_metadata_is_applied(tmp_path: Path, turn: int, backend: str) -> None:
    upright = encode(tmp_path / "upright.mp4", pattern(6, 96, 64), *X264, "-pix_fmt", "yuv420p")
    turned = tmp_path / "turned.mp4"
    assert ffmpeg("-v", "error", "-display_rotation", str(turn), "-i", upright, "-c", "copy", turned).returncode == 0
    width, height = (96, 64) if turn == 180 else (64, 96)
    expected = decoded_gray(turned, width, height)
    with open_clip(turned, backend=backend) as clip:
        got = np.stack([frame.pixels for frame in clip.frames()])
    assert (clip.info.width, clip.info.height) == (width, height)
    assert np.abs(got.astype(int) - expected).max() <= 6
    assert np.abs(got.astype(int) - expected[:, ::-1, ::-1]).mean() > 10


def test_declared_values_are_told_as_claims(clips: Path) -> None:
    with open_clip(clips / "h264_b_frames.mp4") as clip:
        assert (clip.info.codec, clip.info.frames_declared, clip.info.declared_rate) == ("h264", COUNT, Fraction(25))
    with open_clip(clips / "mpeg2.mpg") as clip:
        assert clip.info.frames_declared is None


def test_transparent_gif_stands_on_black(tmp_path: Path) -> None:
    from PIL import Image

    square = Image.new("P", (32, 24), 0)
    square.putpalette([255, 255, 255, 200, 200, 200])
    square.paste(1, (8, 8, 16, 16))
    square.save(
        tmp_path / "t.gif", save_all=True, append_images=[square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], transparency=0, disposal=2
    )
    with open_clip(tmp_path / "t.gif") as clip:
        first = next(clip.frames()).pixels
    expected = np.zeros((24, 32), np.uint8)
    expected[8:16, 8:16] = 200
    np.testing.assert_array_equal(first, expected)


def test_a_clip_is_passed_once(clips: Path) -> None:
    clip = open_clip(clips / "h264.mov")
    with clip:
        next(clip.frames())
        with pytest.raises(RuntimeError, match="once"):
            clip.frames()
    clip.close()
    with pytest.raises(RuntimeError, match="once"):
        clip.frames()


def test_two_passes_give_the_same_bytes(clips: Path) -> None:
    for sample in SAMPLES:
        with open_clip(clips / sample.name) as once, open_clip(clips / sample.name) as again:
            for one, other in zip(once.frames(), again.frames(), strict=True):
                assert one.pts == other.pts
                np.testing.assert_array_equal(one.pixels, other.pixels)


def test_names_that_a_decoder_could_take_for_something_else(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:clip.mp4", "frame%03d.mp4", "Lünge #1 🫁.txt", "concat:a|b", "-i", "x\udcff.mp4"):
        Path(name).write_bytes((clips / "h264.mov").read_bytes())
        with open_clip(Path(name), backend="pyav") as clip:
            assert sum(1 for _ in clip.frames()) == COUNT


def test_a_playlist_opens_nothing(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{clips / 'h264.mov'}'\n")
    with pytest.raises(ReadError, match="is text"):
        open_clip(tmp_path / "list.mp4")


def test_auto_gives_the_first_readers_reason(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.mp4", pattern(COUNT, 96, 64), *X264, "-pix_fmt", "yuv420p").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    for _ in range(2):
        with pytest.raises(ReadError, match="moov atom not found"):
            open_clip(tmp_path / "cut.mp4")


def test_gif_is_refused_by_decord_with_a_reason(clips: Path) -> None:
    with pytest.raises(ReadError, match=r"decord.*(GIF|not installed)"):
        open_clip(clips / "gif_varying_delays.gif", backend="decord")


def test_opencv_versions_that_give_black_frames_are_refused() -> None:
    assert why_refused("4.12.0") is None
    assert why_refused("4.9.0.80") is None
    for version in ("4.13.0", "5.0.0-pre"):
        assert "interlaced" in (why_refused(version) or "")


def test_unknown_backend_names_the_nearest(clips: Path) -> None:
    with pytest.raises(ReadError, match="did you mean 'opencv'"):
        open_clip(clips / "h264.mov", backend="opencvv")


def test_audio_alone_is_no_video(tmp_path: Path) -> None:
    assert ffmpeg("-v", "error", "-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.mp4").returncode == 0
    with pytest.raises(ReadError, match=r"no video stream \(it holds audio\)"):
        open_clip(tmp_path / "sound.mp4", backend="pyav")


def test_a_size_that_changes_counts_as_damage(tmp_path: Path) -> None:
    # MPEG-2 may change its picture size at any sequence header.
    for number, size in enumerate([(96, 64), (64, 48)]):
        encode(tmp_path / f"{number}.m2v", pattern(10, *size), "-c:v", "mpeg2video", "-q:v", "2", "-g", "5", "-f", "mpeg2video")
    joined = tmp_path / "joined.m2v"
    joined.write_bytes((tmp_path / "0.m2v").read_bytes() + (tmp_path / "1.m2v").read_bytes())
    with open_clip(joined, backend="pyav") as clip:
        frames = list(clip.frames())
    assert {frame.pixels.shape for frame in frames} == {(64, 96)}
    # FFmpeg loses the frame that the decoder holds at the change.
    assert len(frames) == 9
    assert len(times(joined)) == 19
    assert clip.decode_errors == 10
    assert clip.first_error is not None
    assert "64×48" in clip.first_error


def test_an_absurd_size_is_refused_by_the_header(clips: Path, tmp_path: Path) -> None:
    # Uncompressed video takes its size from the AVI's bitmap header alone.
    data = bytearray((clips / "uncompressed_bgr.avi").read_bytes())
    header = data.index(b"strf") + 8
    data[header + 4 : header + 8] = (40_000).to_bytes(4, "little")
    (tmp_path / "huge.avi").write_bytes(data)
    for backend in ("auto", "pyav"):
        with pytest.raises(ReadError, match="40000×64"):
            open_clip(tmp_path / "huge.avi", backend=backend)


@pytest.mark.parametrize("options", [X264_B, ("-c:v", "mjpeg", "-q:v", "2")], ids=["h264", "mjpeg"])
def test_pts_differences_are_the_frame_period(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = encode(tmp_path / "ntsc.mkv", pattern(12, 96, 64), *options, rate="30000/1001")
    with open_clip(path) as clip:
        got = [frame_time(frame, clip.info) for frame in clip.frames()]
    # Matroska's ticks are milliseconds.
    assert got == [Fraction(round(Fraction(number * 1001, 30)), 1000) for number in range(12)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_an_edit_list_is_honoured(tmp_path: Path, suffix: str) -> None:
    """A cut without re-encoding: the file holds frames before the cut that the decoder needs and nobody is to see."""
    whole = encode(tmp_path / "whole.mp4", pattern(48, 96, 64), *X264_B)
    cut = tmp_path / f"cut{suffix}"
    assert ffmpeg("-v", "error", "-ss", "0.68", "-i", whole, "-t", "0.8", "-c", "copy", cut).returncode == 0
    expected = decoded_gray(cut, 96, 64)
    with open_clip(cut, backend="pyav") as clip:
        frames = list(clip.frames())
        got = [frame_time(frame, clip.info) for frame in frames]
        declared = clip.info.frames_declared
    assert declared is not None
    assert declared > len(expected) > 10  # else there is no edit list to honour
    assert got == times(cut)
    assert np.abs(np.stack([frame.pixels for frame in frames]).astype(int) - expected).max() <= 1
    assert (clip.decode_errors, clip.cut_short) == (0, False)


@pytest.mark.parametrize("backend", HERE)
def test_the_colours_of_a_frame_read_in_gray_are_those_of_a_clip_read_in_colour(tmp_path: Path, backend: str) -> None:
    path = encode(tmp_path / "colour.mp4", pattern(6, 96, 64, colour=True), *X264, "-pix_fmt", "yuv420p")
    with open_clip(path, backend=backend, colour=True) as clip:
        expected = [frame.pixels for frame in clip.frames()]
    with open_clip(path, backend=backend) as clip:
        with pytest.raises(RuntimeError, match="no frame has been given yet"):
            clip.rgb()
        for frame, truth in zip(clip.frames(), expected, strict=True):
            assert frame.pixels.ndim == 2
            np.testing.assert_array_equal(clip.rgb(), truth)
