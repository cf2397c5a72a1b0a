"""Which labels are used: counted by brute force, whole groups, every label, nested shares; and what a run says and records of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from tests.uscl.tiny_set import TINY_NETWORK, write_set
from uscl import train as training
from uscl.config import load_config
from uscl.labels import balanced_weights, choose_share, used_labels, with_labels
from uscl.methods import make_method
from uscl.pairs import index_videos
from uscl.train import pretrain
from usdata.duplicates.record import open_record
from usdata.errors import RecipeError
from usdata.manifest import open_dataset

Videos = tuple[NDArray[np.int64], NDArray[np.int64]]
VIDEOS = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 9)), min_size=1, max_size=50).map(
    lambda rows: tuple(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
)
SHARES = st.floats(0, 1)


@settings(max_examples=100, deadline=None)
@given(videos=VIDEOS, share=SHARES, larger=SHARES, seed=st.integers(0, 2**64 - 1))
def test_groups_are_whole_labels_are_there_and_shares_are_nested(videos: Videos, share: float, larger: float, seed: int) -> None:
    labels, groups = videos
    share, larger = sorted((share, larger))
    chosen = choose_share(labels, groups, share, seed)
    assert not chosen[labels < 0].any()
    for group in np.unique(groups):
        assert len(set(chosen[(groups == group) & (labels >= 0)].tolist())) <= 1
    assert set(labels[chosen]) == (set(labels[labels >= 0]) if share else set())
    assert not (chosen & ~choose_share(labels, groups, larger, seed)).any()
    np.testing.assert_array_equal(choose_share(labels, groups, 1.0, seed), labels >= 0)
    order = np.random.default_rng(len(labels)).permutation(len(labels))
    np.testing.assert_array_equal(choose_share(labels[order], groups[order], share, seed), chosen[order])


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=25), share=st.floats(0.01, 1))
def test_where_groups_have_one_label_each_keeps_its_share_to_half_a_group(sizes: list[tuple[int, int]], share: float) -> None:
    labels = np.array([label for label, size in sizes for _ in range(size)])
    groups = np.array([group for group, (_, size) in enumerate(sizes) for _ in range(size)])
    chosen = choose_share(labels, groups, share, 5)
    for label in np.unique(labels):
        of_label = [size for each, size in sizes if each == label]
        used = int(chosen[labels == label].sum())
        only_the_first = len(np.unique(groups[chosen & (labels == label)])) == 1
        assert abs(used - share * sum(of_label)) <= max(of_label) / 2 + 1e-9 or only_the_first


def test_groups_of_many_labels_keep_about_the_share() -> None:
    """As in a set of 71 patients with about nine videos of four labels each."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(71), 9)
    labels = np.concatenate([generator.choice(4, 9, p=generator.dirichlet([0.6, 0.3, 0.2, 0.8])) for _ in range(71)])
    for share in (0.1, 0.3, 0.6):
        chosen = choose_share(labels, groups, share, 0)
        assert chosen.mean() == pytest.approx(share, abs=0.04)
        for label in range(4):
            assert abs(chosen[labels == label].sum() - share * (labels == label).sum()) <= 2 * 9
    assert (choose_share(labels, groups, 0.3, 0) != choose_share(labels, groups, 0.3, 1)).any()


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.array([0, 0, 0, 1, 3, 3, -1, -1])
    weights = balanced_weights(labels, 5)
    known = labels[labels >= 0]
    np.testing.assert_allclose(weights[[0, 1, 3]], compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=known))
    assert weights[known].mean() == pytest.approx(1)
    assert weights[[2, 4]].tolist() == [1, 1]


def test_what_a_run_is_told_of_its_labels(tmp_path: Path) -> None:
    groups = ["p0", "p0", "p1", "p1", "p2", "p3"]
    index = index_videos(open_dataset(write_set(tmp_path / "set", labels=("a", "a", None, "a", "b", "b"), groups=groups)))

    def told(*overrides: str) -> str:
        return used_labels(load_config("uscl", overrides), index, 2).sentence

    assert told() == "labels of 5 of 5 labelled videos (4 of 4 groups) used, 2 classes"
    assert told("labels.class_weights=balanced").endswith("2 classes weighing 0.83 to 1.2")
    assert told("labels.weight=0") == "labels not used"
    assert told("labels.share=0") == "labels not used (labels.share is 0)"
    assert told("labels.share=0.01") in [f"labels of {videos} of 5 labelled videos (2 of 4 groups) used, 2 classes" for videos in (2, 3)]
    few = used_labels(load_config("uscl", ["labels.share=0.5", "seed=3"]), index, 2).labels
    kept = used_labels(load_config("uscl", ["labels.share=0.5", "seed=4", "labels.seed=3"]), index, 2).labels
    np.testing.assert_array_equal(few, kept)
    # As positives labels are used without a classifier.
    as_positives = used_labels(load_config("uscl", ["labels.weight=0", "pairs.column=label", "labels.share=0.01"]), index, 2)
    assert ((as_positives.labels >= 0).sum() < 5, as_positives.classes) == (True, 0)
    for override in ("labels.share=0.5", "labels.class_weights=balanced"):
        with pytest.raises(RecipeError, match=r"labels\.\w+: is .*labels are not used"):
            told("labels.weight=0", override)


def test_a_run_trains_on_the_share_and_records_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(training, "make_method", lambda *arguments: made.append(make_method(*arguments)) or made[-1])
    data = write_set(tmp_path / "set", frames_per_video=(2,) * 8, labels=("a", "a", "a", "b"))
    few = [TINY_NETWORK, "image_size=16", "epochs=1", "batch_size=8", "device=cpu", "checkpoint.log_every_steps=1"]
    few += ["labels.share=0.5", "labels.class_weights=balanced"]
    pretrain(data, out=tmp_path / "run", overrides=few)
    index = index_videos(open_dataset(data))
    used = choose_share(index.labels, index.groups, 0.5, 0)
    assert used.sum() == 4
    rows = open_record(tmp_path / "run" / "trained_on.parquet").rows
    assert [row["labels_used"] for row in rows] == used.tolist()
    assert "labels of 4 of 8 labelled videos (4 of 8 groups) used" in (tmp_path / "run" / "log.txt").read_text()
    torch.testing.assert_close(made[0][0].class_weights, torch.tensor([4 / (2 * 3), 4 / 2]))
    # The probe asks neighbours among all labelled videos, so that shares can be compared.
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text())["knn_videos"] == 8


def test_a_label_that_is_not_used_is_no_key_either(tmp_path: Path) -> None:
    data = open_dataset(write_set(tmp_path / "set", frames_per_video=(2,) * 8, labels=("a", "a", "a", "b")))
    index = index_videos(data, column="label")
    used = used_labels(load_config("awcl", ["labels.share=0.5"]), index, 2)
    assert 0 < (used.labels >= 0).sum() < 8
    np.testing.assert_array_equal(with_labels(index, used, "label").keys >= 0, used.labels >= 0)
    np.testing.assert_array_equal(with_labels(index, used, "label_index").keys >= 0, used.labels >= 0)
    np.testing.assert_array_equal(with_labels(index, used, "organ").keys, index.keys)
    by_number = used_labels(load_config("awcl", ["labels.share=0.5", "pairs.column=label_index"]), index, 2)
    np.testing.assert_array_equal(by_number.labels, used.labels)
