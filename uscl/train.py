"""Pretraining: one loop, from top to bottom, that knows no method.

In comes a data set and a recipe; out comes a run folder with weights, metrics and an exported backbone. Every random number is a function
of the seed and a position, so a run that is killed at any step and resumed gives the same weights, bit for bit, on one device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from uscl import batch_norm, checkpoint, distributed, processes, run_folder, trained_on
from uscl.average import Average
from uscl.checkpoint import Position
from uscl.config import Config, load_config
from uscl.diagnostics import measure, verdict
from uscl.export import export_backbone
from uscl.feed import Batch, Feed
from uscl.frames import open_store
from uscl.methods import make_method
from uscl.models import Backbone, load_backbone
from uscl.optimizers import make_optimizer
from uscl.pairs import VideoIndex, batches, check_batches, index_videos
from uscl.probe import ProbeFrames, choose_frames, probe
from uscl.saving import Saver
from uscl.schedule import learning_rate
from uscl.step import Step, wants_graphs
from uscl.tensorboard import Scalars, open_scalars
from uscl.tiers import Placement, place_store
from uscl.utilisation import Capacity, capacity
from usdata.console import PLAIN_LINE_INTERVAL_S, progress, say
from usdata.duplicates.record import Record
from usdata.errors import Stopped, UserError
from usdata.files import canonical_json, write_json
from usdata.manifest import DataSet, open_dataset
from usdata.signals import StopFlag, stop_signals


@dataclass(frozen=True)
class PretrainResult:
    """What a pretraining did.

    Attributes:
        out: The run's folder.
        steps: Optimiser steps, all sessions together (of a dry run: those it would take).
        epochs: Passes over the videos.
        seconds: Time in training, all sessions together.
        metrics: The last line of metrics.jsonl; empty for a dry run.
    """

    out: Path
    steps: int
    epochs: int
    seconds: float
    metrics: dict[str, Any]


@processes.joined()
def pretrain(
    dataset: str | Path,
    *,
    out: str | Path,
    recipe: str | Path = "uscl",
    overrides: Iterable[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    init_from: str | Path | None = None,
    dry_run: bool = False,
) -> PretrainResult:
    """Pretrain a backbone on the videos of a data set; started by torchrun, all its processes together, and all return the same.

    Args:
        dataset: A data set folder.
        out: The run's folder, made by this call.
        recipe: Name of a recipe, or a YAML file.
        overrides: `key=value` settings on top of it.
        resume: Go on where the run in `out` stopped; start it where there is none.
        overwrite: Delete the run in `out` first.
        init_from: Weights that the backbone starts from (see `load_backbone`); nothing else is taken over.
        dry_run: Check everything and say what would be done, and write nothing.

    Raises:
        UserError: The input or the configuration is wrong, or the loss became infinite.
        Stopped: A signal stopped the run; everything is saved.
    """
    out = Path(out)
    config = load_config(recipe, overrides)
    data = open_dataset(dataset)
    index = index_videos(data, config.pairs.splits)
    check_batches(config.seed, index, config.batch_size, config.pairs.distinct_groups)
    device, why_device = run_device(config)
    precision, why_precision = run_precision(config, device)
    if torch.get_num_threads() != run_folder.threads():
        torch.set_num_threads(run_folder.threads())
    classes = len(data.classes) if config.labels.weight > 0 and (index.labels >= 0).any() else 0
    first_epoch = batches(config.seed, 0, index, config.batch_size, config.pairs.distinct_groups)
    largest = max(len(batch) for batch in first_epoch)
    distributed.check_world(largest)
    placement = place_store(config.store.tier, len(data.frames) * config.store_size**2, device)
    facts = _facts(config, data, index, classes, f"{device} ({why_device})", f"{precision} ({why_precision})", placement)
    facts += distributed.describe(largest, config.sync_batchnorm)
    probed = choose_frames(index, config.probe, config.seed)
    facts += [probed.describe()] if probed else []
    steps = config.epochs * len(first_epoch)
    found = run_folder.check(out, config, data, resume=resume, overwrite=overwrite)
    for fact in facts:
        say(fact)
    if dry_run:
        return PretrainResult(out, steps, config.epochs, 0.0, {})

    with stop_signals("run the same command again with --resume") as stop, TemporaryDirectory(prefix="uscl-") as place:
        # Everything that can fail for the user's sake comes before the folder is made, so that the same command can be given again.
        folder = Path(config.store.folder) if config.store.folder else None
        with processes.first_alone():
            store = open_store(data, size=config.store_size, folder=folder, verify=config.store.verify)
        method, backbone = make_method(config, classes)
        initial = _initialise(backbone, init_from, config) if found is None else _initialised(out, init_from)
        labelled = [video for video, label in zip(index.video_ids, index.labels, strict=True) if classes and label >= 0]
        before = trained_on.known(init_from, initial)
        needed = processes.is_first() and trained_on.needed(out, found.folder if found else None)
        prepared = trained_on.prepare(Path(place), data, index.video_ids, labelled, before) if needed else None
        batch_norm.prepare(method, whole_batch=config.sync_batchnorm, device=device)
        method.to(device)
        if config.channels_last if config.channels_last is not None else precision == "bfloat16":
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = make_optimizer(config, method, capturable=wants_graphs(config, device))
        average = None if config.average.decay is None else Average(method, config.average.decay)
        position = Position(0, 0, 0, 0.0, config.digest, data.digest)
        if found is not None:
            position = found.position
            extra = checkpoint.load(found.folder, method, optimizer)
            if average is not None:
                average.load(extra)
        trained_by = run_folder.processes_before(out) if found is not None else processes.world_size()
        # Every process has read the run's folder before the first one writes there.
        distributed.check_agreement(configuration=config.digest, data_set=data.digest, checkpoint=position.step, initial_weights=initial)
        distributed.share_weights(method)
        with processes.first_alone():
            if overwrite:
                run_folder.clear(out)
            run_folder.write_start(out, config, run_folder.describe_environment(device, precision), facts)
            record = trained_on.keep(prepared, out)
            run_folder.forget_after(out, position.step)
            if found is not None:
                run_folder.go_on(out, found)
        if trained_by != processes.world_size():
            run_folder.log(out, distributed.changed_sentence(trained_by, config.sync_batchnorm))
        saver = Saver(
            out / run_folder.CHECKPOINTS,
            config.checkpoint,
            method,
            optimizer,
            lines=run_folder.read_metrics(out),
            extra=dict if average is None else average.tensors,
            flush=out / run_folder.METRICS,
        )
        if saver.damage is not None:
            run_folder.log(out, f"warning: the best checkpoint is damaged ({saver.damage})")

        about = {
            "dataset": {"name": data.name, "digest": data.digest, "splits": list(config.pairs.splits), "videos": len(index)},
            "recipe": Path(recipe).name,
            "config_digest": config.digest,
            "initial_weights": initial,
            "trained_on": trained_on.describe(record),
            "uscl": run_folder.uscl_version(),
        }
        scalars = open_scalars(out, config.tensorboard, position.step)
        run = _Run(out, config, index, device, precision, method, backbone, optimizer, average, about, stop, probed, saver, scalars)
        feed = Feed(store, index, config, device, placement)
        position = _train(run, feed, position, steps)

        processes.wait_for_all()
        history = run_folder.read_metrics(out)
        if processes.is_first():
            exported = export_backbone(out, run.handed_out, _export_facts(config, data, position.step, Path(recipe).stem, record))
            run.write("finished", position, exported)
    if sentence := verdict(history, backbone.width, share_done=1):
        run_folder.log(out, f"warning: {sentence}")
    if sentence := saver.unheard():
        run_folder.log(out, f"warning: {sentence}")
    run_folder.log(out, f"{position.step} steps in {position.seconds:.0f} s")
    return PretrainResult(out, position.step, config.epochs, position.seconds, (history or [{}])[-1])


@dataclass(frozen=True)
class _Run:
    """What the loop works on."""

    out: Path
    config: Config
    index: VideoIndex
    device: torch.device
    precision: str
    method: nn.Module
    backbone: Backbone
    optimizer: torch.optim.Optimizer
    average: Average | None
    about: dict[str, Any]
    stop: StopFlag
    probed: ProbeFrames | None
    saver: Saver
    scalars: Scalars

    @property
    def handed_out(self) -> Backbone:
        """The backbone that the run exports: the averaged one where there is an average."""
        backbone = self.backbone if self.average is None else self.average.network.backbone
        assert isinstance(backbone, Backbone)
        return backbone

    def write(self, status: str, position: Position, exported: dict[str, Any] | None = None) -> None:
        done = {"steps": position.step, "epochs": position.epoch, "seconds": round(position.seconds, 1)}
        run_folder.write_run(self.out, **self.about, **done, status=status, export=exported)


def _train(run: _Run, feed: Feed, position: Position, steps: int) -> Position:
    """Train from a position to the end of the last epoch; returns where it ended."""
    config = run.config
    run.write("running", position)
    run.method.train()
    graphs = wants_graphs(config, run.device)
    step = Step(config, run.method, run.optimizer, run.device, run.precision, run.average, graphs=graphs)
    began = time.monotonic() - position.seconds
    meter = _Meter(capacity(run.backbone, config.image_size, run.device, run.precision))
    history = run_folder.read_metrics(run.out)
    finite = torch.ones((), dtype=torch.bool, device=run.device)
    agreed_stop = distributed.StopAgreement()
    warned = False
    said = time.monotonic()
    with progress("pretraining", steps, "steps") as advance, run.stop.deferred():
        advance(position.step)
        waiting = time.monotonic()
        for batch in feed(position.epoch, position.batch):
            meter.waited(time.monotonic() - waiting)
            rate = learning_rate(config, batch.epoch + batch.number / batch.of, 1 / batch.of)
            outcome = step(batch, rate)
            finite &= torch.isfinite(outcome["loss"].detach()) & torch.isfinite(outcome["grad_norm"])

            ended = batch.number + 1 == batch.of
            before = position
            following = (batch.epoch + 1, 0) if ended else (batch.epoch, batch.number + 1)
            position = replace(position, step=position.step + 1, epoch=following[0], batch=following[1])
            over = position.epoch == config.epochs
            stopped_by = agreed_stop(run.stop.name)
            stopping = stopped_by is not None and not over
            probe_due = run.probed is not None and ended and (over or position.epoch % (config.probe.every_epochs or 1) == 0)
            log_due = position.step % config.checkpoint.log_every_steps == 0 or over or probe_due
            due = run.saver.due(position, ended=ended, over=over, stopping=stopping)
            # Looking at the loss makes the CPU wait for a GPU, so there it is looked at only when a line is due, and below, before a
            # checkpoint is written: that may be due by the clock, which is another one in every process.
            if (run.device.type == "cpu" or log_due) and not finite:
                _fail(run, before, position, batch, outcome)
            meter.count(2 * len(batch.videos))
            position = replace(position, seconds=time.monotonic() - began)
            if log_due:
                line = _metrics_line(position, batch, outcome, rate, meter)
                if run.probed is not None and probe_due and processes.is_first():
                    line |= _probe(run, feed, run.probed)
                    meter.read()  # the probe's time is none of the next line's
                history.append(line)
                run_folder.append_metrics(run.out, line)
                run.saver.hear(line)
                run.scalars.write(line)
                now = time.monotonic()
                run_folder.log(run.out, _plain_line(line), aloud=over or now - said >= PLAIN_LINE_INTERVAL_S)
                said = now if now - said >= PLAIN_LINE_INTERVAL_S else said
                sentence = None if warned or over else verdict(history, run.backbone.width, share_done=position.step / steps)
                if sentence:
                    warned = True
                    run_folder.log(run.out, f"warning at step {position.step}: {sentence}")
            if due and finite:
                run.saver.save(due, position)
            advance(1)
            if stopping:
                run.write("stopped", position)
                where = f"stopped by {stopped_by} after step {position.step}"
                run_folder.log(run.out, where, aloud=False)  # the error below says it
                processes.wait_for_all()  # a launcher ends all processes once one has ended
                raise Stopped(f"{where}, and everything is saved in {run.out}: run the same command again with --resume")
            waiting = time.monotonic()
    return position


def _plain_line(line: dict[str, Any]) -> str:
    """A line of metrics.jsonl for people: is it learning, or has it collapsed?"""
    named = f", neighbours name {line['knn_accuracy']:.1%} (majority {line['knn_majority']:.1%})" if "knn_accuracy" in line else ""
    return (
        f"step {line['step']}, epoch {line['epoch']}: loss {line['loss']:.3f}, contrast {line['contrast']:.3f} "
        f"(collapsed {line['collapsed_loss']:.3f}), similarity of positives {line['positive_similarity']:.2f}, "
        f"of negatives {line['negative_similarity']:.2f}, spread {line['feature_spread']:.4f}{named}"
    )


def _probe(run: _Run, feed: Feed, frames: ProbeFrames) -> dict[str, float]:
    return probe(
        run.backbone,
        frames,
        feed.read,
        run.config.probe,
        image_size=run.config.image_size,
        device=run.device,
        precision=run.precision,
    )


class _Meter:
    """Rates since the last line of metrics."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._since, self._views, self._waited = time.monotonic(), 0, 0.0

    def waited(self, seconds: float) -> None:
        self._waited += seconds

    def count(self, views: int) -> None:
        self._views += views

    def read(self) -> dict[str, float | None]:
        seconds = max(time.monotonic() - self._since, 1e-9)
        rate = self._views / seconds
        rates = {"views_per_s": round(rate, 2), "data_wait_share": round(self._waited / seconds, 4), **self._capacity.read(rate)}
        self.__init__(self._capacity)  # type: ignore[misc]
        return rates


