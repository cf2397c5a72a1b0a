"""US-4 in number and layout: four parts, 1,051 tiny clips, from which the recipe `us4` takes 23,231 frames, as the paper counts them.

In: a folder and a seed. Out: the raw trees that `manifests/us4.yaml` expects and `truth.csv`. Guarantees: equal seeds give equal bytes on
one machine; no two clips share a frame, and within a clip no frame repeats the one before. What the paper does not tell (patients' shares,
clips a class, rates of the fourth part) is made up evenly. The pictures are a tenth of the paper's mean sizes: speckle in a sector that
drifts, fully developed (the modulus of two independent fields), with nobody's anatomy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.console import progress
from usdata.engines import Failure, default_workers, run_local
from usdata.files import atomic, write_text
from usdata.phantoms.encoding import write_clip

US4_SEEDS = 4  # name space of the seeds, beside those in clips.py
RATE_HZ = 3  # of the recipe's rule for the two parts that are sampled by time
TIMEOUT_S = 120.0
FIELD = (127, 131)  # larger than any of the pictures, and primes: see speckle()


@dataclass(frozen=True)
class Part:
    """A part of US-4: what the paper's table says of it, a tenth in size.

    Attributes:
        kept: Frames that the recipe takes of all its clips.
        fps: Frames a second; 0 for sequences of images.
        prefixes: Of the clips' names, dealt out in turn.
        containers: Suffixes, dealt out in turn.
        people: Patients that clips are dealt out to; 0 = unknown.
    """

    name: str
    clips: int
    kept: int
    width: int
    height: int
    fps: int
    prefixes: tuple[str, ...]
    containers: tuple[str, ...]
    people: int = 0


PARTS = (
    Part("us4-butterfly", 22, 1_533, 74, 66, 23, ("Reg", "Cov"), ("mp4",)),
    Part("us4-clust", 63, 3_150, 53, 43, 0, ("Rb1", "Rb2", "Rb3", "Rb4", "Rb5"), ("png",)),
    Part("us4-liver-fibrosis", 296, 11_714, 80, 60, 28, ("F0_", "F1_", "F2_", "F3_", "F4_"), ("mp4", "avi")),
    Part("us4-covid19-lusms", 670, 6_834, 72, 64, 25, ("Ali", "Bli", "Ple", "Oth"), ("mp4", "avi"), 71),
)


@dataclass(frozen=True)
class Us4Clip:
    """One clip to be made.

    Attributes:
        path: The file, or the folder of images, relative to the tree.
        frames: How many it has.
        kept: How many of them the recipe takes.
        seeds: What its speckle is drawn from.
    """

    part: str
    path: str
    prefix: str
    patient: str
    frames: int
    kept: int
    fps: int
    width: int
    height: int
    seeds: tuple[int, int, int]
    folder: Path = Path()


def plan_us4(seed: int) -> list[Us4Clip]:
    """All 1,051 clips, in the order of the parts."""
    clips: list[Us4Clip] = []
    for part in PARTS:
        for index in range(part.clips):
            # As even as whole numbers allow: the first ones have one frame more.
            kept = part.kept // part.clips + (index < part.kept % part.clips)
            prefix, container = part.prefixes[index % len(part.prefixes)], part.containers[index % len(part.containers)]
            patient = f"patient_{index % part.people + 1:03d}" if part.people else ""
            name = f"{prefix}-{index + 1:04d}"
            path = f"{part.name}/{patient}/{name}.{container}" if patient else f"{part.name}/{name}.{container}"
            if container == "png":
                path = f"{part.name}/{name}/Data"
            frames = _frames(part, kept, index)
            seeds = (seed, US4_SEEDS, len(clips))
            clips.append(Us4Clip(part.name, path, prefix, patient, frames, kept, part.fps, part.width, part.height, seeds))
    return clips


def _frames(part: Part, kept: int, index: int) -> int:
    """How many frames a clip needs so that its part's rule keeps that many."""
    if part.name == "us4-butterfly":  # all
        return kept
    if not part.fps:  # a fixed count, of more
        return kept + index % 40
    # By rate: the last due time is at or before the last frame, the next one after it.
    shortest = math.ceil(Fraction(part.fps * (kept - 1), RATE_HZ)) + 1
    longest = math.ceil(Fraction(part.fps * kept, RATE_HZ))
    return shortest + index % (longest - shortest + 1)


