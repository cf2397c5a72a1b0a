"""NIfTI and HDF5, written by nibabel, SimpleITK and h5py; damage, hostile headers, and what lies outside a file."""

import gzip
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from fractions import Fraction
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from usdata.errors import ReadError
from usdata.readers.base import Frame
from usdata.readers.raw_frames import StackClip
from usdata.readers.volumes import open_hdf5, open_nifti


def read(path: Path, *, colour: bool = False) -> tuple[StackClip, list[Frame]]:
    opened = open_hdf5 if path.suffix == ".h5" else open_nifti
    with opened(path, colour=colour) as clip:
        assert isinstance(clip, StackClip)
        return clip, list(clip.frames())


def stack(frames: list[Frame]) -> np.ndarray:
    return np.stack([frame.pixels for frame in frames])


def ramp(frames: int = 5, height: int = 18, width: int = 20, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width), dtype=np.uint8)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(np.float64) - low) * 255 / (high - low), 0, 255)).astype(np.uint8)


def as_nifti(values: np.ndarray, *, axes: str = "xyt", kind: type = nibabel.Nifti1Image):
    """An image of (frames, height, width); `axes` "xy1t" puts the frames onto the fourth axis, where NIfTI has time."""
    turned = np.ascontiguousarray(values.transpose(2, 1, 0))
    image = kind(turned[:, :, None] if axes == "xy1t" else turned, np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    return image


def saved(path: Path, image, zooms: tuple[float, ...] | None = None) -> Path:
    if zooms is not None:
        image.header.set_zooms(zooms)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", "i1", ">i2", "u2", "i4", ">f4", "f8"])
def test_nifti_that_nibabel_wrote(tmp_path: Path, name: str, version: int, dtype: str) -> None:
    values = np.random.default_rng(1).normal(40, 30, (4, 18, 22)).astype(dtype) if dtype != "u1" else ramp(4, 18, 22)
    if dtype == "u2":
        values = values % 200
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = as_nifti(values, kind=kind)
    if dtype.startswith(">"):
        swapped = kind(np.asarray(image.dataobj), np.eye(4), image.header.as_byteswapped(">"))
        swapped.header.set_data_dtype(np.dtype(dtype))
        image = swapped
    path = saved(tmp_path / name, image, (0.25, 0.5, 1.0))
    clip, frames = read(path)
    kept = dtype in ("u1", "u2")
    np.testing.assert_array_equal(stack(frames), values if kept else scaled(values, float(values.min()), float(values.max())))
    assert (clip.info.mm_per_pixel_x, clip.info.mm_per_pixel_y) == (0.25, 0.5)
    assert (clip.info.codec, clip.info.backend) == ("gzip" if name.endswith("gz") else "raw", "nifti")
    assert clip.info.time_base is None
    # Of the other reader of such a file, the oracle: (x, y, frame).
    assert nibabel.load(path).shape == (22, 18, 4)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_that_simpleitk_wrote(tmp_path: Path, name: str) -> None:
    import SimpleITK as simpleitk

    values = ramp()
    simpleitk.WriteImage(simpleitk.GetImageFromArray(values), str(tmp_path / name))
    np.testing.assert_array_equal(stack(read(tmp_path / name)[1]), values)
    colour = simpleitk.GetImageFromArray(np.zeros((5, 18, 20, 3), np.uint8), isVector=True)
    simpleitk.WriteImage(colour, str(tmp_path / name))
    with pytest.raises(ReadError, match="several values a pixel"):
        open_nifti(tmp_path / name)


def test_the_kind_is_known_by_content_and_not_by_name(tmp_path: Path) -> None:
    values = ramp()
    data = saved(tmp_path / "a.nii", as_nifti(values)).read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(data)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(data))
    for name in ("plain.nii.gz", "packed.nii"):
        np.testing.assert_array_equal(stack(read(tmp_path / name)[1]), values)


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        (np.arange(256).reshape(1, 16, 16).astype("f4"), np.arange(256).reshape(1, 16, 16), "kept as they are"),
        (np.arange(256).reshape(1, 16, 16).astype("i2"), np.arange(256).reshape(1, 16, 16), "kept as they are"),
        (np.arange(256).reshape(1, 16, 16) / np.float32(255), np.arange(256).reshape(1, 16, 16), "0..1 (the clip's own range)"),
        (np.arange(256).reshape(1, 16, 16).astype("i2") - 1, np.arange(256).reshape(1, 16, 16), "-1..254 (the clip's own range)"),
    ],
)
def test_values_of_eight_bits_in_wider_types(tmp_path: Path, values: np.ndarray, expected: np.ndarray, note: str) -> None:
    clip, frames = read(saved(tmp_path / "a.nii.gz", as_nifti(values)))
    np.testing.assert_array_equal(stack(frames), expected)
    assert any(note in each for each in clip.info.notes)


