"""How surely copies of clips are found by content, and how often other clips are taken for copies.

    python benchmarks/overlap.py CLIPS [--clips 60] [--seed 0]

Of CLIPS (any folder of real clips) so many are taken, evenly; each is copied once by each transform below, at random strength, encoded as
H.264 and built beside a set of all originals by the same recipe (three frames a second). Printed: for each transform, the copies that are
found as copies of their original; all matches with another clip than the original; and what a 64-bit and a 256-bit perceptual hash find at
usual thresholds on the same stored frames.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata import manifest
from usdata.building import build
from usdata.errors import ReadError
from usdata.overlapping import overlap
from usdata.phantoms.encoding import write_clip
from usdata.readers import open_clip
from usdata.recipe import Recipe

SUFFIXES = {".mp4", ".avi", ".mov", ".mpeg", ".mpg"}
LEAST_FRAMES = 20
Frames = NDArray[np.uint8]
HASHES = {"dhash64": (8, 10), "fingerprint256": (16, 32)}


def main() -> None:
    """Make copies, build, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--clips", dest="number", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    paths = sorted(path for path in given.clips.rglob("*") if path.suffix.lower() in SUFFIXES)
    with tempfile.TemporaryDirectory() as folder:
        originals, copies = Path(folder) / "originals", Path(folder) / "copies"
        for number, path in enumerate(paths):
            (originals / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, originals / path.parent.name / f"{number:04d}{path.suffix.lower()}")
        chosen = [paths.index(path) for path in paths[:: max(1, len(paths) // given.number)]]
        made = 0
        for number in chosen:
            made += copy(paths[number], number, copies, given.seed)
        sets = [made_set(raw, Path(folder) / f"{raw.name}_set") for raw in (originals, copies)]
        result = overlap(*sets)
        known = {(match.a, match.b) for match in overlap(sets[0]).matches}
        report(result.matches, sets[1], known)
        hashes(sets[0], sets[1])


def copy(path: Path, number: int, folder: Path, seed: int) -> int:
    """Write the copies of one clip; gives their number, 0 where it is too short or cannot be read."""
    try:
        with open_clip(path) as clip:
            frames = np.stack([frame.pixels.copy() for frame in clip.frames()][:150])
            rate = float(clip.info.declared_rate or 20)
    except (ReadError, ValueError):
        return 0
    if len(frames) < LEAST_FRAMES:
        return 0
    for place, (name, change) in enumerate(TRANSFORMS.items()):
        rng = np.random.default_rng([seed, number, place])
        changed, fps, crf = change(frames, rate, rng)
        (folder / name).mkdir(parents=True, exist_ok=True)
        height, width = changed.shape[1] // 2 * 2, changed.shape[2] // 2 * 2
        write_clip(folder / name / f"{number:04d}.mp4", changed[:, :height, :width], fps=max(1, round(fps)), crf=str(crf))
    return len(TRANSFORMS)


Changed = tuple[Frames, float, int]


def _encoded(frames: Frames, rate: float, rng: np.random.Generator) -> Changed:
    return frames, rate, int(rng.integers(26, 36))


def _resized(frames: Frames, rate: float, rng: np.random.Generator) -> Changed:
    scale = rng.uniform(0.4, 0.8)
    return np.stack([cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for frame in frames]), rate, 23


def _gamma(frames: Frames, rate: float, rng: np.random.Generator) -> Changed:
    levels = 255 * (np.arange(256) / 255) ** rng.uniform(0.6, 1.6) * rng.uniform(0.8, 1.2)
    return np.clip(levels, 0, 255).astype(np.uint8)[frames], rate, 23


def _padded(frames: Frames, rate: float, rng: np.random.Generator) -> Changed:
    margins = [int(value) for value in rng.integers(20, 120, 4)]
    return np.pad(frames, ((0, 0), (margins[0], margins[1]), (margins[2], margins[3]))), rate, 23


def _annotated(frames: Frames, rate: float, rng: np.random.Generator) -> Changed:
    frames = frames.copy()
    height, width = frames.shape[1:]
    for _ in range(4):
        spot = int(rng.integers(0, width * 3 // 4)), int(rng.integers(20, height))
        for frame in frames:
            cv2.putText(frame, "B-line 3 cm", spot, cv2.FONT_HERSHEY_SIMPLEX, height / 600, 255, 1 + height // 500)
    return frames, rate, 23


def _mirrored(frames: Frames, rate: float, rng: np.random.Generator) -> Changed:
    return np.ascontiguousarray(frames[:, :, ::-1]), rate, 23


def _part(frames: Frames, rate: float, rng: np.random.Generator) -> Changed:
    length = max(10, int(len(frames) * rng.uniform(0.4, 0.7)))
    start = int(rng.integers(0, len(frames) - length + 1))
    return frames[start : start + length], rate, 23


def _slower(frames: Frames, rate: float, rng: np.random.Generator) -> Changed:
    return frames[::2], rate / 2, 23


TRANSFORMS: dict[str, Callable[[Frames, float, np.random.Generator], Changed]] = {
    "re-encoded": _encoded,
    "resized": _resized,
    "gain and gamma": _gamma,
    "padded": _padded,
    "annotated": _annotated,
    "mirrored": _mirrored,
    "part": _part,
    "half rate": _slower,
}


def made_set(raw: Path, out: Path) -> Path:
    """A data set of a folder."""
    source = {"name": raw.name, "layout": "files", "patient_ids": "public", "sampling": {"rule": "rate", "hz": 3.0}}
    return build(Recipe.model_validate({"name": raw.name, "sources": [source], "modes": None}), raw=raw, out=out).out


def report(matches: list, copies: Path, known: set[tuple[str, str]]) -> None:  # type: ignore[type-arg]
    """Recall by transform, and precision."""
    kept = manifest.read_table(copies, manifest.VIDEOS).select(["video_id", "path", "status"]).to_pylist()
    there = {row["video_id"]: row["path"] for row in kept if row["status"] == "ok"}
    right: dict[str, set[str]] = {name: set() for name in TRANSFORMS}
    wrong = []
    for match in matches:
        name, number = Path(there[match.b]).parts[0], Path(there[match.b]).stem
        same = match.a.split("__")[-1][:4] == number
        # What is twice among the originals is right twice.
        twin = any(number in pair[0] + pair[1] and match.a in pair for pair in known)
        if same:
            right[name].add(match.b)
        elif not twin:
            wrong.append(match)
    print("| transform | copies | found | recall |\n|---|--:|--:|--:|")
    total = found = 0
    for name in TRANSFORMS:
        number = sum(Path(path).parts[0] == name for path in there.values())
        total, found = total + number, found + len(right[name])
        print(f"| {name} | {number} | {len(right[name])} | {len(right[name]) / max(number, 1):.3f} |")
    print(f"| all | {total} | {found} | {found / max(total, 1):.3f} |")
    print(f"\nmatches with another clip: {len(wrong)} (precision {found / max(found + len(wrong), 1):.4f})")
    for match in wrong[:10]:
        print(f"  {match.a} {match.b} {match.score}")


def hashes(originals: Path, copies: Path) -> None:
    """The same by perceptual hashes of stored frames: clips with a frame within the threshold."""
    rows = {}
    for folder in (originals, copies):
        frames = manifest.read_table(folder, manifest.FRAMES).select(["video_id", "path", "fingerprint"]).to_pylist()
        rows[folder] = [(row["video_id"], cv2.imread(str(folder / row["path"]), 0), row["fingerprint"]) for row in frames]
    for name, (side, threshold) in HASHES.items():
        bits = {}
        for folder, found in rows.items():
            if name == "dhash64":
                small = [cv2.resize(pixels, (side + 1, side), interpolation=cv2.INTER_AREA) for _, pixels, _ in found]
                bits[folder] = np.stack([(picture[:, 1:] > picture[:, :-1]).ravel() for picture in small])
            else:
                bits[folder] = np.stack([np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)) for _, _, text in found]) > 0
        a, b = (bits[folder].astype(np.float32) for folder in (originals, copies))
        distance = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - 2 * a @ b.T
        near = np.argwhere(distance <= threshold)
        pairs = {(rows[originals][x][0], rows[copies][y][0]) for x, y in near.tolist()}
        right = {b for a, b in pairs if a.split("__")[-1][:4] == b.split("__")[-1][:4]}
        wrong = sum(a.split("__")[-1][:4] != b.split("__")[-1][:4] for a, b in pairs)
        print(f"{name} within {threshold}: {len(right)} copies found, {wrong} pairs of different clips")


if __name__ == "__main__":
    main()
