"""The one module that imports torchvision, so that it also works beside a torch that its compiled operators do not fit.

torchvision's published wheel is a CUDA build; beside a CPU build of torch its operators do not load and the plain import stops with
"operator torchvision::nms does not exist". Here the missing schemas are declared first, `nms` gets a CPU kernel in plain torch, and
RoIAlign runs torchvision's own Python version without a compiler. Beside operators that load, nothing is declared and nothing is
replaced. What stays without a kernel (deformable convolution, RoIPool, image files) says so when it is called.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys

import torch

__all__ = ["OPERATORS_DECLARED", "non_maximum_suppression", "torchvision"]

# Everything that torchvision registers a fake kernel for at import time, operators or not.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def non_maximum_suppression(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression: the best box stays, and every box that overlaps it by more than the threshold goes.

    Args:
        boxes: (N, 4), corners x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: Boxes go whose intersection over union with a kept box is greater than this.

    Returns:
        (kept,) int64 rows of `boxes`, best score first; equal scores keep the order of their rows.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    corners = boxes[order]
    if not corners.is_floating_point() or corners.dtype in (torch.float16, torch.bfloat16):
        corners = corners.float()
    x1, y1, x2, y2 = corners.unbind(1)
    areas = (x2 - x1) * (y2 - y1)
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    kept = []
    for row in range(len(order)):
        if not alive[row]:
            continue
        kept.append(row)
        width = (torch.minimum(x2[row], x2[row + 1 :]) - torch.maximum(x1[row], x1[row + 1 :])).clamp(min=0)
        height = (torch.minimum(y2[row], y2[row + 1 :]) - torch.maximum(y1[row], y1[row + 1 :])).clamp(min=0)
        intersection = width * height
        overlap = intersection / (areas[row] + areas[row + 1 :] - intersection)
        alive[row + 1 :] &= ~(overlap > iou_threshold)
    return order[torch.tensor(kept, dtype=torch.long, device=boxes.device)]


def _operators_load() -> bool:
    """Whether torchvision's compiled operators load beside this torch; loads them where they do."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True  # the import below says what is wrong better than we could
    loaders = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    library = importlib.machinery.FileFinder(spec.submodule_search_locations[0], loaders).find_spec("_C")
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(library.origin)
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


def _declare_operators() -> list[torch.library.Library]:
    """Declare the schemas that torchvision's import needs, and give `nms` its kernel. The libraries live as long as they are held."""
    definitions = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS.values():
        definitions.define(schema)
    kernels = torch.library.Library("torchvision", "IMPL", "CPU")
    kernels.impl("nms", non_maximum_suppression)
    return [definitions, kernels]


OPERATORS_DECLARED = "torchvision" not in sys.modules and not _operators_load()
_LIBRARIES = _declare_operators() if OPERATORS_DECLARED else []

import torchvision  # noqa: E402
import torchvision.transforms.v2  # noqa: E402

if OPERATORS_DECLARED:
    _boxes = sys.modules["torchvision.ops.boxes"]
    _roi_align = sys.modules["torchvision.ops.roi_align"]
    # nms first asks for the compiled library as a whole, of which it needs only the kernel given above.
    _boxes._assert_has_ops = lambda: None  # type: ignore[attr-defined]
    # Without operators torchvision compiles its Python RoIAlign, which needs a C++ compiler and half a minute; it runs as it is, too.
    _roi_align._roi_align = getattr(_roi_align._roi_align, "__wrapped__", _roi_align._roi_align)  # type: ignore[attr-defined]
