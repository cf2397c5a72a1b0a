"""How much an evaluation on held-out patients of one's own hospital says of another hospital: docs/results/external.md.

    python benchmarks/external.py CLIPS OUT [--weights WEIGHTS ...] [--image-size 64]

CLIPS holds pocus_lung/ with its labels.csv. Of its convex clips those of one hospital group (Northumbria's; batches called nhs_*) make one
set, those of all other sources the other, each with two labels, pneumonia and regular. On each set a probe is judged by group folds
(`uscl evaluate`), then one is fitted on all of it (`uscl fit`) and judged on the other set as it is (`uscl validate`). What is done is not
done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

LABELS = ("regular", "bacterial_pneumonia")
HOSPITAL, ELSEWHERE = "northumbria", "elsewhere"
BATCH = "nhs_"
HEADS = {"linear": "linear probe", "knn": "20 neighbours"}
LEVELS = {"frame": "frame", "video": "video"}


def main() -> None:
    asked = arguments()
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    raw = asked.clips / "pocus_lung"
    sets = {name: built(raw, out, name) for name in (HOSPITAL, ELSEWHERE)}
    size = ["--image-size", asked.image_size]
    rows = []
    for own, other in ((ELSEWHERE, HOSPITAL), (HOSPITAL, ELSEWHERE)):
        for head, called in HEADS.items():
            words = [word for weights in asked.weights for word in ("--weights", weights)]
            done = out / f"{asked.image_size}-pixels-{asked.folds}-folds" / f"{own}-{head}"
            inside = run(done / "own", "evaluate", head, sets[own], *words, *size, "--folds", asked.folds)
            models = []
            for number, weights in enumerate(asked.weights):
                model = done / f"{number}-{Path(weights).name}"
                run(model, "fit", sets[own], "--weights", weights, "--head", head, *size)
                models += ["--model", model]
            outside = run(done / "other", "validate", sets[other], *models)
            for first, second in zip(inside["weights"], outside["weights"], strict=True):
                cells = " | ".join(told(entry, level) for entry in (first, second) for level in LEVELS)
                rows.append(f"| {own} | {called} | {first['name']} | {cells} |")
    print(f"| fitted on | probe | weights | {' | '.join(f'own groups, by {level}' for level in LEVELS.values())} | ", end="")
    print(f"{' | '.join(f'other set, by {level}' for level in LEVELS.values())} |\n{'|---' * 7}|")
    print("\n".join(rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", action="append", default=[], help="by default random; may be given again")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--folds", type=int, default=3)
    asked = parser.parse_args()
    asked.weights = asked.weights or ["random"]
    return asked


def built(raw: Path, out: Path, name: str) -> Path:
    """One of the two sets, by a recipe on top of pocus-convex."""
    with (raw / "labels.csv").open(encoding="utf-8", newline="") as file:
        groups = sorted({row["group"] for row in csv.DictReader(file)})
    strangers = [group for group in groups if group.startswith(BATCH) == (name == ELSEWHERE)]
    exclude = [
        {"where": {"kind": "image"}, "reason": "a still"},
        {"where": {"probe": "linear"}, "reason": "linear probe"},
        {"where": {"label": ["viral_pneumonia", "covid"]}, "reason": "not at both"},
        {"where": {"group": strangers}, "reason": "of the other set"},
    ]
    recipe = out / f"{name}.yaml"
    about = {"name": name, "base": "pocus-convex", "sources": [{"name": "pocus-lung", "exclude": exclude}], "classes": list(LABELS)}
    recipe.write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")
    if not (out / name / "dataset.json").is_file():
        call("usdata", "build", recipe, "--raw", raw, "--out", out / name)
    return out / name


def run(folder: Path, *words: object) -> dict[str, Any]:
    """A verb of uscl with its `--out`, unless that is there; what it found."""
    marks = [folder / "evaluation.json", folder / "model.json"]
    if not any(mark.is_file() for mark in marks):
        folder.parent.mkdir(parents=True, exist_ok=True)
        call("uscl", *words, "--out", folder)
    found: dict[str, Any] = json.loads(next(mark for mark in marks if mark.is_file()).read_text(encoding="utf-8"))
    return found


def call(program: str, *words: object) -> None:
    done = subprocess.run([sys.executable, "-m", program, *map(str, words)], stdout=sys.stderr)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why


def told(entry: dict[str, Any], level: str) -> str:
    """Balanced accuracy and its interval, in percent."""
    values = entry["levels"][level]
    low, high = values["interval"]["balanced_accuracy"]
    return f"{100 * values['pooled']['balanced_accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
