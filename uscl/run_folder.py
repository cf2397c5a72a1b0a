"""The folder of a run: what may be written where, what a resume must agree with, and the records that people and programs read.

config.yaml, environment.json, run.json, metrics.jsonl and log.txt are made here; trained_on.parquet, checkpoints and the export have
modules of their own. Of several processes the first alone writes. No record holds a path or a name of the machine, except a folder that
the user wrote into the configuration.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from uscl import checkpoint
from uscl.checkpoint import Found
from uscl.config import Config, config_yaml, differences, make_config, read_settings
from uscl.metric_lines import whole_lines
from uscl.processes import first_only, world_size
from uscl.torchvision_compat import torchvision
from usdata.console import say
from usdata.errors import RecipeError, UserError
from usdata.files import write_json, write_text
from usdata.manifest import DataSet

CONFIG, ENVIRONMENT, RUN, METRICS, LOG, FAILURE = "config.yaml", "environment.json", "run.json", "metrics.jsonl", "log.txt", "failure.json"
TRAINED_ON = "trained_on.parquet"
CHECKPOINTS, EXPORT = "checkpoints", "export"
RUN_VERSION = 1
_PARTS = (CONFIG, ENVIRONMENT, RUN, METRICS, LOG, FAILURE, TRAINED_ON, CHECKPOINTS, EXPORT, "report.html", "tensorboard")


def check(out: Path, config: Config, dataset: DataSet, *, resume: bool, overwrite: bool) -> Found | None:
    """Check that a run may be made or continued here; nothing is written.

    Returns:
        The newest whole checkpoint, to go on from, or None to start at the beginning.

    Raises:
        UserError: The folder is in use for something else, a resume does not agree with what stands there, or all of it is damaged.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite", "exclude each other", "give one of them")
    if out.exists() and not out.is_dir():
        raise UserError(out, "is a file, and a run needs a folder", "give another --out")
    _writable(out)
    if not out.exists() or not any(out.iterdir()):
        if resume:
            say(f"{out} holds no run yet: starting at the beginning")
        return None
    if overwrite:
        _only_a_run(out)
        return None
    if not resume:
        raise UserError(out, "is not empty", "go on with --resume, start again with --overwrite, or give another --out")
    _agree(out, config)
    found = checkpoint.find(out / CHECKPOINTS)
    if found is None:
        say(f"{out} holds no checkpoint yet: starting at the beginning")
        return None
    digest = found.position.dataset_digest
    if digest != dataset.digest:
        reason = f"was trained on another data set (digest was {digest[:16]}, is {dataset.digest[:16]})"
        raise UserError(out, reason, "resume with that data set, or start anew in another --out")
    return found


