"""USCL's presets step by step: what a batch of each becomes is written out here frame by frame, and compared with what the trainer does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.uscl.test_methods import by_hand
from tests.uscl.tiny_set import write_set
from uscl.augment import PARAMETERS, Augmentations, augment
from uscl.config import load_config
from uscl.feed import Batch, Feed
from uscl.frames import open_store
from uscl.methods import make_method
from uscl.pairs import index_videos
from uscl.views import batch_views
from usdata.manifest import open_dataset

SETTINGS = ["image_size=32", "batch_size=5", "augment.path=plain", "seed=4"]


def batch_of(recipe: str, folder: Path) -> tuple[Batch, Feed]:
    dataset = open_dataset(write_set(folder, frames_per_video=(6, 5, 3, 2, 1), labels=("a", "b", None)))
    feed = Feed(open_store(dataset, size=32), index_videos(dataset), load_config(recipe, SETTINGS), torch.device("cpu"))
    return next(iter(feed(0, 0))), feed


def augmented(frame: np.ndarray | torch.Tensor, batch: Batch, sample: int) -> np.ndarray:
    """One picture of gray levels 0 to 1, changed and normalised by the parameters of one sample."""
    picture = torch.as_tensor(frame, dtype=torch.float32)[None]
    values = batch.augmentations.values[:, sample : sample + 1]
    assert len(values) == len(PARAMETERS)
    return augment(picture, Augmentations(values, batch.augmentations.any_vertical_flip, 0), 32)[0, 0].numpy()


def expected_views(recipe: str, batch: Batch) -> list[tuple[np.ndarray, np.ndarray]]:
    videos = len(batch.videos)
    views = []
    for video in range(videos):
        x1, x2, x3 = (batch.frames[video, place].numpy() / 255 for place in range(3))
        share_a, share_b = (float(share) for share in batch.coefficients[video])
        if recipe == "uscl-published":
            # Each frame is augmented and normalised by itself, and one lambda mixes both views with the same augmented anchor.
            assert share_a == share_b
            f1, f2, f3 = (augmented(frame, batch, place * videos + video) for place, frame in enumerate((x1, x2, x3)))
            views.append((share_a * f1 + (1 - share_a) * f2, share_a * f3 + (1 - share_a) * f2))
        else:
            # Frames are mixed, each view by its own coefficient, and the two mixed pictures are augmented.
            mixed_a, mixed_b = share_a * x1 + (1 - share_a) * x2, share_b * x3 + (1 - share_b) * x2
            views.append((augmented(mixed_a, batch, video), augmented(mixed_b, batch, videos + video)))
    return views


@pytest.mark.parametrize(("recipe", "samples_a_video"), [("uscl", 2), ("ppi", 2), ("uscl-published", 3)])
def test_views_are_mixed_and_augmented_in_the_presets_order(recipe: str, samples_a_video: int, tmp_path: Path) -> None:
    batch, feed = batch_of(recipe, tmp_path / "set")
    assert batch.augmentations.values.shape[1] == samples_a_video * len(batch.videos)
    mixed = feed.index.counts[batch.videos] >= 3
    shares = batch.coefficients.numpy()
    assert (shares[~mixed] == 1).all()
    assert (shares[mixed, 0] == shares[mixed, 1]).all() == (recipe == "uscl-published")
    view_a, view_b = batch_views(batch, feed.config)
    for video, (expected_a, expected_b) in enumerate(expected_views(recipe, batch)):
        np.testing.assert_allclose(view_a[video, 0].numpy(), expected_a, atol=2e-6)
        np.testing.assert_allclose(view_b[video, 0].numpy(), expected_b, atol=2e-6)
    if recipe == "uscl-published":
        # One lambda for both: what differs between the views is lambda times what differs between the outer frames.
        for video in np.flatnonzero(mixed):
            frames = [augmented(batch.frames[video, place] / 255, batch, place * len(batch.videos) + video) for place in (0, 2)]
            difference = (view_a[video, 0] - view_b[video, 0]).numpy()
            np.testing.assert_allclose(difference, shares[video, 0] * (frames[0] - frames[1]), atol=4e-6)


@pytest.mark.parametrize(("recipe", "read"), [("uscl", 512), ("uscl-published", 256)])
def test_the_classifier_reads_what_the_preset_says_and_weighs_a_fifth(recipe: str, read: int, tmp_path: Path) -> None:
    batch, feed = batch_of(recipe, tmp_path / "set")
    method, backbone = make_method(feed.config, 2)
    method.double().eval()
    assert method.classifier is not None
    assert method.classifier.in_features == read
    views = tuple(view.double() for view in batch_views(batch, feed.config))
    features = backbone(torch.cat(views))
    z = method.projector(features)
    o = method.classifier(features if read == 512 else z)
    labels = batch.facts.labels.tolist()
    assert sorted(set(labels)) == [-1, 0, 1]
    assert method(views, batch.facts)["loss"].item() == pytest.approx(by_hand(z, o, labels, 0.5, 0.2).item(), abs=1e-8)


def test_frames_of_the_ppi_preset_are_in_temporal_order(tmp_path: Path) -> None:
    batch, feed = batch_of("ppi", tmp_path / "set")
    drawn = feed.drawer(4, 0, batch.videos)
    place = {row: position for position, row in enumerate(feed.index.frame_rows.tolist())}
    for video, rows in zip(batch.videos, drawn.frame_rows, strict=True):
        x1, anchor, x3 = (place[int(row)] for row in rows)
        assert x1 < anchor < x3 or feed.index.counts[video] < 3
