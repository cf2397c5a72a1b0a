"""The fast path of augmentation on a GPU: two Triton kernels a batch instead of some twenty of torch's.

In come stored frames on the GPU and the parameters of augment.py; out come the same normalised views, within `TOLERANCE` of the plain path.
The first kernel samples both frames of a view, mixes, flips and scales them, and sums each block; the second adds up the blocks in one
order (no atomics: the same bits every time), and applies contrast and normalisation. The algebra is that of augment_fast.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from uscl.augment import PARAMETERS, Augmentations, blurred
from uscl.models import PIXEL_MEAN, PIXEL_STD

# Of normalised gray levels (-2 to 2), as in augment_fast.py.
TOLERANCE = 1e-3
_BLOCK = 1024
# Rows of the parameters; the kernels read them under these names.
_ROWS = {f"{name.upper()}_ROW": PARAMETERS.index(name) for name in PARAMETERS if name != "blur_sigma"}


@triton.jit
def _sampled(pictures, base, top_row, bottom_row, left_column, right_column, down, across, STORED: tl.constexpr, inside):  # type: ignore[no-untyped-def]
    """Bilinear gray levels, 0 to 255, of one frame at the pixels of a block."""
    upper_left = tl.load(pictures + base + top_row * STORED + left_column, mask=inside, other=0).to(tl.float32)
    upper_right = tl.load(pictures + base + top_row * STORED + right_column, mask=inside, other=0).to(tl.float32)
    lower_left = tl.load(pictures + base + bottom_row * STORED + left_column, mask=inside, other=0).to(tl.float32)
    lower_right = tl.load(pictures + base + bottom_row * STORED + right_column, mask=inside, other=0).to(tl.float32)
    upper = upper_left + across * (upper_right - upper_left)
    lower = lower_left + across * (lower_right - lower_left)
    return upper + down * (lower - upper)


@triton.jit
def _sample_and_mix(  # type: ignore[no-untyped-def]
    pictures,
    outer_of,
    anchor_of,
    shares,
    parameters,
    out,
    sums,
    samples,
    STORED: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    TOP_ROW: tl.constexpr,
    LEFT_ROW: tl.constexpr,
    HEIGHT_ROW: tl.constexpr,
    WIDTH_ROW: tl.constexpr,
    HORIZONTAL_FLIP_ROW: tl.constexpr,
    VERTICAL_FLIP_ROW: tl.constexpr,
    BRIGHTNESS_ROW: tl.constexpr,
    CONTRAST_ROW: tl.constexpr,
    CONTRAST_FIRST_ROW: tl.constexpr,
):
    sample = tl.program_id(0)
    block = tl.program_id(1)
    place = block * BLOCK + tl.arange(0, BLOCK)
    inside = place < SIZE * SIZE
    row = place // SIZE
    column = place % SIZE
    top = tl.load(parameters + TOP_ROW * samples + sample)
    left = tl.load(parameters + LEFT_ROW * samples + sample)
    height = tl.load(parameters + HEIGHT_ROW * samples + sample)
    width = tl.load(parameters + WIDTH_ROW * samples + sample)
    mirrored = tl.load(parameters + HORIZONTAL_FLIP_ROW * samples + sample) > 0
    upside_down = tl.load(parameters + VERTICAL_FLIP_ROW * samples + sample) > 0
    brightness = tl.load(parameters + BRIGHTNESS_ROW * samples + sample)
    contrast_first = tl.load(parameters + CONTRAST_FIRST_ROW * samples + sample) > 0

    row = tl.where(upside_down, SIZE - 1 - row, row)
    column = tl.where(mirrored, SIZE - 1 - column, column)
    y = top + (row.to(tl.float32) + 0.5) / SIZE * height - 0.5
    x = left + (column.to(tl.float32) + 0.5) / SIZE * width - 0.5
    y = tl.maximum(tl.minimum(y, top + height - 1), top)
    x = tl.maximum(tl.minimum(x, left + width - 1), left)
    top_row = y.to(tl.int32)
    left_column = x.to(tl.int32)
    bottom_row = tl.minimum(top_row + 1, (top + height - 1).to(tl.int32))
    right_column = tl.minimum(left_column + 1, (left + width - 1).to(tl.int32))
    down = y - top_row.to(tl.float32)
    across = x - left_column.to(tl.float32)

    outer_base = tl.load(outer_of + sample) * (STORED * STORED)
    anchor_base = tl.load(anchor_of + sample) * (STORED * STORED)
    share = tl.load(shares + sample)
    outer = _sampled(pictures, outer_base, top_row, bottom_row, left_column, right_column, down, across, STORED, inside)
    anchor = _sampled(pictures, anchor_base, top_row, bottom_row, left_column, right_column, down, across, STORED, inside)
    level = (share * outer + (1 - share) * anchor) * (brightness / 255)
    level = tl.where(contrast_first, level, tl.minimum(level, 1.0))
    tl.store(out + sample.to(tl.int64) * (SIZE * SIZE) + place, level, mask=inside)
    tl.store(sums + sample * tl.num_programs(1) + block, tl.sum(tl.where(inside, level, 0.0), axis=0))


@triton.jit
def _contrast_and_normalise(  # type: ignore[no-untyped-def]
    out,
    sums,
    parameters,
    samples,
    blocks,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    MEAN: tl.constexpr,
    SPAN: tl.constexpr,
    TOP_ROW: tl.constexpr,
    LEFT_ROW: tl.constexpr,
    HEIGHT_ROW: tl.constexpr,
    WIDTH_ROW: tl.constexpr,
    HORIZONTAL_FLIP_ROW: tl.constexpr,
    VERTICAL_FLIP_ROW: tl.constexpr,
    BRIGHTNESS_ROW: tl.constexpr,
    CONTRAST_ROW: tl.constexpr,
    CONTRAST_FIRST_ROW: tl.constexpr,
):
    sample = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < SIZE * SIZE
    each = tl.arange(0, BLOCKS)
    mean = tl.sum(tl.load(sums + sample * blocks + each, mask=each < blocks, other=0.0), axis=0) / (SIZE * SIZE)
    brightness = tl.load(parameters + BRIGHTNESS_ROW * samples + sample)
    contrast = tl.load(parameters + CONTRAST_ROW * samples + sample)
    contrast_first = tl.load(parameters + CONTRAST_FIRST_ROW * samples + sample) > 0
    upper = tl.where(contrast_first, tl.minimum(brightness, 1.0), 1.0)
    target = out + sample.to(tl.int64) * (SIZE * SIZE) + place
    level = tl.load(target, mask=inside, other=0.0)
    level = tl.minimum(tl.maximum(contrast * level + mean * (1 - contrast), 0.0), upper)
    tl.store(target, (level - MEAN) * SPAN, mask=inside)


def two_views_triton(
    frames: torch.Tensor, coefficients: torch.Tensor, parameters: Augmentations, *, order: str, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two views of each video from its three frames; arguments and result are those of `uscl.augment.two_views`, on one GPU."""
    videos, device = len(frames), frames.device
    first_of = 3 * torch.arange(videos, device=device)
    if order == "mix-then-augment":
        outer_of, anchor_of = torch.cat([first_of, first_of + 2]), (first_of + 1).repeat(2)
        views = _augmented(frames, outer_of, anchor_of, coefficients.float().T.flatten(), parameters, size)
        view_a, view_b = views.chunk(2)
        return view_a, view_b
    each = torch.cat([first_of, first_of + 1, first_of + 2])
    first, middle, third = _augmented(frames, each, each, torch.ones(3 * videos, device=device), parameters, size).chunk(3)
    share = coefficients.float().T[:, :, None, None, None]
    return share[0] * first + (1 - share[0]) * middle, share[1] * third + (1 - share[1]) * middle


def _augmented(
    frames: torch.Tensor, outer_of: torch.Tensor, anchor_of: torch.Tensor, shares: torch.Tensor, parameters: Augmentations, size: int
) -> torch.Tensor:
    samples, stored = len(outer_of), frames.shape[-1]
    out = torch.empty(samples, 1, size, size, device=frames.device)
    blocks = triton.cdiv(size * size, _BLOCK)
    sums = torch.empty(samples, blocks, device=frames.device)
    values, grid = parameters.values.contiguous(), (samples, blocks)
    _sample_and_mix[grid](
        frames.contiguous(),
        outer_of,
        anchor_of,
        shares.contiguous(),
        values,
        out,
        sums,
        samples,
        STORED=stored,
        SIZE=size,
        BLOCK=_BLOCK,
        **_ROWS,
    )
    _contrast_and_normalise[grid](
        out,
        sums,
        values,
        samples,
        blocks,
        SIZE=size,
        BLOCK=_BLOCK,
        BLOCKS=triton.next_power_of_2(blocks),
        MEAN=PIXEL_MEAN,
        SPAN=1 / PIXEL_STD,
        **_ROWS,
    )
    return blurred(out, parameters["blur_sigma"], parameters.blur_radius) if parameters.blur_radius else out
