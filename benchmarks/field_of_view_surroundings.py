"""How well the field of view is found below the surroundings of real scanners' screens: a second oracle, blind to the first.

    python benchmarks/field_of_view_surroundings.py DATA [--number 300] [--seed 1] [--sheet OUT.png]

DATA holds pocus_lung/ and covid_blues/. A third of the clips shows phantom tissue, the others a rectangle cut out of the moving tissue of a
real clip. It is bent into a sector, or pasted into a rectangle, of known geometry, on a screen such as GE, Philips, Siemens, Mindray,
Butterfly, Clarius, Lumify or an old PC system draw it; then encoded, read back and given to the estimator. Printed: overlap with the truth,
two simple rules beside it, and what the confidence is worth. A clip of which any edge is visible over less than 60 % of its length counts
in rows of its own ("dark flank" where a flank was blackened on purpose) and not in the others: nobody could outline it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import ImageFont

from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.field_of_view import ACCEPTED, estimate
from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle
from usdata.phantoms.clips import plan, render
from usdata.readers import open_clip

KINDS, TISSUES = ("convex", "phased", "linear"), ("phantom", "pocus_lung", "covid_blues")
CODECS = {"h264": ("libx264", "mp4", "yuv420p"), "mjpeg": ("mjpeg", "avi", "yuvj420p"), "mpeg4": ("mpeg4", "avi", "yuv420p")}
SIZES = ((320, 240), (384, 384), (480, 640), (640, 480), (720, 576), (800, 600), (1024, 768), (960, 720), (1280, 720), (1280, 960))
MOST_FRAMES, FEWEST_FRAMES, SEEN_LEVELS, SEEN_SHARE, GOOD = 60, 12, 8, 0.6, 0.9
Gray = NDArray[np.uint8]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Style:
    """What a maker's screen looks like: colours of panels and of the ground below the tissue, and on which side things stand."""

    name: str
    panel: Colour
    ground: int
    text: Colour
    accent: Colour
    facts: str  # where the parameters stand: left, right, row (below the banner)
    ruler: str  # left, right
    marker: str  # the letter at the probe's face; "" is a dot
    strip: str  # thumbnails or buttons: right, bottom or ""
    logo: str


STYLES = (
    Style("GE", (14, 14, 18), 0, (200, 200, 205), (120, 200, 255), "right", "right", "V", "bottom", "GE"),
    Style("Philips", (0, 0, 0), 0, (210, 210, 210), (60, 140, 255), "left", "right", "P", "", "PHILIPS"),
    Style("Siemens", (22, 24, 26), 4, (220, 190, 120), (255, 150, 40), "right", "left", "S", "right", "SIEMENS"),
    Style("Mindray", (44, 48, 56), 0, (225, 225, 225), (80, 190, 220), "row", "right", "M", "bottom", "mindray"),
    Style("Butterfly", (0, 0, 0), 0, (235, 235, 235), (70, 130, 255), "", "right", "", "", "Butterfly iQ"),
    Style("Clarius", (30, 32, 34), 10, (200, 210, 200), (60, 210, 140), "left", "left", "", "bottom", "CLARIUS"),
    Style("Lumify", (8, 10, 14), 0, (190, 200, 210), (0, 150, 220), "right", "right", "P", "bottom", "Lumify"),
    Style("PC", (206, 204, 198), 0, (30, 30, 40), (30, 60, 150), "left", "right", "", "right", "EchoView 2.1"),
    Style("PC dark", (62, 64, 68), 18, (215, 215, 215), (240, 200, 60), "right", "right", "*", "right", "SonoScape"),
)


@dataclass(frozen=True)
class Made:
    """A clip of known truth: `seen` is the least share of an edge (left, right, top, bottom) that shows against the ground."""

    path: Path
    truth: Geometry
    groups: tuple[str, ...]
    seen: float


class Box(NamedTuple):
    """Whole pixels."""

    left: int
    top: int
    right: int  # the first column past it
    bottom: int  # the first row past it
    width: int
    height: int


@dataclass
class Screen:
    """A picture to draw on; `taken` keeps text off the tissue and off other text. `below` and `above` are drawn anew on each frame,
    below or above the tissue. The `view` is the part of the screen where tissue may be, and `unit` the height of small text."""

    picture: Gray
    taken: NDArray[np.bool_]
    rng: np.random.Generator
    style: Style
    view: Box
    unit: float
    below: list[Callable[[Gray, int], None]] = field(default_factory=list)
    above: list[Callable[[Gray, int], None]] = field(default_factory=list)

    @property
    def ground_text(self) -> Colour:
        """The colour of text within the view, which is dark whatever the panels are."""
        return self.style.text if max(self.style.panel) < 128 else (200, 200, 200)

    def reserve(self, x: float, y: float, width: float, height: float) -> bool:
        """Whether this box lies on the screen and was free; if so, it is taken now."""
        left, top, right, bottom = (round(v) for v in (x, y, x + width, y + height))
        if left < 0 or top < 0 or right > self.taken.shape[1] or bottom > self.taken.shape[0] or self.taken[top:bottom, left:right].any():
            return False
        self.taken[top:bottom, left:right] = True
        return True

    def write(self, text: str, x: float, y: float, size: float, colour: Colour, *, align: str = "left") -> None:
        """Text with its upper corner at (x, y), where there is room."""
        glyphs = text_shape(text, max(7, round(size)))
        x = x if align == "left" else x - glyphs.shape[1]
        if self.reserve(x, y, glyphs.shape[1], glyphs.shape[0]):
            stamp(self.picture, glyphs, x, y, colour)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> bool:
        """A filled box, where there is room."""
        free = self.reserve(x, y, width, height)
        if free:
            self.picture[round(y) : max(round(y + height), round(y) + 1), round(x) : round(x + width)] = colour
        return free


