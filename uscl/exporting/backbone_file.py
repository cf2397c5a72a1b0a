"""A backbone as safetensors, with everything a reader must know in its metadata, and a model card beside it: what a run hands out.

The tensors carry the names of the backbone's library, so the file loads strictly into torchvision's (and timm's) ResNet of the same name
once `fc` is left out, or into timm's network. Written at once or not at all; equal weights and facts give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uscl.backbones import PIXEL_MEAN, PIXEL_STD, Backbone, TimmBackbone
from uscl.config import TIMM
from uscl.exporting.model_card import backbone_card, frames_told
from uscl.exporting.tensor_file import write_tensors
from uscl.models import EXPORTED_BACKBONE
from usdata.files import sha256_file, write_text

FORMAT_VERSION = 1


def export_backbone(run: Path, backbone: Backbone, facts: dict[str, Any]) -> dict[str, Any]:
    """Write RUN/export/backbone.safetensors and its model card.

    Args:
        run: The run's folder.
        backbone: The trained backbone, on any device.
        facts: `recipe`, `method`, `image_size`, `steps`, `epochs`, `dataset_name`, `dataset_digest`, `splits`, `config_digest`,
            `uscl_version`, and as JSON `training_data` and `settings`; all of them go into the metadata as text, beside `backbone`,
            `channels` and the normalisation.

    Returns:
        What `run.json` says of the export: `file`, `sha256`, `backbone`, `width`, `loads_into`.
    """
    path = run / EXPORTED_BACKBONE
    write_tensors(path, backbone.tensors(), metadata_of(backbone, facts))
    digest = sha256_file(path)
    usage = f"{torchvision_usage(backbone, path.name)}\n\n{frames_told(facts)}"
    write_text(path.parent / "README.md", backbone_card(card_facts(backbone, facts), usage, {path.name: digest}))
    loads_into = f"torchvision.models.{backbone.name} (strictly, but for fc) and timm's {backbone.name}"
    if isinstance(backbone, TimmBackbone):
        loads_into = f"{timm_call(backbone)} (strictly)"
    return {"file": EXPORTED_BACKBONE, "sha256": digest, "backbone": backbone.name, "width": backbone.width, "loads_into": loads_into}


def metadata_of(backbone: Backbone, facts: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a file with a backbone's tensors; a fact that is None is left out."""
    return {
        "format_version": str(FORMAT_VERSION),
        "backbone": backbone.name,
        "channels": "1 (gray; as 3 equal channels it gives the same)",
        "normalisation": f"gray level / 255, minus {PIXEL_MEAN}, over {PIXEL_STD}",
        **{key: str(value) for key, value in facts.items() if value is not None},
    }


def card_facts(backbone: Backbone, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of a backbone."""
    return {**facts, "backbone": backbone.name, "width": backbone.width}


def timm_name(backbone: Backbone) -> str:
    """What timm calls the network; torchvision's ResNets have the same names and tensors there."""
    return backbone.name.removeprefix(TIMM)


def timm_call(backbone: Backbone, file: str | None = None) -> str:
    """The line of Python by which timm makes the network, with the weights of a file where one is named."""
    size = f", img_size={backbone.image_size}" if backbone.image_size else ""
    read = f', checkpoint_path="{file}"' if file else ""
    return f'timm.create_model("{timm_name(backbone)}", num_classes=0{size}{read})'


def torchvision_usage(backbone: Backbone, file: str) -> str:
    """Markdown with the lines of Python that load a file of safetensors into the network of the backbone's own library."""
    if isinstance(backbone, TimmBackbone):
        return f"""```python
import timm
from safetensors.torch import load_file

network = {timm_call(backbone)}
network.load_state_dict(load_file("{file}"), strict=True)
```"""
    return f"""```python
import torchvision
from safetensors.torch import load_file

network = torchvision.models.{backbone.name}(weights=None)
missing, unexpected = network.load_state_dict(load_file("{file}"), strict=False)
assert not unexpected and set(missing) == {{"fc.weight", "fc.bias"}}
```"""
