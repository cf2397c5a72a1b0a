"""What the phantom's scatterers stand for: chest wall, lung with A-lines or B-lines, fine or coarse liver.

In: a `Scan`, a class and seeded generators. Out: a `Body`: scatterers with their strengths, which of them move with breathing, and the
shadows that bone casts. Tissue moves because its scatterers move; nothing here knows of pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.phantoms.physics import MARGIN_BEAMS, MARGIN_DEPTHS, Complexes, Floats, Scan, carrier, scatter, smooth_noise

WALL_MM_MIN, WALL_MM_MAX = 15.0, 25.0

LABELS = {"a_lines": "lung", "b_lines": "lung", "liver_fine": "liver", "liver_coarse": "liver"}
# What a pixel of a mask shows; 0 is what is none of these: outside the field of view, and beyond the diaphragm.
WALL, LUNG, LIVER, VESSEL = 1, 2, 3, 4
TISSUES = {WALL: "wall", LUNG: "lung", LIVER: "liver", VESSEL: "vessel"}
VIEWS = {"lung": ("right anterior", "left anterior", "right lateral", "left lateral"), "liver": ("subcostal", "intercostal", "right lobe")}


@dataclass(frozen=True)
class Habitus:
    """What all clips of a patient share."""

    wall_mm: float
    attenuation_db: float
    gain_db: float
    fat_share: float
    breath_s: float


@dataclass(frozen=True)
class Body:
    """Scatterers (n of them) in grid coordinates at rest.

    Attributes:
        beam: Beam index (n).
        depth: Depth index (n).
        strength: Two independent amplitudes (2, n); out-of-plane motion turns the first slowly into the second.
        specular: 1 where the scatterer belongs to a smooth reflector, whose echoes add in phase (n).
        mobility: 1 where it follows the breathing, 0 where it stays (n).
        transmission: Amplitude factor that the wall and the shadow of bone leave of the echoes (depths, beams).
        tissue: What is where at rest, a key of `TISSUES` or 0, over the grid and its margins.
    """

    beam: Floats
    depth: Floats
    strength: Complexes
    specular: Floats
    mobility: Floats
    transmission: Floats
    tissue: NDArray[np.uint8]


@dataclass(frozen=True)
class Movement:
    """How breath and hand move a clip's tissue; lengths in beams and depth samples."""

    phase: float
    slide: float
    sink: float
    hand_phase: float
    hand: float
    turn_per_s: float
    twinkle: float

    def at(self, time_s: np.float32, breath_s: float) -> tuple[float, float, float]:
        """At a time: how far what follows the breathing is to the right, and deeper; and how far everything is to the right by the hand."""
        breath = np.sin(2 * np.pi * time_s / breath_s + self.phase)
        drift = self.hand * np.sin(2 * np.pi * time_s / 3.1 + self.hand_phase)
        return self.slide * breath, self.sink * breath, drift


@dataclass(frozen=True)
class _Reflector:
    beam: Floats
    depth: Floats
    amplitude: Floats
    mobility: float


def draw_habitus(rng: np.random.Generator) -> Habitus:
    """A patient: independent of the class, so that wall, gain and attenuation do not give it away."""
    return Habitus(
        wall_mm=float(rng.uniform(WALL_MM_MIN, WALL_MM_MAX)),
        attenuation_db=float(rng.uniform(0.45, 0.6)),
        gain_db=float(rng.uniform(-3.0, 2.5)),
        fat_share=float(rng.uniform(0.25, 0.5)),
        breath_s=float(rng.uniform(2.4, 4.0)),
    )


