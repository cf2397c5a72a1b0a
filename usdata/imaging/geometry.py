"""The shape of a field of view: a rectangle, or the sector of an annulus that convex and phased probes give.

Pixel centres have whole coordinates; x runs to the right, y down. Angles are in degrees from straight down, positive to the right. Either
shape can be drawn as a mask, outlined as a polygon, moved and scaled (from source to stored pixels), and written as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARC_STEP_DEG = 2.0  # corners along an arc: a chord of 2 degrees lies within 0.02 % of the radius


@dataclass(frozen=True)
class Rectangle:
    """A box of whole pixels in every case but after scaling: the pixels x <= column < x + width, y <= row < y + height."""

    x: float
    y: float
    width: float
    height: float

    kind = "rectangle"

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """(height, width): the pixels whose centres lie inside."""
        columns, rows = np.arange(width), np.arange(height)
        inside_x = (columns > self.x - 0.5 - 1e-6) & (columns < self.x + self.width - 0.5 - 1e-6)
        inside_y = (rows > self.y - 0.5 - 1e-6) & (rows < self.y + self.height - 0.5 - 1e-6)
        return np.asarray(inside_y[:, None] & inside_x[None, :])

    def polygon(self) -> list[tuple[float, float]]:
        """Corners (x, y), clockwise from the upper left; outer edges of the pixels."""
        left, top, right, bottom = self.x - 0.5, self.y - 0.5, self.x + self.width - 0.5, self.y + self.height - 0.5
        return [(left, top), (right, top), (right, bottom), (left, bottom)]

    def moved(self, right: float, down: float) -> Rectangle:
        """The same shape elsewhere."""
        return replace(self, x=self.x + right, y=self.y + down)

    def scaled(self, scale_x: float, scale_y: float) -> Rectangle:
        """The shape in a picture that was resized by these factors (edges, not centres, are what scales)."""
        x, y = (self.x * scale_x, self.y * scale_y)
        return Rectangle(x, y, self.width * scale_x, self.height * scale_y)


@dataclass(frozen=True)
class AnnulusSector:
    """The part of a ring between two radii around an apex that lies between two angles, cut by a box where `clip` is given.

    Attributes:
        apex_x: Pixels; the apex may lie outside the picture.
        apex_y: Pixels.
        radius_inner: Pixels: the probe's face; 0 for a plain sector.
        radius_outer: Pixels: the greatest depth.
        angle_left_deg: Degrees from straight down, negative to the left.
        angle_right_deg: Degrees from straight down.
        clip: What the scanner shows of it, where it shows less.
    """

    apex_x: float
    apex_y: float
    radius_inner: float
    radius_outer: float
    angle_left_deg: float
    angle_right_deg: float
    clip: Rectangle | None = None

    kind = "annulus_sector"

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """(height, width): the pixels whose centres lie inside."""
        right = np.arange(width, dtype=np.float32)[None, :] - np.float32(self.apex_x)
        down = np.arange(height, dtype=np.float32)[:, None] - np.float32(self.apex_y)
        squared = right * right + down * down
        inside = (squared >= self.radius_inner**2) & (squared <= self.radius_outer**2)
        left, last = math.radians(self.angle_left_deg), math.radians(self.angle_right_deg)
        # On the right of the left edge and on the left of the right edge: half planes, as the sector spans less than half a turn.
        inside &= right * math.cos(left) - down * math.sin(left) >= 0
        inside &= right * math.cos(last) - down * math.sin(last) <= 0
        if self.clip is not None:
            inside &= self.clip.mask(height, width)
        return np.asarray(inside)

    def polygon(self) -> list[tuple[float, float]]:
        """Corners (x, y): along the outer arc from left to right and back along the inner one; cut by the clip box."""
        span = self.angle_right_deg - self.angle_left_deg
        angles = np.radians(np.linspace(self.angle_left_deg, self.angle_right_deg, max(2, math.ceil(span / ARC_STEP_DEG) + 1)))
        outer = [(self.apex_x + self.radius_outer * math.sin(a), self.apex_y + self.radius_outer * math.cos(a)) for a in angles]
        inner = [(self.apex_x + self.radius_inner * math.sin(a), self.apex_y + self.radius_inner * math.cos(a)) for a in angles[::-1]]
        corners = outer + (inner if self.radius_inner > 0 else [(self.apex_x, self.apex_y)])
        return corners if self.clip is None else clipped(corners, self.clip)

    def moved(self, right: float, down: float) -> AnnulusSector:
        """The same shape elsewhere."""
        clip = None if self.clip is None else self.clip.moved(right, down)
        return replace(self, apex_x=self.apex_x + right, apex_y=self.apex_y + down, clip=clip)

    def scaled(self, scale_x: float, scale_y: float) -> AnnulusSector:
        """The shape in a picture that was resized; both factors are nearly equal there, and their mean scales the radii."""
        scale = (scale_x + scale_y) / 2
        return AnnulusSector(
            (self.apex_x + 0.5) * scale_x - 0.5,
            (self.apex_y + 0.5) * scale_y - 0.5,
            self.radius_inner * scale,
            self.radius_outer * scale,
            self.angle_left_deg,
            self.angle_right_deg,
            None if self.clip is None else self.clip.scaled(scale_x, scale_y),
        )


Geometry = Rectangle | AnnulusSector


def box_of(geometry: Geometry, height: int, width: int) -> tuple[int, int, int, int]:
    """The smallest box (x, y, width, height) of whole pixels around a shape, within a picture of this size; widths are at least 1."""
    corners = np.asarray(geometry.polygon())
    if isinstance(geometry, AnnulusSector) and geometry.angle_left_deg < 0 < geometry.angle_right_deg:
        lowest = geometry.apex_y + geometry.radius_outer
        if geometry.clip is not None:
            lowest = min(lowest, geometry.clip.y + geometry.clip.height - 0.5)
        corners = np.vstack([corners, [corners[0, 0], lowest]])
    # 0.001: an edge of a whole pixel (k - 0.5) must not take the next one by a rounding error.
    left, top = (max(0, math.ceil(value - 0.5 - 1e-3 + 0.5)) for value in corners.min(axis=0))
    right, bottom = (math.floor(value + 1e-3) for value in corners.max(axis=0))
    left, top = min(left, width - 1), min(top, height - 1)
    right, bottom = max(left, min(right, width - 1)), max(top, min(bottom, height - 1))
    return left, top, right - left + 1, bottom - top + 1


def overlap(a: Geometry, b: Geometry, height: int, width: int) -> float:
    """Intersection over union of two shapes in a picture of this size; 0 where both are empty."""
    first, second = a.mask(height, width), b.mask(height, width)
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 0.0


def geometry_json(geometry: Geometry) -> str:
    """Parameters as JSON, with the kind; rounded to 0.01 pixels and degrees, so that equal pictures give equal text everywhere."""
    return json.dumps({"kind": geometry.kind, **_rounded(asdict(geometry))}, sort_keys=True)


def polygon_json(geometry: Geometry) -> str:
    """The outline's corners [[x, y], ...] as JSON, rounded to 0.1 pixels."""
    return json.dumps([[round(x, 1) + 0.0, round(y, 1) + 0.0] for x, y in geometry.polygon()])


