"""How long an evaluation of frozen features takes: a set's frames in five folds, from a ready store, before and after features are kept.

    python benchmarks/evaluate.py SET [--weights WEIGHTS] [--image-size PIXELS] [--repeats N]

Prints a table of wall seconds and CPU seconds: the first evaluation, which computes the features, and later ones in processes of their own,
which read them (medians). The leakage guard's share, which depends on the weights' record, is in them.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from measured import hand_on

from uscl.evaluation.feature_files import PATTERN
from uscl.frames import open_store
from usdata.manifest import open_dataset

LIMIT_S = 30.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--weights", default="random")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    dataset = open_dataset(given.dataset)
    store = open_store(dataset, size=given.image_size)
    print(
        f"{len(dataset.frames):,} frames of {dataset.name} at {given.image_size} x {given.image_size}, weights {Path(given.weights).name}"
    )
    for path in store.path.parent.glob(PATTERN):
        path.unlink()  # kept features, which are made again
    print(f"| evaluation | wall, s | CPU, s |\n|---|--:|--:|\n| linear, features computed | {timed(given, 'linear')} |")
    for kind, options in (("linear", []), ("knn", []), ("linear", ["--label-shares", "1,5,10,25,50,100"])):
        times = [timed_pair(given, kind, options) for _ in range(given.repeats)]
        wall, cpu = (statistics.median(each[position] for each in times) for position in (0, 1))
        hand_on(f"{' '.join([kind, *options])}, features kept", wall, "s", limit=None if options else LIMIT_S)
        print(f"| {' '.join([kind, *options])}, features kept | {wall:.1f} | {cpu:.1f} |", flush=True)


def timed(given: argparse.Namespace, kind: str) -> str:
    wall, cpu = timed_pair(given, kind, [])
    return f"{wall:.1f} | {cpu:.1f}"


def timed_pair(given: argparse.Namespace, kind: str, options: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one command, from its start to its end."""
    with TemporaryDirectory() as place:
        command = [sys.executable, "-m", "uscl", "evaluate", kind, str(given.dataset), "--weights", given.weights, "--out", f"{place}/out"]
        before, began = children_s(), time.perf_counter()
        subprocess.run([*command, "--image-size", str(given.image_size), "--folds", "5", *options], check=True, capture_output=True)
        found = time.perf_counter() - began, children_s() - before
        shutil.rmtree(f"{place}/out")
    return found


def children_s() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
