"""When checkpoints are saved, and which are kept: by epochs, by minutes, by steps, and the best by a figure of the metrics.

In come positions and lines of metrics; out go checkpoint folders. Which one is the best follows from the configuration and metrics.jsonl
alone, so a run that is killed and resumed keeps the same one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uscl import checkpoint, sections
from uscl.checkpoint import BEST, LAST, Position
from uscl.processes import is_first
from usdata.errors import UserError


class Saver:
    """Saves the checkpoints of a run.

    Args:
        folder: RUN/checkpoints.
        settings: When to save.
        method: What is saved.
        optimizer: Of it.
        lines: The lines of metrics that a resumed run has already written.
        extra: Called at every save for more tensors to go with it.
        flush: A file to be flushed to the disk before every checkpoint (metrics.jsonl), which must not outlive the lines before it.

    Attributes:
        damage: What is wrong with the best checkpoint that a resumed run has; None: nothing.
    """

    def __init__(
        self,
        folder: Path,
        settings: sections.Checkpoint,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        lines: Iterable[Mapping[str, Any]] = (),
        extra: Callable[[], Mapping[str, torch.Tensor]] = dict,
        flush: Path | None = None,
    ) -> None:
        self.folder, self.settings = folder, settings
        self._method, self._optimizer, self._extra, self._flush = method, optimizer, extra, flush
        self._saved_at = time.monotonic()
        self._heard: dict[int, list[float]] = {}
        self._ever_heard = False
        self.damage: str | None = None
        checkpoint.tidy(folder)  # of several processes the first alone writes
        self._best = self._best_so_far()
        for line in lines:
            self.hear(line)

    def hear(self, line: Mapping[str, Any]) -> None:
        """Take note of a line of metrics; what it says counts for the epoch that it names."""
        value = line.get(self.settings.best) if self.settings.best else None
        if value is not None:
            self._ever_heard = True
            self._heard.setdefault(line["epoch"], []).append(float(value))

    def due(self, position: Position, *, ended: bool, over: bool, stopping: bool) -> tuple[str, ...]:
        """The names of the checkpoints to be saved now; `best` among them means that it must be judged whether this one is.

        Args:
            position: After the step.
            ended: Whether an epoch has just ended.
            over: Whether the run has.
            stopping: Whether a signal stops it here.
        """
        settings = self.settings
        by_epochs = over or (ended and position.epoch % settings.every_epochs == 0)
        # Each process has a clock of its own; that of the first counts, for it alone saves.
        by_time = settings.every_minutes is not None and time.monotonic() - self._saved_at >= 60 * settings.every_minutes
        names = []
        if settings.keep_every_steps is not None and position.step % settings.keep_every_steps == 0:
            names.append(f"step-{position.step:06d}")
        if settings.best is not None and (by_epochs if settings.best == "loss" else ended):
            names.append(BEST)
        if by_epochs or by_time or stopping:
            names.append(LAST)
        return tuple(names)

    def save(self, names: Iterable[str], position: Position) -> None:
        """Save checkpoints under these names, `last` after the others, and delete numbered ones that are no longer kept.

        Raises:
            UserError: One cannot be written; those before it are as they were.
        """
        if not is_first():
            return
        for name in names:
            judged = None
            if name == BEST:
                judged = self._judge(position)
                if judged is None:
                    continue
            if self._flush is not None and self._flush.exists():
                with self._flush.open("rb") as file:
                    os.fsync(file.fileno())
            target = self.folder / name
            checkpoint.save(target, self._method, self._optimizer, position, extra=self._extra(), judged=judged)
            if judged is not None:
                self._best = judged["value"]
            if name == LAST:
                self._saved_at = time.monotonic()
        if self.settings.keep_last is not None:
            # Those behind this position are from before a kill; the run writes them again.
            kept = [folder for step, folder in checkpoint.numbered(self.folder).items() if step <= position.step]
            for folder in kept[: -self.settings.keep_last]:
                checkpoint.remove(folder)

    def unheard(self) -> str | None:
        """A sentence where no line of metrics has had the figure that the best checkpoint is chosen by."""
        if self.settings.best is None or self._ever_heard:
            return None
        return f"no line of metrics has '{self.settings.best}', so there is no best checkpoint (checkpoint.best)"

    def _judge(self, position: Position) -> dict[str, Any] | None:
        """What the present state is judged by, where it is the best so far.

        The loss of one batch is mostly luck, so a loss is the mean over the epochs since the last judgement. Any other figure is taken as
        it was last measured in the epoch that has just ended.
        """
        settings, last = self.settings, position.epoch - 1
        first = last // settings.every_epochs * settings.every_epochs if settings.best == "loss" else last
        values = [value for epoch in range(first, last + 1) for value in self._heard.get(epoch, ())]
        self._heard.clear()
        if not values:
            return None
        value = math.fsum(values) / len(values) if settings.best == "loss" else values[-1]
        better = math.isfinite(value) and (self._best is None or (value > self._best if self._highest else value < self._best))
        return {"metric": settings.best, "value": value} if better else None

    @property
    def _highest(self) -> bool:
        if self.settings.best_is != "auto":
            return self.settings.best_is == "highest"
        return "accuracy" in (self.settings.best or "")

    def _best_so_far(self) -> float | None:
        best = self.folder / BEST
        if self.settings.best is None or not best.exists():
            return None
        try:
            checkpoint.verify(best)
        except UserError as error:
            self.damage = f"{BEST}: {error.reason}; the next one that is judged takes its place"
            return None
        judged = checkpoint.read_state(best)["judged"]
        return float(judged["value"]) if judged and judged["metric"] == self.settings.best else None