def _metrics_line(position: Position, batch: Batch, outcome: dict[str, Any], rate: float, meter: _Meter) -> dict[str, Any]:
    return {
        "step": position.step,
        "epoch": batch.epoch,
        "loss": outcome["loss"].item(),
        **{name: term.item() for name, term in outcome["terms"].items()},
        "learning_rate": rate,
        "grad_norm": outcome["grad_norm"].item(),
        **measure(distributed.gather(outcome["features"].detach(), len(batch.videos), views=2), outcome["projections"].detach()),
        **meter.read(),
    }


def _fail(run: _Run, before: Position, position: Position, batch: Batch, outcome: dict[str, Any]) -> None:
    """The loss or its gradient is infinite or not a number: keep what is needed to take the step again, and stop.

    Every draw follows from the position, so weights and position are all of it. On the CPU the step has left the weights as they were; on a
    GPU they may be spoilt, and the last checkpoint leads to the same step again.
    """
    terms = {name: str(term.item()) for name, term in outcome["terms"].items()} | {"gradient norm": str(outcome["grad_norm"].item())}
    videos = [run.index.video_ids[video] for video in batch.videos]
    if processes.is_first():
        write_json(run.out / run_folder.FAILURE, {"step": position.step, "epoch": batch.epoch, "terms": terms, "videos": videos})
    if run.device.type == "cpu":
        run.saver.save([checkpoint.FAILED], before)
    run.write("failed", before)
    processes.wait_for_all()
    reason = f"the loss is no longer finite at step {position.step} ({', '.join(f'{name} {term}' for name, term in terms.items())})"
    kept = f"the weights before it are in {run_folder.CHECKPOINTS}/{checkpoint.FAILED}, " if run.device.type == "cpu" else ""
    advice = (
        f"try a lower learning_rate or precision=float32; the batch is in {run_folder.FAILURE}, {kept}other checkpoints are from before"
    )
    raise UserError(run.out, reason, advice)


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


