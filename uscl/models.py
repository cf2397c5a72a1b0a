"""The networks: a ResNet backbone that takes gray frames as they are, the projector, and loading of weights.

A `Backbone` has exactly the parameter names of torchvision's network of the same name without `fc`, so its weights go back and forth
strictly. Weights come from a seed, from a finished run, or from a file that `uscl.foreign` reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from uscl.foreign import fit, read_weights
from uscl.sections import Projector
from uscl.torchvision_compat import torchvision
from usdata.errors import UserError, nearest
from usdata.files import sha256_file

# USCL's projection head.
USCL_PROJECTOR = Projector()

BACKBONES = ("resnet18", "resnet34", "resnet50")
EXPORTED_BACKBONE = "export/backbone.safetensors"

# USCL's normalisation of gray levels scaled to 0..1 (mean 0.5, standard deviation 0.25).
PIXEL_MEAN = 0.5
PIXEL_STD = 0.25


class Backbone(nn.Module):
    """A torchvision ResNet without its classifier, for frames of one or three channels.

    Args:
        name: One of `BACKBONES`.
        zero_init_residual: Start every residual block as the identity (Goyal et al. 2017); off, as USCL starts.

    Attributes:
        name: The architecture's name.
        width: Length of the feature vector (512 for resnet18 and resnet34, 2048 for resnet50).
    """

    def __init__(self, name: str = "resnet18", *, zero_init_residual: bool = False) -> None:
        super().__init__()
        network = getattr(torchvision.models, _known(name))(weights=None, zero_init_residual=zero_init_residual)
        self.name = name
        self.width: int = network.fc.in_features
        self.conv1: nn.Conv2d = network.conv1
        self.bn1: nn.Module = network.bn1
        self.relu: nn.Module = network.relu
        self.maxpool: nn.Module = network.maxpool
        self.layer1: nn.Module = network.layer1
        self.layer2: nn.Module = network.layer2
        self.layer3: nn.Module = network.layer3
        self.layer4: nn.Module = network.layer4
        self.avgpool: nn.Module = network.avgpool

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Features (N, width) of normalised frames (N, 1 or 3, H, W)."""
        return self.forward_from_layer4(self.forward_to_layer3(frames))

    def forward_to_layer3(self, frames: torch.Tensor) -> torch.Tensor:
        """Everything before the last residual stage: (N, 1 or 3, H, W) to (N, channels, H/16, W/16).

        One channel stands for three equal ones: the first convolution's weight is summed over its input channels, which gives the same
        result as repeating the frame three times, for a third of the work.
        """
        hidden = self._first_convolution(frames)
        hidden = self.maxpool(self.relu(self.bn1(hidden)))
        return self.layer3(self.layer2(self.layer1(hidden)))

    def forward_from_layer4(self, hidden: torch.Tensor) -> torch.Tensor:
        """The last residual stage and the mean over positions: (N, channels, h, w) to (N, width)."""
        return torch.flatten(self.avgpool(self.layer4(hidden)), 1)

    def stages(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Maps after the second, third and last residual stage, an eighth, a sixteenth and a thirty-second of the frames' size.

        Their channels are `stage_widths`; the mean of the last one over positions is what `forward` gives.
        """
        second = self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self._first_convolution(frames))))))
        third = self.layer3(second)
        return second, third, self.layer4(third)

    @property
    def stage_widths(self) -> tuple[int, int, int]:
        """Channels of the maps that `stages` gives."""
        return self.width // 4, self.width // 2, self.width

    def _first_convolution(self, frames: torch.Tensor) -> torch.Tensor:
        if frames.shape[1] != 1:
            return self.conv1(frames)
        if self.conv1.weight.is_contiguous(memory_format=torch.channels_last):
            # A single channel has both layouts at once, and the plain one would be handed on through the stem.
            frames = frames.to(memory_format=torch.channels_last)
        weight = self.conv1.weight.sum(dim=1, keepdim=True)
        return functional.conv2d(frames, weight, None, self.conv1.stride, self.conv1.padding)


def _known(name: str) -> str:
    if name not in BACKBONES:
        raise UserError(f"backbone '{name}'", "is not known", nearest(name, BACKBONES))
    return name


def make_backbone(name: str) -> Backbone:
    """A backbone with random weights from torch's global generator.

    Raises:
        UserError: It is not known.
    """
    return Backbone(name)


def projector(width: int, settings: Projector = USCL_PROJECTOR) -> nn.Module:
    """A projection head: (N, width) to (N, settings.width). By default USCL's g: Linear, ReLU, Linear.

    With `batch_norm`, linear layers that it follows have no bias, nor has the last one (Barlow Twins, Zbontar et al., ICML 2021).
    """
    layers: list[nn.Module] = []
    for layer in range(settings.layers):
        last = layer == settings.layers - 1
        out = settings.width if last else settings.hidden
        layers.append(nn.Linear(width, out, bias=not settings.batch_norm))
        if not last:
            layers += [nn.BatchNorm1d(out)] if settings.batch_norm else []
            layers.append(nn.ReLU(inplace=True))
        width = out
    return nn.Sequential(*layers) if layers else nn.Identity()


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Gray frames (N, H, W) uint8 to (N, 1, H, W) float32: scaled to 0..1, then mean 0.5 and standard deviation 0.25."""
    return ((pixels.float() / 255 - PIXEL_MEAN) / PIXEL_STD).unsqueeze(1)


def seeded_backbone(name: str, seed: int) -> Backbone:
    """A backbone with random weights that depend on the name and the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(name)


def load_backbone(weights: str | Path, *, name: str = "resnet18", seed: int = 0) -> tuple[Backbone, dict[str, Any]]:
    """A backbone and where its weights come from.

    Args:
        weights: 'random' (from the seed), 'imagenet' (torchvision's default weights, downloaded once by torch.hub), the folder of a
            finished run, or a file of safetensors or torch (.pth, .pt, .bin) with the tensors of torchvision's network under its names, as
            in a run's checkpoints, or as in the published USCL checkpoints (see `uscl.foreign`); heads in it are ignored.
        name: The architecture; a file that names its own, or has the tensors of another one, wins.
        seed: Of the random weights.

    Returns:
        The backbone in evaluation mode, and its provenance: `kind` (random, imagenet, run, file), `backbone`, `seed` (random), `sha256` of
        the file, and what the file says of itself: `image_size`, `dataset_digest`, `dataset_name`, `splits`, `recipe`, `steps`,
        `clips`, the sha256 of the raw clips that it was trained on, and `clips_whole`, whether it was trained on nothing else.
        Unknown is None.

    Raises:
        UserError: There is no such file, it cannot be read safely, or it does not fit the backbone.
    """
    provenance: dict[str, Any] = {
        "kind": str(weights),
        "backbone": name,
        "seed": None,
        "sha256": None,
        "image_size": None,
        "dataset_digest": None,
        "clips": None,
        "clips_whole": None,
        "dataset_name": None,
        "splits": None,
        "recipe": None,
        "steps": None,
    }
    if str(weights) == "random":
        return seeded_backbone(name, seed).eval(), {**provenance, "seed": seed}
    if str(weights) == "imagenet":
        backbone, digest = _imagenet_backbone(name)
        return backbone.eval(), {**provenance, "sha256": digest, "image_size": 224}
    path, kind = _weights_file(Path(weights))
    tensors, metadata = read_weights(path)
    name, state = fit(tensors, path, _shapes(), _known(metadata.get("backbone", name)))
    backbone = seeded_backbone(name, 0)
    backbone.load_state_dict({**backbone.state_dict(), **state})
    size, steps = metadata.get("image_size"), metadata.get("steps")
    provenance |= {"kind": kind, "backbone": name, "sha256": sha256_file(path)}
    provenance |= {"image_size": int(size) if size else None, "steps": int(steps) if steps else None}
    provenance |= {key: metadata.get(key) for key in ("dataset_digest", "dataset_name", "splits", "recipe")}
    provenance["clips"] = json.loads(metadata["clips"]) if "clips" in metadata else None
    provenance["clips_whole"] = metadata["clips_whole"] == "yes" if "clips_whole" in metadata else None
    return backbone.eval(), provenance


def _weights_file(path: Path) -> tuple[Path, str]:
    """The safetensors file that `weights` means, and whether it is a run's or a plain file."""
    if path.is_dir():
        exported = path / EXPORTED_BACKBONE
        if not exported.is_file():
            advice = "finish it with 'uscl pretrain SET --out RUN --resume', or name a checkpoint's model.safetensors"
            raise UserError(path, f"holds no {EXPORTED_BACKBONE}, so it is no finished run", advice)
        return exported, "run"
    if not path.is_file():
        raise UserError(path, "no such weights", "give the folder of a run, a file of weights (.safetensors, .pth), 'random' or 'imagenet'")
    return path, "file"


def _shapes() -> dict[str, dict[str, torch.Size]]:
    """The names and shapes of every backbone's tensors; nothing is computed."""
    with torch.device("meta"):
        return {name: {key: value.shape for key, value in Backbone(name).state_dict().items()} for name in BACKBONES}


def _imagenet_backbone(name: str) -> tuple[Backbone, str]:
    backbone = seeded_backbone(name, 0)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        advice = f"bring {weights.url} to {torch.hub.get_dir()}/checkpoints by hand"
        raise UserError(f"imagenet weights of {name}", f"cannot be downloaded ({error})", advice) from None
    backbone.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")})
    return backbone, sha256_file(Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name)
