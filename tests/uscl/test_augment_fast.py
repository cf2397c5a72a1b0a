"""The fast paths of augmentation against the plain one, over random parameters; and that threads and company change no bit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch

from uscl import augment, sections, views
from uscl.augment import Augmentations, draw_augmentations
from uscl.augment_fast import TOLERANCE, two_views_fast

ORDERS = {"mix-then-augment": 2, "augment-then-mix": 3}
SETTINGS = [
    {},
    {"scale": (0.05, 1.0), "ratio": (0.3, 3.0), "brightness": 1.0, "contrast": 1.0},
    {"vertical_flip": 0.5, "blur": 0.7, "blur_sigma": (0.3, 2.0)},
]
NAMES = ["uscl", "small crops, strong jitter", "blur"]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    ours, opencvs = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(ours)
    cv2.setNumThreads(opencvs)


def batch(
    stored: int, order: str, *, videos: int = 24, seed: int = 0, **settings: object
) -> tuple[torch.Tensor, torch.Tensor, Augmentations]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (videos, 3, stored, stored), dtype=torch.uint8, generator=generator)
    shares = torch.rand(videos, 2, generator=generator)
    shares[0], shares[1] = 0.0, 1.0
    drawn = sections.Augment(**settings)  # type: ignore[arg-type]
    parameters = draw_augmentations(drawn, seed=seed, epoch=0, videos=np.arange(videos), views=ORDERS[order], store_size=stored)
    return frames, shares, parameters


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
@pytest.mark.parametrize(("stored", "size"), [(40, 40), (32, 48), (48, 32), (224, 224)])
def test_fast_views_are_the_plain_ones(stored: int, size: int, settings: dict, order: str) -> None:
    frames, shares, parameters = batch(stored, order, videos=8 if size == 224 else 24, seed=stored, **settings)
    plain = torch.cat(augment.two_views(frames, shares, parameters, order=order, size=size))
    fast = torch.cat(two_views_fast(frames, shares, parameters, order=order, size=size))
    assert fast.shape == plain.shape
    assert (fast - plain).abs().max() < TOLERANCE
    # Most of that is the plain path's rounding of a few sampling positions: on the average there is next to nothing.
    assert (fast - plain).abs().mean() < TOLERANCE / 50


def test_each_order_of_brightness_and_contrast_cuts_where_it_should() -> None:
    """All eight corners of strong jitter, where both cuts work, in double precision from the operations' definitions."""
    level = np.linspace(0, 255, 256).astype(np.uint8).reshape(16, 16)
    corners = [(b, c, first) for b in (0.2, 1.8) for c in (0.2, 1.8) for first in (0.0, 1.0)]
    rows = [[0.0, 0.0, 16.0, 16.0, 0.0, 0.0, b, c, first, 0.0] for b, c, first in corners]
    parameters = Augmentations(torch.tensor(rows * 2).T.contiguous(), False, 0)
    frames = torch.from_numpy(np.tile(level, (8, 3, 1, 1)))
    view_a, _ = two_views_fast(frames, torch.full((8, 2), 0.3), parameters, order="mix-then-augment", size=16)
    for view, (brightness, contrast, first) in zip(view_a[:, 0].double().numpy(), corners, strict=True):
        expected = level / 255
        for step in ("contrast", "brightness") if first else ("brightness", "contrast"):
            shift = 0 if step == "brightness" else (1 - contrast) * expected.mean()
            expected = np.clip(expected * (brightness if step == "brightness" else contrast) + shift, 0, 1)
        np.testing.assert_allclose(view, (expected - 0.5) / 0.25, atol=3e-6)


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_threads_and_repeats_change_no_bit(settings: dict) -> None:
    frames, shares, parameters = batch(64, "mix-then-augment", **settings)
    made = []
    for threads, opencv in ((1, 1), (2, 1), (3, 2), (1, 2), (1, 1)):
        torch.set_num_threads(threads)
        cv2.setNumThreads(opencv)
        # Larger than what OpenCV leaves to one thread.
        made.append(torch.cat(two_views_fast(frames, shares, parameters, order="mix-then-augment", size=300)))
    assert all(torch.equal(made[0], other) for other in made[1:])


def test_a_view_does_not_depend_on_the_batch_it_stands_in() -> None:
    frames, shares, parameters = batch(40, "mix-then-augment", **SETTINGS[2])
    together = torch.cat(two_views_fast(frames, shares, parameters, order="mix-then-augment", size=40))
    some = torch.tensor([17, 3])
    fewer = replace(parameters, values=parameters.values[:, [17, 3, 24 + 17, 24 + 3]])
    alone = torch.cat(two_views_fast(frames[some], shares[some], fewer, order="mix-then-augment", size=40))
    assert torch.equal(alone, together[[17, 3, 24 + 17, 24 + 3]])


def test_the_configured_path_is_taken() -> None:
    frames, shares, parameters = batch(40, "mix-then-augment")
    arguments = {"order": "mix-then-augment", "size": 40}
    made = {path: torch.cat(views.two_views(frames, shares, parameters, path=path, **arguments)) for path in ("plain", "fast", "auto")}
    assert torch.equal(made["plain"], torch.cat(augment.two_views(frames, shares, parameters, **arguments)))
    assert torch.equal(made["fast"], torch.cat(two_views_fast(frames, shares, parameters, **arguments)))
    assert torch.equal(made["auto"], made["fast"])
    assert not torch.equal(made["auto"], made["plain"])


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernels_of_a_gpu_give_the_plain_views() -> None:
    """On a GPU where there is one, else in Triton's interpreter, which needs none; in a process of its own: it is chosen at import."""
    program = """
import torch
from tests.uscl.test_augment_fast import ORDERS, SETTINGS, batch
from uscl import augment
from uscl.augment_triton import TOLERANCE, two_views_triton
device = "cuda" if torch.cuda.is_available() else "cpu"
for order in ORDERS:
    for stored, size in ((24, 36), (36, 24)):
        for settings in SETTINGS:
            frames, shares, parameters = batch(stored, order, videos=3, **settings)
            frames, shares, parameters = frames.to(device), shares.to(device), parameters.to(torch.device(device))
            plain = torch.cat(augment.two_views(frames, shares, parameters, order=order, size=size))
            fast = torch.cat(two_views_triton(frames, shares, parameters, order=order, size=size))
            again = torch.cat(two_views_triton(frames, shares, parameters, order=order, size=size))
            assert torch.equal(fast, again)
            assert (fast - plain).abs().max() < TOLERANCE, (order, stored, size, settings, (fast - plain).abs().max())
            assert (fast - plain).abs().mean() < TOLERANCE / 50
"""
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **interpreted}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
