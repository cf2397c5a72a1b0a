"""MetaImage, NRRD, NIfTI and HDF5: SimpleITK, nibabel and h5py are the oracles; then what headers say, damage, and hostile claims."""

import gzip
import random
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK

from tests.usdata.clips import speckle_frames
from usdata.errors import ReadError
from usdata.readers import data_files, frame_time, identify, open_clip
from usdata.readers.base import Clip, Frame

COUNT, HEIGHT, WIDTH = 7, 20, 30
FRAMES = np.stack(speckle_frames(COUNT, height=HEIGHT, width=WIDTH))
WIDE = (FRAMES.astype(np.int32) * 13 - 700).astype(np.int16)
REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "mha_pluslib"


def read(path: Path, **how: Any) -> tuple[Clip, list[Frame]]:
    with open_clip(path, **how) as clip:
        return clip, list(clip.frames())


def pixels(path: Path, **how: Any) -> np.ndarray:
    return np.stack([frame.pixels for frame in read(path, **how)[1]])


def mha(
    path: Path, data: bytes, *, sizes: str = f"{WIDTH} {HEIGHT} {COUNT}", kind: str = "MET_UCHAR", where: str = "LOCAL", **fields: str
) -> Path:
    head = {
        "ObjectType": "Image",
        "NDims": str(len(sizes.split())),
        **fields,
        "DimSize": sizes,
        "ElementType": kind,
        "ElementDataFile": where,
    }
    path.write_bytes("".join(f"{key} = {value}\n" for key, value in head.items()).encode() + data)
    return path


def nrrd(
    path: Path, data: bytes, *, sizes: str = f"{WIDTH} {HEIGHT} {COUNT}", kind: str = "uint8", encoding: str = "raw", extra: str = ""
) -> Path:
    head = f"NRRD0005\n# made for a test\ntype: {kind}\ndimension: {len(sizes.split())}\nsizes: {sizes}\nencoding: {encoding}\n{extra}\n"
    path.write_bytes(head.encode() + data)
    return path


# --- oracles


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".nii.gz"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_what_simpleitk_writes_is_read(tmp_path: Path, suffix: str, compressed: bool, dtype: Any) -> None:
    stored = FRAMES if dtype == np.uint8 else (WIDE - WIDE.min() if dtype == np.uint16 else WIDE).astype(dtype)
    image = SimpleITK.GetImageFromArray(stored)
    image.SetSpacing((0.3, 0.2, 1.0))
    path = tmp_path / f"stack{suffix}"
    SimpleITK.WriteImage(image, str(path), useCompression=compressed)
    got = pixels(path)
    if dtype == np.uint8:
        np.testing.assert_array_equal(got, FRAMES)
    else:
        low, high = float(stored.min()), float(stored.max())
        np.testing.assert_array_equal(got, np.rint((stored.astype(float) - low) * 255 / (high - low)))
    info = read(path)[0].info
    assert (info.mm_per_pixel_x, info.mm_per_pixel_y) == (pytest.approx(0.3), pytest.approx(0.2))
    assert (info.width, info.height, info.frames_declared) == (WIDTH, HEIGHT, COUNT)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
