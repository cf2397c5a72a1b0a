"""A backbone, and a linear head where there is one, as an ONNX graph that takes gray levels as they come.

In: a network. Out: a file with the normalisation inside the graph and a batch of any size, compared with the network in ONNX Runtime before
it is given its name. Nothing in it tells of the machine it was made on; equal weights give equal bytes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from uscl.backbones import PIXEL_MEAN, PIXEL_STD, Backbone
from uscl.exporting.model_card import resizing_told
from usdata.errors import UserError
from usdata.files import atomic

OPSET = 18
# The largest difference to torch that is let through, relative to the largest value: float32 sums in another order give about 1e-6.
TOLERANCE = 1e-4
RANDOM_FRAMES = 5
BATCH_NAME = "batch"


class Graph(nn.Module):
    """What is exported: gray levels 0 to 255 (N, 1, H, W) to features (N, D), and probabilities (N, C) where there is a head."""

    def __init__(self, backbone: Backbone, head: nn.Linear | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, frames: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Features, and probabilities."""
        features = self.backbone((frames.float() / 255 - PIXEL_MEAN) / PIXEL_STD)
        return features if self.head is None else (features, self.head(features).softmax(1))


def find_onnx() -> tuple[ModuleType, ModuleType]:
    """onnx and onnxruntime, which are an extra.

    Raises:
        UserError: One of them, or onnxscript, is not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ModuleNotFoundError as error:
        raise UserError("--format onnx", f"needs {error.name}, which is not installed", "pip install 'usdata-uscl[onnx]'") from None
    return onnx, onnxruntime


def write_onnx(
    path: Path,
    backbone: Backbone,
    head: nn.Linear | None,
    *,
    size: int,
    input_type: str,
    frames: NDArray[np.uint8],
    metadata: Mapping[str, str],
) -> float:
    """Write the graph, if ONNX Runtime makes of it what torch makes of the network.

    Args:
        path: The file.
        backbone: In evaluation mode, on the CPU.
        head: Logits of the classes; None: features alone.
        size: Height and width of a frame.
        input_type: 'uint8' or 'float32', both 0 to 255.
        frames: (n, size, size) real frames to compare on, beside random ones; n may be 0.
        metadata: Go into the file.

    Returns:
        The largest difference that was found, relative to the largest value.

    Raises:
        UserError: onnx is not installed, the network cannot be exported, or the difference is too large.
    """
    onnx, _ = find_onnx()
    graph = Graph(backbone, head).eval()
    dtype = torch.uint8 if input_type == "uint8" else torch.float32
    names = ["features"] if head is None else ["features", "probabilities"]
    example = torch.zeros(2, 1, size, size, dtype=dtype)  # torch takes a batch of one for a constant
    talk = logging.getLogger("torch.onnx").level
    try:
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about the exporter's own insides
            program = torch.onnx.export(
                graph,
                (example,),
                None,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["frames"],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim(BATCH_NAME)},),
                external_data=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        reason = f"cannot be exported to ONNX ({' '.join(str(error).split())[:160]})"
        raise UserError(backbone.name, reason, "take another format") from None
    finally:
        logging.getLogger("torch.onnx").setLevel(talk)
    model = program.model_proto if program is not None else None
    assert model is not None  # only an export straight into a file gives none
    _strip(model)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model)
    with atomic(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        return _largest_difference(temporary, graph, size, input_type, frames, backbone.name)


def _strip(model: Any) -> None:
    """Take out what the exporter notes of its own sources: where they lie on this machine, and the lines that made each node."""
    model.doc_string = ""
    graphs = [model.graph, *model.functions]
    model.graph.doc_string = ""
    for graph in graphs:
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_NAME


def _largest_difference(path: Path, graph: Graph, size: int, input_type: str, frames: NDArray[np.uint8], subject: str) -> float:
    """Between ONNX Runtime and torch, on random frames alone and together, and on real ones."""
    _, runtime = find_onnx()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0).integers(0, 256, (RANDOM_FRAMES, size, size), dtype=np.uint8)
    largest = 0.0
    for batch in (random, random[:1], frames):
        if not len(batch):
            continue
        given = batch[:, None].astype(input_type)
        with torch.inference_mode():
            expected = graph(torch.from_numpy(given))
        expected = expected if isinstance(expected, tuple) else (expected,)
        for found, wanted in zip(session.run(None, {"frames": given}), expected, strict=True):
            target = wanted.numpy()
            largest = max(largest, float(np.abs(found - target).max() / max(1.0, float(np.abs(target).max()))))
    if not largest <= TOLERANCE:
        reason = f"gives other values in ONNX Runtime than in torch (up to {largest:.2g}, allowed are {TOLERANCE:g})"
        raise UserError(subject, reason, "take another format; nothing was written")
    return largest


def onnx_usage(file: str, input_type: str, size: int, classes: list[str] | None) -> str:
    """Markdown that says how the file is used."""
    outputs = "features" if classes is None else "features, probabilities"
    told = f"\n\nThe probabilities are of, in this order: {', '.join(f'`{name}`' for name in classes)}." if classes else ""
    return f"""```python
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
{outputs}{"," if classes is None else ""} = session.run(None, {{"frames": frames}})
```

`frames` are (N, 1, {size}, {size}) {input_type}: gray, levels from 0 to 255, resized to {size} x {size} ({resizing_told(size)}); any number
of them at a time. The graph normalises them.{told}"""