@lru_cache(maxsize=2000)
def text_shape(text: str, size: int) -> NDArray[np.float32]:
    """The coverage of a line of text, (height, width) in 0..1."""
    font = ImageFont.load_default(size)
    mask, (_, down) = font.getmask2(text, mode="L")  # type: ignore[union-attr]
    glyphs = np.asarray(mask, np.float32).reshape(mask.size[::-1]) / 255
    return np.pad(glyphs, ((max(0, int(down)), 1), (0, 1)))


def stamp(picture: Gray, shape: NDArray[np.float32], x: float, y: float, colour: Colour) -> None:
    """Blend a colour over a picture where `shape` covers it; what lies outside the picture is left out."""
    left, top = max(0, round(x)), max(0, round(y))
    part = picture[top : round(y) + shape.shape[0], left : round(x) + shape.shape[1]]
    cover = shape[top - round(y) :, left - round(x) :][: part.shape[0], : part.shape[1], None]
    part[:] = np.rint(part * (1 - cover) + np.array(colour, np.float32) * cover)


# Tissue: (frames, depth, lateral) uint8, tissue all over.


def largest_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The largest box (x, y, width, height) of true cells that is no narrower than 2 : 5, by the histogram method."""
    best, area = (0, 0, 0, 0), 0
    heights: NDArray[np.int_] = np.zeros(mask.shape[1], int)
    for bottom, row in enumerate(mask):
        heights = np.where(row, heights + 1, 0)
        rising: list[tuple[int, int]] = []
        for column, height in enumerate([*heights.tolist(), 0]):
            start = column
            while rising and rising[-1][1] >= height:
                start, tall = rising.pop()
                wide = column - start
                if tall and 0.4 <= wide / tall <= 2.5 and wide * tall > area:
                    best, area = (start, bottom - tall + 1, wide, tall), wide * tall
            rising.append((start, height))
    return best


@lru_cache(maxsize=48)
def real_tissue(path: Path) -> Gray | None:
    """The largest rectangle of a real clip in which nearly every pixel moves; None where that is too small or too short."""
    frames: list[Gray] = []
    with open_clip(path) as clip:
        for frame in clip.frames():
            if not frames or cv2.absdiff(frame.pixels, frames[-1]).mean() > 0.05:
                frames.append(frame.pixels)
            if len(frames) >= MOST_FRAMES + 20:
                break
    frames = frames[len(frames) // 10 :]  # past black lead-ins
    if len(frames) < FEWEST_FRAMES:
        return None
    stack = np.stack(frames)
    moved = np.mean([cv2.absdiff(a, b) for a, b in pairwise(frames)], axis=0)
    side = min(moved.shape) // 24 | 1
    moving = cv2.blur((moved > 0.7).astype(np.float32), (side, side)) > 0.9
    lit = cv2.blur(stack.mean(axis=0, dtype=np.float32), (side, side)) > 12
    x, y, width, height = (4 * value for value in largest_box((moving & lit)[::4, ::4]))
    tissue = stack[:MOST_FRAMES, y + 4 : y + height - 4, x + 4 : x + width - 4]
    return tissue if min(tissue.shape[1:]) >= 80 else None


@lru_cache(maxsize=48)
def phantom_tissue(index: int, seed: int) -> Gray:
    """The whole field of view of a phantom clip, unbent."""
    clip = plan(videos=24, seed=seed + 50, size=320, frames=MOST_FRAMES)[index]
    pictures, shape = render(clip)
    if shape.kind == "linear":
        return np.ascontiguousarray(pictures[:, shape.y + 2 : shape.y + shape.height - 2, shape.x + 2 : shape.x + shape.width - 2, 0])
    radius = np.linspace(shape.radius_inner + 3, shape.radius_outer - 3, round(shape.radius_outer - shape.radius_inner))[:, None]
    margin = 2.0
    angle = np.radians(np.linspace(shape.angle_left_deg + margin, shape.angle_right_deg - margin, 300))[None]
    x, y = shape.apex_x + radius * np.sin(angle), shape.apex_y + radius * np.cos(angle)
    return np.stack([cv2.remap(p[..., 0], x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR) for p in pictures])


def draw_tissue(rng: np.random.Generator, source: str, data: Path, seed: int) -> Gray:
    """A tissue of this source."""
    if source == "phantom":
        return phantom_tissue(int(rng.integers(24)), seed)
    suffixes = {".mp4", ".avi", ".mov", ".mpeg", ".mpg", ".gif"}
    paths = sorted(path for path in (data / source).rglob("*") if path.suffix.lower() in suffixes)
    for place in rng.permutation(len(paths)):
        tissue = real_tissue(paths[place])
        if tissue is not None:
            return tissue
    raise SystemExit(f"no clip of {data / source} holds a rectangle of moving tissue")


def set_gain(rng: np.random.Generator, tissue: Gray, groups: list[str]) -> Gray:
    """Overall gain, sliders of time-gain compensation, a flank that touches badly, a rib's shadow, fading with depth."""
    _, height, width = tissue.shape
    depth, across = np.linspace(0, 1, height, dtype=np.float32)[:, None], np.linspace(0, 1, width, dtype=np.float32)[None]
    gain = np.ones((height, width), np.float32)
    if rng.random() < 0.5:
        gain *= np.interp(depth, np.linspace(0, 1, 8), rng.uniform(0.65, 1.3, 8))
    if rng.random() < 0.3:
        gain *= 1 - (1 - rng.uniform(0.15, 0.5)) * depth ** rng.uniform(1, 3)
    if rng.random() < 0.2:
        shadow = np.exp(-(((across - rng.uniform(0.2, 0.8)) / rng.uniform(0.05, 0.12)) ** 4))
        gain *= 1 - 0.85 * shadow / (1 + np.exp((rng.uniform(0.15, 0.4) - depth) * 25))
    if rng.random() < 0.25:
        black = rng.random() < 0.2
        rest, reach = (0.0, rng.uniform(0.1, 0.25)) if black else (rng.uniform(0.2, 0.5), rng.uniform(0.05, 0.2))
        side = across if rng.random() < 0.5 else 1 - across
        gain *= rest + (1 - rest) * np.clip((side - (reach if black else 0)) / (0.08 if black else reach), 0, 1)
        groups.append("dark flank" if black else "dim flank")
    sample = tissue[:: max(1, len(tissue) // 6)]
    bright = rng.uniform(120, 250) / max(float(np.percentile(sample, 99)), 20)
    gamma = rng.uniform(0.8, 1.15)
    table = 255 * (np.arange(256) / 255 * min(bright, 2.5)).clip(0, 1) ** gamma
    return np.stack([np.rint(table[frame] * gain).clip(0, 255).astype(np.uint8) for frame in tissue])


# Geometry


def draw_truth(rng: np.random.Generator, kind: str, view: Box, size: tuple[int, int], groups: list[str]) -> Geometry:
    """A field of view of 15 to 75 % of the picture, as far as the kind of probe fits into the view."""
    left, top, _, _, width, height = view
    share = rng.uniform(0.15, 0.75)
    area = share * size[0] * size[1]
    if kind == "linear":
        aspect = rng.uniform(0.6, 1.5)
        box_width = min(width, math.sqrt(area * aspect))
        box_height = min(height, area / box_width)
        box_width = round(min(width, area / box_height))
        x = left + (width - box_width) * rng.uniform(0.35, 0.65)
        y = top + (height - box_height) * rng.uniform(0, 0.5)
        return Rectangle(round(x), round(y), box_width, round(box_height))
    half = rng.uniform(24, 37) if kind == "convex" else rng.uniform(35, 45)
    inner = rng.uniform(0.2, 0.5) if kind == "convex" else rng.choice([0.0, rng.uniform(0.01, 0.08)])
    steer = 0.0
    if rng.random() < 0.2:
        steer = rng.choice([-1, 1]) * rng.uniform(3, 9)
        groups.append("steered")
    first, last = steer - half, steer + half
    unit = AnnulusSector(0, 0, inner, 1, first, last)
    corners = np.array([*unit.polygon(), (0, 1)])
    (low_x, low_y), (high_x, high_y) = corners.min(axis=0), corners.max(axis=0)
    # What a box leaves of it, as shares of its own extent: the depth setting, a zoom, or the flat face of a virtual convex.
    cut = rng.choice(["", "bottom", "sides", "top"], p=[0.6, 0.2, 0.12, 0.08])
    if cut == "bottom":
        high_y -= (high_y - low_y) * rng.uniform(0.04, 0.15)
    elif cut == "sides":
        trim = (high_x - low_x) * rng.uniform(0.03, 0.22)
        low_x, high_x = low_x + trim, high_x - trim
    elif cut == "top":
        low_y = max(inner, 0.08) + (high_y - low_y) * rng.uniform(0.0, 0.1)
    radius = math.sqrt(2 * area / (math.radians(last - first) * (1 - inner**2)))
    radius = min(radius, width / (high_x - low_x), height / (high_y - low_y))
    apex_x = left - low_x * radius + (width - (high_x - low_x) * radius) * rng.uniform(0.35, 0.65)
    apex_y = top - low_y * radius + (height - (high_y - low_y) * radius) * rng.uniform(0, 0.4)
    box = None
    if cut:
        groups.append("cut by a box")
        edges = [round(v) for v in (apex_x + low_x * radius, apex_y + low_y * radius, apex_x + high_x * radius, apex_y + high_y * radius)]
        box = Rectangle(edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1])
    return AnnulusSector(apex_x, apex_y, inner * radius, radius, first, last, box)


def bend(tissue: Gray, truth: Geometry, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32], Gray]:
    """Where each picture pixel looks into the tissue (x, y maps), and the tissue, mirrored sideways where it is too narrow."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    if isinstance(truth, Rectangle):
        across, depth = (columns - truth.x) / (truth.width - 1), (rows - truth.y) / (truth.height - 1)
        aspect = truth.width / truth.height
    else:
        right, down = columns - truth.apex_x, rows - truth.apex_y
        span = truth.angle_right_deg - truth.angle_left_deg
        across = (np.degrees(np.arctan2(right, down)) - truth.angle_left_deg) / span
        depth = (np.hypot(right, down) - truth.radius_inner) / (truth.radius_outer - truth.radius_inner)
        aspect = math.radians(span) * (truth.radius_inner + truth.radius_outer) / 2 / (truth.radius_outer - truth.radius_inner)
    if aspect * tissue.shape[1] / tissue.shape[2] > 1.7:
        tissue = np.concatenate([tissue, tissue[:, :, ::-1]], axis=2)
    x, y = across.clip(0, 1) * (tissue.shape[2] - 1), depth.clip(0, 1) * (tissue.shape[1] - 1)
    return x.astype(np.float32), y.astype(np.float32), tissue


def cover_of(truth: Geometry, height: int, width: int, smooth: bool) -> NDArray[np.float32]:
    """How much of each pixel is field of view, 0..1: by thirds of a pixel, or all or nothing as scan conversion without smoothing."""
    if not smooth or isinstance(truth, Rectangle):
        return truth.mask(height, width).astype(np.float32)
    third = replace(truth, apex_x=3 * truth.apex_x + 1, apex_y=3 * truth.apex_y + 1, clip=None)
    third = replace(third, radius_inner=3 * truth.radius_inner, radius_outer=3 * truth.radius_outer)
    fine = third.mask(3 * height, 3 * width).astype(np.float32)
    cover = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return cover if truth.clip is None else cover * truth.clip.mask(height, width)


def seen_share(mean: NDArray[np.float32], mask: NDArray[np.bool_], ground: float) -> float:
    """The least share, over the four edges, of the edge along which the tissue just inside differs from the ground."""
    inside = np.pad(mask, 1).astype(np.float32)
    side = max(3, min(mask.shape) // 50 | 1)
    weight = cv2.blur(inside, (side, side)) + 1e-6
    local = cv2.blur(np.pad(mean, 1) * inside, (side, side)) / weight
    soft = cv2.GaussianBlur(inside, (0, 0), max(2, min(mask.shape) / 100))
    outward_x, outward_y = -cv2.Sobel(soft, cv2.CV_32F, 1, 0), -cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    length = np.hypot(outward_x, outward_y) + 1e-9
    x, y = outward_x / length, outward_y / length
    edge = (inside > 0) & (cv2.erode(inside, np.ones((3, 3), np.uint8)) == 0)
    bottom, top = y > 0.35, y < -0.85
    parts = [edge & chosen for chosen in (bottom, top, ~bottom & ~top & (x < 0), ~bottom & ~top & (x >= 0))]
    visible = np.abs(local - ground) >= SEEN_LEVELS
    return min(float(visible[part].mean()) for part in parts if np.count_nonzero(part) > 0.03 * np.count_nonzero(edge))


# Surroundings


def lay_out(rng: np.random.Generator, style: Style, size: tuple[int, int]) -> Box:
    """The view that the panels of a style leave; an exported clip has thin ones."""
    width, height = size
    thin = rng.choice([0.04, 0.25, 1.0], p=[0.2, 0.3, 0.5])
    left = thin * (0.13 if style.facts == "left" else 0.05) * width
    right = thin * ((0.13 if style.facts == "right" else 0.06) + (0.1 if style.strip == "right" else 0)) * width
    top = thin * (0.12 if style.facts == "row" else 0.09) * height
    bottom = thin * (0.14 if style.strip == "bottom" else 0.06) * height
    edges = round(left), round(top), round(width - right), round(height - bottom)
    return Box(*edges, edges[2] - edges[0], edges[3] - edges[1])


def draw_screen(rng: np.random.Generator, style: Style, view: Box, mask: NDArray[np.bool_], still: Gray) -> Screen:
    """Everything around the tissue, and what lies over it."""
    picture = np.full((*mask.shape, 3), style.panel, np.uint8)
    picture[view.top : view.bottom, view.left : view.right] = style.ground
    if max(style.panel) > 30 and rng.random() < 0.6:
        frame = tuple(min(255, value + 40) for value in style.panel)
        cv2.rectangle(picture, (view.left - 1, view.top - 1), (view.right, view.bottom), frame, 1)
    unit = min(mask.shape) / 48 * rng.uniform(0.85, 1.2)
    screen = Screen(picture, cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0, rng, style, view, unit)
    rows, columns = np.nonzero(mask)
    depths = int(rows.min()), int(rows.max())
    face = columns[rows <= depths[0] + max(1, len(mask) // 200)]
    draw_banner(screen)
    draw_ruler(screen, depths, (int(columns.min()), int(columns.max())))
    draw_bar(screen)
    draw_facts(screen)
    draw_strip(screen, still)
    draw_marker(screen, int(face.min()), int(face.max()), depths[0])
    for share, draw in ((0.3, draw_cine_bar), (0.3, draw_frame_counter), (0.2, draw_ecg), (0.2, draw_pointer)):
        if rng.random() < share:
            draw(screen)
    if rng.random() < 0.12:  # an annotation over the tissue
        label = text_shape(str(rng.choice(["LIVER", "R1", "LUNG L", "RT KIDNEY", "PLAPS"])), round(1.3 * unit))
        x, y = float(np.quantile(columns, rng.uniform(0.2, 0.6))), float(np.quantile(depths, rng.uniform(0.1, 0.9)))
        screen.above.append(lambda frame, _: stamp(frame, label, x, y, (235, 225, 90)))
    return screen


def draw_banner(screen: Screen) -> None:
    """Maker, patient, place, date, a clock that may run, safety indices, the probe."""
    rng, unit, top, width = screen.rng, screen.unit, screen.view.top, screen.picture.shape[1]
    colour = screen.style.text if top > unit else screen.ground_text
    size = unit * 1.1 if top < 1.5 * unit else min(unit * 1.1, max(7, top * 0.42))  # of no banner: in the corners of the view
    name = str(rng.choice(["DOE^JANE", "Mustermann, Max", "ANON 00417", "TEST PATIENT", "PT-3391"]))
    place = str(rng.choice(["St. Elsewhere ICU", "General Hospital", "Emergency Dept", "Univ. Clinic Radiology"]))
    day = f"{rng.integers(1, 29):02d}/{rng.integers(1, 13):02d}/20{rng.integers(12, 24)}"
    safety = f"MI {rng.uniform(0.3, 1.4):.1f}   TIS {rng.uniform(0.1, 1.2):.1f}"
    probe = str(rng.choice(["C5-1 / Abd", "Lung", "9L-D  MSK", "S4-2 Cardiac", "SC6-1U"]))
    screen.write(screen.style.logo, unit * 0.6, top * 0.08, size * 1.2, screen.style.accent)
    screen.write(name, width * rng.uniform(0.2, 0.3), top * 0.06, size, colour)
    screen.write(place, width * rng.uniform(0.48, 0.58), top * 0.06, size, colour)
    second = max(top * 0.55, 1.4 * size)
    screen.write(probe, width * 0.3, second, size, colour)
    screen.write(safety, width - unit * 0.6, second, size, colour, align="right")
    start, runs, fps = int(rng.integers(0, 86000)), rng.random() < 0.6, int(rng.integers(8, 30))
    wide, tall = text_shape("00:00:00", max(7, round(size))).shape[::-1]
    x, y = width - wide - unit * 0.6, top * 0.06
    screen.write(day, x - unit, y, size, colour, align="right")

    def clock(frame: Gray, index: int) -> None:
        now = start + (index // fps if runs else 0)
        text = f"{now // 3600:02d}:{now // 60 % 60:02d}:{now % 60:02d}"
        stamp(frame, text_shape(text, max(7, round(size))), x, y, colour)

    if screen.reserve(x, y, wide, tall):
        screen.below.append(clock)


def draw_facts(screen: Screen) -> None:
    """Parameters: a column in a panel (on the ground where the panel is thin), or a row below the banner."""
    rng, unit, view, style = screen.rng, screen.unit, screen.view, screen.style
    facts = [f"FR {rng.integers(12, 60)}Hz", f"{rng.uniform(5, 22):.1f}cm", "2D", f"Gn {rng.integers(30, 80)}"]
    facts += [f"DR {rng.integers(50, 90)}", f"Frq {rng.uniform(1.8, 9):.1f}", f"P {rng.choice(['Low', 'Med', '100%'])}"]
    facts = [*facts, f"Map {rng.integers(1, 9)}", "HGen", f"AO% {rng.integers(60, 100)}"][: int(rng.integers(4, 11))]
    if style.facts == "row":
        screen.write("   ".join(facts), view.left + unit, view.top - 1.6 * unit, unit, style.text)
    elif style.facts:
        panel = view.left if style.facts == "left" else screen.picture.shape[1] - view.right
        on_ground = panel < 6 * unit
        edge = view.left if style.facts == "left" else view.right - 6 * unit
        x = edge + 0.5 * unit if on_ground else (0.5 * unit if style.facts == "left" else view.right + 0.5 * unit)
        y = view.top + view.height * rng.uniform(0.02, 0.25)
        for place, fact in enumerate(facts):
            screen.write(fact, x, y + place * 1.5 * unit, unit, screen.ground_text if on_ground else style.text)


def draw_ruler(screen: Screen, depths: tuple[int, int], sides: tuple[int, int]) -> None:
    """Ticks each centimetre close to the tissue or at the view's edge, digits each five, and focus triangles."""
    rng, unit, view = screen.rng, screen.unit, screen.view
    if rng.random() < 0.1:
        return
    sign = 1 if screen.style.ruler == "right" else -1
    close = sides[sign > 0] + sign * unit * rng.uniform(0.3, 1.5)
    far = view.right - unit * 1.5 if sign > 0 else view.left + unit * 1.5
    x = close if rng.random() < 0.6 else far
    centimetres, thick, dots = int(rng.integers(4, 22)), max(1, round(unit / 14)), rng.random() < 0.2
    for tick in range(centimetres + 1):
        y = depths[0] + (depths[1] - depths[0]) * tick / centimetres
        long = thick * 2 if dots else unit * (0.8 if tick % 5 == 0 else 0.4)
        screen.box(x if sign > 0 else x - long, y - thick / 2, long, thick, screen.ground_text)
        if tick % 5 == 0 and tick:
            align = "left" if sign > 0 else "right"
            screen.write(str(tick), x + sign * unit, y - unit / 2, unit * 0.9, screen.ground_text, align=align)
    for focus in rng.uniform(0.2, 0.8, int(rng.integers(0, 3))):
        y, tip, base = np.quantile(depths, focus), x - sign * unit * 0.2, x - sign * unit * 0.9
        if screen.reserve(min(tip, base), y - unit * 0.4, unit * 0.7, unit * 0.8):
            corners = np.array([[tip, y], [base, y - unit * 0.4], [base, y + unit * 0.4]])
            cv2.fillPoly(screen.picture, [np.rint(corners).astype(np.int32)], screen.style.accent, cv2.LINE_AA)


