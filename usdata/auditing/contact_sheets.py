"""Which stored images the report shows, and small copies of them.

Comes in: the frames table and the data set's folder. Goes out: thumbnails as JPEG data URIs with captions. Guarantees: the choice depends
on the table alone, no image is read from outside the folder, and all thumbnails of a report together stay within its budget of bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from usdata.auditing.findings import image_path

THUMBNAIL_HEIGHT = 128
THUMBNAIL_WIDEST = 256
JPEG_QUALITY = 80
IMAGE_BYTES_BUDGET = 3_000_000


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of a stored image.

    Attributes:
        uri: `data:image/jpeg;base64,...`, or "" where the image is missing, unreadable or beyond the budget.
        video_id: The clip.
        frame_index: The frame in it.
        remark: A measure to show under it, or "".
    """

    uri: str
    video_id: str
    frame_index: int
    remark: str


class Thumbnailer:
    """Makes thumbnails until the budget of bytes is spent."""

    def __init__(self, folder: Path, budget: int = IMAGE_BYTES_BUDGET) -> None:
        self.folder = folder
        self.left = budget

    def make(self, frames: pd.DataFrame, remark_column: str | None = None) -> list[Thumbnail]:
        """Thumbnails of these rows of the frames table, in their order."""
        made = []
        for row in frames.to_dict("records"):
            uri = self._encode(row["path"])
            remark = f"{row[remark_column]:.1f}" if remark_column else ""
            made.append(Thumbnail(uri, row["video_id"], int(row["frame_index"]), remark))
        return made

    def _encode(self, relative: str) -> str:
        path = image_path(self.folder, relative)
        if path is None or not path.is_file():
            return ""
        image = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", dtype=np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            return ""
        height, width = image.shape[:2]
        scale = min(THUMBNAIL_HEIGHT / height, THUMBNAIL_WIDEST / width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        _, coded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        uri = "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode("ascii")
        if len(uri) > self.left:
            return ""
        self.left -= len(uri)
        return uri


def evenly_over_groups(frames: pd.DataFrame, number: int) -> pd.DataFrame:
    """At most `number` rows, spread evenly over the groups and, inside a group, over its frames; sorted by clip and frame.

    With more groups than places, evenly spaced groups give their middle frame. With fewer, places go round until they are used up.
    """
    groups = [members for _, members in frames.sort_values(["video_id", "frame_index"]).groupby("group_id")]
    if not groups or number < 1:
        return frames.iloc[:0]
    chosen_groups = [groups[index] for index in _spaced(len(groups), min(number, len(groups)))]
    places = [0] * len(chosen_groups)
    left = min(number, sum(len(members) for members in chosen_groups))
    while left:
        for index, members in enumerate(chosen_groups):
            if left and places[index] < len(members):
                places[index] += 1
                left -= 1
    picked = [members.iloc[_spaced(len(members), count)] for members, count in zip(chosen_groups, places, strict=True)]
    return pd.concat(picked).sort_values(["source", "video_id", "frame_index"])


def _spaced(length: int, number: int) -> list[int]:
    """`number` indices of `length`, each in the middle of its share."""
    return [int((index + 0.5) * length / number) for index in range(number)]


def worst(frames: pd.DataFrame, measure: str, number: int) -> pd.DataFrame:
    """The rows with the lowest measure, one of each clip, lowest first."""
    ordered = frames.sort_values([measure, "video_id", "frame_index"])
    return ordered.drop_duplicates("video_id").head(number)


def first_frames(frames: pd.DataFrame, at: Iterable[tuple[str, int]]) -> pd.DataFrame:
    """For each (video_id, frame_index), the kept frame of that clip nearest to the index; clips without frames give none."""
    rows = []
    for video, index in at:
        members = frames[frames["video_id"] == video]
        if len(members):
            rows.append(members.iloc[[int(np.argmin(np.abs(members["frame_index"].to_numpy() - index)))]])
    return pd.concat(rows) if rows else frames.iloc[:0]
