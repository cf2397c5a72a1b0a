"""What choosing the best epoch on the test fold gives for nothing: labels that have nothing to do with the features.

    python benchmarks/selection_optimism.py [--runs 40] [--json FILE]

A set of the benchmark's size: 2,116 frames (655, 349, 1,112 of three classes) in folds of 476, 369, 487, 360 and 424, videos of about 20
frames, each a group of its own and never cut. 100 epochs in each of five folds, then the five matrices are added up, as published. Two
kinds of predictions that cannot know anything:

- drawn: in every epoch each frame, or each video as a whole, is given a class at random, by the classes' shares;
- trained: a small network (32 features, 32 hidden units, Adam 0.01, weight decay 1e-4, batch 32, cosine) on random features of videos and
  frames, with labels drawn for whole videos.

Prints accuracy and balanced accuracy by frame and by video (mean probability, or the video's own class), mean and standard deviation over
runs, for the best epoch on the test fold, the last epoch, and the best epoch on a validation fold taken out of the training folds. The
truth is a balanced accuracy of one third.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from measured import hand_on
from numpy.typing import NDArray

from uscl.evaluation import metrics
from uscl.evaluation.metrics import Predictions

CLASS_FRAMES = (655, 349, 1112)
FOLD_FRAMES = (476, 369, 487, 360, 424)
FRAMES_A_VIDEO = 20
EPOCHS, BATCH, RATE, DECAY = 100, 32, 0.01, 1e-4
FEATURES, HIDDEN = 32, 32
NAMES = ("accuracy", "balanced_accuracy")
BEST, LAST, VALIDATED = "best epoch on the test fold", "last epoch", "best epoch on a validation fold"


def draw_set(generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(n,) fold, video and label of each frame; whole videos have one label, in about the published shares."""
    fold = np.repeat(np.arange(len(FOLD_FRAMES)), FOLD_FRAMES)
    video = np.concatenate([np.arange(frames) // FRAMES_A_VIDEO + 100 * number for number, frames in enumerate(FOLD_FRAMES)])
    video = np.unique(video, return_inverse=True)[1]
    count = int(video.max()) + 1
    exact = np.array(CLASS_FRAMES) / sum(CLASS_FRAMES) * count
    each = np.floor(exact).astype(int)
    each[np.argsort(exact - each)[len(each) - (count - each.sum()) :]] += 1
    return fold, video, generator.permutation(np.repeat(np.arange(3), each))[video]


def drawn(generator: np.random.Generator, *, whole_videos: bool) -> dict[str, dict[str, float]]:
    """One run of predictions drawn at random: the way of choosing to its metrics."""
    fold, video, label = draw_set(generator)
    shares = np.array(CLASS_FRAMES) / sum(CLASS_FRAMES)
    units = video if whole_videos else np.arange(len(label))
    named = generator.choice(3, size=(EPOCHS, units.max() + 1), p=shares)[:, units]
    best, last = np.zeros_like(label), named[-1]
    for number in range(len(FOLD_FRAMES)):
        test = fold == number
        # The validation fold of a model that knows nothing tells nothing: choosing by it is choosing at random.
        best[test] = named[int((named[:, test] == label[test]).mean(axis=1).argmax())][test]
    return {way: _figures(np.eye(3)[chosen], label, video) for way, chosen in ((BEST, best), (LAST, last))}


def trained(runs: int, first: int) -> list[dict[str, dict[str, float]]]:
    """Runs of small networks, all trained side by side; a model of its own for every run, fold, and way of training."""
    torch.manual_seed(first)
    sets, features, jobs = [], [], []
    for run in range(first, first + runs):
        generator = np.random.default_rng([run, 1])
        fold, video, label = draw_set(generator)
        of_video = generator.normal(size=(int(video.max()) + 1, FEATURES))
        sets.append((fold, video, label))
        features.append(torch.tensor(of_video[video] + 0.7 * generator.normal(size=(len(label), FEATURES)), dtype=torch.float32))
        for number in range(len(FOLD_FRAMES)):
            validation = (number + 1) % len(FOLD_FRAMES)
            jobs.append((run - first, number, None, np.flatnonzero(fold != number)))
            jobs.append((run - first, number, validation, np.flatnonzero((fold != number) & (fold != validation))))
    seen = torch.stack(features)
    labels = torch.tensor(np.stack([label for _, _, label in sets]))
    own = torch.tensor([job[0] for job in jobs])
    parameters = [
        (torch.randn(len(jobs), FEATURES, HIDDEN) / FEATURES**0.5).requires_grad_(),
        torch.zeros(len(jobs), 1, HIDDEN, requires_grad=True),
        (torch.randn(len(jobs), HIDDEN, 3) / HIDDEN**0.5).requires_grad_(),
        torch.zeros(len(jobs), 1, 3, requires_grad=True),
    ]

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(torch.baddbmm(parameters[1], inputs, parameters[0]))
        return torch.baddbmm(parameters[3], hidden, parameters[2])

    optimizer = torch.optim.Adam(parameters, lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    generator = np.random.default_rng([first, 2])
    steps = min(len(job[3]) for job in jobs) // BATCH
    best_on: list[dict[str, tuple[float, np.ndarray]]] = [{} for _ in jobs]
    for _ in range(EPOCHS):
        orders = np.stack([generator.permutation(job[3])[: steps * BATCH] for job in jobs])
        for step in range(steps):
            rows = torch.tensor(orders[:, step * BATCH : (step + 1) * BATCH])
            logits = forward(seen[own[:, None], rows])
            loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 3), labels[own[:, None], rows].reshape(-1), reduction="sum") / BATCH
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.inference_mode():
            probabilities = forward(seen[own]).softmax(dim=2).numpy()
        for job, (run, number, validation, _) in enumerate(jobs):
            fold, _, label = sets[run]
            test = fold == number
            right = probabilities[job].argmax(axis=1) == label
            # An earlier epoch stays where a later one is as good; the last is always the last.
            kept = {LAST: np.inf, BEST: right[test].mean()} if validation is None else {VALIDATED: right[fold == validation].mean()}
            for way, reached in kept.items():
                if way == LAST or reached > best_on[job].get(way, (-1.0,))[0]:
                    best_on[job][way] = (reached, probabilities[job][test].copy())
    found = []
    for run, (fold, video, label) in enumerate(sets):
        figures = {}
        for way in (BEST, LAST, VALIDATED):
            together = np.zeros((len(label), 3))
            for job, (of, number, _, _) in enumerate(jobs):
                if of == run and way in best_on[job]:
                    together[fold == number] = best_on[job][way][1]
            figures[way] = _figures(together, label, video)
        found.append(figures)
    return found


def _figures(probabilities: np.ndarray, label: NDArray[np.int64], video: NDArray[np.int64]) -> dict[str, float]:
    frames = Predictions(label, probabilities, video)
    found = {}
    for level, items in (("frame", frames), ("video", metrics.by_video(frames, video))):
        values = metrics.scores_of_confusion(metrics.confusion(items).astype(float))
        found |= {f"{level} {name.replace('_', ' ')}": float(values[name]) for name in NAMES}
    return found


def measure(runs: int, models_at_once: int = 10) -> dict[str, list[dict[str, dict[str, float]]]]:
    """All runs of every kind of predictions."""
    found = {
        "drawn, frame by frame": [drawn(np.random.default_rng([run, 0]), whole_videos=False) for run in range(runs)],
        "drawn, video by video": [drawn(np.random.default_rng([run, 0]), whole_videos=True) for run in range(runs)],
        "trained": [],
    }
    for first in range(0, runs, models_at_once):
        found["trained"] += trained(min(models_at_once, runs - first), first)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(given.runs)
    cases = list(next(iter(found.values()))[0][BEST])
    print("| predictions | kept | " + " | ".join(cases) + " |")
    print("|---" * (len(cases) + 2) + "|")
    for kind, runs in found.items():
        for way in runs[0]:
            values = {case: [100 * run[way][case] for run in runs] for case in cases}
            shown = [f"{np.mean(each):.1f} ± {np.std(each, ddof=1):.1f}" for each in values.values()]
            mean = float(np.mean(values[cases[-1]]))
            hand_on(f"{kind}, {way}: {cases[-1]} where the truth is 33.3", mean, "%", load=False)
            print(f"| {kind} | {way} | " + " | ".join(shown) + " |")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
