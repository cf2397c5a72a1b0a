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
from markupsafe import Markup

from usdata.auditing.images import image_path

# Twice and more of what the page's grid shows, so that opening a picture shows more of it.
LONGEST_SIDE = 320
# A picture that does not fit into its share of the budget is tried smaller, before it is left out.
SMALLER_SIDES = (LONGEST_SIDE, 200, 128)
JPEG_QUALITY = 80
IMAGE_BYTES_BUDGET = 5_000_000


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of a stored image.

    Attributes:
        uri: `data:image/jpeg;base64,...`, or "" where the image is missing, unreadable or beyond the budget.
        width: Of the copy, in pixels.
        height: Of the copy, in pixels.
        video_id: The clip.
        frame_index: The frame in it.
        label: Its label, or "unlabelled".
        group_id: Its group.
        remark: A measure to show under it, or "".
    """

    uri: Markup
    width: int
    height: int
    video_id: str
    frame_index: int
    label: str
    group_id: str
    remark: str


class Thumbnailer:
    """Makes thumbnails until the budget of bytes is spent."""

    def __init__(self, folder: Path, budget: int = IMAGE_BYTES_BUDGET) -> None:
        self.folder = folder
        self.left = budget

    def make(self, frames: pd.DataFrame, remark_column: str | None = None, share: float = 1.0) -> list[Thumbnail]:
        """Thumbnails of these rows of the frames table, in their order; those that cannot be had are left out.

        Args:
            frames: Rows of the frames table with `label_name`.
            remark_column: The measure to show under each.
            share: The part of what is left of the budget that these may take, at most evenly each.
        """
        made: list[Thumbnail] = []
        allowed = int(self.left * share)
        for number, row in enumerate(frames.to_dict("records")):
            # What the ones before left unused is for those after.
            coded = self._encode(row["path"], allowed // (len(frames) - number))
            if coded is None:
                continue
            uri, width, height = coded
            allowed -= len(uri)
            self.left -= len(uri)
            made.append(
                Thumbnail(
                    uri=uri,
                    width=width,
                    height=height,
                    video_id=row["video_id"],
                    frame_index=int(row["frame_index"]),
                    label=row["label_name"],
                    group_id=row["group_id"],
                    remark=f"{row[remark_column]:.1f}" if remark_column else "",
                )
            )
        return made

    def _encode(self, relative: str, most_bytes: int) -> tuple[Markup, int, int] | None:
        path = image_path(self.folder, relative)
        if path is None or not path.is_file():
            return None
        image = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", dtype=np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            return None
        height, width = image.shape[:2]
        for side in SMALLER_SIDES:
            scale = min(1.0, side / max(height, width))
            size = max(1, round(width * scale)), max(1, round(height * scale))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
            _, coded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            uri = "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode("ascii")
            if len(uri) <= most_bytes:
                return Markup(uri), size[0], size[1]
        return None


def evenly_over_groups(frames: pd.DataFrame, number: int) -> pd.DataFrame:
    """At most `number` rows, spread evenly over the groups and, inside a group, over its frames; sorted by clip and frame.

    With more groups than places, evenly spaced groups give their middle frame. With fewer, places go round until they are used up.
    """
    groups = [members for _, members in frames.sort_values(["video_id", "frame_index"]).groupby("group_id")]
    if not groups or number < 1:
        return frames.iloc[:0]
    chosen_groups = [groups[index] for index in spaced(len(groups), min(number, len(groups)))]
    places = [0] * len(chosen_groups)
    left = min(number, sum(len(members) for members in chosen_groups))
    while left:
        for index, members in enumerate(chosen_groups):
            if left and places[index] < len(members):
                places[index] += 1
                left -= 1
    picked = [members.iloc[spaced(len(members), count)] for members, count in zip(chosen_groups, places, strict=True)]
    return pd.concat(picked).sort_values(["source", "video_id", "frame_index"])


def spaced(length: int, number: int) -> list[int]:
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
