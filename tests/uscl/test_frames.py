"""The FrameStore: right pixels in the right rows, equal bytes, reuse, and one clear line for every damage."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.uscl.tiny_set import write_set
from uscl.frames import open_store, resize
from usdata.errors import DataSetError, UserError
from usdata.manifest import open_dataset


def test_row_of_the_store_is_row_of_the_manifest(tmp_path: Path) -> None:
    dataset = open_dataset(write_set(tmp_path / "set"))
    store = open_store(dataset, size=32)
    assert store.pixels.shape == (24, 32, 32)
    for row, name in enumerate(dataset.frames["path"]):
        image = cv2.imread(str(dataset.folder / name), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(store.pixels[row], cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA))
    assert not store.pixels.flags.writeable


def test_equal_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    dataset = open_dataset(write_set(tmp_path / "set"))
    files = [open_store(dataset, size=24, folder=tmp_path / str(threads), threads=threads).path.read_bytes() for threads in (1, 2, 7)]
    assert files[0] == files[1] == files[2]


def test_shrinking_averages_areas_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
    means = pixels.reshape(32, 2, 32, 3).mean(axis=(1, 3))
    assert np.abs(resize(pixels, 32) - means).max() <= 0.5 + 1e-9


def test_an_axis_that_grows_beside_one_that_shrinks() -> None:
    ramp = np.repeat(np.arange(0, 160, 2, dtype=np.uint8)[:, None], 16, axis=1)
    resized = resize(ramp, 40)
    assert resized.shape == (40, 40)
    assert np.array_equal(resized, np.repeat(np.arange(1, 160, 4, dtype=np.uint8)[:, None], 40, axis=1))


def test_an_existing_store_is_used_and_a_damaged_one_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = open_dataset(write_set(tmp_path / "set"))
    first = open_store(dataset, size=16)
    made = first.path.stat().st_mtime_ns
    assert open_store(dataset, size=16).path.stat().st_mtime_ns == made

    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert open_store(dataset, size=16, verify="never").path.read_bytes() != whole
    assert open_store(dataset, size=16).path.read_bytes() == whole
    assert "was changed after it was written (frames 0 to 23) and is built anew" in capsys.readouterr().err

    first.path.write_bytes(whole[:-100])
    assert open_store(dataset, size=16).path.read_bytes() == whole

    sidecar = first.path.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "dataset_digest": "another"}))
    assert open_store(dataset, size=16).path.read_bytes() == whole
    assert json.loads(sidecar.read_text())["dataset_digest"] == dataset.digest


def test_an_edit_of_any_frame_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was touched is read whole; of one with the time and size that it was written with some blocks are, or all on request."""
    monkeypatch.setattr("uscl.frames.FRAMES_PER_BLOCK", 2)
    dataset = open_dataset(write_set(tmp_path / "set"))
    store = open_store(dataset, size=16)
    whole, times = store.path.read_bytes(), store.path.stat()
    for row in range(24):
        edited = bytearray(whole)
        edited[store.offset + row * 256 + 100] ^= 1
        store.path.write_bytes(edited)
        assert open_store(dataset, size=16).path.read_bytes() == whole, row

    def edit_in_secret(row: int) -> None:
        edited = bytearray(whole)
        edited[store.offset + row * 256] ^= 1
        described = json.loads(store.path.with_suffix(".json").read_text())["file"]["modified_ns"]
        store.path.write_bytes(edited)
        os.utime(store.path, ns=(times.st_atime_ns, described))

    unseen = 2
    edit_in_secret(unseen)
    assert open_store(dataset, size=16).path.read_bytes() != whole
    assert open_store(dataset, size=16, verify="whole").path.read_bytes() == whole
    for row in (0, 23):
        edit_in_secret(row)
        assert open_store(dataset, size=16).path.read_bytes() == whole


def test_a_copied_store_is_read_whole_once_and_then_believed(tmp_path: Path) -> None:
    dataset = open_dataset(write_set(tmp_path / "set"))
    store = open_store(dataset, size=16)
    os.utime(store.path, ns=(0, 12345))
    again = open_store(dataset, size=16)
    assert again.path.stat().st_mtime_ns == 12345
    assert json.loads(store.path.with_suffix(".json").read_text())["file"]["modified_ns"] == 12345
    assert again.sha256 == store.sha256
    by_hand = hashlib.sha256(hashlib.sha256(store.pixels.tobytes()).hexdigest().encode()).hexdigest()
    assert store.sha256 == by_hand
    assert np.array_equal(np.fromfile(store.path, dtype=np.uint8)[store.offset :], store.pixels.ravel())