def test_rgb_is_rgb(tmp_path: Path, suffix: str) -> None:
    colours = np.stack([FRAMES, FRAMES // 2, 255 - FRAMES], axis=-1)
    path = tmp_path / f"colour{suffix}"
    if suffix == ".nii.gz":
        triples = np.ascontiguousarray(colours.transpose(2, 1, 0, 3)).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
        nibabel.save(nibabel.Nifti1Image(triples, np.eye(4)), path)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(colours, isVector=True), str(path))
    np.testing.assert_array_equal(pixels(path, colour=True), colours)
    gray = colours @ (0.299, 0.587, 0.114)
    assert np.abs(pixels(path) - gray).max() <= 1


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="the real sequences are not in ../shared/data")
@pytest.mark.parametrize("path", sorted(REAL.glob("*.mh?")), ids=lambda path: path.name)
def test_real_sequences_are_simpleitks(path: Path) -> None:
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    clip, frames = read(path)
    np.testing.assert_array_equal(
        [frame.pixels for frame in frames], expected.reshape(-1, *expected.shape[-2:])
    )  # all are in MF or say nothing
    assert (clip.decode_errors, clip.cut_short) == (0, False)


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="the real sequences are not in ../shared/data")
def test_real_sequences_tell_time_and_spacing() -> None:
    clip, frames = read(REAL / "BoneUltrasound_L14.igs.mha")
    assert frame_time(frames[1], clip.info) == Fraction("232.628014")
    assert (clip.info.rate_source, clip.info.mm_per_pixel_x) == ("timestamps", None)
    clip, frames = read(REAL / "Prostate10_video.igs.mhd")
    assert (clip.info.mm_per_pixel_x, clip.info.mm_per_pixel_y) == (0.3, 0.3)
    assert data_files(REAL / "Prostate10_video.igs.mhd") == ("Prostate10_video.raw",)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_nibabel_writes_is_read(tmp_path: Path, suffix: str, dtype: Any) -> None:
    image = nibabel.Nifti1Image(np.ascontiguousarray(FRAMES.transpose(2, 1, 0)).astype(dtype), np.diag([0.5, 0.4, 1, 1]))
    path = tmp_path / f"clip{suffix}"
    nibabel.save(image, path)
    assert identify(path) == "nifti"
    clip, frames = read(path)
    np.testing.assert_array_equal([frame.pixels for frame in frames], FRAMES)
    assert (clip.info.mm_per_pixel_x, clip.info.mm_per_pixel_y) == (pytest.approx(0.5), pytest.approx(0.4))
    assert "the header gives no time of its frames" in clip.info.notes


def test_nifti_times_and_scaling(tmp_path: Path) -> None:
    data = np.ascontiguousarray(FRAMES.transpose(2, 1, 0))[:, :, None, :]
    image = nibabel.Nifti1Image(data, np.eye(4))
    image.header.set_xyzt_units("mm", "msec")
    image.header["pixdim"][4] = 40.0
    nibabel.save(image, tmp_path / "timed.nii.gz")
    clip, frames = read(tmp_path / "timed.nii.gz")
    assert [frame_time(frame, clip.info) for frame in frames] == [Fraction(number, 25) for number in range(COUNT)]
    assert clip.info.rate_source == "pixdim"
    image = nibabel.Nifti1Image(np.ascontiguousarray(WIDE.transpose(2, 1, 0)), np.eye(4))
    image.header.set_slope_inter(0.5, 100)
    nibabel.save(image, tmp_path / "scaled.nii")
    expected = np.asarray(nibabel.load(tmp_path / "scaled.nii").dataobj).transpose(2, 1, 0)
    low, high = expected.min(), expected.max()
    assert np.abs(pixels(tmp_path / "scaled.nii") - (expected - low) * 255 / (high - low)).max() <= 0.5 + 1e-9
    volume = nibabel.Nifti1Image(np.zeros((20, 20, 3, 4), np.uint8), np.eye(4))
    nibabel.save(volume, tmp_path / "volume.nii")
    with pytest.raises(ReadError, match="volumes over time"):
        open_clip(tmp_path / "volume.nii")


