"""An evaluation in words: the answer in a sentence, how it was measured; and on a terminal.

In: the content of `evaluation.json`. Out: sentences, or tables of at most 80 columns. The page is drawn by `uscl.evaluation.reporting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from uscl.evaluation.summary import REPORT
from usdata.console import safe_text

if TYPE_CHECKING:
    from uscl.evaluation import EvaluationResult

TERMINAL_COLUMNS = 80
MOST_CLASSES_ON_TERMINAL = 12
METHODS = {"linear": "a linear probe of frozen features", "knn": "nearest neighbours of frozen features", "finetune": "fine-tuning"}
METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "calibration_error": "calibration error",
    "brier_score": "Brier score",
    "log_loss": "log loss",
}
LEVEL_NAMES = {"frame": "frame", "video": "video", "video_vote": "video (vote)", "patient": "patient"}


def answer(summary: dict[str, Any]) -> list[str]:
    """The answer in sentences: what was held out, what each of the weights reaches, and whether they differ."""
    dataset, folds = summary["dataset"], summary["folds"]
    seeds = len(folds)
    repeated = f", repeated with {seeds} seeds" if seeds > 1 else ""
    reached = []
    for position, entry in enumerate(summary["weights"]):
        frame = entry["levels"]["frame"]
        low, high = frame["interval"]["balanced_accuracy"]
        value = f"{percent(frame['pooled']['balanced_accuracy'])} % [{percent(low)}, {percent(high)}]"
        name = called(entry["name"])
        verb = "reaches" if name == entry["name"] else "reach"
        reached.append(f"{name} {verb} {value} balanced accuracy by frame" if position == 0 else f"{name} {value}")
    chance = percent(1 / len(dataset["classes"]))
    sentences = [
        f"On {dataset['groups']} independent groups held out in {folds[0]['count']} folds{repeated}, {'; '.join(reached)}.",
        f"Naming always the same class would give {chance} %.",
    ]
    for entry in summary["differences"]:
        if entry["level"] == "frame" and entry["metric"] == "balanced_accuracy":
            low, high = entry["interval"]
            between = f"{called(entry['weights'])} less {called(entry['reference'])}"
            told = f"{points(entry['difference'])} points [{points(low)}, {points(high)}]"
            verdict = "" if entry["established"] else ": the interval holds zero, so a difference is not established"
            sentences.append(f"The difference, {between}, is {told}{verdict}.")
    return sentences


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal, without the sign; a dash where it is not defined."""
    return "–" if value is None else f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed."""
    return f"{100 * value:+.1f}"


def called(name: str) -> str:
    """How weights are called in a sentence."""
    word, comma, rest = name.partition(", ")
    return {"random": "random weights", "imagenet": "ImageNet weights"}.get(word, word) + comma + rest


def method_of(summary: dict[str, Any]) -> str:
    """What was done with the weights: 'a linear probe of frozen features'."""
    kind = str(summary["settings"]["kind"])
    return METHODS.get(kind, kind)


def levels_of(summary: dict[str, Any]) -> list[str]:
    """The levels that an evaluation has figures on, in the order of `LEVEL_NAMES`; others behind them."""
    found = list(summary["weights"][0]["levels"])
    return [level for level in LEVEL_NAMES if level in found] + [level for level in found if level not in LEVEL_NAMES]


def protocol(summary: dict[str, Any]) -> list[str]:
    """How the figures came about, in sentences."""
    settings, folds = summary["settings"], summary["folds"]
    origins = {division["origin"] for division in folds}
    where_from = {"made": "made for this evaluation", "data set": "the data set's own"}
    told = " and ".join(where_from[origin] for origin in sorted(origins, reverse=True))
    lines = [
        f"The folds are {told}: no patient, video, group or known duplicate stands on both sides of any; this was checked before"
        " anything was trained.",
        "Every figure is over held-out frames, and nothing was chosen on them.",
        "A video's probabilities are the mean of its frames'. Balanced accuracy (mean recall), macro F1 and AUROC (one against the rest)"
        " are means over the classes that occur among the held-out items.",
        f"Brackets are 95 % intervals from {summary['interval']['resamples']} resamples of whole groups, widened for few groups of unequal"
        " size. They say how much the choice of held-out groups matters, not how much another training would.",
        f"Frames are resized to {settings['image_size']} × {settings['image_size']}, and predicted whole, without augmentation.",
    ]
    if settings["kind"] == "linear":
        lines.append(f"Logistic regression (L2, C = {settings['C']:g}) on features standardised on the training folds.")
    elif settings["kind"] == "knn":
        lines.append(f"{settings['neighbours']} neighbours by cosine, weighted by exp(similarity / {settings['temperature']:g}).")
    else:
        frozen = "the last residual stage and a new head; the rest stays frozen, BatchNorm statistics too"
        trained = {"last-block": frozen, "all": "all layers and a new head, on frames flipped and lightly cropped at random"}
        lines.append(
            f"Trained: {trained[settings['trained_layers']]}. Adam, learning rate {settings['learning_rate']:g} with cosine decay,"
            f" weight decay {settings['weight_decay']:g}, batches of {settings['batch_size']}, {settings['epochs']} epochs, fixed"
            " beforehand; the last epoch's weights are judged."
        )
    for entry in summary["overlap"]["weights"]:
        if entry["level"] == "clips" and not entry["seen"]:
            lines.append(
                f"None of the clips stands in what {entry['name']} was pretrained on, or shares a patient or group with it"
                f" ({entry['trained_clips']} clips, compared by digests, pictures and names before anything was trained)."
            )
    if settings["where"]:
        lines.append("Only frames with " + " and ".join(settings["where"]) + ".")
    if settings["classes"]:
        lines.append("Only the classes " + ", ".join(settings["classes"]) + ".")
    return lines


def print_evaluation(result: EvaluationResult, console: Console | None = None) -> None:
    """On stdout, or another console: the answer, a table of all weights, and the last one's confusion matrix; fits 80 columns."""
    console = console or Console()
    summary = result.summary
    for sentence in answer(summary):
        console.print(Text(safe_text(sentence)))
    console.print()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("weights", overflow="ellipsis", no_wrap=True, max_width=22)
    table.add_column("by", no_wrap=True)
    for title in ("acc %", "balanced acc % [95 %]", "macro F1", "AUROC"):
        table.add_column(title, justify="right", no_wrap=True)
    for entry in summary["weights"]:
        for level in ("frame", "video"):
            values = entry["levels"][level]
            low, high = values["interval"]["balanced_accuracy"]
            pooled = values["pooled"]
            table.add_row(
                Text(safe_text(entry["name"]) if level == "frame" else ""),
                level,
                percent(pooled["accuracy"]),
                f"{percent(pooled['balanced_accuracy'])} [{percent(low)}, {percent(high)}]",
                percent(pooled["macro_f1"]),
                percent(pooled["auroc"]),
            )
    majority = {level: summary["weights"][0]["levels"][level]["pooled"]["majority_rate"] for level in ("frame", "video")}
    chance = percent(1 / len(summary["dataset"]["classes"]))
    for level in ("frame", "video"):
        table.add_row(Text("majority class" if level == "frame" else "", style="dim"), level, percent(majority[level]), chance, "", "")
    console.print(table)
    for entry in summary["weights"]:
        spreads = {level: entry["levels"][level]["over_folds"]["balanced_accuracy"] for level in ("frame", "video")}
        told = ", ".join(f"{percent(s['mean'])} +- {percent(s['std'])} by {level}" for level, s in spreads.items())
        console.print(Text(safe_text(f"{called(entry['name'])}: balanced accuracy over {spreads['frame']['count']} folds {told}")))
    console.print()
    _print_confusion(summary, console)
    for note in summary["notes"]:
        console.print(Text(safe_text(f"note: {note}")))


