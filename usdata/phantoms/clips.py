"""What each clip of the phantom shows: who is scanned, with which device, and the finished picture with its surroundings.

In: a number of clips and a seed. Out: `Clip` plans, and for each the frames and the field of view's true geometry. Guarantees: a clip
depends on the seed and its own place alone, and devices and classes form a Latin square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.phantoms.anatomy import LABELS, VIEWS, Habitus, breathe, build_body, draw_habitus, draw_movement
from usdata.phantoms.physics import MARGIN_BEAMS, MARGIN_DEPTHS, Geometry, Scan, echoes, log_compress, receive, scan_convert, scan_maps

FLOOR_DB, RANGE_DB = -25.0, 60.0
PATIENT_SEEDS, CLIP_SEEDS, FAULT_SEEDS = 1, 2, 3  # name spaces of the seeds


@dataclass(frozen=True)
class Device:
    """A fictitious scanner: its probe, its picture and what it writes around it. Lengths of the picture are shares of `size`."""

    name: str
    manufacturer: str
    kind: str
    canvas: tuple[float, float]
    depths_mm: tuple[float, ...]
    radius_mm: float
    half_angle_deg: float
    frequency_mhz: float
    fps: int
    container: str
    ruler: str
    colour: tuple[int, int, int]
    smooth: float
    persistence: float


DEVICES = (
    Device("Sonaria C60", "Sonaria", "convex", (1.25, 1.0), (110, 140), 52, 31, 3.3, 25, "mp4", "right", (80, 160, 255), 0.55, 0.25),
    Device("Auralis P21", "Auralis", "phased", (1.125, 1.0), (120, 150), 4, 37, 2.7, 30, "avi", "left", (255, 170, 60), 0.7, 0.35),
    Device("Velum L14", "Velum Imaging", "linear", (1.0, 1.125), (50, 60), 0, 0, 7.5, 20, "mp4", "right", (90, 220, 150), 0.5, 0.2),
    Device("Auralis V5", "Auralis", "convex", (1.25, 1.125), (130, 160), 40, 31, 3.0, 24, "mpeg", "left", (255, 170, 60), 0.65, 0.3),
)


@dataclass(frozen=True)
class Clip:
    """What one clip will show, decided before anything is drawn."""

    name: str
    patient: int
    label: str
    device: Device
    container: str
    view: str
    depth_mm: float
    width: int
    height: int
    frames: int
    seeds: tuple[int, int, int]
    patient_seeds: tuple[int, int, int]

    @property
    def fps(self) -> int:
        """Frames a second."""
        return self.device.fps

    @property
    def path(self) -> str:
        """Relative to the phantom's folder."""
        return f"clips/{self.name}.{self.container}"


def plan(*, videos: int, seed: int, size: int = 320, frames: int = 48) -> list[Clip]:
    """Who is scanned with what: four patients a block, one of each class, so that devices and classes form a Latin square.

    Over four blocks (16 patients, 40 clips) each class meets each device equally often. A patient has two or three clips (the last one of
    all may have fewer) and one class; of one three-clip patient in four, the third clip comes from another device.
    """
    clips: list[Clip] = []
    patient = 0
    labels = list(LABELS)
    while len(clips) < videos:
        block, position = divmod(patient, len(labels))
        place = int(_generator(seed, PATIENT_SEEDS, 10_000_000 + block).permutation(len(labels))[position])
        device_index = (block + place) % len(DEVICES)
        for visit in range(2 + (block + place) % 2):
            moved = visit == 2 and block % 4 == (1, 0, 3, 2)[place]
            device = DEVICES[(device_index + 2) % len(DEVICES)] if moved else DEVICES[device_index]
            clips.append(
                _clip(f"clip_{len(clips):03d}", patient, labels[place], device, visit, (seed, CLIP_SEEDS, len(clips)), size, frames)
            )
        patient += 1
    return clips[:videos]