def write_us4(folder: Path, *, seed: int, workers: int | None = None) -> list[Us4Clip]:
    """Make the tree; gives the clips that were made."""
    clips = [replace(clip, folder=folder) for clip in plan_us4(seed)]
    tasks = sorted(clips, key=lambda clip: -clip.frames)
    with progress("making clips", len(tasks), "clips") as advance:
        for position, outcome in run_local(_make, tasks, workers=workers or default_workers(), timeout_s=TIMEOUT_S):
            if isinstance(outcome, Failure):
                raise RuntimeError(f"{tasks[position].path}: {outcome.reason}")
            advance(1)
    lines = ["path,part,prefix,patient,frames,kept_by_us4"]
    lines += [f"{clip.path},{clip.part},{clip.prefix},{clip.patient},{clip.frames},{clip.kept}" for clip in clips]
    write_text(folder / "truth.csv", "\n".join(lines) + "\n")
    write_text(folder / "README.txt", README)
    return clips


README = """Simulated clips in the number and the layouts of US-4 (Chen et al., MICCAI 2021), written by 'usdata phantom --like us4'.
Nobody was scanned. CC0-1.0. truth.csv says how many frames each clip has and how many the recipe 'us4' takes of it.
"""


def _make(clip: Us4Clip) -> None:
    pictures = speckle(clip)
    target = clip.folder / clip.path
    if clip.fps:
        write_clip(target, pictures, clip.fps)
        return
    digits = 4 + clip.seeds[2] % 2  # CLUST has both
    for number, picture in enumerate(pictures, start=1):
        with atomic(target / f"{number:0{digits}d}.png", durable=False) as temporary:
            temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    point = f"{clip.width / 2:.1f} {clip.height / 2:.1f}"
    text = "".join(f"{number} {point}\n" for number in range(1, clip.frames + 1, 10))
    write_text(target.parent / "Annotation" / f"{target.parent.name}_1.txt", text, durable=False)


def speckle(clip: Us4Clip) -> NDArray[np.uint8]:
    """A clip's frames, (frames, height, width): the modulus of two gaussian fields that drift past each other, in a sector."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(clip.seeds))))
    shape = clip.height, clip.width
    real, imaginary = (cv2.GaussianBlur(rng.standard_normal(FIELD).astype(np.float32), (0, 0), 1.0) for _ in range(2))
    frames = np.empty((clip.frames, *shape), np.uint8)
    sector = _sector(*shape)
    for index in range(clip.frames):
        # One field sinks a pixel a frame, the other goes sideways: together they come back after 127 x 131 frames only.
        sinking, drifting = np.roll(real, index, axis=0), np.roll(imaginary, index, axis=1)
        modulus = cv2.magnitude(sinking[: clip.height, : clip.width].copy(), drifting[: clip.height, : clip.width].copy())
        level = cv2.log(cv2.max(modulus, 1e-3))
        frames[index] = np.clip(168 + 30 * level, 12, 255).astype(np.uint8) * sector
    return frames


def _sector(height: int, width: int) -> NDArray[np.uint8]:
    """1 inside a convex probe's field of view, 0 outside: (height, width)."""
    mask = np.zeros((height, width), np.uint8)
    centre = (width // 2, -height // 3)
    cv2.ellipse(mask, centre, (round(1.28 * height),) * 2, 90, -36, 36, 1, -1)
    cv2.circle(mask, centre, round(0.4 * height), 0, -1)
    return mask
