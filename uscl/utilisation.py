"""How much of the machine a run uses: its arithmetic against what the processor can do at most, and its memory.

In come a backbone, the size of a view, a device and a precision; out come shares and megabytes for metrics.jsonl. The work is counted on
tensors without data, so nothing is computed, changed or drawn; the peak of a CPU is measured once a process, that of a GPU is its maker's.
"""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from uscl.backbones import Backbone, make_backbone

# Dense peaks in 10^12 operations a second, from NVIDIA's data sheets: bfloat16, and TF32, in which cuDNN convolves float32. The first name
# that the device's name holds as a word counts, so special models stand before their family.
_GPU_PEAKS = (
    ("B200", 2250.0, 1125.0),
    ("H200", 989.5, 494.7),
    ("H100 NVL", 835.5, 417.5),
    ("H100 PCIe", 756.0, 378.0),
    ("H100", 989.5, 494.7),
    ("A100", 312.0, 156.0),
    ("L40S", 362.0, 183.0),
    ("L40", 181.0, 90.5),
    ("L4", 121.0, 60.0),
    ("A10G", 70.0, 35.0),
    ("A10", 125.0, 62.5),
    ("RTX A6000", 154.8, 77.4),
)
# Side of the square matrices, and how many products of them: about a second on one slow core. The best of them is the peak.
_MATRIX_SIDE, _PRODUCTS = 1024, 6


@dataclass(frozen=True)
class Capacity:
    """What a step costs and what the device could do.

    Attributes:
        device: Where the network runs.
        operations_per_view: Floating-point operations of one view, forward and backward through the backbone.
        peak_operations_per_s: Of the device in the run's precision; None where it is not known.
    """

    device: torch.device
    operations_per_view: float
    peak_operations_per_s: float | None

    def read(self, views_per_s: float) -> dict[str, float | None]:
        """What a line of metrics.jsonl says: `utilisation` and `peak_memory_mb`.

        Utilisation is the share of the peak that the backbone's own work makes at this rate, one forward and backward a view and nothing
        else; None where the peak is not known. A CPU's peak was measured while other programs ran, so it can come out above 1.
        """
        peak = self.peak_operations_per_s
        return {
            "utilisation": None if peak is None else round(views_per_s * self.operations_per_view / peak, 4),
            "peak_memory_mb": round(peak_memory_mb(self.device), 1),
        }


def capacity(backbone: Backbone, image_size: int, device: torch.device, precision: str) -> Capacity:
    """Count a view's operations, and look up or measure the device's peak.

    Args:
        backbone: Of any weights, on any device; left as it is.
        image_size: Height and width of a view in pixels.
        device: Where the network runs.
        precision: float32 or bfloat16.
    """
    return Capacity(device, operations_per_view(backbone, image_size), peak_operations_per_s(device, precision, torch.get_num_threads()))


def operations_per_view(backbone: Backbone, image_size: int, *, backward: bool = True) -> float:
    """Floating-point operations of convolutions and matrix products for one gray view; an addition and a multiplication are two."""
    # Two views, because BatchNorm refuses to train on a single value a channel.
    with torch.device("meta"):  # a fresh one: layers that exchange statistics between processes run on their own device alone
        network = make_backbone(backbone.name, image_size).train()
    with torch.set_grad_enabled(backward), FlopCounterMode(display=False) as counter:
        features = network(torch.empty(2, 1, image_size, image_size, device="meta"))
        if backward:
            features.sum().backward()
    return counter.get_total_flops() / 2


def peak_operations_per_s(device: torch.device, precision: str, threads: int) -> float | None:
    """The most operations a second: of a CPU the best of a few large matrix products with so many threads, of a GPU its data sheet's."""
    if device.type == "cuda":
        return known_peak(torch.cuda.get_device_name(device), precision)
    return _measured_peak(precision, threads) if device.type == "cpu" else None


def known_peak(name: str, precision: str) -> float | None:
    """The data sheet's dense peak of a GPU by its name, in operations a second; None where it is not in our table."""
    for known, bfloat16, tf32 in _GPU_PEAKS:
        if re.search(rf"\b{known}\b", name):
            return 1e12 * (bfloat16 if precision == "bfloat16" else tf32)
    return None


@cache
def _measured_peak(precision: str, threads: int) -> float:
    """`threads` is what torch computes with anyway; it is here because another number has another peak."""
    matrix = torch.ones(_MATRIX_SIDE, _MATRIX_SIDE, dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)
    best = float("inf")
    for _ in range(_PRODUCTS):
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        best = min(best, time.perf_counter() - began)
    return 2 * _MATRIX_SIDE**3 / best


def peak_memory_mb(device: torch.device) -> float:
    """The most memory so far, in 10^6 bytes: on a GPU what torch has allocated there, else what the process has held resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    import resource  # Windows has none; this package is for POSIX systems

    # Linux counts in kibibytes, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
