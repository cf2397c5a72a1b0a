"""The truth of segmentation: an image a frame whose gray levels are classes, from a folder or a column of the manifest.

In: a data set's frames and a word. Out: which frames have a mask, its file, the classes, and masks at the network's size. Every mask is
opened once before anything is trained, so that one of another size or of gray tones is told first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from uscl.evaluation.selection import column_values
from usdata.console import progress
from usdata.errors import UserError, nearest
from usdata.manifest import DataSet, is_inside

CLASS_NAMES = "classes.json"
# More gray levels than that are tones (a JPEG, a smoothed edge), and no classes.
MOST_CLASSES = 32
NAMED = 3
# One channel: gray, palette, black and white. Others hold colours or transparency, of which no class can be told.
MODES = ("L", "P", "1", "I", "I;16")


@dataclass(frozen=True)
class Masks:
    """The masks of n frames.

    Attributes:
        files: (n,) one a frame.
        values: The classes' gray levels, rising; without 0, the background.
        names: What they are called: by `classes.json` in the folder, else the gray level itself.
        sizes: (n, 2) height and width of each frame and its mask.
    """

    files: list[Path]
    values: list[int]
    names: list[str]
    sizes: NDArray[np.int64]

    def read(self, row: int) -> NDArray[np.uint8]:
        """(H, W) of one frame at its own size: 0 for the background, and 1 to C for the classes."""
        return np.searchsorted([0, *self.values], read_mask(self.files[row])).astype(np.uint8)

    def take(self, rows: NDArray[np.int64]) -> Masks:
        """The masks of some frames."""
        return Masks([self.files[row] for row in rows], self.values, self.names, self.sizes[rows])


def find_masks(dataset: DataSet, frames: pd.DataFrame, word: str) -> tuple[NDArray[np.bool_], Masks]:
    """Which frames have a mask, and the masks of these.

    Args:
        dataset: The data set.
        frames: Rows of its frames.
        word: A folder in which a frame's mask lies under its relative path or its frame_id, ending on .png; else a column of frames.parquet
            or videos.parquet that holds paths inside the data set.

    Raises:
        UserError: The word is neither, no frame has a mask, or masks cannot be read, are of another size than their frames, of several
            channels, or of too many gray levels.
    """
    files = _in_folder(Path(word), frames) if Path(word).is_dir() else _by_column(dataset, frames, word)
    has = np.array([file is not None for file in files], dtype=bool)
    if not has.any():
        first = frames.iloc[0]
        advice = f"the first frame's would be {PurePosixPath(first['path']).with_suffix('.png')} or {first['frame_id']}.png in that folder"
        raise UserError(f"--masks {word}", f"holds no mask of any of the {len(frames):,} frames", advice)
    found = [file for file in files if file is not None]
    sizes = frames.loc[has, ["height", "width"]].to_numpy(dtype=np.int64)
    values = _checked(found, sizes, word)
    names = _names(Path(word)) if Path(word).is_dir() else {}
    return has, Masks(found, values, [names.get(value, str(value)) for value in values], sizes)


def read_mask(path: Path) -> NDArray[np.int64]:
    """The gray levels (or places in the palette) of a mask, (H, W).

    Raises:
        UserError: It is no image, or one of several channels.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            pixels = np.array(image, dtype=np.int64) if mode in MODES else None
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise UserError(path, f"this mask cannot be read ({' '.join(str(error).split())[:120]})", "write it as PNG again") from None
    if pixels is None:
        raise UserError(path, f"this mask has several channels ({mode})", "write it with one gray level a class, or with a palette")
    return pixels


def shrink(mask: NDArray[np.uint8], class_count: int, size: int) -> NDArray[np.uint8]:
    """A mask at size x size: each pixel the class that has most of its area, of equals the lower one.

    Args:
        mask: (H, W), 0 to C.
        class_count: C.
        size: Height and width, the aspect ratio ignored as in the frame store.
    """
    shares = [_scaled((mask == value).astype(np.float32), size) for value in range(class_count + 1)]
    return np.argmax(shares, axis=0).astype(np.uint8)


def shrunk_masks(masks: Masks, size: int) -> NDArray[np.uint8]:
    """(n, size, size): all masks at the network's size."""

    def one(row: int) -> NDArray[np.uint8]:
        return shrink(masks.read(row), len(masks.values), size)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(one, range(len(masks.files)))))


