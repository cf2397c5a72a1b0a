"""Neighbours by brute force, and maps by numpy."""

from __future__ import annotations

import numpy as np
import pytest

from uscl.evaluation.reporting.feature_map import principal_components, tsne
from uscl.evaluation.reporting.neighbours import nearest_videos, shared_by_neighbours


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    videos = generator.integers(0, 12, 50)
    groups = videos // 2
    features = (generator.normal(size=(50, 5)) + 0.5 * generator.normal(size=(12, 5))[videos]).astype(np.float32)
    return features, groups.astype(str), videos.astype(str), (groups % 3).astype(str)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a.astype(float), b.astype(float)) / np.sqrt(np.dot(a.astype(float), a) * np.dot(b.astype(float), b)))


def test_nearest_videos_by_brute_force() -> None:
    features, groups, videos, _ = planted()
    for query in (0, 17, 49):
        best: dict[str, tuple[float, int]] = {}
        for row in range(50):
            if groups[row] != groups[query]:
                value = cosine(features[row], features[query])
                if videos[row] not in best or value > best[videos[row]][0]:
                    best[videos[row]] = (value, row)
        expected = sorted(best.values(), reverse=True)[:5]
        found = nearest_videos(features, groups, videos, query, 5)
        assert [row for row, _ in found] == [row for _, row in expected]
        np.testing.assert_allclose([value for _, value in found], [value for value, _ in expected])
    assert len(nearest_videos(features, groups, videos, 0, 100)) == len(best)


def test_equally_near_frames_come_in_order_and_own_group_never() -> None:
    features = np.ones((4, 2), dtype=np.float32)
    groups, videos = np.array(["a", "a", "b", "c"]), np.array(["1", "2", "3", "4"])
    assert [row for row, _ in nearest_videos(features, groups, videos, 0, 5)] == [2, 3]


def test_shared_by_neighbours_by_brute_force() -> None:
    features, groups, _, values = planted(1)
    near, chance = [], []
    for query in range(50):
        others = [row for row in range(50) if groups[row] != groups[query]]
        others.sort(key=lambda row: -cosine(features[row], features[query]))
        near.append(np.mean([values[row] == values[query] for row in others[:4]]))
        chance.append(np.mean([values[row] == values[query] for row in others]))
    assert shared_by_neighbours(features, groups, values, 4) == pytest.approx((np.mean(near), np.mean(chance)))
    assert shared_by_neighbours(features, np.repeat("one", 50), values, 4) is None


def test_fewer_other_frames_than_neighbours_are_counted_as_they_are() -> None:
    features = np.eye(3, dtype=np.float32)
    groups, values = np.array(["a", "b", "b"]), np.array(["x", "x", "y"])
    # a sees x and y; the first of b sees x, the second sees x and is y.
    assert shared_by_neighbours(features, groups, values, 10) == pytest.approx((0.5, 0.5))


def test_principal_components_are_those_of_the_singular_values() -> None:
    features = planted()[0]
    places, shares = principal_components(features)
    centred = features.astype(float) - features.astype(float).mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(places), np.abs(u[:, :2] * s[:2]), atol=1e-8)
    np.testing.assert_allclose(shares, (s**2 / (s**2).sum())[:2])
    for axis in range(2):
        loadings = vt[axis] * np.sign(places[0, axis] * (u[0, axis] * s[axis]))
        assert loadings[np.abs(loadings).argmax()] > 0
    flat, shares = principal_components(np.ones((5, 3), dtype=np.float32))
    assert not flat.any()
    assert not shares.any()


def test_tsne_repeats_and_keeps_far_clusters_apart() -> None:
    generator = np.random.default_rng(0)
    features = np.concatenate([generator.normal(size=(20, 8)), generator.normal(size=(20, 8)) + 30]).astype(np.float32)
    places = tsne(features)
    assert places is not None
    again = tsne(features)
    assert again is not None
    np.testing.assert_array_equal(places, again)
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(40) * 1e9
    assert ((distance.argmin(axis=1) < 20) == (np.arange(40) < 20)).all()
    assert tsne(features[:9]) is None