def test_the_headers_range_and_scale(tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(0, 4096, (3, 18, 20)).astype("i2")
    image = as_nifti(values)
    image.header["cal_min"], image.header["cal_max"] = 100, 3000
    clip, frames = read(saved(tmp_path / "a.nii", image))
    np.testing.assert_array_equal(stack(frames), scaled(values, 100, 3000))
    assert any("100..3000 (the header's range)" in note for note in clip.info.notes)
    # A slope of -0.5 and an intercept of 2000 are applied first, as nibabel does when it reads.
    data = bytearray(saved(tmp_path / "b.nii", as_nifti(values)).read_bytes())
    data[112:120] = struct.pack("<ff", -0.5, 2000)
    (tmp_path / "b.nii").write_bytes(data)
    truth = np.asarray(nibabel.load(tmp_path / "b.nii").dataobj).transpose(2, 1, 0)
    _, frames = read(tmp_path / "b.nii")
    np.testing.assert_array_equal(stack(frames), scaled(truth, float(truth.min()), float(truth.max())))
    data[112:120] = struct.pack("<ff", 3e38, 3e38)
    (tmp_path / "b.nii").write_bytes(data)
    assert len(read(tmp_path / "b.nii")[1]) == 3


def test_nifti_colour(tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(0, 256, (4, 18, 20, 3), dtype=np.uint8)
    packed = np.ascontiguousarray(values.transpose(2, 1, 0, 3)).view(np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))[..., 0]
    clip, frames = read(saved(tmp_path / "a.nii.gz", nibabel.Nifti1Image(packed, np.eye(4))), colour=True)
    assert clip.info.pixel_format == "uint8 x3"
    np.testing.assert_array_equal(stack(frames), values)


@pytest.mark.parametrize(
    ("unit", "period", "base"),
    [
        ("sec", 0.04, Fraction(1, 25)),
        ("msec", 33.3333, Fraction(333333, 10_000_000)),
        ("usec", 40000, Fraction(1, 25)),
        ("unknown", 0.04, None),
        ("sec", 0.0, None),
        ("hz", 25.0, None),
    ],
)
def test_the_fourth_axis_is_time_where_its_unit_is_known(tmp_path: Path, unit: str, period: float, base: Fraction | None) -> None:
    image = as_nifti(ramp(), axes="xy1t")
    image.header.set_xyzt_units("mm", unit)
    clip, frames = read(saved(tmp_path / "a.nii", image, (0.2, 0.2, 1.0, period)))
    assert clip.info.time_base == base
    assert [frame.pts for frame in frames] == ([None] * 5 if base is None else [0, 1, 2, 3, 4])
    assert clip.info.rate_source == (None if base is None else "pixdim")
    assert clip.info.declared_rate == (None if base is None else 1 / base)
    assert any("no time" in note for note in clip.info.notes) == (base is None)


@pytest.mark.parametrize(
    ("unit", "zooms", "expected"),
    [
        ("mm", (0.2, 0.4, 1), (0.2, 0.4)),
        ("unknown", (0.2, 0.4, 1), (0.2, 0.4)),
        ("micron", (200, 400, 1), (0.2, 0.4)),
        ("meter", (0.002, 0.004, 1), (2.0, 4.0)),
        ("mm", (1, 1, 1), (None, None)),
        ("mm", (5000, 1, 1), (None, None)),
    ],
)
def test_nifti_spacing(tmp_path: Path, unit: str, zooms: tuple[float, ...], expected: tuple[float | None, float | None]) -> None:
    image = as_nifti(ramp())
    image.header.set_xyzt_units(unit, "sec")
    info = read(saved(tmp_path / "a.nii", image, zooms))[0].info
    if expected == (None, None):
        assert (info.mm_per_pixel_x, info.mm_per_pixel_y) == (None, None)
        assert any("spacing" in note for note in info.notes)
    else:
        assert (info.mm_per_pixel_x, info.mm_per_pixel_y) == pytest.approx(expected)


def patched(data: bytes, place: int, layout: str, *values: float) -> bytes:
    packed = struct.pack(layout, *values)
    return data[:place] + packed + data[place + len(packed) :]


NIFTI_LIES = {
    "volume over time": (40, "<8h", (4, 20, 18, 5, 3, 1, 1, 1), "volume over time"),
    "absurd": (40, "<8h", (3, 32767, 32767, 32767, 1, 1, 1, 1), "megapixels"),
    "large": (40, "<8h", (3, 10000, 9999, 32767, 1, 1, 1, 1), "no frame of it is whole"),
    "negative": (40, "<8h", (3, -20, 18, 5, 1, 1, 1, 1), "-20×18"),
    "no axes": (40, "<8h", (0, 20, 18, 5, 1, 1, 1, 1), "0 axes"),
    "many axes": (40, "<8h", (300, 20, 18, 5, 1, 1, 1, 1), "axes"),
    "no frames": (40, "<8h", (3, 20, 18, 0, 1, 1, 1, 1), "0 frames"),
    "complex": (70, "<2h", (32, 64), "complex64"),
    "transparency": (70, "<2h", (2304, 32), "transparency"),
    "unknown type": (70, "<2h", (77, 8), "NIfTI"),
    "far away": (108, "<f", (1e30,), "no frame|NIfTI"),
    "nowhere": (108, "<f", (float("nan"),), "NIfTI"),
    "half of a pair": (344, "4s", (b"ni1\0",), "pair"),
    "no size of header": (0, "<i", (347,), "not one of NIfTI"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", NIFTI_LIES)
def test_lies_in_a_nifti_header(tmp_path: Path, name: str, packed: bool) -> None:
    place, layout, values, reason = NIFTI_LIES[name]
    data = patched(saved(tmp_path / "a.nii", as_nifti(ramp())).read_bytes(), place, layout, *values)
    path = tmp_path / "b.nii"
    path.write_bytes(gzip.compress(data) if packed else data)
    tracemalloc.start()
    try:
        with pytest.raises(ReadError, match=reason):
            open_nifti(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packed", [False, True])
def test_nifti_that_ends_early(tmp_path: Path, packed: bool) -> None:
    values = ramp(60)
    path = saved(tmp_path / ("a.nii.gz" if packed else "a.nii"), as_nifti(values))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip, frames = read(path)
    assert 20 < len(frames) < 40
    np.testing.assert_array_equal(stack(frames), values[: len(frames)])
    assert (clip.decode_errors, clip.cut_short, clip.info.frames_declared) == (1, True, 60)


def test_a_nifti_bomb_costs_nothing(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.nii", as_nifti(ramp())).read_bytes()
    (tmp_path / "b.nii").write_bytes(gzip.compress(data + bytes(200 << 20)))
    far = patched(data, 108, "<f", 150e6)
    (tmp_path / "far.nii").write_bytes(gzip.compress(far + bytes(200 << 20)))
    tracemalloc.start()
    try:
        assert len(read(tmp_path / "b.nii")[1]) == 5
        assert not stack(read(tmp_path / "far.nii")[1]).any()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def hdf5(path: Path, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (1, 18, 20)},
        {"chunks": (3, 9, 7), "compression": "gzip"},
        {"chunks": (5, 18, 20), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf"},
        {"chunks": True, "maxshape": (None, 18, 20)},
    ],
)
def test_hdf5_stored_in_every_way(tmp_path: Path, options: dict) -> None:
    values = ramp(7)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("patient/frames", data=values, **options)
        file.create_dataset("patient/label", data=3)
        file.create_dataset("patient/times", data=np.arange(7.0))
        file.create_dataset("patient/matrix", data=np.eye(4))
    clip, frames = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(stack(frames), values)
    assert (clip.info.codec, clip.info.backend) == (options.get("compression", "raw"), "hdf5")
    assert clip.info.time_base is None


@pytest.mark.parametrize(
    ("shape", "as_frames"),
    [
        ((18, 20), (1, 18, 20)),
        ((6, 18, 20), (6, 18, 20)),
        ((6, 18, 20, 1), (6, 18, 20)),
        ((18, 20, 3), (1, 18, 20, 3)),
        ((6, 18, 20, 3), (6, 18, 20, 3)),
        ((1, 18, 20), (1, 18, 20)),
        ((3, 18, 20), (3, 18, 20)),
    ],
)
def test_hdf5_shapes(tmp_path: Path, shape: tuple[int, ...], as_frames: tuple[int, ...]) -> None:
    values = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)
    _, frames = read(hdf5(tmp_path / "a.h5", frames=values), colour=len(as_frames) == 4)
    np.testing.assert_array_equal(stack(frames), values.reshape(as_frames))


def test_hdf5_of_wider_types(tmp_path: Path) -> None:
    values = np.random.default_rng(5).integers(-900, 4096, (3, 18, 20)).astype(">i2")
    clip, frames = read(hdf5(tmp_path / "a.h5", frames=values))
    np.testing.assert_array_equal(stack(frames), scaled(values, float(values.min()), float(values.max())))
    assert any("own range" in note for note in clip.info.notes)
    assert clip.info.pixel_format == "int16"


@pytest.mark.parametrize(
    ("datasets", "reason"),
    [
        ({"a": np.zeros((4, 18, 20), "u1"), "b": np.zeros((18, 20), "u1")}, r"2 stacks of pictures \(a, b\)"),
        ({f"d{number}": np.zeros((18, 20), "u1") for number in range(9)}, r"9 stacks of pictures \(d0, d1, d2, d3, d4, \.\.\.\)"),
        ({"label": np.zeros((15, 15)), "names": np.array([b"x"] * 400).reshape(20, 20)}, "no stack of pictures"),
        ({"five": np.zeros((2, 2, 18, 20, 3), "u1"), "two": np.zeros((2, 18, 20, 2), "u1")}, "no stack of pictures"),
        ({"none": np.zeros((0, 18, 20), "u1"), "complex": np.zeros((4, 18, 20), "c8")}, "no stack of pictures"),
        ({}, "no stack of pictures"),
    ],
)
def test_hdf5_without_one_stack(tmp_path: Path, datasets: dict[str, np.ndarray], reason: str) -> None:
    with pytest.raises(ReadError, match=reason):
        open_hdf5(hdf5(tmp_path / "a.h5", **datasets))


@pytest.mark.parametrize("way", ["external link", "soft link to one", "virtual", "virtual without end", "external storage"])
def test_nothing_outside_an_hdf5_file_is_opened(tmp_path: Path, way: str) -> None:
    secret = hdf5(tmp_path / "secret.h5", frames=ramp())
    (tmp_path / "secret.raw").write_bytes(ramp().tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if way.endswith(("link", "to one")):
            file["out"] = h5py.ExternalLink("secret.h5", "/frames")
            file["soft"] = h5py.SoftLink("/out")
        elif way == "external storage":
            file.create_dataset("frames", (5, 18, 20), "u1", external=[(str(tmp_path / "secret.raw"), 0, 1800)])
        else:
            endless = (None, 18, 20) if way.endswith("end") else (5, 18, 20)
            layout = h5py.VirtualLayout((5, 18, 20), "u1", maxshape=endless)
            layout[...] = h5py.VirtualSource(str(secret), "frames", (5, 18, 20), maxshape=(5, 18, 20))
            file.create_virtual_dataset("frames", layout)
    with pytest.raises(ReadError, match="not followed" if "link" in way else "other files, which are not opened"):
        open_hdf5(tmp_path / "a.h5")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", frames=ramp())
    with h5py.File(path, "a") as file:
        file.create_group("group")["back"] = file["/"]
    np.testing.assert_array_equal(stack(read(path)[1]), ramp())


def test_a_damaged_chunk_costs_its_frames(tmp_path: Path) -> None:
    values = ramp(12)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("frames", data=values, chunks=(2, 18, 20), compression="gzip", fletcher32=True)
        place = data.id.get_chunk_info_by_coord((4, 0, 0)).byte_offset
    with (tmp_path / "a.h5").open("r+b") as file:
        file.seek(place + 100)
        file.write(bytes(50))
    clip, frames = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(stack(frames), np.delete(values, (4, 5), axis=0))
    assert (clip.decode_errors, clip.cut_short) == (2, False)
    assert [frame.index for frame in frames] == list(range(10))
    assert str(tmp_path) not in (clip.first_error or "")


def test_what_an_hdf5_file_may_not_declare(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "never.h5", "w") as file:
        file.create_dataset("frames", (10**9, 600, 800), "u1", chunks=(1, 600, 800))
    with h5py.File(tmp_path / "hardly.h5", "w") as file:
        file.create_dataset("frames", (10**6, 600, 800), "u1", chunks=(1, 600, 800))[0] = 1
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("frames", (900, 600, 800), "u1", chunks=(900, 600, 800), compression="gzip")[:9] = 1
    with h5py.File(tmp_path / "side.h5", "w") as file:
        file.create_dataset("frames", (1, 40_000, 40_000), "u1", chunks=(1, 1000, 1000))[0, :1000, :1000] = 1
    for name, reason in {"never": "never written", "hardly": "far less", "large": "chunks of more than", "side": "far less|40000"}.items():
        with pytest.raises(ReadError, match=reason):
            open_hdf5(tmp_path / f"{name}.h5")


def test_a_chunk_that_unpacks_to_more_than_its_size_is_not_unpacked(tmp_path: Path) -> None:
    """HDF5 itself would take 400 MB for the second frame; a process of its own shows that nobody did."""
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("frames", (2, 600, 800), "u1", chunks=(1, 600, 800), compression="gzip")
        data[0] = 7
        data.id.write_direct_chunk((1, 0, 0), bomb)
    program = (
        "import resource, sys; from pathlib import Path; from usdata.readers.volumes import open_hdf5; import h5py\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "with open_hdf5(Path(sys.argv[1])) as clip: count = sum(1 for _ in clip.frames())\n"
        "print(count, clip.decode_errors, (peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.h5")], capture_output=True, text=True, check=True)
    count, errors, megabytes = map(int, done.stdout.split())
    assert (count, errors) == (1, 1)
    assert megabytes < 60


def test_memory_of_hdf5_is_some_frames(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("frames", (200, 600, 800), "u1", chunks=(10, 600, 800), compression="lzf")
        for start in range(0, 200, 10):
            data[start : start + 10] = start
    tracemalloc.start()
    try:
        with open_hdf5(tmp_path / "a.h5") as clip:
            levels = [int(frame.pixels[0, 0]) for frame in clip.frames()]
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert levels == [number // 10 * 10 for number in range(200)]


def test_without_the_libraries_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = (saved(tmp_path / "a.nii", as_nifti(ramp())), hdf5(tmp_path / "a.h5", frames=ramp()))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    monkeypatch.setitem(sys.modules, "h5py", None)
    for path in files:
        with pytest.raises(ReadError, match=r"usdata-uscl\[volumes\]"):
            read(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.h5"])
def test_random_damage_raises_nothing_but_read_error(tmp_path: Path, name: str) -> None:
    values = ramp().astype("<i2") * 9
    path = tmp_path / name
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("frames", data=values, chunks=(2, 18, 20), compression="gzip")
    else:
        saved(path, as_nifti(values, axes="xy1t"), (0.2, 0.2, 1.0, 0.04))
    sound = path.read_bytes()
    read_whole = 0
    for seed in range(200):
        draw = random.Random(seed)
        content = bytearray(sound)
        for _ in range(draw.randint(1, 12)):
            content[draw.randrange(len(content) if draw.random() < 0.5 else min(len(content), 400))] = draw.randrange(256)
        if draw.random() < 0.3:
            del content[draw.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            read(path)
            read_whole += 1
        except ReadError:
            continue
    assert 5 < read_whole < 195
