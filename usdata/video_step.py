"""The per-video step of a build: one raw clip in; stored frames, and what became of every frame that decoded, out.

One forward pass. Each frame is looked at once: blank, a near-repeat of the last unique frame, or unique; of the unique ones the sampling
rule keeps some. A clip that cannot be read is a result with a reason, not an exception. The step is a pure function of the raw bytes and
the settings; its images appear all at once, by one rename.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from usdata.duplicates.fingerprints import fingerprint
from usdata.errors import ReadError
from usdata.files import sha256_file, sha256_text, write_json
from usdata.readers import open_clip
from usdata.readers.base import Clip, Frame
from usdata.recipe import Hygiene, Image, Reading
from usdata.sampling import Sampler, SamplingRule, choose

LIT_GRAY_LEVEL = 4
SHORT_CLIP_FRAMES = 8
FROZEN_SHARE = 0.95
NEAR_REPEATS_SHARE = 0.3


@dataclass(frozen=True)
class VideoTask:
    """What a worker needs to know of one clip; it travels between processes.

    Attributes:
        raw: The file, or the folder of images.
        images: Where the clip's images go: SET/images/<source>/<video>.
        images_path: The same, relative to the data set.
        journal: The file that records the finished step.
        bytes: Size of the raw clip: long ones are started first.
        key: Digest of the raw bytes' identity and of every setting below: a journal of the same key need not be done again.
    """

    video_id: str
    raw: Path
    images: Path
    images_path: str
    journal: Path
    key: str
    bytes: int
    sampling: SamplingRule
    read: Reading
    hygiene: Hygiene
    image: Image


@dataclass(frozen=True)
class _Look:
    """What one decoded frame turned out to be.

    Attributes:
        reason: Why it cannot be kept; null = unique.
        repeats: frame_index of the last unique frame, which a near-repeat repeats.
        difference: To that frame.
        still: It hardly differs from the usable frame just before it. (A still scene drifts away from its last unique frame by the codec's
            refinements alone, so frozen clips are told by this and not by their repeats.)
    """

    frame: Frame
    reason: str | None = None
    repeats: int | None = None
    difference: float | None = None
    still: bool = False


def raw_digest(raw: Path, path: str, members: Sequence[str]) -> tuple[str, int]:
    """The sha256 and the size of a raw file; of a folder of images: over their names and digests in order, and the sum of their sizes."""
    if tuple(members) == (path,):
        return sha256_file(raw / path), (raw / path).stat().st_size
    listing = "".join(f"{Path(member).name} {sha256_file(raw / member)}\n" for member in sorted(members))
    return sha256_text(listing), sum((raw / member).stat().st_size for member in members)


def process_video(task: VideoTask) -> dict[str, Any]:
    """Read one clip and store its kept frames.

    Returns:
        The journal's content: `key`, `status`, `reason`, `video` (decoded facts), `kept` and `excluded` (a mapping a frame,
        without the columns that the data set adds). The same has been written to the task's journal.
    """
    task.images.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=task.images.parent, prefix=".part-"))
    try:
        try:
            result = _read(task, staging)
        except ReadError as error:
            result = {"status": "failed", "reason": _without_subject(error), "video": _no_facts(), "kept": [], "excluded": []}
        result["images"] = {path.name: sha256_file(path) for path in sorted(staging.iterdir())}
        # The old journal goes first: killed between here and the new one, the step is simply done again.
        task.journal.unlink(missing_ok=True)
        shutil.rmtree(task.images, ignore_errors=True)
        if result["kept"]:
            staging.chmod(0o755)
            staging.rename(task.images)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    result["key"] = task.key
    write_json(task.journal, result)
    return result


def _without_subject(error: ReadError) -> str:
    """The reason alone: the subject is this machine's path, which must not reach a manifest."""
    return error.reason.replace(error.subject, Path(error.subject).name)


