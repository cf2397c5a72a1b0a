"""Writes small labelled data sets whose classes differ by texture: horizontal, vertical or blotchy speckle, brightness and phase random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from usdata import manifest

SMOOTHING = {"across": (1, 25), "down": (25, 1), "blotches": (7, 7)}


def write_texture_set(
    folder: Path,
    *,
    textures: Sequence[str] = ("across", "down") * 6,
    labels: Sequence[str | None] | None = None,
    groups: Sequence[str] | None = None,
    patients: Sequence[str | None] | None = None,
    folds: Sequence[int | None] | None = None,
    probes: Sequence[str] | None = None,
    frames_per_video: int = 4,
    duplicates: Sequence[tuple[str, str]] = (),
    prefix: str = "clip",
    size: int = 40,
) -> Path:
    """A data set with one video per texture; labels default to the textures, groups to one a video, folds to none."""
    count = len(textures)
    labels = list(textures) if labels is None else labels
    groups = [f"group{video:02d}" for video in range(count)] if groups is None else groups
    patients = [None] * count if patients is None else patients
    classes = sorted({label for label in labels if label is not None})
    videos: list[Mapping[str, Any]] = []
    frames: list[Mapping[str, Any]] = []
    for video, texture in enumerate(textures):
        video_id = video_name(video, prefix)
        shared = {"video_id": video_id, "source": "made", "patient_id": patients[video], "group_id": groups[video]}
        shared |= {"organ": "lung", "probe": probes[video] if probes else "convex", "label": labels[video]}
        row = dict.fromkeys(manifest.VIDEOS_SCHEMA.names) | shared
        row |= {"path": f"{video}.mp4", "bytes": 1, "frames_decoded": frames_per_video, "frames_unique": frames_per_video}
        row |= {
            "decode_errors": 0,
            "labels": [f"texture={texture}"],
            "flags": [],
            "overlays": [],
            "notes": [],
            "status": "ok",
            "frames_kept": frames_per_video,
        }
        row |= {"manufacturer": "first" if video < count // 2 else "second"}
        videos.append(row)
        for frame in range(frames_per_video):
            path = f"images/{video}/{frame}.png"
            write_texture(folder / path, texture, [video, frame], size)
            row = dict.fromkeys(manifest.FRAMES_SCHEMA.names) | shared
            row |= {"frame_id": f"{video_id}/{frame}", "frame_index": frame, "path": path, "width": size, "height": size, "split": "train"}
            row |= {"label_index": None if labels[video] is None else classes.index(labels[video])}
            row |= {"fold": folds[video] if folds else None, "fingerprint": "0" * 64, "pixel_sha256": "0" * 64}
            row |= dict.fromkeys((name for name in row if name.startswith("quality_")), 0.0)
            frames.append(row)
    pairs = []
    for a, b in duplicates:
        row = dict.fromkeys(manifest.DUPLICATES_SCHEMA.names, 0) | {"video_id_a": a, "video_id_b": b, "kind": "pixels", "flip": False}
        pairs.append(row | {"score": 1.0, "scale": 1.0, "shift_x": 0.0, "shift_y": 0.0})
    tables = {manifest.VIDEOS: videos, manifest.FRAMES: frames, manifest.EXCLUDED: [], manifest.DUPLICATES: pairs}
    for name, rows in tables.items():
        manifest.write_table(folder, name, manifest.table_from_rows(name, rows), recipe_digest="made")
    manifest.write_about(folder, {"name": "textures", "classes": classes})
    return folder


def video_name(video: int, prefix: str = "clip") -> str:
    """The id of a video of the set."""
    return f"made/{prefix}{video:02d}"


def write_texture(path: Path, texture: str, seed: Sequence[int], size: int) -> None:
    """Smoothed noise whose direction is the class; its brightness and contrast tell nothing."""
    generator = np.random.default_rng(seed)
    noise = cv2.blur(generator.normal(size=(size, size)), SMOOTHING[texture])
    pixels = generator.uniform(90, 150) + generator.uniform(25, 45) * noise / noise.std()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.clip(pixels, 0, 255).astype(np.uint8)):
        raise OSError(f"{path} was not written")
