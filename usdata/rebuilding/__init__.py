"""A published manifest and the same raw clips in, the data set out, proved equal.

Who may not pass pictures on can publish the tables: they hold a digest of every raw file, what was decided about each clip, and a digest of
every picture's pixels. `rebuild` finds the raw files (wherever they lie and whatever they are called), makes the pictures anew and
compares all of them. Guarantees: a data set stands at the end only if every picture is equal (or, asked for by name, one without the clips
that are not); the tables are the published ones, byte for byte; started again after a stop, it goes on where it was.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from usdata import manifest
from usdata.building import STEP_VERSION
from usdata.building.staging import (
    STEPS,
    disk_errors,
    is_whole,
    journalled,
    locked,
    put_in_place,
    recover,
    refuse_nested,
    refuse_occupied,
    remove_strays,
)
from usdata.building.stepping import take_steps
from usdata.building.tables import decoder_versions
from usdata.engines import Runner, runner
from usdata.errors import DataSetError, UserError
from usdata.files import canonical_json
from usdata.rebuilding.partial import write_without
from usdata.rebuilding.raw_clips import find_clips
from usdata.rebuilding.steps import differences, step_of
from usdata.recipe import Recipe
from usdata.signals import StopFlag, stop_signals
from usdata.video_step import VideoTask


@dataclass(frozen=True)
class RebuildResult:
    """What was made again.

    Attributes:
        out: The data set folder; nothing new stands there where `faults` are and no part was asked for.
        name: Of the data set.
        digest: Of its tables.
        clips: Clips whose pictures were made and are equal.
        frames: Their frames.
        moved: Clips found under another path than the manifest's: video_id to that path.
        faults: video_id to what is wrong: raw bytes missing or changed, other pixels.
        hints: video_id of some of these to what may help.
        written: Whether a data set stands at `out`.
        decoders: Packages whose version differs from the manifest's: name to (there, here).
        seconds: Wall time.
    """

    out: Path
    name: str
    digest: str
    clips: int
    frames: int
    moved: dict[str, str]
    faults: dict[str, list[str]]
    hints: dict[str, str]
    written: bool
    decoders: dict[str, tuple[str, str]]
    seconds: float

    @property
    def equal(self) -> bool:
        """Everything was made again, and nothing differs."""
        return not self.faults


def rebuild(
    published: str | Path,
    *,
    raw: str | Path,
    out: str | Path,
    workers: int | None = None,
    engine: str = "local",
    partial: bool = False,
    overwrite: bool = False,
) -> RebuildResult:
    """Make a data set's pictures again from its manifest.

    Args:
        published: Folder with dataset.json and the four tables; pictures are not needed, and not read.
        raw: Folder of the raw clips, in any layout; it is only read.
        out: The data set folder to make. It may be `published` itself, whose pictures are gone.
        workers: Processes; all processors by default.
        engine: "local" or "ray".
        partial: Where clips are missing or not equal, write the set without them; it gets a digest of its own.
        overwrite: Replace another data set that stands at `out`.

    Raises:
        UserError: A folder is not what it should be.
        Stopped: SIGINT or SIGTERM came; the same command goes on.
    """
    start = time.monotonic()
    opened, folder, target = manifest.open_dataset(published), Path(raw), Path(out).absolute()
    recipe = recipe_of(opened)
    if manifest.tables_digest(opened.folder) != opened.digest:
        raise DataSetError(opened.folder, "its tables are not those that its dataset.json was written for", "fetch it again")
    run = runner(engine, workers)
    refuse_nested(folder, target)
    recover(target)
    refuse_occupied(target)
    standing = _standing(target)
    known = (None, opened.digest) if standing is None else (standing["digest"], standing.get("rebuilt_from", {}).get("digest"))
    if opened.digest not in known and not overwrite:
        raise UserError(out, "holds another data set", "give another --out, or --overwrite to replace it")
    if standing is not None and standing["digest"] == opened.digest and is_whole(target, standing) and target != opened.folder.absolute():
        raise UserError(out, "holds this data set already", "prove it with 'usdata validate --deep'")
    videos = kept_clips(opened)
    staging = target.parent / f".{target.name}.building"
    with stop_signals() as stop, disk_errors(target), locked(staging):
        found = find_clips(videos, folder)
        tasks = [step_of(row, found[row["video_id"]], recipe, folder, staging) for row in videos if found[row["video_id"]].members]
        made = made_again(tasks, recipe, run, stop)
        faults = compared(opened, videos, made) | {video: [clip.fault] for video, clip in found.items() if clip.fault}
        moved = {row["video_id"]: found[row["video_id"]].path for row in videos if _moved(row, found[row["video_id"]].path)}
        written = not faults or (partial and len(faults) < len(videos))
        if written:
            # No journals: a later build's steps decide for themselves, and have no use for these.
            remove_strays(staging, [row["video_id"] for row in videos if row["video_id"] not in faults])
            shutil.rmtree(staging / STEPS, ignore_errors=True)
            _write_tables(opened, staging, faults)
            os.sync()  # before the rename says that everything is there
            put_in_place(staging, target)
    rows = sum(row["frames_kept"] for row in videos if row["video_id"] not in faults)
    return RebuildResult(
        out=target,
        name=opened.name,
        digest=manifest.open_dataset(target).digest if written else opened.digest,
        clips=len(videos) - len(faults),
        frames=rows,
        moved={video: path for video, path in moved.items() if video not in faults},
        faults={video: faults[video] for video in sorted(faults)},
        hints={video: found[video].hint for video in sorted(faults) if found[video].hint},
        written=written,
        decoders=other_decoders(opened),
        seconds=time.monotonic() - start,
    )


def recipe_of(opened: manifest.DataSet) -> Recipe:
    """The recipe that a set was built by.

    Raises:
        DataSetError: Its dataset.json holds none that this version knows.
    """
    try:
        return Recipe.model_validate(opened.about["recipe"])
    except (KeyError, ValidationError) as error:
        where = opened.folder / manifest.DATASET_JSON
        raise DataSetError(
            where, f"holds no recipe of this version ({' '.join(str(error).split())[:200]})", "build the set again"
        ) from None


def kept_clips(opened: manifest.DataSet) -> list[dict[str, Any]]:
    """Rows of videos.parquet that have frames."""
    rows: list[dict[str, Any]] = manifest.read_table(opened.folder, manifest.VIDEOS).to_pylist()
    return [row for row in rows if row["status"] == "ok"]


def made_again(tasks: Sequence[VideoTask], recipe: Recipe, run: Runner, stop: StopFlag) -> dict[str, dict[str, Any]]:
    """Run the steps that are not journalled yet; video_id to result.

    Raises:
        Stopped: A signal came before all were done.
    """
    finished = {task.video_id: found for task in tasks if (found := journalled(task)) is not None}
    left = [task for task in tasks if task.video_id not in finished]
    return finished | take_steps(left, "making pictures again", recipe.read, run, stop)


def compared(opened: manifest.DataSet, videos: Sequence[Mapping[str, Any]], made: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """video_id of every clip that was made and differs from the manifest, to what differs."""
    columns = ["video_id", "frame_index", "pixel_sha256", "width", "height", "path"]
    frames: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in manifest.read_table(opened.folder, manifest.FRAMES).select(columns).to_pylist():
        if row["video_id"] in made:
            frames[row["video_id"]].append(row)
    faults = {
        row["video_id"]: differences(row, frames[row["video_id"]], made[row["video_id"]]) for row in videos if row["video_id"] in made
    }
    return {video: found for video, found in faults.items() if found}


def other_decoders(opened: manifest.DataSet) -> dict[str, tuple[str, str]]:
    """Packages that decide about pixels and are of another version here than when the set was built: name to (then, now)."""
    then, now = opened.about.get("versions", {}), decoder_versions()
    then, now = dict(then), dict(now)
    # Sets from before this was noted were made by other steps.
    then[STEPS_OF_USDATA], now[STEPS_OF_USDATA] = str(opened.about.get("step_version", "older")), str(STEP_VERSION)
    names = sorted(name for name in now.keys() | (then.keys() & _DECODERS) if then.get(name) != now.get(name))
    return {name: (str(then.get(name, "none")), now.get(name, "none")) for name in names}


STEPS_OF_USDATA = "usdata's steps"
_DECODERS = {"av", "decord", "h5py", "imagecodecs", "nibabel", "numpy", "opencv-python-headless", "pillow", "pydicom"}


def _moved(row: Mapping[str, Any], path: str) -> bool:
    return bool(row["path"] != path)


def _standing(target: Path) -> dict[str, Any] | None:
    if not (target / manifest.DATASET_JSON).is_file():
        return None
    return manifest.open_dataset(target).about


def _write_tables(opened: manifest.DataSet, staging: Path, faults: Mapping[str, Sequence[str]]) -> None:
    """The published tables as they are, or without the clips that could not be made again; dataset.json last."""
    if faults:
        write_without(opened, staging, faults)
        return
    for name in (*manifest.SCHEMAS, manifest.DATASET_JSON):
        shutil.copyfile(opened.folder / name, staging / name)
    if manifest.tables_digest(staging) != opened.digest or canonical_json(manifest.open_dataset(staging).about) != canonical_json(
        opened.about
    ):
        raise DataSetError(opened.folder, "its tables changed while they were copied", "run the same command again")