def test_two_processes_build_one_store(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set")
    dataset = open_dataset(data)
    cache = data / ".cache"
    cache.mkdir()
    program = (
        f"from uscl.frames import open_store; from usdata.manifest import open_dataset\nopen_store(open_dataset({str(data)!r}), size=16)"
    )
    handle = os.open(cache, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        other = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
        assert other.stderr is not None
        assert "another process builds a frame store here" in other.stderr.readline()
        elsewhere = open_store(dataset, size=16, folder=tmp_path / "elsewhere").path
        for suffix in (".json", ".npy"):
            shutil.copy2(elsewhere.with_suffix(suffix), cache)
        made = (cache / elsewhere.name).stat().st_mtime_ns
    finally:
        os.close(handle)
    assert other.wait(60) == 0
    other.stderr.close()
    assert (cache / elsewhere.name).stat().st_mtime_ns == made


@pytest.mark.parametrize("how", ["too small", "filled while building"])
def test_a_full_disk_is_one_line_and_nothing_half_written_stays(tmp_path: Path, how: str) -> None:
    data, disk = write_set(tmp_path / "set"), tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={'200k' if how == 'too small' else '8m'} tmpfs {disk}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode != 0:
        pytest.skip("this system lets nobody mount a file system in a name space of his own")
    # The disk fills after the look at what is free: by what another program writes meanwhile.
    filled = f"frames.shutil.disk_usage = lambda path: (usage(path), subprocess.call(['sh', '-c', 'cat /dev/zero > {disk}/other']))[0]"
    program = f"""
import subprocess, sys, typer
from uscl import frames
from usdata.console import one_line_errors
from usdata.manifest import open_dataset
usage = frames.shutil.disk_usage
{filled if how != "too small" else ""}
from pathlib import Path
try:
    one_line_errors(lambda: frames.open_store(open_dataset({str(data)!r}), size=256, folder=Path({str(disk)!r})))()
except typer.Exit as left:
    sys.exit(left.exit_code)
"""
    script = f'{mount}\nset +e\n{sys.executable} -c "$PROGRAM"; code=$?; ls -A {disk}; exit $code'
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-ec", script], capture_output=True, text=True, env={**os.environ, "PROGRAM": program}, check=False
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith(("error", "Traceback"))]
    assert (done.returncode, len(errors)) == (2, 1), done.stderr
    assert str(disk / "frames-256-") in errors[0]
    assert ("MB are free on its disk" if how == "too small" else "no space is left for it") in errors[0]
    assert done.stdout.split() == ([] if how == "too small" else ["other"])


def test_a_missing_or_damaged_image_is_named_and_no_store_is_left(tmp_path: Path) -> None:
    dataset = open_dataset(write_set(tmp_path / "set"))
    image = dataset.folder / dataset.frames["path"][5]
    image.write_bytes(b"no image")
    with pytest.raises(DataSetError, match=f"{image.name}.*damaged"):
        open_store(dataset, size=16)
    image.write_bytes(b"")
    with pytest.raises(DataSetError, match=f"{image.name}.*damaged"):
        open_store(dataset, size=16)
    image.unlink()
    with pytest.raises(DataSetError, match=f"{image.name}.*cannot be read"):
        open_store(dataset, size=16)
    assert list((dataset.folder / ".cache").iterdir()) == []


def test_a_manifest_that_leaves_the_set_is_refused(tmp_path: Path) -> None:
    dataset = open_dataset(write_set(tmp_path / "set"))
    dataset.frames.loc[3, "path"] = "../outside.png"
    with pytest.raises(DataSetError, match="outside the set"):
        open_store(dataset, size=16)


def test_a_set_that_cannot_be_written_uses_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(write_set(tmp_path / "set"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # A file in the folder's place stops even root, whom permissions do not.
    (dataset.folder / ".cache").write_text("")
    assert open_store(dataset, size=16).path.parent == tmp_path / "cache" / "uscl"
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    with pytest.raises(UserError, match=r"store\.folder"):
        open_store(dataset, size=17)


@pytest.mark.parametrize("size", [0, 7, 4096])
def test_a_size_out_of_range(tmp_path: Path, size: int) -> None:
    with pytest.raises(UserError, match="allowed are 8 to 2048"):
        open_store(open_dataset(write_set(tmp_path / "set", frames_per_video=[1])), size=size)
