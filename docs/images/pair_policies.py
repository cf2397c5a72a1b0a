"""Draw pairs-POLICY.png, which lie beside this program: what each policy of `pairs.policy` draws from a simulated clip.

    python docs/images/pair_policies.py

The frames are of a phantom clip and the draws are the trainer's own; equal versions of matplotlib give the pictures that are committed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image

from uscl import sections
from uscl.pairs import FramePairs, PairDrawer, VideoIndex
from usdata.phantoms.clips import plan, render

HERE = Path(__file__).parent
FRAMES, EVERY = 13, 5  # of a clip: each fifth one
VIEW_A, VIEW_B, ANCHOR, NEGATIVE, PLAIN = "#1667b0", "#d26a00", "#3a3a3a", "#b3202c", "#8a8a8a"
# All lengths in pixels of a picture 900 wide.
WIDTH, MARGIN, THUMB, GAP = 900, 10, 64, 4
VIEW = 118


@dataclass
class Policy:
    """What is drawn of a policy: its settings, an epoch whose draw shows them well, and words."""

    epoch: int
    settings: dict[str, object]
    title: str
    names: tuple[str, ...] = ("x1", "anchor", "x3")
    reach_s: float | None = None
    far_s: float | None = None


POLICIES = {
    "uscl": Policy(34, {}, "uscl: any three frames, x2 is the anchor of both views", ("x1", "x2", "x3")),
    "same-frame": Policy(0, {}, "same-frame: one frame, augmented twice", ("both", "", "")),
    "ppi": Policy(
        5,
        {"max_distance_s": 0.8, "alpha": 3, "beta": 5},
        "ppi: a frame before and a frame after the anchor, here at most 0.8 s away",
        reach_s=0.8,
    ),
    "within-seconds": Policy(
        137,
        {"max_distance_s": 0.6, "weights": True},
        "within-seconds: two frames, here at most 0.6 s apart",
        ("first", "", "second"),
        reach_s=0.6,
    ),
    "hard-negatives": Policy(
        276,
        {"max_distance_s": 0.4},
        "hard-negatives: two near frames (here 0.4 s), and two far ones as negatives",
        ("first", "", "near"),
        reach_s=0.4,
        far_s=0.48,  # a fifth of 2.4 s
    ),
    "same-column": Policy(
        30,
        {"column": "organ"},
        "same-column: a frame of the clip, and one of any clip with the same value, here the same organ",
        ("first", "", "second"),
    ),
}


def clips() -> list[np.ndarray]:
    """Two phantom clips of the lung, of two patients and two devices: (frames, height, width) gray."""
    made = {clip.name: clip for clip in plan(videos=12, seed=0, size=200, frames=FRAMES * EVERY)}
    return [render(made[name])[0][::EVERY, :, :, 0] for name in ("clip_002", "clip_010")]


def index_of(count: int) -> VideoIndex:
    """As many clips of equal length at 25 Hz, of which each fifth frame was kept."""
    place = np.tile(np.arange(FRAMES), count)
    return VideoIndex(
        video_ids=tuple(f"clip{number}" for number in range(count)),
        frame_rows=np.arange(FRAMES * count),
        starts=np.arange(count) * FRAMES,
        counts=np.full(count, FRAMES),
        groups=np.arange(count),
        labels=np.full(count, -1),
        times_s=place * EVERY / 25,
        frame_indices=place * EVERY,
        keys=np.array([0, 0, 1])[:count],
    )


class Sheet:
    """A picture in pixel coordinates, the origin at the top left."""

    def __init__(self, height: int) -> None:
        self.figure = plt.figure(figsize=(WIDTH / 100, height / 100), dpi=200)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(0, WIDTH)
        self.axes.set_ylim(height, 0)
        self.axes.axis("off")

    def image(self, pixels: np.ndarray, x: float, y: float, width: float, colour: str, line: float, faint: bool = False) -> float:
        """A picture with a border; its height."""
        height = width * pixels.shape[0] / pixels.shape[1]
        extent = (x, x + width, y + height, y)
        self.axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=extent, alpha=0.4 if faint else 1.0, aspect="auto", zorder=1)
        self.axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=line, zorder=3))
        return height

    def text(self, x: float, y: float, words: str, colour: str = "black", size: float = 9.5, **named: object) -> None:
        """Words, by default with their left end on the line's middle."""
        self.axes.text(x, y, words, color=colour, fontsize=size, **{"ha": "left", "va": "center", **named})

    def arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str, dashed: bool = False) -> None:
        """From a frame to a view."""
        style = "dashed" if dashed else "solid"
        self.axes.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=colour, linewidth=1.4, linestyle=style, zorder=6)
        )

    def save(self, path: Path) -> None:
        """Write it."""
        self.axes.set_xlim(0, WIDTH)
        self.axes.set_ylim(self.figure.get_figheight() * 100, 0)
        made = BytesIO()
        self.figure.savefig(made, dpi=200)
        plt.close(self.figure)
        # Gray pictures and five colours: a palette shows them as well in half the bytes.
        Image.open(made).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def left_of(position: int) -> float:
    """Where a frame of a strip begins."""
    return MARGIN + position * (THUMB + GAP)


