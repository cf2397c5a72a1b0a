"""How fast this machine trains, stage by stage: the step of `uscl pretrain`, taken apart and timed.

In comes a recipe, and perhaps a data set (else frames are made up); out come views a second of each stage: the median over repeats, the
lowest and the highest. Nothing is written but a temporary store, and no weight is kept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch

from uscl import run_folder
from uscl.augment import draw_augmentations
from uscl.config import Config, load_config
from uscl.feed import Batch, Feed
from uscl.frames import FrameStore, open_store
from uscl.methods import Facts, Method, make_method
from uscl.optimizers import make_optimizer
from uscl.pairs import VideoIndex, index_videos
from uscl.starting import move, run_device, run_precision
from uscl.step import Step, wants_graphs
from uscl.utilisation import capacity
from uscl.views import VIEWS_A_PAIR, batch_views, frames_augmented
from usdata.console import progress, safe_text
from usdata.errors import UserError
from usdata.manifest import open_dataset

Value = TypeVar("Value")

WHOLE = "whole step"
DEFAULT_SECONDS = 30.0
_LEAST_REPEATS, _MOST_REPEATS = 3, 20
_STEPS_TOGETHER = 10
_WITHOUT_END = 10**6
# Made-up sets: videos as a multiple of the batch, and frames of each; a store of 26 MB at 224 pixels and a batch of 32.
_VIDEOS_PER_BATCH, _FRAMES_PER_VIDEO = 2, 8
_CLASSES = 2


@dataclass(frozen=True)
class StageSpeed:
    """How fast one stage of the step is.

    Attributes:
        stage: Its name.
        views_per_s: Median over repeats.
        lowest: Of the repeats.
        highest: Of the repeats.
        milliseconds: Of a step, median.
    """

    stage: str
    views_per_s: float
    lowest: float
    highest: float
    milliseconds: float


@dataclass(frozen=True)
class BenchResult:
    """What a bench measured.

    Attributes:
        about: The machine, the settings, what was stepped on, and how often.
        stages: In the order of the step; the whole step last.
    """

    about: dict[str, Any]
    stages: tuple[StageSpeed, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**self.about, "stages": [asdict(stage) for stage in self.stages]}


def bench(
    dataset: str | Path | None = None, *, recipe: str | Path = "uscl", overrides: Iterable[str] = (), seconds: float = DEFAULT_SECONDS
) -> BenchResult:
    """Time the stages of a training step on this machine.

    Each stage waits until the device has done the one before. On the CPU the whole step is their sum; on a GPU, where waiting costs, it is
    measured by itself, without waiting and with the next batch prepared meanwhile, as a run does it.

    Args:
        dataset: A data set folder, whose store is made where it is missing; None: frames are made up.
        recipe: Name of a recipe, or a YAML file.
        overrides: `key=value` settings on top of it.
        seconds: About how long to measure, after a step that is not counted: 3 to 20 repeats.

    Raises:
        UserError: The configuration or the data set is wrong.
    """
    if not seconds > 0:
        raise UserError(f"--seconds {seconds:g}", "is too short", "give a number above 0")
    # There are always more batches, however short the recipe's run is.
    config = load_config(recipe, overrides).model_copy(update={"epochs": _WITHOUT_END})
    device, _ = run_device(config)
    precision, _ = run_precision(config, device)
    if torch.get_num_threads() != run_folder.threads():
        torch.set_num_threads(run_folder.threads())
    with TemporaryDirectory(prefix="uscl-") as place:
        if dataset is None:
            name, classes = "made up", _CLASSES
            index, store = _made_up(config, Path(place))
        else:
            data = open_dataset(dataset)
            name, classes = data.name, len(data.classes)
            index = index_videos(data, config.pairs.splits, config.pairs.column)
            store = open_store(data, size=config.store_size, folder=Path(config.store.folder) if config.store.folder else None)
        method, backbone = make_method(config, classes if config.labels.weight > 0 else 0)
        step = _Step(config, Feed(store, index, config, device), method, precision)
        times, batch = _measured(step, seconds)
    views = VIEWS_A_PAIR * step.feed.drawer.pairs * batch
    stages = tuple(_speed(stage, views, measured) for stage, measured in times.items())
    facts = run_folder.describe_environment(device, precision)
    used = capacity(backbone, config.image_size, device, precision)
    about = {
        **{key: facts[key] for key in ("device", "device_name", "threads", "precision", "torch", "uscl")},
        "recipe": Path(recipe).stem,
        "method": config.method,
        "backbone": config.backbone,
        "image_size": config.image_size,
        "store_size": config.store_size,
        "frames": name,
        "videos_per_batch": batch,
        "repeats": len(times[WHOLE]),
        "operations_per_view": used.operations_per_view,
        "peak_operations_per_s": used.peak_operations_per_s,
        **used.read(stages[-1].views_per_s),
    }
    return BenchResult(about, stages)


def print_bench(result: BenchResult) -> None:
    """The result as a table of at most 80 columns, on stdout."""
    about = result.about
    share = "unknown" if about["utilisation"] is None else f"{about['utilisation']:.1%} of the peak"
    lines = [
        f"{about['device']} ({about['device_name']}), {about['threads']} threads, {about['precision']}, torch {about['torch']}",
        f"{about['recipe']}: {about['backbone']}, {about['image_size']} pixels squared, {about['videos_per_batch']} videos a batch",
        f"frames: {about['frames']}; {about['repeats']} repeats; median, lowest, highest",
        "",
        f"{'stage':14} {'views/s':>12} {'lowest':>12} {'highest':>12} {'ms a step':>12} {'share':>8}",
    ]
    whole = result.stages[-1].milliseconds
    for stage in result.stages:
        speeds = " ".join(f"{speed:12,.1f}" for speed in (stage.views_per_s, stage.lowest, stage.highest))
        lines.append(f"{stage.stage:14} {speeds} {stage.milliseconds:12,.2f} {stage.milliseconds / whole:8.1%}")
    lines += ["", f"utilisation: {share}; peak memory: {about['peak_memory_mb']:,.0f} MB"]
    for line in lines:
        print(safe_text(line)[:80].rstrip())


class _Step:
    """One training step in stages, as `uscl pretrain` does it."""

    def __init__(self, config: Config, feed: Feed, method: Method, precision: str) -> None:
        self.config, self.feed, self.method, self.precision = config, feed, method.train(), precision
        move(method, feed.device, config, precision)
        graphs = wants_graphs(config, feed.device)
        self.optimizer = make_optimizer(config, method, capturable=graphs)
        self._step = Step(config, method, self.optimizer, feed.device, precision, graphs=graphs)

    def timed(self, epoch: int) -> tuple[dict[str, float], int]:
        """Seconds of each stage of an epoch's first step, and the videos in its batch."""
        config, feed = self.config, self.feed
        videos = feed.epoch_batches(epoch)[0]
        seconds: dict[str, float] = {}

        def stage(name: str, work: Callable[[], Value]) -> Value:
            began = time.perf_counter()
            value = work()
            self.settle()
            seconds[name] = time.perf_counter() - began
            return value

        drawn, parameters = stage("draws", lambda: (feed.drawer(config.seed, epoch, videos), self._augmentations(epoch, videos)))
        frames = stage("store read", lambda: feed.read(drawn.frame_rows))
        coefficients = torch.from_numpy(drawn.coefficients.astype(np.float32)).to(feed.device)
        batch = Batch(epoch, 0, 1, videos, frames, coefficients, parameters, feed.facts(videos, drawn))
        if self.method.learns_first:
            batch = replace(batch, meta=stage("meta batch", lambda: feed.make_meta(epoch, 0)))
            stage("learn first", lambda: self._step.learn_first(batch, config.learning_rate))
        views = stage("augment", lambda: batch_views(batch, config))
        loss = stage("forward", lambda: self._loss(views, batch.facts))
        self.optimizer.zero_grad(set_to_none=True)
        stage("backward", loss.backward)
        stage("optimiser", self.optimizer.step)
        seconds[WHOLE] = sum(seconds.values())
        return seconds, len(videos)

    def whole(self, batch: Batch) -> None:
        """The same step of a batch as a run takes it, without waiting for the device."""
        self._step(batch, self.config.learning_rate)

    def settle(self) -> None:
        """Wait until the device has done everything."""
        if self.feed.device.type == "cuda":
            torch.cuda.synchronize(self.feed.device)

    def _augmentations(self, epoch: int, videos: np.ndarray) -> Any:
        config = self.config
        views = frames_augmented(config) * self.feed.drawer.pairs
        size = self.feed.store.size
        drawn = draw_augmentations(config.augment, seed=config.seed, epoch=epoch, videos=videos, views=views, store_size=size)
        return drawn.to(self.feed.device)

    def _loss(self, views: tuple[torch.Tensor, ...], facts: Facts) -> torch.Tensor:
        with torch.autocast(self.feed.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.method(views, facts)["loss"]


def _measured(step: _Step, seconds: float) -> tuple[dict[str, list[float]], int]:
    """Seconds of every stage in every repeat, and the videos in a batch."""
    step.timed(0)  # the first step allocates memory and chooses algorithms
    began = time.perf_counter()
    first, batch = step.timed(1)
    repeats = int(min(max(seconds / (time.perf_counter() - began), _LEAST_REPEATS), _MOST_REPEATS))
    times = {name: [value] for name, value in first.items()}
    with progress("measuring", repeats, "steps") as advance:
        advance(1)
        for repeat in range(2, repeats + 1):
            for name, value in step.timed(repeat)[0].items():
                times[name].append(value)
            advance(1)
    if step.feed.device.type == "cuda":
        times[WHOLE] = _whole_steps(step, repeats, batch)
    return times, batch


def _whole_steps(step: _Step, repeats: int, videos: int) -> list[float]:
    """Seconds of a step of so many videos: steps that follow on each other as in a run, a few between two moments of waiting."""
    times: list[float] = []
    batches = step.feed(0, 0)
    # The first steps fill the feed and are not counted.
    for _ in range(1 + repeats):
        step.settle()
        began, seen = time.perf_counter(), 0
        for batch in islice(batches, _STEPS_TOGETHER):
            step.whole(batch)
            seen += len(batch.videos)
        step.settle()
        times.append((time.perf_counter() - began) * videos / seen)
    return times[1:]


def _speed(stage: str, views: int, seconds: list[float]) -> StageSpeed:
    speeds = [views / value for value in seconds]
    return StageSpeed(stage, statistics.median(speeds), min(speeds), max(speeds), 1000 * statistics.median(seconds))


def _made_up(config: Config, folder: Path) -> tuple[VideoIndex, FrameStore]:
    """Videos enough for two batches, each a group of its own and labelled, in a store on disk."""
    count, size = _VIDEOS_PER_BATCH * config.batch_size, config.store_size
    frames = count * _FRAMES_PER_VIDEO
    path = folder / "frames.npy"
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(frames, size, size))
    row = np.arange(size, dtype=np.int64)
    for frame in range(frames):
        # Any picture will do: the time does not depend on it.
        pixels[frame] = (row[:, None] * 7 + row * (frame % 13 + 1)) % 256
    pixels.flush()
    place = np.tile(np.arange(_FRAMES_PER_VIDEO), count)
    index = VideoIndex(
        video_ids=tuple(f"made-up/{video}" for video in range(count)),
        frame_rows=np.arange(frames),
        starts=np.arange(count) * _FRAMES_PER_VIDEO,
        counts=np.full(count, _FRAMES_PER_VIDEO),
        groups=np.arange(count),
        labels=np.arange(count) % _CLASSES,
        times_s=place / 10.0,
        frame_indices=place,
        keys=None if config.pairs.column is None else np.arange(count) % _CLASSES,
    )
    mapped = np.load(path, mmap_mode="r")
    boxes = np.full((frames, 4), np.nan)
    return index, FrameStore(pixels=np.asarray(mapped), size=size, path=path, offset=mapped.offset, sha256="", boxes=boxes)
