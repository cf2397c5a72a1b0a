"""Archives: sound ones are unpacked by pull, hostile ones are refused whole, and nothing is ever written outside."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import usdata
from tests.usdata.pulling.test_faults import entry
from usdata.errors import UserError
from usdata.pulling.unpack import Limits, unpack


def zip_of(path: Path, members: dict[str, bytes], *, mode: int = 0, flags: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, content)
    if flags:
        data = bytearray(path.read_bytes())
        data[6] |= flags
        data[data.index(b"PK\x01\x02") + 8] |= flags
        path.write_bytes(data)
    return path


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


FINE = {"a/b.txt": b"one", "c.txt": b"two"}
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a name that climbs out": (lambda f: zip_of(f / "x.zip", {"ok": b"1", "../evil": b"2"}), "leads out"),
    "a name that climbs out, tar": (lambda f: tar_of(f / "x.tar.gz", (member("../../evil"), b"2")), "leads out"),
    "an absolute name": (lambda f: zip_of(f / "x.zip", {"/evil": b"2"}), "leads out"),
    "an absolute name, tar": (lambda f: tar_of(f / "x.tar", (member("/evil"), b"2"), mode="w"), "leads out"),
    "another system's absolute name": (lambda f: zip_of(f / "x.zip", {"C:/evil": b"2"}), "leads out"),
    "backslashes": (lambda f: zip_of(f / "x.zip", {"..\\evil": b"2"}), "character that no path may hold"),
    "a link": (lambda f: tar_of(f / "x.tar.gz", (member("l", tarfile.SYMTYPE, "/etc/passwd"), b"")), "is a link"),
    "a hard link": (lambda f: tar_of(f / "x.tar.gz", (member("a"), b"1"), (member("l", tarfile.LNKTYPE, "a"), b"")), "is a link"),
    "a link in a zip": (lambda f: zip_of(f / "x.zip", {"l": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777), "is a link"),
    "a pipe": (lambda f: tar_of(f / "x.tar.gz", (member("p", tarfile.FIFOTYPE), b"")), "neither a file nor a folder"),
    "one name in two cases": (lambda f: zip_of(f / "x.zip", {"Clip.mp4": b"1", "clip.mp4": b"2"}), "differ in case"),
    "one name twice": (lambda f: tar_of(f / "x.tar.gz", (member("a"), b"1"), (member("a"), b"2")), "more than once"),
    "a file that is a folder": (lambda f: zip_of(f / "x.zip", {"a": b"1", "a/b": b"2"}), "is a file, and the folder of"),
    "an encrypted member": (lambda f: zip_of(f / "x.zip", {"a": b"1"}, flags=1), "is encrypted"),
    "no archive": (lambda f: (f / "x.zip").write_bytes(b"<html>") and f / "x.zip", "is no zip or tar"),
    "nothing": (lambda f: zip_of(f / "x.zip", {}), "empty"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused_whole(case: str, tmp_path: Path) -> None:
    make, said = HOSTILE[case]
    (tmp_path / "in").mkdir()
    archive = make(tmp_path / "in")
    with pytest.raises(UserError) as caught:
        unpack(archive, tmp_path / "staging")
    assert said in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", archive.name]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(files=2), "holds 3 files, more than 2"),
        (Limits(bytes=100_000), "unpacks to 0.0 GB"),
        (Limits(ratio=10, ratio_free_bytes=1000), "a decompression bomb"),
    ],
)
def test_archives_beyond_the_limits_are_refused(limits: Limits, said: str, tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", {"a": bytes(200_000), "b": b"1", "c": b"2"})
    with pytest.raises(UserError, match=said):
        unpack(archive, tmp_path / "staging", limits=limits)
    assert not (tmp_path / "staging").exists()
    assert unpack(archive, tmp_path / "staging").files == 3


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_archives_leave_nothing(suffix: str, damage: str, tmp_path: Path) -> None:
    archive = tmp_path / f"x.{suffix}"
    content = bytes(range(256)) * 400
    if suffix == "zip":
        zip_of(archive, {"a": content, "b": content[::-1]})
    else:
        tar_of(archive, (member("a"), content), (member("b"), content[::-1]), mode=f"w:{suffix.partition('.')[2]}")
    data = bytearray(archive.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif suffix == "tar":
        data[3] ^= 0xFF  # a plain tar checks its headers alone
    else:
        data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(UserError):
        unpack(archive, tmp_path / "staging")
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def of_archive(path: Path, **changes: object):  # type: ignore[no-untyped-def]
    files = [{"urls": [f"https://nowhere.invalid/{path.name}"], "to": path.name, "unpack": True}]
    return entry("https://nowhere.invalid/x", files=files, **changes)


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_pull_unpacks_once_and_notices_changes(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    archive = tmp_path / "share" / f"set.{suffix}"
    if suffix == "zip":
        zip_of(archive, FINE)
    else:
        tar_of(archive, *[(member(name), content) for name, content in FINE.items()])
    what, mirrors = of_archive(archive), {"test": str(archive.parent)}
    result = usdata.pull(what, to=tmp_path / "raw", mirrors=mirrors)
    folder = tmp_path / "raw" / "test" / "set"
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == FINE
    assert result.sources[0].files[0].unpacked == 2
    assert sorted(path.name for path in folder.parent.iterdir()) == [".usdata-pull.json", "set"]
    archive.unlink()
    assert usdata.pull(what, to=tmp_path / "raw", mirrors=mirrors).complete, "it is there: the mirror is not asked"
    (folder / "c.txt").write_bytes(b"longer than before")
    with pytest.raises(UserError, match="some were added, removed or changed"):
        usdata.pull(what, to=tmp_path / "raw", mirrors=mirrors)
    assert (folder / "c.txt").read_bytes() == b"longer than before"


def test_a_pull_of_a_hostile_archive_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    archive = zip_of(tmp_path / "share" / "set.zip", {"ok": b"1", "../evil": b"2"})
    with pytest.raises(UserError, match="leads out of the archive"):
        usdata.pull(of_archive(archive), to=tmp_path / "raw", mirrors={"test": str(archive.parent)})
    assert not list(tmp_path.rglob("evil"))
    assert not (tmp_path / "raw" / "test" / "set").exists()


def test_a_folder_that_stands_in_the_place_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    archive = zip_of(tmp_path / "share" / "set.zip", FINE)
    mine = tmp_path / "raw" / "test" / "set"
    mine.mkdir(parents=True)
    (mine / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="stands there and was not put there by pull"):
        usdata.pull(of_archive(archive), to=tmp_path / "raw", mirrors={"test": str(archive.parent)})
    assert [path.name for path in mine.iterdir()] == ["mine.txt"]
