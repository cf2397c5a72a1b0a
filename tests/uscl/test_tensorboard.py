"""TensorBoard's files, read back by TensorBoard itself: every figure at its step, and none twice after a resume."""

from __future__ import annotations

import resource
import socket
from pathlib import Path
from typing import Any

import pytest

from uscl import tensorboard
from uscl.tensorboard import open_scalars


def line(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "epoch": step // 2, "loss": loss, "grad_norm": 2 * loss, "note": "text is no scalar"}


def read(out: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(out / "tensorboard"))
    accumulator.Reload()
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def test_every_figure_is_read_back_and_a_resume_writes_over_what_is_behind_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    scalars = open_scalars(tmp_path, "auto", 0)
    for step in range(1, 6):
        scalars.write(line(step, 10.0 + step))
    assert read(tmp_path)["loss"] == [(step, 10.0 + step) for step in range(1, 6)]

    # Killed in the middle of a record, and resumed from step 3.
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    scalars = open_scalars(tmp_path, "auto", 3)
    for step in range(4, 8):
        scalars.write(line(step, 20.0 + step))
    found = read(tmp_path)
    assert found.keys() == {"loss", "epoch", "grad_norm"}
    assert found["loss"] == [(1, 11), (2, 12), (3, 13), (4, 24), (5, 25), (6, 26), (7, 27)]
    assert found["grad_norm"] == [(step, 2 * value) for step, value in found["loss"]]


def test_no_machine_is_named_and_a_session_without_lines_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    open_scalars(tmp_path, "auto", 0)
    assert not list(tmp_path.iterdir())
    open_scalars(tmp_path, "auto", 0).write(line(1, 1.0))
    open_scalars(tmp_path, "auto", 1).write(line(2, 1.0))
    names = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert names == ["events.out.tfevents.000001", "events.out.tfevents.000002"]
    assert all(socket.gethostname().encode() not in path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())


def test_a_file_that_cannot_be_written_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    scalars = open_scalars(tmp_path, "auto", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        scalars.write(line(1, 1.0))
        scalars.write(line(2, 1.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capsys.readouterr().err.count("TensorBoard's file cannot be written (File too large)") == 1


def test_nothing_is_written_where_it_is_off_or_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_scalars(tmp_path, "off", 0).write(line(1, 1.0))
    monkeypatch.setattr(tensorboard, "installed", lambda: False)
    open_scalars(tmp_path, "auto", 0).write(line(1, 1.0))
    assert not list(tmp_path.iterdir())
