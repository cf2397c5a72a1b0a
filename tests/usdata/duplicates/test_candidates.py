"""Candidates: the exact search against loops over every pair, the index against the exact search, bands on disk against arrays."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from usdata.duplicates import all_pairs, bands, candidates, index, nearest, setting_up
from usdata.duplicates.bands import Bands, StoredBands, write_bands
from usdata.duplicates.candidates import LEAST_LIKE, Candidate
from usdata.duplicates.descriptors import CELLS, MIRRORED, NUMBERS, WHOLE_NUMBERS
from usdata.errors import DataSetError

needs_faiss = pytest.mark.skipif(not index.is_installed(), reason="faiss, of the extra 'index', is not installed")


def rounded(values: NDArray[np.floating]) -> NDArray[np.int8]:
    units = values / np.linalg.norm(values, axis=-1, keepdims=True)
    return np.clip(np.rint(units * WHOLE_NUMBERS), -127, 127).astype(np.int8)


def made(clips: int, seed: int, patients: int = 20) -> NDArray[np.int8]:
    """Descriptors whose cells hang together, of clips that are more or less like one another."""
    rng = np.random.default_rng(seed)
    shared, patient = rng.normal(size=(len(CELLS), NUMBERS)), rng.normal(size=(patients, 1, NUMBERS))
    own = rng.normal(size=(clips, 1, NUMBERS))
    detail = rng.normal(size=(clips, len(CELLS), NUMBERS))
    return rounded(0.4 * shared + 0.8 * patient[rng.integers(patients, size=clips)] + own + 0.5 * detail)


def copies(descriptors: NDArray[np.int8], seed: int, noise: float = 0.5) -> NDArray[np.int8]:
    """Of each clip, one whose whole picture is like one of its cells, every third mirrored."""
    rng = np.random.default_rng(seed)
    found = []
    for place, clip in enumerate(descriptors.astype(np.float64)):
        cell = int(rng.integers(len(CELLS)))
        copy = clip[cell] + rng.normal(size=(len(CELLS), NUMBERS)) * noise * WHOLE_NUMBERS / np.sqrt(NUMBERS)
        found.append(copy * MIRRORED if place % 3 == 0 else copy)
    return rounded(np.stack(found))


def slow_likeness(a: NDArray[np.int8], b: NDArray[np.int8]) -> list[tuple[float, bool, bool, int]]:
    """(likeness, mirrored, the second way round, cell) of each way of laying one clip on the other."""
    found = []
    for flip in (False, True):
        for around, (one, other) in enumerate(((a, b), (b, a))):
            whole = one[0].astype(float) * (MIRRORED if flip else 1)
            for cell, values in enumerate(other.astype(float)):
                found.append((float(whole @ values / np.linalg.norm(whole) / np.linalg.norm(values)), flip, bool(around), cell))
    return found


def slow_candidates(a: NDArray[np.int8], b: NDArray[np.int8] | None, most: int) -> dict[tuple[int, int], float]:
    other = a if b is None else b
    likeness = {
        (i, j): round(max(slow_likeness(a[i], other[j]))[0], 4) for i in range(len(a)) for j in range(i + 1 if b is None else 0, len(other))
    }
    kept = set()
    for side in (0, 1):
        for clip in range(len((a, other)[side])):
            pairs = [pair for pair in likeness if pair[side] == clip or (b is None and pair[1 - side] == clip)]
            pairs = [pair for pair in pairs if likeness[pair] >= LEAST_LIKE]
            kept |= set(sorted(pairs, key=lambda pair: (-likeness[pair], sum(pair) - clip if b is None else pair[1 - side]))[:most])
    return {pair: likeness[pair] for pair in kept}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that few clips fill many of them."""
    for module in (bands, all_pairs, setting_up, index):
        monkeypatch.setattr(module, "BAND", 16)
    monkeypatch.setattr(all_pairs, "WHOLES", 8)
    monkeypatch.setattr(all_pairs, "CELLED", 3)
    monkeypatch.setattr(setting_up, "BLOCK", 7)
    monkeypatch.setattr(nearest, "MOST_HELD", 40)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("most", [2, 5])
def test_exact_candidates_within_a_set_are_those_of_loops_over_all_pairs(most: int) -> None:
    first = made(30, seed=0, patients=4)
    both = np.concatenate([first, copies(first[:12], seed=1)])
    found = candidates.candidates(both, most=most)
    assert [(each.a, each.b) for each in found] == sorted({(each.a, each.b) for each in found})
    expected = slow_candidates(both, None, most)
    assert {(each.a, each.b): pytest.approx(each.likeness, abs=2e-4) for each in found} == expected
    assert {(place, 30 + place) for place in range(12)} <= set(expected)


