"""The policies: which frames make the views of each video, as pure functions of uniform draws and of what an index knows.

In come numbers in [0, 1), a row a video, and arrays of an index; out come places of frames: positions in the index's `frame_rows`, where
the frames of a video stand together in temporal order. A pair of views is three places (x1, anchor, x3). What a video gets depends on its
own row of draws alone.

Shapes: V videos asked for, F frames and M videos in the index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# How far hard negatives lie away where no least distance is set: a share of the video's length. UCL's published code begins with a fifth
# (it also stops at two fifths, which is not done here) and ends near .03, so that they become harder.
FAR_SHARE = 0.2
FAR_SHARE_AT_LAST = 0.03
# Times are sums of rounded ticks: the slack keeps a frame at exactly the distance inside.
_SLACK = 1e-9


@dataclass(frozen=True)
class Sides:
    """How many frames on each side of a frame, in its own video, fulfil something.

    Attributes:
        earlier: (F,) frames before it.
        later: (F,) frames after it.
    """

    earlier: np.ndarray
    later: np.ndarray


@dataclass(frozen=True)
class Anchors:
    """The frames of each video that may be the anchor.

    Attributes:
        places: Of the frames, video after video.
        starts: (M,) where a video's begin in `places`.
        counts: (M,) how many a video has, at least 1.
    """

    places: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    def draw(self, videos: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """(V,) places, each of a video's anchors equally likely."""
        return self.places[self.starts[videos] + scaled(draws, self.counts[videos])]


def scaled(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) to whole numbers 0 .. count - 1; the product can round up to the count itself, hence the minimum."""
    return np.minimum((draws * counts).astype(np.int64), counts - 1)


def near_frames(starts: np.ndarray, counts: np.ndarray, bounds: Sequence[tuple[np.ndarray, float]]) -> Sides:
    """The frames next to each frame that lie within every bound of it.

    Args:
        starts: (M,) where a video's frames begin.
        counts: (M,) frames a video.
        bounds: Pairs of (F,) positions, rising in each video, and a greatest distance; none: the whole video is near.
    """
    total = int(counts.sum())
    earlier, later = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=np.int64)
    for start, count in zip(starts, counts, strict=True):
        own = slice(start, start + count)
        place = np.arange(count)
        low, high = np.zeros(count, dtype=np.int64), np.full(count, count - 1)
        for positions, distance in bounds:
            values = positions[own]
            low = np.maximum(low, np.searchsorted(values, values - distance - _SLACK, side="left"))
            high = np.minimum(high, np.searchsorted(values, values + distance + _SLACK, side="right") - 1)
        earlier[own], later[own] = place - low, high - place
    return Sides(earlier, later)


def far_frames(starts: np.ndarray, counts: np.ndarray, bounds: Sequence[tuple[np.ndarray, float]], near: Sides) -> Sides:
    """The frames at each end of a video that lie at least every bound's distance from a frame, and are none of those near it.

    Args:
        starts: (M,) where a video's frames begin.
        counts: (M,) frames a video.
        bounds: Pairs of (F,) positions, rising in each video, and a least distance.
        near: Of `near_frames`.
    """
    total = int(counts.sum())
    earlier, later = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=np.int64)
    for start, count in zip(starts, counts, strict=True):
        own = slice(start, start + count)
        place = np.arange(count)
        before, after = place - near.earlier[own], count - 1 - place - near.later[own]
        for positions, distance in bounds:
            values = positions[own]
            before = np.minimum(before, np.searchsorted(values, values - distance + _SLACK, side="right"))
            after = np.minimum(after, count - np.searchsorted(values, values + distance - _SLACK, side="left"))
        earlier[own], later[own] = before, after
    return Sides(earlier, later)


def best_anchors(starts: np.ndarray, ranks: np.ndarray) -> Anchors:
    """In each video the frames of its highest rank.

    Args:
        starts: (M,) where a video's frames begin.
        ranks: (F,) whole numbers.
    """
    counts = np.diff(np.append(starts, len(ranks)))
    best = ranks == np.repeat(np.maximum.reduceat(ranks, starts), counts)
    found = np.add.reduceat(best.astype(np.int64), starts)
    return Anchors(np.flatnonzero(best), np.concatenate([[0], np.cumsum(found)[:-1]]), found)


def three_of(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`uscl`: three positions in a video without replacement, every ordered triple equally likely.

    Of two frames the first is x1 and the second x3 (the anchor then has no share); one frame stands for all three.

    Args:
        draws: (V, 3) uniform in [0, 1).
        counts: (V,) frames a video, at least 1.

    Returns:
        (V, 3) int64 positions: x1, anchor, x3.
    """
    first = scaled(draws[:, 0], counts)
    second = scaled(draws[:, 1], np.maximum(counts - 1, 1))
    second = second + (second >= first)
    third = scaled(draws[:, 2], np.maximum(counts - 2, 1))
    low, high = np.minimum(first, second), np.maximum(first, second)
    third = third + (third >= low)
    third = third + (third >= high)
    picked = np.stack([first, second, third], axis=1)
    few = np.stack([np.zeros_like(counts), np.zeros_like(counts), counts - 1], axis=1)
    return np.where((counts >= 3)[:, None], picked, few)


