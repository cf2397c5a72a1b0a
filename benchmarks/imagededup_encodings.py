"""imagededup's encodings of stored frames, for benchmarks/duplicates.py, which runs this by an interpreter that has imagededup.

    python benchmarks/imagededup_encodings.py FRAMES.txt OUT.npz [--cnn WEIGHTS]

FRAMES.txt names a picture a line. OUT.npz holds one array a method, a row a picture: 64 bits, or the network's features. imagededup's
network is MobileNet V3 small with torchvision's ImageNet weights, which it downloads; WEIGHTS names that file where there is no network.
"""

from __future__ import annotations

import argparse
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from imagededup.methods import CNN, AHash, DHash, PHash, WHash
from numpy.typing import NDArray
from PIL import Image

HASHES = {"dHash": DHash, "pHash": PHash, "aHash": AHash, "wHash": WHash}


def main() -> None:
    """Encode, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cnn", type=Path, help="torchvision's mobilenet_v3_small-047dcff4.pth")
    given = parser.parse_args()
    paths = given.frames.read_text().split("\n")
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(hashed, paths, chunksize=64))
    found = {name: np.stack([row[name] for row in rows]) for name in HASHES}
    try:
        found["CNN"] = features(paths, given.cnn)
    except OSError as fault:
        print(f"imagededup's network is left out, its weights cannot be had: {fault}")
    np.savez(given.out, **found)


def hashed(path: str) -> dict[str, NDArray[np.uint8]]:
    """One picture's hashes, as bits."""
    hexes = {name: method(verbose=False).encode_image(path) for name, method in HASHES.items()}
    return {name: np.unpackbits(np.frombuffer(bytes.fromhex(text.zfill(16)), np.uint8)) for name, text in hexes.items()}


def features(paths: list[str], weights: Path | None) -> NDArray[np.float32]:
    """The network's features of each picture."""
    if weights is not None:
        import torch

        folder = Path(torch.hub.get_dir()) / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(weights, folder / "mobilenet_v3_small-047dcff4.pth")
    network = CNN(verbose=False)
    return np.concatenate([network.encode_image(image_array=np.asarray(Image.open(path).convert("RGB"))) for path in paths])


if __name__ == "__main__":
    main()
