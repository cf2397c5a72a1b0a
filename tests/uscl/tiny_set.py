"""Writes small data sets of the contract for tests: PNG frames of drifting blobs, with the tables that `usdata build` would write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from usdata import manifest

# A twentieth of the tensors of a resnet18, BatchNorm among them, for runs whose network is not the subject: six times as quick.
TINY_NETWORK = "backbone=timm/test_resnet"
# What of a line of metrics is of the machine and the moment, and not of the run.
RATES = ("views_per_s", "data_wait_share", "utilisation", "peak_memory_mb")


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without what no two runs share."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in RATES} for line in lines]


def write_set(
    folder: Path,
    *,
    frames_per_video: Sequence[int] = (4,) * 6,
    labels: Sequence[str | None] = ("a", "b", None, "a", "b", None),
    groups: Sequence[str] | None = None,
    height: int = 40,
    width: int = 48,
    fps: float | None = 10.0,
) -> Path:
    """A data set with one video per entry of `frames_per_video`; equal arguments give equal bytes."""
    count = len(frames_per_video)
    labels = [labels[video % len(labels)] for video in range(count)] if labels else [None] * count
    groups = list(groups) if groups is not None else [f"patient{video}" for video in range(count)]
    classes = sorted({label for label in labels if label is not None})
    videos, frames = [], []
    for video, kept in enumerate(frames_per_video):
        video_id = f"tiny/clip{video:03d}"
        shared = {"video_id": video_id, "source": "tiny", "patient_id": groups[video], "group_id": groups[video]}
        shared |= {"organ": "lung", "probe": "convex", "label": labels[video]}
        row = dict.fromkeys(manifest.VIDEOS_SCHEMA.names) | shared
        row |= {"path": f"clip{video:03d}.mp4", "bytes": 1, "frames_decoded": kept, "frames_unique": kept, "decode_errors": 0}
        row |= {"labels": [], "flags": [], "overlays": [], "notes": [], "status": "ok", "frames_kept": kept, "fps": fps}
        videos.append(row)
        for frame in range(kept):
            path = f"images/{video_id}/clip{video:03d}_frame{frame}.png"
            write_frame(folder / path, video, frame, height, width)
            row = dict.fromkeys(manifest.FRAMES_SCHEMA.names) | shared
            row |= {"frame_id": f"{video_id}/{frame}", "frame_index": frame, "time_s": None if fps is None else frame / fps}
            row |= {"path": path, "width": width, "height": height, "split": "train", "fold": video % 2}
            row |= {"label_index": None if labels[video] is None else classes.index(labels[video])}
            row |= {"fingerprint": "0" * 64, "pixel_sha256": "0" * 64}
            row |= dict.fromkeys((name for name in row if name.startswith("quality_")), 0.0)
            frames.append(row)
    for name, rows in ((manifest.VIDEOS, videos), (manifest.FRAMES, frames), (manifest.EXCLUDED, []), (manifest.DUPLICATES, [])):
        manifest.write_table(folder, name, manifest.table_from_rows(name, rows), recipe_digest="tiny")
    manifest.write_about(folder, {"name": "tiny", "classes": classes})
    return folder


def write_frame(path: Path, video: int, frame: int, height: int, width: int) -> None:
    """A bright blob on speckle; its place is the video's own, and it drifts from frame to frame."""
    generator = np.random.default_rng([video, frame])
    rows, columns = np.mgrid[0:height, 0:width]
    centre_row, centre_column = height * (0.2 + 0.1 * (video % 6)), width * (0.2 + 0.07 * (video * 5 % 9)) + frame
    blob = 180 * np.exp(-((rows - centre_row) ** 2 + (columns - centre_column) ** 2) / (2 * (height / 6) ** 2))
    pixels = np.clip(blob + generator.normal(40, 12, (height, width)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"{path} was not written")
