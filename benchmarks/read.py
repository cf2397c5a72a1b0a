"""CPU time and memory of reading, against a bare decode of the same files in the same run.

    python benchmarks/read.py CLIPS [--repeats 3] [--json]

For every clip under CLIPS, in workers of its own (2 at once): a bare forward decode to gray by PyAV (of DICOM: pydicom's own iteration over
its pixels, of MetaImage: SimpleITK's reading); the whole of what a build reads and measures (sampling at 3 Hz, hygiene, fingerprints,
digests; no images are written); and, of videos, a plain pass by each of the three backends. The ratio of CPU times is the median over
repeats of the sum over files; "all" is of videos alone. Memory is the largest resident size of a worker that does the whole step alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from measured import hand_on

LIMIT = 1.5


def bare_decode(path: Path) -> int:
    from usdata.readers.identify import identify

    kind = identify(path)
    if kind == "dicom":
        return bare_dicom(path)
    if kind == "metaimage":
        return bare_metaimage(path)
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


def bare_dicom(path: Path) -> int:
    """Frames that pydicom decodes; 0 where it cannot (it has no decoder of its own for some syntaxes)."""
    import warnings

    from pydicom.pixels import iter_pixels

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return sum(1 for _ in iter_pixels(path))
        except (RuntimeError, NotImplementedError, ValueError):
            return 0


def bare_metaimage(path: Path) -> int:
    import SimpleITK

    return int(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).reshape(-1, 1).shape[0] > 0)


def whole_step(path: Path) -> int:
    from usdata.recipe import Hygiene, Reading
    from usdata.sampling import SamplingRule
    from usdata.stored_images import frame_measures
    from usdata.video_step import look_through

    result = look_through(
        path,
        sampling=SamplingRule(rule="rate", hz=3.0),
        read=Reading(),
        hygiene=Hygiene(),
        store=lambda index, pixels, framing: frame_measures(pixels),
    )
    assert result["status"] != "failed", result["reason"]
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
    from usdata.readers.identify import VIDEO_KINDS, identify

    result = {}
    video = identify(path) in VIDEO_KINDS
    for name, way in WAYS.items():
        if name not in ("bare", "usdata") and not video:
            result[name] = (float("nan"), 0)
            continue
        start = time.process_time()
        frames = way(path)
        result[name] = (time.process_time() - start, frames)
    return result


def peak_mb(path: Path) -> float:
    """The worker's largest resident size so far, after the whole step over one more clip."""
    whole_step(path)
    # Not getrusage's figure: a new process begins with the largest size that its parent ever had.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    from usdata.engines import Failure, run_local
    from usdata.readers.identify import MEDICAL_KINDS, VIDEO_KINDS, identify

    files = sorted(path for path in arguments.clips.rglob("*") if path.is_file())
    kinds = {path: kind for path in files if (kind := identify(path)) in VIDEO_KINDS | MEDICAL_KINDS}
    paths = sorted(kinds, key=lambda path: -path.stat().st_size)
    if not paths:
        sys.exit(f"error: {arguments.clips}: holds no clips")
    rounds: list[dict[str, dict[str, float]]] = []
    frames: dict[str, int] = defaultdict(int)
    with closing(run_local(peak_mb, paths, workers=arguments.workers, timeout_s=600)) as done:
        peak = max(0.0 if isinstance(outcome, Failure) else outcome for _, outcome in done)
    for repeat in range(arguments.repeats):
        seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        with closing(run_local(measure, paths, workers=arguments.workers, timeout_s=600)) as done:
            for position, outcome in done:
                if isinstance(outcome, Failure):
                    sys.exit(f"error: {paths[position]}: {outcome.reason}")
                kind = kinds[paths[position]]
                if not outcome["bare"][1]:  # what the peer cannot read is no comparison
                    continue
                for group in (kind, "all") if kind in VIDEO_KINDS else (kind,):
                    for name, (cpu, count) in outcome.items():
                        seconds[group][name] += cpu if count else float("nan")
                    frames[group] += outcome["usdata"][1] if repeat == 0 else 0
        rounds.append(seconds)
    rows = {}
    for group in sorted(frames, key=lambda name: (name == "all", name)):
        ratios = {name: statistics.median(each[group][name] / each[group]["bare"] for each in rounds) for name in WAYS if name != "bare"}
        bare = statistics.median(each[group]["bare"] for each in rounds)
        rows[group] = {"frames": frames[group], "bare_ms_per_frame": 1000 * bare / frames[group], "ratio": ratios}
    report = {"files": len(paths), "workers": arguments.workers, "repeats": arguments.repeats, "peak_worker_mb": peak, "formats": rows}
    if "all" in rows:
        hand_on("whole reading step of a build over a bare decode, CPU", rows["all"]["ratio"]["usdata"], "x", limit=LIMIT)
        hand_on("a plain pass by our reader over it", rows["all"]["ratio"]["pyav"], "x")
    hand_on("largest worker", peak, "MB", load=False)
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{len(paths)} clips, {arguments.workers} workers, median of {arguments.repeats}; CPU time over that of a bare PyAV gray decode")
    print(f"{'format':12}{'frames':>8}{'bare ms':>9}{'usdata':>8}{'pyav':>7}{'opencv':>8}{'decord':>8}")
    for group, row in rows.items():
        ratio = row["ratio"]
        others = "".join(f"{ratio[name]:>{width}.2f}" for name, width in (("usdata", 8), ("pyav", 7), ("opencv", 8), ("decord", 8)))
        print(f"{group:12}{row['frames']:>8}{row['bare_ms_per_frame']:>9.3f}{others}")
    print(f"largest worker: {peak:.0f} MB; usdata: the whole reading step (limit {LIMIT}); the others: a plain pass; nan: cannot read one")


if __name__ == "__main__":
    main()
