"""Contrastive pretraining on ultrasound video, and evaluation that holds.

One function a command, under the command's name: `uscl.pretrain(...)`, `uscl.evaluate(...)`. Each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uscl.benchmark import bench as bench
    from uscl.evaluation import evaluate as evaluate
    from uscl.evaluation.reporting import report as report
    from uscl.run_list import runs as runs
    from uscl.sweeping import sweep as sweep
    from uscl.train import pretrain as pretrain

_FUNCTIONS = {
    "bench": ("uscl.benchmark", "bench"),
    "evaluate": ("uscl.evaluation", "evaluate"),
    "pretrain": ("uscl.train", "pretrain"),
    "report": ("uscl.evaluation.reporting", "report"),
    "runs": ("uscl.run_list", "runs"),
    "sweep": ("uscl.sweeping", "sweep"),
}

__all__ = ["bench", "evaluate", "pretrain", "report", "runs", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'uscl' has no attribute '{name}'")
    module, function = _FUNCTIONS[name]
    return getattr(import_module(module), function)
