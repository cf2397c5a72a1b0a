"""Folds and splits: groups whole, labels spread, nothing depends on order."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

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
