"""Fine-tuning on the training folds: a new head, with the last residual block, the last stage, or every layer.

In: frames (or what the frozen layers make of them), class indices of the training rows, and how to train. Out: class probabilities of the
watched rows after the last epoch, or after every one. Nothing is chosen here: which epoch is taken is the protocol's affair.

`HONEST` is what is judged by default. `PUBLISHED` is how the published evaluation of USCL trains, read in its code (983632847/USCL,
`eval_pretrained_model.py`): the second block of the last stage (`features.7.1`) and a new head, Adam with learning rate 0.01 and weight
decay 1e-4, batches of 32, 100 epochs, cosine decay by epoch, random resized crops (area 0.8-1, ratio 0.8-1.25) and flips. Its whole
network is in training mode, so the statistics of frozen BatchNorm layers move. What `HONEST` does otherwise, and why:

- frozen BatchNorm layers stay as they were pretrained, in evaluation mode: what is frozen is frozen, and is computed once for all epochs;
- 30 epochs, the learning rate is 0.001, and the cosine falls by step, to zero;
- frames are augmented only where every layer is trained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from uscl.backbones import Backbone, ResNet, TimmBackbone
from uscl.evaluation.features import choose_device, frozen_activations, pooled_features
from uscl.frames import FrameStore
from uscl.models import normalise
from usdata.errors import UserError

TrainedLayers = Literal["head", "last-block", "last-stage", "all"]
BatchNorm = Literal["frozen", "moving"]
Views = Literal["whole", "light", "published"]

# Chosen by training loss, never by held-out rows: on 2,003 convex POCUS frames (random weights, 64 x 64, five folds, ten epochs over a
# quarter of the training rows, last stage) the mean loss of the last epoch was 0.018 at 0.001 and 0.061 at the published 0.01.
LEARNING_RATE = 0.001
PREDICT_BATCH = 128
FLIP_PROBABILITY = 0.5
# "light": a square of 85-100 % of a side. "published": torchvision's RandomResizedCrop(scale=(0.8, 1), ratio=(0.8, 1.25)).
CROP_SIDE = (0.85, 1.0)
CROP_AREA = (0.8, 1.0)
CROP_RATIO = (0.8, 1.25)
CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class Training:
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the training rows.
        trained_layers: Besides the head: none, the last residual block, the last residual stage, or all.
        batch_norm: Whether BatchNorm layers that are not trained keep their statistics ("frozen") or take those of the batches ("moving").
        learning_rate: Of Adam, before the cosine decay.
        weight_decay: Of Adam.
        batch_size: Rows a step.
        decay: The cosine falls to zero by "step" or by "epoch".
        views: Training frames whole, flipped and cropped lightly, or as published.
    """

    epochs: int = 30
    trained_layers: TrainedLayers = "last-block"
    batch_norm: BatchNorm = "frozen"
    learning_rate: float = LEARNING_RATE
    weight_decay: float = 1e-4
    batch_size: int = 32
    decay: Literal["step", "epoch"] = "step"
    views: Views = "whole"

    @property
    def cached(self) -> bool:
        """What the frozen layers make of a frame is the same in every epoch."""
        return self.trained_layers != "all" and self.batch_norm == "frozen" and self.views == "whole"


HONEST = Training()
PUBLISHED = Training(epochs=100, batch_norm="moving", learning_rate=0.01, decay="epoch", views="published")


@dataclass(frozen=True)
class Fit:
    """A training's outcome.

    Attributes:
        probabilities: (E, m, C) of the watched rows after each epoch, or (1, m, C) after the last one alone.
        training_loss: (epochs,) mean cross-entropy of each epoch's batches.
    """

    probabilities: NDArray[np.float64]
    training_loss: list[float]


