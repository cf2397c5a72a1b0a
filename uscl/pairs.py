"""Which frames of which videos make the two views, and in which batch: pure functions of (seed, epoch, video).

In comes a data set; out come batches of video numbers, and for each video three frame rows (x1, anchor, x3) with two mixing coefficients:
view_a = c_a * x1 + (1 - c_a) * anchor and view_b = c_b * x3 + (1 - c_b) * anchor. A batch never holds a video twice. What a video gives
does not depend on the batch it stands in, nor on what was drawn before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uscl import sections
from uscl.draws import Stream, beta, permutation, uniform
from usdata.errors import DataSetError, UserError
from usdata.manifest import DataSet

# What an epoch may leave out before its settings are refused, and how many epochs are looked at where they differ.
_MOST_LEFT_OUT = 0.1
_EPOCHS_LOOKED_AT = 10


@dataclass(frozen=True)
class VideoIndex:
    """The videos that are trained on, each with its frames in temporal order.

    Attributes:
        video_ids: Names of the videos.
        frame_rows: (frames,) rows of `dataset.frames`, video after video.
        starts: (videos,) where a video's frames begin in `frame_rows`.
        counts: (videos,) frames a video, at least 1.
        groups: (videos,) numbers of the groups (patients, where known).
        labels: (videos,) `label_index`, -1 = unlabelled.
        times_s: (frames,) seconds from the clip's first frame, NaN = unknown; beside `frame_rows`.
        frame_indices: (frames,) positions in the source video; beside `frame_rows`.
    """

    video_ids: tuple[str, ...]
    frame_rows: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    times_s: np.ndarray
    frame_indices: np.ndarray

    def __len__(self) -> int:
        return len(self.video_ids)


@dataclass(frozen=True)
class FramePairs:
    """What makes the views of some videos.

    Attributes:
        frame_rows: (videos, 3) rows of `dataset.frames`: x1, anchor, x3.
        coefficients: (videos, 2) share of x1 in view a and of x3 in view b, 0 to 1; the rest is the anchor.
    """

    frame_rows: np.ndarray
    coefficients: np.ndarray


def index_videos(dataset: DataSet, splits: tuple[str, ...] = ("train",)) -> VideoIndex:
    """The videos of some splits of a data set, in the order of its manifest.

    Raises:
        DataSetError: No frame stands in these splits.
    """
    frames = dataset.frames
    rows = np.flatnonzero(frames["split"].isin(splits).to_numpy())
    if len(rows) == 0:
        found = ", ".join(sorted(frames["split"].unique())) or "none"
        raise DataSetError(dataset.folder, f"has no frame in split {', '.join(splits)} (but {found})", "see --set pairs.splits=[...]")
    frames = frames.iloc[rows]
    names, videos = np.unique(frames["video_id"].to_numpy(dtype=str), return_inverse=True)
    order = np.lexsort((frames["frame_index"].to_numpy(), videos))
    starts = np.searchsorted(videos[order], np.arange(len(names)))
    first = order[starts]
    labels = frames["label_index"].astype("Float64").fillna(-1).to_numpy(dtype=np.int64)
    return VideoIndex(
        video_ids=tuple(str(name) for name in names),
        frame_rows=rows[order],
        starts=starts,
        counts=np.diff(np.append(starts, len(rows))),
        groups=np.unique(frames["group_id"].to_numpy(dtype=str), return_inverse=True)[1][first],
        labels=labels[first],
        times_s=frames["time_s"].to_numpy(dtype=np.float64, na_value=np.nan)[order],
        frame_indices=frames["frame_index"].to_numpy(dtype=np.int64)[order],
    )


def batches(seed: int, epoch: int, index: VideoIndex, batch_size: int, distinct_groups: bool = False) -> list[np.ndarray]:
    """The batches of an epoch: every video at most once.

    Videos come in the epoch's order. With `distinct_groups`, each goes into the first batch that has room and holds none of its group, so a
    group with many videos spreads over as many batches. A batch that ends up with a single video is left out, for it has no negatives
    (another epoch brings its video into company), unless it is the only one.

    Returns:
        Arrays of video numbers, each of 1 to `batch_size`.
    """
    order = permutation(seed, epoch, len(index))
    filled = _fill_distinct(order, index.groups, batch_size) if distinct_groups else _fill(order, batch_size)
    return [batch for batch in filled if len(batch) >= 2] or filled[:1]


def check_batches(seed: int, index: VideoIndex, batch_size: int, distinct_groups: bool = False) -> None:
    """Refuse settings under which much of the set would hardly be trained on; a set of one video is legal.

    Raises:
        UserError: Batches of one video have no negatives, or batches of a single video, which are left out, hold more than a tenth of the
            videos.
    """
    if len(index) < 2:
        return
    if batch_size < 2:
        raise UserError("batch_size", f"is {batch_size}, and a batch of one video has no negatives", "use --set batch_size=2 or more")
    left_out = _left_out(seed, index, batch_size, distinct_groups)
    if left_out <= _MOST_LEFT_OUT * len(index):
        return
    told = f"leaves out {left_out:.3g} of {len(index)} videos an epoch, because they end up in batches of their own, without negatives"
    if distinct_groups and left_out > _left_out(seed, index, batch_size, False):
        reason = f"is true, and {told}: the set's {len(set(index.groups.tolist()))} groups are too few or too unequal"
        raise UserError("pairs.distinct_groups", reason, "use --set pairs.distinct_groups=false --set pairs.exclude_same_group=true")
    fitting = next(size for size in range(batch_size + 1, len(index) + 1) if len(index) % size != 1)
    raise UserError("batch_size", f"is {batch_size}, and {told}", f"use --set batch_size={fitting}")


def _left_out(seed: int, index: VideoIndex, batch_size: int, distinct_groups: bool) -> float:
    """Videos that an epoch leaves out, on the mean."""
    # Without the rule on groups every epoch leaves out as many; with it the number changes a little from epoch to epoch.
    epochs = range(_EPOCHS_LOOKED_AT if distinct_groups else 1)
    made = [batches(seed, epoch, index, batch_size, distinct_groups) for epoch in epochs]
    return len(index) - float(np.mean([sum(len(batch) for batch in each if len(batch) > 1) for each in made]))


def _fill(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _fill_distinct(order: np.ndarray, groups: np.ndarray, batch_size: int) -> list[np.ndarray]:
    filled: list[list[int]] = []
    first_with_room = 0
    after_group: dict[int, int] = {}
    for video in order:
        group = int(groups[video])
        place = max(first_with_room, after_group.get(group, 0))
        while place < len(filled) and len(filled[place]) == batch_size:
            place += 1
        if place == len(filled):
            filled.append([])
        filled[place].append(int(video))
        after_group[group] = place + 1
        while first_with_room < len(filled) and len(filled[first_with_room]) == batch_size:
            first_with_room += 1
    return [np.array(batch, dtype=np.int64) for batch in filled]


class PairDrawer:
    """Draws the pairs of videos under one policy; keeps only what the policy precomputes from the index.

    Args:
        index: The videos.
        settings: Policy, coefficients and distances.

    Attributes:
        pairs: P: pairs of views that a video gives.

    Raises:
        UserError: A distance in seconds is asked for, and frames lack times.
    """

    def __init__(self, index: VideoIndex, settings: sections.Pairs) -> None:
        self.index = index
        self.settings = settings
        self.pairs = 1
        self._neighbours = _neighbours(index, settings) if settings.policy == "ppi" else None

    def __call__(self, seed: int, epoch: int, videos: np.ndarray) -> FramePairs:
        """The pairs of these videos in this epoch."""
        counts = self.index.counts[videos]
        draws = uniform(seed, stream=Stream.FRAMES, epoch=epoch, item=videos, draws=3)
        if self.settings.policy == "same-frame":
            picked = np.repeat(_scaled(draws[:, :1], counts[:, None]), 3, axis=1)
        elif self._neighbours is not None:
            picked = self._temporal(videos, draws)
        else:
            picked = three_of(draws, counts)
        mixed = (counts >= 3) & (self.settings.policy != "same-frame")
        coefficients = np.where(mixed[:, None], self._coefficients(seed, epoch, videos), 1.0)
        return FramePairs(frame_rows=self.index.frame_rows[self.index.starts[videos][:, None] + picked], coefficients=coefficients)

    def _coefficients(self, seed: int, epoch: int, videos: np.ndarray) -> np.ndarray:
        draws = uniform(seed, stream=Stream.MIXING, epoch=epoch, item=videos, draws=2)
        if self.settings.coefficients == "shared":
            draws[:, 1] = draws[:, 0]
        return beta(draws, self.settings.alpha, self.settings.beta)

    def _temporal(self, videos: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Positions (videos, 3) of f1 <= anchor <= f3: the anchor evenly among the eligible ones, the others evenly within the distance."""
        assert self._neighbours is not None
        anchors, anchor_starts, anchor_counts, earlier, later = self._neighbours
        anchor = anchors[anchor_starts[videos] + _scaled(draws[:, 1], anchor_counts[videos])]
        # A frame with no neighbour within the distance stands in for it itself: its distance is zero.
        before = np.where(earlier[anchor] > 0, 1 + _scaled(draws[:, 0], np.maximum(earlier[anchor], 1)), 0)
        after = np.where(later[anchor] > 0, 1 + _scaled(draws[:, 2], np.maximum(later[anchor], 1)), 0)
        middle = anchor - self.index.starts[videos]
        temporal = np.stack([middle - before, middle, middle + after], axis=1)
        few = self.index.counts[videos] < 3
        return np.where(few[:, None], three_of(draws, self.index.counts[videos]), temporal)


