"""How sharply a clip's picture ends along the edges of a shape: a shadow fades out over many pixels, a scanner's mask does not."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle

Floats = NDArray[np.float32]

EDGES = ("left", "right", "near", "far")
CUTS = ("cut_left", "cut_right", "cut_top", "cut_bottom")
LEAST_EDGE = 0.2  # of an edge: what is left of one that is cut off to a smaller part is no edge
ALONG = np.linspace(0.08, 0.92, 32, dtype=np.float32)  # places along an edge where its sharpness is read
ACROSS = np.array([-10, -8, -6, -3, -2, 2, 3, 4], np.float32)  # working pixels outwards: three deep inside, two just inside, three outside

_Line = tuple[Floats, Floats, Floats, Floats]  # x and y of points on an edge, and the unit vectors that lead outwards there


def edge_sharpness(geometry: Geometry, level: Floats) -> dict[str, float]:
    """For each edge, how sharply the picture ends there: 1 = from full brightness to the ground within 3 working pixels.

    The level in a band just inside the edge less that in one just outside, over that deeper inside; medians along the edge. A shadow or an
    end of penetration fades out over many pixels; a scanner's mask does not. An edge that is the picture's own is sharp by definition.

    Args:
        geometry: In working pixels.
        level: Mean gray level over time, less the ground's, absolute; (H, W).

    Returns:
        left, right, near and far; of a sector that a box cuts also cut_left, cut_right, cut_top and cut_bottom; those that exist.
    """
    lines = _outline(geometry)
    at_x, at_y, out_x, out_y = (np.stack(part)[:, None, :] for part in zip(*lines.values(), strict=True))
    x, y = at_x + ACROSS[:, None] * out_x, at_y + ACROSS[:, None] * out_y
    flat = cv2.remap(level, x.reshape(len(lines), -1), y.reshape(len(lines), -1), cv2.INTER_LINEAR, borderValue=-1000.0)
    sampled = flat.reshape(x.shape)
    deep, just, outside = (sampled[:, part].mean(axis=1) for part in (np.s_[:3], np.s_[3:5], np.s_[5:]))
    exists = _on_outline(geometry, at_x[:, 0], at_y[:, 0])
    at_border = (outside < -100) & exists
    usable = (deep > 3) & (sampled[:, :5].min(axis=1) > -100) & exists
    share = np.clip((just - outside) / np.maximum(deep, 3), 0, 1)
    found = {}
    for place, edge in enumerate(lines):
        points = np.count_nonzero(exists[place])
        if points < LEAST_EDGE * len(ALONG):
            continue
        chosen = share[place][usable[place] & ~at_border[place]]
        if np.count_nonzero(at_border[place]) > 0.5 * points:
            found[edge] = 1.0
        elif chosen.size < 4:
            found[edge] = 0.0
        else:
            # The sharper half of the edge decides, if enough of the edge shows anything at all.
            sharp = float(np.sort(chosen)[round(0.6 * (chosen.size - 1))])
            found[edge] = sharp * min(1.0, 2.5 * float(np.count_nonzero(usable[place])) / points)
    return found


def sharp_edges(geometry: Geometry, level: Floats, least: float) -> list[tuple[Floats, Floats]]:
    """Points (x, y) along the edges of a shape that are at least so sharp, within the picture; arguments as in `edge_sharpness`."""
    lines = _outline(geometry)
    exists = dict(zip(lines, _on_outline(geometry, *(np.stack([line[axis] for line in lines.values()]) for axis in (0, 1))), strict=True))
    found = []
    for edge, sharpness in edge_sharpness(geometry, level).items():
        x, y = lines[edge][:2]
        within = exists[edge] & (x >= 0) & (y >= 0) & (x <= level.shape[1] - 1) & (y <= level.shape[0] - 1)
        if sharpness >= least and within.any():
            found.append((x[within].astype(np.float32), y[within].astype(np.float32)))
    return found


def _outline(geometry: Geometry) -> dict[str, _Line]:
    """Points ALONG each edge."""
    if isinstance(geometry, Rectangle):
        return dict(zip(EDGES, _sides(geometry), strict=True))
    left, right = math.radians(geometry.angle_left_deg), math.radians(geometry.angle_right_deg)
    one = np.ones_like(ALONG)
    r = (geometry.radius_inner + ALONG * (geometry.radius_outer - geometry.radius_inner)).astype(np.float32)
    lines: dict[str, _Line] = {}
    for edge, angle, sign in (("left", left, -1), ("right", right, 1)):
        x, y = geometry.apex_x + r * math.sin(angle), geometry.apex_y + r * math.cos(angle)
        lines[edge] = x, y, one * (sign * math.cos(angle)), one * (-sign * math.sin(angle))
    angles = left + ALONG * (right - left)
    sin, cos = np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)
    for edge, radius, sign in (("near", geometry.radius_inner, -1), ("far", geometry.radius_outer, 1)):
        lines[edge] = geometry.apex_x + radius * sin, geometry.apex_y + radius * cos, sign * sin, sign * cos
    if geometry.clip is not None:
        lines |= dict(zip(CUTS, _sides(geometry.clip), strict=True))
    return lines


def _sides(box: Rectangle) -> list[_Line]:
    """Left, right, upper and lower side."""
    one = np.ones_like(ALONG)
    left, top, right, bottom = box.x - 0.5, box.y - 0.5, box.x + box.width - 0.5, box.y + box.height - 0.5
    across, down = left + ALONG * (right - left), top + ALONG * (bottom - top)
    return [
        (one * left, down, -one, one * 0),
        (one * right, down, one, one * 0),
        (across, one * top, one * 0, -one),
        (across, one * bottom, one * 0, one),
    ]


def _on_outline(geometry: Geometry, x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Which of the points of `_outline`, (edges, points), lie on the shape's own outline: a box cuts edges off, and itself ends at them."""
    exists = np.ones(x.shape, bool)
    if not isinstance(geometry, AnnulusSector) or geometry.clip is None:
        return exists
    box = geometry.clip
    exists[:4] = (np.abs(x[:4] - box.x + 0.5 - box.width / 2) < box.width / 2) & (
        np.abs(y[:4] - box.y + 0.5 - box.height / 2) < box.height / 2
    )
    right, down = x[4:] - geometry.apex_x, y[4:] - geometry.apex_y
    radius, angle = np.hypot(right, down), np.degrees(np.arctan2(right, down))
    exists[4:] = (radius > geometry.radius_inner + 2) & (radius < geometry.radius_outer - 2)
    exists[4:] &= (angle > geometry.angle_left_deg + 0.5) & (angle < geometry.angle_right_deg - 0.5)
    return exists
