"""Features in two dimensions: principal components, and t-SNE of them.

In: features (n, D). Out: places (n, 2). Seeded, and the same for equal input on one machine. A map is an impression: distances between far
clusters of t-SNE mean nothing, which is why the share of neighbours that agree is told beside each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

PERPLEXITY = 30.0
# t-SNE starts from so many principal components (van der Maaten and Hinton 2008, section 4.2).
COMPONENTS_BEFORE_TSNE = 30
SEED = 0


def principal_components(features: NDArray[np.float32], count: int = 2) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, count) coordinates along the directions of greatest variance, and the shares of the variance (count,) that they hold.

    Each direction points where its largest loading is positive. Fewer than `count` dimensions are filled up with zeros,
    and so are features that are all equal.
    """
    rows = features.astype(np.float64)
    places, shares = np.zeros((len(rows), count)), np.zeros(count)
    if not np.ptp(rows, axis=0).any():
        return places, shares
    kept = min(count, *rows.shape)
    with threadpool_limits(1, user_api="blas"):
        found = PCA(kept, svd_solver="full").fit(rows)
    directions = found.components_
    directions = directions * np.sign(directions[np.arange(kept), np.abs(directions).argmax(axis=1)])[:, None]
    places[:, :kept] = (rows - rows.mean(axis=0)) @ directions.T
    shares[:kept] = found.explained_variance_ratio_
    return places, shares


def tsne(features: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """(n, 2) by t-SNE (van der Maaten and Hinton, JMLR 2008) of the first 30 principal components; None for fewer than ten rows."""
    if len(features) < 10:
        return None
    start, _ = principal_components(features, COMPONENTS_BEFORE_TSNE)
    perplexity = min(PERPLEXITY, (len(start) - 1) / 3)
    with threadpool_limits(1):
        places = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED, learning_rate="auto").fit_transform(start)
    return np.asarray(places, dtype=np.float64)
