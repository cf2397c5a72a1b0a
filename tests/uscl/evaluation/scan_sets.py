"""Builds data sets from small encoded clips whose scans are known: speckle of a seed that drifts, and altered copies of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.usdata.clips import write_video
from usdata.building import build
from usdata.recipe import Recipe

Pictures = NDArray[np.uint8]


def tissue(seed: int, frames: int = 20) -> Pictures:
    """(frames, 160, 192): a scan; another seed is another one."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((240, 272)).astype(np.float32), (0, 0), 2.0)
    noise = np.clip((noise - noise.mean()) / noise.std() * 30 + 80, 0, 255).astype(np.uint8)
    return np.stack([noise[place : place + 160, 2 * place : 2 * place + 192] for place in range(frames)])


def smaller_and_brighter(pictures: Pictures) -> Pictures:
    """The scan as another publisher would encode it."""
    small = np.stack([cv2.resize(picture, (144, 120), interpolation=cv2.INTER_AREA) for picture in pictures])
    return np.clip(small * 1.2, 0, 255).astype(np.uint8)


def cropped(pictures: Pictures) -> Pictures:
    """The scan without its edges, from its third frame on."""
    return np.ascontiguousarray(pictures[3:, 10:-14, 16:-8])


def build_scans(folder: Path, name: str, clips: Mapping[str, tuple[Pictures | Path, str, str]], *, source: str | None = None) -> Path:
    """A data set.

    Args:
        folder: For the raw clips and the set.
        name: Of the set.
        clips: File name (.mkv: without loss) to pictures (or a file to be copied), patient and label; empty: not known.
        source: Name of the source; None: the set's.
    """
    raw = folder / name
    for clip, (pictures, _, _) in clips.items():
        if isinstance(pictures, Path):
            raw.mkdir(parents=True, exist_ok=True)
            (raw / clip).write_bytes(pictures.read_bytes())
        else:
            write_video(raw / clip, list(pictures), codec="ffv1" if clip.endswith(".mkv") else "libx264")
    (raw / "t.csv").write_text(
        "path,patient,label\n" + "".join(f"{clip},{patient},{label}\n" for clip, (_, patient, label) in clips.items())
    )
    about = {
        "name": source or name,
        "table": "t.csv",
        "columns": {"path": "path", "patient": "patient", "label": "label"},
        "patient_ids": "public",
        "sampling": {"rule": "count", "count": 6},
    }
    recipe = {"name": name, "sources": [about], "modes": None, "folds": {"count": 0}, "image": {"max_side": 96}}
    return build(Recipe.model_validate(recipe), raw=raw, out=folder / f"{name}_set", workers=1).out
