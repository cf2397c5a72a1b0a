"""Two hashes of one frame, as the manifest keeps them: an exact one of its pixels, and a perceptual one, a 256-bit DCT hash.

The perceptual one names a picture for a person and finds re-encodings of one frame. It does not decide whether two clips are the same
scan: on ultrasound, look-alikes of different patients come as near as 36 bits.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

HASH_SIDE = 16
DCT_SIDE = 64


def fingerprint(pixels: NDArray[np.uint8]) -> str:
    """The 256-bit DCT hash of a gray frame, as 64 hexadecimal digits.

    The frame is shrunk to 64x64 by area averaging; of its two-dimensional DCT-II the 16x16 lowest frequencies are compared with their
    median (the first coefficient, which holds brightness alone, is left out of the median). Zauner, "Implementation and Benchmarking of
    Perceptual Image Hash Functions", 2010.

    Args:
        pixels: (H, W) uint8.
    """
    small = cv2.resize(pixels, (DCT_SIDE, DCT_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:HASH_SIDE, :HASH_SIDE].ravel()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """The contract's pixel_sha256 of a gray frame (H, W)."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}x1\n".encode("ascii"))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def hamming(a: str, b: str) -> int:
    """Number of bits in which two fingerprints differ, 0 to 256."""
    return (int(a, 16) ^ int(b, 16)).bit_count()