def draw_bar(screen: Screen) -> None:
    """The gray bar, or the bar of a colour map."""
    rng, unit, view = screen.rng, screen.unit, screen.view
    height, width = round(unit * rng.uniform(5, 10)), max(3, round(unit * rng.uniform(0.5, 1)))
    x = round(view.left + 0.5 * unit if screen.style.ruler == "right" else view.right - 0.5 * unit - width)
    y = round(view.top + view.height * rng.uniform(0.03, 0.15))
    if rng.random() < 0.75 and screen.box(x, y, width, height, (0, 0, 0)):
        ramp = np.linspace(255, 0, height, dtype=np.float32)[:, None]
        if rng.random() < 0.2:
            ramp = np.hstack([ramp, abs(128 - ramp), 255 - ramp])
        screen.picture[y : y + height, x : x + width] = ramp[:, None]


def draw_strip(screen: Screen, still: Gray) -> None:
    """Thumbnails or buttons beside or below the view."""
    rng, unit, view, style = screen.rng, screen.unit, screen.view, screen.style
    height, width = screen.picture.shape[:2]
    beside = style.strip == "right"
    along, across = (height, width - view.right) if beside else (width, height - view.bottom)
    if not style.strip or across < 2.5 * unit:
        return
    thumbnails, pitch = rng.random() < 0.5, rng.uniform(1.15, 1.4)
    thick = min(across * (0.4 if beside else 0.7), 5 * unit)
    long = thick * (0.8 if thumbnails and beside else 0.5 if beside else 1.3 if thumbnails else 2.2)
    red, green, blue = (min(255, value + 35) for value in style.panel)
    for place in range(int(rng.integers(2, 9))):
        start = along * 0.15 + place * long * pitch
        x, y, wide, tall = (width - thick * 1.1, start, thick, long) if beside else (start, height - thick * 1.15, long, thick)
        if start + long > along * 0.97 or not screen.box(x, y, wide, tall, (red, green, blue)):
            continue
        if thumbnails:
            small = cv2.resize(still, (round(wide) - 4, round(tall) - 4), interpolation=cv2.INTER_AREA)
            part = screen.picture[round(y) + 2 :, round(x) + 2 :][: small.shape[0], : small.shape[1]]
            part[:] = small[: part.shape[0], : part.shape[1], None]
        else:
            shape = text_shape(str(rng.choice(["Freeze", "Gain", "Depth", "Save", "Menu", "Cine"])), max(7, round(unit * 0.8)))
            if shape.shape[1] < wide - 4:
                stamp(screen.picture, shape, x + (wide - shape.shape[1]) / 2, y + (tall - shape.shape[0]) / 2, style.text)