def _clip(name: str, patient: int, label: str, device: Device, visit: int, seeds: tuple[int, int, int], size: int, frames: int) -> Clip:
    patient_seeds = (seeds[0], PATIENT_SEEDS, patient)
    views = VIEWS[LABELS[label]]
    return Clip(
        name=name,
        patient=patient,
        label=label,
        device=device,
        container="gif" if device.kind == "linear" and visit == 1 else device.container,
        view=views[(patient + visit) % len(views)],
        depth_mm=float(_generator(*patient_seeds).choice(device.depths_mm)),
        width=even(device.canvas[0] * size),
        height=even(device.canvas[1] * size),
        frames=frames,
        seeds=seeds,
        patient_seeds=patient_seeds,
    )


def even(value: float) -> int:
    """The nearest even number: what chroma at half resolution asks of a picture's sides."""
    return round(value / 2) * 2


def _generator(seed: int, space: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, space, index])))


def field_of_view(clip: Clip) -> Geometry:
    """Where the clip's picture holds tissue: as large as the surroundings allow."""
    width, height, device = clip.width, clip.height, clip.device
    top, bottom, side = 0.085 * height, 0.05 * height, 0.055 * width
    if device.kind == "linear":
        x, y = round(0.13 * width), round(0.1 * height)
        box_width, box_height = round(0.72 * width), round(0.82 * height)
        return Geometry("linear", width, height, x=x, y=y, width=box_width, height=box_height)
    angle = math.radians(device.half_angle_deg)
    inner_share = device.radius_mm / (device.radius_mm + clip.depth_mm)
    tallest = (height - top - bottom) / (1 - inner_share * math.cos(angle))
    widest = (width / 2 - side) / math.sin(angle)
    outer = min(tallest, widest)
    inner = inner_share * outer
    apex_y = top - inner * math.cos(angle)
    degrees = device.half_angle_deg
    return Geometry(device.kind, width, height, (width - 1) / 2, apex_y, inner, outer, -degrees, degrees)


def render(clip: Clip, *, burned_in: str = "") -> tuple[NDArray[np.uint8], Geometry]:
    """A clip's frames (frames, height, width, RGB) and where they hold tissue."""
    geometry, scan, habitus, rng = _scanned(clip)
    gray = _scan_tissue(clip, scan, geometry, habitus, rng)
    paint = _surroundings(clip, geometry, burned_in)
    return np.maximum(gray[..., None], paint[None]), geometry


def render_masks(clip: Clip) -> NDArray[np.uint8]:
    """What each pixel of a clip's frames shows, (frames, height, width): a key of `anatomy.TISSUES`, or 0 for none of them.

    Tissue under the shadow of a rib is what it is, though nothing is seen of it.
    """
    geometry, scan, habitus, rng = _scanned(clip)
    body = build_body(scan, clip.label, habitus, rng)
    movement = draw_movement(scan, clip.label, rng)
    beam, depth, inside = scan_maps(geometry, scan)
    masks = []
    for time_s in _times_s(clip):
        slid, sunk, drift = movement.at(time_s, habitus.breath_s)
        # The wall is alike along the beams, so that its edge alone tells whether it slid: what moves lies where its edge moved to.
        at_rest = (np.float32(MARGIN_BEAMS - slid - drift) + beam, np.float32(MARGIN_DEPTHS - sunk) + depth)
        masks.append(cv2.remap(body.tissue, *at_rest, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE))
    return np.where(inside >= 0.5, np.stack(masks), 0).astype(np.uint8)


def _scanned(clip: Clip) -> tuple[Geometry, Scan, Habitus, np.random.Generator]:
    """Where the picture holds tissue, how it is sampled, of whom, and the generator of all that follows."""
    rng = _generator(*clip.seeds)
    geometry, device = field_of_view(clip), clip.device
    habitus = draw_habitus(_generator(*clip.patient_seeds))
    depths, beams = round(1.08 * geometry.depth_pixels), 2 * round(0.25 * min(clip.width, clip.height))
    width_mm = clip.depth_mm * geometry.width / geometry.height if geometry.kind == "linear" else 0.0
    angle = math.radians(device.half_angle_deg)
    focus = float(rng.uniform(0.3, 0.6))
    return geometry, Scan(depths, beams, clip.depth_mm, device.radius_mm, angle, width_mm, device.frequency_mhz, focus), habitus, rng


