"""What a frozen backbone sees: pooled features, or the activations before the layers that are to be trained.

In: a backbone, a frame store's pixels, row numbers. Out: one row a frame, in the order of the row numbers. BatchNorm runs in evaluation
mode and the whole frame is used, without augmentation, so a frame's row depends on the frame and the weights alone. Pooled features are
computed once for all folds, seeds and evaluations (`feature_files`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from uscl.backbones import Backbone, ResNet
from uscl.evaluation.feature_files import read_features, write_features
from uscl.frames import FrameStore
from uscl.models import normalise
from usdata.console import progress
from usdata.files import canonical_json

BATCH = 128
KEPT_IN_MEMORY = 4

_CACHE: OrderedDict[str, NDArray[np.float32]] = OrderedDict()


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
    """(n, width) features of the frames at `rows`, from memory or from beside the frame store where the same were computed before.

    Args:
        backbone: Any weights; is put into evaluation mode.
        store: Decoded frames.
        rows: (n,) row numbers of `store.pixels`.
        name: What the progress line calls the weights.
    """
    about = {
        "weights_sha256": weights_digest(backbone),
        "store_sha256": store.sha256,
        "image_size": store.size,
        "rows_sha256": hashlib.sha256(rows.tobytes()).hexdigest(),
        # Other kernels round otherwise.
        "device": choose_device().type,
        "torch": torch.__version__,
        "shape": [len(rows), backbone.width],
    }
    key = canonical_json(about)
    if key not in _CACHE:
        found = read_features(store.path.parent, about)
        if found is None:
            found = _forward(backbone, store, rows, lambda frames: backbone(frames).float(), name).numpy()
            write_features(store.path.parent, about, found)
        _CACHE[key] = found
        while len(_CACHE) > KEPT_IN_MEMORY:
            _CACHE.popitem(last=False)
    _CACHE.move_to_end(key)
    return _CACHE[key]


def frozen_activations(backbone: ResNet, store: FrameStore, rows: NDArray[np.int64], *, blocks: int, name: str) -> torch.Tensor:
    """(n, channels, h, w) float16 activations behind so many blocks of the last residual stage, on the CPU.

    Half precision halves the memory (before the stage 200 MB a thousand frames of 224 x 224 in single precision, before its last block
    100 MB) and rounds to three decimal digits.
    """
    stage = backbone.layer4
    assert isinstance(stage, torch.nn.Sequential)
    return _forward(backbone, store, rows, lambda frames: stage[:blocks](backbone.forward_to_layer3(frames)).half(), name)


def _forward(
    backbone: Backbone, store: FrameStore, rows: NDArray[np.int64], see: Callable[[torch.Tensor], torch.Tensor], name: str
) -> torch.Tensor:
    device = choose_device()
    backbone.to(device).eval()
    parts = []
    with torch.inference_mode(), progress(f"extracting features of {name}", len(rows), "frames") as advance:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            parts.append(see(normalise(torch.from_numpy(store.pixels[batch]).to(device))).cpu())
            advance(len(batch))
    return torch.cat(parts).clone()
