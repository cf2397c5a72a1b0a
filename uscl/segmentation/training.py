"""Training a U-Net or an FPN on the training folds, and what it makes of held-out frames.

In: frames and masks at the network's size. Out: class maps at each frame's own size. Epochs are fixed beforehand and nothing is chosen on a
held-out frame; all randomness comes from the seed of the division and the number of the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from uscl.backbones import Backbone
from uscl.evaluation.features import choose_device
from uscl.models import normalise
from uscl.segmentation.networks import SegmentationNetwork
from usdata.errors import UserError

Head = Literal["unet", "fpn", "mask-rcnn"]
T = TypeVar("T")

# Adam's, before the cosine decay; Mask R-CNN's sum of five losses is stepped more carefully.
LEARNING_RATE = {"unet": 1e-3, "fpn": 1e-3, "mask-rcnn": 3e-4}
FLIP_PROBABILITY = 0.5
CROP_SIDE = (0.8, 1.0)
# A class that a batch lacks costs something only where it is predicted.
DICE_SMOOTHING = 1.0


@dataclass(frozen=True)
class Training:
    """How a head is trained.

    Attributes:
        head: U-Net, FPN or Mask R-CNN.
        epochs: Passes over the training frames.
        frozen: The backbone is not trained.
        learning_rate: Of Adam, before a cosine decay to zero by step.
        weight_decay: Of Adam.
        batch_size: Frames a step.
    """

    head: Head = "unet"
    epochs: int = 30
    frozen: bool = False
    learning_rate: float = LEARNING_RATE["unet"]
    weight_decay: float = 1e-4
    batch_size: int = 8


@dataclass(frozen=True)
class Labelled:
    """n frames with their masks.

    Attributes:
        pixels: (n, size, size) uint8.
        masks: (n, size, size) uint8, 0 for the background, 1 to C for the classes.
        sizes: (n, 2) height and width of each frame as the data set stores it.
        class_count: C.
    """

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    class_count: int


def dice_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - the soft Dice of a batch (Milletari et al. 2016, without the squares), mean over all classes but the background.

    Args:
        logits: (N, 1 + C, H, W).
        truth: (N, H, W) int64.
    """
    shares = logits.softmax(1)[:, 1:]
    held = functional.one_hot(truth, logits.shape[1]).movedim(-1, 1)[:, 1:].to(shares.dtype)
    both = (shares * held).sum((0, 2, 3))
    either = shares.sum((0, 2, 3)) + held.sum((0, 2, 3))
    return 1 - ((2 * both + DICE_SMOOTHING) / (either + DICE_SMOOTHING)).mean()


def segmentation_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, mean over pixels, plus `dice_loss`."""
    return functional.cross_entropy(logits, truth) + dice_loss(logits, truth)


def flip_and_crop(frames: torch.Tensor, masks: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames and masks alike: left to right with probability 0.5, and a square of 80-100 % of a side scaled up to the whole.

    Args:
        frames: (N, 1, H, W) float, sampled linearly.
        masks: (N, H, W) uint8, sampled at the nearest pixel.
        generator: What is drawn comes from it.
    """
    count = len(frames)
    flip = (torch.rand(count, generator=generator) < FLIP_PROBABILITY).float() * -2 + 1
    side = CROP_SIDE[0] + (CROP_SIDE[1] - CROP_SIDE[0]) * torch.rand(count, generator=generator)
    centre = (torch.rand(count, 2, generator=generator) * 2 - 1) * (1 - side)[:, None]
    zero = torch.zeros(count)
    affine = torch.stack([torch.stack([side * flip, zero, centre[:, 0]], 1), torch.stack([zero, side, centre[:, 1]], 1)], 1)
    grid = functional.affine_grid(affine, list(frames.shape), align_corners=False)
    cropped = functional.grid_sample(frames, grid, align_corners=False, padding_mode="border")
    same = functional.grid_sample(masks[:, None].float(), grid, mode="nearest", align_corners=False, padding_mode="border")
    return cropped, same[:, 0].round().to(torch.uint8)