def _print_confusion(summary: dict[str, Any], console: Console) -> None:
    last = summary["weights"][-1]
    classes = summary["dataset"]["classes"]
    console.print(Text(safe_text(f"Held-out frames of {called(last['name'])}: rows are the truth, columns the prediction")))
    if len(classes) > MOST_CLASSES_ON_TERMINAL:
        console.print(f"{len(classes)} classes are too many for a terminal: see {REPORT}")
        return
    # Beyond six classes their names do not fit above the columns, so the columns are numbered and the rows carry the numbers.
    numbered = len(classes) > 6
    shown = [f"{index} {name}" for index, name in enumerate(classes)] if numbered else classes
    heads = [str(index) for index in range(len(classes))] if numbered else classes
    truth_width = min(max(len(name) for name in [*shown, "truth"]), 9 if numbered else 18)
    head_width = (TERMINAL_COLUMNS - truth_width - 10) // len(classes) - (1 if numbered else 2)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0) if numbered else (0, 1))
    table.add_column("truth", overflow="ellipsis", no_wrap=True, max_width=truth_width)
    for name in heads:
        table.add_column(Text(safe_text(name)), justify="right", no_wrap=True, max_width=head_width, overflow="ellipsis")
    table.add_column("recall", justify="right", no_wrap=True)
    frame = last["levels"]["frame"]
    for truth, (name, row, scores) in enumerate(zip(shown, frame["confusion"], frame["per_class"], strict=True)):
        cells = [Text(str(count), style="bold" if column == truth else "") for column, count in enumerate(row)]
        table.add_row(Text(safe_text(name)), *cells, percent(scores["recall"]))
    console.print(table)
