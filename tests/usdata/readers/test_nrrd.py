"""NRRD, held against SimpleITK over generated files; damage and hostile headers."""

import bz2
import gzip
import random
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from usdata.errors import ReadError
from usdata.readers.base import Frame
from usdata.readers.nrrd import data_files, open_nrrd
from usdata.readers.raw_frames import StackClip


def read(path: Path, *, colour: bool = False) -> tuple[StackClip, list[Frame]]:
    with open_nrrd(path, colour=colour) as clip:
        assert isinstance(clip, StackClip)
        return clip, list(clip.frames())


def stack(frames: list[Frame]) -> np.ndarray:
    return np.stack([frame.pixels for frame in frames])


def header(sizes: str, *lines: str, kind: str = "uint8", encoding: str = "raw") -> bytes:
    given = [f"type: {kind}", f"dimension: {len(sizes.split())}", f"sizes: {sizes}", f"encoding: {encoding}", *lines]
    return "\n".join(["NRRD0005", "# a comment: with a colon", *given, "", ""]).encode()


def ramp(frames: int = 5, height: int = 12, width: int = 20, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width), dtype=np.uint8)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(np.float64) - low) * 255 / (high - low), 0, 255)).astype(np.uint8)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
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
    assert (clip.info.codec, clip.info.pixel_format) == ("gzip" if compressed else "raw", np.dtype(dtype).name)
    assert data_files(path) == (() if suffix == ".nrrd" else ("written.raw.gz" if compressed else "written.raw",))


@pytest.mark.parametrize("kinds", ["vector domain domain domain", "RGB-color domain domain list", "3-color domain domain time", None])
def test_colour(tmp_path: Path, kinds: str | None) -> None:
    import SimpleITK as simpleitk

    values = np.random.default_rng(2).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    path = write(tmp_path / "a.nrrd", header("3 30 20 3", *([] if kinds is None else [f"kinds: {kinds}"])) + values.tobytes())
    clip, frames = read(path, colour=True)
    assert clip.info.pixel_format == "uint8 x3"
    np.testing.assert_array_equal(stack(frames), values)
    assert read(path)[1][0].pixels.shape == (20, 30)
    simpleitk.WriteImage(simpleitk.GetImageFromArray(values, isVector=True), str(tmp_path / "b.nrrd"), True)
    np.testing.assert_array_equal(stack(read(tmp_path / "b.nrrd", colour=True)[1]), values)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("signed char", "i1"),
        ("unsigned char", "u1"),
        ("short", "i2"),
        ("unsigned short", "u2"),
        ("int", "i4"),
        ("uint32_t", "u4"),
        ("long long int", "i8"),
        ("uint64", "u8"),
        ("float", "f4"),
        ("double", "f8"),
    ],
)
def test_every_type_and_byte_order(tmp_path: Path, kind: str, code: str, order: str) -> None:
    dtype = np.dtype(code).newbyteorder("<" if order == "little" else ">")
    values = np.random.default_rng(3).integers(0 if dtype.kind == "u" else -100, 100, (3, 8, 9)).astype(dtype)
    values[0, 0, :2] = (0, 99) if dtype.kind == "u" else (-100, 99)
    _, frames = read(write(tmp_path / "a.nrrd", header("9 8 3", f"endian: {order}", kind=kind) + values.tobytes()))
    np.testing.assert_array_equal(stack(frames), values if dtype.kind == "u" else scaled(values, -100, 99))


def test_the_headers_range_goes_before_the_clips_own(tmp_path: Path) -> None:
    values = np.random.default_rng(4).integers(12, 3072, (2, 16, 16)).astype("<u2")
    lines = ("endian: little", "min: 0", "max: 4095")
    clip, frames = read(write(tmp_path / "a.nrrd", header("16 16 2", *lines, kind="ushort") + values.tobytes()))
    np.testing.assert_array_equal(stack(frames), scaled(values, 0, 4095))
    assert any("0..4095 (the header's range)" in note for note in clip.info.notes)


