"""CPU time and memory of reading, against a bare decode of the same files in the same run.

    python benchmarks/read.py CLIPS [--repeats 3] [--json]

For every video under CLIPS, in workers of its own (2 at once): a bare forward decode to gray by PyAV; the whole of what a build reads and
measures (sampling at 3 Hz, hygiene, fingerprints, digests; no images are written); and a plain pass by each of the three backends. The
ratio of CPU times is the median over repeats of the sum over files; memory is the largest resident size of a worker.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

LIMIT = 1.5


def bare_decode(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        count = 0
        for frame in container.decode(stream):
            frame.to_ndarray(format="gray")
            count += 1
    return count


def whole_step(path: Path) -> int:
    from usdata.recipe import Hygiene, Reading
    from usdata.sampling import SamplingRule
    from usdata.video_step import frame_measures, look_through

    result = look_through(
        path,
        sampling=SamplingRule(rule="rate", hz=3.0),
        read=Reading(),
        hygiene=Hygiene(),
        store=lambda frame: frame_measures(frame.pixels),
    )
    assert result["status"] == "ok", result["reason"]
    return int(result["video"]["frames_decoded"])


def plain_pass(backend: str) -> Callable[[Path], int]:
    def read(path: Path) -> int:
        from usdata.errors import ReadError
        from usdata.readers import open_clip

        try:
            with open_clip(path, backend=backend) as clip:
                return sum(1 for _ in clip.frames())
        except ReadError:
            return 0

    return read


WAYS: dict[str, Callable[[Path], int]] = {
    "bare": bare_decode,
    "usdata": whole_step,
    **{backend: plain_pass(backend) for backend in ("pyav", "opencv", "decord")},
}


def measure(path: Path) -> dict[str, tuple[float, int]]:
    """CPU seconds and frames of each way, and the worker's peak memory so far."""
    result = {}
    for name, way in WAYS.items():
        start = time.process_time()
        frames = way(path)
        result[name] = (time.process_time() - start, frames)
    result["peak_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 0)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    from usdata.engines import Failure, run_local
    from usdata.readers.identify import VIDEO_KINDS, identify

    files = sorted(path for path in arguments.clips.rglob("*") if path.is_file())
    kinds = {path: kind for path in files if (kind := identify(path)) in VIDEO_KINDS}
    paths = sorted(kinds, key=lambda path: -path.stat().st_size)
    if not paths:
        sys.exit(f"error: {arguments.clips}: holds no videos")
    rounds: list[dict[str, dict[str, float]]] = []
    frames: dict[str, int] = defaultdict(int)
    peak = 0.0
    for repeat in range(arguments.repeats):
        seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        with closing(run_local(measure, paths, workers=arguments.workers, timeout_s=600)) as done:
            for position, outcome in done:
                if isinstance(outcome, Failure):
                    sys.exit(f"error: {paths[position]}: {outcome.reason}")
                peak = max(peak, outcome.pop("peak_mb")[0])
                kind = kinds[paths[position]]
                for name, (cpu, count) in outcome.items():
                    for group in (kind, "all"):
                        seconds[group][name] += cpu if count or name == "bare" else float("nan")
                    if repeat == 0 and name == "bare":
                        frames[kind] += count
                        frames["all"] += count
        rounds.append(seconds)
    rows = {}
    for group in sorted(frames, key=lambda name: (name == "all", name)):
        ratios = {name: statistics.median(each[group][name] / each[group]["bare"] for each in rounds) for name in WAYS if name != "bare"}
        bare = statistics.median(each[group]["bare"] for each in rounds)
        rows[group] = {"frames": frames[group], "bare_ms_per_frame": 1000 * bare / frames[group], "ratio": ratios}
    report = {"files": len(paths), "workers": arguments.workers, "repeats": arguments.repeats, "peak_worker_mb": peak, "formats": rows}
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(
        f"{len(paths)} videos, {arguments.workers} workers, median of {arguments.repeats}; CPU time as a multiple of a bare PyAV gray decode"
    )
    print(f"{'format':12}{'frames':>8}{'bare ms':>9}{'usdata':>8}{'pyav':>7}{'opencv':>8}{'decord':>8}")
    for group, row in rows.items():
        ratio = row["ratio"]
        others = "".join(f"{ratio[name]:>{width}.2f}" for name, width in (("usdata", 8), ("pyav", 7), ("opencv", 8), ("decord", 8)))
        print(f"{group:12}{row['frames']:>8}{row['bare_ms_per_frame']:>9.3f}{others}")
    print(f"largest worker: {peak:.0f} MB; usdata: the whole reading step (limit {LIMIT}); the others: a plain pass; nan: cannot read one")


if __name__ == "__main__":
    main()
