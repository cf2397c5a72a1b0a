"""The policies: every pair that is allowed, each as often as is said, and none else; the edges; what the feed makes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.uscl.test_pairs import make_index
from tests.uscl.tiny_set import TINY_NETWORK, write_set
from uscl import feed as feed_module
from uscl import policies, sections
from uscl.config import load_config
from uscl.distributed import own_part
from uscl.feed import Batch, Feed
from uscl.frames import open_store
from uscl.losses import masked_cross_entropy
from uscl.methods import Facts, Method, make_method
from uscl.pairs import FramePairs, PairDrawer, VideoIndex, index_videos
from uscl.train import pretrain
from uscl.views import batch_views
from usdata import manifest
from usdata.errors import RecipeError, UserError
from usdata.manifest import DataSet, open_dataset

DRAWS = 20_000


def many(index: VideoIndex, video: int, epoch: int = 0, **pairs: object) -> FramePairs:
    """What a video gives for `DRAWS` rows of draws, which it would otherwise see one an epoch."""
    drawer, draws = PairDrawer(index, sections.Pairs(**pairs)), np.random.default_rng(video).random((DRAWS, 4))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("uscl.pairs.uniform", lambda *_, **named: draws[:, : named["draws"]])
        return drawer(0, epoch, np.full(DRAWS, video))


def assert_drawn_as(found: list[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> None:
    """Nothing but what is expected, and that as often as expected."""
    counts = Counter(found)
    assert set(counts) == {key for key, share in expected.items() if share > 0}
    observed = [counts[key] for key in expected]
    assert stats.chisquare(observed, [share * len(found) for share in expected.values()]).pvalue > 1e-4


# -- within-seconds


def test_two_frames_within_seconds_come_as_the_rule_says() -> None:
    index = make_index([3, 7], fps=10.0)
    index.times_s[3:] = [0, 0.1, 0.25, 0.3, 0.9, 1.0, 2.0]
    drawn = many(index, 1, policy="within-seconds", max_distance_s=0.2)
    times = index.times_s[3:]
    expected = {}
    for first in range(7):
        window = [second for second in range(7) if abs(times[second] - times[first]) <= 0.2 + 1e-9]
        expected |= {(first, second): 1 / 7 / len(window) for second in window}
    rows = drawn.frame_rows % 1000
    assert (rows[:, 0] == rows[:, 1]).all()
    assert (drawn.coefficients == 1).all()
    assert drawn.weights is None
    assert_drawn_as([(int(a), int(b)) for a, _, b in rows], expected)
    assert (6, 6) in expected  # a frame alone in its window is both views


def test_weights_are_the_papers_in_seconds() -> None:
    index = make_index([1, 30], fps=10.0)
    drawn = many(index, 1, policy="within-seconds", max_distance_s=1.5, weights=True)
    assert drawn.weights is not None
    assert drawn.weights.dtype == np.float32
    for (first, _, second), weight in zip((drawn.frame_rows % 1000).tolist()[:500], drawn.weights.tolist(), strict=False):
        assert weight == pytest.approx((1.5 - abs(first - second) / 10 + 1) / 2.5, abs=1e-6)
    assert drawn.weights.min() == pytest.approx(1 / 2.5)
    assert drawn.weights.max() == 1.0
    alone = PairDrawer(index, sections.Pairs(policy="within-seconds", max_distance_s=1.5, weights=True))(0, 0, np.array([0]))
    assert alone.frame_rows.tolist() == [[0, 0, 0]]
    assert alone.weights is not None
    assert alone.weights.tolist() == [1.0]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"policy": "within-seconds", "max_distance_s": 1.0}, r"pairs\.max_distance_s: is in seconds.*such as v1.*policy=ppi"),
        ({"policy": "hard-negatives", "max_distance_s": 1.0}, r"pairs\.max_distance_s: is in seconds.*max_distance_frames=N"),
        ({"policy": "hard-negatives", "min_distance_s": 1.0}, r"pairs\.min_distance_s: is in seconds.*min_distance_frames=N"),
    ],
)
def test_seconds_need_times(pairs: dict[str, object], message: str) -> None:
    index = make_index([4, 4])
    index.times_s[5] = np.nan
    with pytest.raises(UserError, match=message):
        PairDrawer(index, sections.Pairs(**pairs))


# -- hard-negatives


def far_by_hand(
    index: VideoIndex, video: int, least: float | None = None, share: float | None = None, near: int = 3
) -> dict[int, list[int]]:
    """For each position in a video the far ones, from the definition."""
    own = slice(index.starts[video], index.starts[video] + index.counts[video])
    place = index.frame_indices[own]
    if share is not None:
        least = share * (place[-1] - place[0])
    assert least is not None
    return {
        here: [there for there in range(len(place)) if abs(place[there] - place[here]) >= max(least - 1e-9, near + 1)]
        for here in range(len(place))
    }


def test_hard_negatives_come_as_the_rule_says() -> None:
    index = make_index([5, 9])
    index.frame_indices[5:] = [0, 1, 2, 4, 7, 9, 10, 20, 30]
    drawn = many(index, 1, policy="hard-negatives")
    assert drawn.hard is not None
    assert drawn.hard.all()
    assert drawn.coefficients.shape == (DRAWS, 4)
    assert (drawn.coefficients == 1).all()
    place = index.frame_indices[5:]
    far = far_by_hand(index, 1, share=0.2)
    near = {here: [there for there in range(9) if there != here and abs(place[there] - place[here]) <= 3] for here in range(9)}
    anchors = [here for here in range(9) if near[here] and far[here]]
    assert 0 < len(anchors) < 9  # 20 and 30 have no near frame
    pairs = {(here, there): 1 / len(anchors) / len(near[here]) for here in anchors for there in near[here]}
    rows = drawn.frame_rows % 1000
    assert (rows[:, [0, 3]] == rows[:, [1, 4]]).all()
    assert_drawn_as([(int(row[0]), int(row[2])) for row in rows], pairs)
    negatives = {
        (here, one, two): 1 / len(anchors) / len(far[here]) / (len(far[here]) - 1)
        for here in anchors
        for one in far[here]
        for two in far[here]
        if one != two
    }
    assert_drawn_as([(int(row[0]), int(row[3]), int(row[5])) for row in rows], negatives)


@pytest.mark.parametrize(
    ("count", "indices", "hard", "rows"),
    [
        (1, [4], [False, False], [0, 0, 0, 0, 0, 0]),
        (2, [0, 1], [False, False], None),
        (2, [0, 9], [True, False], None),  # nobody is near: the anchor is its own positive, the other frame its one negative
        (5, [0, 1, 2, 3, 3 + 1], [True, False], None),  # only the ends are far from each other
    ],
)
def test_videos_with_too_few_far_frames_say_so(count: int, indices: list[int], hard: list[bool], rows: list[int] | None) -> None:
    index = make_index([count])
    index.frame_indices[:] = indices
    for epoch in range(40):
        drawn = PairDrawer(index, sections.Pairs(policy="hard-negatives"))(0, epoch, np.array([0]))
        assert drawn.hard is not None
        assert drawn.hard[0].tolist() == hard
        found = drawn.frame_rows[0].tolist()
        assert rows is None or found == rows
        anchor, positive, one, two = found[0], found[2], found[3], found[5]
        assert abs(indices[positive] - indices[anchor]) <= 3
        assert two == anchor  # what there is not, the anchor stands in for
        assert (one == anchor) is not hard[0]
        assert not hard[0] or abs(indices[one] - indices[anchor]) > 3


def test_a_positive_counts_for_more_than_negatives() -> None:
    index = make_index([4])
    index.frame_indices[:] = [0, 50, 52, 100]
    drawn = many(index, 0, policy="hard-negatives", min_distance_frames=90)
    assert set(map(tuple, drawn.frame_rows[:, [0, 2]].tolist())) == {(1, 2), (2, 1)}
    assert drawn.hard is not None
    assert not drawn.hard.any()


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=14), min_size=1, max_size=5),
    epoch=st.integers(0, 12),
    bounds=st.sampled_from(
        [
            {},
            {"harder_over_epochs": 6},
            {"min_distance_frames": 9},
            {"max_distance_frames": 5, "min_distance_s": 1.0},
            {"max_distance_s": 0.35, "min_distance_frames": 4, "min_distance_s": 0.5},
        ]
    ),
)
def test_rules_of_hard_negatives(gaps: list[list[int]], epoch: int, bounds: dict[str, float]) -> None:
    index = make_index([len(each) for each in gaps])
    index.frame_indices[:] = np.concatenate([np.cumsum(each) for each in gaps])
    index.times_s[:] = index.frame_indices / 10
    drawer = PairDrawer(index, sections.Pairs(policy="hard-negatives", **bounds))
    drawn = drawer(1, epoch, np.arange(len(gaps)))
    assert drawn.hard is not None
    for video, (row, hard) in enumerate(zip((drawn.frame_rows % 1000).tolist(), drawn.hard.tolist(), strict=True)):
        assert (drawn.frame_rows[video] // 1000 == video).all()
        indices = np.cumsum(gaps[video])
        apart = np.abs(indices - indices[row[0]])
        nearest_allowed = bounds.get("max_distance_s", 1e9) * 10 + 1e-6
        frames = bounds.get("max_distance_frames", 3 if "max_distance_s" not in bounds else 1e9)
        is_near = (apart <= frames) & (apart <= nearest_allowed)
        assert is_near[row[2]]
        least = 1.0
        if "min_distance_frames" not in bounds and "min_distance_s" not in bounds:
            least = policies.far_share(epoch, bounds.get("harder_over_epochs")) * (indices[-1] - indices[0])
        least = max(least, bounds.get("min_distance_frames", 0), 10 * bounds.get("min_distance_s", 0))
        far = np.flatnonzero(~is_near & (apart >= least - 1e-6)).tolist()
        assert hard == [len(far) >= 1, len(far) >= 2]
        assert all(row[column] in far for column, real in ((3, hard[0]), (5, hard[1])) if real)
        assert not hard[1] or row[3] != row[5]


def test_negatives_become_harder() -> None:
    index = make_index([101])
    assert [round(policies.far_share(epoch, 10), 3) for epoch in (0, 5, 10, 99)] == [0.2, 0.115, 0.03, 0.03]
    assert policies.far_share(99, None) == 0.2
    least = []
    for epoch in (0, 5, 10, 50):
        rows = many(index, 0, epoch, policy="hard-negatives", harder_over_epochs=10).frame_rows
        least.append(int(np.abs(rows[:, [3, 5]] - rows[:, :1]).min()))
    assert least == [20, 12, 4, 4]  # never within the positive's three frames


# -- same-column


def keyed(counts: list[int], keys: list[int], groups: list[int] | None = None) -> VideoIndex:
    plain = make_index(counts, groups)
    return VideoIndex(**{**vars(plain), "keys": np.array(keys)})


def test_partners_come_as_the_rule_says() -> None:
    index = keyed([3, 2, 4, 2, 5], [1, 0, 1, -1, 1])
    drawn = many(index, 2, policy="same-column", column="organ")
    assert drawn.partners is not None
    members = {0: 3, 2: 4, 4: 5}
    expected = {(own, video, frame): 1 / 4 / 3 / count for own in range(4) for video, count in members.items() for frame in range(count)}
    assert (drawn.frame_rows[:, 0] == drawn.frame_rows[:, 1]).all()
    assert (drawn.frame_rows[:, 0] // 1000 == 2).all()
    assert (drawn.frame_rows[:, 2] // 1000 == drawn.partners).all()
    assert (drawn.coefficients == 1).all()
    assert_drawn_as([(int(a % 1000), int(b // 1000), int(b % 1000)) for a, _, b in drawn.frame_rows], expected)
    for alone, count in ((1, 2), (3, 2)):  # the only one of its key, and one without
        drawn = many(index, alone, policy="same-column", column="organ")
        assert drawn.partners is not None
        assert (drawn.partners == alone).all()
        expected = {(one, two): 1 / count**2 for one in range(count) for two in range(count)}
        assert_drawn_as([(int(a % 1000), int(b % 1000)) for a, _, b in drawn.frame_rows], expected)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([-1, -1, -1], "has no value in any of 3 videos"),
        ([0, 0, 0], "has one and the same value in all of 3 videos, so that none is a neg"),
    ],
)
def test_a_column_that_tells_no_video_apart_is_refused(keys: list[int], message: str) -> None:
    with pytest.raises(UserError, match=r"pairs\.column: is 'organ', which " + message):
        PairDrawer(keyed([3, 2, 4], keys), sections.Pairs(policy="same-column", column="organ"))


@pytest.mark.parametrize("groups", [True, False])
def test_whoever_shares_something_is_no_negative(groups: bool) -> None:
    generator = np.random.default_rng(3)
    own, partners, keys = generator.integers(0, 9, 24), generator.integers(0, 9, 24), generator.integers(-1, 8, 24)
    found = policies.share_something(own if groups else None, partners, keys)
    for i in range(24):
        for j in range(24):
            shares = bool({own[i], partners[i]} & {own[j], partners[j]})
            assert found[i, j] == ((keys[i] == keys[j] >= 0) or (groups and shares))


# -- all of them

EVERY = [
    {"policy": "within-seconds", "max_distance_s": 0.3, "weights": True},
    {"policy": "hard-negatives", "harder_over_epochs": 3},
    {"policy": "same-column", "column": "organ"},
]


@pytest.mark.parametrize("pairs", EVERY, ids=lambda pairs: pairs["policy"])
def test_a_videos_pair_does_not_depend_on_the_batch(pairs: dict[str, object]) -> None:
    drawer = PairDrawer(keyed([7, 1, 2, 9, 30], [0, 1, 0, -1, 0]), sections.Pairs(**pairs))
    whole = drawer(3, 8, np.arange(5))
    some = drawer(3, 8, np.array([4, 0, 3]))
    for name, value in vars(whole).items():
        assert (value is None) == (getattr(some, name) is None)
        assert value is None or np.array_equal(getattr(some, name), value[[4, 0, 3]])
        assert value is None or np.array_equal(getattr(whole.of(slice(1, 3)), name), value[1:3])
    assert not np.array_equal(drawer(3, 9, np.arange(5)).frame_rows, whole.frame_rows)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Nine clips with an organ of videos.parquet's own ("device") and a field of view that says which clip a crop is of."""
    folder = write_set(
        tmp_path_factory.mktemp("policies") / "set", frames_per_video=(12, 2, 14, 1, 10, 20, 3, 11, 13), labels=("a", "b", None)
    )
    videos = manifest.read_table(folder, manifest.VIDEOS).to_pylist()
    for number, row in enumerate(videos):
        row |= {"device": (None, "one", "two")[number % 3], "depth_mm": 40.0 + number % 2}
    manifest.write_table(folder, manifest.VIDEOS, manifest.table_from_rows(manifest.VIDEOS, videos), recipe_digest="tiny")
    frames = manifest.read_table(folder, manifest.FRAMES).to_pylist()
    for row in frames:
        number = int(row["video_id"][-1])
        row |= {"fov_x": 2 * number, "fov_y": number, "fov_width": 12, "fov_height": 10}
    manifest.write_table(folder, manifest.FRAMES, manifest.table_from_rows(manifest.FRAMES, frames), recipe_digest="tiny")
    manifest.write_about(folder, {"name": "tiny", "classes": ["a", "b"]})
    return open_dataset(folder)


