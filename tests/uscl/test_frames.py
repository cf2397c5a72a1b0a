"""The FrameStore: right pixels in the right rows, equal bytes, reuse, and one clear line for every damage."""

from __future__ import annotations

import json
import os
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


def test_an_existing_store_is_used_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    dataset = open_dataset(write_set(tmp_path / "set"))
    first = open_store(dataset, size=16)
    made = first.path.stat().st_mtime_ns
    assert open_store(dataset, size=16).path.stat().st_mtime_ns == made

    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert open_store(dataset, size=16).path.read_bytes() != whole
    assert open_store(dataset, size=16, verify=True).path.read_bytes() == whole

    first.path.write_bytes(whole[:-100])
    assert open_store(dataset, size=16).path.read_bytes() == whole

    sidecar = first.path.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "dataset_digest": "another"}))
    assert open_store(dataset, size=16).path.read_bytes() == whole
    assert json.loads(sidecar.read_text())["dataset_digest"] == dataset.digest


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
