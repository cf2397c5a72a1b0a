"""How the search for the same scan grows with the number of clips: time, memory, and what the index misses.

    python benchmarks/duplicates_scale.py grow SET [SET ...] [--clips 1000 10000 100000] [--engines exact index]
    python benchmarks/duplicates_scale.py real SET [SET ...] [--clips 240] [--workers 2]

SET are built data sets of real clips. `real` takes so many of their clips through all three steps. `grow` makes descriptors of as many
clips as asked for from their key frames, plants true pairs, and times candidates and the setting-up of their verification, each in a
process of its own: wall and processor time (on a shared machine the second is the steadier), and the process' highest memory. Where the
exact search is left out, all clips are compared with those of every planted pair that the index missed, and of SAMPLE that it found.

How clips are made: BASES pictures are drawn from real clips, each bent smoothly, cropped, its gamma changed, perhaps mirrored, and blended
with another clip, then described by the real code. A made clip is a mixture of MIXED bases, the weights the same in each cell, which is
what blending their evened-out pictures would give but for rounding; so its cells hang together as a real clip's do. A planted pair is
a base of its own and a copy: part of its key frames, cropped off the grid of cells, blurred, gamma, noise, JPEG, a fourth of them
mirrored; both are described from their pictures, and mixtures hold that base too. What this does not show: clips from more machines than
the real sets have. In 100,000 clips each base is the main one of 20, so strangers are nearer to one another than they would be.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet
from measured import hand_on
from numpy.typing import NDArray

from usdata.duplicates import candidates as searching
from usdata.duplicates.all_pairs import _best, _units
from usdata.duplicates.bands import BAND, Bands, StoredBands, write_bands
from usdata.duplicates.candidates import LEAST_LIKE, MOST, candidates
from usdata.duplicates.descriptors import CELLS, NUMBERS, WHOLE_NUMBERS, describe
from usdata.duplicates.key_frames import SIDE, read_key_frames
from usdata.duplicates.search import Clips, chunked, describe_clips, same_scans
from usdata.engines import runner

BASES, MIXED, MAIN_WEIGHT = 4000, 3, 6.0
PLANTED_SHARE, MOST_PLANTED, SAMPLE = 0.1, 1000, 50
Bytes = NDArray[np.uint8]
Whole = NDArray[np.int8]
LIMIT_S = 60.0  # for 240 clips


def main() -> None:
    """Choose what to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    grow_parser, real_parser = verbs.add_parser("grow"), verbs.add_parser("real")
    once_parser = verbs.add_parser("once")  # what `grow` starts, one process a measurement
    for each in (grow_parser, real_parser):
        each.add_argument("sets", type=Path, nargs="+")
    grow_parser.add_argument("--clips", type=int, nargs="+", default=[1000, 10_000, 100_000])
    grow_parser.add_argument("--engines", nargs="+", default=["exact", "index"])
    grow_parser.add_argument("--most-exact", type=int, default=10_000, help="clips beyond which the exact search is left out")
    grow_parser.add_argument("--made", type=Path, help="folder to keep the made descriptors in, or to find them in")
    real_parser.add_argument("--clips", type=int, default=240)
    real_parser.add_argument("--workers", type=int, default=2)
    once_parser.add_argument("engine")
    once_parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.verb == "real":
        real(given.sets, given.clips, given.workers)
    elif given.verb == "once":
        once(given.engine, given.folder)
    elif given.made:
        grow(given, given.made)
    else:
        with tempfile.TemporaryDirectory() as folder:
            grow(given, Path(folder))


def stacks(sets: list[Path]) -> list[Bytes]:
    """The key frames of all clips, (N, SIDE, SIDE) each."""
    found = []
    for folder in sets:
        clips = Clips.of(folder, pyarrow.parquet.read_table(folder / "videos.parquet").to_pylist())
        frames = [read_key_frames(folder, row) for row in clips.rows]
        found += [each.pictures for each in frames if each is not None]
    return found


