"""Features kept on disk beside the frame store that they were computed from, so that a second evaluation need not compute them.

In: what the features are of (weights, frames, device) and an array. Out: one safetensors file for each, whose name is a digest of that and
which carries it with the sha256 of the array. Files are written at once or not at all; one that is damaged, or of something else, is
ignored and made anew; where they cannot be written nothing is kept. The oldest go when all together outgrow a limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from usdata.console import say
from usdata.files import atomic, canonical_json, sha256_text

# Raised whenever the same frame would give other features.
VERSION = 1
LIMIT_BYTES = 1 << 30
PATTERN = "features-*.safetensors"


def read_features(folder: Path, about: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """The features that were kept, or None where there are none that are whole.

    Args:
        folder: Where the frame store lies.
        about: What decides them; `shape` is that of the array.
    """
    path = _path(folder, about)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            told = file.metadata() or {}
            features = file.get_tensor("features")
    except (SafetensorError, OSError, ValueError) as error:
        say(f"{path.name}: these kept features are damaged ({' '.join(str(error).split())[:80]}) and are computed anew")
        return None
    whole = features.dtype == np.float32 and list(features.shape) == list(about["shape"])
    if not whole or told.get("about") != _told(about) or told.get("sha256") != _digest(features):
        say(f"{path.name}: these kept features are not what they were written as, and are computed anew")
        return None
    return features


def write_features(folder: Path, about: Mapping[str, Any], features: NDArray[np.float32]) -> None:
    """Keep features; a disk that is full or read-only costs the next evaluation time, and this one nothing."""
    path = _path(folder, about)
    metadata = {"about": _told(about), "sha256": _digest(features)}
    try:
        with atomic(path, durable=False) as temporary:
            temporary.write_bytes(save({"features": np.ascontiguousarray(features)}, metadata=metadata))
        _forget_oldest(folder, path)
    except OSError:
        return


def _forget_oldest(folder: Path, newest: Path) -> None:
    """Remove the files that were written first until the rest is within the limit; the newest stays."""
    files = sorted((path for path in folder.glob(PATTERN) if path != newest), key=lambda path: (path.stat().st_mtime_ns, path.name))
    size = newest.stat().st_size + sum(path.stat().st_size for path in files)
    for path in files:
        if size <= LIMIT_BYTES:
            break
        size -= path.stat().st_size
        path.unlink()


def _path(folder: Path, about: Mapping[str, Any]) -> Path:
    return folder / f"features-{sha256_text(_told(about))[:16]}.safetensors"


def _told(about: Mapping[str, Any]) -> str:
    return canonical_json({"version": VERSION, **about})


def _digest(features: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(features).data).hexdigest()