def _writable(out: Path) -> None:
    """A folder that cannot be written is found before hours of training, not after."""
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not place.is_dir():
        raise UserError(out, f"cannot be made, because {place.name} is a file", "give another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        advice = "give leave to write there, or give another --out; nothing was changed"
        raise UserError(out, "cannot be written to (no leave, or a read-only disk)", advice)


def _agree(out: Path, config: Config) -> None:
    path = out / CONFIG
    if not path.is_file():
        raise UserError(out, f"is no run (it holds no {CONFIG})", "give the folder of a run to --resume")
    try:
        old = make_config(read_settings(path.read_text(encoding="utf-8"), CONFIG), CONFIG)
    except RecipeError as error:
        raise UserError(path, f"cannot be read by this version ({error})", "start again with --overwrite, or in another --out") from None
    changed = differences(old, config)
    if changed:
        reason = f"--resume needs the same configuration, and these keys differ: {', '.join(changed)}"
        raise UserError(out, reason, "give the same recipe and --set, or start anew in another --out with --init-from")


def _only_a_run(out: Path) -> None:
    if not any((out / name).is_file() for name in (CONFIG, RUN)):
        raise UserError(out, f"is not empty and is no run (it holds no {CONFIG}), so nothing was deleted", "give another --out")
    strange = sorted(entry.name for entry in out.iterdir() if entry.name not in _PARTS)
    if strange:
        raise UserError(out, f"holds something that is no part of a run ({strange[0]}), so nothing was deleted", "give another --out")
    for folder, known in ((CHECKPOINTS, ("last", "previous", "best", "failed", "step-")), (EXPORT, ("backbone.safetensors", "README.md"))):
        for entry in sorted((out / folder).iterdir()) if (out / folder).is_dir() else ():
            if not entry.name.lstrip(".").startswith(known):
                raise UserError(
                    out, f"holds something that is no part of a run ({folder}/{entry.name}), so nothing was deleted", "give another --out"
                )


@first_only
def clear(out: Path) -> None:
    """Take a run out of its folder; nothing but the parts of a run is ever deleted."""
    if out.is_dir():
        _only_a_run(out)
        for entry in out.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


@first_only
def write_start(out: Path, config: Config, environment: dict[str, Any], facts: list[str]) -> None:
    """Write what is known before the first step; the facts go into log.txt."""
    out.mkdir(parents=True, exist_ok=True)
    # The configuration first: a run that is killed right after it can be resumed and overwritten.
    write_text(out / CONFIG, config_yaml(config))
    _append(out / LOG, "".join(f"{fact}\n" for fact in facts))
    write_json(out / ENVIRONMENT, environment)


@first_only
def go_on(out: Path, found: Found) -> None:
    """Say where a run goes on, and from which checkpoint where the last one is damaged; that one is put aside."""
    if found.damage is not None:
        log(out, f"warning: the last checkpoint is damaged ({found.damage}); going on from the one before it, {found.folder.name}")
        checkpoint.set_aside(found)
    log(out, f"going on at step {found.position.step}, epoch {found.position.epoch}")


def read_environment(out: Path) -> dict[str, Any]:
    """What environment.json says of the machine and the code that trained a run so far; empty where there is none."""
    path = out / ENVIRONMENT
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


@first_only
def write_run(out: Path, **facts: Any) -> None:
    """Write run.json."""
    write_json(out / RUN, {"run_version": RUN_VERSION, **facts})


def read_run(out: Path) -> dict[str, Any]:
    """run.json; empty where it is missing.

    Raises:
        UserError: It is damaged.
    """
    path = out / RUN
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:
        raise UserError(path, "is damaged (it is no JSON)", "start again with --overwrite, or in another --out") from None
    return found if isinstance(found, dict) else {}


@first_only
def append_metrics(out: Path, line: dict[str, Any]) -> None:
    """Add one line to metrics.jsonl."""
    _append(out / METRICS, json.dumps(line) + "\n")


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl; a last line that a kill cut short is not one.

    Raises:
        UserError: A line before that is damaged.
    """
    lines = []
    for number, line in enumerate(whole_lines(out / METRICS), start=1):
        if line is None:
            raise UserError(out / METRICS, f"line {number} is damaged", "delete the line, or start again with --overwrite")
        lines.append(line)
    return lines


@first_only
def forget_after(out: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl behind a step, which a resumed run writes again."""
    kept = [line for line in read_metrics(out) if line["step"] <= step]
    write_text(out / METRICS, "".join(json.dumps(line) + "\n" for line in kept))


@first_only
def log(out: Path, text: str, *, aloud: bool = True) -> None:
    """Keep a line in log.txt, and say it."""
    if aloud:
        say(text)
    _append(out / LOG, text + "\n")


def _append(path: Path, text: str) -> None:
    """Add whole lines to a file; where the disk is full, half of one does not stay, and the error names the file."""
    before = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(text.encode("utf-8"))
    except OSError as error:
        if path.exists() and path.stat().st_size > before:
            os.truncate(path, before)
        error.filename = str(path)
        raise


def threads() -> int:
    """Threads to compute with: OMP_NUM_THREADS where it is set, else the cores that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def uscl_version() -> str:
    """The installed version of this package."""
    try:
        return metadata.version("usdata-uscl")
    except metadata.PackageNotFoundError:
        return "not installed"


def describe_environment(device: torch.device, precision: str) -> dict[str, Any]:
    """Versions and devices, without names of hosts, users or folders."""
    return {
        "uscl": uscl_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "byte_order": sys.byteorder,
    }
