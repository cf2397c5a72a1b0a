"""Do the raw clips still give the pictures that a manifest has digests of?

Comes in: a data set and the folder of raw clips. Goes out: promises. Guarantees: nothing is written into either; which clips are taken
depends on the manifest alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from usdata.building.staging import STEPS
from usdata.engines import Runner
from usdata.errors import Stopped
from usdata.manifest import DataSet
from usdata.rebuilding import compared, kept_clips, made_again, other_decoders, recipe_of
from usdata.rebuilding.raw_clips import find_clips
from usdata.rebuilding.steps import step_of
from usdata.signals import stop_signals
from usdata.validating.promise import Promise


def check_raw(opened: DataSet, raw: Path, samples: int | None, run: Runner) -> list[Promise]:
    """Find the raw files of kept clips, and make the pictures of some again.

    Args:
        opened: The data set.
        raw: The folder of raw clips.
        samples: How many clips, evenly spaced in the order of videos.parquet; None: all.
        run: Where the steps run.
    """
    recipe, videos = recipe_of(opened), kept_clips(opened)
    if samples is not None and samples < len(videos):
        videos = [videos[int((place + 0.5) * len(videos) / samples)] for place in range(samples)]
    found = find_clips(videos, raw)
    lost = tuple(f"{video}: {found[video].fault}" for video in sorted(found) if found[video].fault)
    there = [row for row in videos if not found[row["video_id"]].fault]
    with tempfile.TemporaryDirectory(prefix="usdata-validate-") as name, stop_signals() as stop:
        scratch = Path(name)
        (scratch / STEPS).mkdir()
        tasks = [step_of(row, found[row["video_id"]], recipe, raw, scratch) for row in there]
        try:
            made = made_again(tasks, recipe, run, stop)
        except Stopped:
            raise Stopped("stopped; a validation keeps nothing: run the same command again, or with fewer --samples") from None
        faults = compared(opened, there, made)
    broken = tuple(f"{video}: {'; '.join(faults[video])}" for video in sorted(faults))
    decoders = other_decoders(opened)
    versions = ", ".join(f"{package} {then} -> {now}" for package, (then, now) in decoders.items())
    advice = "these clips would not build to the same pictures here" + (f"; other versions work here: {versions}" if decoders else "")
    text = "The raw file of every clip is there and unchanged (path or content, sha256)."
    of_frames = sum(row["frames_kept"] for row in there)
    return [
        Promise("raw-files", text, len(videos), "clips", lost, "fetch these files again, or leave the clips out"),
        Promise("raw-pixels", "Made again from its raw file, every picture has equal pixels.", of_frames, "frames", broken, advice),
    ]
