"""Folds and splits: groups whole, labels spread, nothing depends on order."""

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from usdata.duplicates.groups import independent_units
from usdata.duplicates.leaks import find_leaks
from usdata.recipe import Folds, Split
from usdata.splits import assign_parts, fold_of_groups, label_counts, split_of_groups

GROUPS = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["x", "y", "z", ""]), st.integers(1, 60), min_size=1, max_size=2).map(Counter),
    min_size=5,
    max_size=40,
)


@given(groups=GROUPS, seed=st.integers(0, 5), count=st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_every_group_has_one_fold_and_no_fold_is_empty(groups: dict[str, Counter[str]], seed: int, count: int) -> None:
    folds = fold_of_groups(groups, Folds(count=count, seed=seed))
    assert folds.keys() == groups.keys()
    assert set(folds.values()) == set(range(count))
    backwards = dict(reversed(groups.items()))
    assert fold_of_groups(backwards, Folds(count=count, seed=seed)) == folds


def worst_share_error(groups: dict[str, Counter[str]], fold_of: dict[str, int], count: int) -> float:
    """Largest distance of a label's share in a fold from 1/count."""
    totals: Counter[str] = sum(groups.values(), Counter())
    worst = 0.0
    for label, total in totals.items():
        for fold in range(count):
            inside = sum(sizes[label] for group, sizes in groups.items() if fold_of[group] == fold)
            worst = max(worst, abs(inside / total - 1 / count))
    return worst


def test_labels_are_spread_at_least_as_evenly_as_by_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = [], []
    for trial in range(20):
        groups = {
            f"g{i:02}": Counter({str(generator.choice(["x", "y", "z"], p=[0.5, 0.3, 0.2])): int(generator.integers(5, 60))})
            for i in range(35)
        }
        rows = [(group, label) for group, sizes in groups.items() for label, size in sizes.items() for _ in range(size)]
        names, labels = np.array([g for g, _ in rows]), np.array([x for _, x in rows])
        split = StratifiedGroupKFold(5, shuffle=True, random_state=trial).split(names, labels, names)
        fold_of = {str(group): fold for fold, (_, test) in enumerate(split) for group in set(names[test])}
        theirs.append(worst_share_error(groups, fold_of, 5))
        ours.append(worst_share_error(groups, assign_parts(groups, [0.2] * 5, seed=trial), 5))
    assert np.mean(ours) <= np.mean(theirs)


def test_few_groups_of_a_label_are_spread_over_the_folds() -> None:
    groups = {f"common{i}": Counter(a=100) for i in range(20)} | {f"rare{i}": Counter(b=3) for i in range(5)}
    folds = fold_of_groups(groups, Folds(count=5))
    assert sorted(str(folds[f"rare{i}"]) for i in range(5)) == ["0", "1", "2", "3", "4"]


def test_fewer_groups_than_folds_means_no_folds() -> None:
    assert fold_of_groups({"a": Counter(x=1), "b": Counter(x=1)}, Folds(count=3)) == {"a": None, "b": None}
    assert fold_of_groups({"a": Counter(x=1), "b": Counter(x=1)}, Folds(count=0)) == {"a": None, "b": None}


def test_split_shares_are_near_what_was_asked() -> None:
    groups = {f"g{i}": Counter({"xyz"[i % 3]: 10 + i % 7}) for i in range(100)}
    split = split_of_groups(groups, Split(val=0.1, test=0.2))
    sizes = Counter[str]()
    for group, part in split.items():
        sizes[part] += groups[group].total()
    total = sizes.total()
    assert abs(sizes["val"] / total - 0.1) < 0.03
    assert abs(sizes["test"] / total - 0.2) < 0.03
    assert set(split_of_groups(groups, Split()).values()) == {"train"}


def test_label_counts_counts_rows() -> None:
    assert label_counts([("g", "x"), ("g", None), ("g", "x"), ("h", "y")]) == {"g": Counter({"x": 2, "": 1}), "h": Counter(y=1)}


@st.composite
def grouping_graphs(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of videos, frames and pairs of a random graph: groups, patients that may cross them, shared frames, verified pairs."""
    count = draw(st.integers(1, 24))
    groups = draw(st.lists(st.integers(0, 14), min_size=count, max_size=count))
    patients = draw(st.lists(st.none() | st.integers(0, 20), min_size=count, max_size=count))
    sources = draw(st.lists(st.sampled_from("st"), min_size=count, max_size=count))
    videos = [
        {
            "video_id": f"{sources[n]}/v{n:02}",
            "source": sources[n],
            "patient_id": None if patients[n] is None else f"p{patients[n]}",
            "group_id": f"g{groups[n]:02}",
            "label": draw(st.sampled_from(["x", "y", None])),
        }
        for n in range(count)
    ]
    frames = [
        {**video, "frame": number, "duplicate_group": draw(st.none() | st.sampled_from(["d0", "d1", "d2"]) if number == 0 else st.none())}
        for video in videos
        for number in range(draw(st.integers(1, 4)))
    ]
    numbers = st.integers(0, count - 1)
    pairs = [
        {"video_id_a": videos[a]["video_id"], "video_id_b": videos[b]["video_id"]}
        for a, b in draw(st.lists(st.tuples(numbers, numbers), max_size=6))
    ]
    return videos, frames, pairs


def reachable(videos: list[dict[str, Any]], frames: list[dict[str, Any]], pairs: list[dict[str, Any]], start: str) -> set[str]:
    """Brute force: every clip that can be reached from one by what they share."""
    shared: list[set[str]] = [{pair["video_id_a"], pair["video_id_b"]} for pair in pairs]
    for key in (lambda row: row["group_id"], lambda row: row["patient_id"] and (row["source"], row["patient_id"])):
        for value in {key(video) for video in videos} - {None}:
            shared.append({video["video_id"] for video in videos if key(video) == value})
    for value in {frame["duplicate_group"] for frame in frames} - {None}:
        shared.append({frame["video_id"] for frame in frames if frame["duplicate_group"] == value})
    found, before = {start}, set[str]()
    while found != before:
        before = set(found)
        for one in shared:
            if one & found:
                found |= one
    return found


@given(graph=grouping_graphs())
@settings(max_examples=120, deadline=None)
def test_units_are_what_can_be_reached_and_nothing_more(graph: Any) -> None:
    videos, frames, pairs = graph
    units = independent_units(videos, frames, pairs)
    unit_of = {video["video_id"]: units[video["group_id"]] for video in videos}
    for video in unit_of:
        same = {other for other in unit_of if unit_of[other] == unit_of[video]}
        assert same == reachable(videos, frames, pairs, video)
    assert all(name <= group and units[name] == name for group, name in units.items())
    assert independent_units(videos[::-1], frames[::-1], pairs[::-1]) == units


@given(graph=grouping_graphs(), seed=st.integers(0, 5), count=st.integers(2, 5))
@settings(max_examples=80, deadline=None)
def test_parts_are_disjoint_for_any_graph(graph: Any, seed: int, count: int) -> None:
    videos, frames, pairs = graph
    units = independent_units(videos, frames, pairs)
    unit_of = {video["video_id"]: units[video["group_id"]] for video in videos}
    counts = label_counts([(unit_of[frame["video_id"]], frame["label"]) for frame in frames])
    folds = fold_of_groups(counts, Folds(count=count, seed=seed))
    split = split_of_groups(counts, Split(val=0.2, test=0.2, seed=seed))
    table = pd.DataFrame(frames, columns=["video_id", "source", "patient_id", "group_id", "duplicate_group"])
    for parts in (folds, split):
        of_row = [parts[unit_of[video]] for video in table["video_id"]]
        table["part"] = pd.Series([None if part is None else str(part) for part in of_row], dtype=object)
        assert not find_leaks(table, pd.DataFrame(pairs, columns=["video_id_a", "video_id_b"])).any
    if len(counts) >= count:
        assert set(folds.values()) == set(range(count))


SHARES = st.sampled_from([[0.5, 0.5], [0.2] * 5, [0.1] * 10, [0.7, 0.1, 0.2], [0.98, 0.01, 0.01], [0.0, 0.5, 0.5], [0.8, 0.0, 0.2]])


@given(groups=GROUPS, seed=st.integers(0, 5), shares=SHARES)
@settings(max_examples=150, deadline=None)
def test_the_squared_excess_keeps_its_bound(groups: dict[str, Counter[str]], seed: int, shares: list[float]) -> None:
    """The first bound of `assign_parts`, which holds for groups of several labels."""
    parts = assign_parts(groups, shares, seed=seed)
    totals: Counter[str] = sum(groups.values(), Counter())
    used = [part for part, share in enumerate(shares) if share > 0]
    excess = bound = 0.0
    for label, total in totals.items():
        for part in used:
            inside = sum(sizes[label] for group, sizes in groups.items() if parts[group] == part)
            excess += shares[part] * (inside / (shares[part] * total) - 1) ** 2
        bound += (len(used) - 1) * sum((sizes[label] / total) ** 2 for sizes in groups.values())
    assert excess <= bound * (1 + 1e-9)
    assert all(shares[part] > 0 for part in parts.values())


@given(
    sizes=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 200)), min_size=1, max_size=60),
    seed=st.integers(0, 5),
    shares=SHARES,
)
@settings(max_examples=150, deadline=None)
def test_no_label_deviates_by_more_than_its_largest_group(sizes: list[tuple[str, int]], seed: int, shares: list[float]) -> None:
    """The second bound, for groups of one label; it is below the label's largest group for any folds and for any three parts."""
    groups = {f"g{n}": Counter({label: size}) for n, (label, size) in enumerate(sizes)}
    parts = assign_parts(groups, shares, seed=seed)
    k = sum(share > 0 for share in shares)
    for label in {label for label, _ in sizes}:
        of_label = [counts[label] for counts in groups.values()]
        largest, total = max(of_label), sum(of_label)
        for part, share in enumerate(shares):
            inside = sum(counts[label] for group, counts in groups.items() if parts[group] == part)
            allowed = largest / 2 * (1 + share * (k - 2)) if share > 0 else 0.0
            assert abs(inside - share * total) <= allowed + 1e-6
            assert allowed <= largest


@given(groups=st.dictionaries(st.text("abcd", min_size=1, max_size=3), st.sampled_from("xy").flatmap(
    lambda label: st.integers(1, 30).map(lambda size: Counter({label: size}))), min_size=2, max_size=6))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_tiny_cases_are_near_the_best_that_there_is(groups: dict[str, Counter[str]]) -> None:
    """Against every assignment to two folds: a label is off by at most half its largest group more than in the best."""
    totals: Counter[str] = sum(groups.values(), Counter())

    def worst(parts: dict[str, int]) -> float:
        off = [abs(sum(sizes[label] for group, sizes in groups.items() if parts[group] == 0) - totals[label] / 2) for label in totals]
        return max(off)

    best = min(worst(dict(zip(groups, chosen, strict=True))) for chosen in product((0, 1), repeat=len(groups)))
    largest = max(sizes.total() for sizes in groups.values())
    assert worst(assign_parts(groups, [0.5, 0.5], seed=0)) <= best + largest / 2


def test_another_seed_makes_another_partition_and_the_same_seed_the_same() -> None:
    """Also where all sizes differ, and not only in the numbering of the folds."""
    groups = {f"g{n:02}": Counter({"xyz"[n % 3]: 10 + 3 * n}) for n in range(30)}

    def partition(seed: int) -> frozenset[frozenset[str]]:
        parts = assign_parts(groups, [0.2] * 5, seed=seed)
        return frozenset(frozenset(group for group in groups if parts[group] == part) for part in range(5))

    assert len({partition(seed) for seed in range(10)}) >= 9
    assert partition(3) == partition(3)
