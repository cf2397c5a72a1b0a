"""The kind of a file by its content, over files that other programs wrote."""

import gzip
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.usdata.readers.generated import SAMPLES, Sample, encode, pattern
from usdata.readers.identify import KNOWN_BUT_UNREAD, STILL_KINDS, VIDEO_KINDS, identify, identify_bytes

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda each: each.name)
def test_every_container_whatever_its_name(tmp_path: Path, sample: Sample) -> None:
    path = encode(tmp_path / sample.name, pattern(4, 96, 64), *sample.options)
    assert identify(path) == sample.kind
    assert identify(path.rename(tmp_path / "scan.txt")) == sample.kind
    assert sample.kind in VIDEO_KINDS


@pytest.mark.parametrize("kind", sorted(STILL_KINDS))
def test_every_still(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.mp4"
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(path, format=kind)
    assert identify(path) == kind


def test_archives(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("note")
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.write(tmp_path / "note.txt")
    with tarfile.open(tmp_path / "t", "w") as archive:
        archive.add(tmp_path / "note.txt")
    (tmp_path / "g").write_bytes(gzip.compress(b"note"))
    assert [identify(tmp_path / name) for name in "ztg"] == ["zip", "tar", "gzip"]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", "empty"),
        (b"a,b\n1,2\n", "text"),
        ("Überblick über die Daten\n".encode(), "text"),
        ("Überblick über die Daten\n".encode("latin-1"), "text"),
        (b"BMI,age\n24.1,60\n31.0,44\n", "text"),
        (b"GOOD clips only\n" * 40, "text"),
        ("path\tlabel\n".encode("utf-16"), "text"),
        (b"NDims = 3\nDimSize = 3 3 3\n", "metaimage"),
        (b"NRRD0005\n", "nrrd"),
        (b"\x08\x00\x05\x00CS\n\x00ISO_IR 100" + bytes(20), "dicom"),
        (b"\0\0\0\x1cftypavif", "heif"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "mp4"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "unknown"),
        (bytes(4096), "unknown"),
        (b"\x00\x01\x02\x03" * 50, "unknown"),
    ],
)
def test_heads(head: bytes, kind: str) -> None:
    assert identify_bytes(head) == kind


def test_a_folder(tmp_path: Path) -> None:
    assert identify(tmp_path) == "folder"


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not here")
def test_every_real_file_has_a_kind() -> None:
    by_suffix = {
        ".mp4": {"mp4"},
        ".mov": {"mp4"},
        # One clip is named .avi and is an mp4.
        ".avi": {"avi", "mp4"},
        ".mpeg": {"mpegps"},
        ".gif": {"gif"},
        ".dcm": {"dicom"},
        ".mha": {"metaimage"},
        ".mhd": {"metaimage"},
        ".csv": {"text"},
        ".md": {"text"},
        ".zip": {"zip"},
    }
    files = [path for path in sorted(REAL.rglob("*")) if path.is_file()]
    assert len(files) > 300
    for path in files:
        expected = by_suffix.get(path.suffix.lower())
        if expected is not None:
            assert identify(path) in expected, path.name


def test_kinds_do_not_overlap() -> None:
    assert not VIDEO_KINDS & STILL_KINDS
    assert not (VIDEO_KINDS | STILL_KINDS) & set(KNOWN_BUT_UNREAD)


def test_only_the_head_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.bin"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert identify(path) == "unknown"
