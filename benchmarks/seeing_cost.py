"""What seeing costs: field of view, mode, overlays, ruler and repetition, against decoding the same clips in the same run.

    python benchmarks/seeing_cost.py CLIPS [--repeats 3] [--every 1]

Each clip is decoded to gray by the reader that a build uses, and the time of a bare pass is set beside the time that the same pass's frames
take in each collector and in what follows the pass. CPU time of this process; one thread. Printed: the median over repeats of the ratio of
sums.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path

import cv2
from measured import hand_on

from usdata.errors import ReadError
from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.repetition import RepetitionCollector
from usdata.readers import open_clip
from usdata.seeing import Seeing, see

LIMIT = 0.35
PARTS = ("evidence", "repetition", "seeing")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="take every n-th clip")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    suffixes = {".mp4", ".avi", ".mov", ".mpeg", ".mpg"}
    paths = sorted(path for path in given.clips.rglob("*") if path.suffix.lower() in suffixes)[:: given.every]
    runs: list[dict[str, float]] = []
    clips = frames = 0
    for repeat in range(given.repeats):
        seconds: dict[str, float] = defaultdict(float)
        clips = frames = 0
        for path in paths:
            try:
                seen = measure(path, seconds)
            except ReadError as error:
                if repeat == 0:
                    print(f"{path.name}: {error.reason}")
                continue
            clips, frames = clips + 1, frames + seen
        runs.append(dict(seconds))
    print(f"{clips} clips, {frames:,} frames; decoding {1000 * runs[-1]['decoding'] / frames:.2f} ms a frame")
    print("| part | of decoding | ms a clip |\n|---|--:|--:|")
    for part in PARTS:
        ratio = statistics.median(run[part] / run["decoding"] for run in runs)
        print(f"| {part} | {ratio:.3f} | {1000 * statistics.median(run[part] for run in runs) / clips:.1f} |")
    whole = statistics.median(sum(run[part] for part in PARTS) / run["decoding"] for run in runs)
    hand_on("field of view, mode, overlays, ruler, repetition over decoding", whole, "x", limit=LIMIT)
    print(f"| all | {whole:.3f} (limit {LIMIT}) | |")


def measure(path: Path, seconds: dict[str, float]) -> int:
    """Add one clip's times; gives its frames."""
    start = time.process_time()
    with open_clip(path) as clip:
        count = sum(1 for _ in clip.frames())
    seconds["decoding"] += time.process_time() - start
    repetition = RepetitionCollector()
    with open_clip(path) as clip:
        evidence = EvidenceCollector(clip.info.frames_declared)
        for frame in clip.frames():
            start = time.process_time()
            evidence.offer(frame.pixels, clip.picture)
            between = time.process_time()
            repetition.offer(frame.pixels)
            seconds["evidence"] += between - start
            seconds["repetition"] += time.process_time() - between
        info = clip.info
    start = time.process_time()
    repetition.found()
    between = time.process_time()
    seconds["repetition"] += between - start
    see(evidence, info, Seeing(), "gray")
    seconds["seeing"] += time.process_time() - between
    return count


if __name__ == "__main__":
    main()