def build_body(scan: Scan, label: str, habitus: Habitus, rng: np.random.Generator) -> Body:
    """Scatterers of one clip: the patient's habitus, and anatomy placed anew by `rng`."""
    beam, depth, strength = scatter(scan, rng)
    wall = habitus.wall_mm / scan.mm_per_sample
    tilt, bend = rng.uniform(-0.09, 0.09) * wall, rng.uniform(-0.06, 0.1) * wall
    ripple = smooth_noise(rng, (1, scan.beams + 2 * MARGIN_BEAMS), 0, 22)[0] * 0.025 * wall

    def surface(at: Floats) -> Floats:
        across = at / (scan.beams - 1) * 2 - 1
        base = wall + tilt * across - bend * across**2
        return (base + np.interp(at, np.arange(len(ripple)) - MARGIN_BEAMS, ripple)).astype(np.float32)

    wall_db, wall_lines = _wall(scan, habitus, surface, beam, depth, rng)
    below = (depth - surface(beam)) > 0
    shadow = np.ones((scan.depths, scan.beams), dtype=np.float32)
    # fat and fibres let some beams through better than others: faint streaks along the beams, fully grown below the wall
    uneven_db = 1.6 * smooth_noise(rng, (1, scan.beams), 0, 3)[0] + 1.6 * smooth_noise(rng, (1, scan.beams), 0, 12)[0]
    grown = np.clip(np.arange(scan.depths, dtype=np.float32) / wall, 0, 1)
    streaks = (10 ** (grown[:, None] * uneven_db[None, :] / 20)).astype(np.float32)
    tissue = np.where(below, LUNG, WALL)
    if LABELS[label] == "lung":
        organ_db, organ_lines = _lung(scan, label, surface, beam, depth, rng)
        if rng.random() < 0.55:
            rib, shadow[:] = _rib(scan, wall, rng)
            organ_lines.append(rib)
    else:
        organ_db, organ_lines, organ = _liver(scan, label, surface, beam, depth, rng)
        tissue = np.where(below, organ, WALL)
    decibel = np.where(below, organ_db, wall_db)
    strength *= (10 ** (decibel / 20)).astype(np.float32)
    parts = wall_lines + organ_lines
    lines = np.concatenate([part.amplitude for part in parts])
    return Body(
        beam=np.concatenate([beam, *(part.beam for part in parts)]),
        depth=np.concatenate([depth, *(part.depth for part in parts)]),
        strength=np.concatenate([strength, np.stack([lines, lines])], axis=1),
        specular=np.concatenate([np.zeros(len(beam), np.float32), np.ones(len(lines), np.float32)]),
        mobility=np.concatenate([below.astype(np.float32), *(np.full(len(part.beam), part.mobility, np.float32) for part in parts)]),
        transmission=shadow * streaks,
        # One scatterer stands in each cell of the grid, row by row.
        tissue=tissue.reshape(scan.depths + 2 * MARGIN_DEPTHS, -1).astype(np.uint8),
    )


def draw_movement(scan: Scan, label: str, rng: np.random.Generator) -> Movement:
    """Lung slides under a still wall, liver slides and sinks; the hand drifts; the plane slowly changes."""
    phase = rng.uniform(0, 2 * np.pi)
    scale = scan.beams / 160
    slide, sink = (rng.uniform(4, 7) * scale, 0.0) if LABELS[label] == "lung" else (rng.uniform(3, 6) * scale, rng.uniform(3, 6) * scale)
    hand_phase, hand = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.0) * scale
    turn_per_s = rng.uniform(0.8, 1.4)
    return Movement(phase, slide, sink, hand_phase, hand, turn_per_s, twinkle=rng.uniform(0, 2 * np.pi))


def breathe(scan: Scan, body: Body, habitus: Habitus, movement: Movement, times_s: Floats) -> list[tuple[Floats, Floats, Complexes]]:
    """The scatterers at each time."""
    mirror = body.specular > 0
    phases = carrier(scan, body.depth)
    first, second = body.strength[0] * phases, body.strength[1] * phases
    frames = []
    for time_s in times_s:
        slid, sunk, drift = movement.at(time_s, habitus.breath_s)
        beam = body.beam + body.mobility * np.float32(slid) + np.float32(drift)
        depth = body.depth + body.mobility * np.float32(sunk)
        turn = movement.turn_per_s * time_s
        amplitude = first * np.float32(np.cos(turn)) + second * np.float32(np.sin(turn))
        # what moves, moves as one, so its carrier turns as one
        amplitude *= np.where(body.mobility > 0, carrier(scan, np.array([sunk], np.float32)), np.complex64(1))
        amplitude[mirror] = body.strength[0][mirror] * np.float32(1 + 0.06 * np.sin(2 * np.pi * time_s / 0.9 + movement.twinkle))
        frames.append((beam.astype(np.float32), depth.astype(np.float32), amplitude.astype(np.complex64)))
    return frames


