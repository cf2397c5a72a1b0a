"""Weights that torchvision and timm publish, mostly of ImageNet: found on this machine or downloaded, checked, and fitted to our pixels.

Their networks were trained on pixels normalised otherwise than ours. A first convolution is linear, so the difference is folded into it
(and into its bias, or the mean of the BatchNorm behind it): the network then sees of our pixels what it was trained to see.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from uscl.backbones import PIXEL_MEAN, PIXEL_STD, Backbone, TimmBackbone, check_backbone, timm_config
from uscl.config import TIMM
from uscl.foreign import fitted, read_weights
from uscl.torchvision_compat import torchvision
from usdata.errors import UserError
from usdata.files import sha256_file

# torchvision's files end their names with the beginning of their sha256.
_HASH = re.compile(r"-([0-9a-f]{8,})\.")
# Pixels of a side at which the layer behind the first convolution is looked for; any that a network takes would do.
_SMALL = 64


def imagenet_backbone(name: str, image_size: int | None = None) -> tuple[Backbone, str, int]:
    """A backbone with published weights, for frames normalised as ours.

    Args:
        name: One of `BACKBONES`: torchvision's default weights of ImageNet-1k; 'timm/NAME': timm's default ones; 'timm/NAME.TAG': those.
        image_size: Height and width of the views to come; None: as trained.

    Returns:
        The backbone, the file's sha256, and the height and width of the pictures that it was trained on.

    Raises:
        UserError: There are none, they are not here and cannot be downloaded, or the file is not the right one.
    """
    if name.startswith(TIMM):
        config = timm_config(name)
        path, size = _timm_file(name), int(config.input_size[-1])
        first, mean, std = config.first_conv, config.mean, config.std
    else:
        check_backbone(name)
        published = torchvision.models.get_model_weights(name).DEFAULT
        settings = published.transforms()
        path, size = _torchvision_file(name, published.url), 224
        first, mean, std = "conv1", settings.mean, settings.std
    backbone = fitted(read_weights(path)[0], path, name, image_size or size)
    if backbone.name != name:
        raise UserError(path, f"holds a {backbone.name}, and not {name}", "bring the right file")
    network = backbone.network if isinstance(backbone, TimmBackbone) else backbone
    if isinstance(first, str):
        fold_normalisation(network, first, mean, std, image_size or size)
    return backbone, sha256_file(path), size


@torch.no_grad()
def fold_normalisation(network: nn.Module, first: str, mean: Sequence[float], std: Sequence[float], image_size: int = _SMALL) -> bool:
    """Let a network that was trained on (gray - mean) / std see (gray - 0.5) / 0.25 as if it were that, in place.

    With ours x, theirs is s * x + t for each channel: s goes into the weights, and what the weights make of t into the bias, or out of the
    running mean of the BatchNorm that follows. It is exact but for pixels whose receptive field reaches into the zero padding, which stands
    for another gray level then (0.5, and not theirs).

    Args:
        network: In any mode; left in it.
        first: Name of its first convolution.
        mean: Of each channel, of gray levels scaled to 0..1.
        std: Likewise.
        image_size: Height and width of views that it takes.

    Returns:
        Whether it could be: a convolution that normalises its own weights, or has no bias and no BatchNorm behind it, is left as it is.
    """
    layer = network.get_submodule(first)
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or layer.in_channels != len(mean) or "Std" in type(layer).__name__:
        return False
    behind = None if layer.bias is not None else _batch_norm_behind(network, layer, image_size)
    if layer.bias is None and behind is None:
        return False
    means, stds = torch.tensor(mean, dtype=layer.weight.dtype), torch.tensor(std, dtype=layer.weight.dtype)
    scale, shift = PIXEL_STD / stds, (PIXEL_MEAN - means) / stds
    constant = (layer.weight * shift[None, :, None, None]).sum(dim=(1, 2, 3))
    layer.weight.mul_(scale[None, :, None, None])
    if layer.bias is not None:
        layer.bias.add_(constant)
    elif behind is not None and behind.running_mean is not None:
        behind.running_mean.sub_(constant)
    return True


def _batch_norm_behind(network: nn.Module, layer: nn.Conv2d, image_size: int) -> _BatchNorm | None:
    """The BatchNorm that is handed the very output of a layer, where no other module is."""
    outputs: list[torch.Tensor] = []
    takers: list[nn.Module] = []

    def keep(module: nn.Module, inputs: tuple[object, ...], output: torch.Tensor) -> None:
        outputs.append(output)

    def note(module: nn.Module, inputs: tuple[object, ...]) -> None:
        if outputs and inputs and inputs[0] is outputs[0]:
            takers.append(module)

    hooks = [layer.register_forward_hook(keep)]
    # A plain sequence hands on what it is handed, and its first part tells of it.
    hooks += [module.register_forward_pre_hook(note) for module in network.modules() if type(module) is not nn.Sequential]
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()(torch.zeros(1, layer.in_channels, image_size, image_size, dtype=layer.weight.dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    found = takers[0] if len(takers) == 1 else None
    return found if isinstance(found, _BatchNorm) and found.running_mean is not None else None


def _torchvision_file(name: str, url: str) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    return _downloaded(f"imagenet weights of {name}", url, path)


def _timm_file(name: str) -> Path:
    config = timm_config(name)
    subject = f"published weights of {name}"
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if config.hf_hub_id:
        from huggingface_hub import hf_hub_download

        named = config.hf_hub_filename or "model.safetensors"
        brought = folder / f"{config.architecture}.{config.tag}{Path(named).suffix}"
        if brought.is_file():
            return brought
        try:
            return Path(hf_hub_download(config.hf_hub_id, named))
        except OSError as error:
            reason = f"are not on this machine and cannot be downloaded ({' '.join(str(error).split())[:160]})"
            where = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{named}"
            raise UserError(subject, reason, f"bring {where} to {brought} by hand") from None
    if config.url:
        return _downloaded(subject, config.url, folder / Path(config.url).name)
    raise UserError(subject, "are none: timm publishes none for it", "take 'random', or another network")


def _downloaded(subject: str, url: str, path: Path) -> Path:
    """A file at its place, downloaded where it is not there, and checked by the hash in its name where it has one."""
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            reason = f"are not on this machine and cannot be downloaded ({' '.join(str(error).split())[:160]})"
            raise UserError(subject, reason, f"bring {url} to {path} by hand") from None
    wanted = _HASH.search(path.name)
    if wanted and not sha256_file(path).startswith(wanted[1]):
        raise UserError(path, f"is not what it is called: its sha256 does not begin with {wanted[1]}", f"delete it, or bring {url} again")
    return path
