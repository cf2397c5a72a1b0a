"""Which frames of unknown clips stand in a data set whose clips are known: what the published folds forgot, found by their pictures.

In: described frames and an opened data set. Out: the clip and the independent group of each frame that is a near copy of one of the set's.
A frame between two kept ones of the set is mostly none; its recording tells where it belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata import manifest
from usdata.console import progress
from usdata.duplicates.groups import connected_components, independent_units
from usdata.duplicates.recordings import NEAR_COPY, describe_frame, nearest_frames
from usdata.errors import DataSetError

SIDE = 224  # the published pictures are square, so a set's are made so first


@dataclass(frozen=True)
class KnownFrames:
    """Frames that were found in a data set.

    Attributes:
        name: The set's name.
        clip: Its video_id for each frame; None where it was not found.
        group: Likewise the independent unit of that clip.
    """

    name: str
    clip: list[str | None]
    group: list[str | None]

    @property
    def found(self) -> int:
        """Frames that were found."""
        return sum(clip is not None for clip in self.clip)


def find_known(described: NDArray[np.int8], folder: Path) -> KnownFrames:
    """Look for frames in a data set.

    Args:
        described: (n, numbers) of `describe_frame`.
        folder: The data set.

    Raises:
        DataSetError: It is none, holds no frames, or a picture of it cannot be read.
    """
    opened = manifest.open_dataset(folder)
    frames = manifest.read_table(folder, manifest.FRAMES).select(["video_id", "group_id", "path", "duplicate_group"]).to_pylist()
    videos = manifest.read_table(folder, manifest.VIDEOS).select(["video_id", "source", "patient_id", "group_id"]).to_pylist()
    pairs = manifest.read_table(folder, manifest.DUPLICATES).select(["video_id_a", "video_id_b"]).to_pylist()
    if not frames:
        raise DataSetError(folder, "holds no frames", "build it from the public clips")
    units = independent_units(videos, frames, pairs)
    known = []
    with progress("looking for frames", len(frames), "frames") as advance:
        for frame in frames:
            picture = cv2.imread(str(folder / frame["path"]), cv2.IMREAD_GRAYSCALE) if manifest.is_inside(frame["path"]) else None
            if picture is None:
                raise DataSetError(folder / frame["path"], "this image of the data set is missing or damaged", "build the set again")
            known.append(describe_frame(np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)))
            advance(1)
    place, likeness = nearest_frames(described, np.stack(known))
    found = [frames[at] if like >= NEAR_COPY else None for at, like in zip(place.tolist(), likeness.tolist(), strict=True)]
    clips = [None if frame is None else str(frame["video_id"]) for frame in found]
    return KnownFrames(opened.name, clips, [None if frame is None else units[frame["group_id"]] for frame in found])


def joined(recordings: Sequence[int], groups: Sequence[str | None]) -> list[int]:
    """The recording that each frame's group begins with: recordings are joined where frames of them are of one known group."""
    of_group: dict[str, int] = {}
    edges = [(recording, of_group.setdefault(group, recording)) for recording, group in zip(recordings, groups, strict=True) if group]
    members = connected_components(sorted(set(recordings)), edges)
    first = {recording: min(component) for recording, component in members.items()}
    return [first[recording] for recording in recordings]
