"""Frozen, up-converted, loops, palindromes, titles: planted in a phantom's frames, with the truth known by construction."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from usdata.imaging.repetition import MOST_FRAMES, Repetition, RepetitionCollector
from usdata.phantoms.encoding import write_clip
from usdata.recipe import Hygiene, Reading
from usdata.sampling import SamplingRule
from usdata.video_step import look_through

Frames = NDArray[np.uint8]


def moving(count: int, seed: int = 0, side: int = 96) -> Frames:
    """A smooth field that drifts, with noise of its own in each frame, (count, side, side)."""
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.normal(size=(side * 4, side * 4)), (0, 0), 3.0)
    field /= field.std()
    pictures = []
    for number in range(count):
        x, y = int(1.4 * number) % (3 * side), int(0.9 * number) % (3 * side)
        pictures.append(110 + 35 * field[y : y + side, x : x + side] + rng.normal(0, 2, (side, side)))
    return np.clip(pictures, 0, 255).astype(np.uint8)


def found(frames: Frames | list[NDArray[np.uint8]]) -> Repetition:
    collector = RepetitionCollector()
    for frame in frames:
        collector.offer(frame)
    return collector.found()


def test_clip_that_only_moves_has_no_flag() -> None:
    assert found(moving(80)) == Repetition((), None, None, None, 0.0)


def test_slow_sweep_is_no_loop() -> None:
    """Near frames are alike there, and far ones are not: the case that a comparison with random pairs alone gets wrong."""
    still = moving(1)[0].astype(float)
    sweep = [
        np.clip(still + shift * np.linspace(-0.5, 0.5, still.size).reshape(still.shape), 0, 255).astype(np.uint8) for shift in range(120)
    ]
    assert not {"loop", "palindrome"} & set(found(sweep).flags)


def test_smooth_oscillation_is_no_copy() -> None:
    """A heart comes back: frames a period apart, or mirrored, are alike, but for the noise that every frame has of its own."""
    rng = np.random.default_rng(4)
    still = moving(1)[0].astype(float)
    beats = [np.roll(still, round(4 * np.sin(2 * np.pi * number / 60)), axis=0) + rng.normal(0, 20, still.shape) for number in range(120)]
    assert not {"loop", "palindrome"} & set(found(np.clip(beats, 0, 255).astype(np.uint8)).flags)


@pytest.mark.parametrize(("period", "frames"), [(10, 20), (17, 30), (33, 140), (64, 128)])
def test_loop(period: int, frames: int) -> None:
    once = moving(period, seed=period)
    result = found([once[number % period] for number in range(frames)])
    assert result == Repetition(("loop",), period, period, frames, 0.0)


@pytest.mark.parametrize("length", [12, 25, 40])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_palindrome(length: int, times: int) -> None:
    """Forth and back without a repeat at the turning points: period 2 (length - 1), and the way forth alone is new."""
    once = moving(length, seed=length)
    way = [*range(length), *range(length - 2, 0, -1)]
    clip = [once[way[number % len(way)]] for number in range(times * len(way) + 1)]
    result = found(clip)
    assert result.flags == ("palindrome",)
    assert result.period == 2 * (length - 1)
    assert (result.unique_until, result.repeated_until) == (length, len(clip))


def test_what_follows_a_palindrome_is_new() -> None:
    first, rest = moving(30, seed=1), moving(35, seed=2)
    result = found([*first, *first[-2::-1], *rest])
    assert result.flags == ("palindrome",)
    assert (result.unique_until, result.repeated_until) == (30, 59)


@pytest.mark.parametrize("shown", [(1, 2), (1, 1, 2), (1, 1, 1, 1, 2), (2, 3), (3,)])
def test_upconverted(shown: tuple[int, ...]) -> None:
    """Each frame is shown once, twice, ... in turn: 3/2, 4/3, 6/5, 5/2 and 3 times the rate."""
    once = moving(60)
    clip = [frame for number, frame in enumerate(once) for _ in range(shown[number % len(shown)])]
    result = found(clip)
    assert result.flags == ("upconverted",)
    assert result.still_share == pytest.approx(1 - 60 / len(clip), abs=0.02)


def test_pause_is_no_upconversion() -> None:
    once = moving(60)
    assert found([*once[:30], *[once[30]] * 20, *once[30:]]).flags == ()


def test_frozen() -> None:
    assert found([moving(1)[0]] * 40).flags == ("frozen",)


@pytest.mark.parametrize("before", [True, False])
def test_title_is_told_and_does_not_hide_a_loop(before: bool) -> None:
    slide = np.full((96, 96), 20, np.uint8)
    slide[30:36, 20:70] = 230
    once = moving(15, seed=9)
    clip = [once[number % 15] for number in range(60)]
    result = found([slide] * 12 + clip if before else clip + [slide] * 12)
    assert result.flags == ("loop", "title")
    assert (result.unique_until, result.repeated_until) == ((27, 72) if before else (15, 60))


def test_long_clip_is_judged_by_its_beginning() -> None:
    once = moving(50, side=32)
    frames = MOST_FRAMES + 300
    result = found([once[number % 50] for number in range(frames)])
    assert (result.flags, result.period, result.unique_until, result.repeated_until) == (("loop",), 50, 50, frames)


def test_too_few_frames_tell_nothing() -> None:
    assert found(moving(5)) == Repetition()


@pytest.mark.parametrize("rule", [{"rule": "rate", "hz": 50.0}, {"rule": "count", "count": 8}])
def test_build_keeps_one_period(tmp_path: Path, rule: dict[str, object]) -> None:
    once = moving(20, seed=3)
    path = tmp_path / "loop.mp4"
    write_clip(path, np.stack([once[number % 20] for number in range(70)]), fps=25)
    read = {"sampling": SamplingRule.model_validate(rule), "read": Reading()}
    one = look_through(path, hygiene=Hygiene(), **read)
    whole = look_through(path, hygiene=Hygiene(repeated="all"), **read)
    assert one["video"]["flags"] == whole["video"]["flags"] == ["loop"]
    assert one["video"]["period_frames"] == 20
    assert max(row["frame_index"] for row in one["kept"]) < 20
    assert len(one["kept"]) == (8 if rule["rule"] == "count" else 20)
    assert max(row["frame_index"] for row in whole["kept"]) >= 50
    again = [row["frame_index"] for row in one["excluded"] if row["reason"] == "repeats_period"]
    assert sorted(again) == list(range(20, 70))
    for result in (one, whole):
        indices = sorted(row["frame_index"] for row in [*result["kept"], *result["excluded"]])
        assert indices == list(range(70))
