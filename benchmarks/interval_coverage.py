"""Whether an interval of 95 % holds the truth in 95 % of cases: planted truth, frames correlated within patients.

    python benchmarks/interval_coverage.py [--runs 400] [--groups 30,60] [--json FILE]
    python benchmarks/interval_coverage.py --probabilities [--runs 400] [--groups 30]
    python benchmarks/interval_coverage.py --small-classes [--runs 400]

A patient has one of three classes, a few videos, and an effect of his own on the score of every class; a video and a frame add theirs. Two
models share part of these effects. The true value of a metric is that of 200,000 simulated patients. In each run so many patients are
drawn, and the intervals of each kind are asked whether they hold the truth. Prints tables, percent of the runs and in brackets the mean
width in points; beside them the bootstrap that takes frames (or videos) for independent.
--probabilities: the same of what depends on probabilities and not on the named class alone, which takes longer: AUROC, average precision,
calibration error, Brier score and log loss, as `uscl evaluate` gives them, beside plain percentiles of the same resamples.
--small-classes: balanced accuracy where one class has few groups and often not one error, one item a group.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from measured import hand_on
from numpy.typing import NDArray
from scipy.stats import norm, t

from uscl.evaluation import metrics
from uscl.evaluation.metrics import Predictions

Array = NDArray[np.float64]
CLASS_SHARES = (0.40, 0.25, 0.35)
# Score of the true class over the others, of the first and of the second model; about 60 and 90 % of the videos right.
SIGNALS = {"weak": (1.5, 1.2), "strong": (3.0, 2.2)}
POPULATION, AT_ONCE = 200_000, 20_000
RESAMPLES = 1000
NAMES = ("accuracy", "balanced_accuracy")
PROBABILITY_NAMES = ("auroc", "average_precision", "calibration_error", "brier_score", "log_loss")
OURS, OURS_DIFFERENCE = "widened accelerated percentile", "widened percentile"
# The same where recalls of a class do not vary, as `uscl evaluate` widens it further; of accuracy it is the same.
REACHING, REACHING_DIFFERENCE = f"{OURS}, as evaluated", f"{OURS_DIFFERENCE}, as evaluated"
# Groups of two classes, and their true recalls.
SMALL_CLASSES = (
    ((25, 5), (0.95, 0.80)),
    ((25, 5), (0.99, 0.70)),
    ((26, 4), (0.95, 0.80)),
    ((24, 6), (0.95, 0.85)),
    ((22, 8), (0.95, 0.90)),
)
NAIVE = "percentile, items as if independent"


def draw_patients(generator: np.random.Generator, count: int, signals: tuple[float, float]) -> tuple[list[Predictions], NDArray[np.int64]]:
    """The frames of so many patients as each of two models sees them, and each frame's video."""
    truth = generator.choice(3, count, p=CLASS_SHARES)
    videos_each = np.minimum(generator.geometric(0.35, count), 12)
    group_of_video = np.repeat(np.arange(count), videos_each)
    size = generator.normal(2.6, 0.6, len(group_of_video)) + generator.normal(0, 0.3, count)[group_of_video]
    frames_each = np.clip(np.round(np.exp(size)), 3, 60).astype(int)
    video = np.repeat(np.arange(len(group_of_video)), frames_each)
    group = group_of_video[video]
    shared = generator.normal(size=(count, 3))[group] + generator.normal(size=(len(video), 3))
    models = []
    for signal in signals:
        own = 0.7 * generator.normal(size=(count, 3))[group] + 0.5 * generator.normal(size=(len(group_of_video), 3))[video]
        logits = signal * np.eye(3)[truth[group]] + shared + own + 0.5 * generator.normal(size=(len(video), 3))
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        models.append(Predictions(truth[group], odds / odds.sum(axis=1, keepdims=True), group))
    return models, video


def on_levels(models: list[Predictions], video: NDArray[np.int64]) -> dict[str, list[Predictions]]:
    """The same by frame and by video."""
    return {"frame": models, "video": [metrics.by_video(model, video) for model in models]}


