"""Folds: no group is ever split, every frame is held out once, and leakage is refused by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uscl.evaluation.folds import independent_groups, make_folds, plan_folds, refuse_leakage
from usdata.errors import UserError

NO_PAIRS = pd.DataFrame({"video_id_a": pd.Series(dtype=str), "video_id_b": pd.Series(dtype=str)})


def table(videos: list[dict[str, object]], frames_each: int = 3) -> pd.DataFrame:
    """Frames of the given videos; what a video does not say is null."""
    rows = []
    for number, video in enumerate(videos):
        base = {
            "source": "s",
            "video_id": f"v{number:02d}",
            "group_id": f"g{number:02d}",
            "patient_id": None,
            "duplicate_group": None,
            "fold": None,
        }
        rows += [base | {"label": "ab"[number % 2]} | video] * frames_each
    return pd.DataFrame(rows)


def pairs(*names: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(names, columns=["video_id_a", "video_id_b"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_made_folds_partition_the_frames_and_split_no_group(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 5))
    seed = data.draw(st.integers(0, 1000))
    class_of_group = [index % 3 for index in range(count * 3)] + data.draw(st.lists(st.integers(0, 2), max_size=15))
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=len(class_of_group), max_size=len(class_of_group)))
    labels = np.repeat([f"class{index}" for index in class_of_group], sizes)
    groups = np.repeat([f"group{index}" for index in range(len(class_of_group))], sizes)
    order = np.random.default_rng(seed).permutation(len(labels))
    labels, groups = labels[order], groups[order]
    fold = make_folds(labels, groups, count=count, seed=seed, subject="set")
    assert sorted(set(fold)) == list(range(count))
    assert pd.Series(fold).groupby(groups).nunique().max() == 1
    for number in range(count):
        assert set(labels[fold != number]) == set(labels)
    np.testing.assert_array_equal(fold, make_folds(labels, groups, count=count, seed=seed, subject="set"))


def test_made_folds_are_balanced_and_every_class_stands_in_every_one() -> None:
    labels = np.repeat(["a", "b"] * 20, 10)
    groups = np.repeat([f"g{index}" for index in range(40)], 10)
    seen = set()
    for seed in range(4):
        fold = make_folds(labels, groups, count=5, seed=seed, subject="set")
        assert np.bincount(fold).tolist() == [80] * 5
        assert pd.crosstab(fold, labels).to_numpy().tolist() == [[40, 40]] * 5
        seen.add(tuple(fold))
    assert len(seen) == 4, "another seed makes other folds"


def test_a_class_with_too_few_groups_is_named() -> None:
    labels = np.array(["a"] * 6 + ["b"] * 6 + ["rare"] * 6)
    groups = np.array([f"g{index}" for index in range(12)] + ["r1", "r2"] * 3)
    said = r"class 'rare' stands in 2 independent groups, too few for 5 folds; use --folds 2"
    with pytest.raises(UserError, match=rf"{said}, or leave it out with --where 'label!=rare'"):
        make_folds(labels, groups, count=5, seed=0, subject="set")
    with pytest.raises(UserError, match=rf"{said}$"):  # one class alone would be left
        make_folds(labels[6:], groups[6:], count=5, seed=0, subject="set")
    with pytest.raises(UserError, match=r"3 classes .* 7 folds need: 'a' \(6\), 'b' \(6\), 'rare' \(2\); use --folds 2$"):
        make_folds(labels, groups, count=7, seed=0, subject="set")


def test_groups_are_joined_by_patients_videos_frames_and_clips_that_are_the_same() -> None:
    videos: list[dict[str, object]] = [{} for _ in range(9)]
    videos[0]["patient_id"] = videos[3]["patient_id"] = "p"
    videos[3]["duplicate_group"] = videos[4]["duplicate_group"] = "f"
    frames = table(videos)
    groups = independent_groups(frames, pairs(("v05", "v08"), ("v01", "not in the set")))
    by_video = dict(zip(frames["video_id"], groups, strict=True))
    assert by_video["v00"] == by_video["v03"] == by_video["v04"] == "g00"
    assert by_video["v05"] == by_video["v08"] == "g05"
    assert [by_video[f"v0{index}"] for index in (1, 2, 6, 7)] == ["g01", "g02", "g06", "g07"]


@pytest.mark.parametrize(
    ("videos", "duplicates", "names"),
    [
        ([{"patient_id": "Zoe"}, {}, {}, {"patient_id": "Zoe"}], NO_PAIRS, "patient_id 's/Zoe'"),
        ([{"group_id": "ward 7"}, {}, {}, {"group_id": "ward 7"}], NO_PAIRS, "group_id 'ward 7'"),
        ([{"video_id": "w"}, {}, {}, {"video_id": "w"}], NO_PAIRS, "video_id 'w'"),
        ([{"duplicate_group": "v00/5"}, {}, {}, {"duplicate_group": "v00/5"}], NO_PAIRS, "duplicate_group 'v00/5'"),
        ([{}, {}, {}, {}], pairs(("v00", "v02"), ("v01", "v02")), "duplicate clips 'v00' = 'v02', 'v01' = 'v02'"),
    ],
)
def test_leakage_is_refused_by_name(videos: list[dict[str, object]], duplicates: pd.DataFrame, names: str) -> None:
    frames = table(videos)
    fold = np.repeat([0, 0, 1, 1], 3)
    with pytest.raises(UserError, match="refused") as caught:
        refuse_leakage(frames, fold, duplicates, subject="set")
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


def test_clips_that_one_without_a_label_joins_stay_together() -> None:
    """v00 is a copy of v01, and v01 of the patient of v02: without v01, nothing of v00 tells."""
    whole = table([{"label": "x"}, {"patient_id": "p", "label": None}, {"patient_id": "p", "label": "y"}, {"label": "x"}, {"label": "y"}])
    twins = pairs(("v00", "v01"))
    labelled = whole[whole["label"].notna()].reset_index(drop=True)
    fold = np.repeat([0, 1, 0, 1], 3)
    groups = independent_groups(whole, twins)[whole["label"].notna()]
    assert groups[0] == groups[3]
    with pytest.raises(UserError, match=r"refused.*others of the set join, which are not evaluated: independent group 'g00'"):
        refuse_leakage(labelled, fold, twins, subject="set", groups=groups)
    refuse_leakage(labelled, np.repeat([0, 0, 0, 1], 3), twins, subject="set", groups=groups)


def test_equal_patient_ids_of_two_sources_are_two_patients() -> None:
    frames = table([{"patient_id": "1", "source": "a"}, {}, {"patient_id": "1", "source": "b"}, {}])
    assert len(set(independent_groups(frames, NO_PAIRS))) == 4
    refuse_leakage(frames, np.repeat([0, 0, 1, 1], 3), NO_PAIRS, subject="set")


def test_a_clean_division_passes_and_offenders_are_counted() -> None:
    frames = table([{"patient_id": "p"}, {"patient_id": "p"}, {}, {}])
    refuse_leakage(frames, np.repeat([0, 0, 1, 1], 3), pairs(("v00", "v01")), subject="set")
    leaky = table([{"patient_id": f"p{index % 6}"} for index in range(12)])
    with pytest.raises(UserError, match="'s/p0', 's/p1', 's/p2' and 3 more"):
        refuse_leakage(leaky, np.repeat([0] * 6 + [1] * 6, 3), NO_PAIRS, subject="set")


def test_own_folds_are_used_for_seed_zero_of_a_whole_set_only() -> None:
    frames = table([{"fold": index // 4 * 7} for index in range(16)])
    groups = independent_groups(frames, NO_PAIRS)
    own = plan_folds(frames, groups, NO_PAIRS, seed=0, count=None, filtered=False, subject="set")
    assert (own.origin, own.count) == ("data set", 4)
    np.testing.assert_array_equal(own.fold, frames["fold"] // 7)
    for other in ({"seed": 1}, {"count": 4}, {"filtered": True}):
        made = plan_folds(frames, groups, NO_PAIRS, **({"seed": 0, "count": None, "filtered": False, "subject": "set"} | other))  # type: ignore[arg-type]
        assert made.origin == "made"
        assert made.count == (5 if "filtered" in other else 4)


def test_made_folds_keep_leaky_groups_together_where_own_folds_are_refused() -> None:
    frames = table([{"fold": index % 2, "patient_id": "p" if index in (0, 3) else None} for index in range(12)])
    groups = independent_groups(frames, NO_PAIRS)
    with pytest.raises(UserError, match="patient_id 's/p'"):
        plan_folds(frames, groups, NO_PAIRS, seed=0, count=None, filtered=False, subject="set")
    made = plan_folds(frames, groups, NO_PAIRS, seed=0, count=2, filtered=False, subject="set")
    assert len(set(made.fold[frames["patient_id"] == "p"])) == 1


def test_a_class_that_could_not_be_learnt_is_refused() -> None:
    frames = table([{"fold": index // 4, "label": "rare" if index < 2 else "ab"[index % 2]} for index in range(12)])
    with pytest.raises(UserError, match="class 'rare' stands in fold 0 only"):
        plan_folds(frames, independent_groups(frames, NO_PAIRS), NO_PAIRS, seed=0, count=None, filtered=False, subject="set")
