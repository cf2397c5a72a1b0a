"""The loss against a loop, augmentation of frames and masks alike, and randomness that comes from the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.uscl.segmentation.mask_set import draw
from uscl.backbones import seeded_backbone
from uscl.segmentation.training import (
    DICE_SMOOTHING,
    Labelled,
    Training,
    batch_sizes,
    dice_loss,
    flip_and_crop,
    predict_masks,
    segmentation_loss,
    train_network,
)

SIZE = 32


def labelled(count: int = 8) -> Labelled:
    pairs = [draw([7, number], SIZE, with_square=True) for number in range(count)]
    pixels, masks = (np.stack(each) for each in zip(*pairs, strict=True))
    return Labelled(pixels, masks, np.full((count, 2), SIZE), 2)


def test_dice_loss_is_that_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    truth = torch.randint(0, 2, (2, 4, 5), generator=generator)  # class 2 stands nowhere
    shares = torch.softmax(logits, 1).numpy()
    values = []
    for value in (1, 2):
        both = either = 0.0
        for image, row, column in np.ndindex(2, 4, 5):
            held = float(truth[image, row, column] == value)
            both += shares[image, value, row, column] * held
            either += shares[image, value, row, column] + held
        values.append((2 * both + DICE_SMOOTHING) / (either + DICE_SMOOTHING))
    assert dice_loss(logits, truth).item() == pytest.approx(1 - np.mean(values), rel=1e-5)
    whole = segmentation_loss(logits, truth).item()
    chosen = [shares[image, int(truth[image, row, column]), row, column] for image, row, column in np.ndindex(2, 4, 5)]
    assert whole == pytest.approx(1 - np.mean(values) - np.mean(np.log(chosen)), rel=1e-5)


def test_a_sure_right_answer_costs_nothing() -> None:
    truth = torch.randint(0, 3, (2, 6, 6), generator=torch.Generator().manual_seed(1))
    logits = 50.0 * torch.nn.functional.one_hot(truth, 3).movedim(-1, 1)
    assert segmentation_loss(logits, truth).item() < 1e-3
    assert dice_loss(logits.roll(1, dims=1), truth).item() > 0.9


def test_frames_and_masks_are_flipped_and_cropped_alike() -> None:
    masks = torch.zeros(64, 40, 40, dtype=torch.uint8)
    masks[:, 8:30, 4:17] = 1
    frames, same = flip_and_crop(masks[:, None].float(), masks, torch.Generator().manual_seed(0))
    # Linear and nearest sampling of one picture differ along its edges alone.
    assert (frames[:, 0].round() == same).float().mean() > 0.99
    assert ((frames[:, 0] - same).abs() < 0.76).all()  # 0.75 at a corner
    middle = (same.float() * torch.arange(40)).sum((1, 2)) / same.sum((1, 2))
    assert 0.3 < (middle > 20).float().mean() < 0.7  # about half are flipped
    areas = same.float().sum((1, 2))
    assert len(areas.unique()) > 15
    assert areas.max() <= 22 * 13 / 0.8**2 * 1.1


def test_masks_keep_to_their_classes() -> None:
    masks = torch.from_numpy(labelled(8).masks)
    _, same = flip_and_crop(torch.zeros(8, 1, SIZE, SIZE), masks, torch.Generator().manual_seed(0))
    assert set(same.unique().tolist()) <= {0, 1, 2}


def test_equal_seeds_give_equal_networks_whatever_was_drawn_before() -> None:
    given, rows = labelled(), np.arange(6)
    training = Training(epochs=1, batch_size=3)
    found = []
    for seed, disturbance in (((0, 1), 1), ((0, 1), 2), ((0, 2), 1)):
        torch.manual_seed(disturbance)
        model, losses = train_network(seeded_backbone("resnet18", 0), given, rows, training, seed=seed)
        found.append((losses, torch.cat([value.flatten().float() for value in model.state_dict().values()])))
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][0] == found[1][0]
    assert not torch.equal(found[0][1], found[2][1])


def test_predictions_have_each_frames_own_size() -> None:
    given = labelled(3)
    given.sizes[1] = 50, 20
    model, _ = train_network(seeded_backbone("resnet18", 0), given, np.arange(3), Training(epochs=1), seed=(0, 0))
    found = dict(predict_masks(model, given, np.array([0, 1]), batch_size=2))
    assert {row: mask.shape for row, mask in found.items()} == {0: (SIZE, SIZE), 1: (50, 20)}


@pytest.mark.parametrize(("rows", "expected"), [(16, [8, 8]), (17, [8, 9]), (18, [8, 8, 2]), (3, [3]), (1, [1])])
def test_no_batch_of_one_beside_others(rows: int, expected: list[int]) -> None:
    assert batch_sizes(rows, 8) == expected
