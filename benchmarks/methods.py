"""Every method on one pretraining set, judged on another one by group folds: the tables of docs/results/methods.md.

    python benchmarks/methods.py CLIPS OUT --seeds 3 --epochs 60 --image-size 64      pretrain on COVID-BLUES, judge on POCUS
    python benchmarks/methods.py --phantom OUT --epochs 30 --batch-size 16                     the same on simulated clips, by kNN alone

CLIPS holds the folders covid_blues/ and pocus_lung/ with their labels.csv. Each recipe is trained at its own settings but for the image
size, the batch size, the epochs, the precision and what `--set` says, and once for each seed; a run that is finished is not trained again,
so the program may be stopped and started again. Judged are frozen features by k nearest neighbours and by a linear probe, on folds that no
group crosses, with random weights (as many initialisations) beside them. Intervals resample groups, and pretraining seeds with them, the
same groups for both sides of a difference, and are widened for few groups (`uscl.evaluation.metrics`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from uscl.config import recipe_names
from uscl.evaluation import metrics
from uscl.evaluation.metrics import Predictions

BIN = Path(sys.executable).parent
NOT_COMPARED = ("demo",)
RANDOM = "random"
RESAMPLES = 2000


def main() -> None:
    asked = arguments()
    out: Path = asked.out
    train, test, where = sets(asked)
    recipes = asked.recipes or [name for name in recipe_names() if name not in NOT_COMPARED]
    runs = {(recipe, seed): out / "runs" / f"{recipe}-{seed}" for seed in range(asked.seeds) for recipe in recipes}
    with ThreadPoolExecutor(asked.processes) as pool:
        list(pool.map(lambda item: pretrain(train, item[1], *item[0], asked), runs.items()))
    done = {key: run for key, run in runs.items() if (run / "export" / "backbone.safetensors").is_file()}
    for key in runs.keys() - done.keys():
        print(f"{key[0]}, seed {key[1]}: has no weights; see {runs[key]}/log.txt", file=sys.stderr)
    for kind in ("knn",) if asked.phantom else ("knn", "linear"):
        print(f"\n{kind}, {asked.image_size} pixels, {asked.epochs} epochs\n")
        print(table(predictions(kind, test, where, done, asked), done))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="?", help="folder with covid_blues/ and pocus_lung/")
    parser.add_argument("out", type=Path)
    parser.add_argument("--phantom", action="store_true", help="simulated clips; CLIPS is left out")
    parser.add_argument("--recipes", nargs="*", help="by default all")
    training_options(parser)
    asked = parser.parse_args()
    if not asked.phantom and asked.clips is None:
        parser.error("CLIPS is missing")
    return asked


def training_options(parser: argparse.ArgumentParser) -> None:
    """What `pretrain` reads of the arguments."""
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--processes", type=int, default=2, help="runs at once, a thread each")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="[RECIPE:]A.B=C", help="for all recipes or one")


def sets(asked: argparse.Namespace) -> tuple[Path, Path, list[str]]:
    """The set to pretrain on, the set to judge on, and which frames of it."""
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    if asked.phantom:
        if not (out / "set").exists():
            command("usdata", "phantom", out / "raw", "--videos", "240")
            command("usdata", "build", "phantom", "--raw", out / "raw", "--out", out / "set", "--set", "split.test=0.5")
        return out / "set", out / "set", ["split=test"]
    for name, folder in (("covid-blues", "covid_blues"), ("pocus-convex", "pocus_lung")):
        if not (out / name).exists():
            command("usdata", "build", name, "--raw", asked.clips / folder, "--out", out / name)
    return out / "covid-blues", out / "pocus-convex", []


def command(*words: object) -> None:
    subprocess.run([str(BIN / str(words[0])), *map(str, words[1:])], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def pretrain(train: Path, run: Path, recipe: str, seed: int, asked: argparse.Namespace) -> None:
    if (run / "export" / "backbone.safetensors").is_file():
        return
    settings = [f"seed={seed}", f"epochs={asked.epochs}", f"image_size={asked.image_size}", f"batch_size={asked.batch_size}"]
    settings.append(f"precision={asked.precision}")
    for given in asked.overrides:
        named, colon, rest = given.partition(":")
        own = colon and named in recipe_names()
        settings += [rest if own else given] if not own or named == recipe else []
    words = [BIN / "uscl", "pretrain", train, "--out", run, "--recipe", recipe, "--resume"]
    words += [word for setting in settings for word in ("--set", setting)]
    began = time.monotonic()
    done = subprocess.run(list(map(str, words)), env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    said = f"{time.monotonic() - began:.0f} s" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
    print(f"{recipe}, seed {seed}: {said}", file=sys.stderr, flush=True)


def predictions(
    kind: str, test: Path, where: list[str], done: dict[tuple[str, int], Path], asked: argparse.Namespace
) -> dict[tuple[str, int], pd.DataFrame]:
    """Held-out predictions of each run under every seed of the folds, and of as many random initialisations."""
    out = asked.out / f"{kind}-{asked.image_size}"
    words = ["evaluate", kind, test, "--image-size", asked.image_size, "--seeds", max(asked.seeds, 3), "--out", out, "--overwrite"]
    words += [word for each in where for word in ("--where", each)] + (["--folds", 4] if asked.phantom else [])
    command("uscl", *words, "--weights", RANDOM, *(word for run in done.values() for word in ("--weights", run)))
    table = pd.read_parquet(out / "predictions.parquet")
    named = {run.name: key for key, run in done.items()}
    last = table["weights"].str.split("/").str[-1]
    found = {key: table[last == name] for name, key in named.items()}
    random = table[table["weights"] == RANDOM]
    return {**{(RANDOM, int(seed)): part for seed, part in random.groupby("seed")}, **found}


def table(found: dict[tuple[str, int], pd.DataFrame], done: dict[tuple[str, int], Path], base: str = RANDOM) -> str:
    """A row a recipe, best first: balanced accuracy by frame and by video, and what it is above random weights or another base."""
    matrices = {level: {key: group_matrices(part, level) for key, part in found.items()} for level in ("frame", "video")}
    recipes = list(dict.fromkeys(key[0] for key in found))
    rows = []
    for recipe in recipes:
        cells = []
        for level in ("frame", "video"):
            own = np.stack([matrix for key, matrix in matrices[level].items() if key[0] == recipe])
            theirs = np.stack([matrix for key, matrix in matrices[level].items() if key[0] == base])
            per_seed = metrics.scores_of_confusion(own.sum(axis=1).astype(float))["balanced_accuracy"]
            ours = resampled(own) - resampled(theirs)
            level_of_base = metrics.scores_of_confusion(theirs.sum(axis=1).astype(float))["balanced_accuracy"].mean()
            quantile = metrics.widened_quantile(own[0].sum(axis=2))
            low, high = (100 * end for end in metrics.interval(ours, quantile=quantile))
            seeds = f"{100 * per_seed.min():.1f} to {100 * per_seed.max():.1f}"
            difference = "" if recipe == base else f"{100 * (per_seed.mean() - level_of_base):+.1f} [{low:+.1f}, {high:+.1f}]"
            cells.append((100 * per_seed.mean(), seeds, difference))
        rows.append((cells[1][0], recipe, cells))
    lines = [
        f"| recipe | balanced accuracy, frame | of its seeds | above {base} | balanced, video | of its seeds | above {base} | seconds |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for _, recipe, cells in sorted(rows, reverse=True):
        numbers = " | ".join(f"{mean:.1f} | {seeds} | {difference}" for mean, seeds, difference in cells)
        spent = [json.loads((run / "run.json").read_text())["seconds"] for key, run in done.items() if key[0] == recipe]
        lines.append(f"| {recipe} | {numbers} | {np.median(spent):.0f} |" if spent else f"| {recipe} | {numbers} | |")
    return "\n".join(lines)


def group_matrices(part: pd.DataFrame, level: str) -> np.ndarray:
    """(groups, C, C) confusion matrices of one run, all its folds' seeds together."""
    classes = sorted(part["label"].unique())
    truth = part["label"].map(classes.index).to_numpy()
    groups = np.unique(part["independent_group"], return_inverse=True)[1]
    probabilities = part[[f"probability_{name}" for name in classes]].to_numpy()
    frames = Predictions(truth, probabilities, groups)
    if level == "video":
        videos = np.unique(part["video_id"] + " " + part["seed"].astype(str), return_inverse=True)[1]
        frames = metrics.by_video(frames, videos)
    return metrics.group_confusions(frames, groups.max() + 1)


def resampled(matrices: np.ndarray) -> np.ndarray:
    """(RESAMPLES,) balanced accuracies, mean over resampled seeds, of resampled groups; equal numbers of groups meet equal draws."""
    seeds, groups = matrices.shape[:2]
    draws = metrics.bootstrap_draws(groups, resamples=RESAMPLES, seed=0).astype(float)
    summed = np.tensordot(draws, matrices.astype(float), axes=([1], [1]))
    scores = metrics.scores_of_confusion(summed)["balanced_accuracy"]
    chosen = np.random.default_rng(seeds).multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    return np.nansum(scores * chosen, axis=1) / seeds


if __name__ == "__main__":
    main()
