"""Can the label be told from what lies around the ultrasound: text, rulers, logos, borders, the outline of the field of view?

Comes in: the kept clips and their stored images. Goes out: the accuracy of a classifier that sees a few frames of each clip with the inside
of the field of view painted over, beside the majority rate. Guarantees: no pixel of tissue is seen, seeded, independent of the rows'
order; what it could see is said in a sentence, and where it could see nothing, why.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from usdata.auditing.finding import count
from usdata.auditing.images import image_path
from usdata.auditing.probes import probe
from usdata.auditing.tables import Tables
from usdata.console import progress
from usdata.imaging.geometry import Geometry, geometry_from

SIDE = 32
FRAMES_OF_A_CLIP = 3
INSIDE_GRAY = 128
# The edge is known to about a pixel, and an encoder smears tissue over two or three: a share of the longer side, and pixels at least.
MARGIN_SHARE, MARGIN_PIXELS = 0.01, 3
# Beyond it the pictures are not looked at: a thousand clips give the figure to three points of a hundred.
MOST_CLIPS = 1000

_SAW = {
    "none": "the pixels outside the field of view (text, rulers, logos, borders) and the outline itself",
    "box": "what the field of view leaves free of its box, and the outline itself",
    "mask": "the outline of the field of view alone, since everything outside is stored black in this set",
}


def surroundings_probe(tables: Tables, *, pictures: bool = True) -> dict[str, Any]:
    """How well a random forest tells the label from the stored pixels outside the field of view.

    Args:
        tables: The data set.
        pictures: Look at images; without it the result says that none was looked at.

    Returns:
        As `usdata.auditing.probes.shortcut_probe`, with "saw", a sentence on what it saw, in place of "features", and "without", the number
        of labelled clips that could not be shown.
    """
    about = tables.dataset.about.get("recipe", {})
    crop = about.get("image", {}).get("crop", "none")
    result: dict[str, Any] = {"saw": f"It saw {_SAW.get(crop, _SAW['none'])}.", "left_out": []}
    if not pictures:
        return result | {"why_not": "No picture was looked at, as was asked."}
    labelled = tables.kept[tables.kept["label"].notna()]
    known = labelled[labelled["fov_stored_geometry"].notna() & (labelled["frames"] > 0)]
    result["without"] = len(labelled) - len(known)
    if known.empty:
        return result | {"why_not": "No labelled clip has a field of view, so its outside is not known."}
    seen = _Surroundings(tables)
    try:
        found = probe(known, seen.features, most=MOST_CLIPS)
    except _NothingOutside:
        return result | {"why_not": "Nothing is stored outside the field of view: it fills every picture."}
    except _Unreadable as error:
        return result | {"why_not": f"{error} of the images that it would look at cannot be read."}
    if result["without"]:
        result["saw"] = f"{result['saw'][:-1]}; {count(result['without'], 'labelled clip')} without a field of view could not be shown."
    return result | found


class _NothingOutside(Exception):
    """No pixel of any picture lies outside the field of view."""


class _Unreadable(Exception):
    """How many of the pictures cannot be read."""


class _Surroundings:
    """The surroundings of clips as numbers."""

    def __init__(self, tables: Tables) -> None:
        self._folder = tables.dataset.folder
        self._tables = tables

    def features(self, clips: pd.DataFrame) -> NDArray[np.float64]:
        """(clips, pixels that lie outside the field of view of some clip): gray levels, means over a few frames of each."""
        frames = self._tables.frames_of(clips["video_id"])
        paths = {str(video): _spread(list(paths)) for video, paths in frames.groupby("video_id")["path"]}
        vectors, ever_outside, unreadable = [], np.zeros((SIDE, SIDE), bool), 0
        with progress("looking around the fields of view", len(clips), "clips") as advance:
            for video, geometry in zip(clips["video_id"], clips["fov_stored_geometry"], strict=True):
                shown, outside, lost = surroundings(self._folder, paths[video], geometry_from(geometry))
                ever_outside |= outside
                unreadable += lost
                vectors.append(shown)
                advance(1)
        if unreadable:
            raise _Unreadable(f"{unreadable:,}")
        if not ever_outside.any():
            raise _NothingOutside
        return np.stack(vectors)[:, ever_outside]


def surroundings(folder: Path, paths: Iterable[str], geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """What is seen of some frames of one clip.

    Args:
        folder: The data set.
        paths: Of stored images, relative to it.
        geometry: The field of view in stored pixels.

    Returns:
        (32, 32) mean gray levels, the inside painted over; (32, 32) where some of the outside is seen; and how many images cannot be read.
    """
    shown, outside, lost = [], np.zeros((SIDE, SIDE), bool), 0
    for relative in paths:
        path = image_path(folder, relative)
        pixels = None
        if path is not None and path.is_file():
            pixels = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            lost += 1
            continue
        margin = max(MARGIN_PIXELS, round(MARGIN_SHARE * max(pixels.shape)))
        inside = cv2.dilate(geometry.mask(*pixels.shape).astype(np.uint8), np.ones((2 * margin + 1,) * 2, np.uint8))
        painted = np.where(inside > 0, np.uint8(INSIDE_GRAY), pixels)
        shown.append(cv2.resize(painted, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        outside |= cv2.resize(inside.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) < 1
    mean = np.mean(shown, axis=0) if shown else np.full((SIDE, SIDE), float(INSIDE_GRAY))
    return np.asarray(mean, np.float64), outside, lost


def _spread(paths: list[str]) -> list[str]:
    """A few of a clip's images, spread evenly over it."""
    number = min(FRAMES_OF_A_CLIP, len(paths))
    return [paths[int((place + 0.5) * len(paths) / number)] for place in range(number)]
