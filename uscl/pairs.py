"""Which frames of which videos make the two views, and in which batch: pure functions of (seed, epoch, video).

In comes a data set; out come batches of video numbers, and for each video three frame rows (x1, anchor, x3) with two mixing coefficients:
view_a = c_a * x1 + (1 - c_a) * anchor and view_b = c_b * x3 + (1 - c_b) * anchor. A batch never holds a video twice. What a video gives
does not depend on the batch it stands in, nor on what was drawn before. How frames are chosen is said by `policies.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from uscl import policies, sections
from uscl.draws import Stream, beta, permutation, uniform
from usdata.errors import DataSetError, UserError, nearest
from usdata.manifest import DataSet

# What an epoch may leave out before its settings are refused, and how many epochs are looked at where they differ.
_MOST_LEFT_OUT = 0.1
_EPOCHS_LOOKED_AT = 10

# Pairs of views that a video gives, where it is not one.
PAIRS_OF = {"hard-negatives": 2}
# How near a positive frame of `hard-negatives` lies where nothing else is set: UCL's three frames (Basu et al. 2022, arXiv 2207.13148).
NEAR_FRAMES = 3


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
        keys: (videos,) numbers of the values in `pairs.column`, from 0 in their order, -1 = null; None where no column is named.
    """

    video_ids: tuple[str, ...]
    frame_rows: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    times_s: np.ndarray
    frame_indices: np.ndarray
    keys: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.video_ids)


@dataclass(frozen=True)
class FramePairs:
    """What makes the views of some videos: P pairs of views of each.

    Attributes:
        frame_rows: (videos, 3 P) rows of `dataset.frames`: x1, anchor, x3 of each pair.
        coefficients: (videos, 2 P) share of x1 in a pair's first view and of x3 in its second, 0 to 1; the rest is the anchor.
        weights: (videos,) float32 weights of the pairs, or None.
        hard: (videos, 2) bool, with a second pair: which of its views are far frames of the video, and hard negatives.
        partners: (videos,) numbers of the videos that x3 is of; None: the videos themselves.
    """

    frame_rows: np.ndarray
    coefficients: np.ndarray
    weights: np.ndarray | None = None
    hard: np.ndarray | None = None
    partners: np.ndarray | None = None

    def of(self, some: slice) -> FramePairs:
        """Those of some of the videos."""
        return replace(self, **{name: value[some] for name, value in vars(self).items() if value is not None})


