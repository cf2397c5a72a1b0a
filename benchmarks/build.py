"""Wall time of a build, images written included, against a bare forward decode of the same files in the same run.

    python benchmarks/build.py CLIPS [--repeats 3] [--workers 2] [--set a.b=c] [--json]

CLIPS is a folder of videos, in a tree of any shape. One repeat is: a bare forward decode of every video, one thread, in as many processes
as the build has workers (`gray`: PyAV, each frame as a gray array; `opencv`: OpenCV's `read`, BGR arrays; `decoder`: PyAV, pictures that
never leave the decoder, which is no use to anyone and the limit of all); `usdata build` of the same files at 3 Hz, written to disk, without
the search for the same scan (`duplicates.content: false`); the build as it is; the same build again with nothing changed; and a build with
another recipe, of which the per-video steps hold (another number of folds). Times include the start of the processes. Ratios are medians
over repeats of each repeat's own ratio.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from measured import hand_on

LIMIT, LIMIT_UNCHANGED = 1.6, 0.05


def bare_pyav(path: Path, *, gray: bool) -> int:
    import av

    count = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        for frame in container.decode(stream):
            if gray:
                frame.to_ndarray(format="gray")
            count += 1
    return count


def bare_opencv(path: Path) -> int:
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = 0
    while capture.read()[0]:
        count += 1
    return count


PEERS = {"gray": partial(bare_pyav, gray=True), "opencv": bare_opencv, "decoder": partial(bare_pyav, gray=False)}


def timed(peer: Callable[[Path], int], paths: list[Path], workers: int) -> tuple[float, int]:
    """Wall seconds and frames of a bare decode of all files."""
    from usdata.engines import Failure, run_local

    start, frames = time.perf_counter(), 0
    with closing(run_local(peer, paths, workers=workers, timeout_s=600)) as done:
        for position, outcome in done:
            if isinstance(outcome, Failure):
                sys.exit(f"error: {paths[position]}: {outcome.reason}")
            frames += outcome
    return time.perf_counter() - start, frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    import usdata
    from usdata.readers.identify import VIDEO_KINDS, identify
    from usdata.recipe import Recipe
    from usdata.recipe_files import load_recipe

    scratch = Path(tempfile.mkdtemp(prefix="usdata-benchmark-"))
    try:
        files = sorted(path for path in arguments.clips.rglob("*") if path.is_file() and identify(path) in VIDEO_KINDS)
        if not files:
            sys.exit(f"error: {arguments.clips}: holds no videos")
        raw = scratch / "raw"
        for path in files:
            target = raw / path.relative_to(arguments.clips)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        written = scratch / "recipe.yaml"
        written.write_text(
            "name: benchmark\nsources:\n  - {name: clips, layout: files, sampling: {rule: rate, hz: 3}}\nfolds: {count: 0}\n"
        )
        recipe: Recipe = load_recipe(written, arguments.overrides)
        other = load_recipe(written, [*arguments.overrides, "folds.count=3"])
        unsearched = load_recipe(written, [*arguments.overrides, "duplicates.content=false"])
        copies = sorted((path for path in raw.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)
        rounds = []
        for _ in range(arguments.repeats):
            peers = {name: timed(peer, copies, arguments.workers) for name, peer in PEERS.items()}
            frames = peers["gray"][1]
            out = scratch / "set"
            before = time.perf_counter()
            usdata.build(unsearched, raw=raw, out=out, workers=arguments.workers)
            alone = time.perf_counter() - before
            shutil.rmtree(out)
            start = time.perf_counter()
            built = usdata.build(recipe, raw=raw, out=out, workers=arguments.workers)
            first = time.perf_counter()
            assert usdata.build(recipe, raw=raw, out=out, workers=arguments.workers).unchanged
            second = time.perf_counter()
            usdata.build(other, raw=raw, out=out, workers=arguments.workers, overwrite=True)
            third = time.perf_counter()
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
            shutil.rmtree(out)
            rounds.append(
                {name: seconds for name, (seconds, _) in peers.items()}
                | {"unsearched": alone, "build": first - start, "again": second - first, "folds": third - second}
            )
        ratio = {
            **{f"build / {name}": statistics.median(each["build"] / each[name] for each in rounds) for name in PEERS},
            **{f"unsearched / {name}": statistics.median(each["unsearched"] / each[name] for each in rounds) for name in PEERS},
            "again / build": statistics.median(each["again"] / each["build"] for each in rounds),
            "other folds / build": statistics.median(each["folds"] / each["build"] for each in rounds),
        }
        seconds = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        report = {
            "clips": len(files), "frames": frames, "kept": built.counts["frames"], "set_mb": size / 1e6, "workers": arguments.workers,
            "repeats": arguments.repeats, "seconds": seconds, "ratio": ratio,
        }  # fmt: skip
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    hand_on("build over PyAV's gray decode", ratio["build / gray"], "x", limit=LIMIT)
    hand_on("build over OpenCV's decode", ratio["build / opencv"], "x", limit=LIMIT)
    hand_on("build without the search for the same scan over PyAV's gray decode", ratio["unsearched / gray"], "x", limit=LIMIT)
    hand_on("build with nothing changed over a build", ratio["again / build"], "x", limit=LIMIT_UNCHANGED)
    hand_on("build with other folds over a build", ratio["other folds / build"], "x")
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{len(files)} videos, {frames} frames, {report['kept']} kept, {report['set_mb']:.0f} MB; {arguments.workers} workers, ", end="")
    print(f"medians of {arguments.repeats}")
    for name, value in seconds.items():
        print(f"  {name:8} {value:7.2f} s")
    for name, value in ratio.items():
        limit = {"build / gray": LIMIT, "build / opencv": LIMIT, "again / build": LIMIT_UNCHANGED}.get(name)
        print(f"  {name:20} {value:.3f}{'' if limit is None else f'  (limit {limit})'}")


if __name__ == "__main__":
    main()