def draw_marker(screen: Screen, first: int, last: int, y: float) -> None:
    """The orientation marker beside the probe's face: apart from the tissue, touching it, or lapping over its border."""
    rng, unit, style = screen.rng, screen.unit, screen.style
    gap = rng.choice([unit, 0.0, -0.5 * unit], p=[0.5, 0.3, 0.2])
    x = first - gap - unit if rng.random() < 0.8 else last + gap
    y = max(0.0, y + rng.uniform(-1, 0.2) * unit)
    shape = text_shape(style.marker or " ", round(1.5 * unit))
    centre = round(x + (shape.shape[1] / 2 if style.marker else unit / 2)), round(y + shape.shape[0] * 0.6)

    def marker(frame: Gray, _: int) -> None:
        stamp(frame, shape, x, y, style.accent)
        if style.marker in ("", "P"):  # a dot, a letter in a ring
            cv2.circle(frame, centre, round(unit * (1.0 if style.marker else 0.4)), style.accent, 1 if style.marker else -1, cv2.LINE_AA)

    screen.above.append(marker)


def draw_cine_bar(screen: Screen) -> None:
    """The bar of a replay, which grows."""
    view, tall = screen.view, max(2, round(screen.unit * 0.3))
    x, y, wide = round(view.left + view.width * 0.2), round(view.bottom - screen.unit * 0.7), round(view.width * 0.6)

    def bar(frame: Gray, index: int) -> None:
        frame[y : y + tall, x : x + round(wide * (index + 1) / MOST_FRAMES)] = screen.style.accent

    if screen.box(x, y, wide, tall, (70, 70, 70)):
        screen.below.append(bar)