def test_keys_come_from_either_table(dataset: DataSet) -> None:
    index = index_videos(dataset, column="device")
    assert index.keys is not None
    assert index.keys.tolist() == [-1, 0, 1] * 3
    assert index_videos(dataset).keys is None
    by_label = index_videos(dataset, column="label").keys
    assert by_label is not None
    assert by_label.tolist() == [0, 1, -1] * 3
    by_depth = index_videos(dataset, column="depth_mm").keys
    assert by_depth is not None
    assert by_depth.tolist() == [number % 2 for number in range(9)]
    assert index_videos(dataset, column="view").keys is not None  # all null


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("organn", r"pairs\.column: is 'organn', which neither frames\.parquet nor videos\.parquet has; did you mean 'organ'"),
        ("frame_index", r"is 'frame_index', which is not one value a video: tiny/clip000 has 12; name a column such as label"),
        ("notes", r"is 'notes', which holds lists"),
    ],
)
def test_columns_that_cannot_be_keys(dataset: DataSet, column: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        index_videos(dataset, column=column)


def feed_of(dataset: DataSet, pairs: dict[str, object], *overrides: str) -> Feed:
    given = [f"pairs.{key}={value}" for key, value in pairs.items()]
    config = load_config("uscl", ["batch_size=4", "image_size=16", "epochs=2", "seed=5", *given, *overrides])
    index = index_videos(dataset, config.pairs.splits, config.pairs.column)
    return Feed(open_store(dataset, size=config.store_size), index, config, torch.device("cpu"))


@pytest.mark.parametrize("order", ["mix-then-augment", "augment-then-mix"])
@pytest.mark.parametrize("pairs", [*EVERY[:2], {"policy": "same-column", "column": "device"}], ids=lambda pairs: pairs["policy"])
def test_the_parts_of_two_processes_are_the_batch(
    dataset: DataSet, pairs: dict[str, object], order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = feed_of(dataset, pairs, f"pairs.order={order}", "augment.crop_to=field_of_view", "store.size=80", "augment.path=plain")
    whole = list(feed(1, 0))
    views = 4 if pairs["policy"] == "hard-negatives" else 2
    parts: list[list[Batch]] = []
    for rank in range(2):
        monkeypatch.setattr(feed_module, "own_part", lambda videos, rank=rank: own_part(videos, of=(rank, 2)))
        parts.append(list(feed(1, 0)))
    for batch, one, two in zip(whole, *parts, strict=True):
        assert batch.facts.views == views
        assert len(batch_views(batch, feed.config)) == views
        assert torch.equal(torch.cat([one.frames, two.frames]), batch.frames)
        assert torch.equal(torch.cat([one.coefficients, two.coefficients]), batch.coefficients)
        made = zip(batch_views(batch, feed.config), batch_views(one, feed.config), batch_views(two, feed.config), strict=True)
        for all_of_it, first, second in made:
            torch.testing.assert_close(torch.cat([first, second]), all_of_it, atol=1e-5, rtol=0)
        for other in (one, two):
            assert other.facts.tensors().keys() == batch.facts.tensors().keys()
            assert all(torch.equal(value, batch.facts.tensors()[name]) for name, value in other.facts.tensors().items())


def test_what_the_feed_says_of_partners(dataset: DataSet) -> None:
    feed = feed_of(dataset, {"policy": "same-column", "column": "device"}, "augment.crop_to=field_of_view", "store.size=80")
    assert feed.boxes is not None
    crossed = 0
    for batch in feed(0, 0):
        drawn = feed.drawer(5, batch.epoch, batch.videos)
        facts, partners = batch.facts, drawn.partners
        assert partners is not None
        assert facts.keys is not None
        assert facts.partner_labels is not None
        assert facts.same_group is not None
        crossed += int((partners != batch.videos).sum())
        assert facts.keys.tolist() == [int(video) % 3 - 1 for video in batch.videos]
        assert facts.partner_labels.tolist() == feed.index.labels[partners].tolist()
        for i, one in enumerate(batch.videos):
            for j, two in enumerate(batch.videos):
                videos = {int(one), int(partners[i])} & {int(two), int(partners[j])}  # each clip is a group of its own
                assert facts.same_group[i, j].item() == (bool(videos) or one % 3 == two % 3 != 0)
        # Crops of view b stay inside the field of view of the clip that it is of.
        top, left = (batch.augmentations[name].numpy() for name in ("top", "left"))
        boxes = np.concatenate([feed.boxes[batch.videos], feed.boxes[partners]])
        assert ((top >= boxes[:, 0]) & (left >= boxes[:, 1])).all()
        assert ((top < boxes[:, 0] + boxes[:, 2]) & (left < boxes[:, 1] + boxes[:, 3])).all()
    assert crossed > 3


def test_what_the_feed_says_of_weights_and_hard_negatives(dataset: DataSet) -> None:
    weighted = list(feed_of(dataset, EVERY[0])(0, 0))
    assert all(batch.facts.pair_weights is not None and batch.facts.pair_weights.dtype == torch.float32 for batch in weighted)
    hard = list(feed_of(dataset, EVERY[1])(0, 0))
    few = {1, 3, 6}  # two, one and three frames: nothing is far
    for batch in hard:
        assert batch.facts.hard is not None
        assert batch.frames.shape[1] == 6
        assert batch.facts.hard.all(dim=1).tolist() == [int(video) not in few for video in batch.videos]


def test_view_b_of_another_video_has_its_own_label() -> None:
    config = load_config("uscl", ["image_size=32", "labels.weight=1"])
    torch.manual_seed(0)
    method, backbone = make_method(config, 2)
    method.eval()
    views = tuple(torch.randn(2, 3, 1, 32, 32))
    labels, other = torch.tensor([0, 1, -1]), torch.tensor([1, -1, 0])
    found = method(views, Facts(labels, torch.arange(3), partner_labels=other))["terms"]["cross_entropy"]
    assert method.classifier is not None
    a, b = (method.classifier(backbone(view)) for view in views)
    assert found.item() == pytest.approx((masked_cross_entropy(a, labels) + masked_cross_entropy(b, other)).item(), rel=1e-5)


# -- settings


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy=within-seconds"], r"pairs\.policy=within-seconds needs pairs\.max_distance_s: --set pairs\.max_distance_s=1\.0"),
        (["policy=same-column"], r"pairs\.policy=same-column needs pairs\.column: --set pairs\.column=organ"),
        (["weights=true"], r"pairs\.weights needs pairs\.policy=within-seconds, and it is uscl"),
        (["policy=within-seconds", "max_distance_s=1", "max_distance_frames=3"], r"max_distance_frames needs pairs\.policy=ppi or hard-n"),
        (["policy=ppi", "min_distance_s=1"], r"pairs\.min_distance_s needs pairs\.policy=hard-negatives, and it is ppi"),
        (
            ["policy=hard-negatives", "max_distance_s=2", "min_distance_s=2"],
            r"min_distance_s is 2, and must be above pairs\.max_distance_s",
        ),
        (["policy=hard-negatives", "harder_over_epochs=9", "min_distance_s=2"], r"harder_over_epochs moves a distance of its own"),
        (["harder_over_epochs=9"], r"harder_over_epochs needs pairs\.policy=hard-negatives"),
    ],
)
def test_settings_of_another_policy_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_config("uscl", [f"pairs.{override}" for override in overrides])
    assert "\n" not in str(caught.value)


