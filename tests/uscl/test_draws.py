"""Counter-based randomness: the authors' known answers, the right distributions, and independence of everything but the counter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from uscl.draws import Stream, beta, permutation, philox, uniform

# From Random123's file of known answers (kat_vectors, philox4x32 10).
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers_of_random123(counter: str, key: str, answer: str) -> None:
    first, second = words(key)
    assert philox(np.array(words(counter), dtype=np.uint32), (first, second)).tolist() == words(answer)


def test_many_counters_at_once_are_each_by_itself() -> None:
    counters = np.random.default_rng(0).integers(0, 2**32, (5, 7, 4), dtype=np.uint64)
    together = philox(counters, (1, 2))
    assert all(np.array_equal(together[i, j], philox(counters[i, j], (1, 2))) for i in range(5) for j in range(7))


def test_uniform_numbers_are_made_of_53_bits_of_the_counter() -> None:
    seed, stream, epoch, item, view = 0x1234567890ABCDEF, 3, 17, 42, 5
    counter = np.array([1, item, epoch, stream << 16 | view], dtype=np.uint64)
    block = [int(word) for word in philox(counter, (0x90ABCDEF, 0x12345678))]
    expected = ((block[0] >> 5) * 2**26 + (block[1] >> 6)) / 2**53
    assert uniform(seed, stream=stream, epoch=epoch, item=np.array([item]), view=view, draws=3)[0, 2] == expected


def test_uniform_numbers_are_uniform_and_unlike_each_other() -> None:
    drawn = uniform(0, stream=Stream.FRAMES, epoch=0, item=np.arange(5000), draws=4)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    others = [
        uniform(1, stream=Stream.FRAMES, epoch=0, item=np.arange(5000), draws=1),
        uniform(0, stream=Stream.MIXING, epoch=0, item=np.arange(5000), draws=1),
        uniform(0, stream=Stream.FRAMES, epoch=1, item=np.arange(5000), draws=1),
        uniform(0, stream=Stream.FRAMES, epoch=0, item=np.arange(5000), view=1, draws=1),
        uniform(2**32, stream=Stream.FRAMES, epoch=0, item=np.arange(5000), draws=1),
    ]
    columns = np.stack([*drawn.T, *(other[:, 0] for other in others)])
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlations).max() < 5 / np.sqrt(5000)


def test_a_row_depends_on_its_item_alone_and_more_draws_keep_the_first() -> None:
    whole = uniform(9, stream=1, epoch=2, item=np.arange(100), draws=5)
    picked = np.array([97, 3, 50])
    assert np.array_equal(uniform(9, stream=1, epoch=2, item=picked, draws=3), whole[picked, :3])


def test_permutations() -> None:
    orders = [permutation(0, epoch, 50) for epoch in range(200)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 200
    # Every item is first about equally often: chi-squared over 50 places of item 0.
    places = np.bincount([int(np.flatnonzero(order == 0)[0]) for order in orders], minlength=50)
    assert stats.chisquare(places).pvalue > 1e-3


@pytest.mark.parametrize(("alpha", "second"), [(0.5, 0.5), (3.0, 5.0), (1.0, 1.0), (0.2, 2.0)])
def test_beta_has_the_distribution_function_of_beta(alpha: float, second: float) -> None:
    u = np.linspace(0.01, 0.99, 99)
    assert np.allclose(stats.beta.cdf(beta(u, alpha, second), alpha, second), u, atol=1e-9)


def test_the_share_of_small_coefficients_of_the_published_preset() -> None:
    """P(coefficient < 0.1) = 0.2048 for Beta(0.5, 0.5)."""
    drawn = beta(uniform(0, stream=Stream.MIXING, epoch=0, item=np.arange(200_000), draws=1)[:, 0], 0.5, 0.5)
    assert abs((drawn < 0.1).mean() - 0.2048) < 5 * np.sqrt(0.2048 * 0.7952 / 200_000)
