"""The layout in which US-4 is published: `<Prefix>-<clip>_<ext>/<Prefix>-<clip>_<ext>_frame<k>.png`, one folder a clip, and nothing else.

The published code walks the folders, takes what ends in .jpg or .png, and reads the class from three characters at a fixed place of the
path, which are the first three of the folder's name. `layout: us4-folders` reads it back. k is the frame's position in its clip.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from usdata.exporting.images import stored_png
from usdata.known_layouts import UNLABELLED, US4_FOLDER, US4_PREFIX
from usdata.manifest import DataSet

JPEG_QUALITY = 95
_UNSAFE_IN_PREFIX = re.compile(r"[^A-Za-z0-9_.+]")


def export_folders(data: DataSet, folder: Path, *, images: str, advance: Callable[[int], None]) -> int:
    """Write all kept frames below a folder; gives the number of clips.

    Raises:
        DataSetError: An image of the data set is missing or damaged.
    """
    names = folder_names(data.videos[data.videos.frames_kept > 0])
    for video_id, frames in data.frames.groupby("video_id", sort=True):
        name = names[str(video_id)]
        (folder / name).mkdir()
        for frame_index, path, width, height in zip(frames.frame_index, frames.path, frames.width, frames.height, strict=True):
            _write(data.folder, path, width, height, folder / name / f"{name}_frame{frame_index}.{images}")
        advance(len(frames))
    return len(names)


def folder_names(videos: pd.DataFrame) -> dict[str, str]:
    """video_id to the name of its folder.

    The prefix is the one that US-4 gave the clip (kept in `labels` as 'label=Ali') or else the label; a clip without a label has
    'unlabelled'. A name that has its prefix already keeps it; two clips that would share a folder get their sources' names into it.
    """
    prefixes, plain = {}, {}
    for video_id, labels, label in zip(videos.video_id, videos.labels, videos.label, strict=True):
        prefixes[video_id] = _prefix(list(labels), None if pd.isna(label) else label)
        name = video_id.split("/", 1)[1]
        plain[video_id] = name if _has_prefix(name, prefixes[video_id]) else f"{prefixes[video_id]}-{name}"
    shared = Counter(name.casefold() for name in plain.values())
    return {
        video_id: name if shared[name.casefold()] == 1 else f"{prefixes[video_id]}-{video_id.replace('/', '__')}"
        for video_id, name in plain.items()
    }


def _prefix(labels: list[str], label: str | None) -> str:
    given = [entry.removeprefix("label=") for entry in labels if entry.startswith("label=")]
    if given and re.fullmatch(US4_PREFIX, given[0]):
        return given[0]
    return UNLABELLED if label is None else _UNSAFE_IN_PREFIX.sub("_", label)


def _has_prefix(name: str, prefix: str) -> bool:
    """Whether a reader of the layout finds this prefix in the name as it is."""
    found = re.search(US4_FOLDER, name)
    return found is not None and (found["label"] or UNLABELLED) == prefix


def _write(folder: Path, path: str, width: int, height: int, target: Path) -> None:
    content = stored_png(folder, path, width, height)
    if target.suffix == ".jpg":
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        content = cv2.imencode(target.suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    target.write_bytes(content)