def _facts(config: Config, data: DataSet, index: VideoIndex, classes: int, device: str, precision: str, placement: Placement) -> list[str]:
    """What a person wants to know before hours of training."""
    first = batches(config.seed, 0, index, config.batch_size, config.pairs.distinct_groups)
    labelled = int((index.labels >= 0).sum())
    size = config.store_size
    frames = len(data.frames)
    largest = max(len(batch) for batch in first)
    used = f"labels of {labelled} videos used, {classes} classes" if classes else "labels not used"
    return [
        f"data set: {data.name} ({data.digest[:16]}): {len(index)} videos of {len(set(index.groups.tolist()))} groups, "
        f"{len(index.frame_rows)} frames in split {', '.join(config.pairs.splits)}; {used}",
        f"device: {device}, {torch.get_num_threads()} threads; precision: {precision}",
        f"batch: {largest} videos x 2 views = {2 * largest} views of {config.image_size}x{config.image_size}; "
        f"{len(first)} steps an epoch x {config.epochs} epochs = {len(first) * config.epochs} steps",
        f"store: {frames} frames at {size}x{size} = {frames * size * size / 1e6:.1f} MB, tier {placement.tier} ({placement.why}); "
        f"a collapsed network's contrastive loss is "
        f"{math.log(2 * largest - 1):.3f}",
    ]


