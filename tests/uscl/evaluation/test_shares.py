"""Shares of the labels: nested, of whole groups, no label lost; and the curve they make."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.uscl.evaluation.texture_set import write_texture_set
from uscl.evaluation import evaluate
from uscl.evaluation.report import print_evaluation
from uscl.evaluation.shares import labelled_rows, parse_shares
from usdata.errors import UserError

SHARES = (1.0, 5.0, 10.0, 25.0, 50.0, 99.0, 100.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=1, max_size=80), st.integers(0, 9), st.integers(0, 4))
def test_shares_are_nested_whole_and_hold_every_label(rows: list[tuple[int, int]], seed: int, fold: int) -> None:
    labels = np.array([label for label, _ in rows])
    groups = np.array([f"g{group}" for _, group in rows])
    before: set[int] = set()
    for share in SHARES:
        taken = labelled_rows(labels, groups, share, seed=(seed, fold))
        assert set(groups[taken]).isdisjoint(groups[np.setdiff1d(np.arange(len(groups)), taken)])
        assert before <= set(taken.tolist())
        assert set(labels[taken]) == set(labels)
        before = set(taken.tolist())
    assert len(before) == len(rows)


def test_shares_are_of_the_groups_of_each_label_and_follow_the_seed_not_the_order() -> None:
    groups = np.array([f"g{group:02d}" for group in range(60)])
    labels = (np.arange(60) >= 40).astype(int)
    for share, wanted in ((1, (1, 1)), (10, (4, 2)), (25, (10, 5)), (50, (20, 10))):
        taken = labelled_rows(labels, groups, share, seed=(0, 0))
        assert tuple(np.bincount(labels[taken])) == wanted
    first = set(groups[labelled_rows(labels, groups, 25, seed=(0, 0))])
    order = np.random.default_rng(0).permutation(60)
    assert set(groups[order][labelled_rows(labels[order], groups[order], 25, seed=(0, 0))]) == first
    assert set(groups[labelled_rows(labels, groups, 25, seed=(1, 0))]) != first
    assert set(groups[labelled_rows(labels, groups, 25, seed=(0, 1))]) != first


def test_the_curve_ends_in_the_evaluation_itself(tmp_path: Path) -> None:
    folder = write_texture_set(tmp_path / "set", textures=("across", "down") * 6, frames_per_video=2, size=32)
    weights = ["random", "resnet34:random"]
    found = evaluate("linear", folder, weights=weights, out=tmp_path / "out", image_size=32, folds=2, label_shares=[100, 1])
    told = json.loads((found.folder / "evaluation.json").read_text())["label_efficiency"]
    stream = io.StringIO()
    print_evaluation(found, Console(file=stream, width=80))
    assert re.search(r"1 % \(2 groups a fold\): random weights \d", stream.getvalue())
    assert repr(found).startswith("On 12 independent groups held out in 2 folds")
    assert told["shares"] == [1, 100]
    assert [each["share"] for each in told["trained_on"]] == [1, 100]
    assert [fold["groups"] for fold in told["trained_on"][0]["folds"]] == [2] * 2
    assert [fold["frames"] for fold in told["trained_on"][1]["folds"]] == [12] * 2
    for entry, curve in zip(found.summary["weights"], told["weights"], strict=True):
        assert entry["name"] == curve["name"]
        last = curve["points"][-1]["levels"]["frame"]
        assert last["pooled"] == entry["levels"]["frame"]["pooled"]
        assert last["interval"] == entry["levels"]["frame"]["interval"]
        assert all(len(point["levels"]["video"]["interval"]["accuracy"]) == 2 for point in curve["points"])
    assert {each["share"] for each in told["differences"]} == {1, 100}
    plain = evaluate("linear", folder, weights=["random"], out=tmp_path / "plain", image_size=32, folds=2)
    same = found.predictions[found.predictions["weights"] == "random"]
    assert plain.predictions.equals(same.reset_index(drop=True)), "the curve changes nothing of the evaluation"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1,0.5", "all of these are below 1 %; for shares of the whole write 10,50"),
        ("1,x", "'x' is no percentage"),
        ("0", "no percentage"),
        ("101", "no"),
        ("5,5", "twice"),
        ("", "no"),
    ],
)
def test_bad_shares_are_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_shares(text)
    assert "--label-shares" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shares_that_take_the_same_groups_are_said_to(tmp_path: Path) -> None:
    folder = write_texture_set(tmp_path / "set", textures=("across", "down") * 2, frames_per_video=2, size=32)
    found = evaluate("knn", folder, weights="random", out=tmp_path / "out", image_size=32, folds=2, label_shares=[25, 100])
    assert [note for note in found.summary["notes"] if note.startswith("25 and 100 % of the labels are the same groups here")]
