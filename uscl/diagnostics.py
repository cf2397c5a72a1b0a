"""Is the network learning, or has it collapsed? Numbers from one batch's outcome, and one plain sentence about the run so far.

In come features and projections of a batch, and the lines of metrics.jsonl; out come similarities, alignment, uniformity, spread, ranks and
the loss that a collapsed network would have. Nothing here changes a weight or draws a random number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

# A healthy spread is of the order of 1/sqrt(width). A hundredth of that, or other videos as similar as the video itself, is a constant.
_COLLAPSED_SHARE = 0.01
_COLLAPSED_SIMILARITY = 0.995
# Garrido et al.'s epsilon for float32.
_RANKME_EPSILON = 1e-7
# An untrained network gives every frame nearly the same features: before so many steps nothing is said of any network.
NOT_BEFORE_STEP = 200
# How much is looked at to tell a trend from noise, and how far above it the mean must lie, in standard errors and in shares.
_LINES_LOOKED_AT, _LINES_NEEDED = 20, 5
_STANDARD_ERRORS = 2.0
_LEAST_SHARE = 0.01


@torch.no_grad()
def measure(features: torch.Tensor, projections: torch.Tensor) -> dict[str, float]:
    """What a batch says about the representation.

    Args:
        features: (2N, width), view a before view b.
        projections: (2N, D), in the same order.

    Returns:
        Of the projections: `positive_similarity`, mean cosine of the two views of a video; `negative_similarity`, mean cosine of views of
        different videos (0 where N is 1); `alignment` and `uniformity` (see the functions of these names; uniformity is the mean of the two
        views', 0 where N is 1). Of the features: `feature_spread`, standard deviation over the batch of the l2-normalised features, mean
        over their dimensions (1/sqrt(width) where they point everywhere, 0 where they are all equal); `batch_rankme`, `rankme` of the
        batch's features, which 2N bounds. And `collapsed_loss`: ln(2N - 1), the contrastive loss of a network whose output is constant.
    """
    z = functional.normalize(projections.double(), dim=1)
    count = len(z) // 2
    similarity = z @ z.T
    positive = similarity.diagonal(count).mean()
    # Each of the 2N rows holds itself and its positive; everything else is another video.
    others = similarity.sum() - similarity.trace() - 2 * count * positive
    pairs = 2 * count * (2 * count - 2)
    spread = functional.normalize(features.double(), dim=1).std(dim=0, correction=0).mean()
    return {
        "positive_similarity": float(positive),
        "negative_similarity": float(others / pairs) if pairs else 0.0,
        "alignment": alignment(z[:count], z[count:]),
        "uniformity": (uniformity(z[:count]) + uniformity(z[count:])) / 2,
        "feature_spread": float(spread),
        "batch_rankme": rankme(features),
        "collapsed_loss": math.log(2 * count - 1),
    }


@torch.no_grad()
def alignment(z_a: torch.Tensor, z_b: torch.Tensor) -> float:
    """Alignment (Wang & Isola: Understanding contrastive representation learning through alignment and uniformity, ICML 2020, section 4.1).

    The mean of ||x - y||^2 over positive pairs of unit vectors, their alpha = 2: 0 where the two views of every video fall on one
    point, 2 where they have nothing in common, 4 where they are opposite.

    Args:
        z_a: (N, D), any length.
        z_b: (N, D), the other view of the same videos.
    """
    difference = functional.normalize(z_a.double(), dim=1) - functional.normalize(z_b.double(), dim=1)
    return float(difference.square().sum(dim=1).mean())


@torch.no_grad()
def uniformity(z: torch.Tensor, t: float = 2.0) -> float:
    """Uniformity (Wang & Isola 2020, section 4.1): the logarithm of the mean Gaussian potential of distinct pairs of unit vectors.

    ln mean exp(-t ||x - y||^2): 0 where all fall on one point, -t * 2 where all are orthogonal, and about that for many vectors spread
    evenly over a sphere of many dimensions. Less is better.

    Args:
        z: (N, D), any length; one view, so that no pair is a positive one. One vector has no pair: 0.
        t: Their t, 2 as in their experiments.
    """
    if len(z) < 2:
        return 0.0
    distances = functional.pdist(functional.normalize(z.double(), dim=1))
    return float(torch.logsumexp(-t * distances.square(), dim=0)) - math.log(len(distances))


@torch.no_grad()
def rankme(features: torch.Tensor) -> float:
    """How many dimensions the features fill, smoothly.

    RankMe (Garrido et al.: RankMe: assessing the downstream performance of pretrained self-supervised representations by their rank,
    ICML 2023, equation 1).

    exp(-sum p ln p) with p = s / sum(s) + 1e-7 of the singular values s, neither centred nor normalised, as there. It is at most the
    smaller of both sides: of a few rows it tells whether a rank is falling, and only of many more rows than it says, what the rank is.

    Args:
        features: (rows, width). The singular values are taken in float64 on the CPU, which is quicker for matrices this small.

    Returns:
        1 for features that are all one another's multiples, 0 where all are zero, NaN where one is not finite.
    """
    rows = features.double().cpu()
    if not bool(torch.isfinite(rows).all()):
        return math.nan
    singular = torch.linalg.svdvals(rows)
    total = singular.sum()
    if total == 0:
        return 0.0
    shares = singular / total + _RANKME_EPSILON
    return float(torch.exp(-(shares * shares.log()).sum()))


def collapse_sentence(measured: Mapping[str, Any], width: int) -> str | None:
    """A plain sentence where the representation has collapsed, else None.

    Args:
        measured: What `measure` returned, or a line of metrics.jsonl. Without a `collapsed_loss` the method's loss is not one among
            negatives, and no loss is named.
        width: Length of a feature vector.
    """
    spread, healthy = measured["feature_spread"], 1 / math.sqrt(width)
    if spread < _COLLAPSED_SHARE * healthy:
        return f"collapsed: all frames give the same features (spread {spread:.2g}, healthy is about {healthy:.2g})"
    if measured.get("collapsed_loss") != 0 and measured["negative_similarity"] > _COLLAPSED_SIMILARITY:
        loss = f"; the loss of that is {measured['collapsed_loss']:.2f}" if "collapsed_loss" in measured else ""
        return f"collapsed: views of different videos are as similar as those of one ({measured['negative_similarity']:.4f}){loss}"
    return None


def verdict(history: Sequence[Mapping[str, Any]], width: int, *, share_done: float) -> str | None:
    """What is wrong with a run, in one plain sentence; None where nothing is, or where it is too early to say.

    In this order: the network has collapsed; it learns nothing, for over the last lines its contrastive loss is not below that of a
    collapsed network by more than noise (where a method has no such loss: the views of one video are not more alike than views of different
    videos by more than noise); from half of the run on, the neighbours in the kNN probe tell nothing of labels. Noise is two
    standard errors of the mean, and 1 % of the collapsed loss at least.

    Args:
        history: The lines of metrics.jsonl so far, in order.
        width: Length of a feature vector.
        share_done: Of the run's steps, 0 to 1; at 1 a collapse is told however short the run was.
    """
    if not history:
        return None
    last = history[-1]
    early = last["step"] < NOT_BEFORE_STEP
    collapsed = None if early and share_done < 1 else collapse_sentence(last, width)
    if collapsed:
        return f"the network has {collapsed}"
    if early:
        return None
    return _learns_nothing(history[-_LINES_LOOKED_AT:]) or (_tells_nothing_of_labels(history) if share_done >= 0.5 else None)


def _learns_nothing(lines: Sequence[Mapping[str, Any]]) -> str | None:
    lines = [line for line in lines if line.get("collapsed_loss") != 0]  # it is 0 where a batch holds one video
    if len(lines) < _LINES_NEEDED:
        return None
    positive, negative = (float(np.mean([line[key] for line in lines])) for key in ("positive_similarity", "negative_similarity"))
    alike = f"views of one video are hardly more alike ({positive:.3f}) than views of different ones ({negative:.3f})"
    if all("contrast" in line for line in lines):
        contrast, collapsed = (float(np.mean([line[key] for line in lines])) for key in ("contrast", "collapsed_loss"))
        if _above_noise([line["collapsed_loss"] - line["contrast"] for line in lines], _LEAST_SHARE * collapsed):
            return None
        return f"the network learns nothing: the contrastive loss is {contrast:.3f}, a collapsed network's {collapsed:.3f}, and {alike}"
    if _above_noise([line["positive_similarity"] - line["negative_similarity"] for line in lines], _LEAST_SHARE):
        return None
    return f"the network learns nothing: {alike}"


def _above_noise(values: Sequence[float], least: float) -> bool:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)) > max(_STANDARD_ERRORS * error, least)


def _tells_nothing_of_labels(history: Sequence[Mapping[str, Any]]) -> str | None:
    probed = next((line for line in reversed(history) if "knn_accuracy" in line), None)
    if probed is None:
        return None
    accuracy, balanced, majority, chance = (probed[f"knn_{name}"] for name in ("accuracy", "balanced_accuracy", "majority", "chance"))
    # No share of n videos has a standard error above 0.5 / sqrt(n).
    if accuracy > majority or balanced > chance + _STANDARD_ERRORS * 0.5 / math.sqrt(probed["knn_videos"]):
        return None
    return (
        f"the features tell nothing of labels: nearest neighbours name {accuracy:.1%} of {probed['knn_videos']} videos rightly, the most "
        f"frequent label alone {majority:.1%} (balanced {balanced:.1%}, chance {chance:.1%})"
    )
