"""How surely a build sees that a clip is frozen, blank, up-converted, a loop, a palindrome, or begins with a title.

    python benchmarks/hygiene_flags.py CLIPS [--count 400] [--seed 0] [--out docs/results/hygiene.md]

CLIPS is any folder of real ultrasound clips. Of each, near-repeats are dropped and a stretch is taken, so that what is then planted is the
only thing to be found; fakes are encoded by four codecs at ordinary quality and read back by the per-video step of a build. Clips with
nothing planted, encoded alike, are among them. Printed: per flag, precision and recall. Originals that carry a flag by themselves are
listed and not used, except up-converted ones, whose repeats are dropped.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from measured import hand_on
from numpy.typing import NDArray

from usdata.errors import ReadError
from usdata.looking import look_at
from usdata.readers import open_clip
from usdata.recipe import Hygiene, Reading
from usdata.sampling import SamplingRule
from usdata.video_step import look_through

FLAGS = ("blank", "frozen", "loop", "palindrome", "title", "upconverted")
CODECS = ("h264", "mpeg4", "mjpeg", "ffv1")
FEWEST_FRAMES = 40
Frames = list[NDArray[np.uint8]]


def main() -> None:
    """Plant, look, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="a folder of real clips")
    parser.add_argument("--count", type=int, default=400, help="planted clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    parser.add_argument("--show", action="store_true", help="name each wrong answer")
    given = parser.parse_args()
    bases, odd = _bases(given.clips)
    print(f"{len(bases)} clips to plant in; flagged by themselves and left out: {', '.join(odd) or 'none'}")
    right: Counter[str] = Counter()
    false: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.count):
            rng = random.Random(given.seed * 1_000_003 + number)
            frames = _stretch(_unique_frames(rng.choice(bases)), rng)
            truth = ("nothing", *FLAGS)[number % (len(FLAGS) + 1)]
            made, how = _planted(frames, truth, rng)
            codec = rng.choice(CODECS)
            path = Path(folder) / "clip.mkv"
            _encode(path, made, codec)
            found = {flag for flag in _flags_of(path) if flag in FLAGS}
            planted[truth] += 1
            right.update(found & {truth})
            false.update(found - {truth})
            if given.show and found != ({truth} - {"nothing"}):
                print(f"{number}: planted {truth} ({how}, {codec}, {len(made)} frames), found {', '.join(sorted(found)) or 'nothing'}")
    lines = ["| flag | planted | found | wrongly found | precision | recall |", "|---|--:|--:|--:|--:|--:|"]
    for flag in FLAGS:
        precision = right[flag] / max(right[flag] + false[flag], 1)
        hand_on(f"{flag}: precision", precision, limit=0.95, sense="at least", load=False)
        hand_on(f"{flag}: recall", right[flag] / planted[flag], limit=0.95, sense="at least", load=False)
        lines.append(f"| {flag} | {planted[flag]} | {right[flag]} | {false[flag]} | {precision:.3f} | {right[flag] / planted[flag]:.3f} |")
    text = "\n".join(lines)
    print(text)
    print(f"{planted['nothing']} clips had nothing planted")
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


def _bases(folder: Path) -> tuple[list[Path], list[str]]:
    bases, odd = [], []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix.lower() not in {".mp4", ".avi", ".mov", ".mpeg", ".mpg", ".gif"}:
            continue
        try:
            flags = set(_flags_of(path)) & set(FLAGS) - {"upconverted"}
        except ReadError:
            continue
        if flags:
            odd.append(f"{path.name} ({', '.join(sorted(flags))})")
        elif len(_unique_frames(path)) >= FEWEST_FRAMES:
            bases.append(path)
    return bases, odd


def _flags_of(path: Path) -> list[str]:
    result = look_through(path, sampling=SamplingRule(rule="rate", hz=3.0), read=Reading(), hygiene=Hygiene())
    return list(result["video"]["flags"])