@pytest.mark.usefixtures("small_blocks")
def test_exact_candidates_between_two_sets_are_those_of_loops() -> None:
    first, second = made(20, seed=2, patients=3), made(33, seed=3, patients=3)
    second[5:15] = copies(first[:10], seed=4)
    found = candidates.candidates(first, second, most=3)
    assert {(each.a, each.b): pytest.approx(each.likeness, abs=2e-4) for each in found} == slow_candidates(first, second, 3)
    assert candidates.candidates(first, second[:0]) == []
    assert candidates.candidates(first[:1]) == []


def test_starts_are_the_best_ways_that_lie_apart() -> None:
    first = made(6, seed=5, patients=1)
    second = copies(first, seed=6)
    for each in candidates.candidates(first, second):
        ways = sorted(slow_likeness(first[each.a], second[each.b]), key=lambda way: (-round(way[0], 4), *way[1:]))
        kept: list[candidates.Start] = []
        for way in ways:
            start = candidates.Start(*way[1:])
            near = any(start.flip == other.flip and start.placement.distance(other.placement) <= setting_up.APART for other in kept)
            if not near and len(kept) < setting_up.STARTS:
                kept.append(start)
        assert list(each.starts) == kept
        if each.a == each.b:
            assert each.starts[0].flip == (each.a % 3 == 0)


def test_a_flat_picture_is_like_nothing() -> None:
    descriptors = made(5, seed=7, patients=1)
    descriptors[2] = 0
    descriptors[3, 4] = 0  # one cell is flat; the others count
    found = {(each.a, each.b) for each in candidates.candidates(descriptors)}
    assert found
    assert not any(2 in pair for pair in found)
    assert any(3 in pair for pair in found)


@needs_faiss
def test_the_index_finds_what_the_exact_search_keeps_of_planted_pairs() -> None:
    clips = made(3000, seed=8, patients=200)
    clips[1500:1800] = copies(clips[:300], seed=9, noise=0.7)
    planted = {(place, 1500 + place) for place in range(300)}
    exact, found = ({(each.a, each.b): each for each in candidates.candidates(clips, indexed=indexed)} for indexed in (False, True))
    kept = planted & set(exact)
    assert len(kept) > 250
    assert len(kept & set(found)) >= 0.99 * len(kept)
    assert all(found[pair] == exact[pair] for pair in set(found) & set(exact))


@needs_faiss
@pytest.mark.usefixtures("small_blocks")
def test_the_index_gives_one_answer_for_any_number_of_threads_and_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr(index, "SHARD", 64)
    monkeypatch.setattr(index, "CELLS_IN_LIST", 100)
    first, second = made(200, seed=10), made(150, seed=11)
    second[40:80] = copies(first[:40], seed=12)
    stored = write_bands(tmp_path / "first.parquet", [([str(place) for place in range(200)], first)])
    answers: list[list[Candidate]] = []
    before = faiss.omp_get_max_threads()
    try:
        for threads in (1, 2, 3):
            faiss.omp_set_num_threads(threads)
            with threadpool_limits(threads):
                answers += [candidates.candidates(each, second, indexed=True) for each in (first, stored)]
    finally:
        faiss.omp_set_num_threads(before)
    assert all(answer == answers[0] for answer in answers)
    assert {(place, 40 + place) for place in range(40)} <= {(each.a, each.b) for each in answers[0]}
    within = candidates.candidates(np.concatenate([first, second]), indexed=True)
    assert {(place, 240 + place) for place in range(40)} <= {(each.a, each.b) for each in within}
    assert all(each.a < each.b for each in within)


def test_where_clips_are_many_and_there_is_no_index_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clips = made(30, seed=13, patients=2)
    exact = candidates.candidates(clips)
    monkeypatch.setattr(candidates, "INDEXED", 10)
    monkeypatch.setattr(candidates, "SLOW", 20)
    monkeypatch.setattr(index, "is_installed", lambda: False)
    assert candidates.candidates(clips) == exact
    assert "pip install 'usdata-uscl[index]'" in capsys.readouterr().err
    monkeypatch.setattr(candidates, "SLOW", 40)
    assert candidates.candidates(clips) == exact
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("clips", [0, 1, 16, 50])
def test_bands_on_disk_are_what_was_written(tmp_path: Path, clips: int) -> None:
    descriptors = made(clips, seed=14) if clips else np.zeros((0, len(CELLS), NUMBERS), np.int8)
    ids = [f"clip-{place}" for place in range(clips)]
    cuts = [0, min(3, clips), min(40, clips), clips]
    parts = ((ids[start:end], descriptors[start:end]) for start, end in pairwise(cuts))
    write_bands(tmp_path / "clips.parquet", parts)
    stored, array = StoredBands(tmp_path / "clips.parquet"), Bands(descriptors)
    assert len(stored) == len(array) == clips
    assert stored.video_ids == ids
    assert stored.number == array.number == -(-clips // 16)
    for number in range(stored.number):
        np.testing.assert_array_equal(stored.band(number), array.band(number))
    np.testing.assert_array_equal(stored.wholes, array.wholes)


def test_a_file_that_holds_no_descriptors_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataSetError, match=r"broken\.parquet"):
        StoredBands(tmp_path / "broken.parquet")
