"""Still images: one file is a clip of one frame, a folder of them a clip in the order of the numbers in their names.

In: PNG, JPEG, TIFF, BMP, WebP. Out: uint8 frames without time. Guarantees: EXIF orientation applied, 16 bit divided by 257 (so that 65535
becomes 255), transparency on black; a TIFF of several pages is a clip of them, other files of several pictures are refused rather than
cut to the first.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from usdata.errors import ReadError
from usdata.readers.base import Clip, ClipInfo, Decoded, check_size
from usdata.readers.identify import STILL_KINDS, identify
from usdata.readers.naming import missing_numbers, natural_order, sequence_pattern
from usdata.readers.video import on_black

_ADVICE = "get the file again, or leave it out"
_OPENCV_NO_MEMORY = -4  # cv::Error::StsNoMem
# What Pillow lets through of a damaged header, its own error and those of the modules it parses with.
_HEADER_ERRORS = (Image.DecompressionBombError, OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, struct.error)


def open_still(path: Path, kind: str, *, colour: bool) -> Clip:
    """A clip of one frame; of a TIFF of several pages, a clip of its pages.

    Raises:
        ReadError: The image is damaged, too large, or one of several in a file that is no TIFF.
    """
    if kind == "tiff" and _checked_header(path)[2] > 1:
        return PagesClip(path, colour=colour)
    return StillsClip(path, {path: kind}, container=kind, colour=colour)


def open_folder(path: Path, *, colour: bool) -> Clip:
    """A clip of the images that lie directly in a folder (hidden files and other kinds of file are passed over).

    Raises:
        ReadError: No image lies in it, or none can be read.
    """
    try:
        files = [each for each in path.iterdir() if not each.name.startswith(".") and each.is_file()]
        kinds = {each: identify(each) for each in sorted(files, key=natural_order)}
    except OSError as error:
        raise ReadError(path, f"cannot be read: {error.strerror or error}", "check the permissions and the disk") from error
    images = {each: kind for each, kind in kinds.items() if kind in STILL_KINDS}
    if not images:
        advice = "name a video, an image, or a folder of PNG, JPEG, TIFF, BMP or WebP files"
        raise ReadError(path, "is a folder with no image directly in it", advice)
    return StillsClip(path, images, container="folder", colour=colour)


def open_sequence(pattern: Path, *, colour: bool) -> Clip:
    """A clip of the images of one folder whose names differ in one number alone.

    Args:
        pattern: A path whose name holds '#' in place of that number: `scan/left_#.png`.
        colour: True for RGB frames.

    Raises:
        ReadError: No such image lies there, or none can be read.
    """
    try:
        images = _images_of(pattern)
    except OSError as error:
        raise ReadError(pattern, f"cannot be read: {error.strerror or error}", "check the path") from error
    if not images:
        raise ReadError(pattern, "no image has such a name with a number in place of '#'", "check the path")
    return StillsClip(pattern, images, container="folder", colour=colour)


def sizes_in_sequence(pattern: Path) -> set[tuple[int, int]]:
    """The different widths and heights that the headers of a sequence's images give; images without a readable header are passed over."""
    sizes = set()
    for image in _images_of(pattern):
        try:
            sizes.add(_check_header(image))
        except ReadError:  # reading the clip will count it
            continue
    return sizes


def _images_of(pattern: Path) -> dict[Path, str]:
    names = [each for each in pattern.parent.iterdir() if sequence_pattern(each.name) == pattern.name and each.is_file()]
    kinds = {each: identify(each) for each in sorted(names, key=natural_order)}
    return {each: kind for each, kind in kinds.items() if kind in STILL_KINDS}


def read_still(path: Path) -> np.ndarray:
    """One image as uint8: (height, width) if it is stored in gray, (height, width, 3) RGB if it is stored in colour.

    Raises:
        ReadError: The image is damaged, too large, or one of several in the file.
    """
    _check_header(path)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if pixels is not None and not (pixels.ndim == 3 and pixels.shape[2] == 4):
            # Only these flags apply the EXIF orientation; an image with transparency has to keep its fourth channel and goes without.
            pixels = cv2.imdecode(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error as error:
        if error.code == _OPENCV_NO_MEMORY:
            raise MemoryError from error
        raise ReadError(path, f"the image does not decode: {error.err}", _ADVICE) from error
    if pixels is None:
        raise ReadError(path, "the image does not decode: it is damaged or cut short", _ADVICE)
    pixels = _to_uint8(path, pixels)
    if pixels.ndim == 2:
        return pixels
    return on_black(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)) if pixels.shape[2] == 4 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


