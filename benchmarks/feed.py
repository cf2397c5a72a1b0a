"""How fast batches are made, against a plain reference pipeline on the same frames in the same run.

    python benchmarks/feed.py [SET] [--videos 40] [--batches 6] [--repeats 5] [--threads 2] [--image-size 224] [--json]

Ours: the feed of a training run (frame store in memory, draws, rows copied) and its two normalised float views. The reference: PIL opens
JPEG copies of three frames a pair, each is resized, cropped, flipped, jittered and normalised by torchvision, then they are mixed, in a
torch DataLoader with as many worker processes as we have threads; once with frames opened as RGB, as the published code does, and once
as gray. Both are timed in turn, epoch by epoch, and the ratio is the median over repeats. Then each stage of ours alone, and building the
store against decoding the same images with nothing else. Without SET, phantom clips are made and built first; copies go into a temporary
folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from measured import hand_on
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from uscl.config import load_config
from uscl.feed import Feed
from uscl.frames import open_store, read_gray
from uscl.pairs import index_videos
from uscl.torchvision_compat import torchvision
from uscl.views import two_views
from usdata.manifest import DataSet, open_dataset

BATCH = 32
TARGET = 20.0
JPEG_QUALITY = 95


class PlainPairs(Dataset):  # type: ignore[type-arg]
    """The reference: a pair of views from three JPEG files of a clip, each augmented by itself and then mixed."""

    def __init__(self, clips: list[list[Path]], pairs: int, size: int, mode: str) -> None:
        self.clips, self.pairs, self.mode = clips, pairs, mode
        channels = 3 if mode == "RGB" else 1
        transforms = torchvision.transforms
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.RandomResizedCrop(size, scale=(0.8, 1.0), ratio=(0.8, 1.25)),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(0.8, 0.8, 0.8, 0.2),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * channels, [0.25] * channels),
            ]
        )

    def __len__(self) -> int:
        return self.pairs

    def __getitem__(self, pair: int) -> tuple[torch.Tensor, torch.Tensor]:
        clip = self.clips[pair % len(self.clips)]
        files = random.sample(clip, 3) if len(clip) >= 3 else random.choices(clip, k=3)
        first, middle, third = (self.transform(self.opened(file)) for file in files)
        share = random.betavariate(0.5, 0.5)
        return share * first + (1 - share) * middle, share * third + (1 - share) * middle

    def opened(self, file: Path) -> Image.Image:
        with Image.open(file) as picture:
            return picture.convert(self.mode)


def jpeg_copies(data: DataSet, folder: Path) -> list[list[Path]]:
    """A JPEG file of every frame, by clip."""
    clips: dict[str, list[Path]] = {}
    for number, (name, video) in enumerate(zip(data.frames["path"], data.frames["video_id"], strict=True)):
        file = folder / f"{number}.jpg"
        cv2.imwrite(str(file), read_gray(data.folder / name), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        clips.setdefault(video, []).append(file)
    return list(clips.values())


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_ms(work: Callable[[], object], repeats: int = 15) -> float:
    work()
    return 1000 * statistics.median(seconds(work) for _ in range(repeats))


def our_epoch(feed: Feed, batches: int, path: str) -> int:
    config, views = feed.config, 0
    for batch in itertools.islice(feed(0, 0), batches):
        view_a, _ = two_views(
            batch.frames, batch.coefficients, batch.augmentations, order=config.pairs.order, size=config.image_size, path=path
        )
        views += len(view_a)
    return views


def rates(data: DataSet, feeds: dict[str, tuple[Feed, str]], clips: list[list[Path]], given: argparse.Namespace) -> dict[str, list[float]]:
    """Pairs a second of every way, repeat by repeat."""
    loaders = {}
    for mode in ("RGB", "L"):
        pairs = PlainPairs(clips, given.batches * BATCH, given.image_size, mode)
        loader = DataLoader(pairs, BATCH, num_workers=given.threads, persistent_workers=True, multiprocessing_context="spawn")
        sum(len(view) for view, _ in loader)  # the workers start and import
        loaders[f"reference, {'RGB as published' if mode == 'RGB' else 'gray'}"] = loader
    found: dict[str, list[float]] = {name: [] for name in (*loaders, *feeds)}
    for _ in range(given.repeats):
        for name, loader in loaders.items():
            began = time.perf_counter()
            pairs_made = sum(len(view) for view, _ in loader)
            found[name].append(pairs_made / (time.perf_counter() - began))
        for name, (feed, path) in feeds.items():
            our_epoch(feed, 1, path)
            began = time.perf_counter()
            pairs_made = our_epoch(feed, 4 * given.batches, path)
            found[name].append(pairs_made / (time.perf_counter() - began))
    return found


def stages(feed: Feed) -> dict[str, float]:
    """Milliseconds a batch of each stage, by itself."""
    config = feed.config
    _, number, of, videos = next(feed._positions(0, 0))
    drawn = feed.drawer(config.seed, 0, videos)
    batch = feed.make(0, number, of, videos)

    def views(path: str) -> object:
        return two_views(batch.frames, batch.coefficients, batch.augmentations, order=config.pairs.order, size=config.image_size, path=path)

    whole, copied = median_ms(lambda: feed.make(0, number, of, videos)), median_ms(lambda: feed.read(drawn.frame_rows))
    return {
        "draws (order, frames, mixing, augmentation)": whole - copied,
        "frames copied from the store": copied,
        "views, fast path": median_ms(lambda: views("fast")),
        "views, plain path": median_ms(lambda: views("plain")),
    }


def building(data: DataSet, folder: Path, size: int, threads: int, repeats: int) -> dict[str, float]:
    """Frames a second of building the store, and of decoding alone."""
    paths = [data.folder / name for name in data.frames["path"]]

    def decode() -> None:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda path: read_gray(path).shape, paths):
                pass

    cv2.setNumThreads(1)
    decode()
    built, decoded, ratios = [], [], []
    for repeat in range(repeats):
        decoded.append(len(paths) / seconds(decode))
        built.append(len(paths) / seconds(lambda each=repeat: open_store(data, size=size, folder=folder / str(each), threads=threads)))
        ratios.append(built[-1] / decoded[-1])
    return {"built": statistics.median(built), "decoded": statistics.median(decoded), "ratio": statistics.median(ratios)}


def measure(given: argparse.Namespace, place: Path) -> dict[str, Any]:
    if given.dataset is None:
        import usdata

        usdata.phantom(place / "raw", videos=given.videos)
        usdata.build("phantom", raw=place / "raw", out=place / "set")
    data = open_dataset(given.dataset or place / "set")
    (place / "jpeg").mkdir()
    clips = jpeg_copies(data, place / "jpeg")
    torch.set_num_threads(given.threads)
    store = open_store(data, size=given.image_size, folder=place / "store")
    index = index_videos(data, ("train", "val", "test"))
    feeds = {}
    for name, path, order in (
        ("ours", "auto", "mix-then-augment"),
        ("ours, published order", "auto", "augment-then-mix"),
        ("ours, plain path", "plain", "mix-then-augment"),
    ):
        overrides = [f"batch_size={min(BATCH, len(index))}", f"image_size={given.image_size}", f"pairs.order={order}", "epochs=100000"]
        feeds[name] = Feed(store, index, load_config("uscl", [*overrides, "store.tier=ram"]), torch.device("cpu")), path
    found = rates(data, feeds, clips, given)
    reference = "reference, RGB as published"
    return {
        "frames": len(data.frames),
        "videos": len(index),
        "threads": given.threads,
        "repeats": given.repeats,
        "pairs_per_s": {name: statistics.median(values) for name, values in found.items()},
        "over_reference": {
            name: statistics.median(np.divide(values, found[reference]).tolist()) for name, values in found.items() if name != reference
        },
        "over_gray_reference": statistics.median(np.divide(found["ours"], found["reference, gray"]).tolist()),
        "stages_ms": stages(feeds["ours"][0]),
        "building": building(data, place / "stores", given.image_size, given.threads, given.repeats),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with TemporaryDirectory() as place:
        report = measure(given, Path(place))
    for name, over in report["over_reference"].items():
        hand_on(f"batches of {name}, over PIL and torchvision", over, "x", limit=TARGET if name == "ours" else None, sense="at least")
    hand_on("store built over decoding alone", report["building"]["ratio"], "x", sense="at least")
    if given.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['videos']} clips, {report['frames']} frames, {given.threads} threads or workers, medians of {given.repeats}")
    for name, rate in report["pairs_per_s"].items():
        over = report["over_reference"].get(name)
        print(f"{name:32}{rate:10.1f} pairs/s" + (f"{over:8.1f} x" if over is not None else ""))
    print(f"ours over the gray reference: {report['over_gray_reference']:.1f} x; target over the reference: {TARGET:.0f} x")
    for name, milliseconds in report["stages_ms"].items():
        print(f"{name:48}{milliseconds:8.2f} ms a batch of {BATCH} pairs")
    built = report["building"]
    print(f"store built: {built['built']:.0f} frames/s; decoding alone: {built['decoded']:.0f} frames/s; ratio {built['ratio']:.2f}")


if __name__ == "__main__":
    main()
