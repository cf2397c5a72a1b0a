"""A small data set that is awkward to export: three splits, odd ids and labels, unlabelled clips, a field of view, several licences."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.usdata.auditing.planted import Planted
from usdata.duplicates.fingerprints import pixel_digest

CLASSES = ("<b>|bold|</b>", "naïve, \"quoted\"\n- 'label'")
NAMES = ("a.b c", "a_b c", "A.B C", "клип №1", "x" * 120, "v..", "-dash", "__meta__")
SPLITS = ("train", "val", "test")
LICENCES = ("CC BY 4.0", "cc-by-nc-sa_4.0", "of <our> own", None)
SECTOR = '{"angle_left_deg": -30.0, "angle_right_deg": 30.0, "apex_x": 32.0, "apex_y": -10.0, "kind": "annulus_sector", "radius_inner": 15.0, "radius_outer": 50.0}'  # noqa: E501


def pixels_of(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """The picture that `Planted.write` gives its frame of this number."""
    return np.random.default_rng(number).integers(0, 255, (height, width), dtype=np.uint8)


def odd_set(folder: Path, *, labelled: bool = True) -> Path:
    """Write it; equal arguments give equal bytes. Clip k is of patient k // 2, which is in split k // 2 % 3; patient 1 has no label."""
    planted = Planted(clips=len(NAMES))
    for number, (clip, name) in enumerate(zip(planted.videos, NAMES, strict=True)):
        before, patient = clip["video_id"], number // 2
        label = CLASSES[patient % 2] if labelled and patient != 1 else None
        video_id = f"clinic/{name}"
        planted.set_video(number, label=label)
        clip |= {"video_id": video_id, "licence": LICENCES[number % 4], "fov_kind": "annulus_sector", "fov_stored_geometry": SECTOR}
        for row in planted.frames:
            if row["video_id"] == before:
                row |= {"video_id": video_id, "frame_id": f"{video_id}/{row['frame_index']}", "split": SPLITS[patient % 3]}
                row |= {"label_index": None if label is None else sorted(CLASSES).index(label), "fold": patient % 2}
                row |= {"path": f"images/clinic/{number}/{name}_frame{row['frame_index']}.png", "time_s": row["frame_index"] / 25}
                row |= {"fov_x": 7, "fov_y": 3, "fov_width": 51, "fov_height": 38}
        for row in planted.excluded:
            row["video_id"] = video_id if row["video_id"] == before else row["video_id"]
    for number, row in enumerate(planted.frames):
        row["pixel_sha256"] = pixel_digest(pixels_of(number))
    return planted.write(folder)


def stored_pixels(dataset: Path, path: str) -> NDArray[np.uint8]:
    """A stored image as OpenCV decodes it, unchanged."""
    pixels = cv2.imdecode(np.frombuffer((dataset / path).read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels
