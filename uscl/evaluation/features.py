"""What a frozen backbone sees: pooled features, or the activations before its last residual stage.

In: a backbone, a frame store's pixels, row numbers. Out: one row a frame, in the order of the row numbers. BatchNorm runs in evaluation
mode and the whole frame is used, without augmentation, so a frame's row depends on the frame and the weights alone.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from uscl.backbones import Backbone, ResNet
from uscl.frames import FrameStore
from uscl.models import normalise
from usdata.console import progress

BATCH = 128
KEPT_IN_MEMORY = 4

_CACHE: OrderedDict[tuple[str, str, int, str], NDArray[np.float32]] = OrderedDict()


def choose_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def weights_digest(backbone: Backbone) -> str:
    """The sha256 over a backbone's parameters and BatchNorm statistics, by name."""
    digest = hashlib.sha256(backbone.name.encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def pooled_features(backbone: Backbone, store: FrameStore, rows: NDArray[np.int64], *, name: str) -> NDArray[np.float32]:
    """(n, width) features of the frames at `rows`; the last few results stay in memory for a second evaluation in the same process.

    Args:
        backbone: Any weights; is put into evaluation mode.
        store: Decoded frames.
        rows: (n,) row numbers of `store.pixels`.
        name: What the progress line calls the weights.
    """
    key = (weights_digest(backbone), store.sha256, store.size, hashlib.sha256(rows.tobytes()).hexdigest())
    if key not in _CACHE:
        _CACHE[key] = _forward(backbone, store, rows, "pooled", name).numpy()
        while len(_CACHE) > KEPT_IN_MEMORY:
            _CACHE.popitem(last=False)
    _CACHE.move_to_end(key)
    return _CACHE[key]


def layer3_activations(backbone: ResNet, store: FrameStore, rows: NDArray[np.int64], *, name: str) -> torch.Tensor:
    """(n, channels, size / 16, size / 16) float16 activations that the last residual stage starts from, on the CPU.

    Half precision halves the memory (200 MB a thousand frames of 224 x 224 in single precision) and rounds to three decimal digits.
    """
    return _forward(backbone, store, rows, "layer3", name)


def _forward(backbone: Backbone, store: FrameStore, rows: NDArray[np.int64], what: Literal["pooled", "layer3"], name: str) -> torch.Tensor:
    device = choose_device()
    backbone.to(device).eval()
    parts = []
    with torch.inference_mode(), progress(f"extracting features of {name}", len(rows), "frames") as advance:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            frames = normalise(torch.from_numpy(store.pixels[batch]).to(device))
            if what == "pooled":
                parts.append(backbone(frames).float().cpu())
            else:
                assert isinstance(backbone, ResNet)
                parts.append(backbone.forward_to_layer3(frames).half().cpu())
            advance(len(batch))
    return torch.cat(parts).clone()
