"""The digest of a clip's luma: of all gray frames that decode, in order.

In: frames of one clip as they pass. Out: 64 hexadecimal digits that are equal for clips whose frames are equal, whatever the codec, the
container, or the colours: lossless re-encoding leaves them, any other does not.

sha256 over all pixels would cost a fifth of decoding (blake2b and sha512 twice that; benchmarks/exact_layers.py measures them). So each
frame is folded first, 32 to 1, by two universal hashes (Carter & Wegman, 1979; Dietzfelbinger, 1996), and sha256 runs over what is left. A
frame is 64 blocks of 64-bit words; word n of the first fold is the sum over blocks k of multiplier k times word n of block k, modulo 2^64,
with odd multipliers that are fixed here. The second fold does the same with the upper halves of the words, of which the first sees too
little: the highest bit of a word moves only the highest bit of a product. Every pixel counts:

- where one word alone differs among the n-th words of all blocks, word n of the first fold differs, always;
- where several do, both folds stay equal with a chance below 2^-31 over the multipliers, and they would have to for every n that
  differs, in every frame that differs.

So chance makes no two clips equal. A person who sets out to make two can, since the multipliers are public: he would join two clips of his
own.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

BLOCKS = 64
WORD_BYTES = 8


def _multipliers(fold: int) -> NDArray[np.uint64]:
    """Odd numbers without a pattern, equal for ever: from sha256 of their own places."""
    numbers = (hashlib.sha256(f"usdata luma {fold} {block}".encode("ascii")).digest()[:WORD_BYTES] for block in range(BLOCKS))
    return np.array([int.from_bytes(number, "little") | 1 for number in numbers], np.uint64)


_HALF = np.uint64(32)
_WHOLE, _UPPER = _multipliers(0), _multipliers(1)


class LumaDigest:
    """Takes all frames of a clip in order; its memory does not grow."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._uppers = np.empty((BLOCKS, 0), np.uint64)

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """See one frame, (H, W) uint8 and C-contiguous."""
        self._digest.update(f"{pixels.shape[0]}x{pixels.shape[1]}\n".encode("ascii"))
        bytes_of_frame = pixels.reshape(-1)
        columns = bytes_of_frame.size // (WORD_BYTES * BLOCKS)
        folded = columns * WORD_BYTES * BLOCKS
        words = bytes_of_frame[:folded].view("<u8").astype(np.uint64, copy=False).reshape(BLOCKS, columns)
        if self._uppers.shape != words.shape:
            self._uppers = np.empty_like(words)  # kept from frame to frame: fresh memory would cost more than the shift
        for multipliers, blocks in ((_WHOLE, words), (_UPPER, np.right_shift(words, _HALF, out=self._uppers))):
            # Whole numbers modulo 2^64: the same on every machine, whatever the order of the sum.
            self._digest.update(np.einsum("k,kn->n", multipliers, blocks).astype("<u8", copy=False).data)
        self._digest.update(bytes_of_frame[folded:].data)

    def hexdigest(self) -> str:
        """The digest of the frames so far, 64 hexadecimal digits."""
        return self._digest.hexdigest()
