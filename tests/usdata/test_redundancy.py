"""Redundancy inside a clip, from file to table: still stretches are planted, and a plain loop over whole frames says what goes."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.usdata.clips import speckle_frames, write_video
from usdata import manifest
from usdata.building import build
from usdata.recipe import Hygiene, Reading, Recipe
from usdata.sampling import SamplingRule, choose
from usdata.video_step import look_through

RATE = 20
BELOW = 0.97
# Lengths of the stretches in frames; between them the picture moves on by a good deal.
STRETCHES = (1, 12, 1, 1, 30, 2, 9, 1, 1, 1, 25)


def noisy_stretches() -> list[np.ndarray]:
    """The picture rests and the receiver's noise does not: no frame repeats the one before, and a stretch says one thing."""
    rng = np.random.default_rng(5)
    frames = []
    for picture, length in zip(speckle_frames(len(STRETCHES), step=9, height=96, width=128), STRETCHES, strict=True):
        for _ in range(length):
            frames.append(np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8))
    return frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("still") / "clip.mkv", noisy_stretches(), fps=RATE, codec="ffv1")


def look(path: Path, rule: dict[str, Any], **hygiene: Any) -> dict[str, Any]:
    found = look_through(path, sampling=SamplingRule.model_validate(rule), read=Reading(), hygiene=Hygiene(**hygiene))
    assert found["status"] == "ok"
    return found


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    small = [cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA).ravel().astype(np.float64) for picture in (a, b)]
    return float(np.corrcoef(*small)[0, 1])


@pytest.mark.parametrize(
    "rule",
    [{"rule": "all"}, {"rule": "rate", "hz": 3}, {"rule": "rate", "hz": 7}, {"rule": "count", "count": 30}, {"rule": "every", "every": 4}],
    ids=lambda rule: "-".join(str(value) for value in rule.values()),
)
@pytest.mark.parametrize(("least", "greatest"), [(None, None), (0.25, 1.0), (None, 0.5)])
def test_what_is_left_out_and_why_is_what_a_plain_loop_says(
    clip: Path, rule: dict[str, Any], least: float | None, greatest: float | None
) -> None:
    frames = noisy_stretches()
    times = [Fraction(index, RATE) for index in range(len(frames))]
    taken = choose(SamplingRule.model_validate(rule), times)
    kept: list[int] = []
    told: dict[int, tuple[str, int | None]] = {index: ("not_sampled", None) for index in range(len(frames)) if index not in taken}
    for index in taken:
        gap = times[index] - times[kept[-1]] if kept else None
        if gap is None or (greatest is not None and gap >= Fraction(str(greatest))):
            kept.append(index)
        elif least is not None and gap < Fraction(str(least)):
            told[index] = ("not_sampled", None)
        elif pearson(frames[kept[-1]], frames[index]) < BELOW:
            kept.append(index)
        else:
            told[index] = ("redundant", kept[-1])

    found = look(clip, rule | {"redundancy": {"below": BELOW, "least_gap_s": least, "greatest_gap_s": greatest}})
    assert [row["frame_index"] for row in found["kept"]] == kept
    assert {row["frame_index"]: (row["reason"], row["duplicate_of"]) for row in found["excluded"]} == told
    assert any(reason == "redundant" for reason, _ in told.values())
    for row in found["excluded"]:
        if row["reason"] == "redundant":
            assert row["similarity"] == pytest.approx(pearson(frames[row["duplicate_of"]], frames[row["frame_index"]]), abs=1e-9)
            assert row["similarity"] >= BELOW
        else:
            assert row["similarity"] is None
        assert row["difference"] is None


def test_one_frame_of_each_still_stretch_is_left(clip: Path) -> None:
    firsts = [sum(STRETCHES[:place]) for place in range(len(STRETCHES))]
    found = look(clip, {"rule": "all", "redundancy": {"below": BELOW}})
    assert [row["frame_index"] for row in found["kept"]] == firsts
    assert look(clip, {"rule": "novelty", "below": BELOW}) == found


def test_a_count_is_of_all_frames_and_gives_fewer_where_the_clip_stands_still(clip: Path) -> None:
    bare = look(clip, {"rule": "count", "count": 21})
    less = look(clip, {"rule": "count", "count": 21, "redundancy": {"below": BELOW}})
    indices, fewer = ([row["frame_index"] for row in found["kept"]] for found in (bare, less))
    assert len(indices) == 21 > len(fewer)
    assert set(fewer) < set(indices)


def test_what_repeats_by_itself_keeps_its_own_reason(tmp_path: Path) -> None:
    a, b = speckle_frames(2, step=9)
    path = write_video(tmp_path / "clip.mkv", [a, a, np.zeros_like(a), b, b], codec="ffv1")
    found = look(path, {"rule": "all", "redundancy": {"below": 0.99}})
    assert [(row["frame_index"], row["reason"], row["similarity"]) for row in found["excluded"]] == [
        (1, "near_repeat", None),
        (2, "blank", None),
        (4, "near_repeat", None),
    ]


def test_no_frame_is_like_one_that_a_loop_shows_again(tmp_path: Path) -> None:
    """Frames of the second round are not kept after all, so nothing may be called redundant for being like one of them."""
    scene = speckle_frames(13, step=6, height=96, width=128)
    path = write_video(tmp_path / "loop.mkv", [*scene, *scene, *scene], codec="ffv1")
    found = look(path, {"rule": "all", "redundancy": {"below": 0.9}})
    assert "loop" in found["video"]["flags"]
    kept = {row["frame_index"] for row in found["kept"]}
    assert max(kept) < 13
    assert {row["reason"] for row in found["excluded"] if row["frame_index"] >= 13} == {"repeats_period"}
    redundant = [row for row in found["excluded"] if row["reason"] == "redundant"]
    assert all(row["duplicate_of"] in kept for row in redundant)
    assert all(row["similarity"] is None and row["duplicate_of"] is None for row in found["excluded"] if row["reason"] == "repeats_period")


def test_the_table_tells_it(clip: Path, tmp_path: Path) -> None:
    sampling = {"rule": "rate", "hz": 5, "redundancy": {"below": BELOW}}
    recipe = Recipe.model_validate(
        {"name": "still", "sources": [{"name": "s", "layout": "files", "sampling": sampling}], "folds": {"count": 0}}
    )
    build(recipe, raw=clip.parent, out=tmp_path / "set", workers=1)
    excluded = manifest.open_dataset(tmp_path / "set").excluded
    redundant = excluded[excluded.reason == "redundant"]
    assert len(redundant) > 5
    assert (redundant.similarity >= BELOW).all()
    kept = set(manifest.open_dataset(tmp_path / "set").frames.frame_index)
    assert set(redundant.duplicate_of) <= kept
    assert excluded.similarity[excluded.reason != "redundant"].isna().all()
