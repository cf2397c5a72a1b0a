"""What each technique gives a training step: one row a technique, each with everything of the rows above it.

    python benchmarks/ladder.py [--batch 32 256] [--steps 100] [--run] [--device cuda|cpu] [--quick] [--json]

Frames are made up, US-4 in number (1,051 videos, 23,231 frames at 224x224), in a store on disk; a step is the trainer's own, with its
feed, draws and augmentation. A row is the median views a second of five stretches of steps after one that is not counted, with the share of
the time in which the step waited for data, and the share of the device's peak that the network's arithmetic takes. --run then takes the
whole of a US-4-sized run with the last row's settings: 300 epochs of batches of 32. --quick makes everything small, to see that it works.
The project's limits, on an H200: 20,000 views/s at a batch of 256, and 60 s for the run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from uscl.config import Config, load_config
from uscl.feed import Batch, Feed
from uscl.frames import FrameStore
from uscl.methods import make_method
from uscl.optimizers import make_optimizer
from uscl.pairs import VideoIndex
from uscl.schedule import learning_rate
from uscl.starting import move, run_device, run_precision
from uscl.step import Step, wants_graphs
from uscl.tiers import place_store
from uscl.utilisation import capacity

VIDEOS, FRAMES = 1051, 23231
STRETCHES = 5
# Cumulative; each row's settings go on top of the ones above.
LADDER: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "eager float32, frames read from disk",
        ("precision=float32", "channels_last=false", "augment.path=plain", "store.tier=disk", "store.lookahead=0", "cuda_graph=false"),
    ),
    ("store in memory or on the GPU", ("store.tier=auto",)),
    ("the next batch prepared meanwhile", ("store.lookahead=null",)),
    ("bfloat16", ("precision=bfloat16",)),
    ("channels_last", ("channels_last=true",)),
    ("fused augmentation", ("augment.path=auto",)),
    ("torch.compile of the network", ("compile=model",)),
    ("CUDA graph of the step", ("compile=off", "cuda_graph=true")),
)


def made_up(folder: Path, *, videos: int, frames: int, size: int) -> tuple[VideoIndex, FrameStore]:
    """Videos of about equal length, each a group of its own, a third of them labelled."""
    path = folder / "frames.npy"
    if not path.exists():
        pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(frames, size, size))
        generator = np.random.default_rng(0)
        for start in range(0, frames, 512):
            pixels[start : start + 512] = generator.integers(0, 256, (min(512, frames - start), size, size), dtype=np.uint8)
        pixels.flush()
    starts = np.linspace(0, frames, videos + 1).astype(np.int64)
    counts = np.diff(starts)
    place = np.concatenate([np.arange(count) for count in counts])
    index = VideoIndex(
        video_ids=tuple(f"made-up/{video}" for video in range(videos)),
        frame_rows=np.arange(frames),
        starts=starts[:-1],
        counts=counts,
        groups=np.arange(videos),
        labels=np.where(np.arange(videos) % 3 == 0, np.arange(videos) % 12, -1),
        times_s=place / 10.0,
        frame_indices=place,
    )
    mapped = np.load(path, mmap_mode="r")
    boxes = np.full((frames, 4), np.nan)
    return index, FrameStore(pixels=np.asarray(mapped), size=size, path=path, offset=mapped.offset, sha256="", boxes=boxes)


class Training:
    """A trainer's step and its feed under some settings."""

    def __init__(self, config: Config, index: VideoIndex, store: FrameStore) -> None:
        self.config = config
        self.device, _ = run_device(config)
        self.precision, _ = run_precision(config, self.device)
        method, self.backbone = make_method(config, 12)
        move(method.train(), self.device, config, self.precision)
        graphs = wants_graphs(config, self.device)
        self.step = Step(config, method, make_optimizer(config, method, capturable=graphs), self.device, self.precision, graphs=graphs)
        self.feed = Feed(store, index, config, self.device, place_store(config.store.tier, store.pixels.nbytes, self.device))

    def batches(self) -> Iterator[Batch]:
        return self.feed(0, 0)

    def take(self, batches: Iterator[Batch]) -> tuple[int, float]:
        """Take all steps of some batches; views, and seconds spent waiting for them."""
        views, waited = 0, 0.0
        before = time.perf_counter()
        for batch in batches:
            waited += time.perf_counter() - before
            self.step(batch, learning_rate(self.config, batch.epoch + batch.number / batch.of, 1 / batch.of))
            views += 2 * len(batch.videos)
            before = time.perf_counter()
        self.settle()
        return views, waited

    def settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measured(config: Config, index: VideoIndex, store: FrameStore, steps: int) -> dict[str, Any]:
    training = Training(config, index, store)
    batches = training.batches()
    training.take(islice(batches, max(8, steps // 5)))  # algorithms are chosen, code is compiled, the graph is recorded
    rates, waits = [], []
    for _ in range(STRETCHES):
        began = time.perf_counter()
        views, waited = training.take(islice(batches, steps))
        seconds = time.perf_counter() - began
        rates.append(views / seconds)
        waits.append(waited / seconds)
    batches.close()  # type: ignore[attr-defined]
    rate = statistics.median(rates)
    used = capacity(training.backbone, config.image_size, training.device, training.precision).read(rate)
    told = {"views_per_s": round(rate, 1), "lowest": round(min(rates), 1), "highest": round(max(rates), 1)}
    return told | {"data_wait_share": round(statistics.median(waits), 4), **used}


def whole_run(config: Config, index: VideoIndex, store: FrameStore) -> float:
    """Seconds of a run of all epochs, the making of the network and the moving of the store with it."""
    began = time.perf_counter()
    training = Training(config, index, store)
    training.take(training.batches())
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--run", action="store_true", help="a US-4-sized run as well")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    size, videos, frames, epochs = (32, 64, 512, 2) if given.quick else (224, VIDEOS, FRAMES, 300)
    about: dict[str, Any] = {"torch": torch.__version__, "videos": videos, "frames": frames, "image_size": size, "rows": []}
    if torch.cuda.is_available():
        about["device"] = torch.cuda.get_device_name()
    with TemporaryDirectory(prefix="uscl-ladder-") as place:
        index, store = made_up(Path(place), videos=videos, frames=frames, size=size)
        for batch in given.batch:
            settings = [f"device={given.device}", f"image_size={size}", f"batch_size={batch}", "epochs=1000000"]
            for name, more in LADDER:
                settings += more
                config = load_config("uscl", settings)
                if run_device(config)[0].type == "cpu" and ("compile=model" in more or "cuda_graph=true" in more):
                    continue  # neither pays there
                row = {"batch": batch, "technique": name, **measured(config, index, store, given.steps)}
                about["rows"].append(row)
                if not given.json:
                    share = "unknown" if row["utilisation"] is None else f"{row['utilisation']:.1%}"
                    speed = f"{row['views_per_s']:>10,.1f} views/s  waits {row['data_wait_share']:6.1%}  of the peak {share}"
                    print(f"batch {batch:4}  {name:38} {speed}", flush=True)
        if given.run:
            config = load_config("uscl", [*settings, "batch_size=32", f"epochs={epochs}"])
            about["run_seconds"] = round(whole_run(config, index, store), 1)
            if not given.json:
                print(f"{epochs} epochs of {videos:,} videos, batch 32: {about['run_seconds']} s (limit on an H200: 60)")
    if given.json:
        print(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
