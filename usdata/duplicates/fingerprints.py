"""A perceptual hash of one frame: a 256-bit DCT hash, kept in the manifest beside the exact pixel hash.

It names a picture for a person and finds re-encodings of one frame. It does not decide whether two clips are the same scan: on ultrasound,
look-alikes of different patients come as near as 36 bits.
"""

from __future__ import annotations

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


def hamming(a: str, b: str) -> int:
    """Number of bits in which two fingerprints differ, 0 to 256."""
    return (int(a, 16) ^ int(b, 16)).bit_count()
