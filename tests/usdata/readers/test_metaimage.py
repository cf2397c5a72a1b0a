"""MetaImage, held against SimpleITK over real and generated files; damage and hostile headers; tracked sequences."""

import random
import subprocess
import sys
import tracemalloc
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from usdata.errors import ReadError
from usdata.readers.base import Frame, frame_time
from usdata.readers.metaimage import data_files, open_metaimage
from usdata.readers.raw_frames import StackClip

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "mha_pluslib"
TYPES = {
    "MET_CHAR": "<i1",
    "MET_UCHAR": "<u1",
    "MET_SHORT": "<i2",
    "MET_USHORT": "<u2",
    "MET_INT": "<i4",
    "MET_UINT": "<u4",
    "MET_LONG": "<i4",
    "MET_LONG_LONG": "<i8",
    "MET_ULONG_LONG": "<u8",
    "MET_FLOAT": "<f4",
    "MET_DOUBLE": "<f8",
}


def read(path: Path, *, colour: bool = False) -> tuple[StackClip, list[Frame]]:
    with open_metaimage(path, colour=colour) as clip:
        assert isinstance(clip, StackClip)
        return clip, list(clip.frames())


def stack(clip_frames: list[Frame]) -> np.ndarray:
    return np.stack([frame.pixels for frame in clip_frames])


def header(sizes: str, *, data: str = "LOCAL", **fields: object) -> bytes:
    given = {"NDims": len(sizes.split()), "DimSize": sizes, "ElementType": "MET_UCHAR"} | fields
    lines = ["ObjectType = Image", *(f"{key} = {value}" for key, value in given.items()), f"ElementDataFile = {data}", ""]
    return "\n".join(lines).encode()


def ramp(frames: int = 5, height: int = 12, width: int = 20, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width), dtype=np.uint8)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(np.float64) - low) * 255 / (high - low), 0, 255)).astype(np.uint8)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "path", sorted(REAL.glob("*.igs.mh*")) or [pytest.param(None, marks=pytest.mark.skip("the real sequences are not in ../shared/data"))]
)
def test_real_sequences_have_simpleitks_pixels_and_their_own_times(path: Path) -> None:
    import SimpleITK as simpleitk

    image = simpleitk.ReadImage(str(path))
    expected = simpleitk.GetArrayFromImage(image)
    clip, frames = read(path)
    # All of them are stored in orientation MF, or do not say.
    np.testing.assert_array_equal(stack(frames), expected if expected.ndim == 3 else expected[None])
    assert (clip.decode_errors, clip.cut_short) == (0, False)
    for frame in frames:
        key = f"Seq_Frame{frame.index:04}_Timestamp"
        told = Fraction(image.GetMetaData(key)) if image.HasMetaDataKey(key) else None
        assert frame_time(frame, clip.info) == told
        assert not frame.invalid
    spacing = 0.3 if "Prostate10" in path.name else None
    assert (clip.info.mm_per_pixel_x, clip.info.mm_per_pixel_y) == (spacing, spacing)
    assert any("1 × 1" in note for note in clip.info.notes) == (spacing is None)


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="the real sequences are not in ../shared/data")
def test_a_real_header_whose_frame_numbers_have_a_gap() -> None:
    path = REAL / "Prostate10_video.igs.mhd"
    assert data_files(path) == ("Prostate10_video.raw",)
    clip, frames = read(path)
    # Nine frames are described, number 2 is not; FrameNumber says that the fields belong where their numbers are.
    assert clip.info.time_base == Fraction(1, 10)
    assert [frame.pts for frame in frames] == [10, 15, None, 20, 25, 30, 35, 40, 45, 50]
    assert any("1 of 10 frames have no time stamp" in note for note in clip.info.notes)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"])
def test_files_that_simpleitk_wrote(tmp_path: Path, suffix: str, compressed: bool, dtype: str) -> None:
    import SimpleITK as simpleitk

    values = np.random.default_rng(1).normal(40, 30, (4, 18, 22)).astype(dtype) if dtype != "u1" else ramp(4, 18, 22)
    image = simpleitk.GetImageFromArray(values)
    image.SetSpacing((0.125, 0.25, 2.0))
    path = tmp_path / f"written{suffix}"
    simpleitk.WriteImage(image, str(path), compressed)
    clip, frames = read(path)
    expected = values if dtype == "u1" else scaled(values, float(values.min()), float(values.max()))
    if dtype.startswith("u") and values.max() <= 255:
        expected = values
    np.testing.assert_array_equal(stack(frames), expected)
    assert (clip.info.mm_per_pixel_x, clip.info.mm_per_pixel_y) == (0.125, 0.25)
    assert (clip.info.codec, clip.info.pixel_format) == ("zlib" if compressed else "raw", np.dtype(dtype).name)
    assert data_files(path) == (() if suffix == ".mha" else ("written.zraw" if compressed else "written.raw",))


