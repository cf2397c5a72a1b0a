"""Copies of real clips whose making is known: which transforms, how strong, where each pixel and each frame came from.

In: paths of clips. Out: video files and, for each, a `Copy`. Nothing here knows how copies are looked for; the same seed gives the same
copies.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from usdata.errors import ReadError
from usdata.readers import open_clip

VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mpeg", ".mpg", ".gif", ".mkv", ".wmv"}
LEAST_FRAMES = 20
LEAST_SIDE = 96  # a resized copy's shorter side; some public clips are 139 pixels wide before anything is done to them
SHARE_ALONE = 0.4
Frames = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside


@dataclass(frozen=True)
class Copy:
    """What was written, and the truth about it.

    Attributes:
        name: File name of the copy.
        clip: Path of the clip that it was made of, below CLIPS.
        transforms: One or two, in the order in which they were done.
        parameters: Of each, and of the encoding.
        scale_x: x in the copy = scale_x * x in the clip + shift_x; negative where mirrored.
        shift_x: Pixels of the copy.
        scale_y: Likewise.
        shift_y: Likewise.
        box: What of the copy shows tissue: left, top, right, bottom.
        width: Pixels.
        height: Pixels.
        frames: For each frame of the copy the index of the clip's frame that it shows.
        frames_of_clip: Frames of the clip.
    """

    name: str
    clip: str
    transforms: tuple[str, ...]
    parameters: dict[str, Any]
    scale_x: float
    shift_x: float
    scale_y: float
    shift_y: float
    box: Box
    width: int
    height: int
    frames: tuple[int, ...]
    frames_of_clip: int


@dataclass(frozen=True)
class _Work:
    """A clip on its way to a copy: pictures, rate in Hz, and what `Copy` says of them."""

    frames: Frames
    rate: float
    box: Box
    source: NDArray[np.int64]
    x: tuple[float, float] = (1.0, 0.0)
    y: tuple[float, float] = (1.0, 0.0)
    parameters: dict[str, Any] = field(default_factory=dict)

    def with_parameters(self, **given: Any) -> _Work:
        return replace(self, parameters=self.parameters | given)


# --- which clips, which transforms --------------------------------------------------------------------------------------------------------


def chosen(folder: Path, below: Sequence[str], number: int, seed: int) -> list[Path]:
    """So many clips below CLIPS, evenly over folders and, by the first two words of their names, over patients or publishers."""
    groups: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in sorted(path for part in below or ["."] for path in (folder / part).rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES):
        words = path.stem.replace("-", "_").replace("+", "_").split("_")
        groups[str(path.parent), *words[:2]].append(path)
    rng = np.random.default_rng([seed, 1])
    ordered = []
    for paths in groups.values():
        places = rng.permutation(len(paths))
        ordered += [(turn, rng.random(), paths[place]) for turn, place in enumerate(places)]
    found: list[Path] = []
    for _, _, path in sorted(ordered):
        if len(found) == number:
            break
        if _fit(path):
            found.append(path)
    return sorted(found)


def _fit(path: Path) -> bool:
    """Whether copies of a clip make sense: it can be read, is long enough, and something moves."""
    try:
        frames, _ = _read(path)
    except (ReadError, ValueError):
        return False
    return len(frames) >= LEAST_FRAMES and _tissue(frames) is not None


def designed(clips: int, each: int, seed: int) -> list[list[tuple[str, ...]]]:
    """For each clip the transforms of its copies: no two alike, each single transform as often as another, each pair likewise."""
    rng = np.random.default_rng([seed, 2])
    alone = [(name,) for name in TRANSFORMS]
    pairs = [pair for pair in combinations(TRANSFORMS, 2) if not all(name.startswith("crop") for name in pair)]
    used: Counter[tuple[str, ...]] = Counter()
    plan = []
    for _ in range(clips):
        single = round(each * SHARE_ALONE)
        mine: list[tuple[str, ...]] = []
        for kinds, number in ((alone, single), (pairs, each - single)):
            order = sorted(kinds, key=lambda kind: (used[kind], rng.random()))[:number]
            used.update(order)
            mine += order
        plan.append(mine)
    return plan


def plant(folder: Path, clips: Sequence[Path], plan: Sequence[Sequence[tuple[str, ...]]], out: Path, seed: int, workers: int) -> list[Copy]:
    """Write all copies, each process one clip at a time."""
    out.mkdir(parents=True)
    # spawned: a fork of a process that has decoded can wait for ever for its threads
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(_copies, folder, path, number, plan[number], out, seed) for number, path in enumerate(clips)]
        return [copy for task in tasks for copy in task.result()]


def _copies(folder: Path, path: Path, number: int, kinds: Sequence[tuple[str, ...]], out: Path, seed: int) -> list[Copy]:
    cv2.setNumThreads(1)
    frames, rate = _read(path)
    box = _tissue(frames)
    assert box is not None
    made = []
    for place, kind in enumerate(kinds):
        rng = np.random.default_rng([seed, 3, number, place])
        work = _Work(frames, rate, box, np.arange(len(frames)))
        order = _ordered(kind, rng)
        for name in order:
            work = TRANSFORMS[name](work, rng)
        work = _whole(work)
        work, suffix = _encoding(work, rng, poor="re-encoded" in kind)
        name = f"{number:03d}-{place:02d}{suffix}"
        _encode(out / name, work)
        count, height, width = work.frames.shape
        assert count == len(work.source)
        relative = path.relative_to(folder).as_posix()
        shown = tuple(int(index) for index in work.source)
        made.append(Copy(name, relative, order, work.parameters, *work.x, *work.y, work.box, width, height, shown, len(frames)))
    return made


def _ordered(kind: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """Any order, but what is cut off afterwards was not there: cropping goes before padding and before annotation."""
    order = [kind[place] for place in rng.permutation(len(kind))]
    return tuple(sorted(order, key=lambda name: not name.startswith("crop")))


def _read(path: Path) -> tuple[Frames, float]:
    with open_clip(path) as clip:
        frames = np.stack([frame.pixels.copy() for frame in clip.frames()])
        rate = float(clip.info.declared_rate or 20)
    return (frames if frames.ndim == 3 else frames[..., :3].mean(axis=-1).astype(np.uint8)), rate


def _tissue(frames: Frames) -> Box | None:
    """The box of what moves, None where nothing does: rows and columns of which a twentieth changes by more than two gray levels."""
    some = frames[:: max(1, len(frames) // 40)].astype(np.float32)
    moving = cv2.blur(some.std(axis=0), (9, 9)) > 2
    rows, columns = (np.flatnonzero(moving.mean(axis=axis) > 0.05) for axis in (1, 0))
    if min(len(rows), len(columns)) < 40:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# --- the transforms -----------------------------------------------------------------------------------------------------------------------


def _poor(work: _Work, rng: np.random.Generator) -> _Work:
    """Each copy is encoded anew; this one at low quality, see `_encoding`."""
    return work


def _resized(work: _Work, rng: np.random.Generator) -> _Work:
    drawn, wider = rng.uniform(0.4, 0.8), rng.uniform(0.9, 1.1) if rng.random() < 1 / 3 else 1.0
    height, width = work.frames.shape[1:]
    scale = min(1.0, max(drawn, LEAST_SIDE / min(height, width)))
    size = round(width * scale * wider), round(height * scale)
    way = cv2.INTER_AREA if rng.random() < 0.5 else cv2.INTER_LINEAR
    frames = np.stack([cv2.resize(frame, size, interpolation=way) for frame in work.frames])
    x, y = size[0] / width, size[1] / height
    box = tuple(round(value * factor) for value, factor in zip(work.box, (x, y, x, y), strict=True))
    moved = replace(work, frames=frames, box=box, x=_scaled(work.x, x), y=_scaled(work.y, y))
    return moved.with_parameters(scale=[round(x, 3), round(y, 3)])


def _scaled(line: tuple[float, float], factor: float) -> tuple[float, float]:
    """Pixel centres stay pixel centres: the middle of the first pixel lies half a pixel from the edge before and after."""
    return line[0] * factor, line[1] * factor + (factor - 1) / 2


def _gained(work: _Work, rng: np.random.Generator) -> _Work:
    gamma, gain = rng.uniform(0.6, 1.6), rng.uniform(0.8, 1.2)
    levels = np.clip(255 * (np.arange(256) / 255) ** gamma * gain, 0, 255).astype(np.uint8)
    return replace(work, frames=levels[work.frames]).with_parameters(gamma=round(gamma, 2), gain=round(gain, 2))


def _padded(work: _Work, rng: np.random.Generator) -> _Work:
    left, right, top, bottom = (int(value) for value in rng.integers(20, 121, 4))
    frames = np.pad(work.frames, ((0, 0), (top, bottom), (left, right)))
    written = bool(rng.random() < 0.5)
    if written:
        height, width = frames.shape[1:]
        frame = np.zeros((height, width), np.uint8)
        if right >= 40:  # a gray bar beside the picture
            for row in range(height // 4, height * 3 // 4):
                frame[row, width - 20 : width - 10] = 255 - 255 * (row - height // 4) // max(1, height // 2)
        frame[: min(top, 16)] = int(rng.integers(30, 120))
        cv2.putText(frame, "MI 0.9  TIS 0.1  Lung", (4, height - bottom // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 220, 1)
        outside = np.ones((height, width), bool)
        outside[top : height - bottom, left : width - right] = False
        frames[:, outside] = frame[outside]
    x0, y0, x1, y1 = work.box
    moved = replace(
        work,
        frames=frames,
        box=(x0 + left, y0 + top, x1 + left, y1 + top),
        x=(work.x[0], work.x[1] + left),
        y=(work.y[0], work.y[1] + top),
    )
    return moved.with_parameters(padding=[left, right, top, bottom], writing_outside=written)


def _annotated(work: _Work, rng: np.random.Generator) -> _Work:
    """Lines of text, arrows, calipers and now and then a logo, over the tissue and at the same place in every frame."""
    x0, y0, x1, y1 = work.box
    side = min(x1 - x0, y1 - y0)
    ink, paint = (np.zeros(work.frames.shape[1:], np.uint8) for _ in range(2))
    thick = 1 + side // 400

    def spot(right: float = 1.0) -> tuple[int, int]:
        return int(rng.uniform(x0, x0 + (x1 - x0) * right)), int(rng.uniform(y0 + 10, y1))

    lines, arrows, logo = int(rng.integers(2, 5)), int(rng.integers(1, 3)), bool(rng.random() < 0.5)
    for _ in range(lines):
        text = str(rng.choice(["B-line", "pleura 3.2 cm", "R2 lung", "consolidation", "Case 14", "A-lines"]))
        at, size = spot(0.7), max(0.35, side / 600)
        cv2.putText(ink, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, thick)
        cv2.putText(paint, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, thick)
    for _ in range(arrows):
        (x, y), angle = spot(), rng.uniform(0, 2 * np.pi)
        end = int(x + side / 8 * np.cos(angle)), int(y + side / 8 * np.sin(angle))
        for canvas in (ink, paint):
            cv2.arrowedLine(canvas, (x, y), end, 255, thick + 1, tipLength=0.35)
    ends = [spot(), spot()]
    for canvas in (ink, paint):
        for at in ends:
            cv2.drawMarker(canvas, at, 255, cv2.MARKER_CROSS, max(7, side // 30), thick)
        for part in np.linspace(0, 1, 20):
            cv2.circle(canvas, tuple(int(a + (b - a) * part) for a, b in zip(*ends, strict=True)), thick, 255, -1)
    if logo:
        x, y = spot(0.8)
        corner = x + side // 6, y + side // 12
        cv2.rectangle(ink, (x, y), corner, 255, -1)
        cv2.rectangle(paint, (x, y), corner, 90, -1)
        cv2.putText(paint, "US", (x + 2, corner[1] - 2), cv2.FONT_HERSHEY_SIMPLEX, side / 700, 255, thick)
    frames = work.frames.copy()
    frames[:, ink > 0] = paint[ink > 0]
    return replace(work, frames=frames).with_parameters(lines=lines, arrows=arrows, logo=logo)


def _cropped(share: float) -> Callable[[_Work, np.random.Generator], _Work]:
    def crop(work: _Work, rng: np.random.Generator) -> _Work:
        x0, y0, x1, y1 = work.box
        wide, high = (rng.uniform(share - 0.02, share + 0.02) for _ in range(2))
        width, height = round((x1 - x0) * wide), round((y1 - y0) * high)
        left, top = int(rng.integers(x0, x1 - width + 1)), int(rng.integers(y0, y1 - height + 1))
        frames = work.frames[:, top : top + height, left : left + width]
        x, y = (work.x[0], work.x[1] - left), (work.y[0], work.y[1] - top)
        cut = replace(work, frames=frames, box=(0, 0, width, height), x=x, y=y)
        place = [round((left - x0) / (x1 - x0), 3), round((top - y0) / (y1 - y0), 3)]
        return cut.with_parameters(crop=[round(wide, 3), round(high, 3)], crop_from=place, box_before=[x0, y0, x1, y1])

    return crop


def _mirrored(work: _Work, rng: np.random.Generator) -> _Work:
    width = work.frames.shape[2]
    x0, y0, x1, y1 = work.box
    return replace(work, frames=work.frames[:, :, ::-1], box=(width - x1, y0, width - x0, y1), x=(-work.x[0], width - 1 - work.x[1]))


def _another_rate(work: _Work, rng: np.random.Generator) -> _Work:
    way = str(rng.choice(["every second frame", "each frame twice", "played at another rate"]))
    if way == "every second frame":
        changed = replace(work, frames=work.frames[::2], source=work.source[::2], rate=work.rate / 2)
    elif way == "each frame twice":
        changed = replace(work, frames=work.frames.repeat(2, axis=0), source=work.source.repeat(2), rate=work.rate * 2)
    else:
        changed = replace(work, rate=work.rate * float(rng.choice([0.5, 0.7, 0.8, 1.25, 1.5, 2.0])))
    return changed.with_parameters(rate=way, hz=[round(work.rate, 2), round(changed.rate, 2)])


def _part(work: _Work, rng: np.random.Generator) -> _Work:
    whole = len(work.frames)
    length = min(whole, max(10, round(whole * rng.uniform(0.4, 0.7))))
    start = int(rng.integers(0, whole - length + 1))
    part = slice(start, start + length)
    return replace(work, frames=work.frames[part], source=work.source[part]).with_parameters(part=[start, start + length, whole])


TRANSFORMS: dict[str, Callable[[_Work, np.random.Generator], _Work]] = {
    "re-encoded": _poor,
    "resized": _resized,
    "gain and gamma": _gained,
    "padded": _padded,
    "annotated": _annotated,
    "crop to 90 %": _cropped(0.9),
    "crop to 80 %": _cropped(0.8),
    "crop to 70 %": _cropped(0.7),
    "mirrored": _mirrored,
    "another rate": _another_rate,
    "sub-clip": _part,
}


# --- encoding -----------------------------------------------------------------------------------------------------------------------------


def _whole(work: _Work) -> _Work:
    """Even sides, as 4:2:0 wants them."""
    height, width = (side // 2 * 2 for side in work.frames.shape[1:])
    x0, y0, x1, y1 = work.box
    frames = np.ascontiguousarray(work.frames[:, :height, :width])
    return replace(work, frames=frames, box=(x0, y0, min(x1, width), min(y1, height)))


def _encoding(work: _Work, rng: np.random.Generator, *, poor: bool) -> tuple[_Work, str]:
    """One of three codecs, h264 the most often: at usual quality, or at low."""
    codec = str(rng.choice(["h264", "mpeg4", "mjpeg"], p=[0.6, 0.2, 0.2]))
    ranges = {"h264": (28, 37), "mpeg4": (8, 16), "mjpeg": (8, 16)} if poor else {"h264": (18, 27), "mpeg4": (2, 6), "mjpeg": (2, 6)}
    quality = int(rng.integers(*ranges[codec]))
    suffix = {"h264": ".mp4", "mpeg4": str(rng.choice([".mp4", ".avi"])), "mjpeg": ".avi"}[codec]
    return work.with_parameters(codec=codec, quality=quality), suffix


def _encode(path: Path, work: _Work) -> None:
    codec, quality = work.parameters["codec"], str(work.parameters["quality"])
    rate = Fraction(work.rate).limit_denominator(1000)
    library, pixels = {"h264": ("libx264", "yuv420p"), "mpeg4": ("mpeg4", "yuv420p"), "mjpeg": ("mjpeg", "yuvj420p")}[codec]
    options = {"threads": "1"} | ({"crf": quality, "preset": "veryfast"} if codec == "h264" else {"qmin": quality, "qmax": quality})
    with av.open(str(path), "w") as file:
        stream = file.add_stream(library, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = work.frames.shape[1], work.frames.shape[2], pixels
        stream.codec_context.time_base = 1 / rate
        for index, picture in enumerate(work.frames):
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            frame.pts, frame.time_base = index, 1 / rate
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
