"""What honesty costs: the same weights judged as published and as new patients would judge them: docs/results/protocols.md.

    python benchmarks/protocols.py SET OUT --weights random --weights RUN [--seeds 3] [--finetune-seeds 1] [--image-size 96]

Linear probes of frozen features in folds by frame, by video and by group; and fine-tuning by the published protocol (100 epochs, the best
one chosen on each test fold), its own last epoch beside it, and the honest protocol, in the same folds by group. Each at the level of
frames, videos and groups, with intervals that resample groups. ImageNet weights are judged too where their file is on this machine. Every
evaluation has a folder of its own in OUT and is not run again once it is whole, so the program may be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

# As `uscl evaluate` calls them, and as they are called here.
SHOWN = {"frame": "frame", "video": "video", "patient": "group"}
IMAGENET = "imagenet"


def main() -> None:
    asked = arguments()
    weights = [*dict.fromkeys(asked.weights)]
    if IMAGENET not in weights and imagenet_is_here():
        weights.append(IMAGENET)
    common = ["--image-size", asked.image_size, *(word for name in weights for word in ("--weights", name))]
    common += [word for name in asked.allow_overlap for word in ("--allow-overlap", name)]
    seeds = ["--seeds", asked.seeds]
    by_frame = evaluated(asked, "linear-frame", "linear", *common, *seeds, "--protocol", "both", "--folds-by", "frame")
    by_video = evaluated(asked, "linear-video", "linear", *common, *seeds, "--protocol", "published", "--folds-by", "video")
    print(f"\nLinear probe of frozen features, {asked.image_size} pixels, {asked.seeds} seeds: folds by\n")
    print(table([("frame", by_frame, "published"), ("video", by_video, "published"), ("group", by_frame, "honest")]))
    if not asked.no_finetune:
        tuned = [] if asked.epochs is None else ["--epochs", asked.epochs]
        found = evaluated(asked, "finetune", "finetune", *common, "--seeds", asked.finetune_seeds, "--protocol", "both", *tuned)
        print(f"\nFine-tuning, {asked.image_size} pixels, folds by group, {asked.finetune_seeds} seeds\n")
        rows = [
            ("published: best test epoch", "published"),
            ("the same training, last epoch", "published-last-epoch"),
            ("honest", "honest"),
        ]
        print(table([(told, found, key) for told, key in rows]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="labelled data set with known groups, such as of 'usdata build pocus-convex'")
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", action="append", default=[], help="as 'uscl evaluate' takes them; random alone by default")
    parser.add_argument("--seeds", type=int, default=3, help="of the linear probes")
    parser.add_argument("--finetune-seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="of fine-tuning; by default each protocol's own")
    parser.add_argument("--folds", type=int, help="by default the set's")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--no-finetune", action="store_true", help="linear probes alone")
    parser.add_argument("--allow-overlap", action="append", default=[], metavar="NAME")
    asked = parser.parse_args()
    asked.weights = asked.weights or ["random"]
    return asked


def imagenet_is_here() -> bool:
    """Whether the file is on this machine; a download for a table would be a surprise."""
    home = Path(os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch")
    return any((home / "hub" / "checkpoints").glob("resnet18-*.pth"))


def evaluated(asked: argparse.Namespace, name: str, kind: str, *options: object) -> pd.DataFrame:
    """Held-out predictions, with the weights' own names; of an evaluation that is whole the written ones."""
    out = asked.out / name
    words = [kind, str(asked.set), *map(str, options), *(["--folds", str(asked.folds)] if asked.folds else [])]
    said = asked.out / f"{name}.json"
    if not (out / "evaluation.json").is_file() or not said.is_file() or json.loads(said.read_text()) != words:
        asked.out.mkdir(parents=True, exist_ok=True)
        said.unlink(missing_ok=True)
        command = [sys.executable, "-m", "uscl", "evaluate", *words, "--out", str(out), "--overwrite"]
        done = subprocess.run(command, stdout=sys.stderr)
        if done.returncode:
            sys.exit(done.returncode)  # it has said why
        said.write_text(json.dumps(words))
    judged = json.loads((out / "evaluation.json").read_text())["weights"]
    found = pd.read_parquet(out / "predictions.parquet")
    found["weights"] = found["weights"].map({entry["name"]: entry["weights"] for entry in judged})
    return found


def table(rows: list[tuple[str, pd.DataFrame, str]]) -> str:
    """A row for each way of judging and each of the weights; accuracy / balanced accuracy [95 %] in percent by level."""
    lines = [f"| | weights | {' | '.join(SHOWN.values())} |", f"|---|---|{'---|' * len(SHOWN)}"]
    for told, found, protocol in rows:
        own = found[found["protocol"] == protocol]
        for name in own["weights"].unique():
            cells = " | ".join(figures(own[own["weights"] == name], level) for level in SHOWN)
            lines.append(f"| {told} | {name} | {cells} |")
    return "\n".join(lines)


def figures(part: pd.DataFrame, level: str) -> str:
    """Accuracy / balanced accuracy [interval] in percent, seeds together, as `uscl evaluate` gives them."""
    from uscl.evaluation.metrics import Predictions
    from uscl.evaluation.summary import LEVELS, every_draw, judge

    classes = sorted(part["label"].unique())
    names, per_seed = sorted(part["independent_group"].unique()), []
    for _, own in part.groupby("seed"):
        groups = own["independent_group"].map({name: number for number, name in enumerate(names)}).to_numpy()
        probabilities = own[[f"probability_{name}" for name in classes]].to_numpy()
        frames = Predictions(own["label"].map(classes.index).to_numpy(), probabilities, groups)
        per_seed.append(LEVELS[level](frames, np.unique(own["video_id"], return_inverse=True)[1]))
    judged = judge(per_seed, every_draw(len(names)))
    accuracy, balanced = (judged.pooled[metric] for metric in ("accuracy", "balanced_accuracy"))
    low, high = judged.interval["balanced_accuracy"]
    return f"{100 * accuracy:.1f} / {100 * balanced:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
