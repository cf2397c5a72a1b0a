"""torchvision through the compatibility module: right answers in a fresh interpreter, with every warning an error."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from uscl.torchvision_compat import OPERATORS_DECLARED, non_maximum_suppression, torchvision


def brute_force(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for candidate in sorted(range(len(boxes)), key=lambda row: (-scores[row], row)):
        for other in kept:
            a, b = boxes[candidate], boxes[other]
            shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            if shared / union > threshold:
                break
        else:
            kept.append(candidate)
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("kernel", [non_maximum_suppression, torchvision.ops.nms])
def test_nms_against_brute_force(kernel: object, threshold: float) -> None:
    generator = np.random.default_rng(7)
    corners = generator.uniform(0, 20, (60, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(1, 15, (60, 2))], axis=1)
    scores = generator.uniform(size=60)
    kept = kernel(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    assert kept.tolist() == brute_force(boxes, scores, threshold)
    assert kept.dtype == torch.int64


def test_nms_of_no_boxes_and_of_equal_ones() -> None:
    assert non_maximum_suppression(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    same = torch.tensor([[0.0, 0, 4, 4]]).repeat(3, 1)
    assert non_maximum_suppression(same, torch.tensor([0.2, 0.9, 0.9]), 0.5).tolist() == [1]


def test_operators_are_declared_only_where_the_plain_import_fails() -> None:
    plain = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    assert (plain.returncode != 0) == OPERATORS_DECLARED


def test_a_fresh_interpreter_runs_models_transforms_and_mask_rcnn() -> None:
    program = """
import warnings
warnings.simplefilter("error")
from uscl.torchvision_compat import torchvision
import torch
from torchvision.transforms import v2
torch.manual_seed(0)
assert torchvision.models.resnet18(weights=None).eval()(torch.rand(1, 3, 64, 64)).shape == (1, 1000)
assert torchvision.models.get_model("resnet18", weights=None) is not None
assert torch.equal(v2.functional.horizontal_flip(torch.arange(4).reshape(1, 2, 2)), torch.tensor([[[1, 0], [3, 2]]]))
network = torchvision.models.detection.maskrcnn_resnet50_fpn(
    weights=None, weights_backbone=None, num_classes=2, min_size=64, max_size=64, rpn_post_nms_top_n_test=20, rpn_post_nms_top_n_train=20,
    box_batch_size_per_image=4, box_detections_per_img=5,
)
with torch.no_grad():
    found = network.eval()([torch.rand(3, 64, 64)])[0]
assert found["masks"].shape[1:] == (1, 64, 64) and len(found["boxes"]) == len(found["scores"])
target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]]), "labels": torch.tensor([1]), "masks": torch.ones(1, 64, 64, dtype=torch.uint8)}
losses = network.train()([torch.rand(3, 64, 64)], [target])
total = sum(losses.values())
total.backward()
assert torch.isfinite(total)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
