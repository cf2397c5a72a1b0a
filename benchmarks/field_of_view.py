"""How well is the field of view found? Clips of known truth: moving tissue in a random shape, under random scanner surroundings.

    python benchmarks/field_of_view.py [DATA] [--number 300] [--seed 0] [--sheet worst.png]

Tissue is a phantom's, and, where DATA (a folder with pocus_lung/ and covid_blues/) is given, cut out of real clips. Clips are encoded as
H.264, read again, and judged by the estimator and by two baselines: the convex hull of bright pixels and the largest bright component.
Nothing of DATA is written but, when asked for, the sheet of the worst ones, which is then subject to its licences.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from measured import hand_on
from numpy.typing import NDArray

from usdata.imaging.evidence import Evidence, EvidenceCollector
from usdata.imaging.field_of_view import ACCEPTED, Estimate, estimate
from usdata.imaging.geometry import AnnulusSector, Geometry, Rectangle, box_of
from usdata.phantoms.clips import plan, render
from usdata.phantoms.encoding import write_clip
from usdata.readers import open_clip

KINDS = ("convex", "phased", "linear")
FRAMES = 20
MOVING = 0.6  # gray levels: what counts as moving tissue when a rectangle is cut out
Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Made:
    """One clip of known truth: (frames, height, width, RGB) and its field of view."""

    pictures: Pictures
    truth: Geometry
    kind: str
    tissue: str


def make(number: int, seed: int, sources: Sequence[Path]) -> Made | None:
    """A clip; None where its source holds no rectangle that moves all over. A third of them show phantom tissue."""
    rng = np.random.default_rng([seed, number])
    if number % 3 == 0 or not sources:
        tissue: Pictures | None = phantom_tissue(int(rng.integers(24)))
        name = "phantom"
    else:
        path = sources[int(rng.integers(len(sources)))]
        tissue = cut_tissue(path, rng)
        name = "covid_blues" if "covid_blues" in path.parts else "pocus_lung"
    if tissue is None:
        return None
    width = int(rng.choice([400, 512, 640, 800, 1024]))
    height = int(width / rng.choice([4 / 3, 5 / 4, 16 / 9, 1.0])) // 2 * 2
    kind = KINDS[number // 3 % 3]
    truth = random_shape(kind, width, height, rng)
    return Made(compose(tissue, truth, width, height, rng), truth, kind, name)


@lru_cache(maxsize=24)
def phantom_tissue(number: int) -> Pictures:
    """A rectangle of moving phantom tissue (frames, height, width)."""
    clip = plan(videos=24, seed=7, size=320, frames=FRAMES)[number]
    pictures, geometry = render(clip)
    gray = np.asarray(pictures[..., 1], np.uint8)
    if geometry.kind == "linear":
        return gray[:, geometry.y : geometry.y + geometry.height, geometry.x : geometry.x + geometry.width]
    middle, half = round(geometry.apex_x), geometry.radius_inner + 0.55 * geometry.depth_pixels
    reach = round(0.7 * half * math.tan(math.radians(geometry.angle_right_deg)))
    top, bottom = round(geometry.apex_y + half), round(geometry.apex_y + geometry.radius_inner + 0.92 * geometry.depth_pixels)
    return gray[:, top:bottom, middle - reach : middle + reach]


def cut_tissue(path: Path, rng: np.random.Generator) -> Pictures | None:
    """The largest of some random rectangles of a real clip in which nearly every pixel moves."""
    frames = real_frames(path)
    if frames is None:
        return None
    activity = cv2.blur(np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=0).astype(np.float32), (15, 15))
    height, width = activity.shape
    best: tuple[int, int, int, int] | None = None
    for _ in range(60):
        cut_width, cut_height = int(width * rng.uniform(0.3, 0.6)), int(height * rng.uniform(0.3, 0.6))
        x, y = int(rng.integers(0, width - cut_width)), int(rng.integers(0, height - cut_height))
        moving = float((activity[y : y + cut_height, x : x + cut_width] > MOVING).mean())
        if moving > 0.93 and (best is None or cut_width * cut_height > best[2] * best[3]):
            best = x, y, cut_width, cut_height
    if best is None:
        return None
    x, y, cut_width, cut_height = best
    return frames[:, y : y + cut_height, x : x + cut_width]


@lru_cache(maxsize=16)
def real_frames(path: Path) -> Pictures | None:
    """Evenly spaced frames of a clip, gray."""
    with open_clip(path) as clip:
        frames = [np.asarray(frame.pixels, np.uint8) for frame in clip.frames()]
    stride = max(1, len(frames) // FRAMES)
    chosen = frames[: FRAMES * stride : stride]
    return np.stack(chosen) if len(chosen) >= 6 else None


def random_shape(kind: str, width: int, height: int, rng: np.random.Generator) -> Geometry:
    """A field of view that lies within the picture."""
    if kind == "linear":
        box_width, box_height = int(width * rng.uniform(0.35, 0.7)), int(height * rng.uniform(0.5, 0.85))
        x, y = int(rng.uniform(0.05, 0.95) * (width - box_width)), int(rng.uniform(0.1, 0.9) * (height - box_height))
        return Rectangle(x, y, box_width, box_height)
    half = rng.uniform(20, 40) if kind == "convex" else rng.uniform(30, 45)
    depth = height * rng.uniform(0.6, 0.85)
    inner = depth * (rng.uniform(0.2, 0.6) if kind == "convex" else rng.uniform(0, 0.06))
    apex_y = height * rng.uniform(0.03, 0.12) - inner * math.cos(math.radians(half))
    outer = min(inner + depth, height - 4 - apex_y)
    half = min(half, math.degrees(math.asin(min(1.0, 0.4 * width / outer))))
    skew = rng.uniform(-4, 4) if rng.random() < 0.3 else 0.0
    return AnnulusSector(width * rng.uniform(0.45, 0.55), apex_y, inner, outer, -half + skew, half)


def compose(tissue: Pictures, truth: Geometry, width: int, height: int, rng: np.random.Generator) -> Pictures:
    """Tissue in its shape over a scanner's surroundings: text, ruler, gray bar, now and then a running clock; a third with dark parts."""
    mask = truth.mask(height, width)
    x, y, box_width, box_height = box_of(truth, height, width)
    gain = np.ones((height, width), np.float32)
    if rng.random() < 0.35:
        coarse = rng.normal(0, 1, (4, 4)).astype(np.float32)
        gain = (1 / (1 + np.exp(-3 * (cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + 0.6)))).astype(np.float32)
    panel = np.full((height, width, 3), int(rng.choice([0, 0, 0, 0, 8, 30])), np.uint8)
    colours = ((230, 230, 230), (250, 220, 0), (80, 200, 255), (130, 130, 130))
    for _ in range(int(rng.integers(3, 14))):
        text = f"{('MI 0.8', 'TIS 0.3', 'Gn 54 dB', 'FR 32 Hz', 'C5-2', 'ABDOMEN')[int(rng.integers(6))]} {int(rng.integers(999))}"
        place = int(rng.uniform(0, 0.85) * width), int(rng.uniform(0.04, 0.98) * height)
        cv2.putText(panel, text, place, int(rng.integers(4)), float(rng.uniform(0.3, 0.9)), colours[int(rng.integers(4))], 1, cv2.LINE_AA)
    for tick in range(12):
        cv2.line(panel, (width - 12, 40 + tick * height // 14), (width - 4, 40 + tick * height // 14), (200, 200, 200), 1)
    panel[40:100, 6:16] = np.linspace(255, 0, 60).astype(np.uint8)[:, None, None]
    clock = rng.random() < 0.2
    pictures = []
    for number, frame in enumerate(tissue):
        picture = panel.copy()
        if clock:
            cv2.putText(picture, f"{number * 7:04d}", (10, height - 8), 0, 0.5, (220, 220, 220), 1)
        level = np.zeros((height, width), np.float32)
        level[y : y + box_height, x : x + box_width] = cv2.resize(frame, (box_width, box_height), interpolation=cv2.INTER_LINEAR)
        picture[mask] = np.clip(level * gain, 0, 255).astype(np.uint8)[mask][:, None]
        pictures.append(picture)
    return np.stack(pictures)


def hull_of_bright(evidence: Evidence) -> NDArray[np.bool_]:
    """Baseline: the convex hull of what is bright (Otsu's threshold of the mean picture)."""
    mean = np.clip(evidence.mean, 0, 255).astype(np.uint8)
    bright = cv2.threshold(mean, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    points = cv2.findNonZero(bright)
    hull = np.zeros_like(mean)
    if points is not None:
        cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return hull > 0


def largest_component(evidence: Evidence) -> NDArray[np.bool_]:
    """Baseline: the largest connected part of what is not black in the mean picture, its holes filled."""
    lit = cv2.morphologyEx((evidence.mean > 8).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(lit)
    if count < 2:
        return lit > 0
    largest = (labels == 1 + int(boxes[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    outlines, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(largest, outlines, -1, 1, cv2.FILLED) > 0


def iou_of_masks(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Intersection over union of a mask and one at working size."""
    large = cv2.resize(found.astype(np.uint8), truth.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return float((truth & large).sum() / (truth | large).sum())


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    sources = sorted(path for part in ("pocus_lung", "covid_blues") for path in (given.data / part).rglob("*.mp4")) if given.data else []
    rows: list[tuple[float, Made, Estimate]] = []
    baselines: dict[str, list[float]] = {"hull of bright pixels": [], "largest component": []}
    methods: dict[str, Callable[[Evidence], NDArray[np.bool_]]] = dict(zip(baselines, (hull_of_bright, largest_component), strict=True))
    seconds = []
    number = -1
    with tempfile.TemporaryDirectory() as folder:
        while len(rows) < given.number:
            number += 1
            made = make(number, given.seed, sources)
            if made is None:
                continue
            path = Path(folder) / "clip.mp4"
            write_clip(path, made.pictures, 20, crf=str(16 + number % 12))
            with open_clip(path) as clip:
                collector = EvidenceCollector(clip.info.frames_declared)
                for frame in clip.frames():
                    collector.offer(frame.pixels, clip.picture)
            start = time.perf_counter()
            evidence = collector.evidence
            assert evidence is not None
            found = estimate(evidence)
            seconds.append(time.perf_counter() - start)
            truth = made.truth.mask(*made.pictures.shape[1:3])
            shape = np.zeros_like(truth) if found.geometry is None else found.geometry.mask(*truth.shape)
            rows.append((float((truth & shape).sum() / (truth | shape).sum()), made, found))
            for name, method in methods.items():
                baselines[name].append(iou_of_masks(truth, method(evidence)))
    report(rows, baselines, seconds)
    if given.sheet:
        write_sheet(rows, given.sheet)


def report(rows: Sequence[tuple[float, Made, Estimate]], baselines: dict[str, list[float]], seconds: Sequence[float]) -> None:
    """Print what was measured, as Markdown."""
    print("| clips | number | median IoU | 10th percentile | least |")
    print("|---|---|---|---|---|")
    parts: list[tuple[str, list[float]]] = [("all", [iou for iou, _, _ in rows])]
    parts += [(kind, [iou for iou, made, _ in rows if made.kind == kind]) for kind in KINDS]
    tissues = sorted({made.tissue for _, made, _ in rows})
    parts += [(f"tissue: {tissue}", [iou for iou, made, _ in rows if made.tissue == tissue]) for tissue in tissues]
    parts += [(f"baseline: {name}", values) for name, values in baselines.items()]
    for name, values in parts:
        print(f"| {name} | {len(values)} | {np.median(values):.3f} | {np.percentile(values, 10):.3f} | {min(values):.3f} |")
    accepted = [iou for iou, _, found in rows if found.confidence >= ACCEPTED]
    good = sum(iou >= 0.9 for iou in accepted)
    hand_on("median overlap with the true field of view", float(np.median(parts[0][1])), limit=0.98, sense="at least", load=False)
    hand_on("of the accepted ones, overlap of .90 or more", good / len(accepted), limit=0.98, sense="at least", load=False)
    share = f"{good / len(accepted):.1%}"
    print(f"\naccepted (confidence >= {ACCEPTED}): {len(accepted)} of {len(rows)}, of them {good} ({share}) with IoU >= .90")
    print(f"median time of an estimate: {1000 * float(np.median(seconds)):.1f} ms")


def write_sheet(rows: Sequence[tuple[float, Made, Estimate]], path: Path) -> None:
    """The 24 worst: truth green, estimate red."""
    tiles = []
    for iou, made, found in sorted(rows, key=lambda row: row[0])[:24]:
        picture = made.pictures[len(made.pictures) // 2].copy()
        for shape, colour in ((made.truth, (0, 255, 0)), (found.geometry, (255, 60, 60))):
            if shape is not None:
                cv2.polylines(picture, [np.rint(np.array(shape.polygon())).astype(np.int32)], True, colour, 2)
        scale = min(320 / picture.shape[1], 240 / picture.shape[0])
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        tile = np.zeros((240, 320, 3), np.uint8)
        tile[: small.shape[0], : small.shape[1]] = small
        cv2.putText(tile, f"{iou:.3f} confidence {found.confidence:.2f}", (4, 234), 0, 0.45, (255, 255, 0), 1)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 6)
    cv2.imwrite(str(path), np.vstack([np.hstack(tiles[place : place + 6]) for place in range(0, len(tiles), 6)])[..., ::-1])


if __name__ == "__main__":
    main()
