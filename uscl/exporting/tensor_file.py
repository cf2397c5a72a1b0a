"""Tensors as a safetensors file whose bytes depend on the tensors and the metadata alone; written at once or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from usdata.files import atomic


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; `format` is added to its metadata, which torch's and timm's readers ask for."""
    state = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic(path) as temporary:
        temporary.write_bytes(_sorted_header(save(state, metadata={"format": "pt", **metadata})))


def _sorted_header(data: bytes) -> bytes:
    """A safetensors file with its metadata in alphabetical order; the library writes them in an order that changes from run to run."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
