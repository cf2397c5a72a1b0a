"""Curate ultrasound video: raw clips in; de-duplicated frames, Parquet manifests and an audit out.

One function a command, under the command's name: `usdata.build(...)`, `usdata.audit(...)`, `usdata.phantom(...)`; and `usdata.load(SET)`
opens a data set. Each is imported when it is first used, so `import usdata` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from usdata.auditing import audit as audit
    from usdata.building import build as build
    from usdata.building import plan as plan
    from usdata.cataloguing import catalog as catalog
    from usdata.comparing import compare as compare
    from usdata.exporting import export as export
    from usdata.fold_pickles import import_folds as import_folds
    from usdata.manifest import open_dataset as load
    from usdata.migrating import migrate as migrate
    from usdata.phantoms import phantom as phantom
    from usdata.pulling import pull as pull
    from usdata.rebuilding import rebuild as rebuild
    from usdata.scanning import scan as scan
    from usdata.splitting import split as split
    from usdata.validating import validate as validate

_FUNCTIONS = {
    "audit": ("usdata.auditing", "audit"),
    "build": ("usdata.building", "build"),
    "catalog": ("usdata.cataloguing", "catalog"),
    "compare": ("usdata.comparing", "compare"),
    "export": ("usdata.exporting", "export"),
    "import_folds": ("usdata.fold_pickles", "import_folds"),
    "load": ("usdata.manifest", "open_dataset"),
    "migrate": ("usdata.migrating", "migrate"),
    "phantom": ("usdata.phantoms", "phantom"),
    "plan": ("usdata.building", "plan"),
    "pull": ("usdata.pulling", "pull"),
    "rebuild": ("usdata.rebuilding", "rebuild"),
    "scan": ("usdata.scanning", "scan"),
    "split": ("usdata.splitting", "split"),
    "validate": ("usdata.validating", "validate"),
}

__all__ = [
    "audit",
    "build",
    "catalog",
    "compare",
    "export",
    "import_folds",
    "load",
    "migrate",
    "phantom",
    "plan",
    "pull",
    "rebuild",
    "scan",
    "split",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'usdata' has no attribute '{name}'")
    module, function = _FUNCTIONS[name]
    return getattr(import_module(module), function)


def __dir__() -> list[str]:
    return sorted(__all__)