def _read(task: VideoTask, staging: Path) -> dict[str, Any]:
    keeps = _selector(task)
    kept: list[dict[str, Any]] = []
    excluded: list[dict[str, Any]] = []
    times: list[Fraction | None] = []
    unique = still = 0
    with open_clip(task.raw, backend=task.read.backend) as clip:
        info = clip.info
        first: int | None = None
        for look in look_at(clip, task.hygiene):
            frame = look.frame
            first = frame.pts if first is None else first
            time = None if frame.pts is None or info.time_base is None or first is None else (frame.pts - first) * info.time_base
            times.append(time)
            still += look.still
            row: dict[str, Any] = {"frame_index": frame.index, "pts": frame.pts, "time_s": None if time is None else float(time)}
            if look.reason is None:
                position, unique = unique, unique + 1
                if keeps(position, time):
                    kept.append(row | _store(frame.pixels, task, staging, frame.index))
                else:
                    excluded.append(row | {"reason": "not_sampled", "duplicate_of": None, "difference": None})
            else:
                excluded.append(row | {"reason": look.reason, "duplicate_of": look.repeats, "difference": look.difference})
        errors, first_error = clip.decode_errors, clip.first_error
    if not times:
        said = f" ({first_error})" if first_error else ""
        raise ReadError(task.raw, f"no frame of it decodes{said}", "check the file with another player, or remove it")
    reasons = Counter(row["reason"] for row in excluded)
    video: dict[str, Any] = {
        "container": info.container,
        "codec": info.codec,
        "pixel_format": info.pixel_format,
        "width": info.width,
        "height": info.height,
        "time_base": None if info.time_base is None else f"{info.time_base.numerator}/{info.time_base.denominator}",
        "frames_declared": info.frames_declared,
        "frames_decoded": len(times),
        "frames_unique": unique,
        "decode_errors": errors,
        **_rates(times, unique),
    }
    video["flags"] = _flags(video, reasons, still)
    reason = None if kept else "every frame that decodes is blank or damaged"
    return {"status": "ok" if kept else "excluded", "reason": reason, "video": video, "kept": kept, "excluded": excluded}


def _selector(task: VideoTask) -> Callable[[int, Fraction | None], bool]:
    """Whether a unique frame is kept, by its position and time.

    The rule `count` needs the number of unique frames, which no container knows, so it costs a pass of its own.
    """
    if task.sampling.rule != "count":
        return Sampler(task.sampling).offer
    with open_clip(task.raw, backend=task.read.backend) as clip:
        times = [
            None if look.frame.pts is None else Fraction(look.frame.pts) for look in look_at(clip, task.hygiene) if look.reason is None
        ]
    chosen = frozenset(choose(task.sampling, times))
    return lambda position, time: position in chosen


def look_at(clip: Clip, hygiene: Hygiene) -> Iterator[_Look]:
    """Every frame that decodes, judged damaged, blank, near_repeat (of the last unique frame) or unique."""
    last: Frame | None = None
    before: Frame | None = None
    for frame in clip.frames():
        if frame.damaged and not hygiene.keep_damaged:
            yield _Look(frame, "damaged")
            continue
        mean, std = (float(value[0, 0]) for value in cv2.meanStdDev(frame.pixels))
        if mean < hygiene.blank_mean or std < hygiene.blank_std:
            yield _Look(frame, "blank")
            continue
        if last is None or before is None:
            last = before = frame
            yield _Look(frame)
            continue
        difference = frame_difference(last.pixels, frame.pixels)
        change = difference if last is before else frame_difference(before.pixels, frame.pixels)
        still = change < hygiene.near_repeat_difference
        before = frame
        if difference < hygiene.near_repeat_difference:
            yield _Look(frame, "near_repeat", last.index, difference, still)
        else:
            last = frame
            yield _Look(frame, still=still)


