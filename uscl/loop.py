"""The loop of a pretraining run, from top to bottom: batches in, steps, lines of metrics and checkpoints out. It knows no method.

Guarantees: what a step does follows from the seed and its position, so a run that is killed at any step and resumed gives the same weights,
bit for bit, on one device; no checkpoint is written of a loss that is not finite.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from uscl import checkpoint, distributed, processes, run_folder
from uscl.average import Average
from uscl.backbones import Backbone
from uscl.checkpoint import Position
from uscl.config import Config
from uscl.diagnostics import measure, verdict
from uscl.feed import Batch, Feed
from uscl.methods import Method
from uscl.metric_lines import term_names
from uscl.pairs import VideoIndex
from uscl.probe import ProbeFrames, probe
from uscl.saving import Saver
from uscl.schedule import learning_rate
from uscl.step import Step, wants_graphs
from uscl.tensorboard import Scalars
from uscl.utilisation import Capacity, capacity
from usdata.console import PLAIN_LINE_INTERVAL_S, progress
from usdata.errors import RecipeError, Stopped, UserError
from usdata.files import write_json
from usdata.signals import StopFlag


@dataclass(frozen=True)
class Run:
    """What the loop works on."""

    out: Path
    config: Config
    index: VideoIndex
    device: torch.device
    precision: str
    method: Method
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


def train(run: Run, feed: Feed, position: Position, steps: int) -> Position:
    """Train from a position to the end of the last epoch; returns where it ended."""
    config = run.config
    run.write("running", position)
    run.method.train()
    graphs = wants_graphs(config, run.device)
    step = Step(config, run.method, run.optimizer, run.device, run.precision, run.average, graphs=graphs)
    began = time.monotonic() - position.seconds
    meter = _Meter(capacity(run.backbone, config.image_size, run.device, run.precision))
    history = run_folder.read_metrics(run.out)
    first_bad = torch.full((), -1, dtype=torch.int64, device=run.device)  # step whose loss or gradient was not finite; -1 = none
    agreed_stop = distributed.StopAgreement()
    warned = False
    said = time.monotonic()
    with progress("pretraining", steps, "steps", done=position.step) as advance, run.stop.deferred():
        waiting = time.monotonic()
        for batch in feed(position.epoch, position.batch):
            meter.waited(time.monotonic() - waiting)
            rate = learning_rate(config, batch.epoch + batch.number / batch.of, 1 / batch.of)
            try:
                outcome = step(batch, rate)
            except RecipeError as error:
                raise _own_method_failed(run, position, error) from error
            fine = torch.isfinite(outcome["loss"]) & torch.isfinite(outcome["grad_norm"])
            first_bad = torch.where((first_bad < 0) & ~fine, position.step + 1, first_bad)

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
            if (run.device.type == "cpu" or log_due or stopping) and first_bad >= 0:
                _fail(run, before, position, batch, outcome, int(first_bad))
            meter.count(batch.facts.views * len(batch.videos))
            position = replace(position, seconds=time.monotonic() - began)
            if log_due:
                line = _metrics_line(config.method, position, batch, outcome, rate, meter)
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
            if due and first_bad < 0:
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
    if "contrast" in line:
        parts = f", contrast {line['contrast']:.3f} (collapsed {line['collapsed_loss']:.3f})"
    else:
        parts = "".join(f", {name} {line[name]:.3f}" for name in term_names(line))
    return (
        f"step {line['step']}, epoch {line['epoch']}: loss {line['loss']:.3f}{parts}, "
        f"similarity of positives {line['positive_similarity']:.2f}, "
        f"of negatives {line['negative_similarity']:.2f}, spread {line['feature_spread']:.4f}{named}"
    )


def _probe(run: Run, feed: Feed, frames: ProbeFrames) -> dict[str, float]:
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


def _metrics_line(method: str, position: Position, batch: Batch, outcome: dict[str, Any], rate: float, meter: _Meter) -> dict[str, Any]:
    measured = measure(distributed.gather(outcome["features"].detach(), len(batch.videos), views=2), outcome["projections"].detach())
    if "collapsed_loss" in outcome:
        measured["collapsed_loss"] = float(outcome["collapsed_loss"])
    elif "contrast" not in outcome["terms"]:
        del measured["collapsed_loss"]  # it is that of a loss among negatives
    rates = meter.read()
    taken = {"step", "epoch", "loss", "learning_rate", "grad_norm", *measured, *rates} & outcome["terms"].keys()
    if taken:
        reason = f"is '{method}', and names a term '{min(taken)}', which is another figure of {run_folder.METRICS}"
        raise RecipeError("method", reason, "give the term another name")
    # The terms stand between `loss` and `learning_rate`: `term_names` finds them there.
    return {
        "step": position.step,
        "epoch": batch.epoch,
        "loss": outcome["loss"].item(),
        **{name: term.item() for name, term in outcome["terms"].items()},
        "learning_rate": rate,
        "grad_norm": outcome["grad_norm"].item(),
        **measured,
        **rates,
    }


def _own_method_failed(run: Run, position: Position, error: RecipeError) -> RecipeError:
    """The same error, with where its traceback is kept: whoever wrote the method needs it."""
    run.write("failed", position)
    run_folder.log(run.out, "".join(traceback.format_exception(error.__cause__ or error)), aloud=False)
    return RecipeError(
        error.subject, error.reason, f"{error.advice}, and go on with --resume; the traceback is in {run.out / run_folder.LOG}"
    )


def _fail(run: Run, before: Position, position: Position, batch: Batch, outcome: dict[str, Any], first_bad: int) -> None:
    """The loss or its gradient is infinite or not a number: keep what is needed to take the step again, and stop.

    Every draw follows from the position, so weights and position are all of it. On the CPU the step has left the weights as they were. On a
    GPU nobody waited to look, and they are spoilt since `first_bad`: the last checkpoint leads to the same step again.
    """
    terms = {name: str(term.item()) for name, term in outcome["terms"].items()} | {"gradient norm": str(outcome["grad_norm"].item())}
    failure: dict[str, Any] = {"step": first_bad, "seen_at_step": position.step, "epoch": batch.epoch, "terms": terms}
    if first_bad == position.step:
        failure["videos"] = [run.index.video_ids[video] for video in batch.videos]
    if processes.is_first():
        write_json(run.out / run_folder.FAILURE, failure)
    if run.device.type == "cpu":
        run.saver.save([checkpoint.FAILED], before)
    run.write("failed", before)
    processes.wait_for_all()
    seen = "" if first_bad == position.step else f", seen at step {position.step}"
    reason = f"the loss is no longer finite at step {first_bad}{seen} ({', '.join(f'{name} {term}' for name, term in terms.items())})"
    kept = f"the weights before it are in {run_folder.CHECKPOINTS}/{checkpoint.FAILED}, " if run.device.type == "cpu" else ""
    advice = f"try a lower learning_rate or precision=float32; see {run_folder.FAILURE}; {kept}other checkpoints are from before"
    raise UserError(run.out, reason, advice)
