"""Weights that others saved: read by safe loaders only, and their tensors put under a backbone's names where it is certain which is which.

In comes a file of safetensors or of torch (.pth, .pt, .bin); out come tensors under the names of a backbone, or one line that names the
tensor that does not fit. No program in a file is ever run: what holds more than tensors is refused.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from uscl.backbones import Backbone, TimmBackbone, make_backbone, seeded_backbone
from uscl.config import BACKBONES
from usdata.errors import UserError

Tensors = dict[str, torch.Tensor]
Shapes = Mapping[str, torch.Size]

# How zip files (torch since 1.6) and pickles (torch before) begin.
_TORCH_BEGINS = (b"PK\x03\x04", b"\x80")
_LONGEST_HEADER = 100_000_000
# Under which key training programs keep the weights of what they trained.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
# What stands before the backbone's names where it is part of a larger network: this project's own and lightly's (backbone), and the usual
# names of an encoder (encoder; MoCo's encoder_q, the one that gradients train). torch's parallel wrappers add theirs in front of it all.
_PREFIXES = ("", "backbone.", "backbone.network.", "encoder.", "encoder_q.", "model.", "net.", "resnet.")
_PARALLEL = "module."
# The published USCL checkpoints: the children of a torchvision ResNet in order, without its last one, as `features`; ReLU (2) and pooling
# (3, 8) hold no tensors. Their heads, which no backbone needs, are set aside.
_USCL_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_USCL_HEADS = ("linear", "fc", "l1", "l2", "out_1", "out_2")
_USCL_NAME = re.compile(r"features\.(\d+)\.(.+)")
# torchvision's classifier, and that of timm's ResNets.
_HEADS = ("fc.",)
# BatchNorm counts its batches since torch 0.4.1; older files lack the counts, which nothing in evaluation reads.
_COUNTER = "num_batches_tracked"


def read_weights(path: Path) -> tuple[Tensors, dict[str, str]]:
    """The tensors of a file, and what it says of itself (of safetensors alone).

    Raises:
        UserError: It cannot be read, holds something else than tensors, or would run a program.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})", "check the permissions and the disk") from None
    if not _begins_as_safetensors(begin) and begin.startswith(_TORCH_BEGINS):
        return _tensors(_read_torch(path), path), {}
    return _read_safetensors(path)


def _begins_as_safetensors(begin: bytes) -> bool:
    """Eight bytes hold the length of the header, at most 100 MB, and the header begins with '{'; any first byte may be among them."""
    return int.from_bytes(begin[:8], "little") <= _LONGEST_HEADER and begin[8:] == b"{"


def fitted(tensors: Tensors, path: Path, name: str, image_size: int | None = None) -> Backbone:
    """A backbone with the tensors of a file.

    Args:
        tensors: Of the file.
        path: Of it, for messages.
        name: The backbone that is wanted; where the tensors are those of another one of torchvision's, it is that one.
        image_size: Height and width of views, for networks that are made for one size.

    Raises:
        UserError: They are no such backbone, or which of them are is not certain.
    """
    wanted = seeded_backbone(name, 0, image_size)
    shapes: dict[str, Shapes] = {name: {key: value.shape for key, value in wanted.tensors().items()}}
    shapes |= {other: _shapes(other) for other in BACKBONES if other != name}
    if isinstance(wanted, TimmBackbone):
        found, state = fit(tensors, path, shapes, name, heads=wanted.heads(), resize=wanted.resized)
    else:
        found, state = fit(tensors, path, shapes, name)
    backbone = wanted if found == name else seeded_backbone(found, 0)
    backbone.load_tensors(state)
    return backbone


@cache
def _shapes(name: str) -> Shapes:
    """The names and shapes of a backbone's tensors; nothing is computed."""
    with torch.device("meta"):
        return {key: value.shape for key, value in make_backbone(name).tensors().items()}


def fit(
    tensors: Tensors,
    path: Path,
    shapes: Mapping[str, Shapes],
    name: str,
    *,
    heads: tuple[str, ...] = _HEADS,
    resize: Callable[[Tensors], Tensors] | None = None,
) -> tuple[str, Tensors]:
    """The tensors of a backbone among those of a file, under the backbone's names.

    Args:
        tensors: Of the file.
        path: Of it, for messages.
        shapes: Of every known backbone, by name.
        name: The backbone that is wanted. Where the names of another one fit, and this one's do not, it is the other.
        heads: How the names of its classifier's tensors begin, which are passed over.
        resize: Brings tensors of it that were made for another size of views to the right one.

    Returns:
        The backbone's name and its tensors, all of them but BatchNorm's counters where the file has none.

    Raises:
        UserError: They are no such backbone, or which of them are is not certain.
    """
    if tensors and all(key.startswith(_PARALLEL) for key in tensors):
        tensors = {key.removeprefix(_PARALLEL): value for key, value in tensors.items()}
    candidates = _candidates(tensors, path, (*_HEADS, *heads))
    for known in (name, *(other for other in shapes if other != name)):
        fitting = [prefix for prefix, state in candidates.items() if _first_difference(state, shapes[known]) is None]
        if len(fitting) > 1:
            which = ", ".join(f"'{prefix}'" for prefix in fitting)
            raise UserError(path, f"holds more than one {known} (under {which})", "save the tensors of one of them alone")
        if fitting:
            state = {key: value for key, value in candidates[fitting[0]].items() if key in shapes[known]}
            if resize is not None and known == name:
                state = resize(state)
            _check_values(state, shapes[known], known, path)
            return known, state
    likeliest = max(candidates.values(), key=lambda state: len(state.keys() & shapes[name].keys()))
    key = _first_difference(likeliest, shapes[name])
    what = "lacks" if key in shapes[name] else "has the unknown"
    of = "" if "/" in name else " of torchvision"
    raise UserError(path, f"is no {name}{of}: it {what} tensor '{key}'", f"known backbones: {', '.join(shapes)}")


