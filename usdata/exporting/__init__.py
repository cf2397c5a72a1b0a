"""A data set in the shape that other software reads: one module a format, `export` is their front.

In: a data set folder. Out: a new folder, whole or absent. Guarantees: equal data sets give equal bytes; frames are copied pixel for pixel
unless a lossy format is asked for.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from usdata import manifest
from usdata.console import progress
from usdata.errors import UserError, nearest
from usdata.exporting.folders import export_folders

FORMATS: dict[str, Callable[..., int]] = {"folders": export_folders}


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        out: The folder.
        clips: Clips with kept frames.
        frames: Their frames.
        seconds: Wall time.
    """

    out: Path
    clips: int
    frames: int
    seconds: float


def export(dataset: str | Path, *, to: str, out: str | Path, images: str = "png") -> ExportResult:
    """Write a data set's frames in another layout.

    Args:
        dataset: The data set folder.
        to: "folders": one folder of frames a clip, as US-4 is published (docs/guide/us4.md).
        out: Folder to make; it must be empty or missing.
        images: "png", the frames as they are stored; or "jpg" (quality 95), which is smaller and loses a little.

    Raises:
        UserError: The format or suffix is not known, OUT is not empty or lies in the data set, or an image is missing.
    """
    start = time.monotonic()
    if to not in FORMATS:
        raise UserError("--to", f"knows no '{to}'", nearest(to, FORMATS))
    if images not in ("png", "jpg"):
        raise UserError("--images", f"knows no '{images}'", nearest(images, ("png", "jpg")))
    data, target = manifest.open_dataset(Path(dataset)), Path(out).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(out, "exists and is not empty", "choose another folder, or remove it")
    if data.folder.resolve() in (target.resolve(), *target.resolve().parents):
        raise UserError(out, "lies inside the data set", "give an --out outside of it")
    frames = data.frames
    staging = target.parent / f".{target.name}.exporting"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        with progress("writing frames", len(frames), "frames") as advance:
            clips = FORMATS[to](data, staging, images=images, advance=advance)
        if target.exists():
            target.rmdir()
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ExportResult(target, clips, len(frames), time.monotonic() - start)