def test_a_column_that_nobody_reads_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"pairs\.column=organ: is not used by method 'uscl'.*pairs\.policy=same-column"):
        make_method(load_config("uscl", ["pairs.column=organ"]), 0)
    method, _ = make_method(load_config("uscl", ["pairs.column=organ", "pairs.policy=same-column"]), 0)
    assert isinstance(method, Method)


def test_what_a_policy_cannot_serve_is_said() -> None:
    index = keyed([7, 1, 2, 9, 30], [0, 1, 0, -1, 0])
    said = {name: PairDrawer(index, sections.Pairs(**pairs)).describe() for name, pairs in zip("whc", EVERY, strict=True)}
    assert said["w"][0] == "pairs: 1 of 5 videos have no two frames within 0.3 s; one frame is both"
    assert said["h"][0] == "pairs: 3 of 5 videos have two hard negatives, 0 have one"
    assert said["h"][1] == "pairs: 1 of 5 videos have no two near frames; one frame is both views, see pairs.max_distance_s"
    assert said["c"] == ["pairs.column=organ: 2 values, which 4 of 5 videos have"]
    assert PairDrawer(make_index([4]), sections.Pairs()).describe() == []


def test_a_run_of_partners_and_none_whose_negatives_nobody_reads(
    dataset: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [TINY_NETWORK, "image_size=16", "batch_size=5", "epochs=1", "device=cpu", "probe.every_epochs=0", "tensorboard=off"]
    overrides = ["pairs.policy=same-column", "pairs.column=device", "labels.weight=0.2"]
    result = pretrain(dataset.folder, out=tmp_path / "run", overrides=[*small, "checkpoint.log_every_steps=1", *overrides])
    assert np.isfinite(result.metrics["loss"])
    assert "pairs.column=device: 2 values, which 6 of 9 videos have" in capsys.readouterr().err
    with pytest.raises(RecipeError, match=r"pairs\.policy=hard-negatives: is not used by method 'dino'"):
        pretrain(dataset.folder, out=tmp_path / "none", overrides=[*small, "method=dino", "pairs.policy=hard-negatives"])
    assert not (tmp_path / "none").exists()