def strip(sheet: Sheet, clip: np.ndarray, top: float, roles: dict[int, list[tuple[str, str]]], times: bool) -> float:
    """A clip's frames on its time axis, those that were drawn bright and named; the lower end of the pictures."""
    height = THUMB * clip.shape[1] / clip.shape[2]
    for position in range(FRAMES):
        role = roles.get(position, [])
        colour = role[0][1] if role else PLAIN
        sheet.image(clip[position], left_of(position), top, THUMB, colour, 2.6 if role else 0.5, faint=not role)
        words = ", ".join(name for name, _ in role)
        sheet.text(left_of(position) + THUMB / 2, top - 8, words, colour, 9, ha="center", weight="bold")
        if times:
            sheet.text(left_of(position) + THUMB / 2, top + height + 8, f"{position * EVERY / 25:.1f} s", "#555555", 7.5, ha="center")
    return top + height


def bar(sheet: Sheet, low: int, high: int, y: float, words: str, colour: str) -> None:
    """A line above some frames of a strip, with words in its middle."""
    left, right = left_of(low), left_of(high) + THUMB
    sheet.axes.plot([left, right], [y, y], color=colour, linewidth=2, solid_capstyle="butt", alpha=0.6, zorder=4)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    sheet.text((left + right) / 2, y, words, colour, 8, ha="center", bbox=box, zorder=5)


