"""How evenly folds spread labels, beside scikit-learn's StratifiedGroupKFold and, on tiny cases, the best that there is.

    python benchmarks/splits.py [SET ...]

Random groupings (and any data sets given) into five folds. Figures are the distance of a label's share in a fold from one fifth, in points
of 100: its mean over labels and folds, and its largest, each as a mean over cases; smaller is better. Where a largest group alone is
more than a fold, no method can make the largest one small.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import product

import numpy as np
from measured import hand_on
from sklearn.model_selection import StratifiedGroupKFold

from usdata import manifest
from usdata.splits import assign_parts, label_counts

Groups = dict[str, Counter[str]]
Methods = dict[str, Callable[[Groups, int], dict[str, int]]]
FOLDS = 5
CASES = 40


def distances(groups: Groups, fold_of: dict[str, int], count: int) -> tuple[float, float]:
    """Mean and largest distance of a label's share in a fold from 1/count, in points of 100."""
    totals: Counter[str] = sum(groups.values(), Counter())
    inside: Counter[tuple[str, int]] = Counter()
    for group, sizes in groups.items():
        for label, size in sizes.items():
            inside[label, fold_of[group]] += size
    off = [100 * abs(inside[label, fold] / total - 1 / count) for label, total in totals.items() for fold in range(count)]
    return float(np.mean(off)), max(off)


def ours(groups: Groups, seed: int) -> dict[str, int]:
    """`usdata split`."""
    return assign_parts(groups, [1 / FOLDS] * FOLDS, seed=seed)


def peer(groups: Groups, seed: int) -> dict[str, int]:
    """StratifiedGroupKFold, shuffled, of a row a frame."""
    rows = [(group, label) for group, sizes in groups.items() for label, size in sizes.items() for _ in range(size)]
    names, labels = np.array([group for group, _ in rows]), np.array([label for _, label in rows])
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(names, labels, names)
    return {str(group): fold for fold, (_, held_out) in enumerate(folds) for group in set(names[held_out])}


def one_label(draw: np.random.Generator) -> Groups:
    """35 groups of 5 to 60 frames of one label, three labels at 50, 30 and 20 of 100."""
    return {f"g{n:02}": Counter({str(draw.choice(list("xyz"), p=[0.5, 0.3, 0.2])): int(draw.integers(5, 60))}) for n in range(35)}


def mixed(draw: np.random.Generator) -> Groups:
    """35 groups of up to three labels each."""
    groups: Groups = {}
    for n in range(35):
        labels = draw.choice(list("xyz"), size=draw.integers(1, 4), p=[0.5, 0.3, 0.2])
        groups[f"g{n:02}"] = sum((Counter({str(label): int(draw.integers(2, 40))}) for label in labels), Counter())
    return groups


def skewed(draw: np.random.Generator) -> Groups:
    """60 groups whose sizes spread over two powers of ten, as hospitals do."""
    return {f"g{n:02}": Counter({str(draw.choice(list("xy"), p=[0.8, 0.2])): int(10 ** draw.uniform(0.3, 2.3)) + 1}) for n in range(60)}


def report(title: str, cases: list[Groups], methods: Methods) -> None:
    figures = []
    for name, method in methods.items():
        start = time.perf_counter()
        values = [distances(groups, method(groups, seed), FOLDS) for seed, groups in enumerate(cases)]
        milliseconds = 1000 * (time.perf_counter() - start) / len(cases)
        mean, largest = np.mean(values, axis=0)
        if name in ("seed 0", "peer"):
            words = "our folds" if name == "seed 0" else "StratifiedGroupKFold"
            hand_on(f"{title}: labels' largest distance from even, {words}", largest, "points", load=False)
        figures.append(f"{name} {mean:.2f} / {largest:.2f} ({milliseconds:.1f} ms)")
    print(f"{title:26} {'   '.join(figures)}")


def against_the_best(draw: np.random.Generator) -> None:
    """Two folds of eight groups, every assignment tried."""
    off, best_off = [], []
    for _ in range(CASES):
        groups = {f"g{n}": Counter({str(draw.choice(list("xy"))): int(draw.integers(5, 60))}) for n in range(8)}
        names = list(groups)
        off.append(distances(groups, assign_parts(groups, [0.5, 0.5], seed=0), 2)[1])
        best_off.append(min(distances(groups, dict(zip(names, chosen, strict=True)), 2)[1] for chosen in product((0, 1), repeat=8)))
    print(f"{'8 groups, 2 folds':26} largest: seed 0 {np.mean(off):.2f}   best of all 256 {np.mean(best_off):.2f}")


def main(folders: list[str]) -> None:
    draw = np.random.default_rng(0)
    methods: Methods = {
        "seed 0": lambda groups, seed: ours(groups, 0),
        "other seeds": lambda groups, seed: ours(groups, seed + 1),
        "peer": peer,
    }
    for title, make in (("one label a group", one_label), ("up to three labels a group", mixed), ("sizes over 1:100", skewed)):
        report(title, [make(draw) for _ in range(CASES)], methods)
    against_the_best(draw)
    for folder in folders:
        frames = manifest.open_dataset(folder).frames
        labels = [label if isinstance(label, str) else None for label in frames["label"]]
        pairs = list(zip(frames["group_id"].astype(str), labels, strict=True))
        report(manifest.open_dataset(folder).name, [label_counts(pairs)] * 10, methods)


if __name__ == "__main__":
    main(sys.argv[1:])
