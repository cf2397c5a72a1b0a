"""How surely pixels alone tell M-mode and spectral strips, ECG traces, elastography and colour Doppler from B-mode.

    python benchmarks/modes.py [DATA] [--number 200] [--seed 0] [--show]

Displays are drawn from physics and from B-modes: the phantom's, and of DATA (with pocus_lung/ and covid_blues/) real ones. An M-mode is one
column of a clip laid out over time; a spectrum is the speckled periodogram of a cardiac flow. Strips sweep or scroll, alone, under or
beside a B-mode that is live or frozen, and go through H.264. Printed: confusion, precision and recall, ms a clip, and the calls on all
clips of DATA as they are, which are B-mode all. Colour boxes are drawn over the same B-modes: no real elastography was at hand.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from measured import hand_on
from numpy.typing import NDArray

from usdata.errors import ReadError
from usdata.imaging.colour_patch import patch_kind
from usdata.imaging.evidence import EvidenceCollector
from usdata.imaging.sweep import Sweep, sweep_of
from usdata.looking import look_at
from usdata.phantoms.clips import plan, render
from usdata.phantoms.encoding import write_clip
from usdata.readers import open_clip
from usdata.recipe import Hygiene

Gray = NDArray[np.uint8]
SUFFIXES = {".mp4", ".avi", ".mov", ".mpeg", ".mpg", ".gif"}
STRIPS = ("m_mode", "spectral")
SIZES = ((320, 240), (480, 360), (640, 480), (720, 540))


def main() -> None:
    """Draw, encode, look, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="a folder with pocus_lung/ and covid_blues/")
    parser.add_argument("--number", type=int, default=200, help="drawn clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="name each wrong answer")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    real = [path for name in ("pocus_lung", "covid_blues") for path in clips_of(given.data / name)] if given.data else []
    counts: Counter[tuple[str, str]] = Counter()
    kinds: Counter[tuple[str, str]] = Counter()
    colours: Counter[tuple[str, str]] = Counter()
    spent: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.number):
            rng = np.random.default_rng([given.seed, number])
            tissue = phantom(int(rng.integers(8))) if not real or rng.random() < 0.4 else unique_frames(real[rng.integers(len(real))])
            truth = ("m_mode", "spectral", "trace", "b_mode")[number % 4]
            frames, fps, how = draw(truth, tissue, rng)
            write_clip(Path(folder) / "clip.mp4", frames, fps)
            found, seconds = call(sample(Path(folder) / "clip.mp4"))
            spent.append(seconds)
            said = word(found)
            counts["sweep" if truth in STRIPS else truth, said] += 1
            if truth in STRIPS:
                kinds[truth, str(found.kind) if found else "no sweep"] += 1
            if given.show and said != ("sweep" if truth in STRIPS else truth):
                print(f"{number}: {truth} ({how}), called {said}: {found}")
            colour = ("doppler", "power_doppler", "tissue_doppler", "elastography", "tint", "text")[number % 6]
            picture, inside = draw_colour(colour, tissue[0], rng)
            answer = str(patch_kind(picture, inside))
            colours[colour, answer] += 1
            if given.show and answer != expected(colour):
                print(f"{number}: {colour}, called {answer}")
    table(counts, ("sweep", "trace", "b_mode"), ("sweep", "trace", "b_mode"))
    table(kinds, STRIPS, (*STRIPS, "None", "no sweep"))
    table(colours, tuple(dict.fromkeys(key for key, _ in colours)), ("doppler", "elastography", "None"))
    print(f"sweep_of: {1000 * float(np.median(spent)):.2f} ms a clip (median), {1000 * max(spent):.2f} at most")
    if given.data:
        false = {path.name: word(call(sample(path))[0]) for path in clips_of(given.data)}
        wrong = {name: said for name, said in false.items() if said != "b_mode"}
        print(f"{len(false)} real clips as they are, called other than b_mode: {wrong or 'none'}")


def clips_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def word(found: Sweep | None) -> str:
    return "b_mode" if found is None else "trace" if found.style == "trace" else "sweep"


def call(frames: Sequence[Gray]) -> tuple[Sweep | None, float]:
    start = time.thread_time()
    found = sweep_of(frames)
    return found, time.thread_time() - start


def table(counts: Counter[tuple[str, str]], truths: Sequence[str], words: Sequence[str]) -> None:
    print(f"\n| truth | {' | '.join(words)} | precision | recall |\n|---|{'--:|' * (len(words) + 2)}")
    for truth in truths:
        right = counts[truth, expected(truth)]
        called, planted = (sum(n for key, n in counts.items() if key[side] == name) for side, name in ((1, expected(truth)), (0, truth)))
        if len(truths) == len(words):  # where several truths have one answer, a row's precision is that of none of them
            hand_on(f"{truth}: precision", right / max(called, 1), sense="at least", load=False)
            hand_on(f"{truth}: recall", right / max(planted, 1), sense="at least", load=False)
        row = " | ".join(str(counts[truth, said]) for said in words)
        print(f"| {truth} | {row} | {right / max(called, 1):.3f} | {right / max(planted, 1):.3f} |")