def index_videos(dataset: DataSet, splits: tuple[str, ...] = ("train",), column: str | None = None) -> VideoIndex:
    """The videos of some splits of a data set, in the order of its manifest.

    Args:
        dataset: Opened.
        splits: Whose frames are taken.
        column: Of frames.parquet or videos.parquet, for `keys`.

    Raises:
        DataSetError: No frame stands in these splits.
        UserError: There is no such column, or it does not hold one value a video.
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
        keys=None if column is None else _keys(dataset, column, frames, names),
    )


def _keys(dataset: DataSet, column: str, frames: pd.DataFrame, names: np.ndarray) -> np.ndarray:
    """(videos,) numbers of a column's values, from 0 in their order, -1 = null."""
    if column in frames.columns:
        table = frames[["video_id", column]]
    elif column in dataset.videos.columns:
        table = dataset.videos[["video_id", column]]
        table = table[table["video_id"].isin(names)]
    else:
        advice = nearest(column, {*frames.columns, *dataset.videos.columns})
        raise UserError("pairs.column", f"is '{column}', which neither frames.parquet nor videos.parquet has", advice)
    if table[column].map(lambda value: isinstance(value, list | np.ndarray)).any():
        raise UserError("pairs.column", f"is '{column}', which holds lists", "name a column with one value a video, such as label or organ")
    values = table.groupby("video_id")[column]
    several = values.nunique(dropna=False)
    if (several > 1).any():
        video = several.index[several > 1][0]
        reason = f"is '{column}', which is not one value a video: {video} has {several[video]}"
        raise UserError("pairs.column", reason, "name a column such as label, organ or view")
    # `first` skips nulls, and a video's values are all alike here.
    numbers, _ = pd.factorize(values.first().reindex(names), sort=True)
    return np.asarray(numbers, dtype=np.int64)


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
        settings: Policy, coefficients, distances and column.

    Attributes:
        pairs: P: pairs of views that a video gives.

    Raises:
        UserError: A distance in seconds is asked for, and frames lack times; or the column makes no difference between videos.
    """

    def __init__(self, index: VideoIndex, settings: sections.Pairs) -> None:
        self.index = index
        self.settings = settings
        self.pairs = PAIRS_OF.get(settings.policy, 1)
        starts, counts = index.starts, index.counts
        if index.keys is not None:
            _check_keys(index.keys, settings.column)
        if settings.policy in ("ppi", "within-seconds", "hard-negatives"):
            self._near = policies.near_frames(starts, counts, self._bounds("max"))
        if settings.policy == "ppi":
            sides = (self._near.earlier > 0).astype(np.int64) + (self._near.later > 0)
            self._anchors = policies.best_anchors(starts, sides)
        if settings.policy == "hard-negatives":
            self._far = policies.far_frames(starts, counts, self._bounds("min"), self._near)
            found = self._far_of(np.arange(len(index.frame_rows)), epoch=0)
            # A positive counts for more than negatives: without those there is still a pair.
            near = self._near.earlier + self._near.later > 0
            self._anchors = policies.best_anchors(starts, 2 * near + (found.earlier + found.later > 0))
        if settings.policy == "same-column":
            if index.keys is None:
                raise ValueError("same-column needs an index with keys: index_videos(dataset, splits, column)")
            self._partners = policies.partners_of(index.keys)

    def __call__(self, seed: int, epoch: int, videos: np.ndarray) -> FramePairs:
        """The pairs of these videos in this epoch."""
        index, policy = self.index, self.settings.policy
        starts, counts = index.starts[videos], index.counts[videos]
        draws = uniform(seed, stream=Stream.FRAMES, epoch=epoch, item=videos, draws=4)
        mixed = np.zeros(len(videos), dtype=bool)
        weights = hard = partners = None
        if policy == "uscl":
            places = starts[:, None] + policies.three_of(draws, counts)
            mixed = counts >= 3
        elif policy == "same-frame":
            places = starts[:, None] + policies.same_frame(draws, counts)
        elif policy == "ppi":
            anchor = self._anchors.draw(videos, draws[:, 1])
            mixed = counts >= 3
            few = starts[:, None] + policies.three_of(draws, counts)
            places = np.where(mixed[:, None], policies.in_order(draws[:, [0, 2]], anchor, self._near), few)
        elif policy == "within-seconds":
            places = policies.within_distance(draws[:, 1], starts + policies.scaled(draws[:, 0], counts), self._near)
            if self.settings.weights:
                assert self.settings.max_distance_s is not None
                apart = np.abs(index.times_s[places[:, 2]] - index.times_s[places[:, 0]])
                weights = policies.closeness(apart, self.settings.max_distance_s)
        elif policy == "hard-negatives":
            anchor = self._anchors.draw(videos, draws[:, 0])
            near = policies.Sides(self._near.earlier[anchor], self._near.later[anchor])
            places, hard = policies.near_and_far(draws[:, 1:], anchor, near, self._far_of(anchor, epoch), starts, counts)
        else:
            partners = self._partners.draw(videos, draws[:, 1])
            own = starts + policies.scaled(draws[:, 0], counts)
            other = index.starts[partners] + policies.scaled(draws[:, 2], index.counts[partners])
            places = np.stack([own, own, other], axis=1)
        coefficients: np.ndarray = np.ones((len(videos), 2 * self.pairs))
        if mixed.any():
            coefficients = np.where(mixed[:, None], self._coefficients(seed, epoch, videos), coefficients)
        return FramePairs(index.frame_rows[places], coefficients, weights, hard, partners)

    def describe(self) -> list[str]:
        """What a person should know of the pairs before training: the videos that the policy cannot serve."""
        index, policy, total = self.index, self.settings.policy, len(self.index)
        said = []
        if policy == "within-seconds":
            alone = int((np.maximum.reduceat(self._near.earlier + self._near.later, index.starts) == 0).sum())
            if alone:
                said.append(
                    f"pairs: {alone} of {total} videos have no two frames within {self.settings.max_distance_s:g} s; one frame is both"
                )
        if policy == "hard-negatives":
            found = self._far_of(self._anchors.places, epoch=0)
            most = np.maximum.reduceat(found.earlier + found.later, self._anchors.starts)
            said.append(f"pairs: {int((most >= 2).sum())} of {total} videos have two hard negatives, {int((most == 1).sum())} have one")
            alone = int((np.maximum.reduceat(self._near.earlier + self._near.later, index.starts) == 0).sum())
            if alone:
                # Where few frames were kept, three frames of the source video may well reach none of them.
                said.append(f"pairs: {alone} of {total} videos have no two near frames; one frame is both views, see pairs.max_distance_s")
        if index.keys is not None:
            known, values = int((index.keys >= 0).sum()), int(index.keys.max(initial=-1)) + 1
            said.append(f"pairs.column={self.settings.column}: {values} values, which {known} of {total} videos have")
        return said

    def _coefficients(self, seed: int, epoch: int, videos: np.ndarray) -> np.ndarray:
        draws = uniform(seed, stream=Stream.MIXING, epoch=epoch, item=videos, draws=2)
        if self.settings.coefficients == "shared":
            draws[:, 1] = draws[:, 0]
        return beta(draws, self.settings.alpha, self.settings.beta)

    def _far_of(self, places: np.ndarray, epoch: int) -> policies.Sides:
        """The far frames of some frames in an epoch."""
        earlier, later = self._far.earlier[places], self._far.later[places]
        if self.settings.min_distance_s is None and self.settings.min_distance_frames is None:
            share = policies.far_share(epoch, self.settings.harder_over_epochs)
            share_of = policies.farther_than(share, places, self.index.starts, self.index.frame_indices)
            earlier, later = np.minimum(earlier, share_of.earlier), np.minimum(later, share_of.later)
        return policies.Sides(earlier, later)

    def _bounds(self, which: Literal["max", "min"]) -> list[tuple[np.ndarray, float]]:
        """The distances that are set, each with the positions that it is measured on."""
        seconds: float | None = getattr(self.settings, f"{which}_distance_s")
        frames: int | None = getattr(self.settings, f"{which}_distance_frames")
        bounds: list[tuple[np.ndarray, float]] = []
        if seconds is not None:
            _check_times(self.index, f"pairs.{which}_distance_s", self.settings.policy)
            bounds.append((self.index.times_s, seconds))
        if self.settings.policy == "hard-negatives" and which == "max" and seconds is None and frames is None:
            frames = NEAR_FRAMES
        if frames is not None:
            bounds.append((self.index.frame_indices, frames))
        return bounds


def _check_keys(keys: np.ndarray, column: str | None) -> None:
    """Refuse a column under which no video, or every video, has a partner."""
    if (keys == keys[0]).all() and len(keys) > 1:
        what = "has no value in any" if keys[0] < 0 else "has one and the same value in all"
        then = "" if keys[0] < 0 else ", so that none is a negative of another"
        raise UserError("pairs.column", f"is '{column}', which {what} of {len(keys)} videos{then}", "name a column with several values")


def _check_times(index: VideoIndex, key: str, policy: str) -> None:
    """Refuse distances in seconds where frames have no times."""
    if not np.isnan(index.times_s).any():
        return
    lacks = np.logical_or.reduceat(np.isnan(index.times_s), index.starts)
    unknown = [name for name, lacking in zip(index.video_ids, lacks, strict=True) if lacking]
    in_frames = key.removesuffix("_s") + "_frames"
    advice = f"use --set {in_frames}=N --set {key}=null"
    if policy == "within-seconds":
        advice = f"use --set pairs.policy=ppi --set {in_frames}=N --set {key}=null"
    raise UserError(key, f"is in seconds, but {len(unknown)} of {len(index)} videos have no frame times (such as {min(unknown)})", advice)
