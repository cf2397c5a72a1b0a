"""What a run starts from: its device and precision, its initial weights, and the facts that a person wants to know before hours of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from uscl import processes, run_folder
from uscl.backbones import Backbone
from uscl.config import Config
from uscl.models import load_backbone
from uscl.pairs import PairDrawer, VideoIndex, batches
from uscl.tiers import Placement
from uscl.views import VIEWS_A_PAIR
from usdata.errors import UserError
from usdata.manifest import DataSet


def move(method: nn.Module, device: torch.device, config: Config, precision: str) -> None:
    """Put a network where it trains, in the configured layout of its tensors."""
    method.to(device)
    last = config.channels_last if config.channels_last is not None else precision == "bfloat16"
    if last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


MOST_VIDEOS_COUNTED = 500_000


def run_device(config: Config) -> tuple[torch.device, str]:
    """The device of a run, and why.

    Raises:
        UserError: A GPU is asked for, and there is none.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise UserError("device", "is cuda, and this torch finds no GPU", "use --set device=auto")
    if config.device == "cpu":
        return torch.device("cpu"), "as configured"
    if not available:
        return torch.device("cpu"), "no GPU was found"
    # The same algorithms in every session, so that a resumed run equals an undisturbed one.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    device = processes.own_gpu()
    return device, torch.cuda.get_device_name(device)


def run_precision(config: Config, device: torch.device) -> tuple[str, str]:
    """What a run computes in on a device, float32 or bfloat16, and why."""
    if config.precision != "auto":
        return config.precision, "as configured"
    return ("bfloat16", "auto on a GPU") if device.type == "cuda" else ("float32", "auto on the CPU")


def total_steps(config: Config, index: VideoIndex) -> int:
    """The steps of a whole run; where groups decide about batches, epochs can differ in them."""
    if not config.pairs.distinct_groups:
        return config.epochs * len(batches(config.seed, 0, index, config.batch_size))
    if config.epochs * len(index) > MOST_VIDEOS_COUNTED:
        counted = range(0, config.epochs, max(1, config.epochs * len(index) // MOST_VIDEOS_COUNTED))  # near enough for a progress bar
        found = [len(batches(config.seed, epoch, index, config.batch_size, True)) for epoch in counted]
        return round(config.epochs * sum(found) / len(found))
    return sum(len(batches(config.seed, epoch, index, config.batch_size, True)) for epoch in range(config.epochs))


def describe(config: Config, data: DataSet, index: VideoIndex, labels: str, device: str, precision: str, placement: Placement) -> list[str]:
    """What a person wants to know before hours of training."""
    first = batches(config.seed, 0, index, config.batch_size, config.pairs.distinct_groups)
    size = config.store_size
    frames = len(data.frames)
    largest = max(len(batch) for batch in first)
    drawer = PairDrawer(index, config.pairs)
    views = VIEWS_A_PAIR * drawer.pairs
    return [
        f"data set: {data.name} ({data.digest[:16]}): {len(index)} videos of {len(set(index.groups.tolist()))} groups, "
        f"{len(index.frame_rows)} frames in split {', '.join(config.pairs.splits)}; {labels}",
        f"device: {device}, {torch.get_num_threads()} threads; precision: {precision}",
        f"batch: {largest} videos x {views} views = {views * largest} views of {config.image_size}x{config.image_size}; "
        f"{len(first)} {'step' if len(first) == 1 else 'steps'} an epoch x {config.epochs} epochs = {total_steps(config, index)} steps",
        f"store: {frames} frames at {size}x{size} = {frames * size * size / 1e6:.1f} MB, tier {placement.tier} ({placement.why})",
        *drawer.describe(),
    ]


def initialise(backbone: Backbone, init_from: str | Path | None, config: Config) -> dict[str, Any]:
    """Put the weights that a run starts from into its backbone, where some are named; what `run.json` says of them.

    Raises:
        UserError: They cannot be read, or are of another architecture.
    """
    if init_from is None or str(init_from) == "random":
        return {"kind": "random", "seed": config.seed}
    loaded, provenance = load_backbone(init_from, name=config.backbone, seed=config.seed, image_size=config.image_size)
    if loaded.name != config.backbone:
        raise UserError(init_from, f"is a {loaded.name}, and the run's backbone is {config.backbone}", f"--set backbone={loaded.name}")
    backbone.load_tensors(loaded.tensors())
    return {key: provenance[key] for key in ("kind", "sha256", "dataset_digest", "dataset_name", "clips", "clips_whole")}


def initialised(out: Path, init_from: str | Path | None, config: Config) -> dict[str, Any]:
    """What a resumed run started from, as its run.json says.

    Raises:
        UserError: Other weights are named now.
    """
    initial: dict[str, Any] = run_folder.read_run(out).get("initial_weights") or {}
    named = None if init_from is None else load_backbone(init_from, name=config.backbone, image_size=config.image_size)[1]["sha256"]
    if init_from is not None and named != initial.get("sha256"):
        raise UserError("--init-from", "differs from what this run started from", "leave it out to resume, or start anew in another --out")
    return initial
