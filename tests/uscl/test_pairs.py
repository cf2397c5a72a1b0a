"""Pairs and batches: rules that every draw keeps, the distributions they come from, and independence of the batch."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.uscl.tiny_set import write_set
from uscl import sections
from uscl.config import load_config
from uscl.pairs import PairDrawer, VideoIndex, batches, check_batches, index_videos
from usdata.errors import DataSetError, UserError
from usdata.manifest import open_dataset


def make_index(counts: list[int], groups: list[int] | None = None, fps: float = 10.0) -> VideoIndex:
    """Videos whose frame rows are 1000 * video + position, in a scrambled order of rows against the manifest."""
    return VideoIndex(
        video_ids=tuple(f"v{video}" for video in range(len(counts))),
        frame_rows=np.concatenate([1000 * video + np.arange(count) for video, count in enumerate(counts)]),
        starts=np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64),
        counts=np.array(counts),
        groups=np.array(groups if groups is not None else range(len(counts))),
        labels=np.full(len(counts), -1),
        times_s=np.concatenate([np.arange(count) / fps for count in counts]),
        frame_indices=np.concatenate([np.arange(count) for count in counts]),
    )


def draw(counts: list[int], epochs: int = 1, **pairs: object) -> tuple[np.ndarray, np.ndarray]:
    """Positions (epochs, videos, 3) and coefficients (epochs, videos, 2)."""
    drawer = PairDrawer(make_index(counts), sections.Pairs(**pairs))
    drawn = [drawer(0, epoch, np.arange(len(counts))) for epoch in range(epochs)]
    return np.stack([each.frame_rows % 1000 for each in drawn]), np.stack([each.coefficients for each in drawn])


def test_the_index_of_a_data_set(tmp_path: Path) -> None:
    dataset = open_dataset(
        write_set(tmp_path / "set", frames_per_video=[3, 1, 5], labels=["b", None, "a"], groups=["p1", "p0", "p1"], fps=4.0)
    )
    shuffled = dataset.frames.sample(frac=1, random_state=0).reset_index(drop=True)
    dataset.__dict__["frames"] = shuffled
    index = index_videos(dataset)
    assert index.video_ids == ("tiny/clip000", "tiny/clip001", "tiny/clip002")
    assert index.counts.tolist() == [3, 1, 5]
    assert index.labels.tolist() == [1, -1, 0]
    assert index.groups.tolist() == [1, 0, 1]
    for video in range(3):
        own = slice(index.starts[video], index.starts[video] + index.counts[video])
        rows = shuffled.iloc[index.frame_rows[own]]
        assert set(rows["video_id"]) == {index.video_ids[video]}
        assert rows["frame_index"].tolist() == list(range(index.counts[video]))
        assert index.times_s[own].tolist() == [frame / 4 for frame in range(index.counts[video])]


def test_only_the_asked_splits_are_used(tmp_path: Path) -> None:
    dataset = open_dataset(write_set(tmp_path / "set"))
    dataset.frames.loc[dataset.frames["video_id"] == "tiny/clip002", "split"] = "test"
    assert "tiny/clip002" not in index_videos(dataset).video_ids
    assert index_videos(dataset, ("test",)).video_ids == ("tiny/clip002",)
    with pytest.raises(DataSetError, match=r"no frame in split val \(but test, train\)"):
        index_videos(dataset, ("val",))


def test_three_frames_are_drawn_without_replacement_and_evenly() -> None:
    positions, coefficients = draw([4], epochs=12_000)
    found = Counter(map(tuple, positions[:, 0].tolist()))
    assert set(found) == set(permutations(range(4), 3))
    assert stats.chisquare(list(found.values())).pvalue > 1e-3
    for view in range(2):
        assert stats.kstest(coefficients[:, 0, view], stats.beta(0.5, 0.5).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(coefficients[:, 0].T)[0, 1]) < 5 / np.sqrt(12_000)


def test_one_shared_coefficient_and_another_distribution() -> None:
    _, coefficients = draw([9], epochs=3000, coefficients="shared", alpha=3, beta=5)
    assert np.array_equal(coefficients[..., 0], coefficients[..., 1])
    assert stats.kstest(coefficients[:, 0, 0], stats.beta(3, 5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("recipe", ["ppi", "meta-uscl"])
def test_of_meta_uscls_pairs_the_middle_frame_has_the_published_share(recipe: str) -> None:
    """img[0] * (1 - a) + img[1] * a with a ~ Beta(3, 5), in the published dataloader.py: img[1] is the frame between."""
    pairs = load_config(recipe).pairs
    _, outer = draw([9], epochs=3000, policy=pairs.policy, alpha=pairs.alpha, beta=pairs.beta, coefficients=pairs.coefficients)
    for view in range(2):
        assert stats.kstest(1 - outer[:, 0, view], stats.beta(3, 5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("policy", ["uscl", "ppi"])
def test_two_frames_are_used_as_they_are_and_one_twice(policy: str) -> None:
    positions, coefficients = draw([2, 1], epochs=50, policy=policy)
    assert (positions[:, 0, [0, 2]] == [0, 1]).all()
    assert (positions[:, 1] == 0).all()
    assert (coefficients == 1).all()


def test_simclr_takes_one_frame_evenly() -> None:
    positions, coefficients = draw([5], epochs=4000, policy="same-frame")
    assert (positions == positions[..., :1]).all()
    assert (coefficients == 1).all()
    assert stats.chisquare(np.bincount(positions[:, 0, 0], minlength=5)).pvalue > 1e-3


def test_temporal_pairs_keep_order_and_distance() -> None:
    for bounds, reach in (({}, 19), ({"max_distance_frames": 3}, 3), ({"max_distance_s": 0.4}, 4)):
        positions, _ = draw([20, 3], epochs=3000, policy="ppi", **bounds)
        first, anchor, third = positions[:, 0].T
        assert (first < anchor).all()
        assert (anchor < third).all()
        assert (anchor - first).max() == min(reach, 18)
        assert (third - anchor).max() == min(reach, 18)
        assert stats.chisquare(np.bincount(anchor - 1, minlength=18)).pvalue > 1e-3
        assert (positions[:, 1] == [0, 1, 2]).all()


def test_temporal_neighbours_beyond_the_distance_are_never_taken() -> None:
    positions, _ = draw([6], epochs=100, policy="ppi", max_distance_s=0.05)
    assert (positions == positions[..., :1]).all()
    assert len(np.unique(positions)) == 6


def test_seconds_need_times_and_the_error_names_a_video() -> None:
    index = make_index([4, 4])
    index.times_s[5] = np.nan
    with pytest.raises(UserError, match=r"1 of 2 videos have no frame times \(such as v1\).*max_distance_frames"):
        PairDrawer(index, sections.Pairs(policy="ppi", max_distance_s=1.0))


@pytest.mark.parametrize("policy", ["uscl", "same-frame", "ppi"])
def test_a_videos_pair_does_not_depend_on_the_batch(policy: str) -> None:
    drawer = PairDrawer(make_index([7, 1, 2, 9, 30]), sections.Pairs(policy=policy))
    whole = drawer(3, 8, np.arange(5))
    some = drawer(3, 8, np.array([4, 0]))
    assert np.array_equal(some.frame_rows, whole.frame_rows[[4, 0]])
    assert np.array_equal(some.coefficients, whole.coefficients[[4, 0]])
    assert not np.array_equal(drawer(3, 9, np.arange(5)).frame_rows, whole.frame_rows)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    batch_size=st.integers(1, 12),
    epoch=st.integers(0, 5),
    distinct=st.booleans(),
)
def test_rules_of_batches(groups: list[int], batch_size: int, epoch: int, distinct: bool) -> None:
    index = make_index([1] * len(groups), groups)
    made = batches(0, epoch, index, batch_size, distinct)
    videos = np.concatenate(made).tolist()
    assert len(videos) == len(set(videos))
    assert all(1 <= len(batch) <= batch_size for batch in made)
    assert len(made) == 1 or all(len(batch) >= 2 for batch in made)
    if distinct:
        assert all(len({groups[video] for video in batch}) == len(batch) for batch in made)
    elif batch_size >= 2:
        left_out = len(groups) - len(videos)
        assert left_out == (1 if len(groups) % batch_size == 1 and len(groups) > batch_size else 0)
    assert [batch.tolist() for batch in batches(0, epoch, index, batch_size, distinct)] == [batch.tolist() for batch in made]


def test_distinct_groups_fill_batches_where_the_groups_allow_it() -> None:
    index = make_index([1] * 64, [video // 4 for video in range(64)])
    made = batches(0, 0, index, 8, True)
    assert sum(len(batch) for batch in made) >= 63
    assert len(made) <= 10


@pytest.mark.parametrize(
    ("videos", "groups", "batch_size", "distinct", "message"),
    [
        (2, None, 1, False, "batch_size: is 1, .*no negatives"),
        (3, None, 2, False, r"batch_size: is 2, and leaves out 1 of 3 videos.*batch_size=3"),
        (9, None, 8, False, r"leaves out 1 of 9 .*batch_size=9"),
        (6, [0] * 6, 4, True, r"pairs\.distinct_groups: is true, and leaves out 6 of 6 videos.*1 groups.*distinct_groups=false"),
        (8, [0] * 6 + [1, 2], 4, True, r"pairs\.distinct_groups: is true, and leaves out"),
    ],
)
def test_settings_that_would_train_on_few_of_the_videos_are_refused(
    videos: int, groups: list[int] | None, batch_size: int, distinct: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_batches(0, make_index([1] * videos, groups), batch_size, distinct)


@pytest.mark.parametrize(
    ("videos", "groups", "distinct"), [(1, None, False), (1, None, True), (10, None, False), (11, None, False), (12, list(range(12)), True)]
)
def test_settings_that_train_on_nearly_all_videos_are_accepted(videos: int, groups: list[int] | None, distinct: bool) -> None:
    check_batches(0, make_index([1] * videos, groups), 1 if videos == 1 else 5, distinct)
    used = sum(len(batch) for batch in batches(0, 0, make_index([1] * videos, groups), 5, distinct))
    assert used >= 0.9 * videos
