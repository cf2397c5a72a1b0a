"""Mask R-CNN on a pretrained ResNet, its instances, and their average precision as COCO measures it.

In: frames and masks at the network's size. Out: class maps at each frame's own size, and instances with scores. The truth's instances are
the connected components (8 neighbours) of each class's mask. Average precision is pycocotools' own (Lin et al. 2014).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from uscl.backbones import PIXEL_MEAN, PIXEL_STD, Backbone, ResNet
from uscl.models import normalise
from uscl.segmentation.training import Labelled, Training, fit, seeded, seeded_generator
from uscl.torchvision_compat import torchvision
from usdata.errors import UserError

# A component smaller than that at the network's size is a crumb of scaling, and no instance to train on.
LEAST_PIXELS = 4
# What a class map is painted from.
LEAST_SCORE = 0.5
MOST_INSTANCES = 100
# Of places where a thing may be: looked at on each map, kept of all maps, and trained on. torchvision's 2,000, 2,000 and 512 are for
# photographs of 800 pixels with many things.
PROPOSALS, KEPT_PROPOSALS, TRAINED_PROPOSALS = 300, 150, 64
PYRAMID_WIDTH = 256
# Anchor sides as shares of the frame's; torchvision's 32 to 512 of 800 pixels.
ANCHOR_SHARES = (0.04, 0.08, 0.16, 0.32, 0.64)
STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Instance:
    """A thing that was found, or is true.

    Attributes:
        class_index: 0 to C - 1.
        outline: Its mask at the frame's own size, run-length encoded as COCO does.
        score: 0 to 1; of the truth 1.
    """

    class_index: int
    outline: dict[str, Any]
    score: float = 1.0


class InstanceNetwork(nn.Module):
    """torchvision's Mask R-CNN (He et al. 2017) with a ResNet's weights in its feature pyramid.

    Args:
        backbone: Left as it is; a copy of its tensors is taken.
        class_count: Classes without the background.
        size: Height and width of frames.
        frozen: The ResNet is not trained, and its BatchNorm statistics stay.
    """

    def __init__(self, backbone: ResNet, class_count: int, *, size: int, frozen: bool) -> None:
        super().__init__()
        detection = torchvision.models.detection
        network = getattr(torchvision.models, backbone.name)(weights=None)
        network.load_state_dict(backbone.state_dict(), strict=False)
        widths = [backbone.width // 8, backbone.width // 4, backbone.width // 2, backbone.width]
        stages = {name: str(place) for place, name in enumerate(STAGES)}
        pyramid = detection.backbone_utils.BackboneWithFPN(network, stages, widths, PYRAMID_WIDTH)
        anchors = detection.anchor_utils.AnchorGenerator(
            tuple((max(4, round(share * size)),) for share in ANCHOR_SHARES), ((0.5, 1.0, 2.0),) * len(ANCHOR_SHARES)
        )
        self.network = detection.MaskRCNN(
            pyramid,
            1 + class_count,
            min_size=size,
            max_size=size,
            image_mean=[PIXEL_MEAN] * 3,
            image_std=[PIXEL_STD] * 3,
            rpn_anchor_generator=anchors,
            rpn_pre_nms_top_n_train=PROPOSALS,
            rpn_pre_nms_top_n_test=PROPOSALS,
            rpn_post_nms_top_n_train=KEPT_PROPOSALS,
            rpn_post_nms_top_n_test=KEPT_PROPOSALS,
            box_batch_size_per_image=TRAINED_PROPOSALS,
            box_detections_per_img=MOST_INSTANCES,
        )
        self.frozen = frozen
        pyramid.body.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> InstanceNetwork:
        """Training mode of what is trained."""
        super().train(mode)
        if self.frozen:
            self.network.backbone.body.eval()
        return self

    def forward(self, frames: torch.Tensor, masks: torch.Tensor | None = None) -> Any:
        """The loss of a batch of normalised frames (N, 1, H, W) and masks (N, H, W); without masks what is found in each frame."""
        # torchvision's network normalises itself.
        levels = list((frames * PIXEL_STD + PIXEL_MEAN).expand(-1, 3, -1, -1))
        if masks is None:
            return self.network(levels)
        targets = [_target(mask, frames.device) for mask in masks.cpu().numpy()]
        return torch.stack(list(self.network(levels, targets).values())).sum()


def refuse_other_than_resnets(name: str, backbone: Backbone) -> None:
    """Mask R-CNN takes torchvision's ResNets.

    Raises:
        UserError: The backbone is another network.
    """
    if not isinstance(backbone, ResNet):
        raise UserError(name, f"is of {backbone.name}, and --head mask-rcnn takes torchvision's ResNets", "use --head unet or fpn")


def find_pycocotools() -> ModuleType:
    """pycocotools, which is an extra.

    Raises:
        UserError: It is not installed.
    """
    try:
        import pycocotools.cocoeval
        import pycocotools.mask
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("pycocotools"):
            raise
        reason = "is not installed, and measures the average precision of --head mask-rcnn"
        raise UserError("pycocotools", reason, "pip install 'usdata-uscl[coco]', or use --head unet or fpn") from None
    return pycocotools


def train_instances(
    backbone: ResNet,
    labelled: Labelled,
    rows: NDArray[np.int64],
    training: Training,
    *,
    seed: tuple[int, int],
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[InstanceNetwork, list[float]]:
    """A Mask R-CNN trained on some rows; arguments as in `train_network`."""
    size = labelled.pixels.shape[1]
    generator = seeded_generator(seed)

    def trained() -> tuple[InstanceNetwork, list[float]]:
        # torchvision draws the proposals that it trains on from the global generator, too.
        model = InstanceNetwork(backbone, labelled.class_count, size=size, frozen=training.frozen)
        return model, fit(model, model, labelled, rows, training, generator, advance)

    return seeded(seed, trained)


def predict_instances(
    model: InstanceNetwork, labelled: Labelled, rows: NDArray[np.int64], *, batch_size: int
) -> Iterator[tuple[int, NDArray[np.uint8], list[Instance]]]:
    """Each row's class map at its frame's own size, of instances with a score of 0.5 and more, the surest on top; and all its instances."""
    device = next(model.parameters()).device
    model.eval()
    for start in range(0, len(rows), batch_size):
        own = rows[start : start + batch_size]
        with torch.inference_mode():
            found = model(normalise(torch.from_numpy(labelled.pixels[own])).to(device))
        for row, one in zip(own.tolist(), found, strict=True):
            height, width = labelled.sizes[row].tolist()
            classes = np.zeros((height, width), dtype=np.uint8)
            instances = []
            order = torch.argsort(one["scores"], stable=True)  # the surest last, and so on top
            for place in order.tolist():
                mask = functional.interpolate(one["masks"][place][None], size=(height, width), mode="bilinear", align_corners=False)
                inside = (mask[0, 0] > 0.5).cpu().numpy()
                if not inside.any():
                    continue
                label, score = int(one["labels"][place]), float(one["scores"][place])
                instances.append(Instance(label - 1, encoded(inside), score))
                if score >= LEAST_SCORE:
                    classes[inside] = label
            yield row, classes, instances


def true_instances(mask: NDArray[np.uint8]) -> list[Instance]:
    """The connected components of each class of a mask (H, W), in the order of classes."""
    return [Instance(value - 1, encoded(component)) for value, component in components(mask)]


def components(mask: NDArray[np.uint8], least: int = 1) -> list[tuple[int, NDArray[np.bool_]]]:
    """Each class's connected components of so many pixels or more: (1 to C, (H, W))."""
    found = []
    for value in np.unique(mask[mask > 0]).tolist():
        count, which, facts, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8), connectivity=8)
        found += [(value, which == number) for number in range(1, count) if facts[number, cv2.CC_STAT_AREA] >= least]
    return found


