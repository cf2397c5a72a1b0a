"""Is the network learning, or has it collapsed? Numbers from one batch's outcome, and one plain sentence.

In come features and projections; out come similarities, spread and the loss that a collapsed network would have.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

# A healthy spread is of the order of 1/sqrt(width). A hundredth of that, or other videos as similar as the video itself, is a constant.
_COLLAPSED_SHARE = 0.01
_COLLAPSED_SIMILARITY = 0.995


@torch.no_grad()
def measure(features: torch.Tensor, projections: torch.Tensor) -> dict[str, float]:
    """What a batch says about the representation.

    Args:
        features: (2N, width), view a before view b.
        projections: (2N, D), in the same order.

    Returns:
        `positive_similarity`: mean cosine of the two views of a video; `negative_similarity`: mean cosine of views of different videos
        (0 where N is 1); `feature_spread`: standard deviation over the batch of the l2-normalised features, mean over their dimensions
        (1/sqrt(width) where they point everywhere, 0 where they are all equal); `collapsed_loss`: ln(2N - 1), the contrastive loss of a
        network whose output is constant.
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
        "feature_spread": float(spread),
        "collapsed_loss": math.log(2 * count - 1),
    }


def collapse_sentence(measured: dict[str, float], width: int) -> str | None:
    """A plain sentence where the representation has collapsed, else None.

    Args:
        measured: What `measure` returned.
        width: Length of a feature vector.
    """
    spread, healthy = measured["feature_spread"], 1 / math.sqrt(width)
    if spread < _COLLAPSED_SHARE * healthy:
        return f"collapsed: all frames give the same features (spread {spread:.2g}, healthy is about {healthy:.2g})"
    if measured["collapsed_loss"] and measured["negative_similarity"] > _COLLAPSED_SIMILARITY:
        similar, loss = measured["negative_similarity"], measured["collapsed_loss"]
        return f"collapsed: views of different videos are as similar as those of one ({similar:.4f}); the loss of that is {loss:.2f}"
    return None


def gradient_norm(parameters: list[torch.nn.Parameter]) -> float:
    """The l2 norm of all gradients together."""
    norms = [torch.linalg.vector_norm(parameter.grad) for parameter in parameters if parameter.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
