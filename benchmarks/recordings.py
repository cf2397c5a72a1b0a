"""How well frames of unknown clips are joined to recordings: on a set whose clips and groups are known, and not told.

python benchmarks/recordings.py SET
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from usdata.duplicates import recordings
from usdata.manifest import open_dataset


def main() -> None:
    opened = open_dataset(Path(sys.argv[1]))
    frames = opened.frames
    # As the published folds have them: square, the aspect ratio ignored.
    pictures = [cv2.resize(cv2.imread(str(opened.folder / path), 0), (224, 224), interpolation=cv2.INTER_AREA) for path in frames["path"]]
    described = np.stack([recordings.describe_frame(picture) for picture in pictures])
    groups = np.unique(frames["group_id"], return_inverse=True)[1]
    clips = np.unique(frames["video_id"], return_inverse=True)[1]
    found = recordings.find_recordings(described, groups.astype(np.int64))
    number = found.number
    sizes = np.bincount(number)
    of_two = [key for key in range(len(sizes)) if len(set(groups[number == key])) > 1]
    pieces = [len(set(number[clips == clip])) for clip in range(clips.max() + 1)]
    print(f"{len(frames):,} frames of {clips.max() + 1:,} clips and {groups.max() + 1:,} groups: {len(sizes):,} recordings")
    print(f"largest {sizes.max():,} frames, {np.sum(sizes == 1):,} of a single one; a clip falls into {np.mean(pieces):.2f}")
    print(f"{len(of_two):,} recordings hold frames of two groups ({sum(sizes[key] for key in of_two):,} frames)")
    print(f"most alike of two groups: {found.likeness.max():.3f}; near copies in another group: {found.copied.sum():,} frames")


if __name__ == "__main__":
    main()