@pytest.mark.parametrize(
    ("encoding", "pack"), [("raw", bytes), ("gzip", gzip.compress), ("gz", gzip.compress), ("bzip2", bz2.compress), ("bz2", bz2.compress)]
)
def test_encodings_attached_and_detached(tmp_path: Path, encoding: str, pack) -> None:
    values = ramp()
    packed = pack(values.tobytes())
    (tmp_path / "apart.data").write_bytes(packed)
    attached = write(tmp_path / "a.nrrd", header("20 12 5", encoding=encoding) + packed)
    np.testing.assert_array_equal(stack(read(attached)[1]), values)
    for field in ("data file", "datafile", "Data File"):
        detached = write(tmp_path / "a.nhdr", header("20 12 5", f"{field}: apart.data", encoding=encoding).rstrip(b"\n") + b"\n")
        assert data_files(detached) == ("apart.data",)
        clip, frames = read(detached)
        np.testing.assert_array_equal(stack(frames), values)
        assert (clip.decode_errors, clip.cut_short) == (0, False)


def test_several_gzip_members_are_one_stream(tmp_path: Path) -> None:
    values = ramp(50)
    content = b"".join(gzip.compress(frame.tobytes()) for frame in values)
    clip, frames = read(write(tmp_path / "a.nrrd", header("20 12 50", encoding="gzip") + content))
    np.testing.assert_array_equal(stack(frames), values)
    assert clip.decode_errors == 0


@pytest.mark.parametrize(
    ("encoding", "lines", "build"),
    [
        ("raw", ("line skip: 2",), lambda data: b"one\ntwo\n" + data),
        ("raw", ("byte skip: 9",), lambda data: b"123456789" + data),
        ("raw", ("lineskip: 1", "byteskip: 3"), lambda data: b"one\n123" + data),
        ("raw", ("byte skip: -1",), lambda data: b"of any length\n\n" + data),
        ("gzip", ("line skip: 1",), lambda data: b"one\n" + gzip.compress(data)),
        ("gzip", ("byte skip: 4",), lambda data: gzip.compress(b"1234" + data)),
    ],
)
def test_skips(tmp_path: Path, encoding: str, lines: tuple[str, ...], build) -> None:
    import SimpleITK as simpleitk

    values = ramp()
    (tmp_path / "a.data").write_bytes(build(values.tobytes()))
    path = write(tmp_path / "a.nhdr", header("20 12 5", *lines, "data file: a.data", encoding=encoding))
    np.testing.assert_array_equal(stack(read(path)[1]), values)
    np.testing.assert_array_equal(simpleitk.GetArrayFromImage(simpleitk.ReadImage(str(path))), values)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("spacings: 0.1 0.2 nan",), (0.1, 0.2)),
        (("spacings: 0.1 0.2 nan", 'units: "mm" "mm" "s"'), (0.1, 0.2)),
        (("spacings: 0.1 0.2 nan", 'units: "cm" "cm" "s"'), (None, None)),
        (("space: left-posterior-superior", "space directions: (0.3,0,0) (0,0.3,0.4) none"), (0.3, 0.5)),
        (("space dimension: 3", 'space units: "m" "m" "m"', "space directions: (1,0,0) (0,2,0) none"), (None, None)),
        (("spacings: 1 1 1",), (None, None)),
        (("spacings: -1 5000 1",), (None, None)),
        (("spacings: x",), (None, None)),
        ((), (None, None)),
    ],
)
def test_spacing(tmp_path: Path, lines: tuple[str, ...], expected: tuple[float | None, float | None]) -> None:
    clip, _ = read(write(tmp_path / "a.nrrd", header("20 12 5", *lines) + ramp().tobytes()))
    assert (clip.info.mm_per_pixel_x, clip.info.mm_per_pixel_y) == expected
    # What was written and not used is said.
    assert any("spacing" in note for note in clip.info.notes) == (expected == (None, None) and bool(lines) and lines != ("spacings: x",))