def _times_s(clip: Clip) -> NDArray[np.float32]:
    return (np.arange(clip.frames) / clip.fps).astype(np.float32)


def _scan_tissue(clip: Clip, scan: Scan, geometry: Geometry, habitus: Habitus, rng: np.random.Generator) -> NDArray[np.uint8]:
    device = clip.device
    body = build_body(scan, clip.label, habitus, rng)
    movement = draw_movement(scan, clip.label, rng)
    field = echoes(scan, breathe(scan, body, habitus, movement, _times_s(clip))) * body.transmission
    envelope = receive(scan, field, rng, attenuation_db=habitus.attenuation_db, compensated=rng.uniform(0.88, 0.97), noise_db=-58)
    # one side of the probe often touches less well than the other
    contact = np.clip(1 - rng.uniform(0, 0.5) * np.linspace(-0.6, 1, scan.beams) ** 3, 0.2, 1)
    contact = contact[:: int(rng.choice([-1, 1]))] * 10 ** (habitus.gain_db / 20)
    lines = log_compress(envelope * contact.astype(np.float32), floor_db=FLOOR_DB, range_db=RANGE_DB)
    for index, frame in enumerate(lines):
        smooth = cv2.GaussianBlur(frame, (0, 0), device.smooth)
        lines[index] = smooth if not index else (1 - device.persistence) * smooth + device.persistence * lines[index - 1]
    return scan_convert(lines, scan_maps(geometry, scan))


def _surroundings(clip: Clip, geometry: Geometry, burned_in: str) -> NDArray[np.uint8]:
    """Text, ruler, logo and gray bar around the tissue: (height, width, RGB). The lower right corner stays empty."""
    device, width, height = clip.device, clip.width, clip.height
    paint = np.zeros((height, width, 3), np.uint8)
    scale = min(width, height) / 320
    rng = _generator(*clip.seeds)

    def write(text: str, x: float, y: float, colour: tuple[int, int, int] = (190, 190, 190), large: float = 0.3) -> None:
        cv2.putText(paint, text, (round(x), round(y)), cv2.FONT_HERSHEY_SIMPLEX, large * scale, colour, 1, cv2.LINE_AA)

    write(burned_in or device.name, 26 * scale, 13 * scale, large=0.36)
    logo = np.array([[8, 14], [14, 4], [20, 14], [14, 11]]) * scale
    cv2.fillPoly(paint, [np.rint(logo).astype(np.int32)], device.colour, cv2.LINE_AA)
    write(f"MI {rng.uniform(0.6, 1.2):.1f}  TIs {rng.uniform(0.1, 0.6):.1f}", width - 92 * scale, 12 * scale)
    facts = (f"{device.frequency_mhz:.1f} MHz", f"G {int(rng.integers(42, 70))}", f"{clip.depth_mm / 10:.1f} cm", f"{clip.fps} Hz")
    if geometry.kind == "linear":
        write("   ".join(facts), 8 * scale, height - 9 * scale)
    else:
        for index, fact in enumerate(facts):
            write(fact, 5 * scale, (34 + 12 * index) * scale)
    top = geometry.y if geometry.kind == "linear" else geometry.apex_y + geometry.radius_inner
    per_cm = geometry.depth_pixels / (clip.depth_mm / 10)
    edge, inward = (width - 6 * scale, -1) if device.ruler == "right" else (6 * scale, 1)
    for tick in range(int(clip.depth_mm / 10) + 1):
        y = round(top + tick * per_cm)
        length = (7 if tick % 5 == 0 else 4) * scale
        if y < height * (0.88 if device.ruler == "right" else 0.98) and (device.ruler == "right" or y > 84 * scale):
            cv2.line(paint, (round(edge), y), (round(edge + inward * length), y), (170, 170, 170), 1)
    if device.manufacturer == "Sonaria":
        bar = np.linspace(255, 0, max(2, round(60 * scale)))[:, None, None].astype(np.uint8)
        left = round(width - 20 * scale)
        paint[round(30 * scale) : round(30 * scale) + len(bar), left : left + max(2, round(5 * scale))] = bar
    if not burned_in:
        return paint
    write("EX 0001", 5 * scale, height - 8 * scale)
    return paint