@pytest.mark.parametrize("shape", ["gray", "gray1", "rgb", "single", "single rgb"])
def test_hdf5_stacks(tmp_path: Path, shape: str) -> None:
    colours = np.stack([FRAMES, FRAMES // 2, 255 - FRAMES], axis=-1)
    stored = {"gray": FRAMES, "gray1": FRAMES[..., None], "rgb": colours, "single": FRAMES[0], "single rgb": colours[0]}[shape]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("deep/frames", data=stored, compression="gzip")
        file["labels"] = np.arange(5)
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/frames")
    got = pixels(tmp_path / "x.h5", colour="rgb" in shape)
    np.testing.assert_array_equal(got, stored.reshape(-1, HEIGHT, WIDTH, 3) if "rgb" in shape else stored.reshape(-1, HEIGHT, WIDTH))


def test_hdf5_that_is_no_clip_says_why(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = FRAMES, FRAMES
    with pytest.raises(ReadError, match=r"holds 2 stacks of pictures \(a, b\)"):
        open_clip(path)
    with h5py.File(path, "w") as file:
        file["vector"] = np.arange(100)
    with pytest.raises(ReadError, match="without a stack of pictures"):
        open_clip(path)
    FRAMES.tofile(tmp_path / "outside.bin")
    with h5py.File(path, "w") as file:
        file.create_dataset("out", FRAMES.shape, FRAMES.dtype, external=[(str(tmp_path / "outside.bin"), 0, FRAMES.nbytes)])
    with pytest.raises(ReadError, match="in other files, which are not opened"):
        open_clip(path)
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout(shape=FRAMES.shape, dtype=FRAMES.dtype)
        layout[:] = h5py.VirtualSource("other.h5", "frames", shape=FRAMES.shape)
        file.create_virtual_dataset("virtual", layout)
    with pytest.raises(ReadError, match="in other files, which are not opened"):
        open_clip(path)


# --- what headers say of frames


def stamps(*texts: str | None) -> dict[str, str]:
    return {f"Seq_Frame{number:04}_Timestamp": text for number, text in enumerate(texts) if text is not None}


@pytest.mark.parametrize("made", [mha, nrrd])
def test_status_times_and_orientation_of_tracked_sequences(tmp_path: Path, made: Any) -> None:
    fields = stamps("10.5", "10.54", "10.583", "10.6", None, "10.6", "11")
    fields |= {
        "Seq_Frame0002_ImageStatus": "INVALID",
        "Seq_Frame0003_ImageStatus": "OK",
        "Seq_Frame0004_ProbeToTrackerTransformStatus": "INVALID",
    }
    fields["UltrasoundImageOrientation"] = "UNA"
    if made is mha:
        path = mha(tmp_path / "x.mha", FRAMES.tobytes(), **fields)
    else:
        path = nrrd(tmp_path / "x.nrrd", FRAMES.tobytes(), extra="".join(f"{key}:={value}\n" for key, value in fields.items()))
    clip, frames = read(path)
    assert [frame_time(frame, clip.info) for frame in frames] == [
        Fraction("10.5"), Fraction("10.54"), Fraction("10.583"), Fraction("10.6"), None, None, Fraction(11),
    ]  # fmt: skip
    assert [frame.index for frame in frames if frame.invalid] == [2]
    assert clip.info.notes == ("2 of 7 frames have no time stamp, or one that is not later than the last",)
    np.testing.assert_array_equal([frame.pixels for frame in frames], FRAMES[:, ::-1, ::-1])


@pytest.mark.parametrize(
    ("letters", "flip_y", "flip_x"), [("MF", 1, 1), ("UF", 1, -1), ("MN", -1, 1), ("UN", -1, -1), ("MFA", 1, 1), ("XX", 1, 1)]
)
def test_orientation(tmp_path: Path, letters: str, flip_y: int, flip_x: int) -> None:
    path = mha(tmp_path / "x.mha", FRAMES.tobytes(), UltrasoundImageOrientation=letters)
    np.testing.assert_array_equal(pixels(path), FRAMES[:, ::flip_y, ::flip_x])
    assert bool(read(path)[0].info.notes) == (letters == "XX")


def test_numbers_with_gaps_are_names(tmp_path: Path) -> None:
    fields = {f"Seq_Frame{2 * number:04}_Timestamp": str(number) for number in range(COUNT)}
    clip, frames = read(mha(tmp_path / "x.mha", FRAMES.tobytes(), **fields))
    assert [frame_time(frame, clip.info) for frame in frames] == list(range(COUNT))
    assert clip.info.notes == ("the numbers of its frames have gaps; they were taken in order",)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sizes": "0 0 7", "Seq_Frame0000_Timestamp": "1"}, "transforms alone"),
        ({"UltrasoundImageType": "RF_REAL"}, "holds RF_REAL data"),
        ({"sizes": "30 20 3 4"}, "volumes over time"),
        ({"sizes": "30"}, "gives 1 sizes"),
        ({"sizes": "1000000 1000000 5"}, "claims a picture of 1000000×1000000"),
        ({"sizes": "-3 20 5"}, "outside 1"),
        ({"sizes": f"30 20 {10**12}"}, "claims 1000000000000 frames"),
        ({"sizes": "thirty 20 5"}, "cannot be read as MetaImage"),
        ({"kind": "MET_WHATEVER"}, "unknown type"),
        ({"ElementNumberOfChannels": "4"}, "4 values each"),
        ({"BinaryData": "False"}, "written as text"),
        ({"where": "/etc/passwd"}, "outside its folder"),
        ({"where": "../x.raw"}, "outside its folder"),
        ({"where": "C:x.raw"}, "outside its folder"),
        ({"where": "none.raw"}, "is missing"),
        ({"where": "LIST"}, "list of files"),
        ({"where": "x%03d.raw 1 9 1"}, "list of files"),
    ],
)
def test_a_metaimage_that_cannot_be_is_refused(tmp_path: Path, fields: dict[str, str], reason: str) -> None:
    with pytest.raises(ReadError, match=reason):
        open_clip(mha(tmp_path / "x.mhd", FRAMES.tobytes(), **fields))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"encoding": "ascii"}, "encoded as 'ascii'"),
        ({"kind": "block"}, "unknown type 'block'"),
        ({"extra": "kinds: list domain domain\n", "sizes": "7 30 20"}, "do not lie one after another"),
        ({"extra": "data file: ../x.raw\n"}, "outside its folder"),
        ({"extra": "data file: x.raw\n"}, "is missing"),
        ({"sizes": "99999 99999"}, "claims a picture"),
        ({"encoding": "gzip", "extra": "byte skip: 5\n"}, "skips into compressed data"),
    ],
)
def test_an_nrrd_that_cannot_be_is_refused(tmp_path: Path, made: dict[str, str], reason: str) -> None:
    with pytest.raises(ReadError, match=reason):
        open_clip(nrrd(tmp_path / "x.nrrd", FRAMES.tobytes(), **made))