def frame_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean absolute difference in gray levels over the pixels that are lit in either frame.

    Black surroundings would dilute a mean over the whole picture, by a factor that differs from scanner to scanner.

    Args:
        a: (H, W) uint8.
        b: (H, W) uint8.
    """
    lit = cv2.countNonZero(cv2.threshold(cv2.max(a, b), LIT_GRAY_LEVEL, 1, cv2.THRESH_BINARY)[1])
    return float(cv2.norm(a, b, cv2.NORM_L1)) / max(lit, 1)


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """The contract's pixel_sha256 of a gray frame (H, W)."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}x1\n".encode("ascii"))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _store(pixels: NDArray[np.uint8], task: VideoTask, staging: Path, index: int) -> dict[str, Any]:
    height, width = pixels.shape
    if task.image.max_side is not None and max(height, width) > task.image.max_side:
        scale = task.image.max_side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    name = f"{task.images.name}_frame{index}.png"
    # OpenCV's own settings (run lengths after the "sub" filter): less time and less bytes here than zlib's levels (benchmarks/png.py).
    done, encoded = cv2.imencode(".png", pixels)
    if not done:
        raise ReadError(task.raw, f"frame {index} could not be encoded as PNG", "report this with the file")
    (staging / name).write_bytes(encoded.tobytes())
    mean, std = (float(value[0, 0]) for value in cv2.meanStdDev(pixels))
    return {
        "path": f"{task.images_path}/{name}",
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "fingerprint": fingerprint(pixels),
        "pixel_sha256": pixel_digest(pixels),
        # Rounded: the last bits of a float sum differ between processors, and equal input must give equal bytes.
        "quality_mean": round(mean, 4),
        "quality_std": round(std, 4),
        "quality_sharpness": round(float(cv2.meanStdDev(cv2.Laplacian(pixels, cv2.CV_16S, ksize=1))[1][0, 0]) ** 2, 4),
    }


def _rates(times: list[Fraction | None], unique: int) -> dict[str, float | None]:
    """True mean rate, rate of unique frames, and duration; null where the stream has no timestamps."""
    known = [time for time in times if time is not None]
    span = known[-1] - known[0] if len(known) > 1 else Fraction(0)
    if span <= 0:
        return {"fps": None, "fps_effective": None, "duration_s": None}
    interval = span / (len(known) - 1)
    duration = span + interval
    return {"fps": float(1 / interval), "fps_effective": float(unique / duration), "duration_s": float(duration)}


def _flags(video: dict[str, Any], reasons: Counter[str], still: int) -> list[str]:
    decoded, unique, declared = video["frames_decoded"], video["frames_unique"], video["frames_declared"]
    repeats = reasons["near_repeat"]
    usable = unique + repeats
    flags = {
        "blank_frames": reasons["blank"] > 0,
        "damaged_frames": reasons["damaged"] > 0,
        "decode_errors": video["decode_errors"] > 0,
        "frozen": usable >= SHORT_CLIP_FRAMES and still >= FROZEN_SHARE * (usable - 1),
        "near_repeats": usable > 1 and repeats > NEAR_REPEATS_SHARE * usable,
        "short": decoded > 1 and unique < SHORT_CLIP_FRAMES,
        "truncated": declared is not None and decoded < declared,
    }
    return [name for name, holds in flags.items() if holds]


def _no_facts() -> dict[str, Any]:
    nothing = (
        "container",
        "codec",
        "pixel_format",
        "width",
        "height",
        "time_base",
        "frames_declared",
        "fps",
        "fps_effective",
        "duration_s",
    )
    return dict.fromkeys(nothing) | {"frames_decoded": 0, "frames_unique": 0, "decode_errors": 0, "flags": []}


def no_result(status: str, reason: str) -> dict[str, Any]:
    """What the step would give for a clip that was not read: excluded by the recipe, missing, or the death of its workers."""
    return {"status": status, "reason": reason, "video": _no_facts(), "kept": [], "excluded": []}
