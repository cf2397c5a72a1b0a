"""Checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is a folder: model.safetensors, optimizer.safetensors, extra.safetensors where there is more, and state.json with the sha256 of
each. It is written under a temporary name, flushed, and renamed; the `last` one becomes `previous` first. So a run killed at any moment has
a whole checkpoint, and one that is damaged later is noticed and passed over. No pickle is written or read. Randomness is counter-based, so
the position (epoch, batch) is all the state there is beside weights and the optimizer's tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from uscl.processes import first_only
from usdata.errors import UserError
from usdata.files import canonical_json, sha256_file, sha256_text, write_json

LAST, PREVIOUS, BEST, FAILED, DAMAGED = "last", "previous", "best", "failed", "last-damaged"
MODEL, OPTIMIZER, EXTRA, STATE = "model.safetensors", "optimizer.safetensors", "extra.safetensors", "state.json"
STATE_VERSION = 2
_NUMBERED = re.compile(r"step-(\d+)")


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


@dataclass(frozen=True)
class Found:
    """A whole checkpoint to go on from.

    Attributes:
        folder: Where it lies.
        position: What it says.
        damage: What is wrong with a newer one that was passed over; None: nothing was.
    """

    folder: Path
    position: Position
    damage: str | None = None


@first_only
def save(
    folder: Path,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    *,
    extra: Mapping[str, torch.Tensor] | None = None,
    judged: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder at once or not at all; one that stood there before stays until the new one is whole.

    Of several processes the first alone writes: all of them hold the same weights and moments.

    Args:
        folder: The checkpoint. Where it is `last`, the one before it becomes `previous`.
        method: Whose state is saved.
        optimizer: Any whose state is tensors a parameter.
        position: Where the run stands.
        extra: More tensors, under names of the caller's (an average of the weights, a queue).
        judged: Of the best one, what it was chosen by.

    Raises:
        UserError: It cannot be written (the disk is full, the folder read-only); every checkpoint before it is as it was.
    """
    tensors = {MODEL: method.state_dict(), OPTIMIZER: optimizer_tensors(method, optimizer)}
    if extra:
        tensors[EXTRA] = dict(extra)
    about = {"version": STATE_VERSION, **asdict(position), "optimizer": type(optimizer).__name__}
    about["judged"] = dict(judged) if judged else None
    temporary = _beside(folder, "part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()
        digests = {name: _write_tensors(temporary / name, values) for name, values in tensors.items()}
        about["files"] = digests
        write_json(temporary / STATE, {**about, "sha256": sha256_text(canonical_json(about))})
        _flush(temporary)
        _put_in_place(temporary, folder)
    except OSError as error:
        reason = f"cannot be saved ({error.strerror or error})"
        advice = "the checkpoints before it are as they were: make room or give leave to write, then go on with --resume"
        raise UserError(folder, reason, advice) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # whole, it has another name by now; half of one takes room that is wanted


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Give a whole checkpoint its name.

    A folder cannot be renamed over a full one. Killed between two renames, a run finds `previous` (for `last`) or the old one under its
    temporary name (`tidy` puts it back).
    """
    if folder.exists():
        kept = folder.with_name(PREVIOUS) if folder.name == LAST else _beside(folder, "old")
        if kept.exists():
            remove(kept)
        folder.rename(kept)
    temporary.rename(folder)
    _flush(folder.parent)
    if folder.name != LAST and _beside(folder, "old").exists():
        remove(_beside(folder, "old"))


@first_only
def remove(folder: Path) -> None:
    """Delete a checkpoint; killed on the way, what is left does not look like one."""
    gone = _beside(folder, "gone")
    if gone.exists():
        shutil.rmtree(gone)
    folder.rename(gone)
    shutil.rmtree(gone)


@first_only
def tidy(checkpoints: Path) -> None:
    """Clear away what a kill left half-done, and give the checkpoint that it left without a name its name back."""
    for entry in sorted(checkpoints.glob(".*")):
        name, _, what = entry.name[1:].rpartition(".")
        if what == "old" and not (checkpoints / name).exists():
            entry.rename(checkpoints / name)
        elif what in ("part", "old", "gone"):
            shutil.rmtree(entry)


def numbered(checkpoints: Path) -> dict[int, Path]:
    """The numbered checkpoints by their steps, in order."""
    found = {int(match[1]): entry for entry in checkpoints.glob("step-*") if (match := _NUMBERED.fullmatch(entry.name))}
    return dict(sorted(found.items()))


def find(checkpoints: Path) -> Found | None:
    """The newest whole checkpoint of `last` and `previous`, or None where there is neither.

    Raises:
        UserError: There are some, and all are damaged.
    """
    damage: list[str] = []
    for name in (LAST, PREVIOUS):
        if not (checkpoints / name).exists():
            continue
        try:
            return Found(checkpoints / name, verify(checkpoints / name), damage[0] if damage else None)
        except UserError as error:
            damage.append(f"{name}: {error.reason}")
    if not damage:
        return None
    advice = "start again with --overwrite"
    for folder in reversed(numbered(checkpoints).values()):
        try:
            verify(folder)
        except UserError:
            continue
        advice = f"{folder.name} is whole: delete these and rename it to {LAST} to go on from there, or {advice}"
        break
    raise UserError(checkpoints, f"no checkpoint can be used ({'; '.join(damage)})", advice)


@first_only
def set_aside(found: Found) -> None:
    """Take a damaged `last` out of the way, before a save would put it in the place of the whole `previous`."""
    last = found.folder.with_name(LAST)
    if found.damage is not None and last.exists():
        kept = last.with_name(DAMAGED)
        if kept.exists():
            remove(kept)
        last.rename(kept)


def read_state(folder: Path) -> dict[str, Any]:
    """state.json, which is as it was written.

    Raises:
        UserError: It is damaged.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if not isinstance(state, dict) or state.pop("sha256", None) != sha256_text(canonical_json(state)):
            raise ValueError("its content is not what was written")
        if state["version"] != STATE_VERSION:
            raise ValueError(f"version {state['version']}, and this program reads {STATE_VERSION}")
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{STATE}: {getattr(error, 'strerror', None) or error}") from None
    return state


def verify(folder: Path) -> Position:
    """Check every file of a checkpoint against the sha256 that was taken when it was written; returns its position.

    Raises:
        UserError: It is damaged.
    """
    state = read_state(folder)
    for name, digest in state["files"].items():
        try:
            equal = sha256_file(folder / name) == digest
        except OSError as error:
            raise _damaged(folder, f"{name}: {error.strerror}") from None
        if not equal:
            raise _damaged(folder, f"{name}: its content is not what was written")
    return Position(**{field.name: state[field.name] for field in fields(Position)})


def load(folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Put a checkpoint into a method and its optimizer, in place, and return the extra tensors (on the CPU).

    Raises:
        UserError: The checkpoint is damaged, or belongs to another network or optimizer.
    """
    state = read_state(folder)
    try:
        if state["optimizer"] != type(optimizer).__name__:
            raise ValueError(f"its optimizer is {state['optimizer']}, and the run's is {type(optimizer).__name__}")
        method.load_state_dict(load_file(folder / MODEL))
        load_optimizer_tensors(load_file(folder / OPTIMIZER), method, optimizer)
        extra = load_file(folder / EXTRA) if EXTRA in state["files"] else {}
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise _damaged(folder, str(error).replace("\n", " ")) from None
    return {name: value.clone() for name, value in extra.items()}


def optimizer_tensors(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state of an optimizer as `<parameter's name>.<entry>`; a parameter that has had no gradient yet has none.

    Raises:
        TypeError: The optimizer keeps something that is no tensor.
    """
    result: dict[str, torch.Tensor] = {}
    for name, parameter in method.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                result[f"{name}.{entry}"] = value
            elif value is not None:
                raise TypeError(f"{type(optimizer).__name__} keeps a {type(value).__name__} as '{entry}', which no checkpoint can hold")
    return result


def load_optimizer_tensors(tensors: Mapping[str, torch.Tensor], method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put what `optimizer_tensors` gave into an optimizer of the same kind, in place of what it holds.

    Raises:
        ValueError: A tensor belongs to no parameter that this optimizer trains.
    """
    parameters = dict(method.named_parameters())
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    optimizer.state.clear()
    for key, saved in tensors.items():
        name, _, entry = key.rpartition(".")
        parameter = parameters.get(name)
        if parameter is None or parameter not in groups:
            raise ValueError(f"'{key}' belongs to no parameter that is trained")
        optimizer.state[parameter][entry] = _like(saved, parameter, groups[parameter])


def _like(saved: torch.Tensor, parameter: torch.Tensor, group: Mapping[str, Any]) -> torch.Tensor:
    """A copy where an optimizer keeps it: moments beside their parameter and laid out like it; counts of steps on the CPU unless fused."""
    if saved.shape == parameter.shape and saved.ndim:
        return torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False).copy_(saved)
    on_device = saved.ndim or group.get("fused") or group.get("capturable")
    return saved.to(parameter.device if on_device else "cpu", copy=True)


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write and flush a safetensors file; returns the sha256 of what should stand in it, not of what does."""
    data = to_bytes({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")


def _damaged(folder: Path, reason: str) -> UserError:
    return UserError(folder, f"this checkpoint cannot be used ({reason})", "move it away, or start again with --overwrite")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
