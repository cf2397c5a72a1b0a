"""The FrameStore: every frame of a data set, decoded once to gray uint8 at one size and memory-mapped from disk.

In comes a data set; out goes an array (frames, size, size) whose row i is row i of the data set's `frames`. A store is keyed by the data
set's digest and the size, written at once or not at all, equal byte for byte whatever the number of threads, and used again where it
still fits; one that was edited is found by its hashes and built anew. Data sets keep gray frames only, and so does the store.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from uscl.field_of_view import frame_boxes
from usdata.console import progress, say
from usdata.errors import DataSetError, UserError
from usdata.files import atomic, write_json
from usdata.manifest import DataSet, is_inside

# Raised whenever the same image would give other pixels, so that an old store is made anew.
STORE_VERSION = 2
MIN_SIZE, MAX_SIZE = 8, 2048
# Frames are decoded, written and hashed in blocks of so many; at each opening so many blocks of an untouched store are hashed again.
FRAMES_PER_BLOCK = 256
_BLOCKS_LOOKED_AT = 4
# Beside the frames: the file's header and its description.
_SMALL_FILES_BYTES = 1 << 20


@dataclass(frozen=True)
class FrameStore:
    """The decoded frames of one data set.

    Attributes:
        pixels: (frames, size, size) uint8, read-only, memory-mapped; row i belongs to row i of `dataset.frames`.
        size: Height and width in pixels.
        path: The file on disk.
        offset: Bytes of the file before the first frame.
        sha256: Over the sha256 of each block of `FRAMES_PER_BLOCK` frames.
        boxes: (frames, 4) top, left, bottom and right edges of each frame's field of view in stored pixels, NaN where it is not known.
    """

    pixels: np.ndarray
    size: int
    path: Path
    offset: int
    sha256: str
    boxes: np.ndarray


def open_store(dataset: DataSet, *, size: int, folder: Path | None = None, threads: int | None = None, verify: str = "auto") -> FrameStore:
    """Open the data set's store of this size, and build it first where there is none.

    The aspect ratio is ignored, as USCL resizes. Shrinking averages areas, enlarging interpolates linearly, each axis by itself.

    Args:
        dataset: The data set.
        size: Height and width in pixels, 8 to 2048.
        folder: Where stores lie; by default `SET/.cache`, and the user's cache folder where that cannot be written.
        threads: Decoding threads; by default one a core.
        verify: How an existing store is checked; one that fails is built anew, with a line. 'auto': the hashes of some blocks where the
            file's size and time of change are those it was written with, and of all blocks where they are not; 'whole': of all blocks;
            'never': of none.

    Raises:
        DataSetError: The set has no frames, or an image of it is missing or unreadable; the error names it.
        UserError: The size is out of range, or there is no place or too little space to write.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError("store.size", f"is {size}", f"allowed are {MIN_SIZE} to {MAX_SIZE} pixels")
    if len(dataset.frames) == 0:
        raise DataSetError(dataset.folder, "holds no frames", "see its videos.parquet for the reasons")
    name = f"frames-{size}-{dataset.digest[:16]}.npy"
    folders = [folder] if folder is not None else [dataset.folder / ".cache", _user_cache()]
    for candidate in folders:
        store = _existing(candidate / name, dataset, size, verify)
        if store is not None:
            return store
    path = _writable(folders) / name
    with _alone_in(path.parent) as waited:
        store = _existing(path, dataset, size, verify) if waited else None
        if store is None:
            _build(path, dataset, size, threads or os.cpu_count() or 1)
            store = _existing(path, dataset, size, verify="never")
    if store is None:
        raise UserError(path, "was changed while it was being written", "run the same command again")
    return store