def test_colour_that_simpleitk_wrote(tmp_path: Path) -> None:
    import cv2
    import SimpleITK as simpleitk

    values = np.random.default_rng(2).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    path = tmp_path / "colour.mha"
    simpleitk.WriteImage(simpleitk.GetImageFromArray(values, isVector=True), str(path), True)
    clip, frames = read(path, colour=True)
    assert clip.info.pixel_format == "uint8 x3"
    np.testing.assert_array_equal(stack(frames), values)
    with open_metaimage(path) as gray:
        for frame, truth in zip(gray.frames(), values, strict=True):
            np.testing.assert_array_equal(frame.pixels, cv2.cvtColor(truth, cv2.COLOR_RGB2GRAY))
            np.testing.assert_array_equal(gray.rgb(), truth)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", TYPES)
def test_every_type_and_byte_order(tmp_path: Path, name: str, order: str) -> None:
    dtype = np.dtype(TYPES[name]).newbyteorder(order)
    values = np.random.default_rng(3).integers(-100 if dtype.kind != "u" else 0, 100, (3, 8, 9)).astype(dtype)
    values[0, 0, :2] = (0, 99) if dtype.kind == "u" else (-100, 99)
    big = order == ">"
    content = header("9 8 3", ElementType=name, BinaryDataByteOrderMSB=big) + values.tobytes()
    clip, frames = read(write(tmp_path / "a.mha", content))
    np.testing.assert_array_equal(stack(frames), values if dtype.kind == "u" else scaled(values, -100, 99))
    if dtype.kind != "u":
        assert any("-100..99 (the clip's own range)" in note for note in clip.info.notes)


def test_twelve_bits_in_sixteen_are_scaled_by_the_clips_own_range(tmp_path: Path) -> None:
    values = np.random.default_rng(4).integers(12, 3072, (6, 16, 16)).astype("<u2")
    values.flat[:2] = 12, 3071
    clip, frames = read(write(tmp_path / "a.mha", header("16 16 6", ElementType="MET_USHORT") + values.tobytes()))
    np.testing.assert_array_equal(stack(frames), scaled(values, 12, 3071))
    assert any("12..3071 (the clip's own range)" in note for note in clip.info.notes)
    # The header's range goes before the clip's own.
    content = header("16 16 6", ElementType="MET_USHORT", ElementMin=0, ElementMax=4095) + values.tobytes()
    clip, frames = read(write(tmp_path / "a.mha", content))
    np.testing.assert_array_equal(stack(frames), scaled(values, 0, 4095))
    assert any("0..4095 (the header's range)" in note for note in clip.info.notes)


@pytest.mark.parametrize("limits", [("5", "5"), ("9", "1"), ("nan", "7"), ("-inf", "inf"), ("1e308", "-1e308"), ("a", "b"), ("", "")])
def test_a_range_that_is_none_is_not_believed(tmp_path: Path, limits: tuple[str, str]) -> None:
    values = np.arange(300, dtype="<f4").reshape(1, 15, 20) - 7
    content = header("20 15 1", ElementType="MET_FLOAT", ElementMin=limits[0], ElementMax=limits[1]) + values.tobytes()
    _, frames = read(write(tmp_path / "a.mha", content))
    np.testing.assert_array_equal(stack(frames), scaled(values, -7, 292))


def test_numbers_that_are_none_are_black_or_white(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 256, dtype="<f4").reshape(1, 16, 16)
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    _, frames = read(write(tmp_path / "a.mha", header("16 16", ElementType="MET_FLOAT") + values.tobytes()))
    assert frames[0].pixels[0, :3].tolist() == [0, 255, 0]
    assert frames[0].pixels[15, 15] == 255
    blank = np.full((1, 16, 16), 700, "<i2")
    _, frames = read(write(tmp_path / "b.mha", header("16 16", ElementType="MET_SHORT") + blank.tobytes()))
    assert not frames[0].pixels.any()