def test_colour_has_an_axis_without_spacing(tmp_path: Path) -> None:
    lines = ("kinds: RGB-color domain domain list", "space directions: none (0.3,0,0) (0,0.4,0) none")
    clip, _ = read(write(tmp_path / "a.nrrd", header("3 20 12 2", *lines) + bytes(3 * 20 * 12 * 2)))
    assert (clip.info.mm_per_pixel_x, clip.info.mm_per_pixel_y) == (0.3, 0.4)


def test_a_tracked_sequence(tmp_path: Path) -> None:
    values = ramp()
    lines = [f"Seq_Frame{number:04}_Timestamp:={1 + number / 8}" for number in range(5)]
    lines += ["Seq_Frame0001_ImageStatus:=INVALID", "Seq_Frame0002_ToolToTrackerTransformStatus:=INVALID"]
    lines += ["UltrasoundImageOrientation:=UN", "UltrasoundImageType:=BRIGHTNESS", "kinds: domain domain list"]
    clip, frames = read(write(tmp_path / "a.nrrd", header("20 12 5", *lines) + values.tobytes()))
    np.testing.assert_array_equal(stack(frames), values[:, ::-1, ::-1])
    assert [frame.invalid for frame in frames] == [False, True, False, False, False]
    assert clip.info.time_base == Fraction(1, 1000)
    assert [frame.pts for frame in frames] == [1000, 1125, 1250, 1375, 1500]