class StillsClip(Clip):
    """One image or an ordered list of them, decoded one at a time."""

    def __init__(self, path: Path, images: dict[Path, str], *, container: str, colour: bool) -> None:
        super().__init__(path)
        self._colour = colour
        self._images = list(images)
        if len(images) > 1:
            self.missing_indices = missing_numbers([image.stem for image in images])
        # The first that decodes gives the size; those before it are counted here and not tried again.
        self._next = 0
        self._first: np.ndarray | None = None
        while self._first is None and self._next < len(images):
            self._first = self._read(self._next)
            self._next += 1
        if self._first is None:
            reason = self.first_error if len(images) == 1 else f"none of its {len(images)} images decodes ({self.first_error})"
            raise ReadError(path, reason or "", _ADVICE)
        height, width = self._first.shape[:2]
        codec = "+".join(sorted(set(images.values())))
        self.info = ClipInfo(container, codec, None, width, height, None, len(images), None, "stills")

    def _read(self, number: int) -> np.ndarray | None:
        # Names of images reach no manifest, and neither do they by way of an error.
        which = f"image {number + 1} of {len(self._images)}: " if len(self._images) > 1 else ""
        try:
            return read_still(self._images[number])
        except ReadError as error:
            self._count_error(f"{which}{error.reason}")
        except OSError as error:
            self._count_error(f"{which}cannot be read: {error.strerror or error}")
        return None

    def _decode(self) -> Iterator[Decoded]:
        if self._first is not None:
            yield _delivered(self._first, colour=self._colour)
            self._first = None
        for number in range(self._next, len(self._images)):
            pixels = self._read(number)
            if pixels is not None:
                yield _delivered(pixels, colour=self._colour)

    def close(self) -> None:
        self._first = None
        self._images = []


def _delivered(pixels: np.ndarray, *, colour: bool) -> Decoded:
    if colour:
        return Decoded(None, pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))
    if pixels.ndim == 2:
        return Decoded(None, pixels)
    return Decoded(None, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), rgb=partial(np.asarray, pixels))


class PagesClip(Clip):
    """The pages of a TIFF, decoded one at a time."""

    def __init__(self, path: Path, *, colour: bool) -> None:
        super().__init__(path)
        self._colour = colour
        width, height, pages = _checked_header(path)
        self._image = Image.open(path, formats=("TIFF",))
        self.info = ClipInfo("tiff", "tiff", self._image.mode, width, height, None, pages, None, "stills")
        self._first = self._page(0)
        if self._first is None:
            self.close()
            raise ReadError(path, f"its first page does not decode ({self.first_error})", _ADVICE)

    def _page(self, number: int) -> np.ndarray | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._image.seek(number)
                check_size(self.path, *self._image.size)
                image = self._image if self._image.mode in ("L", "I;16", "I;16B", "RGB") else self._image.convert("RGB")
                return _to_uint8(self.path, np.asarray(image))
            except _HEADER_ERRORS as error:
                self._count_error(f"page {number + 1} of {self.info.frames_declared}: {error}")
            except ReadError as error:
                self._count_error(f"page {number + 1} of {self.info.frames_declared}: {error.reason}")
        return None

    def _decode(self) -> Iterator[Decoded]:
        for number in range(self.info.frames_declared or 0):
            pixels = self._first if number == 0 else self._page(number)
            if pixels is not None:
                yield _delivered(pixels, colour=self._colour)

    def close(self) -> None:
        self._first = None
        self._image.close()


def _check_header(path: Path) -> tuple[int, int]:
    """Refuse absurd sizes and files of several pictures by the header alone, before a picture is decoded; the width and height it gives."""
    width, height, pictures = _checked_header(path)
    if pictures > 1:
        raise ReadError(
            path,
            f"holds {pictures} pictures in one file, and reading only the first would lose the rest",
            "save them as a folder of images or as a video",
        )
    return width, height


def _checked_header(path: Path) -> tuple[int, int, int]:
    """Width, height and the number of pictures."""
    with warnings.catch_warnings():
        # Pillow warns of large images; the limit here is our own and is checked next.
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP", "WEBP")) as image:
                width, height = image.size
                pictures = getattr(image, "n_frames", 1) if image.format in ("TIFF", "WEBP", "PNG") else 1
        except _HEADER_ERRORS as error:
            raise ReadError(path, f"the image's header cannot be read: {error}", _ADVICE) from error
    check_size(path, width, height)
    return width, height, pictures


def _to_uint8(path: Path, pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        # 65535 = 255 × 257, so this is the exact scale, rounded to nearest.
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    raise ReadError(path, f"its pixels are {pixels.dtype}; only 8 and 16 bit unsigned ones have a known scale", "convert it to PNG first")
