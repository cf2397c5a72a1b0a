"""How well are depth rulers found? Clips of known truth: a ruler of random style beside moving tissue, or none, among scanner's text.

    python benchmarks/depth_ruler.py [DATA] [--number 300] [--seed 0] [--sheet wrong.png]

Pictures are those of field_of_view.py, their fixed ruler taken out; half get a ruler (dots, dashes, with or without an axis line, one to
three sizes, digits, ticks covered by letters), half none but what may look like one: lines of text at even distances, lists with bullets,
stepped gray bars, ECG traces. All are encoded as H.264 and read again; the field of view is what a build finds. Every third clip comes with
the depth of its scan. Nothing of DATA is written but, when asked for, the sheet of what went wrong, which is subject to its licences.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from field_of_view import Made, Pictures, make
from measured import hand_on

from usdata.imaging.decision import decide
from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.geometry import Rectangle, box_of
from usdata.imaging.ruler import Ruler, find_ruler
from usdata.phantoms.encoding import write_clip
from usdata.readers import open_clip

# mm a tick, ticks from one major to the next, and to the largest where there are three sizes
STYLES = (
    (10.0, None, None),
    (5.0, None, None),
    (10.0, 5, None),
    (2.0, 5, None),
    (1.0, 5, None),
    (5.0, 2, None),
    (1.0, 5, 10),
    (10.0, 5, 10),
)
NEAR = 0.02  # of the spacing: a ruler is found if its spacing is as near to the truth


@dataclass(frozen=True)
class Planted:
    """A ruler as it was drawn."""

    x: float
    first_y: float
    spacing_px: float
    ticks: int
    mm_per_tick: float
    major_every: int | None
    levels: int
    mark: str


def plant(made: Made, rng: np.random.Generator) -> tuple[Pictures, Planted | None, float]:
    """The pictures with a ruler, what it is, and the depth of the scan in mm; None where no place or no scale fits."""
    pictures = made.pictures.copy()
    height, width = pictures.shape[1:3]
    mask = made.truth.mask(height, width)
    cleared = ~mask
    cleared[:, : width - 14] = False
    pictures[:, cleared] = pictures[0, 2, width // 2]
    x, y, wide, high = box_of(made.truth, height, width)
    top = y if isinstance(made.truth, Rectangle) else made.truth.apex_y + made.truth.radius_inner
    depth = y + high - top
    for _ in range(40):
        mm, every, largest = STYLES[int(rng.integers(len(STYLES)))]
        depth_mm = float(rng.uniform(25, 240))
        spacing = depth * mm / depth_mm
        if spacing >= 4.5 and depth / spacing >= 5.3 and (every is None or depth / spacing > 1.2 * every):
            break
    else:
        return pictures, None, 0.0
    mark = str(rng.choice(["dots", "dashes", "axis", "squares"]))
    scale = max(1, round(height / 500))
    small = int(rng.integers(1, 3)) * scale if mark in ("dots", "squares") else int(rng.integers(4, 8)) * scale
    small = min(small, max(1, int((spacing - 2) / 2.5))) if mark in ("dots", "squares") else small
    gap = int(rng.integers(3, 30)) + 4 * small
    on_left = bool(rng.random() < 0.5)
    inside = isinstance(made.truth, Rectangle) and rng.random() < 0.15
    column = (x + 6 * small if on_left else x + wide - 1 - 6 * small) if inside else (x - gap if on_left else x + wide - 1 + gap)
    longest = 4 * small
    if not longest + 2 <= column < width - longest - 2 or (inside and 6 * small > 0.05 * wide):
        return pictures, None, depth_mm
    start = top + float(rng.choice([0.0, 0.0, 0.5]) * spacing)
    count = int((y + high - 1 - start) / spacing) + 1
    if rng.random() < 0.7 and not inside:
        pictures[:, max(0, y - 4) : y + high + 5, max(0, column - longest - 2) : column + longest + 3] = 0
    level = int(rng.integers(110, 256))
    ink = np.zeros((height, width), np.uint8)
    phase = int(rng.integers(every)) if every and rng.random() < 0.3 else 0
    rows = [round(start + number * spacing) for number in range(count)]
    for number, row in enumerate(rows):
        size = 0 if every is None or (number + phase) % every else (2 if largest and (number + phase) % largest == 0 else 1)
        if mark == "dots":
            cv2.circle(ink, (column, row), small + size, level, -1)
        elif mark == "squares":
            cv2.rectangle(ink, (column - small, row - small // 2), (column + small + 2 * size, row + small // 2), level, -1)
        else:
            long = round(small * (1, 1.7, 2.6)[size])
            ends = ((column - long, row), (column, row)) if on_left else ((column, row), (column + long, row))
            cv2.line(ink, *ends, level, scale)
        if size and rng.random() < 0.6 and spacing * (every or 1) > 24:
            place = (column - longest - 24 if on_left else column + longest + 5, row + 4)
            cv2.putText(ink, str(number), place, 0, 0.35, level, 1, cv2.LINE_AA)
    if mark == "axis":
        cv2.line(ink, (column, rows[0]), (column, rows[-1]), level, scale)
    for row in rng.choice(rows[1:-1], size=int(rng.integers(0, 1 + len(rows) // 8)), replace=False).tolist():
        cv2.putText(ink, "MI 1.2" if on_left else "Gn 40", (column - 12, row + 5), 0, 0.4, 220, 1, cv2.LINE_AA)
    pictures = np.maximum(pictures, ink[None, :, :, None])
    levels = 1 if every is None else (2 if largest is None or count <= largest else 3)
    return pictures, Planted(column, rows[0], spacing, count, mm, largest if levels == 3 else every, levels, mark), depth_mm


def decoy(pictures: Pictures, made: Made, rng: np.random.Generator) -> Pictures:
    """The pictures with what is no ruler."""
    height, width = pictures.shape[1:3]
    x, y, wide, high = box_of(made.truth, height, width)
    ink = np.zeros((height, width), np.uint8)
    column = int(rng.uniform(0.02, 0.9) * max(1, x)) if rng.random() < 0.5 else int(rng.uniform(x + wide, width - 8))
    step = int(rng.integers(12, 30))
    kind = int(rng.integers(4))
    words = ("Gn 54", "DR 60", "FR 32", "TIS 0.4", "MI 0.9", "Pwr 100", "Map F", "- 3", "E 2", "= 12", "1", "2", "5", "10")
    if kind <= 1:
        same = words[int(rng.integers(len(words)))] if rng.random() < 0.4 else None
        for row in range(y + 10, y + high, step):
            cv2.putText(ink, same or words[int(rng.integers(len(words)))], (column, row), 0, step / 45, 230, 1, cv2.LINE_AA)
            if kind == 1:
                cv2.circle(ink, (max(3, column - 8), row - 4), 2, 230, -1)
    elif kind == 2:
        for number in range(16):
            ink[y + number * step : y + (number + 1) * step, column : column + 10] = 16 * number
    else:
        trace = np.full(width, 0.0)
        trace[::60] = 1
        curve = height - 12 - np.convolve(trace, np.array([0, 3, 0, 25, -8, 0, 4, 6, 3]), mode="same")
        cv2.polylines(ink, [np.stack([np.arange(width), curve], 1).astype(np.int32)], False, 230, 1)
    ink[made.truth.mask(height, width)] = 0
    return np.maximum(pictures, ink[None, :, :, None])


def seen(path: Path) -> EvidenceCollector:
    """What a build sees of a clip."""
    collector = EvidenceCollector()
    with open_clip(path) as clip:
        for frame in clip.frames():
            collector.offer(frame.pixels, clip.picture)
    return collector


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    sources = sorted(path for part in ("pocus_lung", "covid_blues") for path in (given.data / part).rglob("*.mp4")) if given.data else []
    rows: list[tuple[Planted | None, Ruler | None, bool]] = []
    seconds: list[float] = []
    wrong: list[np.ndarray] = []
    number = -1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        while len(rows) < given.number:
            number += 1
            made = make(number, given.seed, sources)
            if made is None:
                continue
            rng = np.random.default_rng([given.seed, number, 1])
            pictures, truth, depth_mm = plant(made, rng)
            if len(rows) % 2:
                rng = np.random.default_rng([given.seed, number, 2])
                pictures = made.pictures.copy()
                cleared = ~made.truth.mask(*pictures.shape[1:3])
                cleared[:, : pictures.shape[2] - 14] = False
                pictures[:, cleared] = pictures[0, 2, pictures.shape[2] // 2]
                pictures, truth = decoy(pictures, made, rng), None
            elif truth is None:
                continue
            write_clip(path, pictures, 20, crf=str(16 + number % 12))
            collector = seen(path)
            geometry = decide(collector.evidence, (), accept=0.85).geometry
            told = depth_mm if len(rows) % 3 == 0 and truth is not None else None
            start = time.process_time()
            found = find_ruler(collector, geometry, told)
            seconds.append(time.process_time() - start)
            rows.append((truth, found, told is not None))
            if (given.sheet and (truth is None) != (found is None)) or (truth and found and not agrees(truth, found)):
                wrong.append(_tile(pictures[0], truth, found, f"{number}"))
    report(rows, seconds)
    if given.sheet and wrong:
        wrong = wrong[:24] + [np.zeros_like(wrong[0])] * (-len(wrong[:24]) % 4)
        cv2.imwrite(str(given.sheet), np.vstack([np.hstack(wrong[place : place + 4]) for place in range(0, len(wrong), 4)])[..., ::-1])


def agrees(truth: Planted, found: Ruler) -> bool:
    """Whether it is this ruler that was found."""
    return abs(found.spacing_px / truth.spacing_px - 1) <= NEAR and abs(found.x - truth.x) <= 40


def report(rows: list[tuple[Planted | None, Ruler | None, bool]], seconds: list[float]) -> None:
    """Print what was measured, as Markdown."""
    planted = [(truth, found, told) for truth, found, told in rows if truth is not None]
    none = [found for truth, found, _ in rows if truth is None]
    right = [(truth, found) for truth, found, _ in planted if found is not None and agrees(truth, found)]
    all_found = sum(found is not None for _, found, _ in rows)
    print("| rulers | planted | found | recall |\n|---|--:|--:|--:|")
    parts: list[tuple[str, list[tuple[Planted, Ruler | None, bool]]]] = [("all", planted)]
    parts += [(mark, [row for row in planted if row[0].mark == mark]) for mark in ("dots", "dashes", "axis", "squares")]
    parts += [(f"{levels} size(s)", [row for row in planted if row[0].levels == levels]) for levels in (1, 2, 3)]
    for name, part in parts:
        good = sum(found is not None and agrees(truth, found) for truth, found, _ in part)
        print(f"| {name} | {len(part)} | {good} | {good / max(len(part), 1):.3f} |")
    print(
        f"\nprecision: {len(right)} of {all_found} ({len(right) / max(all_found, 1):.3f}); without a ruler: "
        f"{sum(found is not None for found in none)} found in {len(none)} clips"
    )
    hand_on("precision of rulers", len(right) / max(all_found, 1), limit=0.95, sense="at least", load=False)
    errors = [100 * abs(found.spacing_px / truth.spacing_px - 1) for truth, found in right]
    print(f"spacing error: median {np.median(errors):.3f} %, 95th percentile {np.percentile(errors, 95):.3f} %, most {max(errors):.3f} %")
    sizes = sum(found.major_every == truth.major_every for truth, found in right)
    print(f"majors right: {sizes} of {len(right)}")
    print("\n| scale from | told | wrong |\n|---|--:|--:|")
    for word in ("depth", "levels", "geometry"):
        claims = [(truth, found) for truth, found, _ in planted if found is not None and found.certainty == word]
        mm = [(truth.mm_per_tick / truth.spacing_px, found.plausible_mm[0] / found.spacing_px) for truth, found in claims]
        print(f"| {word} | {len(claims)} | {sum(abs(b / a - 1) > 0.02 for a, b in mm)} |")
    claimed = sum(found is not None and found.mm_per_tick is not None for _, found, _ in rows)
    print(f"\nscale claimed in {claimed} of {len(rows)} clips; depth was told in {sum(told for _, _, told in rows)}")
    milliseconds = 1000 * np.array(seconds)
    print(f"ms a clip: median {np.median(milliseconds):.2f}, 95th percentile {np.percentile(milliseconds, 95):.2f}")


def _tile(picture: np.ndarray, truth: Planted | None, found: Ruler | None, name: str) -> np.ndarray:
    picture = picture.copy()
    for ruler, shift, colour in ((truth, -8, (0, 255, 0)), (found, 8, (255, 60, 60))):
        for number in range(ruler.ticks if ruler else 0):
            assert ruler is not None
            place = (round(ruler.x) + shift, round(ruler.first_y + number * ruler.spacing_px))
            cv2.circle(picture, place, 2, colour, -1)
    scale = min(480 / picture.shape[1], 380 / picture.shape[0])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.zeros((400, 480, 3), np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    text = (
        f"{name} {truth and (truth.mark, truth.levels, round(truth.spacing_px, 1))} {found and (found.ticks, round(found.spacing_px, 1))}"
    )
    cv2.putText(tile, text, (4, 394), 0, 0.4, (255, 255, 0), 1)
    return tile


if __name__ == "__main__":
    main()