def true_values(signals: tuple[float, float], population: int = POPULATION) -> dict[str, list[dict[str, float]]]:
    """Accuracy and balanced accuracy of each model among very many patients, by frame and by video."""
    generator = np.random.default_rng(1)
    sums: dict[str, list[Array]] = {level: [np.zeros((3, 3)), np.zeros((3, 3))] for level in ("frame", "video")}
    for _ in range(population // AT_ONCE):
        for level, models in on_levels(*draw_patients(generator, AT_ONCE, signals)).items():
            for position, model in enumerate(models):
                sums[level][position] += metrics.confusion(model)
    return {
        level: [{name: float(values) for name, values in metrics.scores_of_confusion(matrix).items()} for matrix in matrices]
        for level, matrices in sums.items()
    }


def influences(matrices: Array, weights: Array) -> dict[str, Array]:
    """(R, groups): each group's influence on a metric at (R, groups) weights (the infinitesimal jackknife), for studentised intervals."""
    correct, items = np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(axis=2)
    named, right = weights @ items, weights @ correct
    accuracy = right.sum(axis=1) / named.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, inverse = np.where(named > 0, right / named, 0), np.where(named > 0, 1 / named, 0)
    by_recall = inverse @ correct.T - (recall * inverse) @ items.T
    return {
        "accuracy": (correct.sum(axis=1)[None] - accuracy[:, None] * items.sum(axis=1)[None]) / named.sum(axis=1)[:, None],
        "balanced_accuracy": by_recall / (named > 0).sum(axis=1, keepdims=True),
    }


def compared(estimate: float, values: Array, left_out: Array, own: Array, resampled_own: Array, draws: Array, wide: float) -> dict:
    """The interval of each kind from the same resamples."""
    groups = len(left_out)
    low, high = metrics.interval(values)
    skew = metrics.acceleration(left_out)
    bias = norm.ppf(np.clip((np.mean(values < estimate) + np.mean(values <= estimate)) / 2, 1e-3, 1 - 1e-3))
    z = np.array([-1, 1]) * metrics.NORMAL_QUANTILE
    error, resampled_error = np.sqrt((own**2).sum()), np.sqrt((draws * resampled_own**2).sum(axis=1))
    first, last = np.quantile((values - estimate) / np.maximum(resampled_error, 1e-6), [0.025, 0.975])
    reach = t.ppf(0.975, groups - 1) * np.sqrt(groups / (groups - 1)) * values.std(ddof=1)
    return {
        "percentile": (low, high),
        "basic": (2 * estimate - high, 2 * estimate - low),
        "BCa": tuple(np.quantile(values, norm.cdf(bias + (bias + z) / (1 - skew * (bias + z))))),
        "studentised": (estimate - last * error, estimate - first * error),
        "t with sqrt(g / (g - 1))": (estimate - reach, estimate + reach),
        OURS_DIFFERENCE: tuple(metrics.interval(values, quantile=wide)),
        OURS: tuple(metrics.interval(values, quantile=wide, skew=skew)),
    }


def reaches(matrices: list[NDArray[np.int64]], draws: NDArray[np.int64], *, paired: bool) -> tuple[float, float]:
    """How much farther an interval of balanced accuracy, or of the difference of two, reaches for classes that do not vary."""
    items = matrices[0].sum(axis=2)
    recalls = []
    for matrix in matrices[: 1 + paired]:
        drawn = np.tensordot(draws.astype(float), matrix.astype(float), axes=1)
        with np.errstate(invalid="ignore"):
            recalls.append(np.diagonal(drawn, axis1=1, axis2=2) / drawn.sum(axis=2))
    if paired:
        reach = metrics.unvarying_reach(recalls[0] - recalls[1], items)
        return reach, reach
    return metrics.unvarying_reach(recalls[0], items, at=1.0), metrics.unvarying_reach(recalls[0], items, at=0.0)


def small_class_coverage(sizes: tuple[int, ...], recalls: tuple[float, ...], runs: int) -> dict[str, tuple[float, float]]:
    """Kind of interval to coverage and mean width of the balanced accuracy of classes of so many groups, of one item each."""
    truth = np.repeat(np.arange(len(sizes)), sizes)
    groups, generator = len(truth), np.random.default_rng(1)
    found: dict = defaultdict(list)
    for run in range(runs):
        right = generator.random(groups) < np.array(recalls)[truth]
        named = np.where(right, truth, (truth + 1) % len(sizes))
        matrices = metrics.group_confusions(Predictions(truth, np.eye(len(sizes))[named], np.arange(groups)), groups)
        every = np.concatenate([metrics.bootstrap_draws(groups, resamples=RESAMPLES, seed=run), metrics.left_out_draws(groups)])
        values = metrics.resampled_scores(matrices, every)["balanced_accuracy"]
        estimate = metrics.scores_of_confusion(matrices.sum(axis=0).astype(float))["balanced_accuracy"]
        skew = metrics.acceleration(values[RESAMPLES:])
        items = matrices.sum(axis=2)
        all_right = float(metrics.effective_groups(items).sum())
        plain = metrics.interval(values[:RESAMPLES], quantile=metrics.widened_quantile(items), skew=skew, groups=all_right)
        reaching = metrics.with_reach(plain, float(estimate), *reaches([matrices], every[:RESAMPLES], paired=False))
        for kind, (low, high) in ((OURS, plain), (REACHING, reaching)):
            found[kind].append((low <= np.mean(recalls) <= min(high, 1.0), min(high, 1.0) - max(low, 0.0)))
    return {kind: tuple(np.mean(values, axis=0).tolist()) for kind, values in found.items()}


def small_classes(given: argparse.Namespace) -> None:
    """Measure and print."""
    print(f"| groups of the two classes | true recalls, % | {OURS} | {REACHING} |\n|---|---|--:|--:|")
    for sizes, recalls in SMALL_CLASSES:
        cells = " | ".join(
            f"{100 * hit:.1f} ({100 * width:.0f})" for hit, width in small_class_coverage(sizes, recalls, given.runs).values()
        )
        print(f"| {sizes[0]} and {sizes[1]} | {100 * recalls[0]:.0f} and {100 * recalls[1]:.0f} | {cells} |", flush=True)


def naive_interval(models: list[Predictions], name: str, generator: np.random.Generator) -> list[tuple[float, float]]:
    """Percentile intervals of the first model, and of the difference, from resampled items instead of groups."""
    cells = np.zeros((3, 3, 3))
    np.add.at(cells, (models[0].truth, models[0].predicted, models[1].predicted), 1)
    drawn = generator.multinomial(int(cells.sum()), cells.ravel() / cells.sum(), size=RESAMPLES).reshape(-1, 3, 3, 3).astype(float)
    first, second = (metrics.scores_of_confusion(drawn.sum(axis=axis))[name] for axis in (3, 2))
    return [tuple(metrics.interval(values)) for values in (first, first - second)]


def coverage(groups: int, signals: tuple[float, float], runs: int, population: int = POPULATION) -> dict[str, dict[str, dict[str, float]]]:
    """Kind of interval to case ('frame accuracy', 'frame accuracy difference', ...) to `covered` (a share) and mean `width`."""
    truth = true_values(signals, population)
    covered: dict = defaultdict(lambda: defaultdict(list))
    width: dict = defaultdict(lambda: defaultdict(list))
    for run in range(runs):
        generator = np.random.default_rng([groups, run])
        drawn = on_levels(*draw_patients(generator, groups, signals))
        draws = metrics.bootstrap_draws(groups, resamples=RESAMPLES, seed=run)
        every = np.concatenate([draws, metrics.left_out_draws(groups), np.ones((1, groups), dtype=np.int64)])
        for level, models in drawn.items():
            matrices = [metrics.group_confusions(model, groups) for model in models]
            wide = metrics.widened_quantile(matrices[0].sum(axis=2))
            found = [metrics.resampled_scores(matrix, every) for matrix in matrices]
            weights = every[[*range(RESAMPLES), -1]].astype(float)
            reached = [influences(matrix.astype(float), weights) for matrix in matrices]
            for name in NAMES:
                naive = naive_interval(models, name, generator)
                single = (found[0][name], reached[0][name], truth[level][0][name])
                paired = (found[0][name] - found[1][name], reached[0][name] - reached[1][name])
                cases = (single, (*paired, truth[level][0][name] - truth[level][1][name]))
                for (values, own, true), told, ends in zip(cases, ("", " difference"), naive, strict=True):
                    parts = (values[-1], values[:RESAMPLES], values[RESAMPLES:-1], own[-1], own[:-1], draws, wide)
                    kinds = compared(*parts)
                    below, above = reaches(matrices, every[:RESAMPLES], paired=bool(told)) if name == "balanced_accuracy" else (0.0, 0.0)
                    for kind, as_evaluated in ((OURS, REACHING), (OURS_DIFFERENCE, REACHING_DIFFERENCE)):
                        kinds[as_evaluated] = metrics.with_reach(kinds[kind], values[-1], below, above)
                    for kind, (low, high) in {**kinds, NAIVE: ends}.items():
                        case = f"{level} {name.replace('_', ' ')}{told}"
                        covered[kind][case].append(low <= true <= high)
                        width[kind][case].append(high - low)
    return {
        kind: {case: {"covered": float(np.mean(hits)), "width": float(np.mean(width[kind][case]))} for case, hits in cases.items()}
        for kind, cases in covered.items()
    }


def recall_coverage(groups: int, signals: tuple[float, float], runs: int, population: int = POPULATION // 2) -> dict[str, list[float]]:
    """How often the interval of each class' recall, as `uscl evaluate` gives it, holds the truth, and a plain percentile interval does."""
    generator = np.random.default_rng(1)
    sums = {level: np.zeros((3, 3)) for level in ("frame", "video")}
    for _ in range(population // AT_ONCE):
        for level, models in on_levels(*draw_patients(generator, AT_ONCE, signals)).items():
            sums[level] += metrics.confusion(models[0])
    covered: dict = defaultdict(list)
    for run in range(runs):
        drawn = on_levels(*draw_patients(np.random.default_rng([groups, run, 1]), groups, signals))
        draws = metrics.bootstrap_draws(groups, resamples=RESAMPLES, seed=run)
        every = np.concatenate([draws, metrics.left_out_draws(groups)])
        for level, models in drawn.items():
            truth = np.diagonal(sums[level]) / sums[level].sum(axis=1)
            own = metrics.group_confusions(models[0], groups)
            found = metrics.resample([models[0]], every).by_class["recall"]
            for index in np.flatnonzero(own.sum(axis=(0, 2))):
                items, values = own.sum(axis=2)[:, [index]], found[:, index]
                ours = {
                    "quantile": metrics.widened_quantile(items),
                    "skew": metrics.acceleration(values[RESAMPLES:]),
                    "groups": float(metrics.effective_groups(items).sum()),
                }
                for kind, settings in (("one class' own groups", ours), ("percentile", {})):
                    low, high = metrics.interval(values[:RESAMPLES], **settings)
                    covered[f"{kind}, {level}", index].append(low <= truth[index] <= high)
    return {kind: [float(np.mean(covered[kind, index])) for index in range(3)] for kind, _ in covered}


def probability_coverage(groups: int, signals: tuple[float, float], runs: int) -> dict[str, dict[str, dict[str, float]]]:
    """Case ('frame auroc', 'frame auroc difference', ...) to kind of interval to `covered` (a share), mean `width`, and `bias`.

    `bias` is the mean of the estimate less the truth: of a metric that is lifted by chance no interval about the estimate can hold.
    """
    generator = np.random.default_rng(2)
    large = [on_levels(*draw_patients(generator, AT_ONCE, signals)) for _ in range(4)]
    truth = {
        (level, name, position): float(np.mean([metrics.scores(part[level][position])[name] for part in large]))
        for level in ("frame", "video")
        for name in PROBABILITY_NAMES
        for position in (0, 1)
    }
    del large
    hits: dict = defaultdict(lambda: defaultdict(list))
    for run in range(runs):
        drawn = on_levels(*draw_patients(np.random.default_rng([groups, run, 2]), groups, signals))
        draws = metrics.bootstrap_draws(groups, resamples=RESAMPLES, seed=run)
        every = np.concatenate([draws, metrics.left_out_draws(groups), np.ones((1, groups), dtype=np.int64)])
        for level, models in drawn.items():
            wide = metrics.widened_quantile(metrics.group_confusions(models[0], groups).sum(axis=2))
            found = [metrics.resample([model], every).overall for model in models]
            for name in PROBABILITY_NAMES:
                both = [values[name] for values in found]
                first, second = truth[level, name, 0], truth[level, name, 1]
                for told, values, true, skewed in (
                    ("", both[0], first, True),
                    (" difference", both[0] - both[1], first - second, False),
                ):
                    skew = metrics.acceleration(values[RESAMPLES:-1]) if skewed else 0.0
                    ends = {
                        "ours": metrics.interval(values[:RESAMPLES], quantile=wide, skew=skew),
                        "percentile": metrics.interval(values[:RESAMPLES]),
                    }
                    for kind, (low, high) in ends.items():
                        hits[f"{level} {name.replace('_', ' ')}{told}"][kind].append((low <= true <= high, high - low, values[-1] - true))
    return {
        case: {kind: dict(zip(("covered", "width", "bias"), np.mean(each, axis=0).tolist(), strict=True)) for kind, each in kinds.items()}
        for case, kinds in hits.items()
    }


def probabilities(given: argparse.Namespace) -> None:
    """Measure and print what depends on probabilities."""
    for groups in (int(word) for word in given.groups.split(",")):
        for signal, signals in SIGNALS.items():
            print(f"\n**{groups} groups, {signal} signal**\n")
            print("| metric | ours covers, % | width | percentile covers, % | width | estimate less truth |\n|---|--:|--:|--:|--:|--:|")
            for case, kinds in probability_coverage(groups, signals, given.runs).items():
                cells = " | ".join(f"{100 * kinds[kind]['covered']:.1f} | {kinds[kind]['width']:.3f}" for kind in ("ours", "percentile"))
                print(f"| {case} | {cells} | {kinds['ours']['bias']:+.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--groups", default="30,60")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--probabilities", action="store_true", help="AUROC, average precision, calibration error, Brier score, log loss")
    parser.add_argument("--small-classes", action="store_true", help="balanced accuracy where one class has few groups")
    given = parser.parse_args()
    if given.small_classes:
        small_classes(given)
        return
    if given.probabilities:
        probabilities(given)
        return
    results = {}
    for groups in (int(word) for word in given.groups.split(",")):
        for signal, signals in SIGNALS.items():
            found = coverage(groups, signals, given.runs)
            results[f"{groups} groups, {signal} signal"] = found
            cases = list(found[OURS])
            print(f"\n**{groups} groups, {signal} signal**\n")
            print("| interval | " + " | ".join(cases) + " |")
            print("|---" * (len(cases) + 1) + "|")
            for kind, values in found.items():
                shown = [f"{100 * values[case]['covered']:.1f} ({100 * values[case]['width']:.0f})" for case in cases]
                print(f"| {kind} | " + " | ".join(shown) + " |", flush=True)
    print("\nLowest and highest over these cases, metrics and differences:")
    for kind in next(iter(results.values())):
        for told, wanted in (("metrics", False), ("differences", True)):
            all_ = [v["covered"] for found in results.values() for c, v in found[kind].items() if c.endswith("difference") == wanted]
            if kind in (REACHING_DIFFERENCE if wanted else REACHING, NAIVE):
                words = f"{kind}: least coverage of 95 % intervals, {told}"
                hand_on(words, 100 * min(all_), "%", limit=None if kind == NAIVE else 92, sense="at least", load=False)
            print(f"{kind:36} {told:12} {100 * min(all_):5.1f} to {100 * max(all_):5.1f}")
    print("\nRecall of each class (shares 40, 25 and 35 %), 30 groups:")
    for signal, signals in SIGNALS.items():
        for kind, shares in recall_coverage(30, signals, given.runs // 2).items():
            print(f"{signal:8} {kind:32} " + ", ".join(f"{100 * share:.1f}" for share in shares), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
