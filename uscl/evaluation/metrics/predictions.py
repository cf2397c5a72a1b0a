"""Held-out predictions, and what one item of them is: a frame, a video, or a patient.

In: class probabilities of frames, with their videos and independent groups. Out: the same kind of value, an item a frame, a video or a
patient. The order of the items depends on the indices alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """Held-out predictions of n items (frames, videos or patients) over C classes.

    Attributes:
        truth: (n,) class indices.
        probabilities: (n, C); rows sum to 1.
        groups: (n,) indices of the independent group that each item belongs to.
    """

    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    groups: NDArray[np.int64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(n,) the most probable class; the first of them when several are equally probable."""
        return self.probabilities.argmax(axis=1)

    @property
    def class_count(self) -> int:
        """C."""
        return self.probabilities.shape[1]

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Predictions:
        """The predictions of some of the items."""
        return Predictions(self.truth[rows], self.probabilities[rows], self.groups[rows])


def by_video(frames: Predictions, videos: NDArray[np.int64]) -> Predictions:
    """One prediction a video: the mean of its frames' probabilities.

    Args:
        frames: Predictions of n frames.
        videos: (n,) index of each frame's video; all frames of a video share truth and group.
    """
    return _means(frames, videos)


def by_video_vote(frames: Predictions, videos: NDArray[np.int64]) -> Predictions:
    """One prediction a video: the class that most of its frames are given to.

    The probabilities are (votes + p) / (frames + 1), where p is the mean of the frames' probabilities: it counts as one more frame, and so
    decides between classes with equally many votes and never against a majority.

    Args:
        frames: Predictions of n frames.
        videos: (n,) index of each frame's video; all frames of a video share truth and group.
    """
    votes = _means(Predictions(frames.truth, np.eye(frames.class_count)[frames.predicted], frames.groups), videos)
    means = _means(frames, videos)
    counts = np.unique(videos, return_counts=True)[1][:, None]
    return Predictions(votes.truth, (votes.probabilities * counts + means.probabilities) / (counts + 1), votes.groups)


def by_patient(frames: Predictions, videos: NDArray[np.int64]) -> Predictions:
    """One prediction a patient: the mean over the patient's videos, each of them the mean of its frames.

    The patient is the independent group: what is known to belong together, at least one person, more where two patients share a clip or an
    exam. A group that holds videos of several classes gives one item for each class, the mean over its videos of that class: the label is
    then one of the exam, and a mean over both would be right for neither. Such items stay together when groups are resampled.

    Args:
        frames: Predictions of n frames.
        videos: (n,) index of each frame's video; all frames of a video share truth and group.
    """
    clips = _means(frames, videos)
    return _means(clips, clips.groups * clips.class_count + clips.truth)


def concatenate(parts: list[Predictions]) -> Predictions:
    """All parts one after the other."""
    return Predictions(
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.groups for part in parts]),
    )


def _means(items: Predictions, of: NDArray[np.int64]) -> Predictions:
    """One prediction for each value of `of`, in rising order: the mean of the items that have it."""
    _, first, inverse, counts = np.unique(of, return_index=True, return_inverse=True, return_counts=True)
    sums = np.zeros((len(first), items.class_count))
    np.add.at(sums, inverse, items.probabilities)
    return Predictions(items.truth[first], sums / counts[:, None], items.groups[first])
