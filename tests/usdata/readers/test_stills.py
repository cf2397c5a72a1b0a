"""Stills and folders of them; Pillow writes, and is the oracle for EXIF orientation."""

import os
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.usdata.readers.generated import pattern
from usdata.errors import ReadError
from usdata.readers import frame_time, open_clip
from usdata.readers.naming import missing_numbers


def only_frame(path: Path, *, colour: bool = False) -> np.ndarray:
    with open_clip(path, colour=colour) as clip:
        (frame,) = clip.frames()
    assert (frame.pts, clip.info.time_base, frame_time(frame, clip.info)) == (None, None, None)
    assert clip.info.backend == "stills"
    return frame.pixels


def numbered(folder: Path, names: list[str], width: int = 40, height: int = 30) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    frames = pattern(len(names), width, height)[..., 0]
    for name, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(folder / name)
    return frames


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff"])
def test_lossless_stills_come_back(tmp_path: Path, kind: str) -> None:
    source = pattern(1, 41, 30, colour=True)[0]
    path = tmp_path / f"still.{kind}"
    Image.fromarray(source).save(path)
    np.testing.assert_array_equal(only_frame(path, colour=True), source)
    # ITU-R BT.601 luma, which cv2 rounds in fixed point.
    luma = source.astype(float) @ (0.299, 0.587, 0.114)
    assert np.abs(only_frame(path) - luma).max() <= 0.51


def test_a_png_named_mp4_is_the_still_that_it_is(tmp_path: Path) -> None:
    source = pattern(1, 41, 30)[0]
    Image.fromarray(source).save(tmp_path / "clip.mp4", format="png")
    np.testing.assert_array_equal(only_frame(tmp_path / "clip.mp4"), source[..., 0])


def test_gray_stills_stay_gray_or_become_equal_channels(tmp_path: Path) -> None:
    source = pattern(1, 41, 30)[0]
    Image.fromarray(source[..., 0]).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(only_frame(tmp_path / "gray.png"), source[..., 0])
    np.testing.assert_array_equal(only_frame(tmp_path / "gray.png", colour=True), source)


def test_sixteen_bit_is_divided_by_257(tmp_path: Path) -> None:
    codes = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    codes[-1, -1] = 65535
    for name in ("deep.png", "deep.tiff"):
        assert cv2.imwrite(str(tmp_path / name), codes)
        np.testing.assert_array_equal(only_frame(tmp_path / name), np.rint(codes / 257).astype(np.uint8))


def test_transparency_stands_on_black(tmp_path: Path) -> None:
    rgba = np.full((4, 4, 4), 200, np.uint8)
    rgba[..., 3] = [0, 64, 128, 255]
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    assert only_frame(tmp_path / "alpha.png")[0].tolist() == [0, round(200 * 64 / 255), round(200 * 128 / 255), 200]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(pattern(1, 48, 32)[0][..., 0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    image.save(path, quality=95, exif=exif)
    with Image.open(path) as turned:
        expected = np.asarray(ImageOps.exif_transpose(turned))
    np.testing.assert_array_equal(only_frame(path), expected)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
@pytest.mark.parametrize("mode", ["gray", "16 bit", "rgb", "palette"])
def test_the_pages_of_a_tiff_are_frames(tmp_path: Path, mode: str, compression: str | None) -> None:
    frames = pattern(5, 40, 30, colour=mode in ("rgb", "palette"))
    stored = {"gray": frames[..., 0], "16 bit": frames[..., 0].astype(np.uint16) * 257}.get(mode, frames)
    pages = [Image.fromarray(page) for page in stored]
    if mode == "palette":
        pages = [page.quantize(200) for page in pages]
        frames = np.stack([np.asarray(page.convert("RGB")) for page in pages])
    path = tmp_path / "pages.tiff"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression)
    with open_clip(path, colour=True) as clip:
        np.testing.assert_array_equal([frame.pixels for frame in clip.frames()], frames)
    with open_clip(path) as clip:
        got = [frame.pixels for frame in clip.frames()]
        assert (clip.info.frames_declared, clip.info.time_base, clip.decode_errors) == (5, None, 0)
    if mode in ("gray", "16 bit"):
        np.testing.assert_array_equal(got, frames[..., 0])
    if compression is None and mode == "gray":
        data = path.read_bytes()
        path.write_bytes(data[:-400])
        try:
            clip = open_clip(path)
        except ReadError:
            return
        with clip:
            assert len(list(clip.frames())) < 5 or clip.decode_errors


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_several_pictures_in_one_file_are_refused(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(frame) for frame in pattern(3, 40, 30)]
    path = tmp_path / f"many.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(ReadError, match="3 pictures in one file"):
        open_clip(path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "bmp", "webp"])
