"""What `Clip` promises, held against every reader: one sound file of every format, and the same file cut short."""

from pathlib import Path

import numpy as np
import pytest

from tests.usdata.clips import speckle_frames
from tests.usdata.damaged_inputs import COUNT, HEIGHT, STILLS, VIDEOS, WIDTH, intact_files
from usdata.errors import ReadError
from usdata.readers import BACKENDS, backends, frame_time, open_clip

SOURCE = np.stack(speckle_frames(COUNT, height=HEIGHT, width=WIDTH))
DICOM = ("native.dcm", "rle.dcm", "jpeg.dcm", "jpegls.dcm", "jpeg2000.dcm", "jpegxl.dcm")
VOLUMES = ("packed.igs.mha", "plain.mha", "packed.nrrd", "plain.nrrd", "stack.nii", "stack.nii.gz", "stack.h5")
INSIDE = ("clips.zip/a/h264.mp4", "clips.zip/c.dcm", "clips.tar/a/h264.mp4", "clips.tgz/a/mpeg4.avi", "images", "images/frame_#.png")
SEQUENCES = (*VIDEOS, *DICOM, *VOLUMES, *INSIDE)
EVERYTHING = (*SEQUENCES, *(f"still{suffix}" for suffix in STILLS), "clips.zip/b.png")
LOSSLESS = {"ffv1.mkv", "raw.avi", *DICOM, *VOLUMES, "clips.zip/c.dcm", "images", "images/frame_#.png"} - {"jpeg.dcm"}
# decord has no GIF, loses the key frame of a transport stream, and is wrong with mpeg4's B-frames in AVI and with packed flv1.
NOT_FOR_DECORD = {"clip.gif", "h264.ts", "mpeg4.avi", "flv.flv"}
HERE = [backend for backend in BACKENDS if not backends()[backend].startswith("missing")]
CASES = [(name, "auto") for name in EVERYTHING] + [
    (name, backend) for name in VIDEOS for backend in HERE if backend != "decord" or name not in NOT_FOR_DECORD
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("formats")
    for name, data in intact_files(made).items():
        (made / name).write_bytes(data)
    (made / "images").mkdir()
    import cv2

    for number, pixels in enumerate(SOURCE):
        assert cv2.imwrite(str(made / "images" / f"frame_{number}.png"), pixels)
    return made


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_what_a_clip_promises(folder: Path, name: str, backend: str) -> None:
    with open_clip(folder / name, backend=backend) as clip:
        info = clip.info
        times = []
        gray = []
        for number, frame in enumerate(clip.frames()):
            assert frame.index == number
            assert frame.pixels.dtype == np.uint8
            assert frame.pixels.flags.c_contiguous
            assert frame.pixels.shape == (info.height, info.width) == (HEIGHT, WIDTH)
            assert not frame.damaged
            assert not frame.invalid
            colours = clip.rgb()
            assert (colours.dtype, colours.shape) == (np.uint8, (HEIGHT, WIDTH, 3))
            times.append(frame_time(frame, info))
            gray.append(frame.pixels)
        with pytest.raises(RuntimeError, match="passed through once"):
            clip.frames()
        assert (clip.decode_errors, clip.first_error, clip.cut_short, clip.missing_indices) == (0, None, False, ())
    clip.close()
    still = name not in SEQUENCES
    assert len(gray) == clip.frames_decoded == (1 if still else COUNT)
    assert info.frames_declared in (None, len(gray)) or backend == "opencv"
    assert info.codec
    assert info.container
    known = [time for time in times if time is not None]
    assert known == sorted(set(known))
    assert clip.rate == (None if len(known) < 2 else (len(known) - 1) / (known[-1] - known[0]))
    assert (info.rate_source is None) == (not known)
    if known and name.endswith((".mp4", ".mkv", ".dcm", ".igs.mha")):
        assert np.diff([float(time) for time in known]) == pytest.approx(0.04, abs=0.0006)
    difference = np.abs(np.stack(gray).astype(int) - SOURCE[: len(gray)])
    if name in LOSSLESS:
        # Of uncompressed RGB, OpenCV's and decord's own conversions to gray may round the other way.
        assert difference.max() <= (1 if backend in ("opencv", "decord") else 0)
    else:
        assert difference.mean() < 12  # GIF's dither is the worst
    with open_clip(folder / name, backend=backend, colour=True) as clip:
        for frame, truth in zip(clip.frames(), gray, strict=True):
            assert frame.pixels.shape == (HEIGHT, WIDTH, 3)
            assert frame.pixels.flags.c_contiguous
            np.testing.assert_array_equal(clip.rgb(), frame.pixels)
            assert np.abs(frame.pixels @ (0.299, 0.587, 0.114) - truth).mean() < 4


@pytest.mark.parametrize("name", [name for name in SEQUENCES if "/" not in name and name != "images"])
@pytest.mark.parametrize("share", [0.95, 0.6, 0.3])
def test_what_is_cut_short_is_not_passed_over_in_silence(folder: Path, tmp_path: Path, name: str, share: float) -> None:
    data = (folder / name).read_bytes()
    cut = tmp_path / name
    # Not between two packets of a transport stream, where nobody could tell.
    cut.write_bytes(data[: int(len(data) * share) - 7])
    try:
        clip = open_clip(cut)
    except ReadError:
        return
    with clip:
        frames = list(clip.frames())
        assert len(frames) <= COUNT
        # What decodes after a cut may be concealed; what is not complete is said.
        assert clip.decode_errors > 0 or clip.cut_short or len(frames) == COUNT
        if name in LOSSLESS:
            sound = [frame for frame in frames if not frame.damaged]
            np.testing.assert_array_equal([frame.pixels for frame in sound], SOURCE[: len(sound)])


@pytest.mark.parametrize("name", EVERYTHING)
def test_reading_leaves_nothing_behind_and_changes_nothing(folder: Path, tmp_path: Path, name: str) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with open_clip(folder / name, scratch=tmp_path) as clip:
        next(clip.frames())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == []
