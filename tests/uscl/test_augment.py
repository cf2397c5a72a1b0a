"""Augmentation against torchvision's own operations, sample by sample with the same parameters, and the parameters' distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from uscl import sections
from uscl.augment import PARAMETERS, Augmentations, augment, draw_augmentations, two_views
from uscl.torchvision_compat import torchvision

tvf = torchvision.transforms.v2.functional


def drawn(samples: int = 16, *, size: int = 40, seed: int = 0, epoch: int = 0, views: int = 1, **settings: object) -> Augmentations:
    return draw_augmentations(sections.Augment(**settings), seed=seed, epoch=epoch, videos=np.arange(samples), views=views, store_size=size)


def pictures(samples: int, size: int) -> torch.Tensor:
    return torch.rand(samples, size, size, generator=torch.Generator().manual_seed(0))


def reference(frame: torch.Tensor, parameters: Augmentations, sample: int, size: int) -> torch.Tensor:
    """What torchvision makes of one frame (S, S) with one sample's parameters."""
    value = {name: parameters[name][sample].item() for name in ("top", "left", "height", "width", "brightness", "contrast", "blur_sigma")}
    box = [int(value[name]) for name in ("top", "left", "height", "width")]
    view = tvf.resized_crop(frame[None], *box, size=[size, size], antialias=True)
    if parameters["horizontal_flip"][sample]:
        view = tvf.horizontal_flip(view)
    if parameters["vertical_flip"][sample]:
        view = tvf.vertical_flip(view)
    jitter = [(tvf.adjust_brightness, value["brightness"]), (tvf.adjust_contrast, value["contrast"])]
    for operation, factor in reversed(jitter) if parameters["contrast_first"][sample] else jitter:
        view = operation(view, factor)
    if value["blur_sigma"]:
        width = 2 * math.ceil(3 * value["blur_sigma"]) + 1
        view = tvf.gaussian_blur(view, [width, width], [value["blur_sigma"]] * 2)
    return tvf.normalize(view, [0.5], [0.25])


@pytest.mark.parametrize(("stored", "size"), [(40, 40), (32, 48)])
@pytest.mark.parametrize(
    "settings",
    [{}, {"scale": (0.1, 1.0), "ratio": (0.5, 2.0)}, {"vertical_flip": 0.5, "blur": 0.7, "blur_sigma": (0.3, 2.0)}],
    ids=["uscl", "small crops", "blur"],
)
def test_every_sample_is_what_torchvision_makes_of_it(stored: int, size: int, settings: dict) -> None:
    frames = pictures(16, stored)
    parameters = drawn(16, size=stored, **settings)
    views = augment(frames, parameters, size)
    assert views.shape == (16, 1, size, size)
    for sample in range(16):
        # Normalised gray levels run from -2 to 2; float32 rounding of sampling positions is what is left.
        assert (views[sample] - reference(frames[sample], parameters, sample, size)).abs().max() < 2e-4


def test_without_any_augmentation_frames_are_only_normalised() -> None:
    frames = pictures(3, 24)
    parameters = drawn(3, size=24, scale=(1, 1), ratio=(1, 1), horizontal_flip=0, brightness=0, contrast=0)
    assert torch.allclose(augment(frames, parameters, 24)[:, 0], (frames - 0.5) / 0.25, atol=1e-4)


def test_parameters_lie_in_their_ranges_and_are_spread_over_them() -> None:
    parameters = drawn(20_000, size=224)
    height, width, top, left = (parameters[name].numpy() for name in ("height", "width", "top", "left"))
    assert (height == np.rint(height)).all()
    assert ((top >= 0) & (top + height <= 224) & (left >= 0) & (left + width <= 224)).all()
    share, ratio = height * width / 224**2, width / height
    assert share.min() > 0.8 - 0.01
    assert (ratio.min(), ratio.max()) == pytest.approx((0.8, 1.25), abs=0.01)
    assert parameters["horizontal_flip"].mean().item() == pytest.approx(0.5, abs=0.02)
    assert parameters["contrast_first"].mean().item() == pytest.approx(0.5, abs=0.02)
    assert not parameters.any_vertical_flip
    assert parameters.blur_radius == 0
    for name in ("brightness", "contrast"):
        assert stats.kstest(parameters[name].numpy(), stats.uniform(0.2, 1.6).cdf).pvalue > 1e-3