def trained_part(backbone: Backbone, layers: TrainedLayers, *, name: str) -> nn.Module | None:
    """The module of a backbone that is trained besides the head; None for the head alone.

    Raises:
        UserError: It has no stage `layer4` of blocks, as ResNets have (torchvision's, and those of timm that are built alike).
    """
    if layers == "head":
        return None
    if layers == "all":
        return backbone
    network = backbone.network if isinstance(backbone, TimmBackbone) else backbone
    stage = getattr(network, "layer4", None)
    if not isinstance(stage, nn.Sequential) or len(stage) == 0:
        reason = f"are of {backbone.name}, which has no last residual block that could be trained alone"
        raise UserError(name, reason, "give --trained-layers all, or head")
    return stage if layers == "last-stage" else stage[-1]


class Tail(nn.Module):
    """A copy of what is trained of a ResNet, with a new head: what the frozen layers made of frames to logits (N, C)."""

    def __init__(self, part: nn.Module | None, head: nn.Linear) -> None:
        super().__init__()
        self.part = nn.Identity() if part is None else nn.Sequential(copy.deepcopy(part), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.part(hidden))


class Classifier(nn.Module):
    """A copy of a whole backbone with a new head: normalised frames (N, 1, H, W) to logits (N, C).

    Only the parameters of the trained part and the head have gradients. In training mode the rest is in evaluation mode where BatchNorm is
    frozen, so that its statistics are neither used anew nor moved.
    """

    def __init__(self, backbone: Backbone, head: nn.Linear, training: Training) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        self.head = head
        self.batch_norm = training.batch_norm
        self.trained = [trained_part(self.backbone, training.trained_layers, name=backbone.name)]
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(False)
        for part in self.trained:
            if part is not None:
                part.requires_grad_(True)

    def train(self, mode: bool = True) -> Classifier:
        """Training mode of what is trained, and with moving BatchNorm of all."""
        super().train(mode)
        if mode and self.batch_norm == "frozen":
            self.backbone.eval()
            for part in self.trained:
                if part is not None:
                    part.train()
        return self

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.backbone(frames))


@dataclass(frozen=True)
class Inputs:
    """What a training's batches are made of: either what the frozen layers made of each frame, or the frames' pixels.

    Attributes:
        hidden: (n, ...) float; None where whole frames go in.
        pixels: (n, size, size) uint8; None where hidden activations go in.
    """

    hidden: torch.Tensor | None
    pixels: NDArray[np.uint8] | None


def prepare_inputs(backbone: Backbone, store: FrameStore, rows: NDArray[np.int64], training: Training, *, name: str) -> Inputs:
    """Compute once what every fold and epoch starts from.

    Args:
        backbone: Any weights.
        store: Decoded frames.
        rows: (n,) row numbers of `store.pixels`.
        training: Of the classifier.
        name: What messages call the weights.
    """
    if training.cached and training.trained_layers == "head":
        return Inputs(torch.from_numpy(pooled_features(backbone, store, rows, name=name)), None)
    if training.cached and isinstance(backbone, ResNet):
        return Inputs(frozen_activations(backbone, store, rows, blocks=_kept_blocks(backbone, training), name=name), None)
    return Inputs(None, store.pixels[rows])


def _kept_blocks(backbone: ResNet, training: Training) -> int:
    """How many blocks of the last stage are frozen."""
    stage = backbone.layer4
    assert isinstance(stage, nn.Sequential)
    return 0 if training.trained_layers == "last-stage" else len(stage) - 1


