"""The digest of a clip's luma: of all gray frames that decode, in order.

In: frames of one clip as they pass. Out: 64 hexadecimal digits that are equal for clips whose frames are equal, whatever the codec, the
container, or the colours: lossless re-encoding leaves them, any other does not.

sha256 over all pixels would cost a fifth of our decoding (blake2b and sha512 twice that; benchmarks/exact_layers.py measures them), and
this half of it. Frames of 32 KiB and more are folded first, 32 to 1, and sha256 runs over what is left. With 64·c words of 64 bits in a
frame, little-endian, and w(i) the i-th of them:

- one fold multiplies: its place n is the sum of m(k)·w(n + k·c) over k = 0..63, modulo 2^64, with odd multipliers m that are fixed here (a
  universal hash: Carter & Wegman, 1979; Dietzfelbinger, 1996);
- the other one is the exclusive or of all words whose number has the same remainder by c + 1.

The bytes after those words follow as they are. Every pixel counts: a word that alone differs in its place of a fold changes it, always, and
two words that meet in one fold do not meet in the other, so a difference in up to three words is always seen. More words stay unseen only
where they cancel in every place of both folds that they touch, in every frame; for a place of the first fold the chance of that is 2^-63
over the multipliers, or 2^-(63 - b) where its words differ in no bit below bit b. So chance makes no two scans equal. A person who sets out
to make two can, since the multipliers are public: he would join two clips of his own.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

BLOCKS = 64
WORD_BYTES = 8
LEAST_FOLDED_BYTES = BLOCKS * BLOCKS * WORD_BYTES  # below it c < 64, and two words could meet in both folds


def _multipliers() -> NDArray[np.uint64]:
    """Odd numbers without a pattern, equal for ever: from sha256 of their own places."""
    numbers = (hashlib.sha256(f"usdata luma {block}".encode("ascii")).digest()[:WORD_BYTES] for block in range(BLOCKS))
    return np.array([int.from_bytes(number, "little") | 1 for number in numbers], np.uint64)


_MULTIPLIERS = _multipliers()


class LumaDigest:
    """Takes all frames of a clip in order; its memory does not grow."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """See one frame, (H, W) uint8 and C-contiguous."""
        self._digest.update(b"%dx%d\n" % pixels.shape)
        content = pixels.reshape(-1)
        if content.size < LEAST_FOLDED_BYTES:
            self._digest.update(content.data)
            return
        columns = content.size // (WORD_BYTES * BLOCKS)
        end = columns * WORD_BYTES * BLOCKS
        words = content[:end].view("<u8").astype(np.uint64, copy=False)
        # Whole numbers modulo 2^64: the same on every machine, whatever the order of the sum.
        self._digest.update(np.einsum("k,kn->n", _MULTIPLIERS, words.reshape(BLOCKS, columns)).astype("<u8", copy=False).data)
        whole = (BLOCKS - 1) * (columns + 1)
        crossed = np.bitwise_xor.reduce(words[:whole].reshape(BLOCKS - 1, columns + 1), axis=0)
        crossed[: words.size - whole] ^= words[whole:]
        self._digest.update(crossed.astype("<u8", copy=False).data)
        self._digest.update(content[end:].data)

    def hexdigest(self) -> str:
        """The digest of the frames so far, 64 hexadecimal digits."""
        return self._digest.hexdigest()
