"""Ultrasound-like clips with known truth, for the demo and for tests.

In: a number of clips and a seed. Out: `clips/` in several containers, `labels.csv` as a user would have it, `truth.csv` with each
field of view, patient and planted fault, and `README.txt`; on request, masks of what each pixel shows. Guarantees: equal seeds give equal
bytes on one machine, and a sound clip does not depend on how many there are.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.console import progress
from usdata.errors import UserError, nearest
from usdata.files import atomic, write_json, write_text
from usdata.phantoms.anatomy import LABELS, TISSUES
from usdata.phantoms.clips import FAULT_SEEDS, Clip, even, field_of_view, plan, render, render_masks
from usdata.phantoms.encoding import write_clip
from usdata.phantoms.physics import Geometry
from usdata.phantoms.us4 import write_us4

SIZE_MIN, FRAMES_MIN = 96, 8
FAULTS_FROM = 10  # planted only where there are enough sound clips around them
KEPT_OF_TRUNCATED, CROPPED_SIDE, BLACK_FRAMES, COPY_FPS = 0.55, 0.88, 6, 15
FAKE_NAME = "DOE^JANE 1961-04-03"

Rows = tuple[dict[str, object], dict[str, object]]  # of labels.csv and truth.csv


@dataclass(frozen=True)
class PhantomResult:
    """What was written.

    Attributes:
        out: The folder.
        videos: Clips, those with faults included.
        faults: Clips with a planted fault.
        patients: True patients.
        seconds: Wall time.
    """

    out: Path
    videos: int
    faults: int
    patients: int
    seconds: float


def phantom(
    out: str | Path,
    *,
    videos: int = 40,
    seed: int = 0,
    size: int = 320,
    frames: int = 48,
    masks: str | Path | None = None,
    like: str | None = None,
    workers: int | None = None,
) -> PhantomResult:
    """Write ultrasound-like clips with known truth.

    Args:
        out: Folder to make; it must be empty or missing.
        videos: Sound clips; from 10 on, five faulty ones are written besides.
        seed: Equal seeds give equal bytes on one machine.
        size: Shorter side of the smallest picture in pixels; others are up to a quarter larger.
        frames: Frames of each clip.
        masks: Folder to make for the truth of each frame of each sound clip, under the frame_id that `usdata build phantom` gives it:
            `phantom/<clip>_<suffix>/<frame_index>.png`, of the picture's size; each pixel is a key of `classes.json`, or 0 for none of it.
        like: "us4": instead of all this, tiny clips in the number and the layouts of US-4's four parts.
        workers: Processes that make clips (like: "us4"); all processors by default.

    Raises:
        UserError: The folder is not empty, or a number is out of range.
    """
    folder = Path(out)
    for name, value, least in (("videos", videos, 1), ("seed", seed, 0), ("size", size, SIZE_MIN), ("frames", frames, FRAMES_MIN)):
        if value < least:
            raise UserError(name, f"is {value}, and must be at least {least}", f"give --{name} {least} or more")
    for place in (folder, *([Path(masks)] if masks is not None else [])):
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise UserError(place, "exists and is not empty", "choose another folder, or remove it")
    start = time.monotonic()
    if like is not None:
        if like != "us4":
            raise UserError("--like", f"knows no '{like}'", nearest(like, ["us4"]))
        if masks is not None:
            raise UserError("--masks", f"does not go with --like {like}, whose clips show nobody's anatomy", "leave one of them out")
        made = write_us4(folder, seed=seed, workers=workers)
        return PhantomResult(folder, len(made), 0, len({clip.patient for clip in made if clip.patient}), time.monotonic() - start)
    clips = plan(videos=videos, seed=seed, size=size, frames=frames)
    rows: list[Rows] = []
    extra = 5 if videos >= FAULTS_FROM else 0
    with progress("making clips", videos + extra, "clips") as advance:
        for clip in clips:
            pictures, geometry = render(clip)
            write_clip(folder / clip.path, pictures, clip.fps)
            rows.append(_rows(clip, geometry))
            if masks is not None:
                _write_masks(Path(masks), clip)
            advance(1)
        if extra:
            rows.extend(_plant_faults(folder, clips, seed, advance))
    _write_csv(folder / "labels.csv", [label for label, _ in rows])
    _write_csv(folder / "truth.csv", [truth for _, truth in rows])
    write_text(folder / "README.txt", README)
    if masks is not None:
        write_json(Path(masks) / "classes.json", {str(value): name for value, name in TISSUES.items()})
    patients = len({clip.patient for clip in clips})
    return PhantomResult(folder, len(rows), extra, patients, time.monotonic() - start)


README = """Simulated ultrasound-like clips, written by 'usdata phantom'; nobody was scanned, and all names and dates are made up. CC0-1.0.
labels.csv is what a user would have. truth.csv is what is true: fields of view in picture pixels (pixel centres at whole coordinates,
angles in degrees from straight down, positive to the right), true patients, and the faults that were planted.
"""


def _rows(
    clip: Clip,
    geometry: Geometry,
    *,
    patient: str = "",
    fault: str = "",
    detail: str = "",
    frames: int | None = None,
    fps: int = 0,
    path: str = "",
) -> Rows:
    """A clip's rows of labels.csv and truth.csv."""
    spacing = f"{clip.depth_mm / geometry.depth_pixels:.5f}"
    true_patient = _patient(clip.patient)
    label: dict[str, object] = {
        "path": path or clip.path,
        "patient": patient or true_patient,
        "label": clip.label,
        "organ": LABELS[clip.label],
        "probe": clip.device.kind,
        "view": clip.view,
        "licence": "CC0-1.0",
        "mm_per_pixel_x": spacing,
        "mm_per_pixel_y": spacing,
        "manufacturer": clip.device.manufacturer,
    }
    truth: dict[str, object] = {
        "path": label["path"],
        "patient": label["patient"],
        "true_patient": true_patient,
        "label": clip.label,
        "geometry": geometry.kind,
    }
    linear = geometry.kind == "linear"
    shape = {key: value for key, value in asdict(geometry).items() if key not in ("kind", "canvas_width", "canvas_height")}
    for key, value in shape.items():
        is_box = key in ("x", "y", "width", "height")
        truth[key] = (value if is_box else f"{value:.3f}") if is_box == linear else ""
    truth |= {
        "fault": fault,
        "fault_detail": detail,
        "frames": clip.frames if frames is None else frames,
        "fps": fps or clip.fps,
        "device": clip.device.name,
    }
    return label, truth


