"""The probe of a run: what the backbone's features tell of labels and how many dimensions they fill, on a few stored frames of its videos.

In come a backbone, the run's videos and their stored frames; out come figures for metrics.jsonl. It is a thermometer and no evaluation: the
videos, and perhaps their labels, are what the network is trained on. Nothing is trained, chosen or drawn, and no weight, BatchNorm
statistic, mode or generator is changed, so a run is the same bit for bit with the probe on or off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from uscl import sections
from uscl.backbones import Backbone
from uscl.diagnostics import rankme
from uscl.draws import permutation
from uscl.models import normalise
from uscl.pairs import VideoIndex

# Of Wu et al. (Unsupervised feature learning via non-parametric instance discrimination, CVPR 2018), section 3.4.
NEIGHBOUR_TEMPERATURE = 0.07
_FRAMES_AT_ONCE = 64
_QUERIES_AT_ONCE = 1024

Read = Callable[[NDArray[np.int64]], torch.Tensor]


@dataclass(frozen=True)
class ProbeFrames:
    """The frames that are looked at, the same ones in all of a run.

    Attributes:
        rows: (n,) rows of `dataset.frames`.
        videos: (n,) the number, 0 to V - 1, of each frame's video.
        labels: (V,) label of each video, numbered from 0; empty where no two labels stand in two groups each, and then no neighbour votes.
        groups: (V,) group of each video; empty likewise.
    """

    rows: NDArray[np.int64]
    videos: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    def describe(self) -> str:
        """What a person is told before the first step."""
        looked_at = f"{len(self.rows)} frames of {self.videos[-1] + 1} videos"
        if len(self.labels) == 0:
            return f"probe: rank of the features of {looked_at}; no two labels stand in two groups each, so no neighbours are asked"
        labels, groups = len(np.unique(self.labels)), len(np.unique(self.groups))
        return f"probe: nearest neighbours and rank of the features of {looked_at}, {labels} labels in {groups} groups"


def choose_frames(index: VideoIndex, settings: sections.Probe, seed: int) -> ProbeFrames | None:
    """Frames for the probe: evenly spaced in each video, of labelled videos where their labels can be probed, else of any.

    A label can be probed if it stands in two groups, for a video's own group is not asked; others are left out. Where `max_frames` allows
    fewer videos than there are, the seed chooses.

    Returns:
        None where the probe is switched off.
    """
    if not settings.every_epochs:
        return None
    most = max(settings.max_frames // settings.frames_per_video, 1)
    chosen = _probeable(index, np.arange(len(index)))
    if len(chosen):
        chosen = _probeable(index, _some(chosen, most, seed))
    labelled = len(chosen) > 0
    if not labelled:
        chosen = _some(np.arange(len(index)), most, seed)
    rows, videos = [], []
    for number, video in enumerate(chosen):
        count = int(index.counts[video])
        taken = min(settings.frames_per_video, count)
        positions = ((np.arange(taken) + 0.5) * count / taken).astype(np.int64)
        rows.append(index.frame_rows[index.starts[video] + positions])
        videos.append(np.full(taken, number, dtype=np.int64))
    none = np.zeros(0, dtype=np.int64)
    labels = np.unique(index.labels[chosen], return_inverse=True)[1].astype(np.int64) if labelled else none
    return ProbeFrames(np.concatenate(rows), np.concatenate(videos), labels, index.groups[chosen] if labelled else none)


def probe(
    backbone: Backbone, frames: ProbeFrames, read: Read, settings: sections.Probe, *, image_size: int, device: torch.device, precision: str
) -> dict[str, float]:
    """Look at the frames through the backbone in evaluation mode.

    Args:
        backbone: On the device, in any mode; left as it is.
        frames: Of `choose_frames`.
        read: Gives the stored frames (m, S, S) uint8 of m rows.
        settings: Its `k` is read.
        image_size: Height and width that frames are looked at in pixels.
        device: Where the network is.
        precision: float32 or bfloat16.

    Returns:
        `rankme` of the features, and `probe_frames`, which bounds it. Where labels can be probed, by video and without the neighbours of
        its own group: `knn_accuracy`, `knn_balanced_accuracy` (the mean of the labels' recalls), `knn_majority` (the share of the most
        frequent label), `knn_chance` (one over the number of labels) and `knn_videos`.
    """
    features = backbone_features(backbone, frames.rows, read, image_size=image_size, device=device, precision=precision)
    found: dict[str, float] = {"rankme": rankme(torch.from_numpy(features)), "probe_frames": len(features)}
    if len(frames.labels) == 0:
        return found
    labels, groups = frames.labels[frames.videos], frames.groups[frames.videos]
    shares = neighbour_votes(features, labels, groups, settings.k)
    votes = np.zeros((len(frames.labels), shares.shape[1]))
    np.add.at(votes, frames.videos, shares)
    right = votes.argmax(axis=1) == frames.labels
    videos_of_label = np.bincount(frames.labels)
    return {
        **found,
        "knn_accuracy": float(right.mean()),
        "knn_balanced_accuracy": float((np.bincount(frames.labels, weights=right) / videos_of_label).mean()),
        "knn_majority": float(videos_of_label.max() / len(right)),
        "knn_chance": 1 / len(videos_of_label),
        "knn_videos": len(right),
    }


@torch.no_grad()
def backbone_features(
    backbone: Backbone, rows: NDArray[np.int64], read: Read, *, image_size: int, device: torch.device, precision: str
) -> NDArray[np.float32]:
    """(n, width) features of whole stored frames, without augmentation, in evaluation mode; the backbone is left in the mode it was in."""
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    parts = []
    try:
        for start in range(0, len(rows), _FRAMES_AT_ONCE):
            views = normalise(read(rows[start : start + _FRAMES_AT_ONCE]).to(device))
            if views.shape[-1] != image_size:
                views = functional.interpolate(views, size=(image_size, image_size), mode="bilinear", antialias=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                features = backbone(views)
            parts.append(features.float())
    finally:
        for module, training in modes.items():
            module.training = training
    return torch.cat(parts).cpu().numpy()


def neighbour_votes(features: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Shares of the votes that each row's nearest rows of other groups give to each label.

    Cosine similarity s; each of the k nearest (fewer where other groups have fewer) votes with weight exp(s / 0.07) (Wu et al. 2018).

    Args:
        features: (n, width).
        labels: (n,) from 0.
        groups: (n,); there are two or more.
        k: Neighbours.

    Returns:
        (n, labels); rows sum to 1.
    """
    rows = features.astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    count = len(rows)
    # Where a row has fewer than k others, rows of its own group come along with similarity -inf, and their votes weigh nothing.
    k = min(k, count)
    one_hot = np.eye(int(labels.max()) + 1)[labels]
    votes = np.empty((count, one_hot.shape[1]))
    for start in range(0, count, _QUERIES_AT_ONCE):
        query = slice(start, start + _QUERIES_AT_ONCE)
        similarity = rows[query] @ rows.T
        similarity[groups[query, None] == groups] = -np.inf
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(similarity, nearest, axis=1)
        # Only ratios of the weights matter; with the largest exponent at zero none overflows.
        weights = np.exp((near - near.max(axis=1, keepdims=True)) / NEIGHBOUR_TEMPERATURE)
        votes[query] = np.einsum("mk,mkc->mc", weights, one_hot[nearest])
    return votes / votes.sum(axis=1, keepdims=True)


def _probeable(index: VideoIndex, videos: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the videos whose label stands in two groups or more of them; none where fewer than two labels do."""
    labels = index.labels[videos]
    known = [label for label in np.unique(labels) if label >= 0 and len(np.unique(index.groups[videos][labels == label])) >= 2]
    return videos[np.isin(labels, known)] if len(known) >= 2 else videos[:0]


def _some(videos: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    return videos if len(videos) <= most else videos[np.sort(permutation(seed, 0, len(videos))[:most])]