def bent(pictures: Bytes, rng: np.random.Generator) -> Bytes:
    """Frames as another patient might show them: bent smoothly, cropped, another gamma, perhaps mirrored."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    bends = [cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)).astype(np.float32), (0, 0), 8) for _ in range(2)]
    bends = [each / each.std() * rng.uniform(1.5, 3.5) for each in bends]
    scale_x, scale_y = rng.uniform(0.75, 1.0, 2)
    left, top = rng.uniform(0, 1, 2) * (1 - np.array([scale_x, scale_y])) * SIDE
    across, down = (np.asarray(each, np.float32) for each in (columns * scale_x + left + bends[0], rows * scale_y + top + bends[1]))
    turned = slice(None, None, -1 if rng.random() < 0.5 else 1)
    table = (255 * (np.arange(256) / 255) ** rng.uniform(0.6, 1.5)).astype(np.uint8)
    return np.stack([table[cv2.remap(each, across, down, cv2.INTER_LINEAR)] for each in pictures])[:, :, turned]


def base(real: list[Bytes], rng: np.random.Generator) -> NDArray[np.float32]:
    """Frames of a clip that never was: one bent clip, blended with the mean of another."""
    one, other = (bent(real[rng.integers(len(real))][:24], rng).astype(np.float32) for _ in range(2))
    share = rng.uniform(0.2, 0.45)
    return np.asarray((1 - share) * one + share * other.mean(axis=0), np.float32)


def copied(frames: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The mean picture of a copy of a clip."""
    kept = math.ceil(len(frames) * rng.uniform(0.5, 1))
    start = rng.integers(len(frames) - kept + 1)
    width = rng.uniform(0.75, 1)
    height = np.clip(width * np.exp(rng.uniform(-0.2, 0.2)), 0.75, 1)
    left, top = (rng.uniform(0, 1) * (1 - size) for size in (width, height))
    left, right, top, bottom = (round(each * SIDE) for each in (left, left + width, top, top + height))
    mean = cv2.resize(frames[start : start + kept].mean(axis=0)[top:bottom, left:right], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    mean = 255 * (np.clip(mean, 0, 255) / 255) ** rng.uniform(0.7, 1.4) * rng.uniform(0.8, 1.1)
    mean = cv2.GaussianBlur(mean, (0, 0), rng.uniform(0.3, 1.2))
    noisy = np.clip(mean + rng.normal(0, rng.uniform(0, 10), mean.shape), 0, 255).astype(np.uint8)
    coded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 95))])[1]
    picture = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.float32)
    return np.ascontiguousarray(picture[:, ::-1]) if rng.random() < 0.25 else picture


_REAL: list[Bytes] = []


def _keep_real(real: list[Bytes]) -> None:
    _REAL[:] = real
    cv2.setNumThreads(1)


def _described_base(seed: int) -> Whole:
    return describe(base(_REAL, np.random.default_rng([1, seed])).mean(axis=0))


def _described_pair(seed: int) -> Whole:
    rng = np.random.default_rng([2, seed])
    frames = base(_REAL, rng)
    return np.stack([describe(frames.mean(axis=0)), describe(copied(frames, rng))])


def bases_and_pairs(real: list[Bytes], pairs: int) -> tuple[Whole, Whole]:
    """(BASES, cells, numbers) and (pairs, 2, cells, numbers)."""
    with multiprocessing.get_context("spawn").Pool(2, _keep_real, (real,)) as pool:
        return np.stack(pool.map(_described_base, range(BASES), 50)), np.stack(pool.map(_described_pair, range(pairs), 50))


def mixtures(bases: Whole, number: int, seed: int) -> Whole:
    """So many made clips, (number, cells, numbers)."""
    rng = np.random.default_rng([3, seed])
    made = np.zeros((number, len(CELLS), NUMBERS), np.int8)
    for start in range(0, number, 1000):
        part = made[start : start + 1000]
        chosen = rng.integers(len(bases), size=(len(part), MIXED))
        weights = rng.dirichlet([MAIN_WEIGHT, *[2.0] * (MIXED - 1)], size=len(part)).astype(np.float32)
        mixed = sum(bases[chosen[:, each]] * weights[:, each, None, None] for each in range(MIXED))
        mixed = mixed / np.linalg.norm(mixed, axis=2, keepdims=True) * WHOLE_NUMBERS
        part[:] = np.clip(np.rint(mixed), -127, 127)
    return made


