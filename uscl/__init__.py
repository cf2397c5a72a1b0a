"""Contrastive pretraining on ultrasound video, and evaluation that holds.

One function a command, under the command's name: `uscl.pretrain(...)`, `uscl.evaluate(...)`. Each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uscl.benchmark import bench as bench
    from uscl.embedding import embed as embed
    from uscl.evaluation import evaluate as evaluate
    from uscl.evaluation.external import validate as validate
    from uscl.evaluation.reporting import report as report
    from uscl.exporting import export as export
    from uscl.fitting import fit as fit
    from uscl.predicting import predict as predict
    from uscl.run_list import runs as runs
    from uscl.segmentation import segment as segment
    from uscl.sweeping import sweep as sweep
    from uscl.train import pretrain as pretrain

_FUNCTIONS = {
    "bench": ("uscl.benchmark", "bench"),
    "embed": ("uscl.embedding", "embed"),
    "evaluate": ("uscl.evaluation", "evaluate"),
    "export": ("uscl.exporting", "export"),
    "fit": ("uscl.fitting", "fit"),
    "predict": ("uscl.predicting", "predict"),
    "pretrain": ("uscl.train", "pretrain"),
    "report": ("uscl.evaluation.reporting", "report"),
    "runs": ("uscl.run_list", "runs"),
    "segment": ("uscl.segmentation", "segment"),
    "sweep": ("uscl.sweeping", "sweep"),
    "validate": ("uscl.evaluation.external", "validate"),
}

__all__ = ["bench", "embed", "evaluate", "export", "fit", "predict", "pretrain", "report", "runs", "segment", "sweep", "validate"]


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'uscl' has no attribute '{name}'")
    module, function = _FUNCTIONS[name]
    return getattr(import_module(module), function)


def __dir__() -> list[str]:
    return sorted(__all__)