def _candidates(tensors: Tensors, path: Path, heads: tuple[str, ...]) -> dict[str, Tensors]:
    """What might be the backbone: the tensors under each prefix, without the classifier that may follow."""
    candidates = {}
    for prefix in _PREFIXES:
        under = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        under = {key.removeprefix(_PARALLEL) if prefix else key: value for key, value in under.items()}
        if under:
            candidates[prefix] = {key: value for key, value in under.items() if not key.startswith(heads)}
    if any(_USCL_NAME.fullmatch(key) for key in tensors):
        candidates["features."] = _from_uscl(tensors, path)
    return candidates or {"": {}}


def _from_uscl(tensors: Tensors, path: Path) -> Tensors:
    """The backbone of a published USCL checkpoint."""
    state: Tensors = {}
    for key, value in tensors.items():
        match = _USCL_NAME.fullmatch(key)
        if match and match[1] in _USCL_CHILDREN:
            state[f"{_USCL_CHILDREN[match[1]]}.{match[2]}"] = value
        elif key.partition(".")[0] not in _USCL_HEADS:
            advice = f"a USCL checkpoint has features.0 to features.7 and the heads {', '.join(_USCL_HEADS)}"
            raise UserError(path, f"looks like a USCL checkpoint, but has the unknown tensor '{key}'", advice)
    return state


def _first_difference(state: Tensors, shapes: Shapes) -> str | None:
    """The first name that is in one and not in the other; those that are lacking come first."""
    different = [*sorted(shapes.keys() - state.keys()), *sorted(state.keys() - shapes.keys())]
    return next((key for key in different if not key.endswith(_COUNTER)), None)


def _check_values(state: Tensors, shapes: Shapes, name: str, path: Path) -> None:
    for key, value in state.items():
        if value.shape != shapes[key]:
            text = f"tensor '{key}' is {tuple(value.shape)} where {name} has {tuple(shapes[key])}"
            raise UserError(path, text, "its names are those of this backbone; its sizes are of another one")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(path, f"tensor '{key}' holds values that are not finite", "these weights come from a training that failed")


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = f"is no readable safetensors file, nor one of torch ({error})"
        raise UserError(path, reason, "give weights as .safetensors, or as torch.save of a state_dict") from None


def _read_torch(path: Path) -> Any:
    try:
        # Opened here: of a path torch goes by the ending, not by the content.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle's protocol and TorchScript: the error says what matters of that
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        text = str(error)
    named = re.search(r"GLOBAL (\S+)", text)
    if named or "Unsupported" in text or "TorchScript" in text:
        what = "a TorchScript archive" if "TorchScript" in text else "instructions of pickle that torch does not allow"
        what = named[1] if named else what
        reason = f"holds more than tensors ({what}), so it was not loaded: that could run a program"
        advice = "where you trust its origin, load it there and torch.save its state_dict() alone, or save that as safetensors"
        raise UserError(path, reason, advice)
    # torch's texts about a file that is cut short are about its own insides.
    raise UserError(path, "is no readable checkpoint of torch", "is it whole? compare its size with that at its source")


def _tensors(loaded: Any, path: Path) -> Tensors:
    """The state dict in what torch loaded, out of the wrappers of training programs."""
    for _ in range(2):
        if isinstance(loaded, Mapping) and not _is_state(loaded):
            wrapper = next((key for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
            if wrapper is None:
                break
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise UserError(path, f"holds a {type(loaded).__name__} and no state dict", "torch.save the state_dict() of the network")
    if not _is_state(loaded):
        strange = next((key for key, value in loaded.items() if not isinstance(value, torch.Tensor)), "nothing")
        text = f"holds no state dict: '{strange}' is no tensor, and there is none of {_listed(_WRAPPERS)}"
        raise UserError(path, text, "torch.save the state_dict() of the network")
    # A tensor may be a view of a larger one, or a parameter.
    return {str(key): value.detach() for key, value in loaded.items()}


def _is_state(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(isinstance(tensor, torch.Tensor) for tensor in value.values())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
