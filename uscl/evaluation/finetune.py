"""Fine-tuning on the training folds: the last residual stage and a new head, or every layer.

In: frames (or the activations before the last stage), class indices of the training rows. Out: class probabilities of the held-out rows.
The number of epochs is fixed beforehand and the weights of the last epoch are the result: no held-out row chooses anything.

The published protocol of USCL fine-tunes the last residual block and a new head with Adam (learning rate 0.01, weight decay 1e-4), batches
of 32, cosine decay over 100 epochs. What differs here, and why:

- the best of 100 epochs on the reported fold is not taken: that choice is made on the test set;
- the frozen layers' BatchNorm statistics stay as they were pretrained (there they move), which lets their activations be computed once;
- the number of epochs is 30 unless asked for otherwise, and the cosine falls by step, to zero;
- the last residual block is read as the last stage (`layer4`, two blocks), whose own BatchNorm trains;
- the learning rate is 0.001.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from uscl.backbones import Backbone, ResNet
from uscl.evaluation.features import choose_device
from uscl.models import normalise

# Chosen by training loss, never by held-out rows: on 2,003 convex POCUS frames (random weights, 64 x 64, five folds, ten epochs over a
# quarter of the training rows, last stage) the mean loss of the last epoch was 0.018 at 0.001 and 0.061 at the published 0.01.
LEARNING_RATE = 0.001
WEIGHT_DECAY = 1e-4
BATCH = 32
PREDICT_BATCH = 128
FLIP_PROBABILITY = 0.5
CROP_SIDE = (0.85, 1.0)


class LastStage(nn.Module):
    """A copy of a backbone's last residual stage with a new head: activations (N, channels, h, w) to logits (N, C)."""

    def __init__(self, backbone: ResNet, head: nn.Linear) -> None:
        super().__init__()
        self.layer4 = copy.deepcopy(backbone.layer4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.pool(self.layer4(hidden)).flatten(1))


class Classifier(nn.Module):
    """A copy of a whole backbone with a new head: normalised frames (N, 1, H, W) to logits (N, C)."""

    def __init__(self, backbone: Backbone, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        self.head = head

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.backbone(frames))


def finetune_last_stage(
    backbone: ResNet,
    hidden: torch.Tensor,
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    *,
    class_count: int,
    epochs: int,
    seed: tuple[int, int],
) -> tuple[NDArray[np.float64], float]:
    """Train the last residual stage and a new head on cached activations, and predict the held-out rows.

    Args:
        backbone: Left as it is; a copy of its last stage is trained.
        hidden: (n, channels, h, w) from `layer3_activations`.
        labels: (n,) class indices.
        train: Rows to train on.
        test: Rows held out.
        class_count: C.
        epochs: Passes over the training rows.
        seed: (seed of the evaluation, number of the fold): all randomness comes from it.

    Returns:
        (m, C) probabilities of the held-out rows, and the mean training loss of the last epoch.
    """
    generator = _generator(seed)
    model = LastStage(backbone, _new_head(backbone.width, class_count, generator))

    def batch_of(rows: torch.Tensor, augmented: bool) -> torch.Tensor:
        return hidden[rows].float()

    return _fit(model, batch_of, labels, train, test, epochs, generator)


def finetune_all(
    backbone: Backbone,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    *,
    class_count: int,
    epochs: int,
    seed: tuple[int, int],
) -> tuple[NDArray[np.float64], float]:
    """Train every layer and a new head on frames flipped left to right half the time and cropped to 85-100 % of a side.

    Args and returns as in `finetune_last_stage`, with `pixels` (n, size, size) uint8 in place of activations.
    """
    generator = _generator(seed)
    model = Classifier(backbone, _new_head(backbone.width, class_count, generator))

    def batch_of(rows: torch.Tensor, augmented: bool) -> torch.Tensor:
        frames = normalise(torch.from_numpy(pixels[rows.numpy()]))
        return flip_and_crop(frames, generator) if augmented else frames

    return _fit(model, batch_of, labels, train, test, epochs, generator)