def picture(name: str, policy: Policy, shown: list[np.ndarray]) -> None:
    """Draw one policy."""
    index = index_of(3)
    settings = sections.Pairs.model_validate({"policy": name, **policy.settings})
    drawn: FramePairs = PairDrawer(index, settings)(0, policy.epoch, np.arange(1))
    rows, shares = drawn.frame_rows[0], drawn.coefficients[0]
    two_clips = name == "same-column"
    mixed = bool((shares[:2] < 1).any())
    top = 44 if policy.reach_s is None else 64
    height = top + (318 if two_clips else 210)
    sheet = Sheet(height)
    sheet.text(MARGIN, 13, policy.title, size=11.5, weight="bold")

    x1, anchor, x3 = (int(row) for row in rows[:3])
    roles: dict[int, list[tuple[str, str]]] = {}
    if name == "same-frame":
        roles[x1] = [("a and b", ANCHOR)]
    else:
        roles[x1] = [(policy.names[0], VIEW_A)]
        if mixed:
            roles.setdefault(anchor, []).append((policy.names[1], ANCHOR))
        if x3 < FRAMES:
            roles.setdefault(x3, []).append((policy.names[2], VIEW_B))
    if len(rows) == 6:
        for row in rows[[3, 5]]:
            roles.setdefault(int(row), []).append(("far", NEGATIVE))
    bottom = strip(sheet, shown[0], top, roles, True)
    below = bottom + 16
    centre = anchor if mixed else x1
    if policy.reach_s is not None:
        # The window around the frame that all is drawn from.
        reach = round(policy.reach_s * 25 / EVERY)
        low, high = max(centre - reach, 0), min(centre + reach, FRAMES - 1)
        words = f"within {policy.reach_s:g} s of {'the anchor' if mixed else 'the first'}"
        bar(sheet, low, high, 36, words, ANCHOR if mixed else VIEW_A)
    if policy.far_s is not None:
        reach = math.ceil(policy.far_s * 25 / EVERY)
        bar(sheet, 0, centre - reach, 36, f"at least {policy.far_s:g} s away", NEGATIVE)
        bar(sheet, centre + reach, FRAMES - 1, 36, "(a fifth of the clip)", NEGATIVE)
    ends = {row: (left_of(row) + THUMB / 2, bottom + 2) for row in range(FRAMES)}
    if two_clips:
        sheet.text(WIDTH - MARGIN, bottom + 32, "another clip whose organ is lung, too", size=9, ha="right")
        other = strip(sheet, shown[1], bottom + 56, {x3 - FRAMES: [(policy.names[2], VIEW_B)]}, False)
        ends[x3] = (left_of(x3 - FRAMES) + THUMB / 2, other + 2)
        below = other + 6

    views_top = below + 38
    frames = [frame.astype(np.float64) for clip in shown for frame in clip]
    columns = [("view a", VIEW_A, rows[0], shares[0]), ("view b", VIEW_B, rows[2], shares[1])]
    if len(rows) == 6:
        columns += [("view c", NEGATIVE, rows[3], shares[2]), ("view d", NEGATIVE, rows[5], shares[3])]
    width = VIEW if len(columns) == 2 else 104
    for place, (label, colour, row, share) in enumerate(columns):
        x = (150, 560)[place] if len(columns) == 2 else 20 + 222 * place
        pixels = share * frames[int(row)] + (1 - share) * frames[anchor] if share < 1 else frames[int(row)]
        sheet.image(pixels, x, views_top, width, colour, 2.6)
        middle = x + width / 2
        starts = ends[int(row)]
        sheet.arrow((starts[0], starts[1] + (16 if int(row) < FRAMES else 0)), (middle - (12 if mixed else 0), views_top - 3), colour)
        if mixed:
            sheet.arrow((ends[anchor][0], ends[anchor][1] + 16), (middle + 12, views_top - 3), ANCHOR, dashed=True)
        words = [label]
        if mixed:
            words += [f"{share:.2f} × {policy.names[0 if place == 0 else 2]}", f"+ {1 - share:.2f} × {policy.names[1]}"]
        elif label in ("view a", "view b"):
            words += {
                "same-frame": ["that frame; each view", "is then augmented", "by itself"],
                "hard-negatives": ["positive", "pair"],
            }.get(name, ["one frame,", "unmixed"])
        else:
            words += ["hard", "negative"]
        for line, word in enumerate(words):
            weight = "bold" if line == 0 else "normal"
            sheet.text(x + width + 8, views_top + 14 + 17 * line, word, colour if line == 0 else "black", 9.5, weight=weight)
        if drawn.weights is not None and place == 1:
            sheet.text(x + width + 8, views_top + 14 + 17 * 4, f"weight of the pair: {drawn.weights[0]:.2f}", "black", 9.5)
    sheet.save(HERE / f"pairs-{name}.png")


def main() -> None:
    """Write the six pictures."""
    mpl.use("Agg")
    shown = clips()
    for name, policy in POLICIES.items():
        picture(name, policy, shown)


if __name__ == "__main__":
    main()
