"""Which labels a run uses: all, or those of a seeded share of the groups; and how the classes weigh.

In come the videos of a run and its settings; out comes which of them keep their label. A group (a patient, where known) keeps all its
labels or none; each label keeps about the share; a larger share contains a smaller one; the order of files changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from uscl.config import Config
from uscl.draws import Stream, uniform
from uscl.losses import UNLABELLED
from uscl.pairs import VideoIndex
from usdata.errors import RecipeError

# Where a data set keeps the label.
LABEL_COLUMNS = ("label", "label_index")


@dataclass(frozen=True)
class UsedLabels:
    """The labels that a run trains on.

    Attributes:
        labels: (videos,) -1 where a video has none or its label is not used.
        classes: How many classes the data set has; 0 where no label is used.
        class_weights: (classes,) float32 of the cross-entropy, or None: all equal.
        sentence: What a person is told of it.
    """

    labels: NDArray[np.int64]
    classes: int
    class_weights: torch.Tensor | None
    sentence: str


def used_labels(config: Config, index: VideoIndex, classes: int) -> UsedLabels:
    """The labels that a run trains on.

    Args:
        config: Its `labels` and `seed` are read.
        index: The run's videos with all their labels.
        classes: How many classes the data set has.

    Raises:
        RecipeError: A share or weights of labels are asked for, and no labels are used.
    """
    settings = config.labels
    by_label = config.pairs.column in LABEL_COLUMNS  # then labels decide which videos are positives
    if settings.weight == 0 and not by_label:
        for key, asked in (("share", settings.share < 1), ("class_weights", settings.class_weights != "none")):
            if asked:
                reason = f"is {getattr(settings, key)}, and labels are not used (labels.weight is 0)"
                raise RecipeError(f"labels.{key}", reason, "set labels.weight too, or leave it out")
    labelled = index.labels != UNLABELLED
    if (settings.weight == 0 and not by_label) or not labelled.any():
        return UsedLabels(np.full_like(index.labels, UNLABELLED), 0, None, "labels not used")
    chosen = choose_share(index.labels, index.groups, settings.share, config.seed if settings.seed is None else settings.seed)
    labels = np.where(chosen, index.labels, UNLABELLED)
    if not chosen.any():
        return UsedLabels(labels, 0, None, "labels not used (labels.share is 0)")
    groups, all_groups = (len(np.unique(index.groups[videos])) for videos in (chosen, labelled))
    sentence = f"labels of {chosen.sum()} of {labelled.sum()} labelled videos ({groups} of {all_groups} groups) used, {classes} classes"
    if settings.weight == 0:
        return UsedLabels(labels, 0, None, sentence)
    weights = balanced_weights(labels, classes) if settings.class_weights == "balanced" else None
    if weights is not None:
        there = weights[np.unique(labels[chosen])]
        sentence += f" weighing {there.min():.2g} to {there.max():.2g}"
    tensor = None if weights is None else torch.from_numpy(weights.astype(np.float32))
    return UsedLabels(labels, classes, tensor, sentence)


def with_labels(index: VideoIndex, used: UsedLabels, column: str | None = None) -> VideoIndex:
    """The same videos with the labels that are used alone.

    Args:
        index: The run's videos with all their labels.
        used: Of `used_labels`.
        column: `pairs.column`; where it is the label itself, keys of labels that are not used go too.
    """
    keys = index.keys
    if column in LABEL_COLUMNS and keys is not None:
        keys = np.where(used.labels != UNLABELLED, keys, -1)
    return replace(index, labels=used.labels, keys=keys)


def choose_share(labels: NDArray[np.int64], groups: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which videos keep their label.

    Groups come in a seeded order in each label. First, for any share above 0, so many that every label stands in one of them, the rarest
    label's first. Then always the one that is due next: a group is due at the share s from which taking it brings the labels nearer to s,
    in the sum of (videos taken / videos - s)^2 over the labels. So where a group has one label only, each label keeps its share of videos
    to within half of a group.

    Args:
        labels: (videos,) -1 = unlabelled.
        groups: (videos,) numbers of the groups; equal sets of groups must be numbered alike.
        share: 0 (none) to 1 (all).
        seed: 0 to 2^64 - 1.

    Returns:
        (videos,) true where the video has a label and its group is taken.
    """
    labelled = labels != UNLABELLED
    if share == 0 or not labelled.any():
        return np.zeros(len(labels), dtype=bool)
    names, label_of = np.unique(labels[labelled], return_inverse=True)
    numbers, group_of = np.unique(groups[labelled], return_inverse=True)
    counts = np.zeros((len(numbers), len(names)))
    np.add.at(counts, (group_of, label_of), 1)
    due = _due(counts, np.argsort(uniform(seed, stream=Stream.LABELS, epoch=0, item=numbers, draws=1)[:, 0], kind="stable"))
    return labelled & np.isin(groups, numbers[due <= share])


def _due(counts: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.float64]:
    """(groups,) the share from which each group is taken.

    Args:
        counts: (groups, labels) videos.
        order: The groups, in the order in which a label takes them.
    """
    part = counts / counts.sum(axis=0)
    waiting = [[int(group) for group in order[::-1] if counts[group, label]] for label in range(counts.shape[1])]
    rarest_first = sorted(range(len(waiting)), key=lambda label: (len(waiting[label]), label))
    due = np.full(len(counts), np.nan)
    taken = np.zeros(counts.shape[1])
    for label in rarest_first:
        if taken[label] == 0:
            due[waiting[label][-1]] = 0.0
            taken += part[waiting[label][-1]]
    for _ in range(int(np.isnan(due).sum())):
        candidates = set()
        for line in waiting:
            while line and not np.isnan(due[line[-1]]):
                line.pop()
            candidates.update(line[-1:])
        # d/ds of the sum of squares, before against after: equal at the mean of the middles, weighed by what the group adds.
        due_at, group = min((float((part[each] * (taken + part[each] / 2)).sum() / part[each].sum()), each) for each in candidates)
        due[group] = due_at
        taken += part[group]
    return due


def balanced_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """(classes,) weights in inverse proportion to the videos of each class, 1 on the mean over the labelled videos.

    A class without a video has weight 1, which nothing reads.
    """
    counts = np.bincount(labels[labels != UNLABELLED], minlength=classes)
    there = counts > 0
    return np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 1.0)