@pytest.mark.parametrize("name", ["apart.raw", "./apart.raw", "échographie.raw", "with spaces.raw"])
def test_detached_data(tmp_path: Path, name: str) -> None:
    values = ramp()
    (tmp_path / name).write_bytes(values.tobytes())
    path = write(tmp_path / "a.mhd", header("20 12 5", data=name))
    assert data_files(path) == (name.removeprefix("./"),)
    np.testing.assert_array_equal(stack(read(path)[1]), values)


@pytest.mark.parametrize(
    ("field", "before", "after"), [(7, b"1234567", b""), (-1, b"anything at all", b""), (0, b"", b""), (0, b"", b"left over")]
)
def test_header_size_says_where_the_data_are(tmp_path: Path, field: int, before: bytes, after: bytes) -> None:
    import SimpleITK as simpleitk

    values = ramp()
    (tmp_path / "a.raw").write_bytes(before + values.tobytes() + after)
    path = write(tmp_path / "a.mhd", header("20 12 5", data="a.raw", HeaderSize=field))
    clip, frames = read(path)
    np.testing.assert_array_equal(stack(frames), values)
    np.testing.assert_array_equal(simpleitk.GetArrayFromImage(simpleitk.ReadImage(str(path))), values)
    assert clip.decode_errors == 0
    assert any("more data than its header declares" in note for note in clip.info.notes) == bool(after)


def test_line_ends_of_windows_and_names_in_another_case(tmp_path: Path) -> None:
    values = ramp()
    head = header("20 12 5").replace(b"DimSize", b"dimsize").replace(b"\n", b"\r\n").replace(b"LOCAL", b"Local")
    np.testing.assert_array_equal(stack(read(write(tmp_path / "a.mha", head + values.tobytes()))[1]), values)


@pytest.mark.parametrize("sizes", ["20 12 1 5", "20 12 5 1", "20 12 5 1 1"])
def test_axes_of_length_one_are_passed_over(tmp_path: Path, sizes: str) -> None:
    values = ramp()
    np.testing.assert_array_equal(stack(read(write(tmp_path / "a.mha", header(sizes) + values.tobytes()))[1]), values)


@pytest.mark.parametrize("size", [None, 1, 10**9, 0])
def test_the_declared_size_of_packed_data_is_not_needed(tmp_path: Path, size: int | None) -> None:
    values = ramp()
    fields: dict[str, object] = {"CompressedData": True} | ({} if size is None else {"CompressedDataSize": size})
    clip, frames = read(write(tmp_path / "a.mha", header("20 12 5", **fields) + zlib.compress(values.tobytes())))
    np.testing.assert_array_equal(stack(frames), values)
    assert (clip.decode_errors, clip.cut_short) == (0, False)


def sequence(*lines: str, frames: int = 5, orientation: str | None = None) -> bytes:
    head = header(f"20 12 {frames}")
    given = [*lines, *([] if orientation is None else [f"UltrasoundImageOrientation = {orientation}"])]
    return head.replace(b"ElementDataFile", "".join(f"{line}\n" for line in given).encode() + b"ElementDataFile")