def expected(truth: str) -> str:
    return {"power_doppler": "doppler", "tissue_doppler": "doppler", "tint": "None", "text": "None"}.get(truth, truth)


@cache
def phantom(number: int) -> Gray:
    """Gray frames of a phantom's clip, (frames, height, width)."""
    return render(plan(videos=8, seed=5, frames=48)[number])[0].max(axis=3)


def unique_frames(path: Path, most: int = 150) -> Gray:
    with open_clip(path) as clip:
        frames = [look.frame.pixels.copy() for look, _ in zip(look_at(clip, Hygiene()), range(most), strict=False) if look.reason is None]
    return np.stack(frames)


def sample(path: Path) -> list[Gray]:
    """What a build keeps of a clip: evenly spaced unique frames at working size."""
    collector = EvidenceCollector()
    try:
        with open_clip(path) as clip:
            for look in look_at(clip, Hygiene()):
                if look.reason is None:
                    collector.offer(look.frame.pixels, lambda look=look: look.frame.pixels)  # type: ignore[misc]
    except ReadError:
        return []
    return collector.frames


def m_mode(tissue: Gray, times_s: NDArray[np.float64], height: int, rng: np.random.Generator) -> Gray:
    """One column of a clip over time, forth and back where the clip is shorter, interpolated: (height, times) uint8."""
    lit = tissue.mean(axis=(0, 1)) * (tissue.std(axis=0).mean(axis=0) + 1)
    column = int(rng.choice(np.argsort(lit)[-len(lit) // 3 :]))
    line = tissue[:, :, max(column - 1, 0) : column + 2].mean(axis=2)
    rows = np.flatnonzero(line.max(axis=0) > 16)
    line = line[:, rows[0] : rows[-1] + 1] if rows.size else line
    line = cv2.resize(line, (height, len(line)), interpolation=cv2.INTER_AREA)
    places = np.abs((times_s * 25) % max(2 * (len(line) - 1), 1) - (len(line) - 1))
    before = np.minimum(places.astype(int), max(len(line) - 2, 0))
    share = (places - before)[:, None]
    strip = line[before] * (1 - share) + line[np.minimum(before + 1, len(line) - 1)] * share
    noise = cv2.GaussianBlur(rng.normal(1.0, 0.35, strip.shape), (0, 0), 0.8)
    return np.clip(strip * noise, 0, 255).astype(np.uint8).T


def spectral(times_s: NDArray[np.float64], height: int, rng: np.random.Generator) -> Gray:
    """Log-compressed periodogram of pulsatile flow: its power in each velocity bin is exponentially distributed (speckle)."""
    beat = times_s * rng.uniform(0.8, 1.9)
    phase = beat % 1
    peak, late = rng.uniform(0.35, 0.85), rng.uniform(0.02, 0.4)
    flow = peak * np.exp(-(((phase - 0.18) / rng.uniform(0.06, 0.12)) ** 2)) + late * np.exp(-(((phase - 0.6) / 0.2) ** 2))
    flow *= 1 + 0.06 * np.sin(beat * 1.3)
    baseline = rng.uniform(0.25, 0.8)
    room = max(baseline, 1 - baseline)
    velocity = (np.linspace(0, 1, height) - baseline) / room * (1 if baseline < 0.5 else -1)
    width = rng.uniform(0.04, 0.5)  # of the flow: a plug has a narrow spectrum, a parabola a wide one
    shape = np.exp(-0.5 * ((velocity[:, None] - flow * (1 - width / 2)) / (width / 3 * np.maximum(flow, 0.1))) ** 2)
    power = shape * (np.abs(velocity[:, None]) > 0.015) * (flow > 0.01) + 10 ** rng.uniform(-4.2, -3.0)
    power = cv2.GaussianBlur(power * rng.exponential(1.0, power.shape), (0, 0), sigmaX=1.2, sigmaY=0.7)
    decibel = 10 * np.log10(power + 1e-9)
    span = rng.uniform(30, 45)
    strip = np.clip((decibel + span) / span * rng.uniform(180, 255), 0, 255).astype(np.uint8)
    strip[round(baseline * (height - 1))] = 150
    return strip


def draw(
    truth: str, tissue: Gray, rng: np.random.Generator, *, layout: str | None = None, scrolls: bool | None = None
) -> tuple[Gray, int, str]:
    """Frames (frames, height, width) of one display, their rate in Hz, and what it is in words; layout and scrolls are drawn where None."""
    width, height = SIZES[rng.integers(len(SIZES))]
    fps, seconds = int(rng.choice([10, 15, 25, 30, 60])), float(rng.uniform(2.5, 9.0))
    count = round(min(seconds * fps, 300))
    live = truth not in STRIPS or rng.random() < 0.6
    canvas = np.zeros((count, height, width), np.uint8)
    drawn = str(rng.choice(["alone", "under", "beside"], p=[0.35, 0.5, 0.15])) if truth in STRIPS else "whole"
    layout = layout or drawn
    left, right, top, bottom = (round(rng.uniform(0.01, 0.09) * side) for side in (width, width, height, height))
    strip = [left, top, width - right, height - bottom]
    if layout == "under":
        strip[1] = round(rng.uniform(0.35, 0.6) * height)
    elif layout == "beside":
        strip[0] = round(rng.uniform(0.35, 0.5) * width)
    boxes = {"under": (left, top, width - right, strip[1] - 4), "beside": (left, top, strip[0] - 4, height - bottom)}
    box = boxes.get(layout, tuple(strip))
    if layout != "alone":
        _show_tissue(canvas, box, tissue, fps, live)
    how = f"{layout}, {width}x{height}, {count} frames at {fps} Hz, {'live' if live else 'frozen'}"
    if truth in STRIPS:
        how += ", " + _show_strip(canvas, strip, truth, tissue, fps, rng, scrolls)
    if truth == "trace" or (truth in STRIPS and rng.random() < 0.25):
        how += ", " + _show_trace(canvas, left, width - right, fps, rng, bottom if truth in STRIPS else 0)
    for text, y in (("Vendor 4C", 10), ("MI 0.9", height - 3)):
        for frame in canvas:
            cv2.putText(frame, text, (3, y), cv2.FONT_HERSHEY_SIMPLEX, height / 900, 190, 1, cv2.LINE_AA)
    return canvas, fps, how


def _show_tissue(canvas: Gray, box: Sequence[int], tissue: Gray, fps: int, live: bool) -> None:
    x0, y0, x1, y1 = box
    scale = min((x1 - x0) / tissue.shape[2], (y1 - y0) / tissue.shape[1])
    wide, high = int(tissue.shape[2] * scale), int(tissue.shape[1] * scale)
    x0 += (x1 - x0 - wide) // 2
    small = [cv2.resize(frame, (wide, high), interpolation=cv2.INTER_AREA) for frame in tissue]
    for number, frame in enumerate(canvas):
        place = round(number * 25 / fps) if live else 0
        frame[y0 : y0 + high, x0 : x0 + wide] = small[len(small) - 1 - abs(place % max(2 * len(small) - 2, 1) - len(small) + 1)]


def _show_strip(
    canvas: Gray, box: Sequence[int], truth: str, tissue: Gray, fps: int, rng: np.random.Generator, scrolls: bool | None
) -> str:
    x0, y0, x1, y1 = box
    wide, span_s = x1 - x0, float(rng.uniform(2, 6))
    rate = wide / span_s  # columns a second
    history = wide if rng.random() < 0.7 else 0
    total = history + int(len(canvas) * rate / fps) + wide + 2
    times_s = np.arange(total) / rate
    data = m_mode(tissue, times_s, y1 - y0, rng) if truth == "m_mode" else spectral(times_s, y1 - y0, rng)
    scrolled, gap, cursor = rng.random() < 0.4, round(wide * rng.uniform(0, 0.05)), rng.random() < 0.5
    scrolls = scrolled if scrolls is None else scrolls
    columns = np.arange(wide)
    for number, frame in enumerate(canvas):
        now = history + int(number * rate / fps)
        shown = now - wide + columns if scrolls else now - (now - columns) % wide
        part = np.where(shown >= 0, data[:, np.maximum(shown, 0)], 0).astype(np.uint8)
        if not scrolls:
            part[:, (now + 1 + np.arange(gap)) % wide] = 0
            if cursor:
                part[:, (now + 1) % wide] = 200
        frame[y0:y1, x0:x1] = part
    return f"{'scrolls' if scrolls else f'sweeps, gap {gap}'} in {span_s:.1f} s, {'full' if history else 'empty'} at first"


def _show_trace(canvas: Gray, x0: int, x1: int, fps: int, rng: np.random.Generator, room: int) -> str:
    """An ECG: thin, sweeping, in the lowest part of the picture and over what is there."""
    height = canvas.shape[1]
    tall = room or round(height * rng.uniform(0.06, 0.14))
    wide, span_s, bpm = x1 - x0, float(rng.uniform(2, 5)), rng.uniform(50, 120)
    rate = wide / span_s
    scrolls = rng.random() < 0.2
    times_s = np.arange(wide + int(len(canvas) * rate / fps) + 2) / rate
    phase = (times_s * bpm / 60) % 1
    waves = ((0.12, 0.2, 0.025), (0.85, 0.36, 0.01), (-0.15, 0.39, 0.01), (0.2, 0.6, 0.05))  # P, R, S, T
    wave = sum(peak * np.exp(-(((phase - middle) / spread) ** 2)) for peak, middle, spread in waves)
    level = np.rint(height - 3 - tall * np.clip(0.15 + np.asarray(wave) + rng.normal(0, 0.01, phase.shape), 0, 1)).astype(int)
    columns = np.arange(wide)
    gap = round(wide * rng.uniform(0.01, 0.05))
    for number, frame in enumerate(canvas):
        now = wide + int(number * rate / fps)
        shown = now - wide + columns if scrolls else now - (now - columns) % wide
        keep = np.ones(wide, bool) if scrolls else (columns - now - 1) % wide >= gap
        for run in np.split(columns[keep], np.flatnonzero(np.diff(columns[keep]) > 1) + 1):
            points = np.stack([x0 + run, level[shown[run]]], axis=1).astype(np.int32)
            cv2.polylines(frame, [points], False, 230, 1)
    return f"trace {'scrolls' if scrolls else 'sweeps'} in {span_s:.1f} s, {tall} high"


def draw_colour(kind: str, gray: Gray, rng: np.random.Generator) -> tuple[Gray, NDArray[np.bool_]]:
    """A picture with a colour box over B-mode, (height, width, 3), and where tissue is."""
    scale = 300 / max(gray.shape)
    gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = gray.shape
    inside = cv2.morphologyEx((gray > 12).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((25, 25), np.uint8)) > 0
    picture = np.repeat(gray[..., None], 3, axis=2).astype(np.float32)
    smooth = [_smooth_field(height, width, rng, size) for size in (14, 22, 9)]
    box = np.zeros((height, width), np.uint8)
    cy, cx = (int(rng.uniform(0.4, 0.6) * side) for side in (height, width))
    hy, hx = (int(rng.uniform(0.14, 0.3) * side) for side in (height, width))
    if rng.random() < 0.5:
        box[cy - hy : cy + hy, cx - hx : cx + hx] = 1
    else:
        lean = round(0.25 * hx)
        corners = [[cx - hx + lean, cy - hy], [cx + hx - lean, cy - hy], [cx + hx, cy + hy], [cx - hx, cy + hy]]
        cv2.fillPoly(box, [np.array(corners, np.int32)], 1)
    if kind == "tint":
        picture *= np.array([[1.0, 0.8, 0.5], [0.6, 0.8, 1.0], [1.0, 0.62, 0.2]][rng.integers(3)])
    elif kind == "text":
        for _ in range(6):
            ink = tuple(int(v) for v in rng.choice([[255, 220, 0], [0, 255, 80], [80, 200, 255]]))
            place = int(rng.integers(width // 2)), int(rng.integers(20, height))
            cv2.putText(picture, "DIST 3.21 cm", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, ink, 1, cv2.LINE_AA)
    else:
        colours, where = _overlay(kind, smooth, box > 0, rng)
        opaque = (rng.uniform(0.35, 0.75) if kind == "elastography" else 1.0) * where[..., None]
        picture = picture * (1 - opaque) + colours * opaque
    coded = cv2.imencode(".jpg", picture.clip(0, 255).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].copy(), inside


def _smooth_field(height: int, width: int, rng: np.random.Generator, size: float) -> NDArray[np.float64]:
    """Smooth noise of mean 0 and deviation 1, its lumps about `size` pixels wide."""
    field = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), size)
    return np.asarray((field - field.mean()) / field.std())


def _overlay(
    kind: str, smooth: Sequence[NDArray[np.float64]], box: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Gray, NDArray[np.bool_]]:
    """Colours of a map and where they are shown."""
    if kind == "elastography":
        strain = np.clip(128 + 75 * smooth[0] + 20 * smooth[1], 0, 255).astype(np.uint8)
        colours = cv2.COLORMAP_JET if rng.random() < 0.7 else cv2.COLORMAP_RAINBOW
        return cv2.applyColorMap(strain, colours)[..., ::-1], box & (smooth[2] > -1.8)
    speed = np.abs(smooth[1])[..., None]
    if kind == "power_doppler":
        warm = np.concatenate([np.full_like(speed, 200) + 40 * speed, 60 + 70 * speed, 20 + 0 * speed], axis=2)
        return np.clip(warm, 0, 255).astype(np.uint8), box & (smooth[0] > 0.5)
    away = np.concatenate([20 + 0 * speed, 90 * speed, 130 + 60 * speed], axis=2)
    toward = away[..., ::-1]
    colours = np.where(smooth[1][..., None] > 0, toward, away).clip(0, 255).astype(np.uint8)
    return colours, box & (smooth[0] > (0.4 if kind == "doppler" else -1.5))


if __name__ == "__main__":
    main()
