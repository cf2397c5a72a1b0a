"""What the library `webdataset` reads in the tar shards: a sample a clip, with its frames, class and facts."""

import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import usdata
from tests.usdata.exporting.odd_set import SPLITS, odd_set, stored_pixels
from usdata.duplicates.fingerprints import pixel_digest
from usdata.exporting import webdataset
from usdata.exporting.webdataset import sample_keys

# The library leaves the shard that it has read to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore:.*unclosed file.*:pytest.PytestUnraisableExceptionWarning"
)


def samples(folder: Path, split: str) -> list[dict[str, Any]]:
    library = pytest.importorskip("webdataset")
    shards = [str(path) for path in sorted(folder.glob(f"{split}-*.tar"))]
    return list(library.WebDataset(shards, shardshuffle=False, empty_check=False).decode("l8"))


def check(dataset: Path, folder: Path) -> None:
    """Every sample against the manifest and the stored images."""
    data = usdata.load(dataset)
    videos = data.videos.set_index("video_id")
    for split in SPLITS:
        expected = data.frames[data.frames.split == split]
        found = samples(folder, split)
        assert [sample["json"]["video_id"] for sample in found] == list(dict.fromkeys(expected.video_id))
        for sample in found:
            about = sample["json"]
            rows = expected[expected.video_id == about["video_id"]]
            video = videos.loc[about["video_id"]]
            label = video.label if isinstance(video.label, str) else None
            assert (about["label"], about["group_id"], about["split"]) == (label, video.group_id, split)
            assert sample.get("cls") == (None if label is None else data.classes.index(label))
            assert [frame["frame_index"] for frame in about["frames"]] == list(rows.frame_index)
            assert [frame["time_s"] for frame in about["frames"]] == list(rows.time_s)
            assert sum(name.endswith(".png") for name in sample) == len(rows)
            for frame, path in zip(about["frames"], rows.path, strict=True):
                assert np.array_equal(sample[frame["file"]], stored_pixels(dataset, path))
                assert pixel_digest(sample[frame["file"]]) == frame["pixel_sha256"]


@pytest.mark.parametrize("labelled", [True, False])
def test_a_clip_is_a_sample(labelled: bool, tmp_path: Path) -> None:
    dataset = odd_set(tmp_path / "set", labelled=labelled)
    check(dataset, usdata.export(dataset, to="webdataset", out=tmp_path / "shards").out)


def test_shards_are_bounded_and_the_index_counts_them(odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "SHARD_BYTES", 40_000)
    out = usdata.export(odd, to="webdataset", out=tmp_path / "shards").out
    check(odd, out)
    index = json.loads((out / "index.json").read_text())
    assert index["digest"] == usdata.load(odd).digest
    assert [shard["file"] for shard in index["shards"]] == sorted(
        (path.name for path in out.glob("*.tar")), key=lambda name: (SPLITS.index(name.split("-")[0]), name)
    )
    assert sum(shard["split"] == "train" for shard in index["shards"]) == 2
    for shard in index["shards"]:
        content = (out / shard["file"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        with tarfile.open(out / shard["file"]) as tar:
            names = tar.getnames()
        assert (shard["clips"], shard["frames"]) == (sum(n.endswith(".json") for n in names), sum(n.endswith(".png") for n in names))
        assert shard["bytes"] < 60_000


def test_equal_sets_give_equal_bytes_that_name_nobody(odd: Path, tmp_path: Path, bytes_of: Callable[[Path], dict[str, bytes]]) -> None:
    twins = [bytes_of(usdata.export(odd, to="webdataset", out=tmp_path / name).out) for name in ("one", "two")]
    assert twins[0] == twins[1]
    with tarfile.open(tmp_path / "one" / "train-000000.tar") as shard:
        assert {(member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) for member in shard} == {
            (0, 0, 0, "", "", 0o644)
        }


@given(st.lists(st.text(min_size=1, max_size=150).map(lambda name: f"s/{name}"), unique=True, max_size=8))
def test_any_ids_have_keys_of_their_own_that_the_library_does_not_split(video_ids: list[str]) -> None:
    library = pytest.importorskip("webdataset.tariterators")
    keys = sample_keys(video_ids)
    assert len({key.casefold() for key in keys.values()}) == len(video_ids)
    for key in keys.values():
        assert library.base_plus_ext(f"{key}.000012.png") == (key, "000012.png")
        assert len(f"{key}.000012.png".encode()) <= 100
