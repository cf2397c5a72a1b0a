"""What stands before and behind a backbone, pixels to normalised frames and the projector, and the loading of its weights.

Weights come from a seed, from a finished run, from what torchvision and timm publish (`uscl.imagenet`), or from a file that `uscl.foreign`
reads. The networks are those of `uscl.backbones`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uscl.backbones import PIXEL_MEAN, PIXEL_STD, Backbone, seeded_backbone
from uscl.config import BACKBONES, TIMM, read_settings
from uscl.foreign import fitted, read_weights
from uscl.imagenet import imagenet_backbone
from uscl.sections import Projector
from usdata.errors import UserError
from usdata.files import sha256_file

# USCL's projection head.
USCL_PROJECTOR = Projector()

EXPORTED_BACKBONE = "export/backbone.safetensors"


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


def named_architecture(word: str) -> tuple[str, str]:
    """'NAME:WEIGHTS' in its parts, where NAME is a backbone; else '' and the word as it is."""
    name, colon, rest = word.partition(":")
    return (name, rest) if colon and (name in BACKBONES or name.startswith(TIMM)) else ("", word)


def load_backbone(
    weights: str | Path, *, name: str = "resnet18", seed: int = 0, image_size: int | None = None
) -> tuple[Backbone, dict[str, Any]]:
    """A backbone and where its weights come from.

    Args:
        weights: 'random' (from the seed), 'imagenet' (what torchvision or timm publish for it, see `uscl.imagenet`), the folder of a
            finished run, or a file of safetensors or torch (.pth, .pt, .bin) with its tensors under the names of its library, as in
            a run's checkpoints, or as in the published USCL checkpoints (see `uscl.foreign`); heads in it are ignored.
        name: The architecture; a file that names its own, or has the tensors of another one of torchvision's, wins.
        seed: Of the random weights.
        image_size: Height and width of the views to come, for networks that are made for one size; positions that were trained at another
            are interpolated as timm does it. None: as trained.

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
        return seeded_backbone(name, seed, image_size).eval(), {**provenance, "seed": seed}
    if str(weights) == "imagenet":
        backbone, digest, size = imagenet_backbone(name, image_size)
        return backbone.eval(), {**provenance, "sha256": digest, "image_size": size}
    path, kind = _weights_file(Path(weights))
    tensors, metadata = read_weights(path)
    metadata = {**_run_of(path), **metadata}
    trained_at = int(metadata["image_size"]) if metadata.get("image_size") else None
    backbone = fitted(tensors, path, metadata.get("backbone", name), image_size or trained_at)
    steps = metadata.get("steps")
    provenance |= {"kind": kind, "backbone": backbone.name, "sha256": sha256_file(path)}
    provenance |= {"image_size": trained_at, "steps": int(steps) if steps else None}
    provenance |= {key: metadata.get(key) for key in ("dataset_digest", "dataset_name", "splits", "recipe")}
    provenance["clips"] = json.loads(metadata["clips"]) if "clips" in metadata else None
    provenance["clips_whole"] = metadata["clips_whole"] == "yes" if "clips_whole" in metadata else None
    return backbone.eval(), provenance


def _weights_file(path: Path) -> tuple[Path, str]:
    """The safetensors file that `weights` means, and whether it is a run's or a plain file."""
    if path.is_dir():
        exported = path / EXPORTED_BACKBONE
        if (path / "dataset.json").is_file():
            raise UserError(path, "is a data set and no weights", "give the folder of a run, a file of weights, 'random' or 'imagenet'")
        if (path / "model.json").is_file():
            advice = "give the weights that it was fitted on, or use it with 'uscl predict'"
            raise UserError(path, "is a classifier made by 'uscl fit', and holds labels besides weights", advice)
        if not exported.is_file():
            advice = "finish it with 'uscl pretrain SET --out RUN --resume', or name a checkpoint's model.safetensors"
            raise UserError(path, f"holds no {EXPORTED_BACKBONE}, so it is no finished run", advice)
        return exported, "run"
    if not path.is_file():
        raise UserError(path, "no such weights", "give the folder of a run, a file of weights (.safetensors, .pth), 'random' or 'imagenet'")
    return path, "file"


def _run_of(path: Path) -> dict[str, str]:
    """What a checkpoint's file in a run's folder does not say itself, where the backbone is none that its tensors' names would tell."""
    config = path.resolve().parents[2] / "config.yaml" if len(path.resolve().parents) > 2 else path
    if path.resolve().parent.parent.name != "checkpoints" or not config.is_file():
        return {}
    settings = read_settings(config.read_text(encoding="utf-8"), str(config))
    found: dict[str, str] = {key: str(value) for key, value in settings.items() if key in ("backbone", "image_size")}
    return found if found.get("backbone", "").startswith(TIMM) else {}