def _line(
    scan: Scan,
    depth_of: Callable[[Floats], Floats],
    decibel: float,
    rng: np.random.Generator,
    *,
    mobility: float,
    rough: float,
    spread: tuple[float, float] = (0.3, 0.5),
) -> _Reflector:
    """A reflector along `depth_of(beam)`; `rough` breaks it up along its length. Four points a beam, in phase.

    A mirror sends back what meets it at right angles: each one shines around one place and fades to the sides.
    """
    beam = np.arange(-MARGIN_BEAMS, scan.beams + MARGIN_BEAMS, 0.25, dtype=np.float32)
    glint = np.exp(-0.5 * ((beam / scan.beams - rng.uniform(0.35, 0.65)) / rng.uniform(*spread)) ** 2)
    patches = smooth_noise(rng, (1, len(beam)), 0, 10)[0] + 0.6 * smooth_noise(rng, (1, len(beam)), 0, 40)[0]
    amplitude = 10 ** (decibel / 20) / (4 * 1.3) * np.exp(rough * 0.55 * patches - rough * 0.3) * (0.03 + 0.97 * glint)
    return _Reflector(beam, depth_of(beam).astype(np.float32), amplitude.astype(np.float32), mobility)


def _sample(field: Floats, beam: Floats, depth: Floats) -> Floats:
    """Values of a field over the padded grid at scatterers' places; cut in strips, because OpenCV's maps end at 32,767 columns."""
    width = 16_384
    pieces = []
    for start in range(0, len(beam), width):
        columns, rows = beam[None, start : start + width] + MARGIN_BEAMS, depth[None, start : start + width] + MARGIN_DEPTHS
        pieces.append(cv2.remap(field, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0])
    return np.concatenate(pieces)


def _field(scan: Scan, rng: np.random.Generator, sigma_depths: float, sigma_beams: float) -> Floats:
    shape = (scan.depths + 2 * MARGIN_DEPTHS, scan.beams + 2 * MARGIN_BEAMS)
    return smooth_noise(rng, shape, sigma_depths, sigma_beams)


def _wall(
    scan: Scan, habitus: Habitus, surface: Callable[[Floats], Floats], beam: Floats, depth: Floats, rng: np.random.Generator
) -> tuple[Floats, list[_Reflector]]:
    """Skin, fat with septa, and striated muscle: levels in dB for scatterers above the surface, and the fasciae between."""
    share = depth / surface(beam)
    septa = _sample(_field(scan, rng, 1.4, 16), beam, depth)
    fibres = _sample(_field(scan, rng, 1.1, 34), beam, depth)
    skin, fat = 0.1, 0.1 + habitus.fat_share
    fat_db = -7 + 6.0 * np.maximum(septa, -0.5) * np.abs(septa)
    muscle_db = -3 + 6.5 * fibres
    decibel = np.where(share < skin, 11 + 2 * fibres, np.where(share < fat, fat_db, muscle_db))
    decibel = np.where(share < 0.035, -14, decibel)
    lines = [
        _line(scan, lambda at: surface(at) * fat, rng.uniform(15, 20), rng, mobility=0.0, rough=0.9),
        _line(scan, lambda at: surface(at) * (fat + (1 - fat) * 0.55) - 0.5, rng.uniform(10, 16), rng, mobility=0.0, rough=1.2),
        _line(scan, lambda at: surface(at) * 0.1, 14.0, rng, mobility=0.0, rough=0.6, spread=(0.6, 1.0)),
    ]
    return decibel.astype(np.float32), lines


def _rib(scan: Scan, wall: float, rng: np.random.Generator) -> tuple[_Reflector, Floats]:
    """One rib: a bright curved cortex within the wall, and its shadow along the beams below."""
    middle = rng.choice([rng.uniform(0.08, 0.3), rng.uniform(0.7, 0.92)]) * scan.beams
    half = rng.uniform(0.055, 0.09) * scan.beams
    top = rng.uniform(0.62, 0.75) * wall
    beam = np.arange(middle - half, middle + half, 0.25, dtype=np.float32)
    across = (beam - middle) / half
    amplitude = 10 ** (24 / 20) / (4 * 1.3) * (1 - 0.8 * across**2)
    cortex = _Reflector(beam, (top + 0.16 * wall * across**2).astype(np.float32), amplitude.astype(np.float32), 0.0)
    place = (np.arange(scan.beams, dtype=np.float32) - middle) / half
    blocked = 1 / (1 + np.exp((np.abs(place) - 0.95) * 9))
    below = 1 / (1 + np.exp(-(np.arange(scan.depths, dtype=np.float32) - top - 0.16 * wall - 2) / 1.5))
    return cortex, (1 - 0.965 * below[:, None] * blocked[None, :]).astype(np.float32)


