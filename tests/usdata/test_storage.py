"""Remote folders by fsspec's file system in memory: mirrored once, sent whole or not at all, and equal to a build from disk."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.usdata.clips import speckle_frames, write_video
from tests.usdata.test_promises import tree_bytes
from usdata import storage
from usdata.building import BuildResult, build
from usdata.errors import UserError
from usdata.recipe import Recipe
from usdata.storage import SENT, bring

RECIPE = Recipe.model_validate({"name": "t", "sources": [{"name": "s", "layout": "files", "sampling": {"rule": "all"}}]})


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture
def raw(tmp_path: Path, memory: fsspec.AbstractFileSystem) -> Path:
    for number, name in enumerate(["a.mkv", "deep/er/b.mkv"]):
        write_video(tmp_path / "raw" / name, speckle_frames(5, seed=number), codec="ffv1")
    (tmp_path / "raw" / "notes.txt").write_text("hello")
    memory.put(str(tmp_path / "raw"), "/bucket/", recursive=True)
    return tmp_path / "raw"


def build_there(tmp_path: Path, **further: object) -> BuildResult:
    arguments = {"raw": "memory://bucket/raw", "out": "memory://bucket/set", "workers": 1, "cache": tmp_path / "cache"} | further
    return build(RECIPE, **arguments)  # type: ignore[arg-type]


def sent(memory: fsspec.AbstractFileSystem) -> dict[str, bytes]:
    return {name.removeprefix("/bucket/set/"): memory.cat_file(name) for name in memory.find("/bucket/set") if not name.endswith(SENT)}


def test_a_build_from_and_to_an_address_is_a_build_from_and_to_disk(raw: Path, memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    here = build(RECIPE, raw=raw, out=tmp_path / "set", workers=1)
    there = build_there(tmp_path)
    assert tree_bytes(there.out) == tree_bytes(here.out) == sent(memory)
    assert build_there(tmp_path).unchanged


def test_what_has_not_changed_is_not_fetched_or_sent_again(
    raw: Path, memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_there(tmp_path)
    fetched, put = [], []
    fetch, put_one = storage._fetch, storage._put
    monkeypatch.setattr(storage, "_fetch", lambda *a: fetched.append(a[1]) or fetch(*a))
    monkeypatch.setattr(storage, "_put", lambda *a: put.append(a[2]) or put_one(*a))
    write_video(tmp_path / "c.mkv", speckle_frames(3, seed=9), codec="ffv1")
    memory.put_file(str(tmp_path / "c.mkv"), "/bucket/raw/c.mkv")
    after = build_there(tmp_path)
    assert (after.reused, after.counts["ok"]) == (2, 3)
    assert fetched == ["/bucket/raw/c.mkv"]
    assert not [name for name in put if "/a_mkv/" in name], "images that stood there were not sent again"
    assert tree_bytes(after.out) == sent(memory)
    memory.rm_file("/bucket/raw/c.mkv")
    with pytest.raises(UserError, match="--overwrite"):
        build_there(tmp_path)
    build_there(tmp_path, overwrite=True)
    assert not [name for name in sent(memory) if "/c_mkv/" in name], "what went here goes there"


def test_a_sending_that_breaks_off_leaves_no_data_set_and_goes_on(
    raw: Path, memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_one = storage._put

    def breaks_off(filesystem: fsspec.AbstractFileSystem, source: Path, target: str) -> None:
        if target.endswith("videos.parquet"):
            raise ConnectionError("the line is dead")
        put_one(filesystem, source, target)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "_put", breaks_off)
        with pytest.raises(UserError, match=r"memory://bucket/set: cannot be written \(the line is dead\)"):
            build_there(tmp_path)
    assert "dataset.json" not in sent(memory)
    again = build_there(tmp_path)
    assert again.unchanged, "it was made here; only sending was left"
    assert tree_bytes(again.out) == sent(memory)


def test_a_file_that_breaks_off_is_told_and_the_others_stay(
    raw: Path, memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = memory.open

    def cut(path: str, *args: object, **kwargs: object) -> object:
        file = opened(path, *args, **kwargs)
        if path.endswith("b.mkv"):
            file.seek(100)
        return file

    with monkeypatch.context() as patched:
        patched.setattr(type(memory), "open", lambda self, path, *args, **kwargs: cut(path, *args, **kwargs))
        with pytest.raises(UserError, match=r"cannot be fetched \(/bucket/raw/deep/er/b.mkv is listed with \d+ bytes and gives \d+\)"):
            bring("memory://bucket/raw", tmp_path / "mirror")
    assert not (tmp_path / "mirror" / "raw" / "deep" / "er" / "b.mkv").exists()
    files = bring("memory://bucket/raw", tmp_path / "mirror")
    assert tree_bytes(files) == tree_bytes(raw)


def test_targets_that_hold_something_else_are_refused(raw: Path, memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    memory.pipe_file("/bucket/set/mine.txt", b"precious")
    with pytest.raises(UserError, match="is not empty and is not a data set"):
        build_there(tmp_path, overwrite=True)
    memory.rm("/bucket/set", recursive=True)
    build_there(tmp_path)
    before = sent(memory)
    with pytest.raises(UserError, match="was not sent from here"):
        build_there(tmp_path, cache=tmp_path / "another")
    assert sent(memory) == before
    build_there(tmp_path, cache=tmp_path / "another", overwrite=True)
    assert json.loads(sent(memory)["dataset.json"])["counts"]["ok"] == 2


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("memory://nothing", "is empty"),
        ("nosuch://bucket/raw", "cannot be opened"),
        ("s3://bucket/raw", "install the package that it names"),
    ],
)
def test_addresses_that_do_not_answer_are_one_line(
    address: str, said: str, raw: Path, memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        build_there(tmp_path, raw=address)


def test_names_that_lead_out_are_refused(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    memory.store["/bucket/raw/../../evil.mkv"] = fsspec.implementations.memory.MemoryFile(memory, "/bucket/raw/../../evil.mkv", b"x")
    with pytest.raises(UserError, match="which no folder here can hold"):
        bring("memory://bucket/raw", tmp_path / "mirror")
    assert not (tmp_path / "evil.mkv").exists()
