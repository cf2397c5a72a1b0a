"""Instances are connected components; average precision is COCO's; Mask R-CNN trains and predicts on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.uscl.segmentation.test_training import SIZE, labelled
from uscl.backbones import ResNet, seeded_backbone
from uscl.segmentation.instances import (
    Instance,
    InstanceNetwork,
    average_precision,
    components,
    encoded,
    predict_instances,
    refuse_other_than_resnets,
    train_instances,
    true_instances,
)
from uscl.segmentation.training import Training
from usdata.errors import UserError


def box(left: int, right: int, class_index: int = 0, score: float = 1.0) -> Instance:
    """A band of a picture of 10 by 40."""
    mask = np.zeros((10, 40), dtype=bool)
    mask[:, left:right] = True
    return Instance(class_index, encoded(mask), score)


def test_components_touch_at_corners_and_never_across_classes() -> None:
    mask = np.array([[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 1], [1, 0, 0, 1]], np.uint8)
    found = sorted((value, np.argwhere(inside).tolist()) for value, inside in components(mask))
    assert found == [
        (1, [[0, 0], [1, 1]]),
        (1, [[2, 3], [3, 3]]),
        (1, [[3, 0]]),
        (2, [[0, 3], [1, 3]]),
    ]
    assert [value for value, _ in components(mask, least=2)] == [1, 1, 2]
    assert [instance.class_index for instance in true_instances(mask)] == [0, 0, 0, 1]


def interpolated(ranked: list[bool], true_count: int) -> float:
    """COCO's average precision at one overlap: the best precision from each of 101 recalls on, a rank at a time."""
    points = []
    for last in range(len(ranked)):
        right = sum(ranked[: last + 1])
        points.append((right / true_count, right / (last + 1)))
    return float(
        np.mean([max((precision for recall, precision in points if recall >= r - 1e-12), default=0.0) for r in np.linspace(0, 1, 101)])
    )


@pytest.mark.parametrize(
    ("found", "ranked"),
    [
        ([box(0, 10, score=0.9), box(20, 30, score=0.8)], [True, True]),
        ([box(0, 10, score=0.9)], [True]),
        ([box(12, 18, score=0.9), box(0, 10, score=0.8)], [False, True]),
        ([box(0, 10, score=0.9), box(0, 10, score=0.8), box(20, 30, score=0.7)], [True, False, True]),
        ([], []),
    ],
)
def test_average_precision_is_that_of_ranks(found: list[Instance], ranked: list[bool]) -> None:
    told = average_precision([[box(0, 10), box(20, 30)], []], [found, []], ["thing", "absent"])
    assert [told["ap50"], told["ap"]] == pytest.approx([interpolated(ranked, 2)] * 2)
    assert told["classes"][0]["instances"] == 2
    assert told["classes"][1] == {"class": "absent", "instances": 0, "ap": None}


def test_the_overlap_decides_from_which_threshold_on_an_instance_is_found() -> None:
    # 8 of 12 columns: an IoU of .667 counts at .50, .55, .60 and .65 of ten.
    told = average_precision([[box(0, 10)]], [[box(2, 12, score=0.9)]], ["thing"])
    assert [told["ap50"], told["ap75"], told["ap"]] == pytest.approx([1.0, 0.0, 0.4])


def test_mask_rcnn_takes_the_weights_and_trains_a_step_on_the_cpu() -> None:
    backbone = seeded_backbone("resnet18", 3)
    assert isinstance(backbone, ResNet)
    untrained = InstanceNetwork(backbone, 2, size=SIZE, frozen=True)
    body = untrained.network.backbone.body.state_dict()
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in body.items())
    given = labelled(2)
    given.masks[1] = 0  # a frame without any instance
    given.sizes[0] = 40, 50
    training = Training(head="mask-rcnn", epochs=1, frozen=True, batch_size=2)
    model, losses = train_instances(backbone, given, np.arange(2), training, seed=(0, 0))
    assert len(losses) == 1
    assert np.isfinite(losses).all()
    body = model.network.backbone.body.state_dict()
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in body.items())
    heads = {name: value for name, value in model.state_dict().items() if "mask_predictor" in name}
    assert any(not torch.equal(value, untrained.state_dict()[name]) for name, value in heads.items())
    model.network.roi_heads.detections_per_img = 5  # a hundred masks a frame take seconds
    for row, classes, instances in predict_instances(model, given, np.arange(2), batch_size=2):
        assert classes.shape == tuple(given.sizes[row])
        assert set(np.unique(classes)) <= {0, 1, 2}
        assert all(0 <= each.score <= 1 and each.class_index in (0, 1) for each in instances)
        assert all(tuple(each.outline["size"]) == tuple(given.sizes[row]) for each in instances)


def test_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match="mine: is of timm/convnext_atto, and --head mask-rcnn takes torchvision's ResNets"):
        refuse_other_than_resnets("mine", seeded_backbone("timm/convnext_atto", 0))
