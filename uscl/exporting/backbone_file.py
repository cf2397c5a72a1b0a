"""What a run hands out: the backbone as safetensors, with everything a reader must know in its metadata, and a model card beside it.

The tensors carry the names of the backbone's library, so the file loads strictly into torchvision's (and timm's) ResNet of the same name
once `fc` is left out, or into timm's network. Written at once or not at all; equal weights and facts give equal bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from uscl.backbones import PIXEL_MEAN, PIXEL_STD, Backbone, TimmBackbone
from uscl.config import TIMM
from uscl.models import EXPORTED_BACKBONE
from usdata.files import atomic, sha256_file, write_text

FORMAT_VERSION = 1


def export_backbone(run: Path, backbone: Backbone, facts: dict[str, Any]) -> dict[str, Any]:
    """Write RUN/export/backbone.safetensors and its model card.

    Args:
        run: The run's folder.
        backbone: The trained backbone, on any device.
        facts: `recipe`, `method`, `image_size`, `steps`, `epochs`, `dataset_name`, `dataset_digest`, `splits`, `config_digest`,
            `uscl_version`; all of them go into the metadata as text, beside `backbone`, `channels` and the normalisation.

    Returns:
        What `run.json` says of the export: `file`, `sha256`, `backbone`, `width`, `loads_into`.
    """
    path = run / EXPORTED_BACKBONE
    metadata = {
        "format": "pt",
        "format_version": str(FORMAT_VERSION),
        "backbone": backbone.name,
        "channels": "1 (gray; as 3 equal channels it gives the same)",
        "normalisation": f"gray level / 255, minus {PIXEL_MEAN}, over {PIXEL_STD}",
        **{key: str(value) for key, value in facts.items()},
    }
    state = {key: value.detach().cpu().contiguous() for key, value in backbone.tensors().items()}
    with atomic(path) as temporary:
        temporary.write_bytes(_sorted_header(save(state, metadata=metadata)))
    digest = sha256_file(path)
    write_text(path.parent / "README.md", _model_card(backbone, facts, digest))
    loads_into = f"torchvision.models.{backbone.name} (strictly, but for fc) and timm's {backbone.name}"
    if isinstance(backbone, TimmBackbone):
        loads_into = f"{_timm_call(backbone)} (strictly)"
    return {"file": EXPORTED_BACKBONE, "sha256": digest, "backbone": backbone.name, "width": backbone.width, "loads_into": loads_into}


def _sorted_header(data: bytes) -> bytes:
    """A safetensors file with its metadata in alphabetical order; the library writes them in an order that changes from run to run."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _timm_call(backbone: TimmBackbone) -> str:
    size = f", img_size={backbone.image_size}" if backbone.image_size else ""
    return f'timm.create_model("{backbone.name.removeprefix(TIMM)}", num_classes=0{size})'


def _loading(backbone: Backbone) -> str:
    """The lines of Python that load the file."""
    if isinstance(backbone, TimmBackbone):
        return f"""import timm
from safetensors.torch import load_file

network = {_timm_call(backbone)}
network.load_state_dict(load_file("backbone.safetensors"), strict=True)
"""
    return f"""import torchvision
from safetensors.torch import load_file

network = torchvision.models.{backbone.name}(weights=None)
missing, unexpected = network.load_state_dict(load_file("backbone.safetensors"), strict=False)
assert not unexpected and set(missing) == {{"fc.weight", "fc.bias"}}
"""


def _model_card(backbone: Backbone, facts: dict[str, Any], digest: str) -> str:
    size = facts["image_size"]
    return f"""# {backbone.name} pretrained on ultrasound video

| | |
|---|---|
| method | {facts["method"]} (recipe {facts["recipe"]}) |
| data set | {facts["dataset_name"]}, splits {facts["splits"]} |
| data set digest | `{facts["dataset_digest"]}` |
| steps, epochs | {facts["steps"]}, {facts["epochs"]} |
| configuration digest | `{facts["config_digest"]}` |
| uscl | {facts["uscl_version"]} |
| sha256 of backbone.safetensors | `{digest}` |

Input: gray frames resized to {size}x{size} (aspect ignored), gray level / 255, minus {PIXEL_MEAN}, over {PIXEL_STD}; one channel repeated
three times. Output: {backbone.width} features a frame.

```python
{_loading(backbone)}```

Do not evaluate these weights on videos or patients of the data set above. Not a medical device.
"""
