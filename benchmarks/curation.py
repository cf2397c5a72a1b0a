"""Does curation help? The same pretraining on a set as its recipe has it, and on one curated otherwise: docs/results/comparison.md.

    python benchmarks/curation.py CLIPS OUT [--recipes ivpp-vicreg] [--seeds 3] [--epochs 60]

CLIPS holds the folders covid_blues/ and pocus_lung/ with their labels.csv. COVID-BLUES is built as its recipe says; with everything
outside the field of view black; and with repeats kept, as a script has it that takes frames by their times alone. A variant that changes
less than one frame in a hundred is left out. POCUS is built in the same three ways, and each is judged on by neighbours, in folds by
group, with random weights beside. Where OUT is that of `methods.py`, its runs of the first set are used; the settings are the same by
default.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import methods

ADAM = ("optimizer.name=adam", "learning_rate=3e-4", "weight_decay=1e-4", "schedule.warmup_epochs=0")
MASKED = ("image.crop=mask",)
WITH_REPEATS = ("hygiene.near_repeat_difference=0", "hygiene.repeated=all", "sources.0.sampling.over=decoded")
# What a set is built with besides its recipe.
VARIANTS = {"": (), "masked": MASKED, "with-repeats": WITH_REPEATS}
LEAST_CHANGE = 0.01


def main() -> None:
    asked = arguments()
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    trained_on = {name: built(asked, "covid-blues", "covid_blues", name) for name in VARIANTS}
    runs = {}
    for name in VARIANTS:
        if hardly_differs(name, trained_on[name], trained_on[""]):
            continue
        for recipe in asked.recipes:
            for seed in range(asked.seeds):
                told = f"{recipe}-{name}" if name else recipe
                runs[told, seed] = (trained_on[name], out / "runs" / f"{told}-{seed}", recipe)
    with ThreadPoolExecutor(asked.processes) as pool:
        list(pool.map(lambda item: methods.pretrain(item[1][0], item[1][1], item[1][2], item[0][1], asked), runs.items()))
    done = {key: run for key, (_, run, _) in runs.items()}
    for key, run in done.items():
        if not (run / "export" / "backbone.safetensors").is_file():
            sys.exit(f"{key[0]}, seed {key[1]}: has no weights; see {run}/log.txt")
    judges = {name: built(asked, "pocus-convex", "pocus_lung", name) for name in VARIANTS}
    for name, test in judges.items():
        if hardly_differs(name, test, judges[""]):
            continue
        asked.out = out / f"judged-on-{test.name}"
        found = methods.predictions("knn", test, [], done, asked)
        asked.out = out
        print(f"\nJudged by neighbours on {test.name}, {asked.image_size} pixels, {asked.epochs} epochs\n")
        for base in (methods.RANDOM, *asked.recipes):
            print(methods.table(found, done, base), "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder with covid_blues/ and pocus_lung/")
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipes", nargs="*", default=["ivpp-vicreg"])
    methods.training_options(parser)
    asked = parser.parse_args()
    asked.overrides = [*ADAM, *asked.overrides]  # what is given comes last and wins
    asked.phantom = False
    return asked


def built(asked: argparse.Namespace, recipe: str, folder: str, name: str) -> Path:
    """The set, with a line of what is in it; one that stands is taken."""
    out = asked.out / (f"{recipe}-{name}" if name else recipe)
    if not out.exists():
        words = [word for change in VARIANTS[name] for word in ("--set", change)]
        methods.command("usdata", "build", recipe, "--raw", asked.clips / folder, "--out", out, *words)
    print(f"{out.name}: {frames_of(out)} frames", flush=True)
    return out


def hardly_differs(name: str, dataset: Path, usual: Path) -> bool:
    """Whether keeping repeats changed too little for a difference to be seen; then a line says so."""
    hardly = name == "with-repeats" and abs(frames_of(dataset) / frames_of(usual) - 1) < LEAST_CHANGE
    if hardly:
        print(f"{dataset.name} is left out: it hardly differs", flush=True)
    return hardly


def frames_of(dataset: Path) -> int:
    return int(json.loads((dataset / "dataset.json").read_text())["counts"]["frames"])


if __name__ == "__main__":
    main()