def finetuned_classifier(
    backbone: Backbone,
    pixels: NDArray[np.uint8],
    hidden: torch.Tensor | None,
    labels: NDArray[np.int64],
    *,
    class_count: int,
    epochs: int,
    seed: tuple[int, int] = (0, 0),
) -> tuple[Classifier, float]:
    """A classifier trained on all rows, for use on other data: nothing is held out.

    Args:
        backbone: Left as it is.
        pixels: (n, size, size) uint8; read where every layer is trained.
        hidden: (n, channels, h, w) from `layer3_activations`: the last stage and the head are trained alone. None: every layer.
        labels: (n,) class indices.
        class_count: C.
        epochs: Passes over all rows.
        seed: All randomness comes from it.

    Returns:
        The classifier in evaluation mode on the CPU, and the mean training loss of the last epoch.
    """
    rows = np.arange(len(labels))
    generator = _generator(seed)
    model = Classifier(backbone, _new_head(backbone.width, class_count, generator))
    if hidden is None:
        trained: nn.Module = model
    else:
        assert isinstance(backbone, ResNet)
        trained = LastStage(backbone, model.head)

    def batch_of(chosen: torch.Tensor, augmented: bool) -> torch.Tensor:
        if hidden is not None:
            return hidden[chosen].float()
        frames = normalise(torch.from_numpy(pixels[chosen.numpy()]))
        return flip_and_crop(frames, generator) if augmented else frames

    _, loss = _fit(trained, batch_of, labels, rows, rows[:1], epochs, generator)
    if isinstance(trained, LastStage):
        assert isinstance(model.backbone, ResNet)
        model.backbone.layer4 = trained.layer4
    return model.cpu().eval(), loss


def flip_and_crop(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(N, 1, H, W): each frame flipped left to right with probability 0.5, and a square of 85-100 % of its side scaled up to the whole."""
    count = len(frames)
    flip = (torch.rand(count, generator=generator) < FLIP_PROBABILITY).float() * -2 + 1
    side = CROP_SIDE[0] + (CROP_SIDE[1] - CROP_SIDE[0]) * torch.rand(count, generator=generator)
    centre = (torch.rand(count, 2, generator=generator) * 2 - 1) * (1 - side)[:, None]
    zero = torch.zeros(count)
    affine = torch.stack([torch.stack([side * flip, zero, centre[:, 0]], 1), torch.stack([zero, side, centre[:, 1]], 1)], 1)
    grid = functional.affine_grid(affine, list(frames.shape), align_corners=False)
    return functional.grid_sample(frames, grid, align_corners=False, padding_mode="border")


def _generator(seed: tuple[int, int]) -> torch.Generator:
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _new_head(width: int, class_count: int, generator: torch.Generator) -> nn.Linear:
    """PyTorch's usual initialisation of a linear layer, drawn from the generator."""
    head = nn.utils.skip_init(nn.Linear, width, class_count)
    bound = 1 / math.sqrt(width)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
    return head


def _fit(
    model: nn.Module,
    batch_of: Callable[[torch.Tensor, bool], torch.Tensor],
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    epochs: int,
    generator: torch.Generator,
) -> tuple[NDArray[np.float64], float]:
    """Adam with a cosine decay to zero over all steps; probabilities by the weights of the last step."""
    device = choose_device()
    model.to(device)
    targets = torch.from_numpy(labels).to(device)
    batches = _batch_sizes(len(train))
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs * len(batches))
    train_rows, mean_loss = torch.from_numpy(train), math.nan
    for _ in range(epochs):
        model.train()
        total = 0.0
        for rows in train_rows[torch.randperm(len(train), generator=generator)].split(batches):
            loss = functional.cross_entropy(model(batch_of(rows, True).to(device)), targets[rows.to(device)])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        mean_loss = total / len(train)
    model.eval()
    with torch.inference_mode():
        parts = [model(batch_of(rows, False).to(device)).double().softmax(1).cpu() for rows in torch.from_numpy(test).split(PREDICT_BATCH)]
    return torch.cat(parts).numpy(), mean_loss


def _batch_sizes(rows: int) -> list[int]:
    """Batches of 32; a last one of a single row, which BatchNorm cannot train on, joins the one before."""
    sizes = [BATCH] * (rows // BATCH) + ([rows % BATCH] if rows % BATCH else [])
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [BATCH + 1]
    return sizes
