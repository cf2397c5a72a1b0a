"""A folder from which timm makes a network with its weights: model.safetensors and config.json, as timm itself saves for the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uscl.backbones import PIXEL_MEAN, PIXEL_STD, Backbone, find_timm
from uscl.exporting.backbone_file import metadata_of, timm_call, timm_name
from uscl.exporting.tensor_file import write_tensors
from usdata.errors import UserError
from usdata.files import write_json

TENSORS, CONFIG = "model.safetensors", "config.json"
TOLERANCE = 1e-4


def write_timm(folder: Path, backbone: Backbone, facts: Mapping[str, Any], size: int) -> str:
    """Write both files, load them into timm's network as a check, and return Markdown that says how they are used.

    Raises:
        UserError: timm is not installed, or its network does not take the tensors, or gives other features with them.
    """
    timm = find_timm()
    name = timm_name(backbone)
    write_tensors(folder / TENSORS, backbone.tensors(), metadata_of(backbone, facts))
    config: dict[str, Any] = {
        "architecture": name,
        "num_classes": 0,
        "num_features": backbone.width,
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "mean": [PIXEL_MEAN] * 3,
            "std": [PIXEL_STD] * 3,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "num_classes": 0,
        },
    }
    settings: dict[str, Any] = {"img_size": backbone.image_size} if backbone.image_size else {}
    if settings:
        config["model_args"] = settings
    write_json(folder / CONFIG, config)
    try:
        network = timm.create_model(name, num_classes=0, checkpoint_path=str(folder / TENSORS), **settings)
    except (RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            backbone.name, f"does not load into timm's {name} ({' '.join(str(error).split())[:160]})", "use another timm"
        ) from None
    if (largest := _difference(backbone, network, size)) > TOLERANCE:
        reason = f"gives other features in timm's {name} than here (up to {largest:.2g}, allowed are {TOLERANCE:g})"
        raise UserError(backbone.name, f"{reason}; nothing was written", "use another timm, and report this")
    return f"""```python
import timm

network = {timm_call(backbone, TENSORS)}
network = timm.create_model("local-dir:.", pretrained=True)  # the same, by {CONFIG}
```

What `timm.data.create_transform` makes of {CONFIG} resizes bilinearly, and so comes near and not more."""


def _difference(backbone: Backbone, network: nn.Module, size: int) -> float:
    """The largest difference of the two networks' features of noise, over the largest feature."""
    gray = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    was_training = backbone.training
    with torch.inference_mode():
        ours, theirs = backbone.eval()(gray), network.eval()(gray.repeat(1, 3, 1, 1))
    backbone.train(was_training)
    return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1.0))