def three_of(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Three positions without replacement out of each count, every ordered triple equally likely.

    Of two frames the first is x1 and the second x3 (the anchor then has no share); one frame stands for all three.

    Args:
        draws: (videos, 3) uniform in [0, 1).
        counts: (videos,) frames a video, at least 1.

    Returns:
        (videos, 3) int64 positions: x1, anchor, x3.
    """
    first = _scaled(draws[:, 0], counts)
    second = _scaled(draws[:, 1], np.maximum(counts - 1, 1))
    second = second + (second >= first)
    third = _scaled(draws[:, 2], np.maximum(counts - 2, 1))
    low, high = np.minimum(first, second), np.maximum(first, second)
    third = third + (third >= low)
    third = third + (third >= high)
    picked = np.stack([first, second, third], axis=1)
    few = np.stack([np.zeros_like(counts), np.zeros_like(counts), counts - 1], axis=1)
    return np.where((counts >= 3)[:, None], picked, few)


def _scaled(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) to whole numbers 0 .. count - 1; the product can round up to the count itself, hence the minimum."""
    return np.minimum((draws * counts).astype(np.int64), counts - 1)


def _neighbours(index: VideoIndex, settings: sections.Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For temporal pairs: eligible anchors (with starts and counts a video), and how many frames before and after each lie near enough.

    Eligible are the frames with near neighbours on both sides; where a video has none, those with one; else all its frames.
    """
    if settings.max_distance_s is not None and np.isnan(index.times_s).any():
        unknown = {index.video_ids[v] for v in range(len(index)) if np.isnan(_of(index, index.times_s, v)).any()}
        reason = f"is in seconds, but {len(unknown)} of {len(index)} videos have no frame times (such as {min(unknown)})"
        raise UserError("pairs.max_distance_s", reason, "use --set pairs.max_distance_frames=N --set pairs.max_distance_s=null")
    total = len(index.frame_rows)
    earlier, later = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=np.int64)
    anchors, counts = [], np.zeros(len(index), dtype=np.int64)
    for video in range(len(index)):
        start, count = index.starts[video], index.counts[video]
        place = np.arange(count)
        low, high = np.zeros(count, dtype=np.int64), np.full(count, count - 1)
        for positions, distance in ((index.times_s, settings.max_distance_s), (index.frame_indices, settings.max_distance_frames)):
            if distance is not None:
                own = _of(index, positions, video)
                # Times are sums of rounded ticks: the slack keeps a frame at exactly the distance inside.
                low = np.maximum(low, np.searchsorted(own, own - distance - 1e-9, side="left"))
                high = np.minimum(high, np.searchsorted(own, own + distance + 1e-9, side="right") - 1)
        before, after = place - low, high - place
        earlier[start : start + count], later[start : start + count] = before, after
        sides = (before > 0).astype(np.int64) + (after > 0)
        eligible = np.flatnonzero(sides == sides.max())
        anchors.append(start + eligible)
        counts[video] = len(eligible)
    return np.concatenate(anchors), np.concatenate([[0], np.cumsum(counts)[:-1]]), counts, earlier, later


def _of(index: VideoIndex, values: np.ndarray, video: int) -> np.ndarray:
    return values[index.starts[video] : index.starts[video] + index.counts[video]]