def test_a_truncated_still_says_so(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"still.{kind}"
    Image.fromarray(pattern(1, 160, 120)[0]).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ReadError, match=r"damaged or cut short|header cannot be read"):
        open_clip(path)


def test_an_absurd_size_is_refused_by_the_header(tmp_path: Path) -> None:
    # A bitmap's size stands in its header in the clear; 30000 × 30000 would take 2.7 GB.
    Image.fromarray(pattern(1, 40, 30)[0]).save(tmp_path / "huge.bmp")
    data = bytearray((tmp_path / "huge.bmp").read_bytes())
    data[18:26] = (30_000).to_bytes(4, "little") * 2
    (tmp_path / "huge.bmp").write_bytes(data)
    with pytest.raises(ReadError, match=r"30000×30000|900000000 pixels"):
        open_clip(tmp_path / "huge.bmp")


@pytest.mark.parametrize("seed", range(40))
def test_noise_anywhere_never_raises_anything_but_read_error(tmp_path: Path, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    generator = random.Random(seed)
    kind = ("png", "jpeg", "tiff", "bmp", "webp")[seed % 5]
    path = tmp_path / "still"
    Image.fromarray(pattern(1, 64, 48)[0]).save(path, format=kind)
    data = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 20)):
        data[generator.randrange(4, 200 if generator.random() < 0.7 else len(data))] = generator.randrange(256)
    path.write_bytes(data)
    try:
        clip = open_clip(path)
    except ReadError:
        return
    with clip:
        assert len(list(clip.frames())) == 1


def test_a_folder_is_ordered_by_the_numbers(tmp_path: Path) -> None:
    names = ["f_1.png", "f_2.png", "f_9.png", "f_10.png", "f_0011.png", "f_00100.png"]
    frames = numbered(tmp_path / "scan", names)
    (tmp_path / "scan" / ".hidden.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "scan" / "notes.txt").write_text("not a frame")
    with open_clip(tmp_path / "scan") as clip:
        got = [frame.pixels for frame in clip.frames()]
    np.testing.assert_array_equal(np.stack(got), frames)
    assert (clip.info.container, clip.info.codec, clip.info.frames_declared) == ("folder", "png", 6)
    assert clip.missing_indices == (3, 4, 5, 6, 7, 8, *range(12, 100))


def test_the_order_of_the_file_system_plays_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number:04d}.png" for number in range(12)]
    frames = numbered(tmp_path / "scan", names)
    listed = sorted((tmp_path / "scan").iterdir(), key=lambda path: os.urandom(4))
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(listed))
    with open_clip(tmp_path / "scan") as clip:
        np.testing.assert_array_equal(np.stack([frame.pixels for frame in clip.frames()]), frames)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["a1", "a2", "a4"], (3,)),
        (["clip2_frame0010", "clip2_frame0012"], (11,)),
        (["0001", "00003"], (2,)),
        (["a1", "b3"], ()),
        (["a1", "a01"], ()),
        (["left", "right"], ()),
        (["20200101", "20210101", "20220101"], ()),
        ([], ()),
    ],
)
def test_missing_numbers(names: list[str], missing: tuple[int, ...]) -> None:
    assert missing_numbers(names) == missing


def test_another_size_and_a_damaged_image_in_a_folder_are_counted(tmp_path: Path) -> None:
    numbered(tmp_path / "scan", [f"{number}.png" for number in range(5)])
    (tmp_path / "scan" / "0.png").write_bytes((tmp_path / "scan" / "0.png").read_bytes()[:60])
    Image.new("L", (7, 7)).save(tmp_path / "scan" / "2.png")
    with open_clip(tmp_path / "scan") as clip:
        frames = list(clip.frames())
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert clip.decode_errors == 2
    assert clip.first_error is not None
    assert clip.first_error.startswith("image 1 of 5")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image here")
    with pytest.raises(ReadError, match="no image directly in it"):
        open_clip(tmp_path)
