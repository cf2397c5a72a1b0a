"""DICOM against pydicom's and SimpleITK's own decoding of real files, and against the frames that were written into generated ones."""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, apply_voi_lut, convert_color_space

from tests.usdata.readers.dicom_files import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    PATIENT,
    RLE,
    STANDARD,
    header,
    native,
    packed,
    region,
    rle,
    smooth,
    write,
)
from tests.usdata.readers.generated import X264, decoded, decoded_gray, encode, ffmpeg, pattern
from usdata.errors import ReadError
from usdata.readers import Frame, Region, frame_time
from usdata.readers.base import Clip
from usdata.readers.dicom import open_dicom

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "dicom"
REAL_NAMES = sorted(path.name for path in REAL.glob("*")) if REAL.is_dir() else []
real_data = pytest.mark.real_data
JPEG, EXTENDED, LOSSLESS, LOSSLESS_SV1 = (f"{STANDARD}.4.{number}" for number in (50, 51, 57, 70))
JPEG_LS, NEAR_LOSSLESS, JPEG2000_LOSSLESS, JPEG2000, HTJ2K = (f"{STANDARD}.4.{number}" for number in (80, 81, 90, 91, 201))
JPEGXL_LOSSLESS, JPEGXL_OF_JPEG, JPEGXL = (f"{STANDARD}.4.{number}" for number in (110, 111, 112))


def read(path: Path, *, colour: bool = False) -> tuple[np.ndarray, Clip, list[Frame]]:
    with open_dicom(path, colour=colour) as clip:
        frames = list(clip.frames())
    assert all(frame.pixels.flags.c_contiguous and frame.pixels.dtype == np.uint8 for frame in frames)
    assert all(frame.pixels.shape[:2] == (clip.info.height, clip.info.width) for frame in frames)
    return np.stack([frame.pixels for frame in frames]), clip, frames


def whole(path: Path, *, colour: bool = False) -> np.ndarray:
    """The frames of a clip without any damage."""
    pixels, clip, _ = read(path, colour=colour)
    assert (clip.decode_errors, clip.first_error, clip.cut_short) == (0, None, False)
    return pixels


