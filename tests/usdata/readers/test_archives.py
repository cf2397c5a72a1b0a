"""Archives stand for the folder they hold: the same frames as from the plain file, and nothing that reaches out of them."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.usdata.clips import speckle_frames, write_png, write_video
from usdata.errors import ReadError
from usdata.readers import archives, open_clip
from usdata.readers.archives import as_file, extract, list_members, locate, open_raw, size_of
from usdata.readers.identify import identify

FRAMES = speckle_frames(5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clip, a sequence and a text, in a folder to be packed."""
    write_video(tmp_path / "in" / "ward 1" / "clip.mkv", FRAMES, codec="ffv1")
    for number, pixels in enumerate(FRAMES):
        write_png(tmp_path / "in" / "scan" / f"frame_{number}.png", pixels)
    (tmp_path / "in" / "note.txt").write_text("a note about this\n" * 3)
    return tmp_path / "in"


def packed(folder: Path, name: str) -> Path:
    target = folder.parent / name
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if name.endswith(".zip"):
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(folder))
        return target
    with tarfile.open(target, {".tar": "w", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[target.suffix]) as archive:  # type: ignore[call-overload]
        for path in files:
            archive.add(path, path.relative_to(folder))
    return target


KINDS = ["a.zip", "a.tar", "a.tgz", "a.tar.bz2", "a.tar.xz"]


@pytest.mark.parametrize("name", KINDS)
def test_members_are_told_by_content_and_read_as_from_the_folder(folder: Path, name: str) -> None:
    archive = packed(folder, name)
    assert identify(archive) == ("zip" if name.endswith("zip") else "tar")
    kinds = {member.name: member.kind for member in list_members(archive)}
    assert kinds == {"note.txt": "text", "ward 1/clip.mkv": "matroska", **{f"scan/frame_{number}.png": "png" for number in range(5)}}
    for inside in ("ward 1/clip.mkv", "scan", "scan/frame_#.png"):
        with open_clip(archive / inside) as clip:
            np.testing.assert_array_equal([frame.pixels for frame in clip.frames()], FRAMES)
    with open_raw(archive / "note.txt") as file:
        assert file.read() == (folder / "note.txt").read_bytes()
    assert size_of(archive / "note.txt") == (folder / "note.txt").stat().st_size


def test_what_was_unpacked_is_gone_when_the_clip_is_left(folder: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    archive = packed(folder, "a.zip")
    with open_clip(archive / "ward 1/clip.mkv", scratch=scratch) as clip:
        assert len(list(scratch.rglob("*.mkv"))) == 1
        next(clip.frames())
    assert list(scratch.iterdir()) == []
    with pytest.raises(ReadError, match="is text"):
        open_clip(archive / "note.txt", scratch=scratch)
    assert list(scratch.iterdir()) == []


def test_paths_of_the_file_system_are_left_alone(folder: Path) -> None:
    archive = packed(folder, "a.zip")
    assert locate(archive) is None
    assert locate(folder / "ward 1" / "clip.mkv") is None
    assert locate(folder / "none" / "clip.mkv") is None
    assert locate(folder / "note.txt" / "clip.mkv") is None
    assert locate(archive / "x" / "y.mkv") == (archive, "x/y.mkv")
    with as_file(folder / "note.txt") as path:
        assert path == folder / "note.txt"
    with pytest.raises(ReadError, match="holds no such file"):
        open_clip(archive / "none.mkv")
    with pytest.raises(ReadError, match="a ZIP archive: a folder of files"):
        open_clip(archive)


def zip_of(path: Path, members: Iterator[tuple[str, bytes]] | list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["../out.png", "/abs.png", "a/../../out.png", "C:/out.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leads_out_is_refused_and_writes_nothing(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "sub" / f"evil.{kind}"
    path.parent.mkdir()
    if kind == "zip":
        zip_of(path, [(name, b"x" * 100)])
    else:
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo(name)
            info.size = 100
            archive.addfile(info, io.BytesIO(b"x" * 100))
    (member,) = list_members(path)
    assert member.name == "(member 0)"
    assert member.reason == "its name leads out of the archive"
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(ReadError, match="leads out"):
        extract(path, member.name, into)
    assert list(into.iterdir()) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["into", "sub"]


def test_links_devices_encrypted_and_doubled_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for _ in range(2):
            info = tarfile.TarInfo("twice.txt")
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    reasons = {member.name: member.reason for member in list_members(path)}
    assert reasons == {
        "link": "is a link",
        "hard": "is a link",
        "pipe": "is neither a file nor a folder",
        "twice.txt": "stands in the archive more than once",
    }
    path = zip_of(tmp_path / "locked.zip", [("a.png", b"x" * 50)])
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag of encryption, in the local header and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert [member.reason for member in list_members(path)] == ["is encrypted"]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_FREE_BYTES", 1 << 20)
    path = zip_of(tmp_path / "bomb.zip", [("zeros.avi", bytes(8 << 20))])
    (member,) = list_members(path)
    assert member.reason is not None
    assert "decompression bomb" in member.reason
    tar = tmp_path / "bomb.tar"
    with tarfile.open(tar, "w") as archive:
        info = tarfile.TarInfo("zeros.avi")
        info.size = 8 << 20
        archive.addfile(info, io.BytesIO(bytes(8 << 20)))
    packed_tar = tmp_path / "bomb.tgz"
    packed_tar.write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(ReadError, match="decompression bomb"):
        list_members(packed_tar)


def test_a_lying_size_costs_no_more_than_it_declares(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "lying.zip", [("a.bin", bytes(range(256)) * 40)])
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ReadError, match="damaged"):
        extract(path, "a.bin", tmp_path)


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_archive_is_one_reason(folder: Path, name: str) -> None:
    archive = packed(folder, name)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    if name == "a.zip":  # its directory stands at the end
        with pytest.raises(ReadError, match="damaged"):
            list_members(archive)
        return
    try:
        members = list_members(archive)
    except ReadError as error:
        assert name != "a.tar"
        assert "damaged" in error.reason  # noqa: PT017
        return
    *sound, broken = sorted(members, key=lambda member: member.reason is not None)
    assert "breaks off" in (broken.reason or "")
    assert {member.name for member in sound} < {"note.txt", "ward 1/clip.mkv", *(f"scan/frame_{number}.png" for number in range(5))}
    for member in sound:
        with open_raw(archive / member.name) as file:
            assert file.read() == (folder / member.name).read_bytes()


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_flipped_bytes_in_a_compressed_tar_are_damage_and_nothing_else(folder: Path, tmp_path: Path, place: float) -> None:
    archive = tmp_path / "a.tar.xz"
    with tarfile.open(archive, "w:xz") as opened:
        opened.add(folder, "a")
    data = bytearray(archive.read_bytes())
    data[int(place * len(data))] ^= 0xFF
    archive.write_bytes(data)
    try:
        members = [member for member in list_members(archive) if member.reason is None]
    except ReadError as error:
        assert "damaged" in error.reason  # noqa: PT017
        return
    for member in members:
        try:
            with open_raw(archive / member.name) as file:
                file.read()
        except ReadError as error:
            assert "damaged" in error.reason  # noqa: PT017


def test_a_damaged_member_says_so(folder: Path) -> None:
    archive = packed(folder, "a.zip")
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo("ward 1/clip.mkv")
    middle = info.header_offset + info.compress_size // 2
    data[middle : middle + 50] = bytes(50)
    archive.write_bytes(data)
    with pytest.raises(ReadError, match="damaged in its archive"):
        open_clip(archive / "ward 1/clip.mkv")


def test_an_archive_that_unpacks_to_itself_is_looked_into_once(tmp_path: Path) -> None:
    inner = gzip.compress(b"text " * 100)
    for _ in range(50):
        inner = gzip.compress(inner)
    path = tmp_path / "onion.gz"
    path.write_bytes(inner)
    assert identify(path) == "gzip"
    nested = zip_of(tmp_path / "outer.zip", [("inner.zip", zip_of(tmp_path / "inner.zip", [("a.txt", b"hello there, you")]).read_bytes())])
    assert [member.kind for member in list_members(nested)] == ["zip"]
    with pytest.raises(ReadError, match="ZIP archive"):
        open_clip(nested / "inner.zip")


def test_a_zip_may_not_make_files_executable_or_special(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mode.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    into = tmp_path / "out"
    into.mkdir()
    found = extract(path, "link.png", into)
    assert not found.is_symlink()
    assert found.read_text() == "/etc/passwd"
