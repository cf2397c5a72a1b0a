"""Small data sets with planted truth: a clean one, and the means to spoil exactly one thing in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from usdata import manifest

LABELS = ("benign", "malignant")
FRAMES_PER_CLIP = 3
DECODED = 12


def video(number: int, **changes: Any) -> dict[str, Any]:
    """Clip `number` of patient `number // 2`; acquisition is the same for all, labels go by patient."""
    patient = f"p{number // 2}"
    row: dict[str, Any] = dict.fromkeys(manifest.VIDEOS_SCHEMA.names)
    row |= {
        "video_id": f"clinic/v{number:02}",
        "source": "clinic",
        "patient_id": patient,
        "group_id": f"clinic/{patient}",
        "path": f"clinic/v{number:02}.mp4",
        "sha256": f"{number:064x}",
        "bytes": 40_000,
        "container": "mp4",
        "codec": "h264",
        "width": 64,
        "height": 48,
        "fps": 25.0,
        "frames_declared": DECODED,
        "frames_decoded": DECODED,
        "frames_unique": DECODED - 2,
        "decode_errors": 0,
        "duration_s": 0.48,
        "organ": "breast",
        "label": LABELS[number // 2 % 2],
        "labels": [],
        "licence": "CC BY 4.0",
        "flags": [],
        "overlays": [],
        "notes": [],
        "status": "ok",
        "frames_kept": FRAMES_PER_CLIP,
    }
    return row | changes


def frame(clip: dict[str, Any], index: int, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(manifest.FRAMES_SCHEMA.names)
    row |= {key: clip[key] for key in ("video_id", "source", "patient_id", "group_id", "organ", "label")}
    name = Path(clip["path"]).stem
    row |= {
        "frame_id": f"{clip['video_id']}/{index}",
        "frame_index": index,
        "path": f"images/clinic/{name}/{name}_frame{index}.png",
        "width": 64,
        "height": 48,
        "label_index": None if clip["label"] not in LABELS else LABELS.index(clip["label"]),
        "split": "train",
        "fold": int(clip["patient_id"][1:]) // 2 % 2 if clip["patient_id"] else 0,
        "fingerprint": "0" * 64,
        "pixel_sha256": "0" * 64,
        "quality_mean": 100.0 + index,
        "quality_std": 30.0,
        "quality_sharpness": 50.0,
        "quality_contrast": 90.0,
        "quality_saturation": 0.0,
    }
    return row | changes


def excluded(clip: dict[str, Any], index: int, reason: str) -> dict[str, Any]:
    return {
        "video_id": clip["video_id"],
        "source": clip["source"],
        "frame_index": index,
        "pts": None,
        "time_s": None,
        "reason": reason,
        "duplicate_of": None,
        "difference": None,
        "similarity": None,
    }


def duplicate(a: str, b: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(manifest.DUPLICATES_SCHEMA.names, 0)
    return row | {
        "video_id_a": a,
        "video_id_b": b,
        "kind": "pixels",
        "score": 1.0,
        "scale": 1.0,
        "flip": False,
        "last_frame_a": 9,
        "last_frame_b": 9,
    }


class Planted:
    """Rows of a data set; change them, then write them.

    Ten clips of five patients: too few for the shortcut probe, which most tests need not wait for.
    """

    def __init__(self, clips: int = 10) -> None:
        self.name = "planted"
        self.recipe: dict[str, Any] | None = None
        self.privacy: dict[str, Any] | None = None
        self.videos = [video(number) for number in range(clips)]
        self.frames = [frame(clip, index) for clip in self.videos for index in range(FRAMES_PER_CLIP)]
        # Of 12 decoded frames 3 are kept, 2 repeat and 7 were not sampled.
        self.excluded = [
            excluded(clip, index, "near_repeat" if index < 5 else "not_sampled")
            for clip in self.videos
            for index in range(FRAMES_PER_CLIP, DECODED)
        ]
        self.duplicates: list[dict[str, Any]] = []

    def drop_frames(self, video_id: str) -> None:
        self.frames = [row for row in self.frames if row["video_id"] != video_id]
        self.excluded = [row for row in self.excluded if row["video_id"] != video_id]

    def set_video(self, number: int, **changes: Any) -> None:
        """Change a clip, and its frames where they carry the same fact."""
        clip = self.videos[number]
        clip |= changes
        for row in self.frames:
            if row["video_id"] == clip["video_id"]:
                row |= {key: value for key, value in changes.items() if key in ("patient_id", "group_id", "label", "organ")}

    def write(self, folder: Path, *, images: bool = True) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        if images:
            for number, row in enumerate(self.frames):
                path = folder / row["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(number).integers(0, 255, (row["height"], row["width"]), dtype=np.uint8)
                path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        tables = {
            manifest.VIDEOS: self.videos,
            manifest.FRAMES: self.frames,
            manifest.EXCLUDED: self.excluded,
            manifest.DUPLICATES: self.duplicates,
        }
        for name, rows in tables.items():
            manifest.write_table(folder, name, manifest.table_from_rows(name, rows), recipe_digest="ab" * 32)
        labels = sorted({row["label"] for row in self.videos if row["label"]})
        about: dict[str, Any] = {"name": self.name, "classes": labels, "recipe_digest": "ab" * 32}
        about |= {"versions": {"av": "14.0", "usdata": "0.1"}}
        about |= {key: value for key, value in (("recipe", self.recipe), ("privacy", self.privacy)) if value is not None}
        manifest.write_about(folder, about)
        return folder