TURNS = {
    "MF": lambda stored: stored,
    "MFA": lambda stored: stored,
    "UF": lambda stored: stored[:, :, ::-1],
    "MN": lambda stored: stored[:, ::-1],
    "UND": lambda stored: stored[:, ::-1, ::-1],
    # Rows lead to the side of the probe and columns into depth: a quarter turn and a mirror.
    "FM": lambda stored: stored.transpose(0, 2, 1),
    "NM": lambda stored: stored.transpose(0, 2, 1)[:, ::-1],
    "FU": lambda stored: stored.transpose(0, 2, 1)[:, :, ::-1],
    "NUA": lambda stored: stored.transpose(0, 2, 1)[:, ::-1, ::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
def test_frames_are_turned_to_the_marked_side_and_into_depth(tmp_path: Path, orientation: str) -> None:
    values = ramp()
    content = sequence("ElementSpacing = 0.2 0.1 1", orientation=orientation) + values.tobytes()
    clip, frames = read(write(tmp_path / "a.mha", content))
    expected = TURNS[orientation](values)
    np.testing.assert_array_equal(stack(frames), expected)
    assert (clip.info.height, clip.info.width) == expected.shape[1:]
    turned = expected.shape[1:] != values.shape[1:]
    assert (clip.info.mm_per_pixel_x, clip.info.mm_per_pixel_y) == ((0.1, 0.2) if turned else (0.2, 0.1))


@pytest.mark.parametrize("orientation", ["XX", "MM", "F", "AMF", "Mueller, Anna 1950"])
def test_an_unknown_orientation_is_noted_and_no_name_is_repeated(tmp_path: Path, orientation: str) -> None:
    values = ramp()
    clip, frames = read(write(tmp_path / "a.mha", sequence(orientation=orientation) + values.tobytes()))
    np.testing.assert_array_equal(stack(frames), values)
    assert any("orientation" in note for note in clip.info.notes)
    assert not any("1950" in note for note in clip.info.notes)


def test_a_frames_own_status_counts_and_a_tools_does_not(tmp_path: Path) -> None:
    lines = (
        "Seq_Frame0000_ImageStatus = OK",
        "Seq_Frame0001_ImageStatus = INVALID",
        "Seq_Frame0002_Status = UNKNOWN",
        "Seq_Frame0003_ProbeToTrackerTransformStatus = INVALID",
        "Seq_Frame0004_Status = ok",
    )
    _, frames = read(write(tmp_path / "a.mha", sequence(*lines) + ramp().tobytes()))
    assert [frame.invalid for frame in frames] == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("stamps", "base", "pts"),
    [
        (["1.0", "1.5", "2.25", "3", "4.000"], Fraction(1, 100), [100, 150, 225, 300, 400]),
        (["10", "20", "30", "40", "50"], Fraction(1), [10, 20, 30, 40, 50]),
        (["0.1", "0.1", "0.3", "0.2", "0.4"], Fraction(1, 10), [1, None, 3, None, 4]),
        (["1", "nan", "1e1", "x", None], Fraction(1), [1, None, 10, None, None]),
        (["0.0333333333333333", "1", "2", "3", "4"], Fraction(1, 10**9), [33333333, 10**9, 2 * 10**9, 3 * 10**9, 4 * 10**9]),
        (["-0.5", "0", "0.5", "1e400000000", "1/2"], Fraction(1, 10), [-5, 0, 5, None, None]),
        (["x", "nan", "inf", "1_0", ""], None, [None] * 5),
        ([None] * 5, None, [None] * 5),
    ],
)
def test_time_stamps_are_exact_or_none(tmp_path: Path, stamps: list[str | None], base: Fraction | None, pts: list[int | None]) -> None:
    lines = [f"Seq_Frame{number:04}_Timestamp = {stamp}" for number, stamp in enumerate(stamps) if stamp is not None]
    clip, frames = read(write(tmp_path / "a.mha", sequence(*lines) + ramp().tobytes()))
    assert (clip.info.time_base, [frame.pts for frame in frames]) == (base, pts)
    assert clip.info.rate_source == (None if base is None else "timestamps")
    assert any("stamp" in note for note in clip.info.notes) == (None in pts and any(stamps))


def test_numbers_of_frames_that_are_not_there(tmp_path: Path) -> None:
    lines = [f"Seq_Frame{number:04}_Timestamp = {number}" for number in range(8)]
    clip, frames = read(write(tmp_path / "a.mha", sequence(*lines, "Seq_Frame0006_ImageStatus = INVALID") + ramp().tobytes()))
    assert [frame.pts for frame in frames] == [0, 1, 2, 3, 4]
    assert not any(frame.invalid for frame in frames)
    assert any("3 frames (up to number 7) that are not there" in note for note in clip.info.notes)
    # As many numbers as pictures, cut out of a longer sequence: taken in order.
    lines = [f"Seq_Frame{number:04}_Timestamp = {number}" for number in (100, 101, 103, 104, 105)]
    clip, frames = read(write(tmp_path / "b.mha", sequence(*lines, "Seq_Frame0103_Status = BAD") + ramp().tobytes()))
    assert [frame.pts for frame in frames] == [100, 101, 103, 104, 105]
    assert [frame.invalid for frame in frames] == [False, False, True, False, False]
    assert any("taken in order" in note for note in clip.info.notes)


REFUSED = {
    "transforms alone": (header("0 0 7").replace(b"ElementDataFile", b"Seq_Frame0000_Timestamp = 1\nElementDataFile"), "transforms alone"),
    "no data of transforms": (sequence("Seq_Frame0000_Timestamp = 1"), "transforms alone"),
    "no data": (header("4 4 4"), "no pixels follow"),
    "radio frequency": (header("4 4", UltrasoundImageType="RF_REAL") + bytes(16), "radio-frequency"),
    "text": (header("4 4", BinaryData=False) + b"1 2 3", "written as text"),
    "list": (header("4 4", data="LIST") + b"a.raw\n", "list of files"),
    "pattern": (header("4 4", data="a%03d.raw 1 3 1"), "list of files"),
    "four channels": (header("4 4", ElementNumberOfChannels=4) + bytes(64), "4 values each"),
    "volume over time": (header("4 4 3 3") + bytes(144), "volume over time"),
    "absurd": (header("1000000 1000000 3") + bytes(9), "1000000×1000000"),
    "negative": (header("-4 4 3") + bytes(99), "-4×4"),
    "frames": (header(f"4 4 {10**17}") + bytes(99), "claims"),
    "huge number": (header("4 4 " + "9" * 5000) + bytes(99), "whole numbers"),
    "superscripts": (header("4 4 ²") + bytes(99), "whole numbers"),
    "one axis": (header("4") + bytes(4), "1 sizes"),
    "axes": (header("4 4 4", NDims=2) + bytes(64), "sizes"),
    "type": (header("4 4", ElementType="MET_STRING") + bytes(16), "MET_STRING"),
    "mesh": (header("4 4").replace(b"= Image", b"= Mesh"), "Mesh"),
    "interleaved": (header("4 4 4", Kinds="list domain domain") + bytes(64), "one after another"),
    "no end": (header("4 4").replace(b"ElementDataFile", b"Something"), "ElementDataFile"),
    "missing": (header("4 4", data="nothing.raw"), "missing"),
    "absolute": (header("4 4", data="/etc/hostname"), "beside it"),
    "upwards": (header("4 4", data="../a.raw"), "beside it"),
    "below": (header("4 4", data="below/a.raw"), "beside it"),
    "drive": (header("4 4", data="C:a.raw"), "beside it"),
    "folder": (header("4 4", data="."), "beside it"),
    "one byte short": (header("4 4") + bytes(15), "no frame of it is whole"),
    "short before its end": (header("4 4", HeaderSize=-1, data="short.raw"), "shorter"),
    "garbled": (header("4 4", CompressedData=True) + bytes(100), "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(tmp_path: Path, name: str) -> None:
    (tmp_path / "short.raw").write_bytes(bytes(7))
    content, reason = REFUSED[name]
    path = write(tmp_path / "a.mha", content)
    with pytest.raises(ReadError, match=reason) as told:
        open_metaimage(path)
    assert told.value.advice
    if "beside" in reason or "list" in reason:
        with pytest.raises(ReadError, match=reason):
            data_files(path)


def test_a_folder_in_place_of_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.raw").mkdir()
    with pytest.raises(ReadError, match="missing"):
        open_metaimage(write(tmp_path / "a.mhd", header("4 4", data="a.raw")))


@pytest.mark.parametrize("whole", [1, 3])
@pytest.mark.parametrize("dtype", ["MET_UCHAR", "MET_USHORT"])
def test_data_that_end_early_give_the_whole_frames(tmp_path: Path, whole: int, dtype: str) -> None:
    values = ramp().astype(TYPES[dtype])
    content = header("20 12 5", ElementType=dtype) + values.tobytes()[: values[0].nbytes * whole + 17]
    clip, frames = read(write(tmp_path / "a.mha", content))
    np.testing.assert_array_equal(stack(frames), values[:whole])
    assert (clip.decode_errors, clip.cut_short, clip.info.frames_declared) == (1, True, 5)
    assert f"within frame {whole + 1} of 5" in (clip.first_error or "")


def test_packed_data_that_end_early_or_are_damaged(tmp_path: Path) -> None:
    values = ramp(40)
    packed = zlib.compress(values.tobytes())
    head = header("20 12 40", CompressedData=True)
    clip, frames = read(write(tmp_path / "cut.mha", head + packed[: len(packed) // 2]))
    assert 10 < len(frames) < 25
    np.testing.assert_array_equal(stack(frames), values[: len(frames)])
    assert (clip.decode_errors, clip.cut_short) == (1, True)
    # The check sum at the end alone is wrong: it is said, and costs at most the last frame, which zlib may keep to itself.
    clip, frames = read(write(tmp_path / "sum.mha", head + packed[:-1] + bytes([packed[-1] ^ 1])))
    assert len(frames) >= 39
    assert clip.decode_errors == 1
    assert "damaged" in (clip.first_error or "")
    # Fewer frames packed than declared, and more.
    clip, frames = read(write(tmp_path / "fewer.mha", head + zlib.compress(values[:7].tobytes())))
    assert (len(frames), clip.decode_errors, clip.cut_short) == (7, 1, True)
    clip, frames = read(write(tmp_path / "more.mha", head + zlib.compress(values.tobytes() + b"more")))
    assert (len(frames), clip.decode_errors, clip.cut_short) == (40, 0, False)
    assert any("more data than its header declares" in note for note in clip.info.notes)


def test_what_a_bomb_and_an_empty_claim_cost(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(200 << 20), 9)
    small = write(tmp_path / "small.mha", header("20 12 5", CompressedData=True) + bomb)
    claim = write(tmp_path / "claim.mha", header("30000 3300 1000", ElementType="MET_DOUBLE", CompressedData=True) + bomb[:1000])
    plain = write(tmp_path / "plain.mha", header("30000 3300 1000", ElementType="MET_DOUBLE") + bytes(1000))
    ticks = write(tmp_path / "ticks.mha", sequence("Seq_Frame0000_Timestamp = 1", frames=10_000_000) + bytes(5000))
    tracemalloc.start()
    try:
        clip, frames = read(small)
        assert (len(frames), clip.decode_errors) == (5, 0)
        for path in (claim, plain):
            with pytest.raises(ReadError, match="no frame of it is whole"):
                open_metaimage(path)
        assert len(read(ticks)[1]) == 20
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    """300 packed frames of 600×800 in colour are 432 MB unpacked; a process that reads them takes a tenth of it more than to start."""
    frame = np.random.default_rng(5).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    packer = zlib.compressobj(0)
    path = tmp_path / "long.mha"
    with path.open("wb") as file:
        file.write(header("800 600 300", ElementNumberOfChannels=3, CompressedData=True))
        for _ in range(300):
            file.write(packer.compress(frame.tobytes()))
        file.write(packer.flush())
    program = (
        "import resource, sys; from pathlib import Path; from usdata.readers.metaimage import open_metaimage\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "with open_metaimage(Path(sys.argv[1])) as clip: count = sum(1 for _ in clip.frames())\n"
        "print(count, (peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    count, megabytes = map(int, done.stdout.split())
    assert count == 300
    assert megabytes < 40


@pytest.mark.parametrize("rest", [b"a\n" * 2_500_000, b"a" * (70 << 20)], ids=["lines", "one line"])
def test_a_header_without_end_is_left(tmp_path: Path, rest: bytes) -> None:
    path = write(tmp_path / "a.mha", b"ObjectType = Image\n" + rest)
    with pytest.raises(ReadError, match="does not end"):
        open_metaimage(path)


def test_random_damage_raises_nothing_but_read_error(tmp_path: Path) -> None:
    values = ramp()
    lines = [f"Seq_Frame{number:04}_Timestamp = {number / 10}" for number in range(5)]
    wide = (values.astype("<i2") * 9).tobytes()
    sound = [
        sequence(*lines, orientation="UN") + values.tobytes(),
        sequence(*lines, "CompressedData = True") + zlib.compress(values.tobytes()),
        header("20 12 5", ElementType="MET_SHORT", CompressedData=True, ElementSpacing="0.1 0.1 1") + zlib.compress(wide),
    ]
    read_whole = 0
    for seed in range(200):
        draw = random.Random(seed)
        content = bytearray(sound[seed % 3])
        for _ in range(draw.randint(1, 12)):
            place = draw.randrange(len(content) if draw.random() < 0.5 else min(len(content), 500))
            content[place] = draw.choice((draw.randrange(256), ord(draw.choice("0123456789-= \n.e"))))
        if draw.random() < 0.3:
            del content[draw.randrange(len(content)) :]
        path = write(tmp_path / "damaged.mha", bytes(content))
        for look in (read, data_files):
            try:
                look(path)
                read_whole += 1
            except ReadError:
                continue
    assert 20 < read_whole < 380  # neither is the damage harmless nor does it stop everything
