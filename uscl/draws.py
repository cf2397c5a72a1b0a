"""Counter-based randomness: every random number is a pure function of (seed, stream, epoch, item, view, position).

No generator is kept and none needs saving: the order in which numbers are asked for, the number of workers, and restarts change nothing.
The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011), vectorised in numpy and
checked against the known answers of its authors' Random123.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from scipy import special

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
ROUNDS = 10


class Stream(IntEnum):
    """What a number is drawn for; draws of different streams are independent."""

    ORDER = 1
    FRAMES = 2
    MIXING = 3
    AUGMENT = 4
    LABELS = 16


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32 with ten rounds.

    Args:
        counter: (..., 4) words of 32 bits, as any unsigned integers.
        key: Two words of 32 bits.

    Returns:
        (..., 4) uint32.
    """
    c0, c1, c2, c3 = (counter[..., word].astype(np.uint64) for word in range(4))
    k0, k1 = key
    for _ in range(ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def uniform(seed: int, *, stream: int, epoch: int, item: np.ndarray, view: int = 0, draws: int) -> np.ndarray:
    """Uniform numbers in [0, 1) with 53 bits each.

    Args:
        seed: 0 to 2^64 - 1.
        stream: What the numbers are for (see `Stream`), 0 to 65535.
        epoch: 0 to 2^32 - 1.
        item: (items,) whole numbers, 0 to 2^32 - 1: the videos.
        view: Which view of the item, 0 to 65535.
        draws: Numbers an item.

    Returns:
        (items, draws) float64. Row i depends on `item[i]` alone, and asking for more draws leaves the first ones as they were.
    """
    item = np.asarray(item, dtype=np.uint64)
    blocks = (draws + 1) // 2
    counter = np.empty((len(item), blocks, 4), dtype=np.uint64)
    counter[..., 0] = np.arange(blocks, dtype=np.uint64)
    counter[..., 1] = item[:, None]
    counter[..., 2] = epoch
    counter[..., 3] = stream << 16 | view
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)).reshape(len(item), 2 * blocks, 2)
    high, low = words[..., 0] >> 5, words[..., 1] >> 6
    return (high * 67108864.0 + low)[:, :draws] / 9007199254740992.0


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of n items in an epoch: (n,) int64, every item once."""
    return np.argsort(uniform(seed, stream=Stream.ORDER, epoch=epoch, item=np.arange(n), draws=1)[:, 0], kind="stable")


def beta(u: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Beta(alpha, beta) numbers from uniform ones, by the inverse of the distribution function.

    Beta(0.5, 0.5), the arcsine law, has the closed form sin^2(pi u / 2).
    """
    if alpha == beta == 0.5:
        return np.sin(np.pi / 2 * u) ** 2
    return special.betaincinv(alpha, beta, u)