def test_crops_have_torchvisions_distribution() -> None:
    """Two samples, ours and torchvision's own generator of crops, compared by Kolmogorov and Smirnov's test."""
    torch.manual_seed(0)
    image = torch.zeros(1, 64, 64)
    theirs = np.array([torchvision.transforms.RandomResizedCrop.get_params(image, [0.8, 1.0], [0.8, 1.25]) for _ in range(4000)])
    parameters = drawn(4000, size=64)
    ours = np.stack([parameters[name].numpy() for name in ("top", "left", "height", "width")], axis=1)
    for column in range(4):
        assert stats.ks_2samp(theirs[:, column], ours[:, column]).pvalue > 1e-3


def test_every_parameter_has_its_stated_distribution() -> None:
    """Crops that always fit have a closed form: share of the area even, logarithm of the ratio even, place even among those that fit."""
    count, size = 20_000, 2048
    asked = {"scale": (0.2, 0.5), "ratio": (0.7, 1.4), "vertical_flip": 0.3, "horizontal_flip": 0.8, "blur": 0.6, "blur_sigma": (0.5, 2.5)}
    parameters = drawn(count, size=size, seed=3, brightness=0.4, contrast=0.9, **asked)
    value = {name: parameters[name].double().numpy() for name in PARAMETERS}
    even = {
        "share": (value["height"] * value["width"] / size**2 - 0.2) / 0.3,
        "ratio": np.log(value["width"] / value["height"] / 0.7) / math.log(2),
        "top": value["top"] / (size - value["height"]),
        "left": value["left"] / (size - value["width"]),
        "brightness": (value["brightness"] - 0.6) / 0.8,
        "contrast": (value["contrast"] - 0.1) / 1.8,
        "blur": (value["blur_sigma"][value["blur_sigma"] > 0] - 0.5) / 2,
    }
    for name, numbers in even.items():
        assert stats.kstest(numbers, "uniform").pvalue > 1e-3, name
    for numbers, chance in (
        (value["horizontal_flip"], 0.8),
        (value["vertical_flip"], 0.3),
        (value["contrast_first"], 0.5),
        (value["blur_sigma"] > 0, 0.6),
    ):
        assert stats.binomtest(int(numbers.sum()), count, chance).pvalue > 1e-3
    # Each parameter by itself: no pair of them is correlated.
    columns = np.stack(
        [*(numbers for numbers in even.values() if len(numbers) == count), value["horizontal_flip"], value["contrast_first"]]
    )
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlations).max() < 5 / math.sqrt(count)


def test_crops_stay_inside_their_boxes_as_if_the_frame_were_cut_to_them() -> None:
    settings, videos = sections.Augment(), np.arange(500)
    square = draw_augmentations(settings, seed=2, epoch=1, videos=videos, views=2, store_size=48)
    inside = np.tile([10, 7, 48, 48], (500, 1))
    moved = draw_augmentations(settings, seed=2, epoch=1, videos=videos, views=2, store_size=64, boxes=inside)
    shift = torch.zeros(len(PARAMETERS), 1)
    shift[PARAMETERS.index("top")], shift[PARAMETERS.index("left")] = 10, 7
    assert torch.equal(moved.values, square.values + shift)

    tall = np.tile([0, 400, 1000, 200], (5000, 1))
    tall[1::2] = [24, 100, 500, 900]
    parameters = draw_augmentations(settings, seed=0, epoch=0, videos=np.arange(5000), views=2, store_size=1024, boxes=tall)
    top, left, height, width = (parameters[name].numpy() for name in ("top", "left", "height", "width"))
    box_top, box_left, box_height, box_width = np.tile(tall, (2, 1)).T
    assert ((top >= box_top) & (top + height <= box_top + box_height)).all()
    assert ((left >= box_left) & (left + width <= box_left + box_width)).all()
    share, ratio = height * width / (box_height * box_width), (width / box_width) / (height / box_height)
    assert share.min() > 0.79
    assert (ratio.min(), ratio.max()) == pytest.approx((0.8, 1.25), abs=0.02)
    # The same crops as of a whole picture, stretched: their shares of the box agree with those of a square's.
    whole = draw_augmentations(settings, seed=0, epoch=0, videos=np.arange(5000), views=2, store_size=1024)
    same_height = np.abs(height / box_height - whole["height"].numpy() / 1024) < 0.006
    same_width = np.abs(width / box_width - whole["width"].numpy() / 1024) < 0.006
    # Rounded to whole pixels, a crop may just fit the one and not the other.
    assert (same_height & same_width).mean() > 0.97


