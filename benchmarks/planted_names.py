"""Does a planted name survive a release? Names burned into clips, outside the field of view, across its edge and inside it.

    python benchmarks/planted_names.py [DATA] [--count 500] [--seed 0] [--clean 200] [--show]

Clips are those of benchmarks/field_of_view.py: a phantom's tissue, and, where DATA (a folder with pocus_lung/ and covid_blues/) is given,
tissue cut out of real clips, under random surroundings. A name is drawn into every frame, in one of several fonts, sizes, gray levels and
outlines; the clip is encoded and goes through the per-video step of a release build. A clip that is held back is safe. Of a clip that is
stored, a name survives if any of its pixels is stored as anything but black.
Also counted: clips without any name that are held back for nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from field_of_view import Pictures, make
from measured import hand_on
from numpy.typing import NDArray

from usdata.imaging.framing import Framing
from usdata.phantoms.encoding import write_clip
from usdata.recipe import Hygiene, Reading
from usdata.sampling import SamplingRule
from usdata.seeing import Seeing
from usdata.video_step import look_through

PLACES = ("outside", "across", "inside")
NAMES = ("DOE, JANE", "MUELLER^HANS", "A. Featherstone", "ID 0047-11", "Okonkwo 12/03/1961", "Li", "pat. 4711")
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX_SMALL)


@dataclass(frozen=True)
class Name:
    """A planted name: its pixels, (H, W) bool, and where it was put."""

    ink: NDArray[np.bool_]
    place: str


def plant(pictures: Pictures, inside: NDArray[np.bool_], place: str, rng: np.random.Generator) -> Name | None:
    """Draw a name into all frames (frames, H, W, 3); None where there is no room for it."""
    height, width = inside.shape
    text, font = str(rng.choice(NAMES)), int(rng.choice(FONTS))
    scale = float(rng.uniform(0.4, 1.1)) * max(0.7, height / 600) * (1.6 if font == cv2.FONT_HERSHEY_PLAIN else 1.0)
    thick = int(rng.integers(1, 3))
    (wide, high), _ = cv2.getTextSize(text, font, scale, thick)
    for _ in range(200):
        x, y = int(rng.integers(2, max(3, width - wide - 2))), int(rng.integers(high + 2, height - 6))
        ink = np.zeros((height, width), np.uint8)
        cv2.putText(ink, text, (x, y), font, scale, 255, thick)
        share = float(inside[ink > 0].mean()) if ink.any() else -1.0
        if (place == "outside" and share == 0) or (place == "across" and 0.15 < share < 0.85) or (place == "inside" and share == 1):
            break
    else:
        return None
    gray = int(rng.integers(130, 256))
    if rng.random() < 0.2:  # a dark outline, as some scanners draw
        around = cv2.dilate(ink, np.ones((3, 3), np.uint8)) > 0
        pictures[:, around] = 0
    pictures[:, ink > 0] = gray
    return Name(ink > 0, place)


def main() -> None:
    """Plant, build, look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with pocus_lung/ and covid_blues/")
    parser.add_argument("--count", type=int, default=500, help="clips with a name")
    parser.add_argument("--clean", type=int, default=200, help="clips without one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phantoms", action="store_true", help="phantom tissue alone, also where DATA is given")
    parser.add_argument("--show", action="store_true", help="tell of every clip that lets something through")
    given = parser.parse_args()
    sources = sorted([*given.data.glob("pocus_lung/**/*.*"), *given.data.glob("covid_blues/**/*.mp4")]) if given.data else []
    sources = [path for path in sources if path.suffix.lower() in {".mp4", ".avi", ".mov", ".mpeg", ".mpg"}] if not given.phantoms else []
    planted: Counter[str] = Counter()
    held: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        number = 0
        while planted.total() < given.count + given.clean:
            number += 1
            made = make(number, given.seed, sources)
            if made is None:
                continue
            rng = np.random.default_rng([given.seed, number, 1])
            place = PLACES[number % 3] if planted.total() - planted["none"] < given.count else "none"
            pictures = made.pictures.copy()
            inside = made.truth.mask(*pictures.shape[1:3])
            name = None if place == "none" else plant(pictures, inside, place, rng)
            if place != "none" and name is None:
                continue
            planted[place] += 1
            path = Path(folder) / "clip.mp4"
            write_clip(path, pictures, fps=20, crf=str(int(rng.integers(16, 26))))
            result, stored, framing = release_of(path)
            if result["status"] != "ok":
                held[place] += 1
                if given.show and place == "none":
                    print(f"{number} {made.kind} {made.tissue}: nothing planted, {result['reason']}")
                continue
            if name is not None and (left := surviving(name, stored, framing)):
                survived[place] += 1
                if given.show:
                    print(
                        f"{number} {made.kind} {made.tissue}: {left} pixels of a name {place} are stored; {result['video'].get('overlays')}"
                    )
    hand_on("clips in which a planted name survives a release", survived.total(), limit=0, load=False)
    hand_on("clips with no name that are held back", held["none"] / max(planted["none"], 1), "", load=False)
    print("| name | clips | held back for review | stored | a name survived in |\n|---|--:|--:|--:|--:|")
    for place in (*PLACES, "none"):
        print(f"| {place} | {planted[place]} | {held[place]} | {planted[place] - held[place]} | {survived[place]} |")


def release_of(path: Path) -> tuple[dict[str, Any], list[NDArray[np.uint8]], Framing | None]:
    """The per-video step of a release, the pictures that it stores, and how they were cut."""
    stored: list[NDArray[np.uint8]] = []
    framings: list[Framing] = []

    def store(index: int, pixels: NDArray[np.uint8], framing: Framing) -> dict[str, Any]:
        stored.append(framing.stored(pixels))
        framings.append(framing)
        return {}

    seeing = Seeing(hold=True, release=True, crop="mask")
    rule = SamplingRule(rule="rate", hz=3.0)
    result = look_through(path, sampling=rule, read=Reading(), hygiene=Hygiene(), seeing=seeing, store=store)
    return result, stored, framings[0] if framings else None


def surviving(name: Name, stored: list[NDArray[np.uint8]], framing: Framing | None) -> int:
    """Pixels of the name that are not zero in what was stored."""
    assert framing is not None
    x, y, width, height = framing.box
    ink = name.ink[y : y + height, x : x + width]
    return int(np.count_nonzero(ink & (np.max(stored, axis=0) > 0)))


if __name__ == "__main__":
    main()
