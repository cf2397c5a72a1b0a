"""Checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is a folder of three files: model.safetensors, optimizer.safetensors and state.json. It is written under a temporary name,
flushed, and renamed, so that a reader (or a run killed at any moment) finds a whole one or none. No pickle is written or read. Randomness
is counter-based, so the position (epoch, batch) is all the state there is beside weights and Adam's moments.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from uscl.average import Average
from usdata.errors import UserError
from usdata.files import write_json

LAST = "last"
FAILED = "failed"
_OLD = ".last.old"


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        step: Optimiser steps done.
        epoch: 0-based epoch of the next step.
        batch: 0-based batch of the next step in that epoch.
        seconds: Time spent in training so far, all sessions together.
        config_digest: Of the run's configuration.
        dataset_digest: Of its data set.
    """

    step: int
    epoch: int
    batch: int
    seconds: float
    config_digest: str
    dataset_digest: str


def save(folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer, position: Position, average: Average | None = None) -> None:
    """Write a checkpoint folder at once or not at all; one that stood there before stays until the new one is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.part")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file({key: _plain(value) for key, value in method.state_dict().items()}, temporary / "model.safetensors")
    save_file(_moments(method, optimizer), temporary / "optimizer.safetensors")
    if average is not None:
        save_file({key: _plain(value) for key, value in average.network.state_dict().items()}, temporary / "average.safetensors")
    write_json(temporary / "state.json", asdict(position))
    for file in temporary.iterdir():
        _flush(file)
    _flush(temporary)
    # A folder cannot be renamed over a full one. Between the two renames the old name still holds a whole checkpoint, which `find` knows.
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def find(checkpoints: Path) -> Path | None:
    """The newest whole `last` checkpoint, or None. One that a kill left under its old name counts."""
    for name in (LAST, _OLD):
        if (checkpoints / name / "state.json").is_file():
            return checkpoints / name
    return None


def read_position(folder: Path) -> Position:
    """The position in a checkpoint.

    Raises:
        UserError: It is damaged.
    """
    try:
        return Position(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder, error) from None


def load(folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None = None) -> None:
    """Put a checkpoint's weights and moments into a method and its optimizer, in place.

    Raises:
        UserError: The checkpoint is damaged or belongs to another network.
    """
    try:
        method.load_state_dict(load_file(folder / "model.safetensors"))
        moments = load_file(folder / "optimizer.safetensors")
        on_device = {id(parameter) for group in optimizer.param_groups if _steps_on_device(group) for parameter in group["params"]}
        for name, parameter in method.named_parameters():
            found = {key.removeprefix(f"{name}."): value for key, value in moments.items() if key.rpartition(".")[0] == name}
            optimizer.state[parameter] = {
                key: value.to(parameter.device if id(parameter) in on_device else "cpu", copy=True)
                if value.ndim == 0
                else torch.empty_like(parameter).copy_(value)
                for key, value in found.items()
            }
        if average is not None:
            average.network.load_state_dict(load_file(folder / "average.safetensors"))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise _damaged(folder, error) from None


def _moments(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state under the parameters' names: '<parameter>.exp_avg', ...; nothing for one that has had no gradient yet."""
    return {
        f"{name}.{key}": _plain(value)
        for name, parameter in method.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def _steps_on_device(group: dict[str, Any]) -> bool:
    """Whether a group's step counts live beside its parameters."""
    return bool(group.get("fused") or group.get("capturable"))


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()


def _damaged(folder: Path, error: Exception) -> UserError:
    reason = str(error).replace("\n", " ")
    return UserError(folder, f"this checkpoint cannot be used ({reason})", "move it away, or start again with --overwrite")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
