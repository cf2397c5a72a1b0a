"""What the library `datasets` reads in the Parquet shards: pictures, classes, splits, rows in order."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import usdata
from tests.usdata.exporting.odd_set import CLASSES, odd_set, stored_pixels
from usdata.duplicates.fingerprints import pixel_digest
from usdata.exporting import huggingface

HUGGINGFACE_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The library, offline, with its cache in the test's own folder."""
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    library.disable_progress_bars()
    yield library
    library.enable_progress_bars()


def check(dataset: Path, loaded: Any) -> None:
    """Every row of every split against the manifest and the stored images."""
    frames = usdata.load(dataset).frames
    assert list(loaded) == [name for split, name in HUGGINGFACE_SPLITS.items() if split in set(frames.split)]
    for split, name in HUGGINGFACE_SPLITS.items():
        expected = frames[frames.split == split]
        assert list(loaded[name]["frame_id"]) == list(expected.frame_id)
        for row, found in zip(expected.itertuples(), loaded[name], strict=True):
            pixels = np.asarray(found["image"])
            assert np.array_equal(pixels, stored_pixels(dataset, str(row.path)))
            assert pixel_digest(pixels) == row.pixel_sha256 == found["pixel_sha256"]
            label = found["label"]
            assert (None if label is None else loaded[name].features["label"].int2str(label)) == (
                row.label if isinstance(row.label, str) else None
            )
            for column in ("video_id", "group_id", "patient_id", "frame_index", "time_s", "fold", "fov_x", "fov_height", "quality_mean"):
                assert found[column] == getattr(row, column), column


def test_a_folder_opens_with_pictures_classes_and_splits(odd: Path, tmp_path: Path, datasets: Any) -> None:
    exported = usdata.export(odd, to="huggingface", out=tmp_path / "shards")
    loaded = datasets.load_dataset(str(exported.out))
    check(odd, loaded)
    assert loaded["train"].features["image"] == datasets.Image()
    assert loaded["train"].features["label"] == datasets.ClassLabel(names=sorted(CLASSES))
    assert set(loaded["validation"]["label"]) == {None}
    assert set(loaded["train"]["licence"]) == {"CC BY 4.0", "cc-by-nc-sa_4.0", "of <our> own", None}


def test_its_parquet_files_alone_open_the_same_way(odd: Path, tmp_path: Path, datasets: Any) -> None:
    out = usdata.export(odd, to="huggingface", out=tmp_path / "shards").out
    files = {name: [str(path) for path in sorted((out / "data").glob(f"{name}-*"))] for name in HUGGINGFACE_SPLITS.values()}
    loaded = datasets.load_dataset("parquet", data_files=files)
    check(odd, loaded)
    assert loaded["test"].features["label"] == datasets.ClassLabel(names=sorted(CLASSES))
    assert [row["image"].size for row in datasets.load_dataset("parquet", data_files=files, streaming=True)["test"]] == [(64, 48)] * 6


def test_shards_are_bounded_numbered_and_in_order(odd: Path, tmp_path: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "SHARD_BYTES", 20_000)
    monkeypatch.setattr(huggingface, "ROW_GROUP_ROWS", 2)
    out = usdata.export(odd, to="huggingface", out=tmp_path / "shards").out
    names = sorted(path.name for path in (out / "data").iterdir())
    assert [name for name in names if name.startswith("train")] == [f"train-{number:05}-of-00003.parquet" for number in range(3)]
    assert all(path.stat().st_size < 40_000 for path in (out / "data").iterdir())
    check(odd, datasets.load_dataset(str(out)))


def test_equal_sets_give_equal_bytes_and_pictures_are_not_compressed_again(
    odd: Path, tmp_path: Path, bytes_of: Callable[[Path], dict[str, bytes]]
) -> None:
    twins = [bytes_of(usdata.export(odd, to="huggingface", out=tmp_path / name).out) for name in ("one", "two")]
    assert twins[0] == twins[1]
    shard = pq.ParquetFile(tmp_path / "one" / "data" / "train-00000-of-00001.parquet")
    columns = [shard.metadata.row_group(0).column(number) for number in range(shard.metadata.num_columns)]
    pictures = next(column for column in columns if column.path_in_schema == "image.bytes")
    assert pictures.compression == "UNCOMPRESSED"
    assert not pictures.is_stats_set
    assert all(column.compression == "ZSTD" and column.is_stats_set for column in columns if column is not pictures)


def test_a_set_without_labels_opens(tmp_path: Path, datasets: Any) -> None:
    dataset = odd_set(tmp_path / "set", labelled=False)
    loaded = datasets.load_dataset(str(usdata.export(dataset, to="huggingface", out=tmp_path / "shards").out))
    check(dataset, {name: loaded[name] for name in loaded})
    assert loaded["train"].features["label"] == datasets.Value("string")
    card = (tmp_path / "shards" / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["task_categories"] == ["image-feature-extraction"]


def test_the_card_counts_and_escapes(odd: Path, tmp_path: Path) -> None:
    card = (usdata.export(odd, to="huggingface", out=tmp_path / "shards").out / "README.md").read_text()
    _, head, page = card.split("---\n", 2)
    about = yaml.safe_load(head)
    assert (about["license"], about["license_name"], about["pretty_name"]) == ("other", "mixed", "planted")
    assert [entry["split"] for entry in about["configs"][0]["data_files"]] == ["train", "validation", "test"]
    assert "24 frames of 8 clips in 4 groups" in page
    assert "| validation | 6 | 2 | 1 |" in page
    assert "| null | unlabelled | 6 | 2 |" in page
    assert "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/) | 2 |" in page
    assert "<b>" not in page
    assert "<our>" not in page
    row = next(line for line in page.splitlines() if line.startswith("| 0 |"))
    assert row == r"| 0 | &lt;b&gt;\|bold\|&lt;/b&gt; | 12 | 4 |"