def test_byte_orders_skips_and_declared_ranges(tmp_path: Path) -> None:
    big = mha(
        tmp_path / "big.mha",
        WIDE.astype(">i2").tobytes(),
        kind="MET_SHORT",
        BinaryDataByteOrderMSB="True",
        ElementMin="-700",
        ElementMax="2600",
    )
    expected = np.rint(np.clip((WIDE.astype(float) + 700) * 255 / 3300, 0, 255))
    np.testing.assert_array_equal(pixels(big), expected)
    assert read(big)[0].info.notes == ()
    (tmp_path / "x.raw").write_bytes(b"header of its own" + FRAMES.tobytes())
    for skip in ("-1", "17"):
        np.testing.assert_array_equal(pixels(mha(tmp_path / "x.mhd", b"", where="x.raw", HeaderSize=skip)), FRAMES)
    (tmp_path / "y.raw").write_bytes(b"one line\nanother\nab" + FRAMES.tobytes())
    for extra in ("line skip: 2\nbyte skip: 2\n", "byte skip: -1\n"):
        np.testing.assert_array_equal(pixels(nrrd(tmp_path / "x.nhdr", b"", extra=f"data file: y.raw\n{extra}")), FRAMES)
    wide = nrrd(tmp_path / "w.nrrd", WIDE.astype(">i2").tobytes(), kind="short", extra="endian: big\nmin: -700\nmax: 2600\n")
    np.testing.assert_array_equal(pixels(wide), expected)
    assert data_files(tmp_path / "x.nhdr") == ("y.raw",)