def test_a_blurred_view_does_not_depend_on_the_batch_it_stands_in() -> None:
    frames, parameters = pictures(16, 40), drawn(16, size=40, blur=0.8)
    together = augment(frames, parameters, 40)
    for sample in range(16):
        alone = Augmentations(parameters.values[:, [sample]], parameters.any_vertical_flip, math.ceil(3 * parameters["blur_sigma"][sample]))
        assert torch.allclose(augment(frames[[sample]], alone, 40)[0], together[sample], atol=2e-6)


@pytest.mark.parametrize(("ratio", "expected"), [((0.8, 1.25), (64, 64)), ((2.0, 3.0), (32, 64)), ((0.25, 0.5), (64, 32))])
def test_the_fallback_is_the_largest_allowed_crop(ratio: tuple[float, float], expected: tuple[int, int]) -> None:
    """With all of the area asked for, a crop that is not square never fits a square frame."""
    parameters = drawn(200, size=64, scale=(1.0, 1.0), ratio=ratio)
    found = set(zip(parameters["height"].int().tolist(), parameters["width"].int().tolist(), strict=True))
    assert expected in found
    assert all(math.isclose(width / height, expected[1] / expected[0], rel_tol=0.05) for height, width in found)


def test_a_sample_does_not_depend_on_the_batch_it_stands_in() -> None:
    settings = sections.Augment()
    whole = draw_augmentations(settings, seed=5, epoch=3, videos=np.arange(50), views=2, store_size=40)
    some = draw_augmentations(settings, seed=5, epoch=3, videos=np.array([31, 7]), views=2, store_size=40)
    assert torch.equal(some.values, whole.values[:, [31, 7, 81, 57]])
    frames = pictures(50, 40)
    together = augment(frames.repeat(2, 1, 1), whole, 40)
    assert torch.allclose(augment(frames[[31, 7, 31, 7]], some, 40), together[[31, 7, 81, 57]], atol=1e-6)


def test_mixing_before_augmenting_mixes_gray_levels() -> None:
    frames = torch.randint(0, 256, (4, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    share = torch.rand(4, 2, generator=torch.Generator().manual_seed(1))
    parameters = drawn(4, size=20, views=2)
    view_a, view_b = two_views(frames, share, parameters, order="mix-then-augment", size=20)
    levels = frames.double() / 255
    weight_a, weight_b = share.double()[:, 0, None, None], share.double()[:, 1, None, None]
    mixed_a = weight_a * levels[:, 0] + (1 - weight_a) * levels[:, 1]
    mixed_b = weight_b * levels[:, 2] + (1 - weight_b) * levels[:, 1]
    for sample in range(4):
        assert (view_a[sample] - reference(mixed_a[sample].float(), parameters, sample, 20)).abs().max() < 2e-4
        assert (view_b[sample] - reference(mixed_b[sample].float(), parameters, 4 + sample, 20)).abs().max() < 2e-4


def test_the_published_order_gives_the_published_difference() -> None:
    """view_a - view_b = coefficient * (f1 - f3), where f are the augmented and normalised frames and the coefficient is shared."""
    frames = torch.randint(0, 256, (4, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    share = torch.rand(4, 1, generator=torch.Generator().manual_seed(1)).repeat(1, 2)
    parameters = drawn(4, size=20, views=3)
    view_a, view_b = two_views(frames, share, parameters, order="augment-then-mix", size=20)
    for sample in range(4):
        first = reference(frames[sample, 0] / 255, parameters, sample, 20)
        third = reference(frames[sample, 2] / 255, parameters, 8 + sample, 20)
        assert (view_a[sample] - view_b[sample] - share[sample, 0] * (first - third)).abs().max() < 4e-4


def test_hue_and_saturation_change_nothing_on_gray_frames() -> None:
    """Why they are left out."""
    gray = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1)
    assert (tvf.adjust_hue(tvf.adjust_saturation(gray, 1.7), 0.2) - gray).abs().max() < 8e-5
