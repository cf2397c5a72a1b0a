"""The fits of all folds of one of the weights and one seed, and the pixels that each held-out frame gets right.

In: a backbone, frames with masks, folds. Out: pixel counts of every frame, its predicted mask as PNG, and with Mask R-CNN its instances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from uscl.backbones import Backbone, ResNet
from uscl.evaluation.folds import Folds
from uscl.segmentation.instances import Instance, predict_instances, train_instances
from uscl.segmentation.masks import Masks
from uscl.segmentation.scores import pixel_counts
from uscl.segmentation.training import Labelled, Training, predict_masks, train_network


@dataclass(frozen=True)
class HeldOut:
    """What one of the weights made of all frames under one seed.

    Attributes:
        counts: (n, C, 3) pixels of intersection, prediction and truth, at each frame's own size.
        pictures: (n,) predicted masks as PNG, of the masks' own gray levels; None where they are not kept.
        instances: (n,) what Mask R-CNN found in each frame.
        losses: Of each fold the mean training loss of each epoch.
    """

    counts: NDArray[np.int64]
    pictures: list[bytes | None]
    instances: list[list[Instance]]
    losses: list[dict[str, Any]] = field(default_factory=list)


def hold_out(
    backbone: Backbone,
    labelled: Labelled,
    masks: Masks,
    division: Folds,
    training: Training,
    *,
    keep_pictures: bool,
    advance: Callable[[int], None] = lambda count: None,
) -> HeldOut:
    """Train on all folds but one, predict that one, for each of them.

    Args:
        backbone: Left as it is.
        labelled: The frames at the network's size.
        masks: The truth at the frames' own size.
        division: The folds.
        training: How.
        keep_pictures: Keep predicted masks.
        advance: Is told of each epoch.
    """
    found = _empty(masks, labelled.class_count)
    for number, train, test in division:
        seed = (division.seed, number)
        if training.head == "mask-rcnn":
            assert isinstance(backbone, ResNet)
            detector, losses = train_instances(backbone, labelled, train, training, seed=seed, advance=advance)
            for row, predicted, instances in predict_instances(detector, labelled, test, batch_size=training.batch_size):
                _put(found, masks, row, predicted, keep_pictures)
                found.instances[row] = instances
        else:
            network, losses = train_network(backbone, labelled, train, training, seed=seed, advance=advance)
            for row, predicted in predict_masks(network, labelled, test, batch_size=training.batch_size):
                _put(found, masks, row, predicted, keep_pictures)
        found.losses.append({"seed": division.seed, "fold": number, "training_loss": losses})
    return found


def position_alone(labelled: Labelled, masks: Masks, division: Folds) -> HeldOut:
    """What is right without seeing a picture: at each place the class that most training masks have there, of equals the lower one."""
    found = _empty(masks, labelled.class_count)
    for _, train, test in division:
        votes = np.stack([(labelled.masks[train] == value).sum(axis=0) for value in range(labelled.class_count + 1)])
        usual = votes.argmax(axis=0).astype(np.uint8)
        for row in test.tolist():
            height, width = labelled.sizes[row].tolist()
            scaled = cv2.resize(usual, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            _put(found, masks, row, np.asarray(scaled, np.uint8), False)
    return found


def _empty(masks: Masks, class_count: int) -> HeldOut:
    count = len(masks.files)
    return HeldOut(np.zeros((count, class_count, 3), dtype=np.int64), [None] * count, [[] for _ in range(count)])


def _put(found: HeldOut, masks: Masks, row: int, predicted: NDArray[np.uint8], keep: bool) -> None:
    found.counts[row] = pixel_counts(masks.read(row), predicted, len(masks.values))
    if keep:
        levels = np.array([0, *masks.values])[predicted]
        kind = np.uint8 if levels.max(initial=0) < 256 else np.uint16
        found.pictures[row] = bytes(cv2.imencode(".png", levels.astype(kind))[1])
