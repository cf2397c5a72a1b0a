"""The list of benchmarks that run in one go: nothing is missing from it, and a limit is told for what it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmark_programs import BENCHMARKS, program

# Not for every run: they take hours, draw pictures to be looked at, or belong to another program.
APART = {
    "curation",
    "external",
    "field_of_view_consensus",
    "field_of_view_sheet",
    "field_of_view_surroundings",
    "imagededup_encodings",
    "measured",
    "methods",
    "phantom_sheet",
    "planted_copies",
    "protocols",
    "recordings",
    "all",
}


@pytest.fixture
def every() -> ModuleType:
    return program("all")


def test_every_program_is_run_in_one_go_or_named_as_apart(every: ModuleType) -> None:
    listed = {each.program or each.name for each in every.BENCHMARKS}
    there = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert listed <= there
    assert there - listed == APART - listed


def test_a_limit_is_kept_or_missed_by_its_sense(every: ModuleType) -> None:
    figure = {"value": 1.6, "limit": 1.5, "sense": "at most"}
    assert every.holds(figure) is False
    assert every.holds(figure | {"sense": "at least"}) is True
    assert every.holds(figure | {"value": 1.5}) is True
    assert every.holds(figure | {"limit": None}) is None


def test_programs_are_run_told_of_and_not_run_again(
    every: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "measured.py").write_text((BENCHMARKS / "measured.py").read_text())
    (programs / "sound.py").write_text(
        "import sys\nfrom measured import hand_on\nprint('ran with', *sys.argv[1:])\n"
        "hand_on('ratio', 2.5, 'x', limit=2, sense='at least')\nhand_on('memory', 300, 'MB', limit=200, load=False)\n"
    )
    (programs / "broken.py").write_text("raise SystemExit('no luck')\n")
    benchmarks = [every.Benchmark("sound", "{set} --repeats 3", "--repeats 1"), every.Benchmark("broken", "")]
    benchmarks += [every.Benchmark("real", "{raw}", needs_clips=True)]
    monkeypatch.setattr(every, "BENCHMARKS", benchmarks)
    monkeypatch.setattr(every, "HERE", programs)
    out = tmp_path / "bench"
    (out / "made" / "raw").mkdir(parents=True)
    (out / "made" / "set").mkdir()
    monkeypatch.setattr(sys, "argv", ["all.py", str(out), "--quick"])

    with pytest.raises(SystemExit, match="broken: did not end well"):
        every.main()
    assert (out / "sound.txt").read_text().split() == ["ran", "with", str(out / "made" / "set"), "--repeats", "3", "--repeats", "1"]
    assert "no luck" in (out / "broken.txt").read_text()
    page = (out / "bench.md").read_text()
    assert "| sound | ratio | 2.5 x | ≥ 2 | kept |" in page
    assert "| sound | memory | 300 MB | ≤ 200 | **missed** |" in page
    assert "| broken | | | | FAILED |" in page
    assert "| real | | | | needs real clips: --clips CLIPS |" in page
    assert "QUICK" in page
    assert "sound ... " in capsys.readouterr().out

    # What ended well is taken over; what did not is tried again.
    (programs / "broken.py").write_text("print('mended')\n")
    every.main()
    told = capsys.readouterr().out
    assert "sound ... " not in told
    assert "broken ... " in told
    names = [figure["name"] for each in json.loads((out / "figures.json").read_text())["benchmarks"] for figure in each["figures"]]
    assert names == ["ratio", "memory"]
