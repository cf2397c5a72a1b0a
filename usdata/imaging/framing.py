"""How a frame is stored: cropped to the field of view's box, masked to its shape, shrunk; and where the field of view then lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.geometry import Geometry, box_of

Crop = Literal["none", "box", "mask"]
Paint = Literal["keep", "black", "inpaint"]
INPAINT_RADIUS = 3  # pixels


@dataclass(frozen=True)
class Framing:
    """One clip's way from source pixels to stored pixels.

    Attributes:
        height: Of the source picture.
        width: Of the source picture.
        geometry: The field of view in source pixels; None where there is none: then nothing is cropped.
        crop: none: the whole picture; box: the field of view's box; mask: that, with everything outside the shape black.
        max_side: Longest side of a stored picture; None keeps the size.
        margin: Source pixels along the field of view's edge that a mask makes black too: the edge is known to about one, and what a name
            beside it leaves there must not leave.
        overlays: (H, W), where letters and graphics lie over the tissue, in source pixels; None: nowhere.
        paint: What becomes of them: keep, black, or inpaint (from what lies around, Telea 2004).
    """

    height: int
    width: int
    geometry: Geometry | None
    crop: Crop
    max_side: int | None
    margin: int = 0
    overlays: NDArray[np.bool_] | None = field(default=None, compare=False)
    paint: Paint = "keep"

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """What is cut out: x, y, width, height in source pixels."""
        if self.geometry is None or self.crop == "none":
            return 0, 0, self.width, self.height
        return box_of(self.geometry, self.height, self.width)

    @property
    def painted_over(self) -> NDArray[np.bool_] | None:
        """What must not be seen in anything that is kept, (H, W) in source pixels: overlays that are painted over or, in a release, all."""
        return self.overlays if self.paint != "keep" or self.margin else None

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of a stored picture."""
        _, _, width, height = self.box
        if self.max_side is None or max(width, height) <= self.max_side:
            return width, height
        scale = self.max_side / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    @cached_property
    def stored_geometry(self) -> Geometry | None:
        """The field of view in stored pixels."""
        if self.geometry is None:
            return None
        x, y, width, height = self.box
        return self.geometry.moved(-x, -y).scaled(self.size[0] / width, self.size[1] / height)

    @cached_property
    def stored_box(self) -> tuple[int, int, int, int] | None:
        """The field of view's box in stored pixels."""
        return None if self.stored_geometry is None else box_of(self.stored_geometry, self.size[1], self.size[0])

    @cached_property
    def inside(self) -> NDArray[np.uint8] | None:
        """Mask of the field of view at the stored size, 1 inside; None where there is none."""
        if self.stored_geometry is None:
            return None
        mask = self.stored_geometry.mask(self.size[1], self.size[0]).astype(np.uint8)
        return mask if mask.any() else None

    @cached_property
    def _source_mask(self) -> NDArray[np.uint8] | None:
        if self.geometry is None or self.crop != "mask":
            return None
        x, y, width, height = self.box
        mask = self.geometry.mask(self.height, self.width).astype(np.uint8)
        if self.margin:
            # Beyond the picture's own edge there is no name.
            mask = np.asarray(cv2.erode(mask, np.ones((2 * self.margin + 1,) * 2, np.uint8), borderValue=1), np.uint8)
        return mask[y : y + height, x : x + width]

    def stored_overlays(self) -> NDArray[np.uint8] | None:
        """Mask of the overlays at the stored size, 255 where one lies; None where there is none in what is stored."""
        if self.overlays is None:
            return None
        x, y, width, height = self.box
        cut = self.overlays[y : y + height, x : x + width].astype(np.uint8)
        if self._source_mask is not None:
            cut = np.asarray(cut * self._source_mask, np.uint8)
        # A stored pixel that any ink went into.
        shrunk = cv2.resize(cut * np.uint8(255), self.size, interpolation=cv2.INTER_AREA) if self.size != (width, height) else cut
        return np.where(shrunk > 0, np.uint8(255), np.uint8(0)) if shrunk.any() else None

    def stored(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A frame (H, W) uint8 as it is stored."""
        x, y, width, height = self.box
        if self.overlays is not None and self.paint == "black":
            pixels = np.where(self.overlays, np.uint8(0), pixels)
        elif self.overlays is not None and self.paint == "inpaint":
            # A pixel around the ink is half ink, as it was encoded.
            spot = cv2.dilate(self.overlays.astype(np.uint8), np.ones((3, 3), np.uint8))
            pixels = np.asarray(cv2.inpaint(pixels, spot, INPAINT_RADIUS, cv2.INPAINT_TELEA), np.uint8)
        cut = pixels[y : y + height, x : x + width]
        if self._source_mask is not None:
            cut = np.asarray(cut * self._source_mask, dtype=np.uint8)
        if self.size != (width, height):
            return np.asarray(cv2.resize(cut, self.size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        return np.ascontiguousarray(cut)