def train_network(
    backbone: Backbone,
    labelled: Labelled,
    rows: NDArray[np.int64],
    training: Training,
    *,
    seed: tuple[int, int],
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[SegmentationNetwork, list[float]]:
    """A decoder on a copy of a backbone, trained on some rows.

    Args:
        backbone: Left as it is.
        labelled: All frames.
        rows: Those to train on, two or more.
        training: How; its head is "unet" or "fpn".
        seed: (seed of the evaluation, number of the fold).
        advance: Is told of each epoch.

    Returns:
        The network, and the mean loss of each epoch.
    """
    assert training.head != "mask-rcnn"
    head, generator = training.head, seeded_generator(seed)
    model = seeded(
        seed,
        lambda: SegmentationNetwork(backbone, head, 1 + labelled.class_count, size=labelled.pixels.shape[1], frozen=training.frozen),
    )

    def loss_of(frames: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return segmentation_loss(model(frames), masks.long())

    return model, fit(model, loss_of, labelled, rows, training, generator, advance)


def fit(
    model: nn.Module,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    labelled: Labelled,
    rows: NDArray[np.int64],
    training: Training,
    generator: torch.Generator,
    advance: Callable[[int], None],
) -> list[float]:
    """Adam with a cosine decay to zero by step; the mean loss of each epoch.

    Raises:
        UserError: The loss is not finite.
    """
    device = choose_device()
    model.to(device).train()
    sizes = batch_sizes(len(rows), training.batch_size)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=training.epochs * len(sizes))
    losses = []
    for epoch in range(training.epochs):
        total = 0.0
        for places in torch.randperm(len(rows), generator=generator).split(sizes):
            own = rows[places.numpy()]
            frames, masks = normalise(torch.from_numpy(labelled.pixels[own])), torch.from_numpy(labelled.masks[own])
            frames, masks = flip_and_crop(frames, masks, generator)
            loss = loss_of(frames.to(device), masks.to(device))
            if not torch.isfinite(loss):
                raise UserError("training", f"the loss is no number in epoch {epoch + 1}", "the weights hold numbers that are not finite")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(own)
        losses.append(total / len(rows))
        advance(1)
    return losses


def predict_masks(
    model: SegmentationNetwork, labelled: Labelled, rows: NDArray[np.int64], *, batch_size: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Each row's class map at its frame's own size: the logits are scaled up linearly, and the largest of them wins."""
    device = next(model.parameters()).device
    model.eval()
    for start in range(0, len(rows), batch_size):
        own = rows[start : start + batch_size]
        with torch.inference_mode():
            logits = model(normalise(torch.from_numpy(labelled.pixels[own])).to(device)).float()
            for row, one in zip(own.tolist(), logits, strict=True):
                scaled = functional.interpolate(one[None], size=tuple(labelled.sizes[row].tolist()), mode="bilinear", align_corners=False)
                yield row, scaled[0].argmax(0).to(torch.uint8).cpu().numpy()


def batch_sizes(rows: int, batch_size: int) -> list[int]:
    """Whole batches and the rest; a last one of a single row, which BatchNorm cannot train on, joins the one before."""
    sizes = [batch_size] * (rows // batch_size) + ([rows % batch_size] if rows % batch_size else [])
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [batch_size + 1]
    return sizes


def seeded_generator(seed: tuple[int, int]) -> torch.Generator:
    """A generator of this seed's own."""
    return torch.Generator().manual_seed(_number(seed))


def seeded(seed: tuple[int, int], make: Callable[[], T]) -> T:
    """What a function makes with torch's global generator at this seed; the generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_number(seed))
        return make()


def _number(seed: tuple[int, int]) -> int:
    # Apart from the other uses of a division's seed.
    state = np.random.SeedSequence((*seed, 0x5E6)).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))
