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

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from uscl.processes import first_only
from usdata.errors import UserError
from usdata.files import write_json

LAST = "last"
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


@first_only
def save(folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
    """Write a checkpoint folder at once or not at all; one that stood there before stays until the new one is whole.

    Of several processes the first alone writes: all of them hold the same weights and moments.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.part")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file({key: _plain(value) for key, value in method.state_dict().items()}, temporary / "model.safetensors")
    save_file(_moments(method, optimizer), temporary / "optimizer.safetensors")
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


def load(folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights and moments into a method and its optimizer, in place.

    Raises:
        UserError: The checkpoint is damaged or belongs to another network.
    """
    try:
        method.load_state_dict(load_file(folder / "model.safetensors"))
        moments = load_file(folder / "optimizer.safetensors")
        for name, parameter in method.named_parameters():
            first = torch.empty_like(parameter).copy_(moments[f"{name}.exp_avg"])
            second = torch.empty_like(parameter).copy_(moments[f"{name}.exp_avg_sq"])
            fused = optimizer.param_groups[0]["fused"]
            step = moments[f"{name}.step"].to(parameter.device if fused else "cpu", copy=True)
            optimizer.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise _damaged(folder, error) from None


def _moments(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Adam's state under the parameters' names; zeros for a parameter that has had no gradient yet, which is what Adam starts from."""
    result: dict[str, torch.Tensor] = {}
    for name, parameter in method.named_parameters():
        state = optimizer.state.get(parameter) or {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        result |= {f"{name}.{key}": _plain(state[key]) for key in ("step", "exp_avg", "exp_avg_sq")}
    return result


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
