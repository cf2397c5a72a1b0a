"""A step of Meta-USCL against a plain step on the same pairs, and against the explicit second-order way, in one run, on the CPU.

    python benchmarks/meta_step.py [--batch 32] [--image-size 64] [--repeats 5] [--threads N] [--without-second-order] [--json]

"plain" is the trainer's step of the recipe `ppi`, from stored frames to new weights; "meta-uscl" the trainer's step of the recipe
`meta-uscl` on the same frames, with a meta batch of the same size. "second order" is that step with the gradient of the weights' network
taken as the published description has it: the step of the copy is differentiable, the meta loss is taken on what comes out, and a second
backward pass goes through all of it. Its gradient is compared with ours first, in float64 on a small batch.

Rows are interleaved: every repeat runs each once, in turned order. A ratio is the median over repeats of a row's time over the plain
row's in the same repeat. Both by the clock and by processor time, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from measured import hand_on
from torch import nn
from torch.func import functional_call

from uscl.augment import draw_augmentations
from uscl.config import Config, load_config
from uscl.feed import Batch
from uscl.losses import nt_xent, nt_xent_rows
from uscl.methods import Facts, make_method
from uscl.methods.meta_uscl import MetaUSCL
from uscl.optimizers import make_optimizer
from uscl.step import Step

TARGET = 6.0
CPU = torch.device("cpu")


class Embedding(nn.Module):
    """A method's features and projections as a `forward`."""

    def __init__(self, method: MetaUSCL) -> None:
        super().__init__()
        self.method = method

    def forward(self, views: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return self.method.embed(views)


class SecondOrder(MetaUSCL):
    """The method with the gradient of its weights' network by a differentiable step of a copy."""

    def learn_first(
        self,
        views: Sequence[torch.Tensor],
        facts: Facts,
        meta_views: Sequence[torch.Tensor],
        meta_facts: Facts,
        rate: float,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> dict[str, torch.Tensor]:
        buffers = [buffer.clone() for buffer in self.buffers()]
        copy = {name: value for name, value in self.named_parameters() if not name.startswith("weigher")}
        learners = list(self.weigher.parameters())
        with autocast():
            features, z = self.embed(views)
            z_a, z_b = z.chunk(2)
            loss = (self.weights(features) * nt_xent_rows(z_a, z_b, self.temperature)).sum()
        gradients = torch.autograd.grad(loss, list(copy.values()), create_graph=True)
        rate = self.inner_rate or rate
        moved = {f"method.{name}": value - rate * slope for (name, value), slope in zip(copy.items(), gradients, strict=True)}
        with autocast():
            meta_a, meta_b = functional_call(Embedding(self), moved, (meta_views,))[1].chunk(2)
            meta_loss = nt_xent(meta_a, meta_b, self.temperature)
        for learner, slope in zip(learners, torch.autograd.grad(meta_loss, learners), strict=True):
            learner.grad = slope
        with torch.no_grad():
            for buffer, value in zip(self.buffers(), buffers, strict=True):
                buffer.copy_(value)
        return {"meta_loss": meta_loss.detach()}


def largest_difference() -> float:
    """Between the two ways' gradients, relative to their length: ResNet-18, four videos of 32 pixels, in float64."""
    config = load_config("meta-uscl", ["image_size=32"])
    generator = torch.Generator().manual_seed(0)
    views, meta_views = (torch.randn(2, 4, 1, 32, 32, dtype=torch.float64, generator=generator).unbind() for _ in range(2))
    facts = Facts(torch.full((4,), -1), torch.arange(4))
    found = []
    for method in (make_method(config, 0)[0], second_order(config)):
        method.double().train().learn_first(views, facts, meta_views, facts, 0.1, nullcontext)
        found.append(torch.cat([parameter.grad.flatten() for parameter in method.weigher.parameters() if parameter.grad is not None]))
    return float((found[0] - found[1]).norm() / found[1].norm())


def second_order(config: Config) -> MetaUSCL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return SecondOrder(config, 0)


def batch_of(config: Config, count: int, epoch: int) -> Batch:
    size = config.store_size
    generator = torch.Generator().manual_seed(epoch)
    videos = np.arange(count)
    return Batch(
        epoch=epoch,
        number=0,
        of=1,
        videos=videos,
        frames=torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator),
        coefficients=torch.rand(count, 2, generator=generator),
        augmentations=draw_augmentations(config.augment, seed=0, epoch=epoch, videos=videos, views=2, store_size=size),
        facts=Facts(torch.full((count,), -1), torch.arange(count)),
    )


def steps_of(batch: int, image_size: int, precision: str, *, peer: bool) -> dict[str, Callable[[], float]]:
    overrides = [f"batch_size={batch}", f"image_size={image_size}"]
    plain, meta = load_config("ppi", overrides), load_config("meta-uscl", overrides)
    given = batch_of(meta, batch, 0)
    with_meta = Batch(**{**vars(given), "meta": batch_of(meta, batch, 1)})

    def made(config: Config, method: Any, on: Batch) -> Callable[[], float]:
        if precision == "bfloat16":
            method.to(memory_format=torch.channels_last)
        step = Step(config, method.train(), make_optimizer(config, method), CPU, precision)
        return lambda: step(on, config.learning_rate)["loss"].item()

    steps = {"plain (ppi)": made(plain, make_method(plain, 0)[0], given), "meta-uscl": made(meta, make_method(meta, 0)[0], with_meta)}
    return steps | ({"second order": made(meta, second_order(meta), with_meta)} if peer else {})


def measure(steps: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Clock and processor seconds of every repeat of each step, interleaved, the order turned by one from repeat to repeat."""
    names = list(steps)
    for name in names:
        if not np.isfinite(value := steps[name]()):
            raise SystemExit(f"{name}: the loss is {value}")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            clock, processor = time.perf_counter(), time.process_time()
            steps[name]()
            times[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--without-second-order", action="store_true", help="it takes much memory at 224 pixels")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    difference = None if arguments.without_second_order else largest_difference()
    steps = steps_of(arguments.batch, arguments.image_size, arguments.precision, peer=not arguments.without_second_order)
    times = measure(steps, arguments.repeats)

    first = next(iter(times.values()))
    rows = []
    for name, measured in times.items():
        ratios = [[one[k] / other[k] for one, other in zip(measured, first, strict=True)] for k in (0, 1)]
        rows.append(
            {
                "step": name,
                "seconds": statistics.median(clock for clock, _ in measured),
                "processor_seconds": statistics.median(processor for _, processor in measured),
                "ratio": statistics.median(ratios[0]),
                "ratio_lowest": min(ratios[0]),
                "ratio_highest": max(ratios[0]),
                "processor_ratio": statistics.median(ratios[1]),
            }
        )
    about = {key: vars(arguments)[key] for key in ("batch", "image_size", "repeats", "threads", "precision")}
    about |= {"torch": torch.__version__, "difference_of_gradients": difference, "target": TARGET}
    for row in rows[1:]:
        hand_on(f"step of {row['step']} over a plain one", row["ratio"], "x", limit=TARGET if row["step"] == "meta-uscl" else None)
    if arguments.json:
        print(json.dumps({**about, "rows": rows}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'step':14} seconds  processor  ratio (lowest to highest)  of processor time")
    for row in rows:
        spread = f"{row['ratio_lowest']:.2f} to {row['ratio_highest']:.2f}"
        print(
            f"{row['step']:14} {row['seconds']:7.2f}  {row['processor_seconds']:9.2f}  {row['ratio']:5.2f} ({spread:14})"
            f"      {row['processor_ratio']:.2f}"
        )


if __name__ == "__main__":
    main()