def geometry_from(parameters: Mapping[str, Any] | str) -> Geometry:
    """A shape from its parameters, as `geometry_json` writes them.

    Raises:
        ValueError: The kind is unknown, a parameter is missing, unknown or no number, or the shape is empty.
    """
    given = json.loads(parameters) if isinstance(parameters, str) else parameters
    if not isinstance(given, Mapping):
        raise ValueError(f"no geometry: {given!r} (a mapping with a kind is)")
    values = dict(given)
    kind = values.pop("kind", None)
    _check_numbers(values)
    try:
        if kind == Rectangle.kind:
            box = Rectangle(**{key: float(value) for key, value in values.items()})
            made: Geometry = box
            empty = box.width <= 0 or box.height <= 0
        elif kind == AnnulusSector.kind:
            clip = values.pop("clip", None)
            sector = AnnulusSector(
                **{key: float(value) for key, value in values.items()},
                clip=None if clip is None else Rectangle(**{key: float(value) for key, value in clip.items() if key != "kind"}),
            )
            made = sector
            empty = not (0 <= sector.radius_inner < sector.radius_outer and -90 <= sector.angle_left_deg < sector.angle_right_deg <= 90)
        else:
            raise ValueError(f"no kind of field of view: {kind!r} (rectangle or annulus_sector)")
    except TypeError as error:
        wanted = ", ".join(field.name for field in fields(Rectangle if kind == Rectangle.kind else AnnulusSector))
        raise ValueError(f"{_named(kind)} has other parameters: {wanted}") from error
    if empty:
        raise ValueError(f"{_named(kind)} without any area")
    return made


def _named(kind: str) -> str:
    return "a rectangle" if kind == Rectangle.kind else "an annulus_sector"


def _check_numbers(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            _check_numbers({name: part for name, part in value.items() if name != "kind"})
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"'{key}' is no number: {value!r}")


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    rounded = {}
    for key, value in values.items():
        if value is None:
            continue
        rounded[key] = _rounded(value) if isinstance(value, Mapping) else round(float(value), 2) + 0.0
    return rounded


def clipped(corners: list[tuple[float, float]], box: Rectangle) -> list[tuple[float, float]]:
    """A polygon cut by a box (Sutherland and Hodgman 1974), edge after edge."""
    left, top, right, bottom = box.x - 0.5, box.y - 0.5, box.x + box.width - 0.5, box.y + box.height - 0.5
    for axis, bound, sign in ((0, left, 1), (0, right, -1), (1, top, 1), (1, bottom, -1)):
        cut: list[tuple[float, float]] = []
        for place, corner in enumerate(corners):
            before = corners[place - 1]
            inside, was_inside = sign * (corner[axis] - bound) >= 0, sign * (before[axis] - bound) >= 0
            if inside != was_inside:
                share = (bound - before[axis]) / (corner[axis] - before[axis])
                cut.append((before[0] + share * (corner[0] - before[0]), before[1] + share * (corner[1] - before[1])))
            if inside:
                cut.append(corner)
        corners = cut
        if not corners:
            break
    return corners
