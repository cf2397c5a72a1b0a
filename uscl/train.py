"""Pretraining: from a data set and a recipe to a run folder; `loop.py` is the loop in it.

In comes a data set and a recipe; out comes a run folder with weights, metrics and an exported backbone. Every random number is a function
of the seed and a position, so a run that is killed at any step and resumed gives the same weights, bit for bit, on one device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from uscl import batch_norm, checkpoint, distributed, processes, run_folder, trained_on
from uscl.average import Average
from uscl.backbones import check_backbone
from uscl.checkpoint import Position
from uscl.config import Config, load_config
from uscl.diagnostics import verdict
from uscl.exporting.backbone_file import export_backbone
from uscl.exporting.training_data import settings, training_data
from uscl.feed import Feed
from uscl.frames import open_store
from uscl.labels import used_labels, with_labels
from uscl.loop import Run, train
from uscl.methods import make_method
from uscl.methods.own import changed_sentence, one_line, own_file
from uscl.optimizers import make_optimizer
from uscl.pairs import batches, check_batches, index_videos
from uscl.probe import choose_frames
from uscl.run_report import write_report
from uscl.saving import Saver
from uscl.starting import describe, initialise, initialised, move, run_device, run_precision, total_steps
from uscl.step import wants_graphs
from uscl.tensorboard import open_scalars
from uscl.tiers import place_store
from usdata.console import say
from usdata.duplicates.record import Record
from usdata.errors import UserError
from usdata.files import canonical_json
from usdata.manifest import DataSet, open_dataset
from usdata.signals import stop_signals


@dataclass(frozen=True)
class PretrainResult:
    """What a pretraining did.

    Attributes:
        out: The run's folder.
        steps: Optimiser steps, all sessions together (of a dry run: those it would take).
        epochs: Passes over the videos.
        seconds: Time in training, all sessions together.
        metrics: The last line of metrics.jsonl; empty for a dry run.
        classes: The data set's labels, all of them, used or not.
    """

    out: Path
    steps: int
    epochs: int
    seconds: float
    metrics: dict[str, Any]
    classes: list[str]


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
        init_from: Weights that the backbone starts from: a run, a file, 'imagenet' or 'random' (see `load_backbone`); no more is taken.
        dry_run: Check everything and say what would be done, and write nothing.

    Raises:
        UserError: The input or the configuration is wrong, or the loss became infinite.
        Stopped: A signal stopped the run; everything is saved.
    """
    out = Path(out)
    config = load_config(recipe, overrides)
    data = open_dataset(dataset)
    index = index_videos(data, config.pairs.splits, config.pairs.column)
    # The probe measures by all labels, whichever are trained on.
    probed = choose_frames(index, config.probe, config.seed)
    labels = used_labels(config, index, len(data.classes))
    index = with_labels(index, labels, config.pairs.column)
    check_batches(config.seed, index, config.batch_size, config.pairs.distinct_groups)
    check_backbone(config.backbone, config.image_size)
    device, why_device = run_device(config)
    precision, why_precision = run_precision(config, device)
    if torch.get_num_threads() != run_folder.threads():
        torch.set_num_threads(run_folder.threads())
    first_epoch = batches(config.seed, 0, index, config.batch_size, config.pairs.distinct_groups)
    largest = max(len(batch) for batch in first_epoch)
    distributed.check_world(largest)
    if config.micro_batch_size is not None and config.sync_batchnorm and processes.world_size() > 1:
        reason = "cannot be together with sync_batchnorm: parts that pass one by one have no statistics of the whole batch"
        raise UserError("micro_batch_size", reason, "leave one of them out")
    placement = place_store(config.store.tier, len(data.frames) * config.store_size**2, device)
    facts = describe(config, data, index, labels.sentence, f"{device} ({why_device})", f"{precision} ({why_precision})", placement)
    facts += distributed.describe(largest, config.sync_batchnorm)
    facts += [probed.describe()] if probed else []
    steps = total_steps(config, index)
    method, backbone = make_method(config, labels.classes, labels.class_weights)
    own_method = own_file(type(method))
    found = run_folder.check(out, config, data, resume=resume, overwrite=overwrite)
    initial = initialise(backbone, init_from, config) if found is None else initialised(out, init_from, config)
    for fact in facts:
        say(fact)
    if dry_run:
        return PretrainResult(out, steps, config.epochs, 0.0, {}, list(data.classes))

    with stop_signals("run the same command again with --resume") as stop, TemporaryDirectory(prefix="uscl-") as place:
        # Everything that can fail for the user's sake comes before the folder is made, so that the same command can be given again.
        folder = Path(config.store.folder) if config.store.folder else None
        with processes.first_alone():
            store = open_store(data, size=config.store_size, folder=folder, verify=config.store.verify)
        if found is None:
            with one_line(config.method, "begin()"):
                method.begin(steps)
        labelled = [video for video, label in zip(index.video_ids, index.labels, strict=True) if label >= 0]
        before = trained_on.known(init_from, initial)
        needed = processes.is_first() and trained_on.needed(out, found.folder if found else None)
        prepared = trained_on.prepare(Path(place), data, index.video_ids, labelled, before) if needed else None
        batch_norm.prepare(method, whole_batch=config.sync_batchnorm, device=device)
        move(method, device, config, precision)
        optimizer = make_optimizer(config, method, capturable=wants_graphs(config, device))
        average = None if config.average.decay is None else Average(method, config.average.decay)
        position = Position(0, 0, 0, 0.0, config.digest, data.digest)
        if found is not None:
            position = found.position
            extra = checkpoint.load(found.folder, method, optimizer)
            if average is not None:
                average.load(extra)
        environment = run_folder.read_environment(out) if found is not None else {}
        trained_by = int(environment.get("processes", 1)) if found is not None else processes.world_size()
        # Every process has read the run's folder before the first one writes there.
        distributed.check_agreement(
            configuration=config.digest, data_set=data.digest, checkpoint=position.step, initial_weights=initial, method_file=own_method
        )
        distributed.share_weights(method)
        with processes.first_alone():
            if overwrite:
                run_folder.clear(out)
            run_folder.write_start(out, config, run_folder.describe_environment(device, precision) | {"own_method": own_method}, facts)
            record = trained_on.keep(prepared, out)
            run_folder.forget_after(out, position.step)
            if found is not None:
                run_folder.go_on(out, found)
        if trained_by != processes.world_size():
            run_folder.log(out, distributed.changed_sentence(trained_by, config.sync_batchnorm))
        if sentence := changed_sentence(environment.get("own_method"), own_method):
            run_folder.log(out, f"warning: {sentence}")
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
        run = Run(out, config, index, device, precision, method, backbone, optimizer, average, about, stop, probed, saver, scalars)
        feed = Feed(store, index, config, device, placement)
        position = train(run, feed, position, steps)

        processes.wait_for_all()
        history = run_folder.read_metrics(out)
        if processes.is_first():
            exported = export_backbone(out, run.handed_out, _export_facts(config, data, position.step, Path(recipe).stem, record))
            run.write("finished", position, exported)
            write_report(out, config, backbone.width)
    if sentence := verdict(history, backbone.width, share_done=1):
        run_folder.log(out, f"warning: {sentence}")
    if sentence := saver.unheard():
        run_folder.log(out, f"warning: {sentence}")
    run_folder.log(out, f"{position.step} steps in {position.seconds:.0f} s")
    return PretrainResult(out, position.step, config.epochs, position.seconds, (history or [{}])[-1], list(data.classes))


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
        "training_data": canonical_json(training_data(data, config.pairs.splits)),
        "settings": canonical_json(settings(config)),
        "config_digest": config.digest,
        "uscl_version": run_folder.uscl_version(),
    }