def _patient(number: int) -> str:
    return f"P{number + 1:03d}"


def _write_masks(folder: Path, clip: Clip) -> None:
    for index, mask in enumerate(render_masks(clip)):
        with atomic(folder / "phantom" / f"{clip.name}_{clip.container}" / f"{index}.png", durable=False) as temporary:
            temporary.write_bytes(_png(mask))


def _png(mask: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", mask)[1])


def _write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _plant_faults(folder: Path, clips: list[Clip], seed: int, advance: Callable[[int], None]) -> list[Rows]:
    """Five clips such as real collections hold, each with one fault that truth.csv names."""
    # the templates stand among the first ten clips, so that the faults do not depend on how many follow
    templates = [replace(clips[place], container="mp4", seeds=(seed, FAULT_SEEDS, place)) for place in (0, 3, 5, 8)]
    truncated, frozen, led_in, named = (replace(clip, name=f"late_{index}") for index, clip in enumerate(templates))
    rows = []

    pictures, geometry = render(truncated)
    target = folder / truncated.path
    write_clip(target, pictures, truncated.fps)
    whole = target.read_bytes()
    kept = int(KEPT_OF_TRUNCATED * len(whole))
    with atomic(target, durable=False) as temporary:
        temporary.write_bytes(whole[:kept])
    rows.append(
        _rows(truncated, geometry, fault="truncated", detail=f"{kept} of {len(whole)} bytes; the index at the end is lost", frames=0)
    )
    advance(1)

    pictures, geometry = render(frozen)
    write_clip(folder / frozen.path, np.repeat(pictures[:1], len(pictures), axis=0), frozen.fps)
    rows.append(_rows(frozen, geometry, fault="frozen", detail="the first frame in every place"))
    advance(1)

    pictures, geometry = render(led_in)
    black = np.zeros((BLACK_FRAMES, *pictures.shape[1:]), np.uint8)
    write_clip(folder / led_in.path, np.concatenate([black, pictures]), led_in.fps)
    detail = f"{BLACK_FRAMES} black frames first"
    rows.append(_rows(led_in, geometry, fault="black_lead_in", detail=detail, frames=len(pictures) + BLACK_FRAMES))
    advance(1)

    pictures, geometry = render(named, burned_in=FAKE_NAME)
    write_clip(folder / named.path, pictures, named.fps)
    rows.append(_rows(named, geometry, fault="burned_in_name", detail=FAKE_NAME))
    advance(1)

    rows.append(_copy_under_another_patient(folder, next(clip for clip in clips if clip.container == "mp4")))
    advance(1)
    return rows


def _copy_under_another_patient(folder: Path, original: Clip) -> Rows:
    """A clip published again: decoded, cropped, fewer frames a second, encoded with another quantiser, and given a new patient's id."""
    with av.open(folder / original.path) as file:
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    order = np.arange(0, len(pictures), original.fps / COPY_FPS).astype(int)
    width, height = (even(CROPPED_SIDE * side) for side in (original.width, original.height))
    left, top = even(0.35 * (original.width - width)), even(0.6 * (original.height - height))
    cropped = np.ascontiguousarray(pictures[order, top : top + height, left : left + width])
    path = "clips/late_4.mp4"
    write_clip(folder / path, cropped, COPY_FPS, crf="27")
    full = field_of_view(original)
    if full.kind == "linear":
        x, y = max(full.x - left, 0), max(full.y - top, 0)
        right, bottom = min(full.x + full.width - left, width), min(full.y + full.height - top, height)
        geometry = replace(full, x=x, y=y, width=right - x, height=bottom - y, canvas_width=width, canvas_height=height)
    else:
        geometry = replace(full, apex_x=full.apex_x - left, apex_y=full.apex_y - top, canvas_width=width, canvas_height=height)
    how = f"cropped to {width}x{height} at x {left} y {top}, {COPY_FPS} instead of {original.fps} Hz, re-encoded (crf 27)"
    detail = f"copy of {original.path}: {how}"
    return _rows(
        original,
        geometry,
        path=path,
        patient=f"P{900 + original.patient}",
        fault="duplicate",
        detail=detail,
        frames=len(order),
        fps=COPY_FPS,
    )
