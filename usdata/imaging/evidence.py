"""What a clip shows over time, pixel by pixel: evenly spaced unique frames, small, and what moves, what is lit, what is coloured in them.

Frames come in one forward pass whose length nobody knows for certain. A frame is kept each 1, 2, 4, ... frames: whenever there are too
many, every second one is dropped. So at the end between half and all of the places are taken, evenly over the whole clip, whatever its
length (fewer only where much less came than the container said). Key frames, twice as many, are kept in the same way beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.geometry import Geometry

MOST_FRAMES = 24
WORKING_SIDE = 320  # pixels: pictures are reduced by the least whole factor that makes their longer side no longer than this


@dataclass(frozen=True)
class Evidence:
    """Maps of one clip at working size, (H, W) each; a working pixel is the mean of factor × factor source pixels.

    Attributes:
        factor: Source pixels a working pixel, along each side.
        height: Of the source picture.
        width: Of the source picture.
        frames: How many frames the maps are made of.
        activity: Mean absolute difference in gray levels between neighbouring frames of the sample, float32; 0 with fewer than two.
        brightest: Highest gray level over time, uint8.
        darkest: Lowest gray level over time, uint8.
        mean: Mean gray level over time, float32.
        chroma: Largest minus smallest colour component, the greatest over some frames, uint8; None where nothing is coloured.
        coloured: Of those frames the one with the most colour, (H, W, 3) RGB uint8; None where nothing is coloured.
    """

    factor: int
    height: int
    width: int
    frames: int
    activity: NDArray[np.float32]
    brightest: NDArray[np.uint8]
    darkest: NDArray[np.uint8]
    mean: NDArray[np.float32]
    chroma: NDArray[np.uint8] | None
    coloured: NDArray[np.uint8] | None = None

    def at_working_size(self, geometry: Geometry) -> Geometry:
        """A shape in source pixels, in working pixels."""
        return geometry.scaled(1 / self.factor, 1 / self.factor)

    def mask_of(self, geometry: Geometry) -> NDArray[np.bool_]:
        """Mask of a shape in source pixels, at working size, (H, W)."""
        return self.at_working_size(geometry).mask(*self.mean.shape)


class EvidenceCollector:
    """Takes the unique frames of a clip in order; `evidence` is what they show.

    Attributes:
        darkest: Lowest gray level over the frames that were kept at some time, (H, W) uint8 at the source's size; None before the first.
        brightest: Likewise the highest.
        frames_seen: How many these were.
    """

    def __init__(self, expected: int | None = None) -> None:
        """Begin.

        Args:
            expected: Frames that are likely to come, so that fewer are looked at in vain; it may be wrong.
        """
        self.darkest: NDArray[np.uint8] | None = None
        self.brightest: NDArray[np.uint8] | None = None
        self.frames_seen = 0
        # The greatest power of two that still leaves more than MOST_FRAMES.
        self._stride = 1 << max(0, ((expected or 1) // MOST_FRAMES).bit_length() - 1)
        self._offered = 0
        self._kept: list[tuple[int, int, NDArray[np.uint8]]] = []  # position, index, picture of each key frame
        self._in_sample = 0
        self._chroma: NDArray[np.uint8] | None = None
        self._coloured: NDArray[np.uint8] | None = None
        self._most_colour = -1
        self._shape: tuple[int, int] | None = None
        self._factor = 1

    def offer(self, pixels: NDArray[np.uint8], picture: Callable[[], NDArray[np.uint8]], index: int = 0) -> None:
        """See one frame.

        Args:
            pixels: (H, W) uint8.
            picture: Makes the frame in colour if it is looked at, (H, W, 3), or (H, W) where it is gray for certain; asked for the 1st,
                5th, 33rd, 257th, ... frame.
            index: Its frame_index, which `key_frames` gives back.
        """
        position = self._offered
        self._offered += 1
        if self._shape is None:
            self._shape = pixels.shape[0], pixels.shape[1]
            self._factor = max(1, -(-max(self._shape) // WORKING_SIDE))
        if position == 0 or (position & (position - 1) == 0 and position.bit_length() % 3 == 0):
            self._see_colour(picture())
        sampled = position % self._stride == 0
        if sampled and self._in_sample == MOST_FRAMES:
            self._stride *= 2
            self._kept = [kept for kept in self._kept if kept[0] % self._key_stride == 0]
            self._in_sample = len(self.frames)
            sampled = position % self._stride == 0
        if position % self._key_stride:
            return
        self._kept.append((position, index, self._reduced(pixels)))
        if not sampled:
            return
        self._in_sample += 1
        self.frames_seen += 1
        if self.darkest is None or self.brightest is None:
            self.darkest, self.brightest = pixels.copy(), pixels.copy()
        else:
            cv2.min(self.darkest, pixels, dst=self.darkest)
            cv2.max(self.brightest, pixels, dst=self.brightest)

    def _reduced(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        factor = self._factor
        if factor == 1:
            return pixels.copy()
        height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
        # Rows and columns that are left over at the end are less than one working pixel.
        whole = pixels[: height * factor, : width * factor]
        return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def _see_colour(self, picture: NDArray[np.uint8]) -> None:
        if picture.ndim == 2:
            return
        red, green, blue = (self._reduced(np.ascontiguousarray(channel)) for channel in cv2.split(picture))
        chroma = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
        self._chroma = np.asarray(chroma if self._chroma is None else cv2.max(self._chroma, chroma), np.uint8)
        amount = int(cv2.sumElems(chroma)[0])
        if amount > self._most_colour:
            self._most_colour, self._coloured = amount, np.asarray(cv2.merge([red, green, blue]), np.uint8)

    @property
    def _key_stride(self) -> int:
        return max(1, self._stride // 2)

    @property
    def frames(self) -> list[NDArray[np.uint8]]:
        """The sample, (H, W) uint8 at working size, in order of time."""
        return [picture for position, _, picture in self._kept if position % self._stride == 0]

    @property
    def key_frames(self) -> tuple[list[int], list[NDArray[np.uint8]]]:
        """Up to twice as many: their indices, and (H, W) uint8 at working size."""
        return [index for _, index, _ in self._kept], [picture for _, _, picture in self._kept]

    @property
    def evidence(self) -> Evidence | None:
        """The maps; None where no frame was seen."""
        frames = self.frames
        if not frames or self._shape is None:
            return None
        first = frames[0]
        brightest, darkest = first.copy(), first.copy()
        total = first.astype(np.float32)
        moved = np.zeros(first.shape, np.float32)
        for before, frame in pairwise(frames):
            cv2.max(brightest, frame, dst=brightest)
            cv2.min(darkest, frame, dst=darkest)
            cv2.accumulate(frame, total)
            cv2.accumulate(cv2.absdiff(frame, before), moved)
        count = len(frames)
        return Evidence(
            factor=self._factor,
            height=self._shape[0],
            width=self._shape[1],
            frames=count,
            activity=moved / np.float32(max(count - 1, 1)),
            brightest=brightest,
            darkest=darkest,
            mean=total / np.float32(count),
            chroma=self._chroma,
            coloured=self._coloured,
        )
