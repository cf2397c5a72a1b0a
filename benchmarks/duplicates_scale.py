"""How the search for the same scan grows with the number of clips: time, memory, and what the index misses.

    python benchmarks/duplicates_scale.py grow SET [SET ...] [--clips 1000 10000 100000] [--engines exact index] [--threads 2]
    python benchmarks/duplicates_scale.py real SET [SET ...] [--clips 240] [--workers 2]

SET are built data sets of real clips. `real` takes so many of their clips through all three steps. `grow` makes descriptors of as many clips as
asked for from their key frames, plants true pairs, and times candidates and the setting-up of their verification, each in a process of its own.

How made: BASES pictures are drawn from real clips, each bent, cropped, gamma-changed, perhaps mirrored, and blended with another clip, then
described by the real code. A made clip is a mixture of three bases, the weights the same in each cell, which is what blending their evened-out pictures
would give but for rounding; so its cells hang together as a real clip's do. A planted pair is a base of its own and a copy of it: cropped (not along the grid
of cells), part of its key frames, gamma, noise, JPEG, a fourth of them mirrored; both are described from their pictures. What this does not show: clips from more
machines than the real sets have; made clips are nearer to one another than strangers would be, which is hard on the index, not easy.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from usdata.duplicates.candidates import LEAST_LIKE, MOST, candidates
from usdata.duplicates.descriptors import CELLS, MIRRORED, NUMBERS, describe
from usdata.duplicates.key_frames import SIDE, read_key_frames
from usdata.duplicates.search import Clips, set_up

BASES, MIXED, MAIN_WEIGHT = 4000, 3, 6.0
PLANTED_SHARE, MOST_PLANTED, SAMPLE = 0.1, 1000, 200
Bytes = NDArray[np.uint8]
Whole = NDArray[np.int8]


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
    for each in (grow_parser, once_parser):
        each.add_argument("--threads", type=int, default=2)
    real_parser.add_argument("--clips", type=int, default=240)
    real_parser.add_argument("--workers", type=int, default=2)
    once_parser.add_argument("engine")
    once_parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.verb == "real":
        real(given.sets, given.clips, given.workers)
    elif given.verb == "once":
        once(given.engine, given.folder, given.threads)
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
        mixed = mixed / np.linalg.norm(mixed, axis=2, keepdims=True) * 254
        part[:] = np.clip(np.rint(mixed), -127, 127)
    return made
