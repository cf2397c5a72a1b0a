"""U-Net and FPN on the maps of a pretrained backbone.

In: normalised gray frames (N, 1, H, W). Out: logits (N, classes, H, W). The backbone is copied, and frozen where asked: then it stays in
evaluation mode. New layers take their random weights from torch's global generator.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from uscl.backbones import Backbone
from uscl.config import BACKBONES
from usdata.errors import UserError

SemanticHead = Literal["unet", "fpn"]
LEAST_MAPS = 3
UNET_WIDTHS = (256, 128, 64, 32, 16)
PYRAMID_WIDTH, BRANCH_WIDTH = 128, 64


def map_widths(backbone: Backbone, size: int) -> list[int]:
    """Channels of each map of the backbone's pyramid, largest map first.

    Raises:
        UserError: It has no maps of three sizes (a ViT's are all of one).
    """
    was_training = backbone.training
    device = next(backbone.parameters()).device
    with torch.inference_mode():
        maps = backbone.eval().pyramid(torch.zeros(1, 1, size, size, device=device))
    backbone.train(was_training)
    if len(maps) < LEAST_MAPS:
        reason = f"has maps of {len(maps)} size{'s' if len(maps) != 1 else ''}, and a segmentation needs {LEAST_MAPS} or more"
        raise UserError(f"backbone '{backbone.name}'", reason, f"take one with stages: {', '.join(BACKBONES)}, timm/convnext_tiny, ...")
    return [each.shape[1] for each in maps]


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, BatchNorm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class UNetDecoder(nn.Module):
    """The rising half of a U-Net (Ronneberger et al. 2015): each map scaled to the next larger one's size, joined with it, convolved twice.

    After the largest map one more block without a partner goes on to the frame's size.
    """

    def __init__(self, widths: list[int], class_count: int) -> None:
        super().__init__()
        blocks, inputs = [], widths[-1]
        for partner, width in zip([*reversed(widths[:-1]), 0], _unet_widths(len(widths)), strict=True):
            blocks.append(nn.Sequential(convolution(inputs + partner, width), convolution(width, width)))
            inputs = width
        self.blocks = nn.ModuleList(blocks)
        self.classes = nn.Conv2d(inputs, class_count, 1)

    def forward(self, maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Logits at the frame's size."""
        hidden = maps[-1]
        for block, partner in zip(self.blocks, [*reversed(maps[:-1]), None], strict=True):
            target = size if partner is None else (partner.shape[2], partner.shape[3])
            hidden = functional.interpolate(hidden, size=target, mode="nearest")
            hidden = block(hidden if partner is None else torch.cat([hidden, partner], 1))
        return self.classes(hidden)


class FPNDecoder(nn.Module):
    """A feature pyramid (Lin et al. 2017) with the semantic branch of Kirillov et al. (CVPR 2019), on the four smallest maps.

    Each map is brought to one width and added to the coarser one, scaled up; all are then summed at the size of the largest of them, and
    the logits scaled up linearly to the frame's size.
    """

    def __init__(self, widths: list[int], class_count: int) -> None:
        super().__init__()
        used = widths[-4:]
        self.laterals = nn.ModuleList(nn.Conv2d(width, PYRAMID_WIDTH, 1) for width in used)
        self.branches = nn.ModuleList(
            nn.Sequential(convolution(PYRAMID_WIDTH, PYRAMID_WIDTH), convolution(PYRAMID_WIDTH, BRANCH_WIDTH)) for _ in used
        )
        self.classes = nn.Conv2d(BRANCH_WIDTH, class_count, 1)

    def forward(self, maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Logits at the frame's size."""
        used = maps[-len(self.laterals) :]
        target = (used[0].shape[2], used[0].shape[3])
        hidden: torch.Tensor | None = None
        total: torch.Tensor | None = None
        for each, lateral, branch in zip(reversed(used), reversed(self.laterals), reversed(self.branches), strict=True):
            own = lateral(each)
            hidden = own if hidden is None else own + functional.interpolate(hidden, size=(own.shape[2], own.shape[3]), mode="nearest")
            part = functional.interpolate(branch(hidden), size=target, mode="bilinear", align_corners=False)
            total = part if total is None else total + part
        assert total is not None
        return functional.interpolate(self.classes(total), size=size, mode="bilinear", align_corners=False)


class SegmentationNetwork(nn.Module):
    """A copy of a backbone with a decoder.

    Args:
        backbone: Left as it is.
        head: Which decoder.
        class_count: Classes with the background.
        size: Height and width of frames.
        frozen: The backbone is not trained, and its BatchNorm statistics stay.
    """

    def __init__(self, backbone: Backbone, head: SemanticHead, class_count: int, *, size: int, frozen: bool) -> None:
        super().__init__()
        widths = map_widths(backbone, size)
        self.backbone = copy.deepcopy(backbone)
        self.decoder = UNetDecoder(widths, class_count) if head == "unet" else FPNDecoder(widths, class_count)
        self.frozen = frozen
        self.backbone.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> SegmentationNetwork:
        """Training mode of what is trained."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes, H, W)."""
        return self.decoder(self.backbone.pyramid(frames), (frames.shape[2], frames.shape[3]))


def _unet_widths(blocks: int) -> list[int]:
    """The last ones of the usual widths; a deeper network starts with more blocks of the widest."""
    return [UNET_WIDTHS[0]] * max(0, blocks - len(UNET_WIDTHS)) + list(UNET_WIDTHS[-blocks:])
