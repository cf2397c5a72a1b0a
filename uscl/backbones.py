"""The networks that are pretrained: torchvision's ResNets, and any network of timm by its name.

In come normalised gray frames, out come feature vectors. Each keeps the names that its own library gives its tensors (`Backbone.tensors`),
so that weights go back and forth strictly. torch's global generator gives random weights; nothing here is random afterwards.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from uscl.batch_norm import WholeBatchNorm
from uscl.config import BACKBONES, TIMM
from uscl.torchvision_compat import torchvision
from usdata.errors import UserError, nearest

# USCL's normalisation of gray levels scaled to 0..1 (mean 0.5, standard deviation 0.25): what backbones are handed.
PIXEL_MEAN = 0.5
PIXEL_STD = 0.25

# timm's own names for shares of what is dropped at random, beside torch's Dropout.
_DROPPED = ("drop_prob", "drop_rate")


class Backbone(nn.Module):
    """A network from frames to feature vectors.

    Attributes:
        name: The architecture: one of `BACKBONES`, or 'timm/NAME'.
        width: Length of the feature vector.
        image_size: Height and width of a view where the network was made for one size; None: it takes any.
    """

    name: str
    width: int
    image_size: int | None = None

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Features (N, width) of normalised frames (N, 1 or 3, H, W)."""
        raise NotImplementedError

    def pyramid(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """Maps (N, channels, h, w) of normalised frames, from the largest to the smallest: the last one that the network has at each size.

        Raises:
            UserError: The network does not hand them out.
        """
        raise NotImplementedError

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers under the names that the network has in its own library."""
        return self.state_dict()

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave; names that are lacking stay as they are."""
        self.load_state_dict({**self.state_dict(), **tensors})


class ResNet(Backbone):
    """A torchvision ResNet without its classifier; its parameters have torchvision's names.

    Args:
        name: One of `BACKBONES`: 512 features for resnet18 and resnet34, 2048 for resnet50.
        zero_init_residual: Start every residual block as the identity (Goyal et al. 2017); off, as USCL starts.
    """

    def __init__(self, name: str = "resnet18", *, zero_init_residual: bool = False) -> None:
        super().__init__()
        _check_name(name)
        network = getattr(torchvision.models, name)(weights=None, zero_init_residual=zero_init_residual)
        self.name = name
        self.width = network.fc.in_features
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

    def pyramid(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """Maps after the stem and the four stages: a half to a thirty-second of the frames' size."""
        stem = self.relu(self.bn1(self._first_convolution(frames)))
        first = self.layer1(self.maxpool(stem))
        second = self.layer2(first)
        third = self.layer3(second)
        return [stem, first, second, third, self.layer4(third)]

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


class TimmBackbone(Backbone):
    """A network of timm (Wightman 2019) without its classifier: what timm pools before it are the features.

    Nothing of it is dropped at random: a run that is resumed must give the same weights, and the two passes of GradCache the same features.

    Args:
        name: 'timm/NAME', with or without the tag of pretrained weights ('timm/resnet18.a1_in1k'); the weights are random either way.
        image_size: Height and width of a view: networks with a place for every patch are made for it. None: timm's own.

    Attributes:
        network: timm's network. A gray frame is repeated over its three input channels, so that its tensors are those of
            `timm.create_model(NAME, num_classes=0)`.

    Raises:
        UserError: timm is not installed, has no such network, or the network takes no views of this size or gives no feature vector.
    """

    def __init__(self, name: str, image_size: int | None = None) -> None:
        super().__init__()
        timm_config(name)
        self.name = name
        self.width, self._channels, self._takes_none = _timm_facts(name, image_size)
        self.network, fixed = _timm_network(name, image_size)
        self.image_size = image_size if fixed else None

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Features (N, width) of normalised frames (N, 1 or 3, H, W)."""
        frames = frames.expand(-1, self._channels, -1, -1)
        if len(frames) or self._takes_none:
            features: torch.Tensor = self.network(frames)
            return features
        # A process without a video, in the last batch of an epoch: two black frames pass and are left out, so that every parameter has a
        # gradient, of zero, as it has in the other processes.
        if self.training and any(isinstance(layer, WholeBatchNorm | nn.SyncBatchNorm) for layer in self.modules()):
            reason = "cannot pass a batch of no videos beside sync_batchnorm, and this process has none of the last batch of the epoch"
            raise UserError(f"backbone '{self.name}'", reason, "start fewer processes, or take a batch_size that divides the videos")
        return self.network(frames.new_zeros(2, *frames.shape[1:]))[:0]

    def pyramid(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """What timm's `forward_intermediates` gives, of maps of one size the last."""
        if not hasattr(self.network, "forward_intermediates"):
            raise UserError(f"backbone '{self.name}'", "hands out no maps between its layers", f"take one of {', '.join(BACKBONES)}")
        maps: list[torch.Tensor] = self.network.forward_intermediates(  # type: ignore[operator]
            frames.expand(-1, self._channels, -1, -1), intermediates_only=True
        )
        last = {tuple(each.shape[2:]): each for each in maps if each.ndim == 4}
        return [last[size] for size in sorted(last, reverse=True)]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers under timm's names."""
        return self.network.state_dict()

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over tensors under timm's names."""
        self.network.load_state_dict({**self.network.state_dict(), **tensors})

    def heads(self) -> tuple[str, ...]:
        """How the names of the classifier's tensors begin that timm's own weights have and this network has not."""
        found = timm_config(self.name).classifier or ()
        return tuple(f"{head}." for head in ((found,) if isinstance(found, str) else found))

    def resized(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors of the same network made for another size of views, brought to this one's as timm does it (positions interpolated).

        Where timm knows no way, they are as they were.
        """
        own = self.network.state_dict()
        if all(key not in own or own[key].shape == value.shape for key, value in tensors.items()):
            return tensors
        way = getattr(sys.modules[type(self.network).__module__], "checkpoint_filter_fn", None)
        found = dict(way(dict(tensors), self.network)) if way else {}
        return found if found.keys() == tensors.keys() else tensors


def make_backbone(name: str, image_size: int | None = None) -> Backbone:
    """A backbone with random weights from torch's global generator.

    Args:
        name: One of `BACKBONES`, or 'timm/NAME'.
        image_size: Height and width of its views, which some networks of timm are made for.

    Raises:
        UserError: It is not known, or does not take views of this size.
    """
    return TimmBackbone(name, image_size) if name.startswith(TIMM) else ResNet(name)


def seeded_backbone(name: str, seed: int, image_size: int | None = None) -> Backbone:
    """A backbone with random weights that depend on these alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_backbone(name, image_size)


def check_backbone(name: str, image_size: int | None = None) -> None:
    """Build a backbone without its tensors' data and hand it a view, as far as that can fail.

    Raises:
        UserError: It is not known, or does not take views of this size.
    """
    if name.startswith(TIMM):
        timm_config(name)
        _timm_facts(name, image_size)
    else:
        _check_name(name)


def _check_name(name: str) -> None:
    if name not in BACKBONES:
        raise UserError(f"backbone '{name}'", "is not known", f"{nearest(name, BACKBONES)} (or a network of timm: {TIMM}NAME)")


def find_timm() -> ModuleType:
    """timm, which is an extra.

    Raises:
        UserError: It is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        reason = "is not installed, and the backbone is one of its networks"
        raise UserError("timm", reason, f"pip install 'usdata-uscl[timm]', or take one of {', '.join(BACKBONES)}") from None
    return timm


@cache
def timm_config(name: str) -> Any:
    """What timm says of a network ('timm/NAME'): its classifier, first convolution, published weights, the pixels they were trained on.

    Raises:
        UserError: timm is not installed, or has no such network.
    """
    timm = find_timm()
    word = name.removeprefix(TIMM)
    architecture, _, tag = word.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.6)
        advice = f"the nearest are {', '.join(TIMM + known for known in near)}" if near else "timm.list_models() lists them in Python"
        raise UserError(f"backbone '{name}'", "is no network of timm", advice)
    try:
        return timm.models.get_pretrained_cfg(word, allow_unregistered=False) or timm.models.PretrainedCfg()
    except RuntimeError:
        known = [found for found in timm.list_pretrained(architecture) if found != architecture]
        reason = f"asks for weights '{tag}', which timm does not know for {architecture}"
        raise UserError(f"backbone '{name}'", reason, nearest(name, [f"{TIMM}{found}" for found in known])) from None


def _timm_network(name: str, image_size: int | None) -> tuple[nn.Module, bool]:
    """timm's network, and whether it was made for views of one size."""
    timm, config = find_timm(), timm_config(name)
    settings: dict[str, Any] = {"pretrained": False, "num_classes": 0}
    fixed = bool(config.fixed_input_size) and image_size is not None
    if fixed:
        settings["img_size"] = image_size
    network: nn.Module = timm.create_model(name.removeprefix(TIMM), **settings)
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for key in _DROPPED:
            if isinstance(getattr(module, key, None), float):
                setattr(module, key, 0.0)
    return network, fixed


@cache
def _timm_facts(name: str, image_size: int | None) -> tuple[int, int, bool]:
    """The length of the feature vector, which timm does not say for every network, the channels of a frame, and whether none may pass.

    Nothing is computed: the network has no data.
    """
    channels, size, _ = timm_config(name).input_size
    size = image_size or size
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
            # In evaluation mode and two of them: BatchNorm would refuse to train on a single value a channel.
            network = _timm_network(name, image_size)[0].eval()
            features = network(torch.empty(2, channels, size, size))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError, NotImplementedError, ModuleNotFoundError) as error:
        reason = f"does not take views of {size}x{size} pixels ({' '.join(str(error).split())[:200] or type(error).__name__})"
        raise UserError(f"backbone '{name}'", reason, "try another image_size (a multiple of 32), or another network") from None
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise UserError(f"backbone '{name}'", f"gives no feature vector but {shape} for two frames", "take one that timm pools")
    try:
        with torch.device("meta"), torch.no_grad():
            takes_none = network(torch.empty(0, channels, size, size)).shape == (0, features.shape[1])
    except (RuntimeError, ValueError, TypeError, AssertionError):
        takes_none = False
    return features.shape[1], channels, takes_none
