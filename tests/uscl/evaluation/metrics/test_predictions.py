"""What a video and a patient are given, by hand counts and loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from uscl.evaluation import metrics
from uscl.evaluation.metrics import Predictions


def test_a_video_is_the_mean_of_its_frames() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.4, 0.6]])
    frames = Predictions(np.array([0, 0, 1, 0]), probabilities, np.array([5, 5, 6, 5]))
    videos = metrics.by_video(frames, np.array([0, 0, 2, 1]))
    np.testing.assert_allclose(videos.probabilities, [[0.65, 0.35], [0.4, 0.6], [0.2, 0.8]])
    assert videos.truth.tolist() == [0, 0, 1]
    assert videos.groups.tolist() == [5, 5, 6]


def test_a_video_goes_to_the_class_of_most_frames() -> None:
    probabilities = np.array([[0.51, 0.49], [0.51, 0.49], [0.0, 1.0], [0.9, 0.1], [0.4, 0.6]])
    frames = Predictions(np.zeros(5, dtype=np.int64), probabilities, np.array([3, 3, 3, 4, 4]))
    video = np.array([0, 0, 0, 1, 1])
    votes = metrics.by_video_vote(frames, video)
    assert votes.predicted.tolist() == [0, 0], "two frames of three, however sure the third is; of one each the surer"
    assert metrics.by_video(frames, video).predicted.tolist() == [1, 0]
    np.testing.assert_allclose(votes.probabilities, [[(2 + 0.34) / 4, (1 + 0.66) / 4], [(1 + 0.65) / 3, (1 + 0.35) / 3]])
    assert votes.groups.tolist() == [3, 4]


@pytest.mark.parametrize("seed", range(5))
def test_votes_equal_a_count(seed: int) -> None:
    generator = np.random.default_rng(seed)
    video = generator.integers(0, 30, 150)
    probabilities = generator.dirichlet(np.ones(3), 150)
    found = metrics.by_video_vote(Predictions(video % 3, probabilities, video), video)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    for predicted, number in zip(found.predicted.tolist(), np.unique(video), strict=True):
        own = probabilities[video == number]
        counts = Counter(own.argmax(axis=1).tolist())
        most = [index for index, count in counts.items() if count == max(counts.values())]
        assert predicted == max(most, key=lambda index: own[:, index].mean())


def test_a_patient_is_the_mean_of_its_videos_and_one_of_two_classes_is_two_items() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])
    # Group 7: videos 0 (two frames) and 1 of class 0, video 2 of class 1; group 2: video 3.
    frames = Predictions(np.array([0, 0, 0, 1, 1]), probabilities, np.array([7, 7, 7, 7, 2]))
    patients = metrics.by_patient(frames, np.array([0, 0, 1, 2, 3]))
    assert patients.groups.tolist() == [2, 7, 7]
    assert patients.truth.tolist() == [1, 0, 1]
    np.testing.assert_allclose(patients.probabilities, [[0.1, 0.9], [0.5, 0.5], [0.6, 0.4]], err_msg="a video counts once, however long")
