"""Draw docs/images/phantom.png from a folder that `usdata phantom` wrote: frames decoded back from its clips, a row a class.

usdata phantom /tmp/phantom && python benchmarks/phantom_sheet.py /tmp/phantom docs/images/phantom.png
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import av
import cv2
import numpy as np

TILE, CAPTION, KINDS = 300, 20, ("convex", "phased", "linear", "convex")


def contact_sheet(out: Path, image: Path) -> None:
    """Write a sheet of one frame a clip: classes downwards, probes across, each under its label, device and container.

    Args:
        out: A folder that `usdata phantom` wrote (16 patients or more, so that each class meets each device).
        image: The PNG to write.
    """
    with (out / "truth.csv").open(encoding="utf-8", newline="") as file:
        truth = [row for row in csv.DictReader(file) if not row["fault"]]
    rows = []
    for label in dict.fromkeys(row["label"] for row in truth):
        of_label = [row for row in truth if row["label"] == label]
        devices = sorted({row["device"] for row in truth})
        tiles = []
        for device in devices:
            shown = next((row for row in of_label if row["device"] == device), None)
            tiles.append(_tile(out, shown) if shown else np.zeros((TILE + CAPTION, TILE), np.uint8))
        rows.append(np.hstack(tiles))
    image.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(image), np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _tile(out: Path, row: dict[str, str]) -> np.ndarray:
    with av.open(out / row["path"]) as file:
        frames = [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]
    picture = frames[len(frames) // 2]
    scale = TILE / max(picture.shape)
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.zeros((TILE + CAPTION, TILE), np.uint8)
    left = (TILE - picture.shape[1]) // 2
    tile[: picture.shape[0], left : left + picture.shape[1]] = picture
    tile[TILE:] = 40
    text = f"{row['label']}  {row['geometry']}  {row['patient']}  {row['device']}  .{row['path'].rpartition('.')[2]}"
    cv2.putText(tile, text, (6, TILE + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.36, 230, 1, cv2.LINE_AA)
    return tile


if __name__ == "__main__":
    contact_sheet(Path(sys.argv[1]), Path(sys.argv[2]))