def refusal(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        open_dicom(path)
    assert PATIENT.split("^")[0] not in str(caught.value)
    return caught.value.reason


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# --- real files


def real_file(name: str, folder: Path) -> Path:
    if not name.endswith(".zip"):
        return REAL / name
    with zipfile.ZipFile(REAL / name) as archive:
        member = next(each for each in archive.namelist() if not each.endswith("/"))
        return Path(archive.extract(member, folder))


def by_pydicom(path: Path) -> np.ndarray | None:
    """(frames, height, width, 3) as pydicom shows the file; None where it cannot decode it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.TransferSyntaxUID in (JPEG_LS, LOSSLESS_SV1):
            return None
        pixels = dataset.pixel_array
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            colours = apply_color_lut(pixels, dataset)
            pixels = (colours >> 8).astype(np.uint8) if colours.dtype.itemsize > 1 and colours.max() > 255 else colours.astype(np.uint8)
    several = int(dataset.get("NumberOfFrames") or 1) > 1
    pixels = pixels if several else pixels[None]
    return pixels if pixels.ndim == 4 else np.repeat(pixels[..., None], 3, axis=-1)


def by_others(path: Path) -> np.ndarray:
    if path.name.endswith("GH364.dcm"):
        # SimpleITK does not open this one; FFmpeg has a decoder of JPEG-LS of its own.
        stream = next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))
        raw = ffmpeg("-v", "error", "-f", "jpegls_pipe", "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-", stdin=stream).stdout
        return np.frombuffer(raw, np.uint8).reshape(1, 768, 1024, 3)
    import SimpleITK as sitk

    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.shape[0] == dataset.Rows):
        pixels = pixels[None]
    if dataset.PhotometricInterpretation == "PALETTE COLOR" and pixels.ndim == 3:
        pixels = apply_color_lut(pixels, dataset)
    return pixels if pixels.ndim == 4 else np.repeat(pixels[..., None], 3, axis=-1)


@real_data
@pytest.mark.skipif(not REAL_NAMES, reason="the real clips are not in ../shared/data")
@pytest.mark.parametrize("name", REAL_NAMES)
def test_real_files_show_what_other_libraries_show(tmp_path: Path, name: str) -> None:
    path = real_file(name, tmp_path)
    shown = whole(path, colour=True)
    gray = whole(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one has a character set that does not exist
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
    assert len(shown) == int(dataset.get("NumberOfFrames") or 1)
    if name.endswith("will-jxl.dcm"):
        # JPEG XL of a JPEG: the JPEG comes back bit by bit, and Pillow's libjpeg decodes that.
        expected = jpegs_inside(path)
        # Two decoders' inverse transforms and chroma filters differ on edges of colour; the mean tells an exchanged channel.
        assert np.abs(shown.astype(int) - expected).mean() < 0.5
        assert distance(shown, expected) <= 30
    else:
        expected = by_pydicom(path)
        if expected is None:
            expected = by_others(path)
        # libjpeg converts to RGB in fixed point, pydicom in floats after it: two roundings.
        assert distance(shown, expected) <= (2 if dataset.file_meta.TransferSyntaxUID == JPEG else 0)
    of_shown = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in shown])
    # Two levels are rounding; beyond lie the few pixels whose Y, Cb, Cr are no colour that RGB has.
    far = np.abs(gray.astype(int) - of_shown) > 2
    assert far.mean() < 0.002


def jpegs_inside(path: Path) -> np.ndarray:
    frames = []
    dataset = pydicom.dcmread(path)
    for stream in generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames):
        jpeg = imagecodecs.jpegxl_decode_jpeg(stream)
        frames.append(cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
    return np.stack(frames)


@real_data
@pytest.mark.skipif(not REAL_NAMES, reason="the real clips are not in ../shared/data")
def test_real_facts() -> None:
    with open_dicom(REAL / "fo-dicom__DIRW0007") as clip:
        times = [frame_time(frame, clip.info) for frame in clip.frames()]
        assert (clip.info.rate_source, clip.info.codec, clip.info.frames_declared) == ("FrameTimeVector", "jpeg", 65)
        assert clip.info.mm_per_pixel_x == clip.info.mm_per_pixel_y == pytest.approx(0.52478133506629575)
        assert [region.kind for region in clip.info.regions] == ["none", "2d"]
    increments = pydicom.dcmread(REAL / "fo-dicom__DIRW0007", stop_before_pixels=True).FrameTimeVector
    assert [float(time or 0) for time in times] == pytest.approx(np.cumsum([0, *map(float, increments[1:])]) / 1000)
    with open_dicom(REAL / "dcm4che__will-jxl.dcm") as clip:
        assert (clip.info.rate_source, clip.info.time_base) == ("FrameTime", Fraction(474359, 10_000_000))
        assert (clip.info.manufacturer, clip.info.device) == ("GE Vingmed Ultrasound", "Vivid E95")
        assert clip.info.mm_per_pixel_x is None  # its one region is of colour flow
    with open_dicom(REAL / "pydicom-builtin__examples_ybr_color.dcm") as clip:
        assert clip.info.regions == ()
        assert "region 0 reaches beyond the picture: ignored" in clip.info.notes


# --- photometric interpretations and bits, uncompressed


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("count", [1, 3])
def test_native_gray_and_rgb_come_back_exactly(tmp_path: Path, syntax: str, count: int) -> None:
    # An odd number of bytes a frame, so that frames begin within words.
    gray, rgb = smooth(count, 17, 33), smooth(count, 17, 33, colour=True)
    np.testing.assert_array_equal(whole(native(tmp_path / "g", gray, syntax=syntax)), gray)
    path = native(tmp_path / "c", rgb, "RGB", syntax=syntax)
    np.testing.assert_array_equal(whole(path, colour=True), rgb)
    np.testing.assert_array_equal(whole(path), [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in rgb])
    planes = native(tmp_path / "p", np.moveaxis(rgb, -1, 1), "RGB", syntax=syntax, PlanarConfiguration=1, Rows=17, Columns=33)
    np.testing.assert_array_equal(whole(planes, colour=True), rgb)


def test_big_endian_words_of_bytes(tmp_path: Path) -> None:
    frames = smooth(3, 5, 7)
    data = frames.tobytes() + b"\0"
    path = write(tmp_path / "ow", header(frames, "MONOCHROME2"), np.frombuffer(data, "u2").byteswap().tobytes(), BIG_ENDIAN, vr="OW")
    np.testing.assert_array_equal(whole(path), frames)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    frames = smooth(2, 16, 24)
    np.testing.assert_array_equal(whole(native(tmp_path / "a", frames, "MONOCHROME1")), 255 - frames)
    deep = smooth(2, 16, 24, bits=12)
    expected = 255 - np.rint(deep * (255 / 4095)).astype(int)
    assert distance(whole(native(tmp_path / "b", deep, "MONOCHROME1", BitsStored=12)), expected) == 0


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG_ENDIAN])
def test_deep_and_signed_values_span_what_their_bits_can(tmp_path: Path, syntax: str) -> None:
    for bits in (10, 12, 16):
        deep = smooth(2, 16, 24, bits=bits) // 2
        expected = np.rint(deep * (255 / ((1 << bits) - 1)))
        np.testing.assert_array_equal(whole(native(tmp_path / "u", deep, BitsStored=bits, syntax=syntax)), expected)
        signed = (deep.astype(int) - (1 << (bits - 1))).astype(np.int16)
        np.testing.assert_array_equal(whole(native(tmp_path / "s", signed, BitsStored=bits, syntax=syntax)), expected)
    # An overlay in the unused bits is no part of the value, and left-aligned values are shifted.
    deep = smooth(2, 16, 24, bits=12)
    expected = np.rint(deep * (255 / 4095))
    np.testing.assert_array_equal(whole(native(tmp_path / "o", deep | 0x8000, BitsStored=12, syntax=syntax)), expected)
    np.testing.assert_array_equal(whole(native(tmp_path / "l", deep << 4, BitsStored=12, HighBit=15, syntax=syntax)), expected)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -300), (-1, 100)])
def test_windows_are_those_of_pydicom(tmp_path: Path, function: str, slope: int, intercept: int) -> None:
    deep = smooth(2, 16, 24, bits=12)
    window = {"WindowCenter": [900, 40], "WindowWidth": [700, 400], "RescaleSlope": slope, "RescaleIntercept": intercept}
    path = native(tmp_path / "w", deep, BitsStored=12, VOILUTFunction=function, **window)
    dataset = pydicom.dcmread(path)
    values = apply_voi_lut(deep * float(slope) + intercept, dataset)
    low, high = intercept, 4095 * slope + intercept
    # pydicom's window spreads over the values of the lowest and the highest code, ours over 0..255.
    assert distance(whole(path), np.rint((values - low) / (high - low) * 255)) <= 1


def test_voi_tables_and_thresholds(tmp_path: Path) -> None:
    deep = smooth(2, 16, 24, bits=12)
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    table = (np.linspace(0, 1, 4096) ** 2 * 4095).astype(np.uint16)
    item.add_new("LUTData", "OW", table.tobytes())
    path = native(tmp_path / "t", deep, BitsStored=12, VOILUTSequence=[item])
    np.testing.assert_array_equal(whole(path), np.rint(table[deep] / 4095 * 255))
    path = native(tmp_path / "one", deep, BitsStored=12, WindowCenter=2000, WindowWidth=1)
    np.testing.assert_array_equal(whole(path), np.where(deep > 1999.5, 255, 0))


def test_eight_bit_pixels_are_shown_as_stored_whatever_the_window(tmp_path: Path) -> None:
    frames = smooth(2, 16, 24)
    np.testing.assert_array_equal(whole(native(tmp_path / "w", frames, WindowCenter=40, WindowWidth=10)), frames)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("syntax", [EXPLICIT, BIG_ENDIAN])
def test_palettes(tmp_path: Path, bits: int, syntax: str) -> None:
    frames = smooth(2, 16, 24)
    luts = np.random.default_rng(1).integers(0, 1 << bits, (3, 256)).astype(np.uint8 if bits == 8 else np.uint16)
    attributes: dict[str, Any] = {}
    for name, lut in zip(("Red", "Green", "Blue"), luts, strict=True):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        words = lut.view(np.uint16)
        attributes[f"{name}PaletteColorLookupTableData"] = (words.byteswap() if syntax == BIG_ENDIAN else words).tobytes()
    path = native(tmp_path / "p", frames, "PALETTE COLOR", syntax=syntax, **attributes)
    expected = np.moveaxis((luts if bits == 8 else luts >> 8)[:, frames], 0, -1).astype(np.uint8)
    np.testing.assert_array_equal(whole(path, colour=True), expected)
    np.testing.assert_array_equal(whole(path), [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in expected])


def test_segmented_palette(tmp_path: Path) -> None:
    frames = smooth(1, 16, 24)
    # PS3.3 C.7.9.2: a discrete segment of one value, then a line over the other 255.
    segments = np.array([0, 1, 0, 1, 255, 0xFF00], "<u2").tobytes()
    attributes: dict[str, Any] = {}
    for name in ("Red", "Green", "Blue"):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        attributes[f"Segmented{name}PaletteColorLookupTableData"] = segments
    path = native(tmp_path / "p", frames, "PALETTE COLOR", **attributes)
    assert distance(whole(path), frames) <= 1


def test_native_ybr(tmp_path: Path) -> None:
    ybr = smooth(2, 16, 24, colour=True)
    rgb = np.stack([convert_color_space(frame, "YBR_FULL", "RGB") for frame in ybr])
    path = native(tmp_path / "full", ybr, "YBR_FULL")
    np.testing.assert_array_equal(whole(path, colour=True), rgb)
    np.testing.assert_array_equal(whole(path), ybr[..., 0])
    # 4:2:2: Y Y Cb Cr of two pixels.
    shared = np.repeat(ybr[:, :, ::2, 1:], 2, axis=2)
    pairs = np.concatenate([ybr[..., 0].reshape(2, 16, 12, 2), ybr[:, :, ::2, 1:]], axis=-1)
    full = np.concatenate([ybr[..., :1], shared], axis=-1)
    path = write(tmp_path / "422", header(ybr, "YBR_FULL_422"), pairs.tobytes())
    np.testing.assert_array_equal(whole(path, colour=True), [convert_color_space(frame, "YBR_FULL", "RGB") for frame in full])
    np.testing.assert_array_equal(whole(path), ybr[..., 0])
    # Said to be 4:2:2, and by its length is not.
    path = native(tmp_path / "said", ybr, "YBR_FULL_422")
    pixels, clip, _ = read(path, colour=True)
    np.testing.assert_array_equal(pixels, rgb)
    assert any("YBR_FULL_422" in note for note in clip.info.notes)


def test_native_ybr_of_limited_range(tmp_path: Path) -> None:
    rgb = cv2.GaussianBlur(smooth(1, 16, 24, colour=True)[0], (5, 5), 2) // 2 + 60
    rgb = np.repeat(rgb[:, ::2], 2, axis=1)  # two equal pixels share their colours without loss
    # ITU-R BT.601.
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
    ybr = np.rint(rgb @ matrix.T + [16, 128, 128]).astype(np.uint8)
    pairs = np.concatenate([ybr[..., 0].reshape(16, 12, 2), ybr[:, ::2, 1:]], axis=-1)
    path = write(tmp_path / "p", header(rgb[None], "YBR_PARTIAL_422"), pairs.tobytes())
    assert distance(whole(path, colour=True)[0], rgb) <= 3
    assert distance(whole(path)[0], cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)) <= 2


def test_rgb_on_demand_is_the_colour_clip(tmp_path: Path) -> None:
    ybr = smooth(3, 16, 24, colour=True)
    streams = [imagecodecs.jpeg8_encode(frame, level=90) for frame in ybr]
    for path in (native(tmp_path / "n", ybr, "YBR_FULL"), packed(tmp_path / "j", streams, ybr, "YBR_FULL_422", JPEG)):
        expected = whole(path, colour=True)
        with open_dicom(path) as clip:
            got = [clip.rgb() for _ in clip.frames()]
        np.testing.assert_array_equal(got, expected)


# --- codecs


def jpeg2000(frame: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(frame, reversible=True, codecformat="J2K", **options))


def lossless_jpeg(frame: np.ndarray, predictor: int = 1) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(frame, lossless=True, predictor=predictor, bitspersample=8 * frame.dtype.itemsize))


LOSSLESS_CODECS = [
    pytest.param(RLE, rle, id="rle"),
    pytest.param(LOSSLESS, lambda frame: lossless_jpeg(frame, 6), id="jpeg-lossless"),
    pytest.param(LOSSLESS_SV1, lossless_jpeg, id="jpeg-lossless-sv1"),
    pytest.param(JPEG_LS, imagecodecs.jpegls_encode, id="jpeg-ls"),
    pytest.param(JPEG2000_LOSSLESS, jpeg2000, id="jpeg2000"),
    pytest.param(HTJ2K, lambda frame: imagecodecs.htj2k_encode(frame, reversible=True), id="htj2k"),
    pytest.param(JPEGXL_LOSSLESS, lambda frame: imagecodecs.jpegxl_encode(frame, lossless=True), id="jpegxl"),
    pytest.param(JPEGXL_LOSSLESS, lambda frame: imagecodecs.jpegxl_encode(frame, lossless=True, usecontainer=True), id="jpegxl-container"),
]


@pytest.mark.parametrize(("syntax", "encoded"), LOSSLESS_CODECS)
@pytest.mark.parametrize("table", [True, False])
def test_lossless_codecs_come_back_exactly(tmp_path: Path, syntax: str, encoded: Any, table: bool) -> None:
    gray, rgb, deep = smooth(3, 40, 56), smooth(3, 40, 56, colour=True), smooth(3, 40, 56, bits=16)
    split = 1 if syntax == RLE else 3
    photometric = "YBR_RCT" if syntax == JPEG2000_LOSSLESS else "RGB"

    def stored(name: str, frames: np.ndarray, photometric: str) -> Path:
        return packed(tmp_path / name, [bytes(encoded(frame)) for frame in frames], frames, photometric, syntax, table=table, split=split)

    np.testing.assert_array_equal(whole(stored("g", gray, "MONOCHROME2")), gray)
    np.testing.assert_array_equal(whole(stored("m1", gray, "MONOCHROME1")), 255 - gray)
    np.testing.assert_array_equal(whole(stored("c", rgb, photometric), colour=True), rgb)
    np.testing.assert_array_equal(whole(stored("d", deep, "MONOCHROME2")), np.rint(deep * (255 / 65535)))
    one = whole(packed(tmp_path / "1", [bytes(encoded(gray[0]))], gray[:1], "MONOCHROME2", syntax, table=table, split=split))
    np.testing.assert_array_equal(one, gray[:1])


@pytest.mark.parametrize(("syntax", "encoded"), [each for each in LOSSLESS_CODECS if each.id not in ("jpegxl-container", "htj2k")])
def test_lossless_codecs_of_ybr(tmp_path: Path, syntax: str, encoded: Any) -> None:
    ybr = smooth(2, 40, 56, colour=True)
    # A codec's own transform of colours would be a second one here.
    streams = [jpeg2000(frame, mct=False) if syntax == JPEG2000_LOSSLESS else bytes(encoded(frame)) for frame in ybr]
    path = packed(tmp_path / "y", streams, ybr, "YBR_FULL", syntax)
    np.testing.assert_array_equal(whole(path, colour=True), [convert_color_space(frame, "YBR_FULL", "RGB") for frame in ybr])
    np.testing.assert_array_equal(whole(path), ybr[..., 0])


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("codec", ["rle", "jpeg-lossless-sv1", "jpeg-ls", "jpeg2000", "jpegxl"])
def test_deep_values_in_codecs(tmp_path: Path, codec: str, bits: int) -> None:
    deep = smooth(2, 40, 56, bits=bits)
    encoders = {
        "rle": (RLE, rle),
        "jpeg-lossless-sv1": (LOSSLESS_SV1, lambda frame: imagecodecs.jpeg8_encode(frame, lossless=True, predictor=1, bitspersample=bits)),
        "jpeg-ls": (JPEG_LS, imagecodecs.jpegls_encode),
        "jpeg2000": (JPEG2000_LOSSLESS, lambda frame: jpeg2000(frame, bitspersample=bits)),
        "jpegxl": (JPEGXL_LOSSLESS, lambda frame: imagecodecs.jpegxl_encode(frame, lossless=True, bitspersample=bits)),
    }
    syntax, encoded = encoders[codec]
    path = packed(tmp_path / "d", [bytes(encoded(frame)) for frame in deep], deep, "MONOCHROME2", syntax, BitsStored=bits)
    np.testing.assert_array_equal(whole(path), np.rint(deep * (255 / ((1 << bits) - 1))))


def test_signed_values_in_codecs(tmp_path: Path) -> None:
    deep = smooth(2, 40, 56, bits=12)
    signed = (deep.astype(int) - 2048).astype(np.int16)
    expected = np.rint(deep * (255 / 4095))
    streams = [jpeg2000(frame) for frame in signed]
    np.testing.assert_array_equal(whole(packed(tmp_path / "j", streams, signed, "MONOCHROME2", JPEG2000_LOSSLESS, BitsStored=12)), expected)
    # JPEG-LS knows no sign: the bits are stored as they are.
    streams = [bytes(imagecodecs.jpegls_encode(frame.view(np.uint16) & 4095)) for frame in signed]
    np.testing.assert_array_equal(whole(packed(tmp_path / "l", streams, signed, "MONOCHROME2", JPEG_LS, BitsStored=12)), expected)


def test_planes_of_jpeg_ls(tmp_path: Path) -> None:
    """Three scans of one component each (interleave mode "none"), put together from three gray streams."""
    rgb = smooth(1, 20, 30, colour=True)
    streams = [bytes(imagecodecs.jpegls_encode(np.ascontiguousarray(rgb[0, ..., place]))) for place in range(3)]
    frame_header = streams[0].index(b"\xff\xf7")
    head = streams[0][frame_header + 4 : frame_header + 9]
    joined = b"\xff\xd8\xff\xf7\x00\x11" + head + b"\x03" + b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    for number, stream in enumerate(streams, 1):
        scan = bytearray(stream[stream.index(b"\xff\xda") : -2])
        scan[5] = number
        joined += bytes(scan)
    np.testing.assert_array_equal(whole(packed(tmp_path / "p", [joined + b"\xff\xd9"], rgb, "RGB", JPEG_LS), colour=True), rgb)


def test_lossy_codecs_are_near(tmp_path: Path) -> None:
    gray, rgb = smooth(2, 40, 56), smooth(2, 40, 56, colour=True)
    cases = (
        (JPEG, "MONOCHROME2", gray, lambda frame: imagecodecs.jpeg8_encode(frame, level=95), 8),
        (JPEG, "YBR_FULL_422", rgb, lambda frame: imagecodecs.jpeg8_encode(frame, level=98, subsampling="444"), 10),
        (EXTENDED, "YBR_FULL_422", rgb, lambda frame: imagecodecs.jpeg8_encode(frame, level=98, subsampling="444"), 10),
        (NEAR_LOSSLESS, "MONOCHROME2", gray, lambda frame: imagecodecs.jpegls_encode(frame, level=2), 2),
        (JPEG2000, "YBR_ICT", rgb, lambda frame: imagecodecs.jpeg2k_encode(frame, level=50, codecformat="J2K"), 8),
        # Its measure is what an eye sees: saturated pixels may be far.
        (JPEGXL, "RGB", rgb, lambda frame: imagecodecs.jpegxl_encode(frame, distance=0.1), 20),
        (JPEGXL, "XYB", rgb, lambda frame: imagecodecs.jpegxl_encode(frame, distance=0.1), 20),
    )
    for syntax, photometric, frames, encoded, tolerance in cases:
        path = packed(tmp_path / "x", [bytes(encoded(frame)) for frame in frames], frames, photometric, syntax)
        shown = whole(path, colour=frames.ndim == 4)
        assert distance(shown, frames) <= tolerance, (syntax, photometric)
        assert np.abs(shown.astype(int) - frames).mean() < 1.5
        if frames.ndim == 4:
            of_shown = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in shown]
            assert np.percentile(np.abs(whole(path).astype(int) - of_shown), 99) <= 2


def test_twelve_bit_jpeg(tmp_path: Path) -> None:
    deep = smooth(2, 40, 56, bits=12)
    streams = [bytes(imagecodecs.jpeg8_encode(frame, level=97, bitspersample=12)) for frame in deep]
    path = packed(tmp_path / "e", streams, deep, "MONOCHROME2", EXTENDED, BitsStored=12)
    assert distance(whole(path), np.rint(deep * (255 / 4095))) <= 1


def test_what_a_jpeg_says_of_its_colours_and_what_dicom_says(tmp_path: Path) -> None:
    from PIL import Image

    rgb = smooth(1, 40, 56, colour=True)
    jfif = bytes(imagecodecs.jpeg8_encode(rgb[0], level=98, subsampling="444"))
    assert b"JFIF" in jfif[:20]
    # JFIF means YBR whatever the header says (a real file of this project's is so).
    for photometric in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        assert distance(whole(packed(tmp_path / "a", [jfif], rgb, photometric, JPEG), colour=True), rgb) <= 10
    # Without a word in the stream, DICOM's holds: the same components as they are, or converted.
    length = int.from_bytes(jfif[4:6], "big")
    bare = jfif[:2] + jfif[4 + length :]
    assert distance(whole(packed(tmp_path / "b", [bare], rgb, "YBR_FULL", JPEG), colour=True), rgb) <= 10
    ybr = np.array(Image.fromarray(rgb[0]).convert("YCbCr"))
    as_rgb = packed(tmp_path / "c", [bare], rgb, "RGB", JPEG)
    assert distance(whole(as_rgb, colour=True)[0], ybr) <= 10
    assert distance(whole(as_rgb)[0], cv2.cvtColor(whole(as_rgb, colour=True)[0], cv2.COLOR_RGB2GRAY)) <= 1
    # Components that are named R, G and B are just that.
    named = bytes(imagecodecs.jpeg8_encode(rgb[0], level=98, colorspace="RGB", outcolorspace="RGB"))
    for photometric in ("RGB", "YBR_FULL_422"):
        assert distance(whole(packed(tmp_path / "d", [named], rgb, photometric, JPEG), colour=True), rgb) <= 10


def test_without_imagecodecs_the_reason_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gray = smooth(1, 40, 56)
    path = packed(tmp_path / "l", [bytes(imagecodecs.jpegls_encode(gray[0]))], gray, "MONOCHROME2", JPEG_LS)
    jpeg = packed(tmp_path / "j", [bytes(imagecodecs.jpeg8_encode(gray[0]))], gray, "MONOCHROME2", JPEG)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ReadError, match="jpeg-ls, which needs imagecodecs; pip install imagecodecs"):
        open_dicom(path)
    assert len(whole(jpeg)) == 1


# --- video


VIDEOS = (
    (f"{STANDARD}.4.100", "mpeg2video", ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-f", "mpegts"), "ts"),
    (f"{STANDARD}.4.101.1", "mpeg2video", ("-c:v", "mpeg2video", "-q:v", "2", "-f", "mpeg2video"), "m2v"),
    (f"{STANDARD}.4.102", "h264", (*X264, "-pix_fmt", "yuv420p"), "mp4"),
    (f"{STANDARD}.4.104", "h264", (*X264, "-pix_fmt", "yuv420p", "-f", "h264"), "h264"),
    (f"{STANDARD}.4.107", "hevc", ("-c:v", "libx265", "-x265-params", "log-level=none", "-crf", "12", "-pix_fmt", "yuv420p"), "mp4"),
)


@pytest.mark.parametrize(("syntax", "codec", "options", "suffix"), VIDEOS)
@pytest.mark.parametrize("fragments", [1, 5])
def test_video_inside(tmp_path: Path, syntax: str, codec: str, options: tuple[str, ...], suffix: str, fragments: int) -> None:
    frames = pattern(12, 96, 64)
    video = encode(tmp_path / f"v.{suffix}", frames, *options)
    path = packed(
        tmp_path / "v.dcm", [video.read_bytes()], frames, "YBR_PARTIAL_420", syntax, table=False, split=fragments, FrameTime="33.33"
    )
    pixels, clip, given = read(path)
    assert (clip.decode_errors, clip.cut_short) == (0, False)
    assert distance(pixels, decoded_gray(video, 96, 64)) <= 1
    assert (clip.info.container, clip.info.codec, clip.info.backend) == ("dicom", codec, "dicom")
    assert (clip.info.frames_declared, clip.info.rate_source, clip.info.declared_rate) == (12, "FrameTime", Fraction(100_000, 3333))
    assert [frame_time(frame, clip.info) for frame in given] == [number * Fraction(3333, 100_000) for number in range(12)]
    shown = whole(path, colour=True)
    expected = np.frombuffer(decoded(video, "rgb24"), np.uint8).reshape(frames.shape)
    assert distance(shown, expected) <= 3


def test_a_video_without_dicoms_times_keeps_its_own(tmp_path: Path) -> None:
    frames = pattern(12, 96, 64)
    video = encode(tmp_path / "v.mp4", frames, *X264, "-pix_fmt", "yuv420p")
    path = packed(tmp_path / "v", [video.read_bytes()], frames, "YBR_PARTIAL_420", f"{STANDARD}.4.102", table=False)
    _, clip, given = read(path)
    assert clip.info.rate_source == "stream"
    assert [frame_time(frame, clip.info) for frame in given] == [Fraction(number, 25) for number in range(12)]
    with open_dicom(path) as clip:
        colours = [clip.rgb() for _ in clip.frames()]
    np.testing.assert_array_equal(colours, whole(path, colour=True))


def test_a_video_that_breaks_off_gives_its_beginning(tmp_path: Path) -> None:
    frames = pattern(24, 96, 64)
    video = encode(tmp_path / "v.ts", frames, "-c:v", "mpeg2video", "-q:v", "2", "-f", "mpegts")
    path = packed(tmp_path / "v", [video.read_bytes()], frames, "YBR_PARTIAL_420", f"{STANDARD}.4.100", table=False)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    pixels, clip, _ = read(path)
    assert 8 <= len(pixels) < 24
    assert clip.cut_short
    assert clip.decode_errors > 0


def test_a_video_that_is_a_list_of_files_opens_nothing(tmp_path: Path) -> None:
    frames = pattern(2, 96, 64)
    encode(tmp_path / "other.mp4", frames, *X264)
    listed = packed(
        tmp_path / "v", [b"ffconcat version 1.0\nfile 'other.mp4'\n"], frames, "YBR_PARTIAL_420", f"{STANDARD}.4.102", table=False
    )
    assert "whose data are none" in refusal(listed)


# --- times


@pytest.mark.parametrize(
    ("attributes", "source", "base", "note"),
    [
        ({"FrameIncrementPointer": 0x00181063, "FrameTime": "33.3", "CineRate": 10}, "FrameTime", Fraction(333, 10_000), None),
        ({"FrameTime": "40", "CineRate": 10}, "FrameTime", Fraction(1, 25), None),
        ({"CineRate": 30, "RecommendedDisplayFrameRate": 10}, "CineRate", Fraction(1, 30), None),
        ({"RecommendedDisplayFrameRate": 24}, "RecommendedDisplayFrameRate", Fraction(1, 24), None),
        ({}, None, None, "gives no time"),
        ({"FrameTime": "0", "CineRate": 30}, "CineRate", Fraction(1, 30), "FrameTime is 0"),
        ({"FrameTime": "-5", "CineRate": 0}, None, None, "CineRate is 0"),
        ({"FrameTime": "1e99", "CineRate": 30}, "CineRate", Fraction(1, 30), "no clip has"),
        ({"FrameTime": "NaN", "CineRate": 30}, "CineRate", Fraction(1, 30), "not a number"),
        ({"FrameTime": "1e99999999", "CineRate": 30}, "CineRate", Fraction(1, 30), "not a number"),
    ],
)
def test_times_by_precedence(
    tmp_path: Path, attributes: dict[str, Any], source: str | None, base: Fraction | None, note: str | None
) -> None:
    frames = smooth(3, 8, 8)
    text = attributes.pop("FrameTime", None)
    dataset = header(frames, "MONOCHROME2", **attributes)
    if text is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.add_new(0x00181063, "LO", text)  # a text may be what a number may not
    _, clip, given = read(write(tmp_path / "t", dataset, frames.tobytes(), EXPLICIT))
    assert (clip.info.rate_source, clip.info.time_base) == (source, base)
    assert clip.info.declared_rate == (None if base is None else 1 / base)
    assert [frame.pts for frame in given] == ([None] * 3 if base is None else [0, 1, 2])
    assert clip.info.notes == () if note is None else any(note in each for each in clip.info.notes)


def test_frame_time_vector(tmp_path: Path) -> None:
    frames = smooth(4, 8, 8)
    attributes = {"FrameIncrementPointer": 0x00181065, "FrameTime": "10"}
    _, clip, given = read(native(tmp_path / "v", frames, FrameTimeVector=["0", "33.25", "40.1", "20"], **attributes))
    assert [frame_time(frame, clip.info) for frame in given] == [0, Fraction(3325, 10**5), Fraction(7335, 10**5), Fraction(9335, 10**5)]
    assert (clip.info.rate_source, clip.info.declared_rate) == ("FrameTimeVector", 3 / Fraction(9335, 10**5))
    for vector, note in ((["0", "33.25", "40.1"], "3 values for 4 frames"), (["0", "5", "-4", "5"], "values that no clip has")):
        _, clip, given = read(native(tmp_path / "w", frames, FrameTimeVector=vector, **attributes))
        assert (clip.info.rate_source, given[3].pts) == ("FrameTime", 3)
        assert any(note in each for each in clip.info.notes)


def test_a_single_picture_has_no_time(tmp_path: Path) -> None:
    _, clip, given = read(native(tmp_path / "s", smooth(1, 8, 8), FrameTime="10", CineRate=3))
    assert (clip.info.time_base, clip.info.rate_source, clip.info.notes, given[0].pts) == (None, None, (), None)


# --- regions, spacing, names


def facts(path: Path, *regions: Dataset, **attributes: Any) -> Any:
    if regions:
        attributes["SequenceOfUltrasoundRegions"] = list(regions)
    _, clip, _ = read(native(path, smooth(1, 40, 60), **attributes))
    return clip.info


def test_regions(tmp_path: Path) -> None:
    info = facts(
        tmp_path / "r",
        region(0, 2, 59, 39, PhysicalDeltaX=-0.02),
        region(5, 5, 9, 9, RegionSpatialFormat=2, PhysicalUnitsXDirection=4),
        region(5, 5, 9, 9, RegionSpatialFormat=9, RegionDataType=10, PhysicalDeltaY=0.0),
        region(0, 0, 61, 39),
        region(9, 0, 9, 39),
    )
    assert info.regions == (
        Region(0, 2, 60, 38, "2d", "tissue", pytest.approx(0.2), pytest.approx(0.2)),
        Region(5, 5, 5, 5, "m_mode", "tissue", None, pytest.approx(0.2)),
        Region(5, 5, 5, 5, "other", "ecg", pytest.approx(0.2), None),
    )
    assert info.notes == ("region 3 reaches beyond the picture: ignored", "region 4 is empty: ignored")
    assert info.mm_per_pixel_x == info.mm_per_pixel_y == pytest.approx(0.2)


def test_spacing_is_none_where_it_is_doubtful(tmp_path: Path) -> None:
    info = facts(tmp_path / "a", region(0, 0, 9, 9), region(20, 0, 29, 9, PhysicalDeltaY=0.03))
    assert (info.mm_per_pixel_x, info.mm_per_pixel_y) == (pytest.approx(0.2), None)
    info = facts(tmp_path / "b", region(0, 0, 9, 99), PixelSpacing=[0.3, 0.4])
    assert (info.mm_per_pixel_x, info.mm_per_pixel_y) == (None, None)
    info = facts(tmp_path / "c", PixelSpacing=[0.3, 0.4])
    assert (info.mm_per_pixel_x, info.mm_per_pixel_y) == (0.4, 0.3)
    info = facts(tmp_path / "d", PixelSpacing=[0.3, 0])
    assert (info.mm_per_pixel_x, info.mm_per_pixel_y) == (None, None)
    info = facts(tmp_path / "e", region(0, 0, 9, 9, RegionDataType=2))
    assert (info.mm_per_pixel_x, info.mm_per_pixel_y) == (None, None)


def test_device_leaves_and_the_patient_does_not(tmp_path: Path) -> None:
    info = facts(tmp_path / "m", Manufacturer=" ACME  Scans ", ManufacturerModelName="", InstitutionName=PATIENT, CineRate=4)
    assert (info.manufacturer, info.device) == ("ACME Scans", None)
    assert "Hopkins" not in repr(info)
    assert (info.pixel_format, info.codec, info.container, info.frames_declared) == ("monochrome2 8", "native", "dicom", 1)


# --- damage


def test_a_cut_file_gives_the_frames_that_are_whole(tmp_path: Path) -> None:
    frames = smooth(6, 40, 56)
    plain = native(tmp_path / "n", frames)
    streams = [bytes(imagecodecs.jpegls_encode(frame)) for frame in frames]
    for path in (plain, packed(tmp_path / "p", streams, frames, "MONOCHROME2", JPEG_LS, split=2)):
        data = path.read_bytes()
        size = 56 * 40 if path is plain else len(streams[5])
        path.write_bytes(data[: len(data) - size - size // 2])
        pixels, clip, _ = read(path)
        np.testing.assert_array_equal(pixels, frames[: len(pixels)])
        assert len(pixels) == 4
        assert clip.cut_short
        assert clip.decode_errors > 0
        assert clip.first_error is not None


def test_only_the_end_mark_missing_is_no_damage(tmp_path: Path) -> None:
    frames = smooth(3, 40, 56)
    path = packed(tmp_path / "p", [rle(frame) for frame in frames], frames, "MONOCHROME2", RLE)
    path.write_bytes(path.read_bytes()[:-8])
    np.testing.assert_array_equal(whole(path), frames)


@pytest.mark.parametrize("table", [True, False])
def test_a_damaged_frame_is_skipped_and_the_others_keep_their_times(tmp_path: Path, table: bool) -> None:
    frames = smooth(4, 40, 56)
    for syntax, encoded in ((JPEG_LS, imagecodecs.jpegls_encode), (RLE, rle), (JPEG, imagecodecs.jpeg8_encode)):
        streams = [bytes(encoded(frame)) for frame in frames]
        for damaged in (0, 2):
            broken = list(streams)
            broken[damaged] = streams[damaged][: len(streams[damaged]) // 2]
            path = packed(tmp_path / "d", broken, frames, "MONOCHROME2", syntax, table=table, FrameTime="20")
            pixels, clip, given = read(path)
            kept = [number for number in range(4) if number != damaged]
            assert [frame.pts for frame in given] == kept
            assert [frame.index for frame in given] == [0, 1, 2]
            assert (clip.decode_errors, clip.cut_short) == (1, False)
            assert f"frame {damaged}" in (clip.first_error or "")
            if syntax != JPEG:
                np.testing.assert_array_equal(pixels, frames[kept])


def test_a_codestream_of_another_size_is_an_error_of_its_frame(tmp_path: Path) -> None:
    frames, larger = smooth(3, 40, 56), smooth(1, 80, 112)[0]
    encoders: tuple[tuple[str, Any], ...] = (
        (JPEG, imagecodecs.jpeg8_encode),
        (LOSSLESS_SV1, lossless_jpeg),
        (JPEG_LS, imagecodecs.jpegls_encode),
        (JPEG2000, jpeg2000),
        (JPEGXL, imagecodecs.jpegxl_encode),
        (JPEGXL, lambda frame: imagecodecs.jpegxl_encode(frame, usecontainer=True)),
    )
    for syntax, encoded in encoders:
        streams = [bytes(encoded(frame)) for frame in (frames[0], larger, frames[2])]
        pixels, clip, _ = read(packed(tmp_path / "s", streams, frames, "MONOCHROME2", syntax))
        assert (len(pixels), clip.decode_errors) == (2, 1), syntax
        assert "112×80" in (clip.first_error or "")


@pytest.mark.parametrize(("side_a", "side_b"), [(40, 40), (40, 48), (33, 517), (1030, 7), (120, 160), (64, 64), (144, 256), (9000, 2)])
def test_sizes_in_jpegxl_headers(tmp_path: Path, side_a: int, side_b: int) -> None:
    for shape in ((side_a, side_b), (side_b, side_a)):
        frame = np.zeros((1, *shape), np.uint8)
        stream = bytes(imagecodecs.jpegxl_encode(frame[0], lossless=True))
        assert whole(packed(tmp_path / "x", [stream], frame, "MONOCHROME2", JPEGXL)).shape == (1, *shape)


def test_lying_counts_end_with_the_file(tmp_path: Path) -> None:
    frames = smooth(3, 40, 56)
    for path in (
        native(tmp_path / "n", frames, NumberOfFrames=10**9),
        packed(tmp_path / "p", [rle(frame) for frame in frames], frames, "MONOCHROME2", RLE, NumberOfFrames=10**9),
    ):
        pixels, clip, _ = read(path)
        np.testing.assert_array_equal(pixels, frames)
        assert clip.cut_short
        assert clip.info.frames_declared == 10**9
    more = packed(tmp_path / "m", [rle(frame) for frame in frames], frames, "MONOCHROME2", RLE, NumberOfFrames=2)
    pixels, clip, _ = read(more)
    np.testing.assert_array_equal(pixels, frames)
    assert any("declares 2 frames and the file holds 3" in note for note in clip.info.notes)
    np.testing.assert_array_equal(whole(native(tmp_path / "z", frames, NumberOfFrames=0)), frames)


def test_lying_sizes_and_tables(tmp_path: Path) -> None:
    frames = smooth(3, 40, 56)
    assert "outside 1..32767 a side" in refusal(native(tmp_path / "s", frames, Rows=60_000, Columns=60_000))
    assert "cut short: 6720 of the 100000000 bytes" in refusal(native(tmp_path / "t", frames, Rows=10_000, Columns=10_000))
    streams = [bytes(imagecodecs.jpegls_encode(frame)) for frame in frames]
    path = packed(tmp_path / "o", streams, frames, "MONOCHROME2", JPEG_LS, split=2)
    data = bytearray(path.read_bytes())
    place = data.index(b"\xfe\xff\x00\xe0")
    # Offsets that lie: the packets' own first bytes tell instead.
    data[place + 12 : place + 20] = b"\xff\xff\xff\x7f\x01\x00\x00\x00"
    path.write_bytes(data)
    np.testing.assert_array_equal(whole(path), frames)
    # A packet that claims four gigabytes ends the file.
    last = bytes(data).rindex(b"\xfe\xff\x00\xe0")
    data[last + 4 : last + 8] = b"\xf0\xff\xff\xff"
    path.write_bytes(data)
    pixels, clip, _ = read(path)
    assert (len(pixels), clip.cut_short) == (2, True)


def test_noise_is_never_more_than_a_read_error(tmp_path: Path) -> None:
    frames = smooth(3, 16, 24)
    random = np.random.default_rng(3)
    paths = [
        native(tmp_path / "n", frames, SequenceOfUltrasoundRegions=[region(0, 0, 9, 9)], FrameTime="20"),
        packed(tmp_path / "r", [rle(frame) for frame in frames], frames, "MONOCHROME2", RLE),
        packed(tmp_path / "j", [bytes(imagecodecs.jpeg8_encode(frame)) for frame in frames], frames, "MONOCHROME2", JPEG),
        packed(tmp_path / "l", [bytes(imagecodecs.jpegls_encode(frame)) for frame in frames], frames, "MONOCHROME2", JPEG_LS),
        packed(tmp_path / "k", [jpeg2000(frame) for frame in frames], frames, "MONOCHROME2", JPEG2000),
    ]
    outcomes = set()
    for path in paths:
        data = path.read_bytes()
        for _ in range(60):
            torn = bytearray(data)
            for place in random.integers(132, len(data), 4):
                torn[place] = random.integers(256)
            path.write_bytes(torn[: random.integers(len(data) // 2, len(data) + 1)])
            said = ""
            try:
                with open_dicom(path) as clip:
                    outcomes.add("read" if sum(1 for _ in clip.frames()) else "empty")
                    said = repr(clip.info)
            except ReadError as error:
                outcomes.add("refused")
                said = str(error)
            assert "Hopkins" not in said
    assert outcomes == {"read", "refused"}


# --- what is not read


def test_what_holds_no_picture_is_named(tmp_path: Path) -> None:
    report = Dataset()
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    report.PatientName = PATIENT
    assert "Comprehensive SR Storage" in refusal_of_report(tmp_path / "sr", report)
    report.SOPClassUID = "1.2.3.4.5"
    assert "unknown kind" in refusal_of_report(tmp_path / "unknown", report)
    report.SOPClassUID = "1.2.840.10008.1.3.10"
    assert "DICOMDIR" in refusal(write(tmp_path / "dir", report, None))


def refusal_of_report(path: Path, report: Dataset) -> str:
    return refusal(write(path, report, None))


def test_what_is_not_read_has_its_true_reason(tmp_path: Path) -> None:
    frames, rgb = smooth(1, 16, 24), smooth(1, 16, 24, colour=True)
    assert "coloured in HSV" in refusal(native(tmp_path / "a", rgb, "HSV"))
    assert "RGB with 1 samples" in refusal(native(tmp_path / "b", frames, "RGB"))
    assert "1-bit" in refusal(native(tmp_path / "c", frames, BitsAllocated=1, BitsStored=1))
    assert "32-bit" in refusal(native(tmp_path / "d", frames.astype(np.uint32)))
    assert "JPIP" in refusal(packed(tmp_path / "e", [frames.tobytes()], frames, "MONOCHROME2", f"{STANDARD}.4.94"))
    measured = header(frames, "MONOCHROME2", BitsAllocated=32, BitsStored=32, HighBit=31)
    measured.FloatPixelData = frames.astype(np.float32).tobytes()
    assert "floating-point" in refusal(write(tmp_path / "f", measured, None))
    assert "ends before its picture" in refusal(write(tmp_path / "h", header(frames, "MONOCHROME2"), None))
    assert "deflated" in refusal(write(tmp_path / "g", header(frames, "MONOCHROME2"), frames.tobytes(), f"{STANDARD}.1.99"))


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_files_without_preamble(tmp_path: Path, syntax: str) -> None:
    frames = smooth(1, 16, 24)
    path = native(tmp_path / "p", frames, syntax=syntax)
    data = path.read_bytes()
    start = data.index(b"\x08\x00\x16\x00")
    path.write_bytes(data[start:])
    np.testing.assert_array_equal(whole(path), frames)
    path.write_bytes(data[start : start + 60])
    assert "no picture that can be found" in refusal(path) or "cannot be read as DICOM" in refusal(path)
    path.write_bytes(b"\x08\x00\x05\x00CS" + np.random.default_rng(0).bytes(500))
    assert refusal(path)


def test_one_pass_and_a_closed_file(tmp_path: Path) -> None:
    with open_dicom(native(tmp_path / "n", smooth(3, 8, 8))) as clip:
        assert len(list(clip.frames())) == 3
        with pytest.raises(RuntimeError, match="once"):
            clip.frames()
    clip.close()


# --- memory

_MEASURE = """
import resource, sys
from pathlib import Path
from usdata.readers.dicom import open_dicom
import usdata.readers.video
with open_dicom(Path(sys.argv[1])) as clip:
    frames = clip.frames()
    next(frames)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 1 + sum(1 for _ in frames)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(count, (after - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    frames = np.zeros((1, 480, 640, 3), np.uint8)
    path = native(tmp_path / "n", frames, "RGB", NumberOfFrames=300)
    data = path.read_bytes()
    place = data.rindex(b"OB\0\0") + 4
    head = data[:place] + (300 * frames.size).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 300 * frames.size)  # 276 MB of zeros that take no disk
    streamed = packed(tmp_path / "p", [bytes(imagecodecs.jpeg8_encode(frames[0]))] * 300, frames, "YBR_FULL_422", JPEG, NumberOfFrames=300)
    for each in (path, streamed):
        done = subprocess.run([sys.executable, "-c", _MEASURE, each], capture_output=True, text=True, check=True)
        count, grown_mb = map(int, done.stdout.split())
        assert count == 300
        assert grown_mb < 20