def _unique_frames(path: Path) -> Frames:
    """Frames that differ clearly from the one before: up-converted ones come back at their own rate."""
    with open_clip(path) as clip:
        return [look.frame.pixels.copy() for look in look_at(clip, Hygiene(near_repeat_difference=1.6)) if look.reason is None]


def _stretch(frames: Frames, rng: random.Random) -> Frames:
    length = min(len(frames), rng.randint(FEWEST_FRAMES, 150))
    first = rng.randint(0, len(frames) - length)
    height, width = (side // 2 * 2 for side in frames[0].shape)
    return [frame[:height, :width] for frame in frames[first : first + length]]


def _planted(frames: Frames, truth: str, rng: random.Random) -> tuple[Frames, str]:
    """The fake, and what was done, in words."""
    if truth == "frozen":
        count = rng.randint(20, 120)
        return [frames[len(frames) // 2]] * count, f"one frame {count} times"
    if truth == "blank":
        return _blank(frames, rng)
    if truth == "loop":
        period = rng.randint(10, min(60, len(frames)))
        rounds = rng.uniform(2.0, 5.0)
        return [frames[number % period] for number in range(int(period * rounds))], f"{period} frames {rounds:.1f} times"
    if truth == "palindrome":
        length = rng.randint(12, min(70, len(frames)))
        both = frames[:length] + frames[: length - rng.randint(0, 1)][::-1]
        times = rng.choice([1, 1, 2, 3])
        return both * times, f"{length} frames forth and back {times} times"
    if truth == "title":
        title = _title(frames[0].shape, rng)
        count = rng.randint(3, 40)
        still = [title] * count
        return (still + frames, f"{count} frames before") if rng.random() < 0.7 else (frames + still, f"{count} frames after")
    if truth == "upconverted":
        factor = rng.choice([Fraction(6, 5), Fraction(5, 4), Fraction(3, 2), Fraction(2), Fraction(5, 2), Fraction(3)])
        return [frames[int(number / factor)] for number in range(int(len(frames) * factor))], f"{factor} times"
    return frames, "as it is"


def _blank(frames: Frames, rng: random.Random) -> tuple[Frames, str]:
    noise = np.random.default_rng(rng.randrange(2**32))
    shape = frames[0].shape
    if rng.random() < 0.5:
        level = rng.uniform(0.0, 3.0)
        return [np.clip(noise.normal(level, 1.0, shape), 0, 255).astype(np.uint8) for _ in frames], "noise"
    return [(frame * (3.0 / max(float(frame.mean()), 1.0))).clip(0, 255).astype(np.uint8) for frame in frames], "dimmed"


def _title(shape: tuple[int, ...], rng: random.Random) -> NDArray[np.uint8]:
    import cv2

    picture = np.full(shape, rng.choice([0, 30, 235]), np.uint8)
    ink = 20 if picture[0, 0] > 128 else 240
    for line in range(rng.randint(2, 5)):
        words = rng.choice(["Lung ultrasound", "Case 12", "B-lines, right side", "Courtesy of the ward"])
        cv2.putText(picture, words, (shape[1] // 10, (line + 1) * shape[0] // 7), cv2.FONT_HERSHEY_SIMPLEX, shape[1] / 640, ink, 2)
    return picture


def _encode(path: Path, frames: Frames, codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream({"h264": "libx264"}.get(codec, codec), rate=25)
        stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
        stream.pix_fmt = {"mjpeg": "yuvj420p", "ffv1": "gray"}.get(codec, "yuv420p")
        if codec == "h264":
            stream.options = {"crf": "23", "preset": "fast"}
        elif codec != "ffv1":
            stream.bit_rate = 4_000_000
        for packet in _packets(stream, frames):
            container.mux(packet)


def _packets(stream: av.VideoStream, frames: Frames) -> Iterator[av.Packet]:
    for frame in frames:
        yield from stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="gray"))
    yield from stream.encode(None)


if __name__ == "__main__":
    main()