def _lung(
    scan: Scan, label: str, surface: Callable[[Floats], Floats], beam: Floats, depth: Floats, rng: np.random.Generator
) -> tuple[Floats, list[_Reflector]]:
    """Below the pleura there is only reverberation: haze, A-lines at multiples of the pleura's depth, B-lines down to the bottom."""
    with_b_lines = label == "b_lines"
    grid = np.arange(-MARGIN_BEAMS, scan.beams + MARGIN_BEAMS, dtype=np.float32)
    uneven = smooth_noise(rng, (1, len(grid)), 0, 1.8)[0] * 0.7 + smooth_noise(rng, (1, len(grid)), 0, 7)[0] * 1.0
    rough = (np.maximum(uneven, -1.0) if with_b_lines else 0.1 * uneven).astype(np.float32)
    ray = np.zeros(len(grid), np.float32)  # B-line strength along the beams, 0 to 1, in coordinates that slide with the lung
    if with_b_lines:
        count = int(rng.integers(3, 7))
        places = np.linspace(0.1, 0.9, count) * scan.beams + rng.uniform(-0.06, 0.06, count) * scan.beams
        for place in places:
            width = rng.choice([rng.uniform(1.0, 2.2), rng.uniform(3.0, 7.0)]) * scan.beams / 160
            ray = np.maximum(ray, rng.uniform(0.7, 1.0) * np.exp(-0.5 * ((grid - place) / width) ** 2))

    def pleura(at: Floats) -> Floats:
        return surface(at) + np.interp(at, grid, rough).astype(np.float32)

    past = np.maximum(depth - surface(beam), 0) / scan.depths
    haze_db = (-5 if with_b_lines else -4) - (13 if with_b_lines else 15) * past + 2.0 * _sample(_field(scan, rng, 5, 12), beam, depth)
    ray_at = np.interp(beam, grid, ray)
    ripples = 1.5 * np.sin(depth * 2 * np.pi / 6.5)  # the ring-down's fine stripes
    decibel = haze_db + ray_at * (15 + 8 * past + ripples)
    bright = rng.uniform(29, 33)
    lines = [
        _line(scan, pleura, bright, rng, mobility=1.0, rough=1.0 if with_b_lines else 0.5),
        _line(scan, lambda at: pleura(at) + 1.6, bright - 6, rng, mobility=1.0, rough=1.0 if with_b_lines else 0.6),
    ]
    first_db = bright - (17 if with_b_lines else 8)
    for order in range(2, (2 if rng.random() < 0.7 else 3) if with_b_lines else 6):
        for part in range(2):  # each reverberation is a longer, fainter train than the one before
            level = first_db - 5.5 * (order - 2) - 4 * part
            multiple, delay = float(order), 1.7 * part

            def train(at: Floats, multiple: float = multiple, delay: float = delay) -> Floats:
                return surface(at) * multiple + delay

            line = _line(scan, train, level, rng, mobility=1.0, rough=1.0, spread=(0.14, 0.26))
            wiped = line.amplitude * (1 - np.interp(line.beam, grid, ray)) ** 2
            lines.append(_Reflector(line.beam, line.depth, wiped.astype(np.float32), 1.0))
    return decibel.astype(np.float32), lines


