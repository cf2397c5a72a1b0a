"""The contact sheet of a segmentation: the worst, the middling and the best held-out frames, truth and prediction as outlines.

In: a data set, frames, their masks and what was predicted. Out: JPEG data URIs with what they show.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uscl.frames import image_path, read_gray
from uscl.segmentation.held_out import HeldOut
from uscl.segmentation.masks import Masks
from uscl.segmentation.scores import dice
from usdata.manifest import DataSet

PER_ROW = 4
# Drawn so large that an outline of one pixel does not hide what it runs along.
HEIGHT = 320
JPEG_QUALITY = 82
# Blue, green, red of the outlines of classes; more classes begin again. The page's legend names them.
COLOURS = ((80, 180, 255), (120, 220, 90), (255, 150, 90), (220, 110, 220), (90, 230, 230), (130, 130, 255))


@dataclass(frozen=True)
class ShownFrame:
    """A held-out frame.

    Attributes:
        frame_id: Of the frame.
        group: Its group.
        dice: By class name, of the classes that truth or prediction holds; the mean of all of them is what it was chosen by.
        mean: That mean.
        truth: JPEG data URI with the outlines of the truth.
        predicted: The same with those of the prediction.
    """

    frame_id: str
    group: str
    dice: dict[str, float]
    mean: float
    truth: str
    predicted: str


def contact_sheet(dataset: DataSet, frames: pd.DataFrame, masks: Masks, held: HeldOut) -> dict[str, list[ShownFrame]]:
    """By 'worst', 'middling' and 'best' some frames, no two of one clip in a row; the first seed's predictions."""
    values = dice(held.counts)
    holds = held.counts[..., 1:].sum(axis=2) > 0
    counted = np.maximum(holds.sum(axis=1), 1)
    # A frame without anything, in truth and prediction, is right.
    means = np.where(holds.any(axis=1), (values * holds).sum(axis=1) / counted, 1.0)
    order = np.argsort(means, kind="stable")
    middle = order[np.argsort(np.abs(np.arange(len(order)) - (len(order) - 1) / 2), kind="stable")]
    rows = {"worst": order, "middling": middle, "best": order[::-1]}
    videos = frames["video_id"].to_numpy(dtype=str)
    return {
        name: [_shown(dataset, frames, masks, held, row, means) for row in _of_different_clips(own, videos)] for name, own in rows.items()
    }


def _of_different_clips(order: NDArray[np.int64], videos: NDArray[np.str_]) -> list[int]:
    chosen: list[int] = []
    for row in order.tolist():
        if videos[row] not in {videos[each] for each in chosen}:
            chosen.append(row)
        if len(chosen) == PER_ROW:
            break
    return chosen


def _shown(dataset: DataSet, frames: pd.DataFrame, masks: Masks, held: HeldOut, row: int, means: NDArray[np.float64]) -> ShownFrame:
    frame = frames.iloc[row]
    gray = read_gray(image_path(dataset, frame["path"]))
    picture = held.pictures[row]
    assert picture is not None
    levels = np.asarray(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED))
    predicted = np.asarray(np.searchsorted([0, *masks.values], levels), np.uint8)
    counts = held.counts[row]
    values = dice(counts)
    named = {name: float(values[index]) for index, name in enumerate(masks.names) if counts[index, 1:].sum() > 0}
    return ShownFrame(
        frame_id=str(frame["frame_id"]),
        group=str(frame["group_id"]),
        dice=named,
        mean=float(means[row]),
        truth=_outlined(gray, masks.read(row)),
        predicted=_outlined(gray, predicted),
    )


def _outlined(gray: NDArray[np.uint8], mask: NDArray[np.uint8]) -> str:
    """A frame with the outlines of a mask's classes, as a JPEG data URI."""
    height, width = gray.shape
    scale = HEIGHT / height
    size = (max(1, round(width * scale)), HEIGHT)
    picture = cv2.cvtColor(cv2.resize(gray, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), cv2.COLOR_GRAY2BGR)
    for value in np.unique(mask[mask > 0]).tolist():
        own = cv2.resize((mask == value).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        lines, _ = cv2.findContours(own, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, COLOURS[(value - 1) % len(COLOURS)], 1, cv2.LINE_AA)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