def test_a_detached_pair_within_a_zip(tmp_path: Path) -> None:
    import zipfile

    mha(tmp_path / "x.mhd", b"", where="x.raw")
    (tmp_path / "x.raw").write_bytes(FRAMES.tobytes())
    with zipfile.ZipFile(tmp_path / "pair.zip", "w") as archive:
        archive.write(tmp_path / "x.mhd", "deep/x.mhd")
        archive.write(tmp_path / "x.raw", "deep/x.raw")
    np.testing.assert_array_equal(pixels(tmp_path / "pair.zip" / "deep" / "x.mhd"), FRAMES)


# --- damage


@pytest.mark.parametrize("encoding", ["raw", "gzip", "gzip members", "bzip2", "zlib"])
def test_encodings_whole_and_cut(tmp_path: Path, encoding: str) -> None:
    import bz2

    raw = FRAMES.tobytes()
    half = len(raw) // 2
    data = {
        "raw": raw,
        "gzip": gzip.compress(raw, mtime=0),
        "gzip members": gzip.compress(raw[:half], mtime=0) + gzip.compress(raw[half:], mtime=0),
        "bzip2": bz2.compress(raw),
        "zlib": zlib.compress(raw),
    }[encoding]

    def made(content: bytes) -> Path:
        if encoding == "zlib":
            return mha(tmp_path / "x.mha", content, CompressedData="True")
        return nrrd(tmp_path / "x.nrrd", content, encoding=encoding.split()[0])

    np.testing.assert_array_equal(pixels(made(data)), FRAMES)
    np.testing.assert_array_equal(pixels(made(data + b"what follows is of no matter")), FRAMES)
    if encoding == "bzip2":  # one block: nothing of it comes out without its end
        with pytest.raises(ReadError, match="no frame of it decodes"):
            open_clip(made(data[:-50]))
        return
    clip, frames = read(made(data[: len(data) * 3 // 4]))
    assert 0 < len(frames) < COUNT
    np.testing.assert_array_equal([frame.pixels for frame in frames], FRAMES[: len(frames)])
    assert (clip.decode_errors, clip.cut_short) == (1, True)
    assert f"the data end in frame {len(frames)} of {COUNT}" in (clip.first_error or "")


def test_a_bomb_unpacks_no_more_than_its_header_declares(tmp_path: Path) -> None:
    path = mha(tmp_path / "x.mha", zlib.compress(FRAMES.tobytes() + bytes(200 << 20)), CompressedData="True")
    import tracemalloc

    tracemalloc.start()
    np.testing.assert_array_equal(pixels(path), FRAMES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("seed", range(60))
def test_noise_raises_nothing_but_read_error(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    name = ["x.mha", "x.nrrd", "x.nii", "x.nii.gz", "x.h5"][seed % 5]
    path = tmp_path / name
    if name.startswith("x.nii"):
        nibabel.save(nibabel.Nifti1Image(FRAMES.transpose(2, 1, 0).copy(), np.eye(4)), path)
    elif name == "x.h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("frames", data=FRAMES, chunks=(1, HEIGHT, WIDTH), compression="gzip")
    elif name == "x.mha":
        mha(path, zlib.compress(FRAMES.tobytes()), CompressedData="True", **stamps(*"1234567"))
    else:
        nrrd(path, gzip.compress(FRAMES.tobytes()), encoding="gzip")
    data = bytearray(path.read_bytes())
    for _ in range(draw.randint(1, 40)):
        data[draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 400))] = draw.randrange(256)
    if seed % 4 == 0:
        del data[draw.randrange(len(data)) :]
    path.write_bytes(data)
    try:
        clip = open_clip(path)
    except ReadError:
        return
    with clip:
        for frame in clip.frames():
            assert frame.pixels.shape == (clip.info.height, clip.info.width)
