"""The feed: the same batches from every tier and by any number of threads, from any position; crops inside the field of view."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.uscl.tiny_set import TINY_NETWORK, write_set
from uscl.augment import Augmentations
from uscl.config import load_config
from uscl.feed import Batch, Feed
from uscl.field_of_view import frame_boxes, video_boxes
from uscl.frames import open_store
from uscl.methods import Facts
from uscl.pairs import index_videos
from uscl.train import pretrain
from usdata import manifest
from usdata.errors import UserError
from usdata.files import sha256_file
from usdata.manifest import DataSet, open_dataset

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SETTINGS = ["batch_size=4", "image_size=16", "epochs=3", "pairs.exclude_same_group=true", "seed=11"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_set(tmp_path_factory.mktemp("feed") / "set", frames_per_video=(5, 1, 4, 2, 6, 3, 4, 3, 4))
    rows = manifest.read_table(folder, manifest.FRAMES).to_pylist()
    for row in rows:
        video = int(row["video_id"][-1])
        if video != 3:  # of this one nothing is known
            row |= {"fov_x": 4 + row["frame_index"], "fov_y": 10 - video, "fov_width": 30, "fov_height": 20}
        if video == 4 and row["frame_index"] == 2:  # of this one, in a single frame
            row |= dict.fromkeys(("fov_x", "fov_y", "fov_width", "fov_height"))
    manifest.write_table(folder, manifest.FRAMES, manifest.table_from_rows(manifest.FRAMES, rows), recipe_digest="tiny")
    manifest.write_about(folder, {"name": "tiny", "classes": ["a", "b"]})
    return folder


def feed_of(folder: Path, device: str, *overrides: str) -> Feed:
    data: DataSet = open_dataset(folder)
    config = load_config("uscl", [*SETTINGS, *overrides])
    return Feed(open_store(data, size=config.store_size), index_videos(data), config, torch.device(device))


def assert_equal(batch: Batch, other: Batch) -> None:
    for field in fields(Batch):
        one, two = getattr(batch, field.name), getattr(other, field.name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one.cpu(), two.cpu()), field.name
        elif isinstance(one, np.ndarray):
            assert np.array_equal(one, two), field.name
        elif isinstance(one, Facts):
            assert (one.views, one.tensors().keys()) == (two.views, two.tensors().keys())
            assert all(torch.equal(tensor.cpu(), two.tensors()[name].cpu()) for name, tensor in one.tensors().items())
        elif isinstance(one, Augmentations):
            assert torch.equal(one.values.cpu(), two.values.cpu())
            assert (one.any_vertical_flip, one.blur_radius) == (two.any_vertical_flip, two.blur_radius)
        else:
            assert one == two, field.name


@pytest.mark.parametrize("device", DEVICES)
def test_tiers_and_threads_change_no_batch(dataset: Path, device: str) -> None:
    expected = list(feed_of(dataset, device, "store.tier=disk", "store.lookahead=0")(0, 0))
    assert len(expected) == 6
    for tier in ("disk", "ram", "auto", *(["gpu"] if device == "cuda" else [])):
        for threads in (0, 1, 2, 5):
            feed = feed_of(dataset, device, f"store.tier={tier}", f"store.lookahead={threads}")
            made = list(feed(0, 0))
            assert len(made) == len(expected)
            for batch, other in zip(made, expected, strict=True):
                assert_equal(batch, other)
            for batch, other in zip(feed(1, 1), expected[3:], strict=True):
                assert_equal(batch, other)


def test_a_reader_that_stops_early_leaves_nothing_behind(dataset: Path) -> None:
    feed = feed_of(dataset, "cpu", "store.lookahead=2", "epochs=100")
    before = list(feed(0, 0))[:2]
    batches = iter(feed(0, 0))
    for other in before:
        assert_equal(next(batches), other)
    batches.close()  # type: ignore[attr-defined]
    assert_equal(next(iter(feed(0, 0))), before[0])


def test_an_error_in_a_thread_reaches_the_reader(dataset: Path) -> None:
    feed = feed_of(dataset, "cpu", "store.lookahead=2")
    feed.store.path.unlink()
    feed.index.frame_rows[:] = 10**6
    with pytest.raises(IndexError):
        list(feed(0, 0))


def test_threads_are_chosen_where_there_is_something_to_wait_for(dataset: Path) -> None:
    assert feed_of(dataset, "cpu", "store.tier=disk").lookahead == 1
    assert feed_of(dataset, "cpu", "store.tier=ram").lookahead == 0
    with pytest.raises(UserError, match=r"^store\.tier: is gpu"):
        feed_of(dataset, "cpu", "store.tier=gpu")


def test_a_run_ends_with_the_same_weights_from_every_tier(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [TINY_NETWORK, "batch_size=3", "image_size=16", "epochs=1", "device=cpu"]
    weights = set()
    for tier, threads in (("ram", 0), ("disk", 2)):
        out = tmp_path / tier
        pretrain(dataset, out=out, overrides=[*few, f"store.tier={tier}", f"store.lookahead={threads}"])
        weights.add(sha256_file(out / "checkpoints" / "last" / "model.safetensors"))
        assert f"MB, tier {tier} (as configured)" in capsys.readouterr().err
    assert len(weights) == 1
    with pytest.raises(UserError, match=r"^store\.tier"):
        pretrain(dataset, out=tmp_path / "gpu", overrides=[*few, "store.tier=gpu"])
    assert not (tmp_path / "gpu").exists()


def test_boxes_are_unions_over_a_videos_frames(dataset: Path) -> None:
    data = open_dataset(dataset)
    index = index_videos(data)
    boxes = video_boxes(frame_boxes(data.frames, 80), index, 80)
    for video, name in enumerate(index.video_ids):
        number = int(name[-1])
        own = data.frames[data.frames.video_id == name].dropna(subset=["fov_x"])
        # Pictures are 48 x 40; a pixel of the store is in the box where its area meets any frame's field of view.
        inside = np.zeros((80, 80), dtype=bool)
        for row in own.itertuples():
            columns = np.arange(80) * 48 / 80
            rows = np.arange(80) * 40 / 80
            across = (columns + 48 / 80 > row.fov_x + 1e-9) & (columns < row.fov_x + row.fov_width - 1e-9)
            down = (rows + 40 / 80 > row.fov_y + 1e-9) & (rows < row.fov_y + row.fov_height - 1e-9)
            inside |= down[:, None] & across[None, :]
        top, left, height, width = boxes[video]
        if number == 3:
            assert (top, left, height, width) == (0, 0, 80, 80)
            continue
        rows_in, columns_in = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        assert (top, top + height) == (rows_in[0], rows_in[-1] + 1), name
        assert (left, left + width) == (columns_in[0], columns_in[-1] + 1), name


def test_crops_of_a_run_stay_inside_the_field_of_view(dataset: Path) -> None:
    feed = feed_of(dataset, "cpu", "augment.crop_to=field_of_view", "store.size=80", "epochs=20")
    assert feed.boxes is not None
    outside = 0
    for batch in feed(0, 0):
        top, left, height, width = np.tile(feed.boxes[batch.videos], (2, 1)).T
        drawn = {name: batch.augmentations[name].numpy() for name in ("top", "left", "height", "width")}
        assert ((drawn["top"] >= top) & (drawn["top"] + drawn["height"] <= top + height)).all()
        assert ((drawn["left"] >= left) & (drawn["left"] + drawn["width"] <= left + width)).all()
    for batch in feed_of(dataset, "cpu", "store.size=80")(0, 0):
        outside += int((batch.augmentations["top"].numpy() < np.tile(feed.boxes[batch.videos][:, 0], 2)).sum())
    assert outside > 0  # without it, crops reach beyond