def same_frame(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`same-frame`: one position in a video, three times; arguments and result as of `three_of`."""
    return np.repeat(scaled(draws[:, :1], counts[:, None]), 3, axis=1)


def in_order(draws: np.ndarray, anchor: np.ndarray, near: Sides) -> np.ndarray:
    """`ppi` (Meta-USCL, arXiv 2212.04097): a frame before and one after the anchor, each evenly among those near it.

    Args:
        draws: (V, 2) uniform, for the frame before and the frame after.
        anchor: (V,) places.
        near: Of `near_frames`.

    Returns:
        (V, 3) places x1 <= anchor <= x3. A frame with no near neighbour on a side stands in for it itself: its distance is zero.

    The published code draws otherwise: two distances from the first frame, evenly and without replacement among 1 to the bound, and then
    the first frame among those that leave room for them. So its bound is that of x3 from x1, in kept frames; here it is that of either
    from the anchor, in source frames or seconds.
    """
    earlier, later = near.earlier[anchor], near.later[anchor]
    before = np.where(earlier > 0, 1 + scaled(draws[:, 0], np.maximum(earlier, 1)), 0)
    after = np.where(later > 0, 1 + scaled(draws[:, 1], np.maximum(later, 1)), 0)
    return np.stack([anchor - before, anchor, anchor + after], axis=1)


def within_distance(draws: np.ndarray, first: np.ndarray, near: Sides) -> np.ndarray:
    """`within-seconds` (IVPP, VanBerlo et al. 2024, arXiv 2403.07715): a second frame evenly among those near the first, itself included.

    So IVPP's published code draws: the first frame evenly in the video, the second evenly in the window around it, which the video's ends
    cut; both may be the same.

    Args:
        draws: (V,) uniform.
        first: (V,) places.
        near: Of `near_frames`.

    Returns:
        (V, 3) places: the first twice (the anchor has no share) and the second.
    """
    earlier, later = near.earlier[first], near.later[first]
    second = first - earlier + scaled(draws, earlier + later + 1)
    return np.stack([first, first, second], axis=1)


def closeness(distance_s: np.ndarray, greatest_s: float) -> np.ndarray:
    """IVPP's weight of a pair: w = (D - d + 1) / (D + 1), for d and D in seconds.

    Its published code takes d and D in frames (D is then the bound in seconds times the frame rate, rounded down), which falls to
    1 / (D + 1), near nothing, at the bound, where seconds leave 1 / 2 of D = 1.

    Args:
        distance_s: (V,) d, 0 to D.
        greatest_s: D, greater than 0.

    Returns:
        (V,) float32 in (0, 1].
    """
    return ((greatest_s - distance_s + 1) / (greatest_s + 1)).astype(np.float32)


def far_share(epoch: int, harder_over_epochs: int | None) -> float:
    """The least distance of hard negatives in an epoch as a share of the video's length, where no other is set.

    Args:
        epoch: 0-based.
        harder_over_epochs: Over how many epochs it falls, along half a cosine, from `FAR_SHARE` to `FAR_SHARE_AT_LAST`; None: it does not.
    """
    if harder_over_epochs is None:
        return FAR_SHARE
    gone = min(epoch / harder_over_epochs, 1.0)
    return FAR_SHARE_AT_LAST + (FAR_SHARE - FAR_SHARE_AT_LAST) * (1 + math.cos(math.pi * gone)) / 2


def farther_than(share: float, places: np.ndarray, starts: np.ndarray, frame_indices: np.ndarray) -> Sides:
    """The frames at each end of a video that lie at least a share of its length from some of its frames.

    Args:
        share: Of the distance between a video's first and last frame, 0 to 1.
        places: (V,) of those frames.
        starts: (M,) where a video's frames begin.
        frame_indices: (F,) positions in the source video, rising in each video.

    Returns:
        (V,) frames before and after each, unlike those of `near_frames` not for all frames of the index.
    """
    ends = np.append(starts[1:], len(frame_indices))
    video = np.searchsorted(starts, places, side="right") - 1
    first, last = frame_indices[starts], frame_indices[ends - 1]
    # One rising row of numbers for all videos, with a gap between them, so that one search does for all.
    step = int((last - first).max()) + 2
    line = frame_indices - np.repeat(first - np.arange(len(starts)) * step, ends - starts)
    least = np.maximum(np.ceil(share * (last - first)[video] - _SLACK).astype(np.int64), 1)
    low = np.maximum(line[places] - least, video * step - 1)
    high = np.minimum(line[places] + least, (video + 1) * step - 1)
    return Sides(np.searchsorted(line, low, side="right") - starts[video], ends[video] - np.searchsorted(line, high, side="left"))


def near_and_far(
    draws: np.ndarray, anchor: np.ndarray, near: Sides, far: Sides, starts: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`hard-negatives` (UCL, Basu et al., MICCAI 2022, arXiv 2207.13148): a near frame as positive, two far ones of the video as negatives.

    The positive is drawn evenly among the frames near the anchor, which is none of them; the negatives evenly and without replacement among
    the far ones (UCL's published code draws three, with replacement).

    Args:
        draws: (V, 3) uniform: for the positive and the two negatives.
        anchor: (V,) places.
        near: (V,) frames next to each anchor that are near.
        far: (V,) frames at each end of its video that are far.
        starts: (V,) where its video begins.
        counts: (V,) frames of its video.

    Returns:
        (V, 6) places: anchor, anchor and positive, then the first negative twice and the second; and (V, 2) bool, which negatives are real.
        The anchor stands in for a positive and for negatives that there are not.
    """
    window = near.earlier + near.later
    positive = anchor - near.earlier + scaled(draws[:, 0], np.maximum(window, 1))
    positive = np.where(window > 0, positive + (positive >= anchor), anchor)
    found = far.earlier + far.later
    one = scaled(draws[:, 1], np.maximum(found, 1))
    two = scaled(draws[:, 2], np.maximum(found - 1, 1))
    two = two + (two >= one)
    real = np.stack([found >= 1, found >= 2], axis=1)
    kth = np.stack([one, two], axis=1)
    before, after, start, count = (each[:, None] for each in (far.earlier, far.later, starts, counts))
    negatives = np.where(real, start + np.where(kth < before, kth, count - after + kth - before), anchor[:, None])
    return np.concatenate([np.stack([anchor, anchor, positive], axis=1), negatives[:, [0, 0, 1]]], axis=1), real


@dataclass(frozen=True)
class Partners:
    """The videos of each key, for `same-column`.

    Attributes:
        keys: (M,) numbers from 0 without gaps, -1 = none.
        members: Video numbers, key after key.
        starts: (keys,) where a key's begin in `members`.
        counts: (keys,) how many it has.
    """

    keys: np.ndarray
    members: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    def draw(self, videos: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """(V,) video numbers, each of a key's equally likely, the video itself included; a video without a key is its own partner."""
        key = self.keys[videos]
        known = key >= 0
        if not known.any():
            return videos
        some = np.where(known, key, 0)
        return np.where(known, self.members[self.starts[some] + scaled(draws, self.counts[some])], videos)


def partners_of(keys: np.ndarray) -> Partners:
    """The videos of each key.

    Args:
        keys: (M,) numbers from 0 without gaps, -1 = none.
    """
    counts = np.bincount(keys[keys >= 0])
    members = np.argsort(keys, kind="stable")[np.count_nonzero(keys < 0) :]
    return Partners(keys, members, np.cumsum(counts) - counts, counts)


def share_something(groups: np.ndarray | None, partner_groups: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which videos are no negatives of each other under `same-column`.

    Args:
        groups: (V,) of the videos; None: groups are not looked at.
        partner_groups: (V,) of the videos that their second views are of.
        keys: (V,) -1 = none.

    Returns:
        (V, V) bool: equal keys, or one of the groups behind one's views is one of the groups behind the other's.
    """
    same = (keys[:, None] == keys) & (keys >= 0)
    if groups is not None:
        for one in (groups, partner_groups):
            for two in (groups, partner_groups):
                same = same | (one[:, None] == two)
    return same
