"""What the digests of packets and luma cost, against decoding the same clips in the same run; and what plain hashes of all pixels would.

    OMP_NUM_THREADS=1 python benchmarks/exact_layers.py CLIPS [--repeats 3] [--every 1]

Each video is decoded to gray by the reader that a build uses, without digests: the bare pass. Beside it stand the times of the digest of
its packets and of every digest of its frames. CPU time of this process, one thread; the median over repeats of the ratio of sums.
"""

from __future__ import annotations

import argparse
import hashlib
import ssl
import statistics
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
from measured import hand_on

from usdata.duplicates.layers import LumaDigest
from usdata.errors import ReadError
from usdata.looking import look_at
from usdata.readers import open_clip
from usdata.readers.identify import VIDEO_KINDS, identify
from usdata.readers.packets import PacketDigest
from usdata.recipe import Hygiene

PLAIN: dict[str, Callable[[np.ndarray], object]] = {
    "sha256 of all pixels": lambda pixels: hashlib.sha256(pixels.data),
    "sha512 of all pixels": lambda pixels: hashlib.sha512(pixels.data),
    "blake2b of all pixels": lambda pixels: hashlib.blake2b(pixels.data),
    "crc32 of all pixels (no digest)": lambda pixels: zlib.crc32(pixels.data),
}
LUMA_LIMIT = 0.08
PARTS = ("packets", "luma", *PLAIN)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="take every n-th clip")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    paths = sorted(path for path in given.clips.rglob("*") if path.is_file() and identify(path) in VIDEO_KINDS)[:: given.every]
    runs: list[dict[str, dict[str, float]]] = []
    clips: dict[str, int] = {}
    frames: dict[str, int] = {}
    for repeat in range(given.repeats):
        seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        clips, frames = defaultdict(int), defaultdict(int)
        for path in paths:
            try:
                codec, count, cost = measure(path)
            except ReadError as error:
                if repeat == 0:
                    print(f"{path.name}: {error.reason}")
                continue
            for group in (codec, "all"):
                clips[group] += 1
                frames[group] += count
                for part, each in cost.items():
                    seconds[group][part] += each
        runs.append(seconds)
    print(f"{ssl.OPENSSL_VERSION}; {clips['all']} clips, {frames['all']:,} frames; median of {given.repeats}; share of the bare pass")
    groups = sorted(clips, key=lambda name: (name == "all", name))
    print(f"| | {' | '.join(groups)} |\n|---|{'--:|' * len(groups)}")
    per_frame = {group: 1000 * statistics.median(run[group]["bare"] for run in runs) / frames[group] for group in groups}
    print(f"| bare pass, ms a frame | {' | '.join(f'{per_frame[group]:.2f}' for group in groups)} |")
    for part in PARTS:
        ratios = (statistics.median(run[group][part] / run[group]["bare"] for run in runs) for group in groups)
        print(f"| {part} | {' | '.join(f'{ratio:.3f}' for ratio in ratios)} |")
    for part in ("packets", "luma"):
        share = statistics.median(run["all"][part] / run["all"]["bare"] for run in runs)
        hand_on(f"digest of {part} over our bare pass", share, "x", limit=LUMA_LIMIT if part == "luma" else None)
    both = statistics.median((run["all"]["packets"] + run["all"]["luma"]) / run["all"]["bare"] for run in runs)
    peer = statistics.median((run["all"]["packets"] + run["all"]["luma"]) / run["all"]["PyAV's gray pass"] for run in runs)
    print(f"packets and luma together: {both:.3f}; of PyAV's own pass to gray, which benchmarks/read.py calls bare, {peer:.3f}")


def measure(path: Path) -> tuple[str, int, dict[str, float]]:
    """A clip's codec, its frames, and the seconds of each part."""
    seconds: dict[str, float] = defaultdict(float)
    start = time.process_time()
    with open_clip(path) as clip:
        clip.packets = None
        count = sum(1 for _ in clip.frames())
    seconds["bare"] = time.process_time() - start
    luma = LumaDigest()
    with open_clip(path) as clip:
        clip.packets = None
        # After a build's own first look at a frame, which has brought it into the processor's cache.
        for look in look_at(clip, Hygiene()):
            frame = look.frame
            start = time.process_time()
            luma.add(frame.pixels)
            seconds["luma"] += time.process_time() - start
        codec = clip.info.codec
    with open_clip(path) as clip:
        clip.packets = None
        for look in look_at(clip, Hygiene()):
            frame = look.frame
            for name, digest in PLAIN.items():
                start = time.process_time()
                digest(frame.pixels)
                seconds[name] += time.process_time() - start
    start = time.process_time()
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        try:
            for picture in container.decode(stream):
                picture.to_ndarray(format="gray")
        except av.error.FFmpegError:  # the peer stops at damage
            pass
    seconds["PyAV's gray pass"] = time.process_time() - start
    seconds["packets"] += seconds_of_packets(path)
    return codec, count, seconds


def seconds_of_packets(path: Path) -> float:
    """CPU seconds of the digest of a video's packets."""
    total = 0.0
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        made = PacketDigest(stream.codec_context.codec.canonical_name, stream.codec_context.extradata)
        try:
            for packet in container.demux(stream):
                if packet.size:
                    start = time.process_time()
                    made.add(memoryview(packet))
                    total += time.process_time() - start
        except av.error.FFmpegError:  # a container that breaks off ends here, as it does for the reader
            pass
    return total


if __name__ == "__main__":
    main()
