"""Progress as it is read in a log: rates and times in words, and not a line every ten seconds for a whole night."""

import re
from itertools import pairwise

import pytest

from usdata import console


@pytest.mark.parametrize(
    ("rate", "told"),
    [(28.54, "28.5 clips/s"), (1.0, "1.0 clips/s"), (0.25, "4.0 s each"), (1 / 59, "59.0 s each"), (0.0, "- clips/s")],
)
def test_a_rate(rate: float, told: str) -> None:
    assert console.rate_in_words(rate, "clips") == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (320, "5 min 20 s"),
        (3_599, "59 min 59 s"),
        (11_130, "3 h 5 min"),
        (198_000, "2 d 7 h"),
        (float("inf"), "unknown time"),
        (float("nan"), "unknown time"),
    ],
)
def test_a_time(seconds: float, told: str) -> None:
    assert console.time_in_words(seconds) == told


def test_lines_of_a_long_run_come_less_and_less_often(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten hours of an epoch every nine seconds: 4,000 epochs, and a line each would be as many."""
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress("training", 4000, "epochs") as advance:
        for _ in range(4000):
            now += 9
            advance(1)
    *lines, last = capsys.readouterr().err.splitlines()
    done = [int(re.fullmatch(r"training: (\d+) of 4000 epochs, 9.0 s each, .* left", line)[1]) for line in lines]  # type: ignore[index]
    assert done[:3] == [2, 4, 6]
    assert 100 < len(done) < 300
    assert max(after - before for before, after in pairwise(done)) <= 0.03 * 4000
    assert last == "training: 4000 epochs in 10 h 0 min"


def test_what_was_done_before_says_nothing_of_the_rate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress("training", 1000, "steps", done=900) as advance:
        for _ in range(100):
            now += 0.5
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 920 of 1000 steps, 2.0 steps/s, 40 s left"
    assert lines[-1] == "training: 100 steps in 50.0 s (1000 in all)"