def _liver(
    scan: Scan, label: str, surface: Callable[[Floats], Floats], beam: Floats, depth: Floats, rng: np.random.Generator
) -> tuple[Floats, list[_Reflector], NDArray[np.int64]]:
    """Parenchyma, even or nodular; vessels without echoes, some with bright walls; capsule; diaphragm where the picture is deep enough.

    Besides levels and reflectors: which tissue each scatterer stands in, 0 beyond the diaphragm.
    """
    coarse = label == "liver_coarse"
    scale = scan.beams / 160
    x_mm, z_mm = scan.millimetres(beam, depth)
    if coarse:
        decibel = 4.0 * _sample(_field(scan, rng, 5.5 * scale, 5 * scale), beam, depth) + 2.0 * _sample(
            _field(scan, rng, 14 * scale, 10 * scale), beam, depth
        )
    else:
        decibel = 0.8 * _sample(_field(scan, rng, 9 * scale, 7 * scale), beam, depth)
    wall_mm = float(surface(np.array([scan.beams / 2], np.float32))[0]) * scan.mm_per_sample
    span = scan.depth_mm - wall_mm
    unit = scan.depth_mm / 130  # vessels shrink with the picture: near a linear probe only small ones lie
    taken: list[tuple[float, float]] = []
    tissue = np.full(len(beam), LIVER)
    for _ in range(int(rng.integers(1, 3)) if coarse else int(rng.integers(4, 7))):
        centre_z = wall_mm + span * rng.uniform(0.15, 0.7)
        reach = (scan.radius_mm + centre_z) * np.sin(scan.half_angle) if scan.half_angle else scan.width_mm / 2
        centre_x = reach * rng.uniform(-0.75, 0.75)
        angle, half_length, radius = rng.uniform(-1.0, 1.0), rng.choice([1.5, rng.uniform(7, 18)]) * unit, rng.uniform(1.6, 3.8) * unit
        curve, rim_db, edge = rng.uniform(-0.014, 0.014) / unit, rng.choice([1.0, 7.0]), 0.06
        if any(np.hypot(centre_x - x, centre_z - z) < 30 * unit for x, z in taken):
            continue
        taken.append((centre_x, centre_z))
        along = (x_mm - centre_x) * np.cos(angle) + (z_mm - centre_z) * np.sin(angle)
        across = (z_mm - centre_z) * np.cos(angle) - (x_mm - centre_x) * np.sin(angle) - curve * along**2
        thick = radius * np.clip(1 - 0.45 * along / (half_length + radius), 0.3, 1.4)  # vessels taper as they branch
        off = np.hypot(np.maximum(np.abs(along) - half_length, 0), across) / thick
        tissue[off < 1] = VESSEL
        decibel = decibel + rim_db * np.exp(-0.5 * ((off - 1.15) / 0.15) ** 2)
        decibel = decibel + (-30 - decibel) / (1 + np.exp(np.clip((off - 1) / edge, -30, 30)))
    grid = np.arange(-MARGIN_BEAMS, scan.beams + MARGIN_BEAMS, dtype=np.float32)
    bumps = smooth_noise(rng, (1, len(grid)), 0, 5 * scale)[0] * (1.6 if coarse else 0.25) * scale
    lines = [_line(scan, lambda at: surface(at) + np.interp(at, grid, bumps).astype(np.float32), 17, rng, mobility=1.0, rough=0.8)]
    if scan.half_angle and rng.random() < 0.8:
        arc_z, radius_mm = scan.depth_mm * rng.uniform(0.76, 0.9), scan.depth_mm * rng.uniform(0.75, 1.2)
        centre_x, centre_z = scan.depth_mm * rng.uniform(-0.35, 0.35), arc_z - radius_mm
        off = np.hypot(x_mm - centre_x, z_mm - centre_z) - radius_mm
        decibel = np.where(off > 0, -9 + 0.5 * decibel, decibel)
        tissue[off > 0] = 0

        def dome(at: Floats) -> Floats:
            angle = (at / (scan.beams - 1) * 2 - 1) * scan.half_angle
            # distance along a ray from the probe's centre of curvature to the dome's circle
            to_x, to_z = -centre_x, -scan.radius_mm - centre_z
            half_b = to_x * np.sin(angle) + to_z * np.cos(angle)
            inside = np.maximum(half_b**2 - (to_x**2 + to_z**2 - radius_mm**2), 0)
            return ((-half_b + np.sqrt(inside) - scan.radius_mm) / scan.mm_per_sample).astype(np.float32)

        lines += [
            _line(scan, dome, 22, rng, mobility=1.0, rough=0.9, spread=(0.12, 0.22)),
            _line(scan, lambda at: dome(at) + 1.8, 17, rng, mobility=1.0, rough=0.9, spread=(0.12, 0.22)),
        ]
    return decibel.astype(np.float32), lines, tissue