def read_gray(path: Path) -> np.ndarray:
    """One image file as gray uint8 (height, width).

    Raises:
        DataSetError: The file is missing or is no image that OpenCV reads.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataSetError(
            path, f"this image of the data set cannot be read ({error.strerror})", "build the set again with 'usdata build'"
        ) from None
    pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if pixels is None:
        raise DataSetError(path, "this image of the data set is damaged", "build the set again with 'usdata build'")
    return cast("np.ndarray", pixels)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """A gray image (height, width) at size x size: areas averaged along an axis that shrinks, linear along one that grows."""
    height, width = pixels.shape
    shrunk = (min(width, size), min(height, size))
    if shrunk != (width, height):
        pixels = cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (size, size):
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
    return pixels


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uscl"


def _writable(folders: list[Path]) -> Path:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise UserError(folders[0], "the frame store cannot be written here", "name a folder with --set store.folder=DIR")


@contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Let one process at a time build in a folder; the value says whether another one was waited for, and may have built the store."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            waited = False
        except BlockingIOError:
            say("another process builds a frame store here: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
            waited = True
        yield waited
    finally:
        os.close(handle)


def _existing(path: Path, dataset: DataSet, size: int, verify: str) -> FrameStore | None:
    """The store at this path if it is whole and belongs to this data set, else None."""
    sidecar = path.with_suffix(".json")
    if not path.is_file() or not sidecar.is_file():
        return None
    try:
        about = json.loads(sidecar.read_text(encoding="utf-8"))
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        say(f"{path.name}: the frame store is damaged ({error}) and is built anew")
        return None
    expected = _about(dataset, size)
    known = about if isinstance(about, dict) else {}
    if pixels.shape != tuple(expected["shape"]) or pixels.dtype != np.uint8 or {key: known.get(key) for key in expected} != expected:
        say(f"{path.name}: the frame store does not fit the data set and is built anew")
        return None
    plain = np.asarray(pixels)
    written = known.get("file") == _file_facts(path)
    if verify != "never":
        wrong = _wrong_block(plain, known.get("blocks"), some=verify == "auto" and written)
        if wrong is not None:
            say(f"{path.name}: the frame store was changed after it was written ({wrong}) and is built anew")
            return None
        if not written and os.access(path.parent, os.W_OK):
            write_json(sidecar, {**known, "file": _file_facts(path)})  # a copy, say: found sound once, it need not be read whole again
    return FrameStore(plain, size, path, pixels.offset, str(known.get("sha256")), frame_boxes(dataset.frames, size))


def _about(dataset: DataSet, size: int) -> dict[str, Any]:
    return {"store_version": STORE_VERSION, "dataset_digest": dataset.digest, "shape": [len(dataset.frames), size, size]}


def _file_facts(path: Path) -> dict[str, int]:
    """What changes when a file is edited in the usual ways."""
    facts = path.stat()
    return {"bytes": facts.st_size, "modified_ns": facts.st_mtime_ns}


def _wrong_block(pixels: np.ndarray, hashes: Any, *, some: bool) -> str | None:
    """Which block of a store does not have its hash, for people; None = all that were looked at have theirs."""
    count = -(-len(pixels) // FRAMES_PER_BLOCK)
    if not isinstance(hashes, list) or len(hashes) != count:
        return "its hashes are missing"
    looked_at = range(count)
    if some and count > _BLOCKS_LOOKED_AT:
        looked_at = np.linspace(0, count - 1, _BLOCKS_LOOKED_AT).astype(int).tolist()

    def block_sha256(block: int) -> str:
        return hashlib.sha256(np.ascontiguousarray(pixels[block * FRAMES_PER_BLOCK : (block + 1) * FRAMES_PER_BLOCK]).data).hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block, found in zip(looked_at, pool.map(block_sha256, looked_at), strict=True):
            if found != hashes[block]:
                return f"frames {block * FRAMES_PER_BLOCK} to {min(len(pixels), (block + 1) * FRAMES_PER_BLOCK) - 1}"
    return None


def _sha256_of(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(hashes).encode("ascii")).hexdigest()


def _build(path: Path, dataset: DataSet, size: int, threads: int) -> None:
    """Decode every frame and write the store: plain writes in the order of the rows, so a full disk is an error and not a signal."""
    about = _about(dataset, size)
    needed, free = len(dataset.frames) * size * size + _SMALL_FILES_BYTES, shutil.disk_usage(path.parent).free
    if needed > free:
        reason = f"the frame store takes {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free on its disk"
        raise UserError(path, reason, "free some space, or name another folder with --set store.folder=DIR")
    hashes: list[str] = []
    opencv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": tuple(about["shape"])}
            np.lib.format.write_array_header_1_0(file, header)
            for block in _decoded_blocks(dataset, size, threads):
                file.write(block.data)
                hashes.append(hashlib.sha256(block.data).hexdigest())
    finally:
        cv2.setNumThreads(opencv_threads)
    write_json(path.with_suffix(".json"), {**about, "sha256": _sha256_of(hashes), "blocks": hashes, "file": _file_facts(path)})


def _decoded_blocks(dataset: DataSet, size: int, threads: int) -> Iterator[np.ndarray]:
    paths = [image_path(dataset, name) for name in dataset.frames["path"]]

    def decode(path: Path) -> np.ndarray:
        return resize(read_gray(path), size)

    with ThreadPoolExecutor(threads) as pool, progress(f"decoding frames to {size}x{size}", len(paths), "frames") as advance:
        blocks = (paths[start : start + FRAMES_PER_BLOCK] for start in range(0, len(paths), FRAMES_PER_BLOCK))
        following: Iterator[np.ndarray] | None = pool.map(decode, next(blocks))
        while following is not None:
            # The next block is decoded while this one is hashed and written.
            frames, block = following, next(blocks, None)
            following = pool.map(decode, block) if block is not None else None
            yield (decoded := np.stack(list(frames)))
            advance(len(decoded))


def image_path(dataset: DataSet, name: str) -> Path:
    """Where an image of the manifest lies.

    Raises:
        DataSetError: It would be outside the data set.
    """
    if not is_inside(name):
        raise DataSetError(dataset.folder, f"its manifest names an image outside the set ({name})", "do not use this data set")
    return dataset.folder / name