def draw_frame_counter(screen: Screen) -> None:
    """The number of the frame, in the view's lower left corner."""
    size, x, y = max(7, round(screen.unit)), screen.view.left + 0.5 * screen.unit, screen.view.bottom - 3 * screen.unit
    if screen.reserve(x, y, 5 * screen.unit, 1.2 * screen.unit):
        screen.below.append(lambda frame, i: stamp(frame, text_shape(f"Fr {i + 1}/{MOST_FRAMES}", size), x, y, screen.ground_text))


def draw_pointer(screen: Screen) -> None:
    """A mouse pointer on its way from one place to another; it rests there."""
    rng, reach = screen.rng, screen.picture.shape[1::-1]
    start, end = rng.uniform(0.1, 0.9, (2, 2)) * reach
    arrow = np.array([[0, 0], [0, 1.5], [0.4, 1.15], [0.7, 1.7], [0.9, 1.6], [0.65, 1.05], [1.1, 1.05]]) * screen.unit * 0.9
    arrives = int(rng.integers(4, MOST_FRAMES))

    def pointer(frame: Gray, index: int) -> None:
        place = start + (end - start) * (0.5 - 0.5 * math.cos(math.pi * min(1, index / arrives)))
        outline = [np.rint(arrow + place).astype(np.int32)]
        cv2.fillPoly(frame, outline, (245, 245, 245), cv2.LINE_AA)
        cv2.polylines(frame, outline, True, (20, 20, 20), 1, cv2.LINE_AA)

    screen.above.append(pointer)


