"""The work of a view against the arithmetic written out, and peaks against products of matrices timed here."""

from __future__ import annotations

import copy
import time

import numpy as np
import pytest
import torch

from uscl.backbones import seeded_backbone
from uscl.utilisation import Capacity, capacity, known_peak, operations_per_view, peak_memory_mb, peak_operations_per_s


def resnet18_multiplications(size: int) -> tuple[int, int]:
    """Multiplications of a forward pass of ResNet-18 on one gray view, and those of its first convolution, layer by layer."""

    def convolution(channels_in: int, channels_out: int, kernel: int, side: int) -> int:
        return channels_in * channels_out * kernel**2 * side**2

    side = size // 2
    first = convolution(1, 64, 7, side)
    total, side, width = first, side // 2, 64
    for stage in range(4):
        before, width = width, 64 * 2**stage
        if stage:
            side //= 2
            total += convolution(before, width, 1, side)
        total += convolution(before, width, 3, side) + 3 * convolution(width, width, 3, side)
    return total, first


@pytest.mark.parametrize("size", [64, 224])
def test_a_views_operations_are_the_layers_sums(size: int) -> None:
    backbone = seeded_backbone("resnet18", 0)
    total, first = resnet18_multiplications(size)
    assert operations_per_view(backbone, size, backward=False) == 2 * total
    # Backward is two products of the same size for each layer, but the first, whose input needs no gradient, has one.
    assert operations_per_view(backbone, size) == 2 * (3 * total - first)


def test_counting_changes_nothing() -> None:
    backbone = seeded_backbone("resnet18", 0).eval()
    before, generator = copy.deepcopy(backbone.state_dict()), torch.get_rng_state()
    capacity(backbone, 32, torch.device("cpu"), "float32")
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert not backbone.training
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_the_measured_peak_is_that_of_a_matrix_product() -> None:
    device = torch.device("cpu")
    peak = peak_operations_per_s(device, "float32", torch.get_num_threads())
    assert peak is not None
    left, right = np.ones((2, 768, 768), dtype=np.float32)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - began)
    # Another library and another size, on a machine that does other things too: the order of magnitude must be the same.
    assert 0.05 < peak / (2 * 768**3 / best) < 20
    assert peak_operations_per_s(torch.device("meta"), "float32", 1) is None


def test_peaks_of_data_sheets() -> None:
    assert known_peak("NVIDIA H200", "bfloat16") == 989.5e12
    assert known_peak("NVIDIA H100 80GB HBM3", "float32") == 494.7e12
    assert known_peak("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert known_peak("NVIDIA A100-SXM4-80GB", "bfloat16") == 312e12
    assert known_peak("NVIDIA RTX A1000 Laptop GPU", "bfloat16") is None


def test_what_a_line_says() -> None:
    read = Capacity(torch.device("cpu"), 1e10, 4e11).read(20)
    assert read["utilisation"] == 0.5
    assert Capacity(torch.device("cpu"), 1e10, None).read(20)["utilisation"] is None
    before = peak_memory_mb(torch.device("cpu"))
    held = np.ones(200_000_000, dtype=np.uint8)
    # The peak may have been higher than now before, but never lies below what is held.
    assert peak_memory_mb(torch.device("cpu")) >= max(before, held.nbytes / 1e6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_of_a_gpu_is_what_torch_allocated() -> None:
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats(device)
    held = torch.empty(50_000_000, dtype=torch.uint8, device=device)
    assert peak_memory_mb(device) >= held.nbytes / 1e6
    assert capacity(seeded_backbone("resnet18", 0), 32, device, "bfloat16").operations_per_view > 0