def _scaled(shares: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """As `uscl.frames.resize` scales frames: areas averaged along an axis that shrinks, linear along one that grows."""
    height, width = shares.shape
    less = (min(width, size), min(height, size))
    if less != (width, height):
        shares = cv2.resize(shares, less, interpolation=cv2.INTER_AREA)
    return cv2.resize(shares, (size, size), interpolation=cv2.INTER_LINEAR) if less != (size, size) else shares


def _in_folder(folder: Path, frames: pd.DataFrame) -> list[Path | None]:
    found: list[Path | None] = []
    for path, frame_id in zip(frames["path"], frames["frame_id"], strict=True):
        names = [PurePosixPath(path).with_suffix(".png").as_posix(), f"{frame_id}.png"]
        found.append(next((folder / name for name in names if is_inside(name) and (folder / name).is_file()), None))
    return found


def _by_column(dataset: DataSet, frames: pd.DataFrame, column: str) -> list[Path | None]:
    known = set(dataset.frames.columns) | set(dataset.videos.columns)
    if column not in known:
        paths = [name for name in sorted(known) if name.endswith("path")]
        reason = "is no folder, and no column of the data set"
        raise UserError(f"--masks {column}", reason, f"{nearest(column, paths)}" if "/" not in column else "name the masks' folder")
    found: list[Path | None] = []
    for cell in column_values(dataset, frames, column):
        if cell is None or pd.isna(cell):
            found.append(None)
            continue
        if not isinstance(cell, str) or not is_inside(cell):
            raise UserError(f"--masks {column}", f"does not hold paths inside the data set ({cell!r})", "name another column, or a folder")
        if not (dataset.folder / cell).is_file():
            advice = "name a column that holds paths of masks, or a folder"
            raise UserError(f"--masks {column}", f"names '{cell}', and the data set has no such file", advice)
        found.append(dataset.folder / cell)
    return found


def _names(folder: Path) -> dict[int, str]:
    """What `classes.json` calls the gray levels; nothing where there is none."""
    path = folder / CLASS_NAMES
    if not path.is_file():
        return {}
    try:
        named = json.loads(path.read_text(encoding="utf-8"))
        names = {int(value): str(name) for value, name in named.items()}
    except (ValueError, AttributeError, UnicodeDecodeError):
        raise UserError(path, "does not name gray levels", 'write it as {"1": "liver", "2": "vessel"}') from None
    if len(set(names.values())) < len(names):
        raise UserError(path, "gives two gray levels one name", "give each its own")
    return names


def _checked(files: Sequence[Path], sizes: NDArray[np.int64], word: str) -> list[int]:
    """The gray levels of all masks, once each of them is of its frame's size."""

    def look(path: Path) -> tuple[tuple[int, ...], set[int]]:
        pixels = read_mask(path)
        return pixels.shape, set(np.unique(pixels).tolist())

    values: set[int] = set()
    wrong: list[str] = []
    # A column of videos.parquet names one file for many frames.
    looked: dict[Path, tuple[tuple[int, ...], set[int]]] = {}
    unique = list(dict.fromkeys(files))
    with ThreadPoolExecutor() as pool, progress("reading masks", len(unique), "masks") as advance:
        for path, found in zip(unique, pool.map(look, unique), strict=True):
            looked[path] = found
            advance(1)
    for path, size in zip(files, sizes.tolist(), strict=True):
        shape, levels = looked[path]
        if list(shape) != size:
            wrong.append(f"{path} is {shape[1]}x{shape[0]} and its frame {size[1]}x{size[0]}")
        values |= levels
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise UserError(f"--masks {word}", "; ".join(wrong[:NAMED]) + more, "draw masks on the pictures that the data set stores")
    values -= {0}
    if not values:
        raise UserError(f"--masks {word}", "holds nothing but background (0) in any mask", "further gray levels are the classes")
    if len(values) > MOST_CLASSES:
        reason = f"holds {len(values)} gray levels besides 0, more than {MOST_CLASSES} classes"
        raise UserError(f"--masks {word}", reason, "write masks as PNG without smoothing, one gray level a class")
    return sorted(values)