def finetune(
    backbone: Backbone,
    inputs: Inputs,
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    watched: NDArray[np.int64],
    *,
    class_count: int,
    training: Training,
    seed: tuple[int, ...],
    every_epoch: bool = False,
    stop_after: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Fit:
    """Train a classifier on some rows, and predict others.

    Args:
        backbone: Left as it is; a copy is trained.
        inputs: Of all n rows, from `prepare_inputs`.
        labels: (n,) class indices; only those of `train` are read.
        train: Rows to train on.
        watched: Rows to predict.
        class_count: C.
        training: How.
        seed: (seed of the evaluation, number of the fold, ...): all randomness comes from it.
        every_epoch: Predict after each epoch, not only after the last.
        stop_after: End after so many of the epochs, the learning rates being those of the whole.
        advance: Is told of each epoch.
    """
    generator = _generator(seed)
    model, batch_of = _model(backbone, inputs, class_count, training, generator)
    return _fit(model, batch_of, labels, train, watched, training, generator, every_epoch, stop_after or training.epochs, advance)


def augment(frames: torch.Tensor, views: Views, generator: torch.Generator) -> torch.Tensor:
    """(N, 1, H, W): frames as they are trained on; each is drawn for by itself."""
    if views == "whole":
        return frames
    return flip_and_crop(frames, generator) if views == "light" else flip_and_resized_crop(frames, generator)


def finetuned_classifier(
    backbone: Backbone,
    inputs: Inputs,
    labels: NDArray[np.int64],
    *,
    class_count: int,
    training: Training,
    seed: tuple[int, ...] = (0, 0),
) -> tuple[Classifier, float]:
    """A classifier trained on all rows, for use on other data: nothing is held out.

    Args:
        backbone: Left as it is; a copy is trained.
        inputs: Of all n rows, from `prepare_inputs`.
        labels: (n,) class indices.
        class_count: C.
        training: How.
        seed: All randomness comes from it.

    Returns:
        The classifier in evaluation mode on the CPU, and the mean training loss of the last epoch.
    """
    rows = np.arange(len(labels))
    generator = _generator(seed)
    model, batch_of = _model(backbone, inputs, class_count, training, generator)
    fit = _fit(model, batch_of, labels, rows, rows[:1], training, generator, False, training.epochs, lambda count: None)
    model = model.cpu()
    if isinstance(model, Tail):
        whole = Classifier(backbone.cpu(), model.head, training)
        part = trained_part(whole.backbone, training.trained_layers, name=backbone.name)
        if part is not None:
            assert isinstance(model.part, nn.Sequential)
            part.load_state_dict(model.part[0].state_dict())
        model = whole
    assert isinstance(model, Classifier)
    return model.eval(), fit.training_loss[-1]


def _model(
    backbone: Backbone, inputs: Inputs, class_count: int, training: Training, generator: torch.Generator
) -> tuple[nn.Module, Callable[[torch.Tensor, bool], torch.Tensor]]:
    """What is trained, with a new head, and how its batches are made."""
    head = _new_head(backbone.width, class_count, generator)
    hidden, pixels = inputs.hidden, inputs.pixels
    if hidden is not None:

        def hidden_of(rows: torch.Tensor, augmented: bool) -> torch.Tensor:
            return hidden[rows].float()

        return Tail(trained_part(backbone, training.trained_layers, name=backbone.name), head), hidden_of

    def frames_of(rows: torch.Tensor, augmented: bool) -> torch.Tensor:
        assert pixels is not None
        frames = normalise(torch.from_numpy(pixels[rows.numpy()]))
        return augment(frames, training.views, generator) if augmented else frames

    return Classifier(backbone, head, training), frames_of


def flip_and_crop(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(N, 1, H, W): each frame flipped left to right with probability 0.5, and a square of 85-100 % of its side scaled up to the whole."""
    count = len(frames)
    flip = (torch.rand(count, generator=generator) < FLIP_PROBABILITY).float() * -2 + 1
    side = CROP_SIDE[0] + (CROP_SIDE[1] - CROP_SIDE[0]) * torch.rand(count, generator=generator)
    centre = (torch.rand(count, 2, generator=generator) * 2 - 1) * (1 - side)[:, None]
    return _cropped(frames, flip, side, side, centre)


def flip_and_resized_crop(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(N, 1, H, W): flipped with probability 0.5, and a crop of 80-100 % of the area, ratio 0.8-1.25 (log-uniform), scaled to the whole.

    As torchvision's RandomResizedCrop draws it: again, up to ten times, where the crop does not fit, and else the whole frame.
    """
    count = len(frames)
    flip = (torch.rand(count, generator=generator) < FLIP_PROBABILITY).float() * -2 + 1
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * torch.rand(count, CROP_ATTEMPTS, generator=generator)
    low, high = (math.log(ratio) for ratio in CROP_RATIO)
    ratio = torch.exp(low + (high - low) * torch.rand(count, CROP_ATTEMPTS, generator=generator))
    widths, heights = (area * ratio).sqrt(), (area / ratio).sqrt()
    fits = (widths <= 1) & (heights <= 1)
    first = fits.int().argmax(dim=1, keepdim=True)
    some = fits.any(dim=1)
    width = torch.where(some, widths.gather(1, first)[:, 0], torch.ones(count))
    height = torch.where(some, heights.gather(1, first)[:, 0], torch.ones(count))
    centre = (torch.rand(count, 2, generator=generator) * 2 - 1) * (1 - torch.stack([width, height], 1))
    return _cropped(frames, flip, width, height, centre)


def _cropped(frames: torch.Tensor, flip: torch.Tensor, width: torch.Tensor, height: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Crops (shares of the frame; centres from -1 to 1), flipped where `flip` is -1, at the frames' own size."""
    zero = torch.zeros(len(frames))
    affine = torch.stack([torch.stack([width * flip, zero, centre[:, 0]], 1), torch.stack([zero, height, centre[:, 1]], 1)], 1)
    grid = functional.affine_grid(affine, list(frames.shape), align_corners=False)
    return functional.grid_sample(frames, grid, align_corners=False, padding_mode="border")


def _generator(seed: tuple[int, ...]) -> torch.Generator:
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
    watched: NDArray[np.int64],
    training: Training,
    generator: torch.Generator,
    every_epoch: bool,
    stop_after: int,
    advance: Callable[[int], None],
) -> Fit:
    """Adam with a cosine decay to zero over all epochs; what the watched rows are taken for after each epoch or after the last."""
    device = choose_device()
    model.to(device)
    targets = torch.from_numpy(labels[train]).to(device)
    batches = _batch_sizes(len(train), training.batch_size)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=training.learning_rate, weight_decay=training.weight_decay)
    by_step = training.decay == "step"
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=training.epochs * (len(batches) if by_step else 1))
    train_rows = torch.from_numpy(train)
    predictions, losses = [], []
    for epoch in range(stop_after):
        model.train()
        total = 0.0
        for places in torch.randperm(len(train), generator=generator).split(batches):
            loss = functional.cross_entropy(model(batch_of(train_rows[places], True).to(device)), targets[places.to(device)])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if by_step:
                schedule.step()
            total += loss.item() * len(places)
        if not by_step:
            schedule.step()
        losses.append(total / len(train))
        if every_epoch or epoch == stop_after - 1:
            predictions.append(_predict(model, batch_of, watched, device))
        advance(1)
    return Fit(np.stack(predictions), losses)


def _predict(
    model: nn.Module, batch_of: Callable[[torch.Tensor, bool], torch.Tensor], rows: NDArray[np.int64], device: torch.device
) -> NDArray[np.float64]:
    model.eval()
    with torch.inference_mode():
        parts = [model(batch_of(some, False).to(device)).double().softmax(1).cpu() for some in torch.from_numpy(rows).split(PREDICT_BATCH)]
    return torch.cat(parts).numpy()


def _batch_sizes(rows: int, batch_size: int) -> list[int]:
    """Whole batches and the rest; a last one of a single row, which BatchNorm cannot train on, joins the one before."""
    sizes = [batch_size] * (rows // batch_size) + ([rows % batch_size] if rows % batch_size else [])
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [batch_size + 1]
    return sizes
