"""The digest of coded pictures: the same stream in every container that takes it, copied by FFmpeg's own program and by PyAV."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.usdata.readers.dicom_files import STANDARD, native, packed
from tests.usdata.readers.generated import X264_B, encode, ffmpeg, pattern
from usdata.readers import open_clip
from usdata.readers.packets import PacketDigest
from usdata.readers.video import PyavClip

RAW_STREAMS = (".h264", ".hevc", ".m2v")


def digest_of(path: Path) -> str | None:
    with PyavClip(path, "raw") if path.suffix in RAW_STREAMS else open_clip(path) as clip:
        for _ in clip.frames():
            pass
    return clip.packets_sha256


@pytest.mark.parametrize(
    ("name", "options", "containers"),
    [
        ("h264.mp4", X264_B, ("mkv", "mov", "avi", "ts", "flv", "h264")),
        ("h264.ts", X264_B, ("mkv", "mov", "mp4", "h264")),
        ("slices.h264", ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "0", "-x264-params", "slices=3:aud=1"), ("mp4", "mov")),
        ("interlaced.mkv", ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-flags", "+ildct+ilme"), ("mp4", "ts", "h264")),
        ("hevc.mp4", ("-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=none"), ("mkv", "mov", "ts", "hevc")),
        ("mpeg4.avi", ("-c:v", "mpeg4", "-q:v", "3"), ("mkv", "mov", "mp4")),
        ("mpeg4.mp4", ("-c:v", "mpeg4", "-q:v", "3", "-bf", "2"), ("mkv", "mov", "avi")),
        ("mpeg2.mkv", ("-c:v", "mpeg2video", "-q:v", "2"), ("mpg", "mp4", "ts", "m2v")),
        ("mjpeg.avi", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"), ("mkv", "mov")),
        ("ffv1.mkv", ("-c:v", "ffv1", "-pix_fmt", "gray"), ("avi", "mov")),
    ],
)
def test_another_container_leaves_it(tmp_path: Path, name: str, options: tuple[str, ...], containers: tuple[str, ...]) -> None:
    source = encode(tmp_path / name, pattern(24, 96, 64), *options)
    expected = digest_of(source)
    assert expected is not None
    for container in containers:
        copy = tmp_path / f"copy.{container}"
        done = ffmpeg("-v", "error", "-i", source, "-c", "copy", copy)
        assert done.returncode == 0, done.stderr.decode()
        assert copy.read_bytes() != source.read_bytes()
        assert digest_of(copy) == expected, container


def test_a_copy_by_pyav_leaves_it_and_another_encoding_does_not(tmp_path: Path) -> None:
    frames = pattern(24, 96, 64)
    source = encode(tmp_path / "a.mp4", frames, *X264_B)
    with av.open(str(source)) as read, av.open(str(tmp_path / "b.mkv"), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(read.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                write.mux(packet)
    assert digest_of(tmp_path / "b.mkv") == digest_of(source)
    assert digest_of(encode(tmp_path / "c.mp4", frames, *X264_B[:4], "-crf", "13")) != digest_of(source)
    assert digest_of(encode(tmp_path / "d.mp4", frames[:23], *X264_B)) != digest_of(source)


def test_dicom_around_a_video_leaves_it(tmp_path: Path) -> None:
    frames = pattern(24, 96, 64)
    video = encode(tmp_path / "v.mp4", frames, *X264_B)
    for pieces in (1, 3):
        path = packed(
            tmp_path / f"{pieces}.dcm", [video.read_bytes()], frames, "YBR_PARTIAL_420", f"{STANDARD}.4.102", table=False, split=pieces
        )
        assert digest_of(path) == digest_of(video)


def test_padding_in_dicom_is_no_part_of_a_raw_stream(tmp_path: Path) -> None:
    frames = pattern(24, 96, 64)
    for quality in range(2, 12):
        video = encode(tmp_path / "v.m2v", frames, "-c:v", "mpeg2video", "-q:v", str(quality), "-f", "mpeg2video")
        if video.stat().st_size % 2:
            break
    else:
        pytest.fail("no stream of an odd length")
    path = packed(tmp_path / "v.dcm", [video.read_bytes()], frames, "YBR_PARTIAL_420", f"{STANDARD}.4.100", table=False)
    assert digest_of(path) == digest_of(video)


def test_dicom_around_jpegs_equals_the_same_ones_in_a_video(tmp_path: Path) -> None:
    frames = pattern(24, 96, 64)
    video = encode(tmp_path / "v.avi", frames, "-c:v", "mjpeg", "-pix_fmt", "yuvj420p")
    with av.open(str(video)) as container:
        pictures = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert {len(picture) % 2 for picture in pictures} == {0, 1}, "some are padded in DICOM"
    assert digest_of(packed(tmp_path / "v.dcm", pictures, frames, "YBR_FULL_422", f"{STANDARD}.4.50")) == digest_of(video)


def test_without_packets_there_is_none(tmp_path: Path) -> None:
    frames = pattern(3, 96, 64)[..., 0]
    cv2.imwrite(str(tmp_path / "still.png"), frames[0])
    assert digest_of(tmp_path / "still.png") is None
    assert digest_of(native(tmp_path / "native.dcm", np.ascontiguousarray(frames))) is None
    video = encode(tmp_path / "v.mp4", pattern(3, 96, 64), *X264_B)
    with open_clip(video, backend="opencv") as clip:
        assert len(list(clip.frames())) == 3
    assert clip.packets_sha256 is None


def test_units_are_taken_out_of_both_framings() -> None:
    """Hand-made: parameter sets, supplementary information and delimiters go, slices stay, however they are framed and cut."""
    unit = {
        name: bytes([first]) + name.encode() for name, first in {"idr": 0x65, "slice": 0x41, "sps": 0x67, "pps": 0x68, "sei": 6}.items()
    }
    delimiter = b"\x09\xf0"
    record = b"\x01\x64\0\x1f\xff" + b"the rest"

    def by_length(*units: bytes) -> bytes:
        return b"".join(len(each).to_bytes(4, "big") + each for each in units)

    def by_code(*units: bytes, code: bytes = b"\0\0\0\1") -> bytes:
        return b"".join(code + each for each in units)

    ways = {
        "mp4": (record, [by_length(unit["sei"], unit["idr"]), by_length(unit["slice"])]),
        "padded": (record, [by_length(unit["idr"] + b"\0\0"), by_length(unit["slice"])]),
        "raw": (None, [by_code(delimiter, unit["sps"], unit["pps"], unit["sei"], unit["idr"]), by_code(delimiter, unit["slice"])]),
        "short": (b"\0\0\1" + unit["sps"], [by_code(unit["idr"], code=b"\0\0\1") + by_code(unit["slice"]) + b"\0"]),
        "one length too long": (record, [by_length(unit["idr"]), b"\0\0\1\0" + unit["slice"]]),
    }
    digests = {}
    for name, (extradata, packets) in ways.items():
        made = PacketDigest("h264", extradata)
        for packet in packets:
            made.add(packet)
        digests[name] = made.hexdigest()
    assert None not in digests.values()
    assert len(set(digests.values())) == 1, digests
    nothing = PacketDigest("h264", record)
    nothing.add(by_length(unit["sps"]) + b"\0")
    assert nothing.hexdigest() is None
