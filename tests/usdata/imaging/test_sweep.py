"""Strips drawn over time: M-modes and spectra laid out from physics, encoded and read back; ECG traces, tissue and stills are none."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.benchmark_programs import program
from usdata.imaging.sweep import Sweep, sweep_of
from usdata.phantoms.encoding import write_clip

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def modes() -> ModuleType:
    """benchmarks/modes.py, which draws the displays."""
    return program("modes")


def seen(modes: ModuleType, folder: Path, truth: str, seed: int, **options: object) -> Sweep | None:
    rng = np.random.default_rng([11, seed])
    frames, fps, _ = modes.draw(truth, modes.phantom(seed % 8), rng, **options)
    write_clip(folder / "clip.mp4", frames, fps)
    return sweep_of(modes.sample(folder / "clip.mp4"))


@pytest.mark.parametrize("truth", ["m_mode", "spectral"])
@pytest.mark.parametrize("layout", ["alone", "under"])
@pytest.mark.parametrize("scrolls", [False, True])
def test_strips_are_found(modes: ModuleType, tmp_path: Path, truth: str, layout: str, scrolls: bool) -> None:
    found = seen(modes, tmp_path, truth, 3, layout=layout, scrolls=scrolls)
    if scrolls and layout == "alone" and found is None:
        return  # a strip that fills the picture might be a probe that glides along
    assert found is not None
    assert found.style == ("scroll" if scrolls else "sweep")
    assert found.kind in (truth, None)


@pytest.mark.parametrize("seed", range(6))
def test_ecg_trace_is_no_strip(modes: ModuleType, tmp_path: Path, seed: int) -> None:
    found = seen(modes, tmp_path, "trace", seed)
    assert found is None or found.style == "trace"


@pytest.mark.parametrize("seed", range(6))
def test_tissue_is_none(modes: ModuleType, tmp_path: Path, seed: int) -> None:
    assert seen(modes, tmp_path, "b_mode", seed) is None


def sweeping(step: int, count: int = 20, width: int = 320, gap: int = 6) -> list[NDArray[np.uint8]]:
    """A strip 120 high of fresh noise each round, at y 100 and x 20 to 300; the cursor goes `step` columns a frame."""
    rng = np.random.default_rng(0)
    wide = 280
    drawn = rng.integers(30, 220, (120, wide + step * count + 1), dtype=np.uint8)
    frames = []
    for number in range(count):
        now = wide + step * number
        picture = np.zeros((240, width), np.uint8)
        picture[100:220, 20:300] = drawn[:, now - (now - np.arange(wide)) % wide]
        picture[100:220, 20 + (now + 1 + np.arange(gap)) % wide] = 0
        frames.append(picture)
    return frames


@pytest.mark.parametrize("step", [8, 25, 60, 150])
def test_box_is_where_the_strip_is(step: int) -> None:
    found = sweep_of(sweeping(step))
    assert found is not None
    assert found.style == "sweep"
    assert abs(found.x - 20) <= 4
    assert abs(found.x + found.width - 300) <= 4
    assert abs(found.y - 100) <= 12
    assert abs(found.y + found.height - 220) <= 12


def test_nearly_a_round_between_frames_is_not_told() -> None:
    assert sweep_of(sweeping(265)) is None


def test_cursor_running_left_is_no_sweep() -> None:
    assert sweep_of([np.ascontiguousarray(frame[:, ::-1]) for frame in sweeping(25)]) is None


@pytest.mark.parametrize("step", [6, 20, 45])
def test_scroll(step: int) -> None:
    rng = np.random.default_rng(1)
    drawn = rng.integers(30, 220, (120, 280 + step * 20), dtype=np.uint8)
    frames = []
    for number in range(20):
        picture = np.zeros((240, 320), np.uint8)
        picture[100:220, 20:300] = drawn[:, step * number : step * number + 280]
        frames.append(picture)
    found = sweep_of(frames)
    assert found is not None
    assert found.style == "scroll"
    assert abs(found.y - 100) <= 12
    assert abs(found.x - 20) <= 16
    assert sweep_of(frames[::-1]) is None, "what moves right is no scroll"


def test_stills_and_short_clips_are_none() -> None:
    frames = sweeping(25)
    assert sweep_of([]) is None
    assert sweep_of(frames[:1]) is None
    assert sweep_of(frames[:5]) is None
    assert sweep_of([frames[0]] * 20) is None
    assert sweep_of([np.zeros((4, 240), np.uint8)] * 20) is None


def test_noise_is_none() -> None:
    rng = np.random.default_rng(2)
    for spread in (3, 12, 60):
        frames = [np.clip(rng.normal(90, spread, (240, 320)), 0, 255).astype(np.uint8) for _ in range(16)]
        assert sweep_of(frames) is None


def test_same_frames_same_answer() -> None:
    frames = sweeping(25)
    assert len({sweep_of([frame.copy() for frame in frames]) for _ in range(3)}) == 1


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "pocus_lung").is_dir(), reason="the real clips of ../shared/data are not here")
def test_real_b_mode_is_none(modes: ModuleType) -> None:
    paths = [*modes.clips_of(DATA / "pocus_lung")[::6], *modes.clips_of(DATA / "covid_blues")[::12]]
    called = {path.name: found for path in paths if (found := sweep_of(modes.sample(path))) is not None}
    assert not called


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "dicom").is_dir(), reason="the real clips of ../shared/data are not here")
def test_real_ecg_is_a_trace(modes: ModuleType) -> None:
    found = sweep_of(modes.sample(DATA / "dicom" / "fo-dicom__DIRW0007"))
    assert found is not None
    assert found.style == "trace"