def _initialise(backbone: Backbone, init_from: str | Path | None, config: Config) -> dict[str, Any]:
    if init_from is None:
        return {"kind": "random", "seed": config.seed}
    loaded, provenance = load_backbone(init_from, name=config.backbone, seed=config.seed)
    if loaded.name != config.backbone:
        raise UserError(init_from, f"is a {loaded.name}, and the run's backbone is {config.backbone}", f"--set backbone={loaded.name}")
    backbone.load_state_dict(loaded.state_dict())
    return {key: provenance[key] for key in ("kind", "sha256", "dataset_digest", "dataset_name", "clips", "clips_whole")}


def _initialised(out: Path, init_from: str | Path | None) -> dict[str, Any]:
    """What a resumed run started from, as its run.json says."""
    initial: dict[str, Any] = run_folder.read_run(out).get("initial_weights") or {}
    if init_from is not None and load_backbone(init_from)[1]["sha256"] != initial.get("sha256"):
        raise UserError("--init-from", "differs from what this run started from", "leave it out to resume, or start anew in another --out")
    return initial


def _export_facts(config: Config, data: DataSet, steps: int, recipe: str, record: Record) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "method": config.method,
        "image_size": config.image_size,
        "steps": steps,
        "epochs": config.epochs,
        "dataset_name": data.name,
        "dataset_digest": data.digest,
        "splits": ", ".join(config.pairs.splits),
        "clips": canonical_json(record.digests),
        "clips_whole": "yes" if record.whole else "no",
        "config_digest": config.digest,
        "uscl_version": run_folder.uscl_version(),
    }
