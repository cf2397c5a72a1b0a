"""A small part of the damaged corpus at every test run; the whole by `python -m tests.usdata.damaged_inputs --count 2400`."""

from pathlib import Path

import pytest

from tests.usdata.damaged_inputs import build_of, make_inputs


def check(folder: Path, count: int, seed: int) -> None:
    assert make_inputs(folder / "raw", count, seed=seed) == count
    figures = build_of(folder / "raw", folder / "set")
    assert figures["inputs"] == count
    assert figures["lost"] == []
    counts = figures["counts"]
    assert counts["found"] == counts["ok"] + counts["excluded"] + counts["failed"] >= count
    assert figures["failures"].get("time", 0) == 0
    # Much is damaged, and much of that can be read in part: a build that refuses all or keeps all is not at work.
    assert counts["failed"] > count // 10
    assert figures["damaged_and_kept"] > count // 20


def test_a_part_of_the_corpus(tmp_path: Path) -> None:
    check(tmp_path, 150, seed=0)
    # Nothing was written beside the inputs and the set.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "set"]


def test_equal_seeds_give_equal_inputs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_inputs(tmp_path / name, 300, seed=3)
    assert [path.name for path in sorted((tmp_path / "a").iterdir())] == [path.name for path in sorted((tmp_path / "b").iterdir())]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_the_whole_corpus(tmp_path: Path) -> None:
    check(tmp_path, 2400, seed=0)