def grow(given: argparse.Namespace, folder: Path) -> None:
    """Make the clips, measure each number of them by each engine."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(not (folder / str(clips) / "clips.parquet").exists() for clips in given.clips):
        bases, pairs = bases_and_pairs(stacks(given.sets), MOST_PLANTED)
        for clips in given.clips:
            make(folder / str(clips), bases, pairs, clips)
    print("engine   clips   wall s    cpu s   memory MB   pairs a clip   planted found   (stages: wall s)", flush=True)
    for clips in given.clips:
        for engine in given.engines:
            if engine != "exact" or clips <= given.most_exact:
                command = [sys.executable, __file__, "once", engine, str(folder / str(clips))]
                subprocess.run(command, check=True)
        report_recall(folder / str(clips), given.engines)


def make(folder: Path, bases: Whole, pairs: Whole, clips: int) -> None:
    """Made clips with planted pairs among them: clips.parquet and places.npy, (pairs, 2)."""
    folder.mkdir(exist_ok=True)
    planted = pairs[: min(len(pairs), int(clips * PLANTED_SHARE / 2))]
    made = mixtures(np.concatenate([bases, pairs[:, 0]]), clips, clips)
    places = np.random.default_rng([4, clips]).permutation(clips)[: planted.shape[0] * 2].reshape(-1, 2)
    made[places] = planted
    np.save(folder / "places.npy", np.sort(places, axis=1))
    write_bands(
        folder / "clips.parquet", (([str(n) for n in range(s, min(s + BAND, clips))], made[s : s + BAND]) for s in range(0, clips, BAND))
    )


def once(engine: str, folder: Path) -> None:
    """Candidates and the setting-up of their verification, once, in this process."""
    stages: dict[str, float] = {}

    def timed(module: Any, name: str) -> None:
        function = getattr(module, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            stages[name] = stages.get(name, 0) + time.perf_counter() - start
            return result

        setattr(module, name, wrapped)

    for module, name in ((searching, "set_up"), (searching.index, "_centres"), (searching.index, "_shard"), (searching.index, "_searched")):
        timed(module, name)
    start, start_cpu = time.perf_counter(), time.process_time()
    bands = StoredBands(folder / "clips.parquet")
    found = candidates(bands, indexed=engine == "index")
    rows = tuple({"video_id": video_id} for video_id in bands.video_ids)
    tasks = chunked(Clips(folder, rows), Clips(folder, rows), found)
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    pairs = np.array([[each.a, each.b] for each in found]).reshape(-1, 2)
    np.save(folder / f"{engine}.npy", pairs)
    known = {tuple(pair) for pair in pairs.tolist()}
    planted = np.load(folder / "places.npy").tolist()
    share = sum(tuple(pair) in known for pair in planted) / len(planted)
    parts = ", ".join(f"{name.strip('_')} {seconds:.1f}" for name, seconds in stages.items())
    print(
        f"{engine:6} {len(bands):7} {wall:8.1f} {cpu:8.1f} {highest_memory_mb():11.0f} {len(pairs) / len(bands):14.1f} {share:15.4f}"
        f"   ({parts}; {len(tasks)} tasks)",
        flush=True,
    )


def highest_memory_mb() -> float:
    """VmHWM of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def report_recall(folder: Path, engines: list[str]) -> None:
    """Of the pairs that the exact search keeps, how many the index found."""
    if "index" not in engines or not (folder / "index.npy").exists():
        return
    by_index = {tuple(pair) for pair in np.load(folder / "index.npy").tolist()}
    planted = [tuple(pair) for pair in np.load(folder / "places.npy").tolist()]
    found, missed = ([pair for pair in planted if (pair in by_index) == wanted] for wanted in (True, False))
    if (folder / "exact.npy").exists():
        exact = {tuple(pair) for pair in np.load(folder / "exact.npy").tolist()}
        print(f"       of all exact candidates the index found {len(exact & by_index) / len(exact):.4f}")
        kept, lost = sum(pair in exact for pair in found), sum(pair in exact for pair in missed)
    else:
        clips, sample = StoredBands(folder / "clips.parquet"), found[:: max(1, len(found) // SAMPLE)]
        kept = round(len(kept_by_brute_force(clips, sample)) / len(sample) * len(found))
        lost = len(kept_by_brute_force(clips, missed))
    print(f"       of {kept + lost} planted pairs that brute force keeps the index found {kept / (kept + lost):.4f}", flush=True)


def kept_by_brute_force(clips: Bands, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those of some pairs in which one is among the MOST nearest of the other, both compared with all clips."""
    if not pairs:
        return []
    sample = np.array(pairs).ravel()
    chosen = np.stack([clips.band(place // BAND)[place % BAND] for place in sample.tolist()])
    wholes, cells = _units(chosen[:, 0]), _units(chosen)
    parts = []
    for number in range(clips.number):
        band = clips.band(number)
        parts.append(np.maximum(_best(wholes, _units(band)), _best(_units(band[:, 0]), cells).T))
    likeness = np.concatenate(parts, axis=1)
    rows = np.arange(len(sample))
    likeness[rows, sample] = -1
    twin = sample.reshape(-1, 2)[:, ::-1].ravel()
    own = likeness[rows, twin]
    near = (np.count_nonzero(likeness > own[:, None], axis=1) < MOST) & (own >= LEAST_LIKE)
    return [pair for pair, kept in zip(pairs, near.reshape(-1, 2).any(axis=1).tolist(), strict=True) if kept]


def real(sets: list[Path], number: int, workers: int) -> None:
    """All pairs of real clips, by stages."""
    rows = [
        {
            **row,
            "video_id": f"{folder.name}/{row['video_id']}",
            "key_frames_path": row["key_frames_path"] and str(folder.resolve() / row["key_frames_path"]),
        }
        for folder in sets
        for row in pyarrow.parquet.read_table(folder / "videos.parquet").to_pylist()
    ]
    clips = Clips.of(Path("/"), rows)
    step = len(clips.rows) / number
    chosen = Clips(clips.folder, tuple(clips.rows[int(place * step)] for place in range(number)))
    run = runner("local", workers)
    start = time.perf_counter()
    described = describe_clips(chosen)
    describing = time.perf_counter() - start
    start = time.perf_counter()
    found = candidates(described)
    finding = time.perf_counter() - start
    start = time.perf_counter()
    matches = same_scans(chosen, None, run)
    whole = time.perf_counter() - start
    hand_on(f"all pairs of {number} clips, to the verdict", whole, "s", limit=LIMIT_S if number == 240 else None)
    print(f"{number} clips, {len(found)} candidates, {len(matches)} matches; {workers} workers: {whole:.1f} s in all")
    print(f"of it: describing (one process alone) {describing:.1f} s, candidates {finding:.2f} s, the rest is verification")


if __name__ == "__main__":
    main()
