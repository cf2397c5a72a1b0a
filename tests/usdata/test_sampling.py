"""Sampling rules against their definition written out by brute force, and the streaming form against the definition."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from usdata.sampling import Redundancy, Sampler, SamplingRule, choose, correlation

fractions = st.fractions(min_value=0, max_value=20, max_denominator=90_000)
times_monotone = st.lists(fractions, max_size=60).map(sorted)
times_with_gaps = st.lists(st.none() | fractions, max_size=60)
rates = st.sampled_from([0.1, 0.3, 1.0, 2.5, 3.0, 7.0, 23.976, 30.0, 1 / 3])
caps = st.none() | st.integers(1, 20)
streaming_rules = st.one_of(
    st.builds(lambda hz, cap: SamplingRule(rule="rate", hz=hz, cap=cap), rates, caps),
    st.builds(lambda every, cap: SamplingRule(rule="every", every=every, cap=cap), st.integers(1, 9), caps),
    st.builds(lambda cap: SamplingRule(rule="all", cap=cap), caps),
)


def streamed(rule: SamplingRule, times: list[Fraction | None]) -> list[int]:
    sampler = Sampler(rule)
    return [position for position, time in enumerate(times) if sampler.offer(position, time).kept]


def at(rate: int, count: int, start: Fraction = Fraction(0)) -> list[Fraction | None]:
    return [start + Fraction(number, rate) for number in range(count)]


@given(streaming_rules, times_monotone)
def test_streaming_agrees_with_the_definition(rule: SamplingRule, times: list[Fraction | None]) -> None:
    assert streamed(rule, times) == choose(rule, times)


@given(streaming_rules, times_with_gaps)
def test_streaming_agrees_for_times_that_are_missing_or_go_back(rule: SamplingRule, times: list[Fraction | None]) -> None:
    assert streamed(rule, times) == choose(rule, times)


@given(rates, times_monotone.filter(bool))
def test_rate_is_the_first_frame_at_or_after_each_due_time(hz: float, times: list[Fraction]) -> None:
    due, expected = times[0], set()
    while due <= times[-1]:
        expected.add(next(position for position, time in enumerate(times) if time >= due))
        due += 1 / Fraction(str(hz))
    assert choose(SamplingRule(hz=hz), times) == sorted(expected)


@given(st.integers(1, 40), st.integers(0, 100))
def test_count_is_exact_even_and_symmetric(count: int, total: int) -> None:
    kept = choose(SamplingRule(rule="count", count=count), [None] * total)
    assert len(kept) == len(set(kept)) == min(count, total)
    assert kept == sorted(kept)
    assert all(0 <= position < total for position in kept)
    if len(kept) > 1:
        gaps = [after - before for before, after in itertools.pairwise(kept)]
        assert max(gaps) - min(gaps) <= 1
        # The margin before the first frame and after the last one differ by at most the rounding of one position.
        assert abs(kept[0] - (total - 1 - kept[-1])) <= 1


def test_planted_answers() -> None:
    assert choose(SamplingRule(hz=3), at(30, 61)) == [0, 10, 20, 30, 40, 50, 60]
    # 25 Hz has no frame at 1/3 s: the first at or after it is frame 9 (0.36 s), and for 2/3 s frame 17 (0.68 s).
    assert choose(SamplingRule(hz=3), at(25, 26)) == [0, 9, 17, 25]
    assert choose(SamplingRule(rule="count", count=3), [None] * 9) == [1, 4, 7]
    assert choose(SamplingRule(rule="every", every=4), [None] * 9) == [0, 4, 8]
    assert choose(SamplingRule(rule="all"), [None] * 3) == [0, 1, 2]
    assert choose(SamplingRule(rule="count", count=5, cap=2), [None] * 50) == [5, 15]


def test_start_of_the_stream_does_not_shift_the_grid() -> None:
    rule = SamplingRule(hz=3)
    assert choose(rule, at(25, 100, Fraction(48600, 90000))) == choose(rule, at(25, 100))


def test_no_drift_over_an_hour() -> None:
    # 30000/1001 Hz sampled at 0.1 Hz for an hour: 360 periods, each within one frame of its due time.
    times = [Fraction(number * 1001, 30000) for number in range(107_894)]
    kept = choose(SamplingRule(hz=0.1), times)
    assert len(kept) == 360 + 1
    assert all(0 <= times[position] - 10 * k < Fraction(1001, 30000) for k, position in enumerate(kept))


def test_a_gap_gives_one_frame_not_several() -> None:
    times = [Fraction(0), Fraction(10), Fraction(21, 2), Fraction(11)]
    assert choose(SamplingRule(hz=1), times) == [0, 1, 3]


def test_without_times_all_are_kept_and_it_says_so() -> None:
    sampler = Sampler(SamplingRule(hz=3))
    assert not sampler.untimed
    assert [sampler.offer(position, None).kept for position in range(4)] == [True] * 4
    assert sampler.untimed
    timed = Sampler(SamplingRule(hz=3))
    timed.offer(0, Fraction(0))
    assert not timed.untimed


def test_cap_keeps_the_first() -> None:
    sampler = Sampler(SamplingRule(rule="every", every=2, cap=2))
    assert [sampler.offer(position, None).kept for position in range(8)] == [True, False, True] + [False] * 5
    assert sampler.full


def test_sampler_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="number of frames"):
        Sampler(SamplingRule(rule="count", count=3))
    sampler = Sampler(SamplingRule(rule="all"))
    sampler.offer(3, None)
    with pytest.raises(ValueError, match="in order"):
        sampler.offer(3, None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rule": "rate"},
        {"rule": "rate", "hz": 0},
        {"rule": "rate", "hz": -3},
        {"rule": "rate", "hz": float("inf")},
        {"rule": "rate", "hz": float("nan")},
        {"rule": "rate", "hz": 3, "count": 5},
        {"rule": "count"},
        {"rule": "count", "count": 0},
        {"rule": "count", "count": 5, "hz": 3},
        {"rule": "every"},
        {"rule": "every", "every": 1.5},
        {"rule": "all", "every": 2},
        {"rule": "all", "cap": 0},
        {"rule": "some"},
        {"rule": "all", "stride": 2},
        {"rule": "all", "below": 0.9},
        {"rule": "all", "redundancy": {}},
        {"rule": "all", "redundancy": {"below": 1.1}},
        {"rule": "all", "redundancy": {"below": 0.9, "least_gap_s": 2, "greatest_gap_s": 1}},
        {"rule": "novelty", "below": 0.9, "redundancy": {"below": 0.9}},
    ],
)
def test_wrong_rules_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SamplingRule.model_validate(fields)


@given(st.sampled_from([1.0, 3.0, 2.5]), st.none() | st.fractions(min_value=Fraction(1, 10), max_value=100), st.integers(0, 80), caps)
def test_stride_is_the_pocus_builders_rule(hz: float, declared: Fraction | None, total: int, cap: int | None) -> None:
    """As their script has it: every int(fps / hz)-th of the frames counted from 0; where that is 0 they divide by it, and all are kept."""
    every = int(declared / Fraction(str(hz))) if declared is not None else 1
    expected = [number for number in range(total) if number % max(every, 1) == 0][:cap]
    rule = SamplingRule(rule="stride", hz=hz, over="decoded", cap=cap)
    assert choose(rule, [None] * total, declared_rate=declared) == expected
    sampler = Sampler(rule, declared)
    assert [number for number in range(total) if sampler.offer(number, None).kept] == expected


pictures_of = st.lists(st.lists(st.integers(0, 255), min_size=12, max_size=12), min_size=1, max_size=25)


@given(
    pictures_of,
    st.sampled_from([-0.5, 0.0, 0.4, 0.9, 1.0]),
    st.none() | st.sampled_from([0.1, 0.5]),
    st.none() | st.sampled_from([0.5, 1.3]),
    st.lists(st.none() | fractions, min_size=25, max_size=25),
    caps,
)
def test_novelty_keeps_what_differs_from_the_last_kept(
    values: list[list[int]],
    below: float,
    least: float | None,
    greatest: float | None,
    times: list[Fraction | None],
    cap: int | None,
) -> None:
    pictures = [np.array(value, dtype=np.uint8).reshape(3, 4) for value in values]
    times = times[: len(pictures)]
    rule = SamplingRule(rule="novelty", below=below, least_gap_s=least, greatest_gap_s=greatest, cap=cap)
    kept = choose(rule, times, pictures=pictures)
    sampler = Sampler(rule)
    assert [number for number, time in enumerate(times) if sampler.offer(number, time, lambda n=number: pictures[n]).kept] == kept  # type: ignore[misc]
    assert kept[0] == 0
    for position in range(1, kept[-1] + 1):
        last = max(number for number in kept if number < position)
        gap = None if times[last] is None or times[position] is None else times[position] - times[last]  # type: ignore[operator]
        late = gap is not None and greatest is not None and gap >= Fraction(str(greatest))
        early = gap is not None and least is not None and gap < Fraction(str(least))
        similarity = correlation(pictures[last], pictures[position])
        assert (position in kept) == (late or (not early and similarity < below))


any_rule = st.sampled_from(
    [
        {"rule": "rate", "hz": 2.5},
        {"rule": "rate", "hz": 0.3},
        {"rule": "count", "count": 5},
        {"rule": "count", "count": 40},
        {"rule": "every", "every": 3},
        {"rule": "stride", "hz": 7},
        {"rule": "all"},
    ]
)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 255), min_size=12, max_size=12), st.integers(1, 8)), min_size=1, max_size=8),
    any_rule,
    st.sampled_from([-0.5, 0.4, 0.9, 1.0]),
    st.none() | st.sampled_from([0.1, 0.5]),
    st.none() | st.sampled_from([0.5, 1.3]),
    st.lists(st.none() | fractions, min_size=64, max_size=64),
    caps,
)
def test_redundancy_leaves_out_of_any_rule_what_is_too_like_the_last_kept(
    stretches: list[tuple[list[int], int]],
    fields: dict[str, object],
    below: float,
    least: float | None,
    greatest: float | None,
    times: list[Fraction | None],
    cap: int | None,
) -> None:
    """Still stretches in any order: by brute force, of what the bare rule takes, each frame is held against the last one that was kept."""
    pictures = [np.array(value, dtype=np.uint8).reshape(3, 4) for value, length in stretches for _ in range(length)]
    times, rate = times[: len(pictures)], Fraction(25)
    bare = choose(SamplingRule.model_validate(fields), times, declared_rate=rate)
    expected: list[int] = []
    redundant: dict[int, float] = {}
    for position in bare:
        if cap is not None and len(expected) == cap:
            break
        if not expected:
            expected.append(position)
            continue
        before, now = times[expected[-1]], times[position]
        gap = None if before is None or now is None else now - before
        if gap is not None and greatest is not None and gap >= Fraction(str(greatest)):
            expected.append(position)
        elif gap is None or least is None or gap >= Fraction(str(least)):
            similarity = correlation(pictures[expected[-1]], pictures[position])
            if similarity < below:
                expected.append(position)
            else:
                redundant[position] = similarity

    redundancy = {"below": below, "least_gap_s": least, "greatest_gap_s": greatest}
    rule = SamplingRule.model_validate(fields | {"redundancy": redundancy, "cap": cap})
    assert choose(rule, times, declared_rate=rate, pictures=pictures) == expected
    sampler = Sampler(rule, rate, frozenset(bare) if rule.rule == "count" else None)
    decisions = [sampler.offer(number, time, lambda n=number: pictures[n]) for number, time in enumerate(times)]  # type: ignore[misc]
    assert [number for number, decision in enumerate(decisions) if decision.kept] == expected
    assert {number: decision.similarity for number, decision in enumerate(decisions) if decision.redundant} == redundant


@given(pictures_of, st.sampled_from([0.4, 0.9]), st.none() | st.sampled_from([0.1, 0.5]), st.lists(fractions, min_size=25, max_size=25))
def test_novelty_is_all_with_redundancy(values: list[list[int]], below: float, least: float | None, times: list[Fraction]) -> None:
    pictures = [np.array(value, dtype=np.uint8).reshape(3, 4) for value in values]
    novelty = SamplingRule(rule="novelty", below=below, least_gap_s=least)
    redundancy = SamplingRule(rule="all", redundancy=Redundancy(below=below, least_gap_s=least))
    assert choose(novelty, times[: len(pictures)], pictures=pictures) == choose(redundancy, times[: len(pictures)], pictures=pictures)


@given(st.integers(0, 2**32 - 1))
def test_correlation_is_pearsons(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (2, 9, 7)).astype(np.uint8)
    assert correlation(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-12)
    assert correlation(a, a) == pytest.approx(1)
    assert correlation(np.zeros_like(a), a) == 0
    assert correlation(np.zeros_like(a), np.full_like(a, 9)) == 1
