"""Diagnostics: closed forms, and a sentence exactly where the representation has collapsed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special

from uscl.diagnostics import alignment, collapse_sentence, measure, rankme, uniformity, verdict


def test_spread_of_gaussian_features() -> None:
    features = torch.randn(4096, 256, generator=torch.Generator().manual_seed(0))
    measured = measure(features, features)
    assert measured["feature_spread"] == pytest.approx(0.0625, rel=0.01)
    assert measured["negative_similarity"] == pytest.approx(0, abs=1e-3)
    assert measured["collapsed_loss"] == math.log(4095)
    assert collapse_sentence(measured, 256) is None


def test_similarities_by_hand() -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    measured = measure(z, z)
    cosine = torch.nn.functional.cosine_similarity(z[:, None], z[None], dim=2)
    positive = [cosine[i, i + 3].item() for i in range(3)]
    negative = [cosine[i, j].item() for i in range(6) for j in range(6) if j not in (i, (i + 3) % 6)]
    assert measured["positive_similarity"] == pytest.approx(sum(positive) / 3, abs=1e-12)
    assert measured["negative_similarity"] == pytest.approx(sum(negative) / len(negative), abs=1e-12)


def test_a_constant_network_is_called_collapsed() -> None:
    measured = measure(torch.ones(8, 16), torch.ones(8, 4))
    assert measured["positive_similarity"] == pytest.approx(1)
    assert measured["negative_similarity"] == pytest.approx(1)
    assert "all frames give the same features" in (collapse_sentence(measured, 16) or "")


def test_equal_projections_of_unequal_features_are_called_collapsed() -> None:
    features = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    assert "as similar as those of one" in (collapse_sentence(measure(features, torch.ones(8, 4)), 16) or "")


def test_one_video_has_no_negatives() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    measured = measure(z, z)
    assert (measured["negative_similarity"], measured["collapsed_loss"]) == (0, 0)
    assert collapse_sentence(measured, 2) is None


def rankme_by_the_paper(matrix: np.ndarray) -> float:
    singular = np.linalg.svd(matrix, compute_uv=False)
    shares = singular / np.abs(singular).sum() + 1e-7
    return float(np.exp(-np.sum(shares * np.log(shares))))


def test_rankme_of_matrices_whose_rank_is_known() -> None:
    assert rankme(torch.eye(8)) == pytest.approx(8, abs=1e-4)
    assert rankme(torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0]))) == pytest.approx(2**1.75, abs=1e-4)
    generator = np.random.default_rng(0)
    for rank in (1, 3, 20):
        # Orthonormal columns on both sides: `rank` singular values of 1, so RankMe is the rank.
        left, right = (np.linalg.qr(generator.normal(size=(side, rank)))[0] for side in (64, 40))
        assert rankme(torch.from_numpy(left @ right.T)) == pytest.approx(rank, rel=1e-4)
    features = generator.normal(size=(30, 50)) + 2
    assert rankme(torch.from_numpy(features)) == pytest.approx(rankme_by_the_paper(features), rel=1e-9)
    assert rankme(torch.from_numpy(features)) < 30
    assert rankme(torch.zeros(4, 3)) == 0
    assert math.isnan(rankme(torch.full((2, 2), math.nan)))


def test_uniformity_of_points_whose_distances_are_known() -> None:
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.eye(4)) == pytest.approx(-4)
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert uniformity(3 * square) == pytest.approx(-4.3963489672, abs=1e-9)
    assert uniformity(square[:1]) == 0


@pytest.mark.parametrize("dimensions", [3, 16, 256])
def test_uniformity_on_a_sphere_is_the_integral(dimensions: int) -> None:
    """The potential's mean over the sphere: exp(-2t) times the von Mises-Fisher constant for kappa = 2t (Wang & Isola, appendix)."""
    order, kappa = dimensions / 2 - 1, 4.0
    log_mean = special.gammaln(dimensions / 2) + order * math.log(2 / kappa) + math.log(special.iv(order, kappa))
    points = torch.randn(3000, dimensions, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert uniformity(points) == pytest.approx(log_mean - 4, abs=0.01)


def test_alignment_by_hand() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(2, 7, 5))
    unit_a, unit_b = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (a, b))
    by_hand = np.mean([np.sum((x - y) ** 2) for x, y in zip(unit_a, unit_b, strict=True)])
    assert alignment(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(by_hand, abs=1e-12)
    assert alignment(torch.from_numpy(a), torch.from_numpy(3 * a)) == pytest.approx(0, abs=1e-12)
    assert alignment(torch.from_numpy(a), torch.from_numpy(-a)) == pytest.approx(4)
    measured = measure(torch.from_numpy(np.concatenate([a, b])), torch.from_numpy(np.concatenate([a, b])))
    # Of unit vectors ||x - y||^2 = 2 - 2 cos.
    assert measured["alignment"] == pytest.approx(2 - 2 * measured["positive_similarity"], abs=1e-12)
    potentials = [np.exp(-2 * np.sum((z[i] - z[j]) ** 2)) for z in (unit_a, unit_b) for i in range(7) for j in range(i)]
    each = [math.log(np.mean(half)) for half in (potentials[:21], potentials[21:])]
    assert measured["uniformity"] == pytest.approx(np.mean(each), abs=1e-12)
    assert measured["batch_rankme"] == pytest.approx(rankme_by_the_paper(np.concatenate([a, b])), rel=1e-9)


def line(step: int, contrast: float | None, positive: float = 0.5, negative: float = 0.1, **more: float) -> dict[str, float]:
    measured = {"positive_similarity": positive, "negative_similarity": negative, "feature_spread": 0.2, "collapsed_loss": math.log(63)}
    return {"step": step, **measured, **({} if contrast is None else {"contrast": contrast}), **more}


def run_of(gaps: list[float], **more: float) -> list[dict[str, float]]:
    return [line(10 * (place + 1), math.log(63) - gap, **more) for place, gap in enumerate(gaps)]


def test_a_loss_that_only_wobbles_about_the_collapsed_one_is_learning_nothing() -> None:
    noise = (0.05 * np.random.default_rng(0).normal(size=40)).tolist()
    sentence = verdict(run_of(noise, positive=0.302, negative=0.3), 16, share_done=0.4)
    assert sentence is not None
    assert sentence.startswith("the network learns nothing: the contrastive loss is 4.1")
    assert "(0.302)" in sentence
    assert "(0.300)" in sentence
    assert verdict(run_of(noise)[:15], 16, share_done=0.4) is None, "too early"
    learning = [0.05 * place + each for place, each in enumerate(noise)]
    assert verdict(run_of(learning), 16, share_done=0.4) is None
    # A small gap counts once the noise is smaller still, but a hundredth of the loss is nothing however sure it is.
    assert verdict(run_of([0.06] * 40), 16, share_done=0.4) is None
    assert "learns nothing" in (verdict(run_of([0.03] * 40), 16, share_done=0.4) or "")


def test_a_method_without_a_contrastive_loss_is_judged_by_similarities() -> None:
    steps = range(10, 400, 10)
    assert verdict([line(step, None) for step in steps], 16, share_done=0.1) is None
    alike = [line(step, None, positive=0.305, negative=0.3) for step in steps]
    assert "0.305) than views of different ones (0.300)" in (verdict(alike, 16, share_done=0.1) or "")


def test_without_a_contrastive_loss_no_loss_of_a_collapsed_network_is_named() -> None:
    def without(line: dict[str, float]) -> dict[str, float]:
        return {key: value for key, value in line.items() if key != "collapsed_loss"}

    lines = [without(line(step, None)) for step in range(10, 400, 10)]
    assert verdict(lines, 16, share_done=1) is None
    alike = [without(line(step, None, positive=0.305, negative=0.3)) for step in range(10, 400, 10)]
    assert (verdict(alike, 16, share_done=0.1) or "").startswith("the network learns nothing: views of one video are hardly more alike")
    similar = verdict([without(line(400, None, positive=0.999, negative=0.999))], 16, share_done=0.1)
    assert similar == "the network has collapsed: views of different videos are as similar as those of one (0.9990)"
    spread = verdict([{**without(line(400, None)), "feature_spread": 0.0}], 16, share_done=0.1)
    assert spread is not None
    assert "all frames give the same features" in spread


def test_neighbours_no_better_than_the_majority_are_told_from_half_of_the_run_on() -> None:
    healthy = run_of([1.0] * 30)
    probed = {"knn_accuracy": 0.5, "knn_balanced_accuracy": 0.35, "knn_majority": 0.52, "knn_chance": 1 / 3, "knn_videos": 100}
    history = [*healthy, {**healthy[-1], **probed}, healthy[-1]]
    assert verdict(history, 16, share_done=0.49) is None
    assert "tell nothing of labels: nearest neighbours name 50.0% of 100 videos" in (verdict(history, 16, share_done=0.5) or "")
    # Better balanced than chance by more than two standard errors: rare labels are known.
    history[-2]["knn_balanced_accuracy"] = 0.45
    assert verdict(history, 16, share_done=0.5) is None
    history[-2] |= {"knn_accuracy": 0.6, "knn_balanced_accuracy": 0.34}
    assert verdict(history, 16, share_done=0.5) is None
    assert verdict([], 16, share_done=1) is None


def test_a_collapse_comes_first_and_is_told_at_the_end_of_a_short_run() -> None:
    history = [{**line(3, 4.0), "feature_spread": 0.0}]
    assert verdict(history, 16, share_done=0.5) is None
    assert "the network has collapsed: all frames" in (verdict(history, 16, share_done=1) or "")