REFUSED = {
    "transforms alone": (header("0 0 7", "Seq_Frame0000_Timestamp:=1"), "transforms alone"),
    "radio frequency": (header("4 4", "UltrasoundImageType:=RF_IQ_LINE") + bytes(16), "radio-frequency"),
    "ascii": (header("4 4", encoding="ascii") + b"1 2", "encoding"),
    "hex": (header("4 4", encoding="hex") + b"ff", "encoding"),
    "block": (header("4 4", kind="block") + bytes(16), "block"),
    "no byte order": (header("4 4", kind="short") + bytes(32), "endian"),
    "dimension": (header("4 4 4").replace(b"dimension: 3", b"dimension: 2") + bytes(64), "dimension"),
    "no sizes": (b"NRRD0004\ntype: uint8\n\n", "dimension"),
    "not NRRD": (b"NRRD0009\ntype: uint8\n\n", "first line"),
    "interleaved frames": (header("9 4 4", "kinds: list domain domain") + bytes(144), "one after another"),
    "interleaved times": (header("4 9 4", "kinds: domain time domain") + bytes(144), "one after another"),
    "planes of colour": (header("4 4 3", "kinds: domain domain RGB-color") + bytes(48), "do not lie together"),
    "transparency": (header("4 4 4", "kinds: RGBA-color domain domain") + bytes(64), "4 values each"),
    "HSV": (header("3 4 4", "kinds: HSV-color domain domain") + bytes(48), "hsv"),
    "volume over time": (header("4 4 5 6") + bytes(480), "volume over time"),
    "absurd": (header("1000000 1000000 9", encoding="gzip") + gzip.compress(bytes(9999)), "1000000×1000000"),
    "frames": (header(f"4 4 {10**17}") + bytes(99), "claims"),
    "huge number": (header("4 4 " + "9" * 5000) + bytes(99), "whole numbers"),
    "list": (header("4 4", "data file: LIST") + b"a.raw\n", "list of files"),
    "pattern": (header("4 4", "data file: a%03d.raw 1 3 1"), "list of files"),
    "missing": (header("4 4", "data file: nothing.raw"), "missing"),
    "absolute": (header("4 4", "data file: /etc/hostname"), "beside it"),
    "upwards": (header("4 4", "data file: ../a.raw"), "beside it"),
    "backwards": (header("4 4", "byte skip: -7") + bytes(16), "backwards"),
    "backwards in gzip": (header("4 4", "byte skip: -1", encoding="gzip") + gzip.compress(bytes(16)), "backwards"),
    "skips all": (header("4 4", f"byte skip: {10**17}") + bytes(16), "no frame of it is whole"),
    "skips all lines": (header("4 4", f"line skip: {10**17}") + b"\n" * 99, "no frame of it is whole"),
    "short before its end": (header("4 4", "byte skip: -1") + bytes(15), "shorter"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(tmp_path: Path, name: str) -> None:
    content, reason = REFUSED[name]
    path = write(tmp_path / "a.nrrd", content)
    with pytest.raises(ReadError, match=reason) as told:
        open_nrrd(path)
    assert told.value.advice
    if "beside" in reason or "list of" in reason:
        with pytest.raises(ReadError, match=reason):
            data_files(path)


@pytest.mark.parametrize(("encoding", "pack"), [("raw", bytes), ("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_data_that_end_early_give_the_whole_frames(tmp_path: Path, encoding: str, pack) -> None:
    values = ramp(80, 120, 160)
    packed = pack(values.tobytes())
    clip, frames = read(write(tmp_path / "a.nrrd", header("160 120 80", encoding=encoding) + packed[: len(packed) * 7 // 10]))
    assert 40 < len(frames) < 60  # bzip2 gives whole blocks of 900 kB alone
    np.testing.assert_array_equal(stack(frames), values[: len(frames)])
    assert (clip.decode_errors, clip.cut_short) == (1, True)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_damaged_data_give_the_frames_before(tmp_path: Path, encoding: str, pack) -> None:
    values = (ramp(150, 120, 160) // 64 * 64).astype(np.uint8)
    packed = bytearray(pack(values.tobytes(), 1))
    middle = len(packed) // 2
    packed[middle : middle + 200] = bytes(200)
    clip, frames = read(write(tmp_path / "a.nrrd", header("160 120 150", encoding=encoding) + packed))
    assert clip.decode_errors == 1
    assert "damaged" in (clip.first_error or "")
    assert len(frames) > 60
    np.testing.assert_array_equal(stack(frames[:60]), values[:60])


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_what_a_bomb_costs(tmp_path: Path, encoding: str, pack) -> None:
    path = write(tmp_path / "a.nrrd", header("20 12 5", encoding=encoding) + pack(bytes(100 << 20)))
    tracemalloc.start()
    try:
        clip, frames = read(path)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20  # bzip2's own state is 4 MB
    finally:
        tracemalloc.stop()
    assert (len(frames), clip.decode_errors) == (5, 0)
    assert any("more data than its header declares" in note for note in clip.info.notes)


@pytest.mark.parametrize("rest", [b"a\n" * 2_500_000, b"a" * (70 << 20)], ids=["lines", "one line"])
def test_a_header_without_end_is_left(tmp_path: Path, rest: bytes) -> None:
    path = write(tmp_path / "a.nrrd", b"NRRD0004\n" + rest)
    with pytest.raises(ReadError, match="does not end"):
        open_nrrd(path)


def test_random_damage_raises_nothing_but_read_error(tmp_path: Path) -> None:
    values = ramp()
    wide = (values.astype("<i2") * 9).tobytes()
    lines = ["kinds: domain domain list", "spacings: 0.1 0.1 1", *(f"Seq_Frame{number:04}_Timestamp:={number / 10}" for number in range(5))]
    sound = [
        header("20 12 5", *lines) + values.tobytes(),
        header("20 12 5", *lines, encoding="gzip") + gzip.compress(values.tobytes(), mtime=0),
        header("20 12 5", "endian: little", "byte skip: 0", kind="short", encoding="bzip2") + bz2.compress(wide),
    ]
    read_whole = 0
    for seed in range(200):
        draw = random.Random(seed)
        content = bytearray(sound[seed % 3])
        for _ in range(draw.randint(1, 12)):
            place = draw.randrange(len(content) if draw.random() < 0.5 else min(len(content), 300))
            content[place] = draw.choice((draw.randrange(256), ord(draw.choice("0123456789-: \n.e"))))
        if draw.random() < 0.3:
            del content[draw.randrange(len(content)) :]
        path = write(tmp_path / "damaged.nrrd", bytes(content))
        for look in (read, data_files):
            try:
                look(path)
                read_whole += 1
            except ReadError:
                continue
    assert 20 < read_whole < 380
