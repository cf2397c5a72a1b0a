"""A data set in the shape that other software reads: one module a format, `export` is their front.

In: a data set folder. Out: a new folder, whole or absent. Guarantees: equal data sets give equal bytes; frames are copied pixel for pixel
unless a lossy format is asked for; no more than a clip or a row group of pictures is in memory.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from usdata import manifest
from usdata.console import progress
from usdata.errors import DataSetError, UserError, nearest
from usdata.exporting.coco import export_coco
from usdata.exporting.croissant import CROISSANT, export_croissant, export_manifest
from usdata.exporting.folders import export_folders
from usdata.exporting.huggingface import export_huggingface
from usdata.exporting.webdataset import export_webdataset
from usdata.manifest import FRAMES


@dataclass(frozen=True)
class Format:
    """A format of export.

    Attributes:
        write: Writes a data set into an empty folder and gives the number of clips.
        then: What to do with OUT, for the last line of the command.
        lossy: Whether the images may be asked for as JPEG.
        pictures: Whether it holds pictures, and so needs frames.
    """

    write: Callable[..., int]
    then: str
    lossy: bool = False
    pictures: bool = True


FORMATS = {
    "folders": Format(export_folders, "usdata build us4-folders --raw {out} --out SET reads them back", lossy=True),
    "huggingface": Format(export_huggingface, "datasets.load_dataset({out!r}) opens it"),
    "webdataset": Format(export_webdataset, "webdataset.WebDataset opens the shards that {out}/index.json lists"),
    "coco": Format(export_coco, "pycocotools.coco.COCO opens the files in {out}/annotations"),
    "croissant": Format(export_croissant, f"put {CROISSANT} beside the tables of {{dataset}} and publish them together", pictures=False),
    "manifest": Format(export_manifest, "publish {out}; usdata.load({out!r}) opens it", pictures=False),
}


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        out: The folder.
        clips: Clips with kept frames.
        frames: Their frames.
        seconds: Wall time.
        then: What to do with it, in a line.
        note: What must be known before it is passed on; None: nothing.
    """

    out: Path
    clips: int
    frames: int
    seconds: float
    then: str
    note: str | None = None


def export(dataset: str | Path, *, to: str, out: str | Path, images: str = "png") -> ExportResult:
    """Write a data set's frames in another layout.

    Args:
        dataset: The data set folder.
        to: "folders": one folder of frames a clip, as US-4 is published (docs/guide/us4.md); "huggingface": Parquet shards that hold the
            pictures; "webdataset": tar shards, a sample a clip; "coco": images and annotations; "croissant": croissant.json alone;
            "manifest": the tables and croissant.json, without pictures. See docs/guide/export.md.
        out: Folder to make; it must be empty or missing.
        images: "png", the frames as they are stored; or "jpg" (quality 95, folders alone), which is smaller and loses a little.

    Raises:
        UserError: The format or suffix is not known, OUT is not empty or lies in the data set, or an image is missing or damaged.
    """
    start = time.monotonic()
    if to not in FORMATS:
        raise UserError("--to", f"knows no '{to}'", nearest(to, FORMATS))
    if images not in ("png", "jpg"):
        raise UserError("--images", f"knows no '{images}'", nearest(images, ("png", "jpg")))
    if images != "png" and not FORMATS[to].lossy:
        raise UserError("--images", f"'{images}' loses a little, and --to {to} keeps every pixel", "leave it out, or take --to folders")
    data, target = manifest.open_dataset(Path(dataset)), Path(out).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(out, "exists and is not empty", "choose another folder, or remove it")
    if data.folder.resolve() in (target.resolve(), *target.resolve().parents):
        raise UserError(out, "lies inside the data set", "give an --out outside of it")
    frames = manifest.read_table(data.folder, FRAMES).num_rows
    if FORMATS[to].pictures and not frames:
        raise DataSetError(data.folder / FRAMES, "holds no frames", "there is nothing to export; see 'usdata audit'")
    staging = target.parent / f".{target.name}.exporting"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        with progress("writing frames", frames, "frames") as advance:
            clips = FORMATS[to].write(data, staging, images=images, advance=advance)
        if target.exists():
            target.rmdir()
        staging.rename(target)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(out)  # a write that found no room names no file
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    then = FORMATS[to].then.format(out=str(out), dataset=dataset)
    return ExportResult(target, clips, frames, time.monotonic() - start, then, _private(data, FORMATS[to].pictures))


def _private(data: manifest.DataSet, pictures: bool) -> str | None:
    """What stands against handing it on; None: nothing that the set knows of."""
    told = data.about.get("privacy") or {}
    if not told.get("private_sources") or (told.get("release") and pictures):
        return None
    sources = ", ".join(told["private_sources"])
    what = (
        "this is no release, whose pictures hold nothing outside the field of view"
        if pictures
        else "paths, dates and ids are as it has them"
    )
    return f"the set has private sources ({sources}) and {what}: see docs/guide/privacy.md before it leaves the house"
