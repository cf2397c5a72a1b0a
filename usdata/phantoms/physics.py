"""Ultrasound pictures from point scatterers: echoes, envelope, log compression, scan conversion.

In: positions and amplitudes of scatterers, frame by frame. Out: 8-bit B-mode frames, whose tissue lies where `Geometry` says.
Guarantees: the echo is linear in the amplitudes, many scatterers a cell give fully developed (Rayleigh) speckle, and a scatterer that moves
by a fraction of a sample moves its echo, phase included, by that fraction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]

SOUND_MM_PER_US = 1.54  # soft tissue, the value that every scanner assumes
GAIN_DB_MAX = 44.0  # what the time gain can make good
AXIAL_SIGMA = 1.0  # samples: the pulse's Gaussian window, half maximum over 2.4 samples
PAD_BEAMS = 10  # scatterers beside the picture still send echoes into it
STRIP_BEAMS = 40  # lines focused at once: a beam is narrow, so most of a wider matrix would be zeros
PAD_DEPTHS = 8
MARGIN_BEAMS = 20  # tissue beside the picture that breathing can bring into it
MARGIN_DEPTHS = 14


@dataclass(frozen=True)
class Geometry:
    """Where a picture holds tissue, in picture pixels (a pixel's centre has whole coordinates).

    A fan (convex, phased) is the part of the ring between two radii around the apex that lies between two angles. Angles are in degrees
    from straight down, positive to the right. A linear picture is the box with its first pixel at (x, y).
    """

    kind: str
    canvas_width: int
    canvas_height: int
    apex_x: float = 0.0
    apex_y: float = 0.0
    radius_inner: float = 0.0
    radius_outer: float = 0.0
    angle_left_deg: float = 0.0
    angle_right_deg: float = 0.0
    x: int = 0
    y: int = 0
    width: int = 0
    height: int = 0

    @property
    def depth_pixels(self) -> float:
        """Pixels from the probe's face to the deepest echo."""
        return float(self.height - 1) if self.kind == "linear" else self.radius_outer - self.radius_inner


@dataclass(frozen=True)
class Scan:
    """How a probe samples tissue: `depths` samples along each of `beams` lines.

    Attributes:
        depths: Samples along a line.
        beams: Lines side by side.
        depth_mm: Depth of the last sample.
        radius_mm: Radius of the probe's face; 0 for a linear probe.
        half_angle: Angle of the outermost line in radians; 0 for a linear probe.
        width_mm: Width of a linear probe's face.
        frequency_mhz: The pulse's carrier.
        focus: Depth of the lateral focus as a share of the depth.
    """

    depths: int
    beams: int
    depth_mm: float
    radius_mm: float
    half_angle: float
    width_mm: float
    frequency_mhz: float
    focus: float

    @property
    def mm_per_sample(self) -> float:
        """Distance of two samples along a line."""
        return self.depth_mm / (self.depths - 1)

    def millimetres(self, beam: Floats, depth: Floats) -> tuple[Floats, Floats]:
        """Cartesian place in mm (x to the right of the middle line, z below the face's foremost point) of beam and depth indices."""
        depth_mm = depth * self.mm_per_sample
        across = beam / (self.beams - 1) * 2 - 1
        if not self.half_angle:
            return (across * (self.width_mm / 2)).astype(np.float32), depth_mm.astype(np.float32)
        angle = across * self.half_angle
        radius = self.radius_mm + depth_mm
        return (radius * np.sin(angle)).astype(np.float32), (radius * np.cos(angle) - self.radius_mm).astype(np.float32)

    def lateral_sigma(self) -> Floats:
        """Gaussian width of the beam in lines at each depth: narrowest at the focus, hyperbolic away from it, as a Gaussian beam."""
        depth = np.linspace(0, 1, self.depths, dtype=np.float32)
        return (0.95 * np.sqrt(1 + ((depth - self.focus) / 0.5) ** 2)).astype(np.float32)


def scatter(scan: Scan, rng: np.random.Generator) -> tuple[Floats, Floats, Complexes]:
    """Scatterers of even tissue over the picture and its margins, for `echoes`.

    One stands at a random place in each cell of the grid, for all the reflectors that are there: its strength is complex Gaussian with a
    variance of 1, so the echoes are Gaussian too, and their envelope is Rayleigh distributed, however small the resolution cell.

    Returns:
        Beam index (n), depth index (n), and two independent strengths (2, n).
    """
    rows, columns = scan.depths + 2 * MARGIN_DEPTHS, scan.beams + 2 * MARGIN_BEAMS
    depth, beam = np.mgrid[0:rows, 0:columns].astype(np.float32).reshape(2, -1)
    jitter = rng.random((2, len(beam)), dtype=np.float32) - np.float32(0.5)
    strength = rng.standard_normal((2, len(beam), 2), dtype=np.float32).view(np.complex64)[..., 0] / np.float32(math.sqrt(2))
    return beam - MARGIN_BEAMS + jitter[0], depth - MARGIN_DEPTHS + jitter[1], strength


def echoes(scan: Scan, frames: Iterable[tuple[Floats, Floats, Complexes]]) -> Complexes:
    """Complex (analytic, demodulated) echoes of point scatterers.

    The linear convolution model of Meunier and Bertrand (1995) and COLE (Gao et al. 2009): a separable pulse, a Gaussian-windowed
    carrier in depth and a Gaussian beam across, which widens away from the focus. The carrier stands in the scatterers' phases
    (`carrier`), which is the same signal after demodulation and keeps movements of a fraction of a wavelength. Both kernels have unit
    energy, so one scatterer a grid node, of variance 1, gives a mean power of about 1.

    Args:
        scan: The sampling grid.
        frames: For each frame beam index, depth index and complex amplitude of the scatterers (n each); those outside the padded
            grid are left out.

    Returns:
        Echoes of shape (frames, depths, beams).
    """
    rows, columns = scan.depths + 2 * PAD_DEPTHS, scan.beams + 2 * PAD_BEAMS
    reach = math.ceil(4 * AXIAL_SIGMA)
    pulse = np.exp(-0.5 * (np.arange(-reach, reach + 1) / AXIAL_SIGMA) ** 2)
    pulse /= np.sqrt(np.sum(pulse**2))
    lines = []
    for beam, depth, amplitude in frames:
        grid = _splat(beam + PAD_BEAMS, depth + PAD_DEPTHS, amplitude, rows, columns)
        blurred = cv2.filter2D(grid, -1, pulse[:, None].astype(np.float32), borderType=cv2.BORDER_CONSTANT)
        lines.append(blurred[PAD_DEPTHS : PAD_DEPTHS + scan.depths])
    count = len(lines)
    stack = np.ascontiguousarray(np.stack(lines).transpose(1, 0, 3, 2)).reshape(scan.depths, count * 2, columns)
    focused = np.empty((scan.depths, count * 2, scan.beams), dtype=np.float32)
    for start in range(0, scan.beams, STRIP_BEAMS):
        stop = min(start + STRIP_BEAMS, scan.beams)
        offsets = np.arange(stop - start + 2 * PAD_BEAMS)[:, None] - PAD_BEAMS - np.arange(stop - start)[None, :]
        profile = np.exp(-0.5 * (offsets[None] / scan.lateral_sigma()[:, None, None]) ** 2).astype(np.float32)
        profile /= np.sqrt(np.sum(profile**2, axis=1, keepdims=True))
        focused[:, :, start:stop] = np.matmul(stack[:, :, start : stop + 2 * PAD_BEAMS], profile)
    parts = focused.reshape(scan.depths, count, 2, scan.beams).transpose(1, 0, 3, 2)
    return np.ascontiguousarray(parts).view(np.complex64)[..., 0]


def _splat(beam: Floats, depth: Floats, amplitude: Complexes, rows: int, columns: int) -> Floats:
    """Scatterers shared out to their four nearest grid nodes: (rows, columns, real and imaginary)."""
    inside = (beam >= 0) & (beam < columns - 1) & (depth >= 0) & (depth < rows - 1)
    beam, depth, amplitude = beam[inside], depth[inside], amplitude[inside]
    column, row = beam.astype(np.int32), depth.astype(np.int32)
    right, below = beam - column.astype(np.float32), depth - row.astype(np.float32)
    node = row * columns + column
    nodes = np.concatenate([node, node + 1, node + columns, node + columns + 1])
    shares = np.concatenate([(1 - right) * (1 - below), right * (1 - below), (1 - right) * below, right * below])
    grid = np.empty((rows, columns, 2), dtype=np.float32)
    for part, values in enumerate((amplitude.real, amplitude.imag)):
        grid[..., part] = np.bincount(nodes, weights=shares * np.tile(values, 4), minlength=rows * columns).reshape(rows, columns)
    return grid


def carrier(scan: Scan, depth: Floats) -> Complexes:
    """The phase that the way to a depth (in samples) and back leaves on a pulse: exp(-4 pi i f z / c)."""
    turns = 2 * scan.frequency_mhz * scan.mm_per_sample / SOUND_MM_PER_US * depth.astype(np.float64)
    angle = (-2 * np.pi * (turns % 1.0)).astype(np.float32)
    return (np.cos(angle) + 1j * np.sin(angle)).astype(np.complex64)


def receive(
    scan: Scan, field: Complexes, rng: np.random.Generator, *, attenuation_db: float, compensated: float, noise_db: float
) -> Floats:
    """Envelope of echoes after attenuation, electronic noise and time-gain compensation.

    Args:
        scan: The sampling grid.
        field: Echoes (frames, depths, beams) of unattenuated tissue.
        rng: Source of the electronic noise, which is new in every frame.
        attenuation_db: In dB per cm and MHz, one way; doubled here for the way back.
        compensated: Share of the attenuation that the time gain makes good; noise is amplified with it.
        noise_db: Noise power relative to unit power at the probe's face.
    """
    depth_cm = np.linspace(0, scan.depth_mm / 10, scan.depths, dtype=np.float32)
    loss_db = 2 * attenuation_db * scan.frequency_mhz * depth_cm
    received = field * (10 ** (-loss_db / 20)).astype(np.float32)[:, None]
    noise = rng.standard_normal((*field.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    received += noise * np.float32(10 ** (noise_db / 20) / math.sqrt(2))
    gain_db = np.minimum(compensated * loss_db, GAIN_DB_MAX)
    return np.abs(received) * (10 ** (gain_db / 20)).astype(np.float32)[:, None]


def log_compress(envelope: Floats, *, floor_db: float, range_db: float) -> Floats:
    """Gray levels 0 to 255: `floor_db` is black and `floor_db + range_db` white, relative to an envelope of 1."""
    level = 20 * np.log10(np.maximum(envelope, 1e-6))
    return np.clip((level - floor_db) * (255 / range_db), 0, 255).astype(np.float32)


def scan_maps(geometry: Geometry, scan: Scan) -> tuple[Floats, Floats, Floats]:
    """For each picture pixel: beam index, depth index, and the share of it (0 to 1) that lies in the field of view."""
    y, x = np.mgrid[0 : geometry.canvas_height, 0 : geometry.canvas_width].astype(np.float32)
    if geometry.kind == "linear":
        beam = (x - geometry.x) / (geometry.width - 1) * (scan.beams - 1)
        depth = (y - geometry.y) / (geometry.height - 1) * (scan.depths - 1)
        inside = (x >= geometry.x) & (x < geometry.x + geometry.width) & (y >= geometry.y) & (y < geometry.y + geometry.height)
        return beam, depth, inside.astype(np.float32)
    right, down = x - geometry.apex_x, y - geometry.apex_y
    radius, angle = np.hypot(right, down), np.arctan2(right, down)
    left_angle, right_angle = math.radians(geometry.angle_left_deg), math.radians(geometry.angle_right_deg)
    beam = (angle - left_angle) / (right_angle - left_angle) * (scan.beams - 1)
    depth = (radius - geometry.radius_inner) / geometry.depth_pixels * (scan.depths - 1)
    margin = np.minimum(radius - geometry.radius_inner, geometry.radius_outer - radius)
    margin = np.minimum(margin, radius * np.minimum(angle - left_angle, right_angle - angle))
    return beam.astype(np.float32), depth.astype(np.float32), np.clip(margin + 0.5, 0, 1).astype(np.float32)


def scan_convert(beams: Floats, maps: tuple[Floats, Floats, Floats]) -> NDArray[np.uint8]:
    """Frames on the beam grid (frames, depths, beams) as pictures (frames, height, width), black outside the field of view."""
    beam, depth, inside = maps
    pictures = [cv2.remap(frame, beam, depth, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) * inside for frame in beams]
    return np.clip(np.rint(np.stack(pictures)), 0, 255).astype(np.uint8)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma_rows: float, sigma_columns: float) -> Floats:
    """A Gaussian random field of zero mean and unit deviation, smooth over the given widths."""
    grow_rows, grow_columns = math.ceil(3 * sigma_rows), math.ceil(3 * sigma_columns)
    noise = rng.standard_normal((shape[0] + 2 * grow_rows, shape[1] + 2 * grow_columns), dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (2 * grow_columns + 1, 2 * grow_rows + 1), sigmaX=sigma_columns, sigmaY=sigma_rows)
    noise = noise[grow_rows : grow_rows + shape[0], grow_columns : grow_columns + shape[1]]
    return ((noise - noise.mean()) / max(float(noise.std()), 1e-6)).astype(np.float32)
