"""A clip's pictures made again from its raw bytes, and held against what a manifest says of them.

The per-video step of a build runs as it did then, with what was decided about the clip given: the field of view of the manifest, and that
it is kept. So neither the source's layout, nor a secret, nor the other clips of its device are needed, and the pictures follow from the
manifest and the raw bytes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from usdata.building import STEP_VERSION
from usdata.building.staging import STEPS, journal_name
from usdata.building.tables import decoder_versions
from usdata.files import canonical_json, sha256_text
from usdata.rebuilding.raw_clips import RawClip
from usdata.recipe import Recipe
from usdata.seeing import Seeing
from usdata.video_step import VideoTask

NO_ESTIMATE = 2.0  # no confidence is greater than 1: an estimate is never taken
BESIDE = ("overlay", "key_frames")


def step_of(video: Mapping[str, Any], clip: RawClip, recipe: Recipe, raw: Path, staging: Path) -> VideoTask:
    """The per-video step that makes a clip's pictures again.

    Args:
        video: Its row of videos.parquet.
        clip: Where it lies.
        recipe: That the set was built by.
        raw: The folder of raw clips.
        staging: Where the pictures and the journal of the finished step go.
    """
    sampling = next(source.sampling for source in recipe.sources if source.name == video["source"])
    seeing = Seeing(
        accept=NO_ESTIMATE,
        release=recipe.release,
        override=video["fov_geometry"],
        crop=recipe.image.crop,
        max_side=recipe.image.max_side,
        paint=recipe.image.overlays,
    )
    video_id = str(video["video_id"])
    settings = [section.model_dump(mode="json") for section in (sampling, recipe.read, recipe.hygiene)]
    content = ["rebuild", STEP_VERSION, decoder_versions(), video_id, video["sha256"], settings, asdict(seeing)]
    return VideoTask(
        video_id=video_id,
        raw=raw / clip.path,
        members=clip.members,
        shown=str(video["path"]),  # what readers say of a file must not tell its name here
        bytes=int(video["bytes"]),
        images=staging / "images" / video_id,
        images_path=f"images/{video_id}",
        journal=staging / STEPS / journal_name(video_id),
        key=sha256_text(canonical_json(content)),
        sampling=sampling,
        read=recipe.read,
        hygiene=recipe.hygiene,
        image=recipe.image,
        seeing=seeing,
    )


def differences(video: Mapping[str, Any], frames: Sequence[Mapping[str, Any]], made: Mapping[str, Any]) -> list[str]:
    """In what a clip's new pictures are not those of the manifest; nothing where they are.

    Args:
        video: Its row of videos.parquet.
        frames: Its rows of frames.parquet.
        made: Result of its step.
    """
    if made["status"] != "ok":
        return [f"it was kept, and is now {made['status']}: {made['reason']}"]
    wanted, there = ({row["frame_index"]: row for row in rows} for rows in (frames, made["kept"]))
    found = []
    if lacking := sorted(wanted.keys() - there.keys()):
        found.append(f"{_frames(lacking)} of the manifest {'is' if len(lacking) == 1 else 'are'} not among those that its rules keep here")
    if more := sorted(there.keys() - wanted.keys()):
        found.append(f"its rules keep {_frames(more)} here, which the manifest does not have")
    columns = ("pixel_sha256", "width", "height", "path")
    if other := sorted(
        index for index in wanted.keys() & there.keys() if any(wanted[index][name] != there[index][name] for name in columns)
    ):
        found.append(f"{_frames(other)} of {len(wanted)} {'has' if len(other) == 1 else 'have'} other pixels")
    for what in BESIDE:
        for column in (f"{what}_path", f"{what}_sha256"):
            if video[column] != made["video"].get(column):
                equal = " (its frames are equal)" if not found else ""
                found.append(f"its {what.replace('_', ' ')} picture has other pixels{equal}")
                break
    return found


def _frames(indices: Sequence[int]) -> str:
    shown = ", ".join(str(index) for index in indices[:5])
    return f"frame{'' if len(indices) == 1 else 's'} {shown}" + (f" and {len(indices) - 5} more" if len(indices) > 5 else "")
