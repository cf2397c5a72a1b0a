"""The images that are kept of one clip, and what frames.parquet says of a stored frame.

Comes in: frames, and how they are framed. Goes out: PNG files in a folder, their digests, and the columns that name them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.duplicates.fingerprints import fingerprint, pixel_digest
from usdata.duplicates.key_frames import KeyFrames, as_strip
from usdata.errors import ReadError
from usdata.imaging.framing import Framing

SATURATED_GRAY_LEVEL = 250


class StoredImages:
    """Writes the images of one clip.

    Attributes:
        written: Name of each file that was written, to the sha256 of its bytes.
    """

    def __init__(self, folder: Path, shown: str) -> None:
        """Begin.

        Args:
            folder: Where they are written.
            shown: What the folder is called in the tables, relative to the data set; its last part begins every file's name.
        """
        self.written: dict[str, str] = {}
        self._folder, self._shown = folder, shown

    def frame(self, index: int, pixels: NDArray[np.uint8], framing: Framing) -> dict[str, Any]:
        """Write a frame (H, W) uint8; its columns of frames.parquet."""
        stored = framing.stored(pixels)
        place: dict[str, Any] = {"path": self._write(f"frame{index}", stored), "width": stored.shape[1], "height": stored.shape[0]}
        box = framing.stored_box or (None, None, None, None)
        place |= dict(zip(("fov_x", "fov_y", "fov_width", "fov_height"), box, strict=True))
        return place | frame_measures(stored, framing.inside)

    def beside(self, framing: Framing | None, key_frames: KeyFrames | None) -> dict[str, Any]:
        """Write the mask of what lies over the tissue, and the key frames, where there are some; their columns of videos.parquet."""
        columns: dict[str, Any] = {}
        mask = None if framing is None else framing.stored_overlays()
        if mask is not None:
            columns |= {"overlay_path": self._write("overlays", mask), "overlay_sha256": pixel_digest(mask)}
        if key_frames is not None:
            indices = [int(index) for index in key_frames.frame_index]
            strip = as_strip(key_frames.pictures)
            columns |= {"key_frames_path": self._write("key_frames", strip), "key_frames_sha256": pixel_digest(strip)}
            columns |= {"key_frames": indices, "key_frames_box": list(key_frames.box)}
        return columns

    def keep(self, paths: set[str]) -> dict[str, str]:
        """Remove every image but those of some paths of the tables; the digests of these by file name, sorted."""
        kept = {Path(path).name for path in paths}
        for name in self.written.keys() - kept:
            (self._folder / name).unlink()
        return {name: self.written[name] for name in sorted(kept)}

    def _write(self, what: str, pixels: NDArray[np.uint8]) -> str:
        name = f"{Path(self._shown).name}_{what}.png"
        # OpenCV's own settings (run lengths after the "sub" filter): less time and bytes than zlib's levels, see docs/performance.md.
        done, encoded = cv2.imencode(".png", pixels)
        if not done:
            raise ReadError(self._shown, f"{name} could not be encoded as PNG", "report this with the file")
        content = encoded.tobytes()
        (self._folder / name).write_bytes(content)
        self.written[name] = hashlib.sha256(content).hexdigest()
        return f"{self._shown}/{name}"


def frame_measures(pixels: NDArray[np.uint8], inside: NDArray[np.uint8] | None = None) -> dict[str, Any]:
    """The measures of a kept frame, as frames.parquet holds them: fingerprint, digest of the pixels, quality inside the field of view.

    Args:
        pixels: (H, W) uint8.
        inside: (H, W) uint8, not 0 inside the field of view; None: all of the picture.
    """
    mean, std = (float(value[0, 0]) for value in cv2.meanStdDev(pixels, mask=inside))
    laplacian = cv2.Laplacian(pixels, cv2.CV_16S, ksize=1)
    # The step at the field of view's edge is no sharpness of the tissue.
    core = None if inside is None else cv2.erode(inside, np.ones((3, 3), np.uint8), borderValue=1)
    if core is not None and not core.any():
        core = inside
    area = pixels.size if inside is None else cv2.countNonZero(inside)
    counts = cv2.calcHist([pixels], [0], inside, [256], [0, 256]).ravel()
    return {
        "fingerprint": fingerprint(pixels),
        "pixel_sha256": pixel_digest(pixels),
        # Rounded: the last bits of a float sum differ between processors, and equal input must give equal bytes.
        "quality_mean": round(mean, 4),
        "quality_std": round(std, 4),
        "quality_sharpness": round(float(cv2.meanStdDev(laplacian, mask=core)[1][0, 0]) ** 2, 4),
        "quality_contrast": _contrast(counts),
        "quality_saturation": round(float(counts[SATURATED_GRAY_LEVEL:].sum()) / area, 6),
    }


def _contrast(histogram: NDArray[np.float32]) -> float:
    """95th minus 5th percentile of the gray levels, each the first level at or below which that share of the pixels lies."""
    counts = np.cumsum(histogram, dtype=np.float64)
    low, high = np.searchsorted(counts, [0.05 * counts[-1], 0.95 * counts[-1]])
    return float(high - low)
