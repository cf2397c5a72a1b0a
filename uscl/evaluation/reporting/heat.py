"""Where in a frame the evidence for a class lies: Grad-CAM on a residual network's last stage, for a linear probe of its pooled features.

In: maps of the last stage, a score of them, and where the field of view lies. Out: heat in pixels of the frame, and which share of it lies
outside the field of view. For a linear probe on the mean over positions the map is exact: its sum is the score, but for a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch.nn import functional

from uscl.backbones import ResNet
from uscl.evaluation.features import choose_device
from uscl.evaluation.probes import MAX_ITERATIONS, REGULARISATION_C
from uscl.frames import FrameStore
from uscl.models import normalise

BATCH = 64


def grad_cam(maps: torch.Tensor, score: Callable[[torch.Tensor], torch.Tensor], usual: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Where a score comes from (Selvaraju et al., ICCV 2017, equations 1 and 2, before the rectifier).

    Each channel is weighted by the mean over positions of the score's derivative with respect to it. Where the score is w . mean(maps) + b,
    the sum of the result over positions is exactly the score less that of `usual`, and with zero for usual it is the class activation map
    of Zhou et al. (CVPR 2016).

    Args:
        maps: (n, channels, h, w) of the last stage; left as they are.
        score: From maps to (n,), one frame's score of its own maps alone.
        usual: What is taken off the maps, of their shape or broadcast to it: zero in the paper. With the maps of a usual frame, what is the
            same in all frames (a black edge, through the network's biases) is no evidence.

    Returns:
        (n, h, w); positive speaks for the class, negative against it. The paper shows the positive part.
    """
    leaf = maps.detach().clone().requires_grad_()
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(score(leaf).sum(), leaf)
    return (slopes.mean(dim=(2, 3), keepdim=True) * (leaf.detach() - usual)).sum(dim=1)


@dataclass(frozen=True)
class Probe:
    """A logistic regression on pooled features, as one linear map of them.

    Attributes:
        weight: (C, width), the standardisation folded in; the mean over classes is taken off, which no probability sees.
        bias: (C,).
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, C) of features (n, width)."""
        logits = features.astype(np.float64) @ self.weight.T + self.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def fit_probe(features: NDArray[np.float32], labels: NDArray[np.int64], class_count: int) -> Probe:
    """The linear probe of `uscl.evaluation.probes`, fitted again for its weights: features (n, width), labels (n,) of which every class
    occurs."""
    rows = features.astype(np.float64)
    scaler = StandardScaler().fit(rows)
    with threadpool_limits(1, user_api="blas"):
        model = LogisticRegression(C=REGULARISATION_C, max_iter=MAX_ITERATIONS).fit(scaler.transform(rows), labels)
    weight, bias = model.coef_, model.intercept_
    if class_count == 2:  # scikit-learn keeps the second class' alone
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    bias = bias - weight @ scaler.mean_
    return Probe(weight - weight.mean(axis=0), bias - bias.mean())


def last_maps(backbone: ResNet, store: FrameStore, rows: NDArray[np.int64]) -> torch.Tensor:
    """(n, channels, h, w) maps of the last stage of the frames at `rows`, on the CPU; the backbone is put into evaluation mode."""
    device = choose_device()
    backbone.to(device).eval()
    parts = []
    for start in range(0, len(rows), BATCH):
        frames = normalise(torch.from_numpy(store.pixels[rows[start : start + BATCH]]).to(device))
        with torch.inference_mode():
            parts.append(backbone.layer4(backbone.forward_to_layer3(frames)).float().cpu())
    return torch.cat(parts).clone()


def evidence(maps: torch.Tensor, weights: NDArray[np.float64], folds: NDArray[np.int64], size: int) -> Iterator[NDArray[np.float32]]:
    """What speaks for a class in each frame, by Grad-CAM of a linear probe, beyond what a usual frame of the other folds has at that place.

    Args:
        maps: (n, channels, h, w) from `last_maps`.
        weights: (n, channels): the row of `Probe.weight` of the class asked about and of the fold that held the frame out.
        folds: (n,) the fold of each frame; the mean over the maps of all frames of other folds is the usual frame.
        size: Height and width of the heat.

    Yields:
        Each frame's (size, size) heat, never negative; its scale is the probe's logit, spread over the cells.
    """
    for start in range(0, len(maps), BATCH):
        part = slice(start, start + BATCH)
        weight = torch.from_numpy(weights[part]).to(torch.float32)
        usual = {fold: maps[torch.from_numpy(folds != fold)].mean(dim=0) for fold in np.unique(folds[part]).tolist()}
        taken_off = torch.stack([usual[fold] for fold in folds[part].tolist()])
        heat = grad_cam(maps[part], lambda leaf, weight=weight: (leaf.mean(dim=(2, 3)) * weight).sum(dim=1), taken_off)  # type: ignore[misc]
        positive = functional.relu(heat)[:, None]
        yield from functional.interpolate(positive, size=(size, size), mode="bilinear", align_corners=False)[:, 0].numpy()


def share_outside(heat: NDArray[np.float32], inside: NDArray[np.bool_]) -> float | None:
    """The share of a frame's heat (size, size) that lies outside its field of view, 0 to 1; None where there is no heat."""
    total = float(heat.sum(dtype=np.float64))
    return float(heat[~inside].sum(dtype=np.float64)) / total if total > 0 else None
