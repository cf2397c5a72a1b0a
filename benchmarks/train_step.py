"""A training step of ours against the same model stepped as the published code of USCL steps it, in one run, on the CPU.

    python benchmarks/train_step.py [--batch 32] [--image-size 224] [--repeats 5] [--threads N] [--ladder] [--json]

The first row is the published way, written anew from its description: frames of three equal channels, each view through the network by
itself for the contrastive loss and once more for the classifier (four forward passes of N views, and backward through all four), the loss
by a table of cosine similarities, Adam as torch makes it by default. Its views are handed over ready-made. "as trained" is what
`uscl pretrain` does from stored frames to new weights, with augmentation and the gradient norm, in float32 and in bfloat16 with weights in
channels_last. With --ladder there are the steps between, on views ready-made, each with one thing more than the one before it.

Rows are interleaved: every repeat runs each once, in turned order. A ratio is the median over repeats of the published row's time over the
row's; times are medians. Both by the clock and by processor time, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measured import hand_on
from torch import nn
from torch.nn import functional

from uscl.augment import draw_augmentations
from uscl.config import Config, load_config
from uscl.feed import Batch
from uscl.losses import masked_cross_entropy, nt_xent
from uscl.methods import Facts, make_method
from uscl.optimizers import make_optimizer
from uscl.step import Step as TrainerStep
from uscl.torchvision_compat import torchvision

CLASSES = 12
FLOAT32_TARGET, BFLOAT16_TARGET = 1.8, 4.0
Step = Callable[[], float]


class PublishedModel(nn.Module):
    """ResNet-18, projector, and a classifier on the projections, with a feature for every call as the published model has it."""

    def __init__(self) -> None:
        super().__init__()
        network = torchvision.models.resnet18(weights=None)
        self.features = nn.Sequential(*list(network.children())[:-1])
        self.linear = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 256))
        self.fc = nn.Linear(256, CLASSES)

    def forward(self, views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        projections = self.linear(self.features(views).flatten(1))
        return projections, self.fc(projections)


def published_contrast(z_a: torch.Tensor, z_b: torch.Tensor, temperature: float = 0.5) -> torch.Tensor:
    """NT-Xent by the table of all cosine similarities, positives first in each row."""
    count = len(z_a)
    rows = torch.cat([z_b, z_a])
    similarity = functional.cosine_similarity(rows[:, None], rows[None], dim=2)
    positives = torch.cat([torch.diag(similarity, count), torch.diag(similarity, -count)])[:, None]
    left_out = torch.eye(2 * count, dtype=torch.bool) | torch.eye(2 * count, dtype=torch.bool).roll(count, 0)
    negatives = similarity[~left_out].view(2 * count, -1)
    logits = torch.cat([positives, negatives], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(2 * count, dtype=torch.long), reduction="sum") / (2 * count)


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor], finish: Callable[[], object]) -> Step:
    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        finish()
        optimizer.step()
        return value.item()

    model.train()
    return step


def adam(model: nn.Module, *, fused: bool = False) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=3e-4, weight_decay=1e-4, fused=fused)


def published_steps(view_a: torch.Tensor, view_b: torch.Tensor, labels: torch.Tensor) -> dict[str, Step]:
    """The published step, and the same model with each forward pass done once, then with both views in one."""
    wide_a, wide_b = view_a.expand(-1, 3, -1, -1).contiguous(), view_b.expand(-1, 3, -1, -1).contiguous()

    def cross_entropies(o_a: torch.Tensor, o_b: torch.Tensor) -> torch.Tensor:
        return 0.2 * (masked_cross_entropy(o_a, labels) + masked_cross_entropy(o_b, labels))

    models = [PublishedModel() for _ in range(3)]

    def four_forwards() -> torch.Tensor:
        z_a, z_b = models[0](wide_a)[0], models[0](wide_b)[0]
        contrast = published_contrast(z_a, z_b)
        o_a, o_b = models[0](wide_a)[1], models[0](wide_b)[1]
        return contrast + cross_entropies(o_a, o_b)

    def two_forwards() -> torch.Tensor:
        (z_a, o_a), (z_b, o_b) = models[1](wide_a), models[1](wide_b)
        return published_contrast(z_a, z_b) + cross_entropies(o_a, o_b)

    def one_forward() -> torch.Tensor:
        z, o = models[2](torch.cat([wide_a, wide_b]))
        return nt_xent(*z.chunk(2), 0.5) + cross_entropies(*o.chunk(2))

    losses = {"published: 4 forwards, 3 channels": four_forwards, "2 forwards": two_forwards, "+ views in one": one_forward}
    return {name: stepped(model, adam(model), loss, lambda: None) for (name, loss), model in zip(losses.items(), models, strict=True)}


def our_steps(view_a: torch.Tensor, view_b: torch.Tensor, labels: torch.Tensor, config: Config) -> dict[str, Step]:
    """One channel, then the fused optimiser, then memory layout and precision."""

    def made(*, fused: bool, weights_last: bool = False, views_last: bool = False, bfloat16: bool = False) -> Step:
        method, _ = make_method(config, CLASSES)
        a, b = (view.to(memory_format=torch.channels_last) if views_last else view for view in (view_a, view_b))
        if weights_last:
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def loss() -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                value: torch.Tensor = method(a, b, labels)["loss"]
                return value

        return stepped(method, adam(method, fused=fused), loss, lambda: None)

    return {
        "+ 1 channel": made(fused=False),
        "+ fused Adam": made(fused=True),
        "+ weights channels_last": made(fused=True, weights_last=True),
        "+ views channels_last": made(fused=True, weights_last=True, views_last=True),
        "+ bfloat16": made(fused=True, weights_last=True, views_last=True, bfloat16=True),
    }


def trained_steps(config: Config, labels: torch.Tensor) -> dict[str, Step]:
    """From stored frames to new weights by the trainer's own step; what was drawn and the store's rows are at hand."""
    size, videos = config.image_size, np.arange(config.batch_size)
    generator = torch.Generator().manual_seed(1)
    batch = Batch(
        epoch=0,
        number=0,
        of=1,
        videos=videos,
        frames=torch.randint(0, 256, (len(videos), 3, size, size), dtype=torch.uint8, generator=generator),
        coefficients=torch.rand(len(videos), 2, generator=generator),
        augmentations=draw_augmentations(config.augment, seed=0, epoch=0, videos=videos, views=2, store_size=size),
        facts=Facts(labels, torch.arange(len(labels))),
    )

    def made(precision: str) -> Step:
        method, _ = make_method(config, CLASSES)
        if precision == "bfloat16":
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        step = TrainerStep(config, method.train(), make_optimizer(config, method), torch.device("cpu"), precision)
        return lambda: step(batch, config.learning_rate)["loss"].item()

    return {"as trained, float32": made("float32"), "as trained, bfloat16": made("bfloat16")}


def measure(steps: dict[str, Step], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Clock and processor seconds of every repeat of each step, interleaved, the order turned by one from repeat to repeat."""
    names = list(steps)
    for name in names:
        value = steps[name]()
        if not np.isfinite(value):
            raise SystemExit(f"{name}: the loss is {value}")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            clock, processor = time.perf_counter(), time.process_time()
            steps[name]()
            times[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return times


def instructions() -> list[str]:
    """Which instructions for bfloat16 the processor has, by Linux's list of its flags; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    flags = next((line.split() for line in path.read_text().splitlines() if line.startswith("flags")), []) if path.is_file() else []
    return [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--ladder", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = load_config(
        "uscl", [f"batch_size={arguments.batch}", f"image_size={arguments.image_size}", "labels.classifier_on=projections"]
    )
    view_a, view_b = torch.randn(2, arguments.batch, 1, arguments.image_size, arguments.image_size)
    labels = torch.arange(arguments.batch) % CLASSES
    steps = published_steps(view_a, view_b, labels)
    if arguments.ladder:
        steps |= our_steps(view_a, view_b, labels, config)
    else:
        steps = dict(list(steps.items())[:1])
    steps |= trained_steps(config, labels)
    times = measure(steps, arguments.repeats)

    views = 2 * arguments.batch
    first = next(iter(times.values()))
    rows = []
    for name, measured in times.items():
        ratios = [[before[k] / after[k] for before, after in zip(first, measured, strict=True)] for k in (0, 1)]
        rows.append(
            {
                "step": name,
                "views_per_s": views / statistics.median(clock for clock, _ in measured),
                "ratio": statistics.median(ratios[0]),
                "ratio_lowest": min(ratios[0]),
                "ratio_highest": max(ratios[0]),
                "processor_ratio": statistics.median(ratios[1]),
            }
        )
    about = {
        "batch": arguments.batch,
        "image_size": arguments.image_size,
        "repeats": arguments.repeats,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "instructions": instructions(),
        "targets": {"float32": FLOAT32_TARGET, "bfloat16": BFLOAT16_TARGET},
    }
    for row in rows:
        target = {"as trained, float32": FLOAT32_TARGET, "as trained, bfloat16": BFLOAT16_TARGET}.get(row["step"])
        if target is not None:
            hand_on(f"step {row['step']}, over the published step", row["ratio"], "x", limit=target, sense="at least")
    if arguments.json:
        print(json.dumps({**about, "rows": rows}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in about.items() if key != "targets"))
    print(f"{'step':36} views/s  ratio (lowest to highest)  processor time")
    for row in rows:
        spread = f"{row['ratio_lowest']:.2f} to {row['ratio_highest']:.2f}"
        print(f"{row['step']:36} {row['views_per_s']:7.2f}  {row['ratio']:5.2f} ({spread:14})       {row['processor_ratio']:.2f}")
    print(f"targets: as trained, float32 >= {FLOAT32_TARGET}; as trained, bfloat16 >= {BFLOAT16_TARGET}")


if __name__ == "__main__":
    main()