def draw_ecg(screen: Screen) -> None:
    """A trace that sweeps along the bottom of the view, over the tissue where that reaches so far."""
    rng, unit, view = screen.rng, screen.unit, screen.view
    phase = (np.arange(view.width) / view.width * rng.uniform(1.5, 4)) % 1
    bumps = ((1, 0.4, 0.012), (0.15, 0.25, 0.03), (0.25, 0.65, 0.05), (-0.2, 0.43, 0.012))  # R, P, T, S: height, place, width
    wave = sum(tall * np.exp(-(((phase - place) / wide) ** 2)) for tall, place, wide in bumps)
    line = np.stack([view.left + np.arange(view.width), view.bottom - unit * (0.8 + 2.4 * wave)], axis=1).round().astype(np.int32)
    start, speed = int(rng.integers(view.width)), max(1, round(view.width / rng.uniform(25, 90)))

    def sweep(frame: Gray, index: int) -> None:
        head = (start + speed * index) % view.width
        parts = [part for part in (line[:head], line[head + view.width // 25 :]) if len(part) > 1]
        cv2.polylines(frame, parts, False, (60, 230, 90), max(1, round(unit / 12)), cv2.LINE_AA)

    screen.above.append(sweep)


# Clips


def make(number: int, seed: int, data: Path, folder: Path) -> Made:
    """Draw, bend, surround and encode one clip."""
    rng = np.random.default_rng([seed, number])
    kind, source, codec = KINDS[number % 3], TISSUES[number // 3 % 3], str(rng.choice(list(CODECS), p=[0.6, 0.2, 0.2]))
    groups = [kind, source, codec]
    style = STYLES[int(rng.integers(len(STYLES)))]
    width, height = (round(side * rng.uniform(0.9, 1) / 2) * 2 for side in SIZES[int(rng.integers(len(SIZES)))])
    width = max(320, width)
    view = lay_out(rng, style, (width, height))
    truth = draw_truth(rng, kind, view, (width, height), groups)
    while not 0.13 < truth.mask(height, width).mean() < 0.78:
        truth = draw_truth(rng, kind, view, (width, height), groups := groups[:3])
    tissue = draw_tissue(rng, source, data, seed)[: int(rng.integers(FEWEST_FRAMES, MOST_FRAMES + 1))]
    map_x, map_y, tissue = bend(set_gain(rng, tissue, groups), truth, height, width)
    mask = truth.mask(height, width)
    cover = cover_of(truth, height, width, bool(rng.random() < 0.6))
    x, y, wide, tall = cv2.boundingRect((cover > 0).astype(np.uint8))
    part = slice(y, y + tall), slice(x, x + wide)
    map_x, map_y, cover = map_x[part], map_y[part], cover[part][..., None]
    screen = draw_screen(rng, style, view, mask, tissue[0])
    groups.append("framed by panels" if max(style.panel) > style.ground + 3 else "ground all over")
    tint = np.array([1, rng.uniform(0.9, 1), rng.uniform(0.75, 1)] if rng.random() < 0.1 else [1, 1, 1], np.float32) * cover
    noise = rng.uniform(0, 3) if rng.random() < 0.4 else 0.0
    bars = [round(side * rng.uniform(0.03, 0.12)) // 2 * 2 if rng.random() < 0.06 else 0 for side in (width, height)]
    path = folder / f"{number}.{CODECS[codec][1]}"
    mean = np.zeros((height, width), np.float32)
    pictures = []
    for index, frame in enumerate(tissue):
        bent = cv2.remap(frame, map_x, map_y, cv2.INTER_LINEAR).astype(np.float32)
        if noise:
            bent = (bent + noise * rng.standard_normal(bent.shape, np.float32)).clip(0, 255)
        mean[part] += bent / len(tissue)
        picture = screen.picture.copy()
        for draw in screen.below:
            draw(picture, index)
        picture[part] = picture[part] * (1 - cover) + bent[..., None] * tint + 0.5
        for draw in screen.above:
            draw(picture, index)
        pictures.append(np.pad(picture, ((bars[1], bars[1]), (bars[0], bars[0]), (0, 0))))
    encode(path, pictures, codec, int(rng.integers(10, 51)), int(rng.integers(18, 31)))
    return Made(path, truth.moved(bars[0], bars[1]), tuple(groups), seen_share(mean, mask, style.ground))


def encode(path: Path, pictures: list[Gray], codec: str, fps: int, crf: int) -> None:
    """Write RGB pictures; the two older codecs get a quantiser that grows with `crf` (18..30 gives 2..10)."""
    encoder, container, pixels = CODECS[codec]
    quantiser = str(2 + (crf - 18) * 2 // 3)
    options = {"crf": str(crf), "preset": "veryfast"} if codec == "h264" else {"qmin": quantiser, "qmax": quantiser}
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(encoder, rate=fps, options={**options, "threads": "1"})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], pixels
        stream.codec_context.time_base = Fraction(1, fps)
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


@dataclass(frozen=True)
class Verdict:
    """What the estimator and the two simple rules made of a clip (IoU each), and what a sheet shows of it."""

    groups: tuple[str, ...]
    seen: float
    found: float
    hull: float
    component: float
    confidence: float
    tile: Gray


def judge(made: Made) -> Verdict:
    """Read the file back and compare."""
    frames = 0
    total = np.zeros(())
    with open_clip(made.path) as clip:
        collector = EvidenceCollector(clip.info.frames_declared)
        for frame in clip.frames():
            collector.offer(frame.pixels, clip.picture)
            total = total + frame.pixels
            picture, frames = frame.pixels, frames + 1
    evidence = collector.evidence
    assert evidence is not None
    found = estimate(evidence)
    mask = made.truth.mask(*picture.shape)
    guess = found.geometry.mask(*picture.shape) if found.geometry is not None else np.zeros_like(mask)
    hull, component = (share_of_union(rule, mask) for rule in simple_rules(np.rint(total / frames).astype(np.uint8)))
    iou = share_of_union(guess, mask)
    title = f"{iou:.3f} c{found.confidence:.2f} #{made.path.stem} " + " ".join(made.groups)
    return Verdict(made.groups, made.seen, iou, hull, component, found.confidence, draw_tile(picture, mask, guess, title))


def simple_rules(mean: Gray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The convex hull of what Otsu's threshold calls bright in the mean picture, and the largest connected part of it."""
    _, bright = cv2.threshold(mean, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    points = cv2.findNonZero(bright)
    hull = np.zeros_like(mean)
    if points is not None:
        cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(bright)
    largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA])) if len(statistics) > 1 else 1
    return hull > 0, labels == largest


def share_of_union(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float(np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b)))


def draw_tile(picture: Gray, mask: NDArray[np.bool_], guess: NDArray[np.bool_], title: str, side: int = 400) -> Gray:
    """A picture with the truth in green and the estimate in red, fit into a square."""
    scale = side / max(picture.shape)
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    shown = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    for shape, colour in ((mask, (0, 255, 0)), (guess, (0, 0, 255))):
        small = cv2.resize(shape.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown, outlines, -1, colour, 1)
    tile = np.zeros((side + 18, side, 3), np.uint8)
    tile[18 : 18 + size[1], : size[0]] = shown
    cv2.putText(tile, title, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA)
    return tile


def table(verdicts: list[Verdict]) -> str:
    """Markdown: a row a group, and the rows of what nobody could outline below."""
    lines = [
        "| clips | number | median IoU | 10th percentile | least | hull: median | 10th | part: median | 10th | accepted | of them ≥ .90 |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    fair = [verdict for verdict in verdicts if verdict.seen >= SEEN_SHARE]
    unfair = [verdict for verdict in verdicts if verdict.seen < SEEN_SHARE]
    rows = [("all", fair)]
    for name in (*KINDS, *TISSUES, *CODECS, "cut by a box", "steered", "dim flank", "framed by panels", "ground all over"):
        rows.append((name, [verdict for verdict in fair if name in verdict.groups]))
    rows.append(("not in all: dark flank", [verdict for verdict in unfair if "dark flank" in verdict.groups]))
    rows.append(("not in all: other dark edge", [verdict for verdict in unfair if "dark flank" not in verdict.groups]))
    for name, group in rows:
        if not group:
            continue
        found, hull, component = (np.array([getattr(v, part) for v in group]) for part in ("found", "hull", "component"))
        accepted = np.array([verdict.confidence >= ACCEPTED for verdict in group])
        good = f"{int((found[accepted] >= GOOD).sum())} ({(found[accepted] >= GOOD).mean():.1%})" if accepted.any() else "none"
        spread = [f"{np.median(found):.3f}", f"{np.percentile(found, 10):.3f}", f"{found.min():.3f}"]
        rules = [f"{value:.3f}" for rule in (hull, component) for value in (np.median(rule), np.percentile(rule, 10))]
        lines.append("| " + " | ".join([name, str(len(group)), *spread, *rules, f"{accepted.sum()} ({accepted.mean():.0%})", good]) + " |")
    return "\n".join(lines)


def write_sheet(path: Path, verdicts: list[Verdict], most: int = 24, columns: int = 6) -> None:
    """The worst of those that a person could outline."""
    worst = sorted((v for v in verdicts if v.seen >= SEEN_SHARE), key=lambda verdict: verdict.found)[:most]
    tiles = [verdict.tile for verdict in worst]
    tiles += [np.zeros_like(verdicts[0].tile)] * (-len(tiles) % columns)
    sheet = np.vstack([np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)])
    path.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())


def main() -> None:
    """Make, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with pocus_lung/ and covid_blues/")
    parser.add_argument("--number", type=int, default=300, help="clips")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="write a picture of the 24 worst: truth green, estimate red")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.number):
            made = make(number, given.seed, given.data, Path(folder))
            verdicts.append(judge(made))
            made.path.unlink()
    print(table(verdicts))
    if given.sheet is not None:
        write_sheet(given.sheet, verdicts)


if __name__ == "__main__":
    main()