def encoded(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask (H, W), run-length encoded as COCO does."""
    find_pycocotools()
    from pycocotools import mask as coco_masks

    outline: dict[str, Any] = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return outline


def average_precision(truth: Sequence[Sequence[Instance]], found: Sequence[Sequence[Instance]], names: Sequence[str]) -> dict[str, Any]:
    """COCO's average precision of masks: mean over classes and over overlaps (IoU) of .50 to .95; that at .50 and .75; of each class.

    Args:
        truth: Of each frame.
        found: Of each frame, at most a hundred count.
        names: Of the classes.

    Returns:
        `ap`, `ap50`, `ap75`, and `classes`: name, number of true instances, and `ap`. None where a class has no instance.
    """
    find_pycocotools()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sizes = [next((each.outline["size"] for each in (*one, *other)), (0, 0)) for one, other in zip(truth, found, strict=True)]
    images = [{"id": 1 + number, "height": size[0], "width": size[1]} for number, size in enumerate(sizes)]
    categories = [{"id": 1 + index, "name": name} for index, name in enumerate(names)]
    annotations = _annotations(truth)
    results = _annotations(found)
    sound = COCO()
    counts = np.bincount([each["category_id"] - 1 for each in annotations], minlength=len(names))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        sound.dataset = {"images": images, "categories": categories, "annotations": annotations}
        sound.createIndex()
        held = COCO()
        held.dataset = {"images": images, "categories": categories, "annotations": results}
        held.createIndex()
        judge = COCOeval(sound, held, iouType="segm")
        judge.evaluate()
        judge.accumulate()
    # (overlaps, recalls, classes, areas, most instances); all areas, and the largest number of instances. -1 is not defined.
    precision = judge.eval["precision"][:, :, :, 0, -1]

    def mean(values: NDArray[np.float64]) -> float | None:
        known = values[values > -1]
        return float(known.mean()) if len(known) else None

    classes = [
        {"class": name, "instances": int(counts[index]), "ap": mean(precision[:, :, index].ravel())} for index, name in enumerate(names)
    ]
    return {"ap": mean(precision.ravel()), "ap50": mean(precision[0].ravel()), "ap75": mean(precision[5].ravel()), "classes": classes}


def _annotations(frames: Sequence[Sequence[Instance]]) -> list[dict[str, Any]]:
    from pycocotools import mask as coco_masks

    return [
        {
            "id": number,
            "image_id": image,
            "category_id": 1 + each.class_index,
            "segmentation": each.outline,
            "area": float(coco_masks.area(each.outline)),
            "iscrowd": 0,
            "score": each.score,
        }
        for number, (image, each) in enumerate(((image, each) for image, own in enumerate(frames, 1) for each in own), 1)
    ]


def _target(mask: NDArray[np.uint8], device: torch.device) -> dict[str, torch.Tensor]:
    """What torchvision trains on: boxes (k, 4), labels (k,) and masks (k, H, W) of a mask's instances."""
    found = components(mask, LEAST_PIXELS)
    boxes = np.zeros((len(found), 4), dtype=np.float32)
    for row, (_, inside) in enumerate(found):
        down, across = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        boxes[row] = across[0], down[0], across[-1] + 1, down[-1] + 1
    masks = np.stack([inside for _, inside in found]) if found else np.zeros((0, *mask.shape), dtype=bool)
    target = {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.tensor([value for value, _ in found], dtype=torch.int64),
        "masks": torch.from_numpy(masks.astype(np.uint8)),
    }
    return {name: value.to(device) for name, value in target.items()}
