"""When checkpoints are saved and which are kept; the best one follows from the metrics alone, whatever was killed on the way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from uscl import checkpoint
from uscl.checkpoint import Position, read_state, verify
from uscl.config import load_config
from uscl.saving import Saver
from uscl.sections import Checkpoint
from usdata.errors import RecipeError


def saver(folder: Path, lines: list[dict[str, Any]] | None = None, **settings: Any) -> Saver:
    model = nn.Linear(2, 1)
    return Saver(folder, Checkpoint(**settings), model, torch.optim.Adam(model.parameters()), lines=lines or ())


def at(step: int, epoch: int = 0, batch: int = 0) -> Position:
    return Position(step, epoch, batch, 0.0, "config", "data")


def train(made: Saver, lines: list[dict[str, Any]], first: int = 1, killed_after: int | None = None) -> None:
    """Two steps an epoch; a line a step, as given."""
    for step in range(first, (killed_after or len(lines)) + 1):
        made.hear(lines[step - 1])
        ended = step % 2 == 0
        position = at(step, step // 2, step % 2)
        made.save(made.due(position, ended=ended, over=step == len(lines), stopping=False), position)


def test_by_epochs_by_steps_at_the_end_and_on_a_signal(tmp_path: Path) -> None:
    made = saver(tmp_path, every_epochs=2, keep_every_steps=3)
    nothing = {"ended": False, "over": False, "stopping": False}
    assert made.due(at(1), **nothing) == ()
    assert made.due(at(3), **nothing) == ("step-000003",)
    assert made.due(at(4, 1), **nothing | {"ended": True}) == ()
    assert made.due(at(4, 2), **nothing | {"ended": True}) == ("last",)
    assert made.due(at(5), **nothing | {"stopping": True}) == ("last",)
    assert made.due(at(6, 3), **nothing | {"ended": True, "over": True}) == ("step-000006", "last")


def test_by_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = saver(tmp_path, every_epochs=100, every_minutes=0.5)
    nothing = {"ended": False, "over": False, "stopping": False}
    now += 29.9
    assert made.due(at(1), **nothing) == ()
    now += 0.2
    assert made.due(at(2), **nothing) == ("last",)
    made.save(("last",), at(2))
    assert made.due(at(3), **nothing) == ()
    now += 30.1
    assert made.due(at(4), **nothing) == ("last",)


def test_the_newest_numbered_ones_are_kept_and_nothing_else_is_removed(tmp_path: Path) -> None:
    made = saver(tmp_path, keep_every_steps=1, keep_last=2, best="loss", every_epochs=1)
    train(made, [{"step": step, "epoch": (step - 1) // 2, "loss": float(step)} for step in range(1, 9)])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["best", "last", "previous", "step-000007", "step-000008"]
    assert verify(tmp_path / "best").step == 2
    # A run that goes on from an earlier step leaves those behind it alone until it has written them again.
    again = saver(tmp_path, keep_every_steps=1, keep_last=2)
    for step in (5, 6):
        again.save(again.due(at(step), ended=False, over=False, stopping=False), at(step))
    assert list(checkpoint.numbered(tmp_path)) == [5, 6, 7, 8]
    for step in (7, 8):
        again.save(again.due(at(step), ended=False, over=False, stopping=False), at(step))
    assert list(checkpoint.numbered(tmp_path)) == [7, 8]


LOSSES = [5.0, 3.0, 2.0, 6.0, 1.0, 4.5, 3.0, 3.1, 2.0, 2.2]
ACCURACIES: list[float | None] = [None, 0.5, None, None, None, 0.8, None, 0.7, None, 0.8]


def lines_of(steps: int) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        line = {"step": step, "epoch": (step - 1) // 2, "loss": LOSSES[step - 1]}
        accuracy = ACCURACIES[step - 1]
        lines.append(line if accuracy is None else line | {"knn_accuracy": accuracy})
    return lines


@pytest.mark.parametrize(
    ("settings", "step", "value"),
    [
        # Means over two epochs: 4, 2.9 and of the last epoch 2.1.
        ({"best": "loss", "every_epochs": 2}, 10, 2.1),
        ({"best": "loss", "every_epochs": 2, "best_is": "highest"}, 4, 4.0),
        # Every epoch: 4, 4, 2.75, 3.05, 2.1.
        ({"best": "loss", "every_epochs": 1}, 10, 2.1),
        # The highest of an accuracy, in whatever epoch it was measured; the first of two equal ones.
        ({"best": "knn_accuracy", "every_epochs": 5}, 6, 0.8),
        ({"best": "knn_accuracy", "every_epochs": 1, "best_is": "lowest"}, 2, 0.5),
    ],
)
def test_the_best_follows_from_the_metrics_whatever_was_killed(tmp_path: Path, settings: dict[str, Any], step: int, value: float) -> None:
    lines = lines_of(10)
    train(saver(tmp_path / "whole", **settings), lines)
    best = read_state(tmp_path / "whole" / "best")
    assert best["step"] == step
    assert best["judged"] == {"metric": settings["best"], "value": pytest.approx(value)}
    for killed_after, resumed_from in ((3, 0), (4, 4), (7, 2), (7, 5), (9, 8)):
        folder = tmp_path / f"killed-{killed_after}-{resumed_from}"
        train(saver(folder, **settings), lines, killed_after=killed_after)
        train(saver(folder, lines[:resumed_from], **settings), lines, first=resumed_from + 1)
        again = read_state(folder / "best")
        assert (again["step"], again["judged"]) == (step, best["judged"])


def test_values_that_are_not_finite_are_never_the_best(tmp_path: Path) -> None:
    train(
        saver(tmp_path, best="loss", every_epochs=1), [{"step": 1, "epoch": 0, "loss": float("nan")}, {"step": 2, "epoch": 0, "loss": 1.0}]
    )
    assert not (tmp_path / "best").exists()


def test_a_figure_that_no_line_has_is_told(tmp_path: Path) -> None:
    made = saver(tmp_path, best="knn_acuracy", every_epochs=1)
    train(made, lines_of(4))
    assert not (tmp_path / "best").exists()
    assert "no line of metrics has 'knn_acuracy'" in (made.unheard() or "")
    made = saver(tmp_path, best="loss")
    train(made, lines_of(4))
    assert made.unheard() is None


def test_a_damaged_best_is_told_and_judged_anew(tmp_path: Path) -> None:
    lines = lines_of(10)
    train(saver(tmp_path, best="loss", every_epochs=1), lines[:6])
    (tmp_path / "best" / "model.safetensors").write_bytes(b"")
    made = saver(tmp_path, lines[:6], best="loss", every_epochs=1)
    assert made.damage is not None
    assert "model.safetensors" in made.damage
    train(made, lines, first=7)
    assert verify(tmp_path / "best").step == 10


def test_settings_are_checked() -> None:
    settings = load_config(
        "uscl", ["checkpoint.every_minutes=2.5", "checkpoint.keep_last=3", "checkpoint.best=knn_accuracy", "tensorboard=off"]
    )
    assert (settings.checkpoint.every_minutes, settings.checkpoint.keep_last, settings.tensorboard) == (2.5, 3, "off")
    for wrong in (
        "checkpoint.every_minutes=0",
        "checkpoint.keep_last=0",
        "checkpoint.best=../x",
        "tensorboard=on",
        "checkpoint.best_is=low",
    ):
        with pytest.raises(RecipeError, match=wrong.partition("=")[0]):
            load_config("uscl", [wrong])
