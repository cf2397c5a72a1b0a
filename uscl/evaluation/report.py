"""An evaluation in words: the answer in a sentence, how it was measured; and on a terminal.

In: the content of `evaluation.json`. Out: sentences, or tables of at most 80 columns. The page is drawn by `uscl.evaluation.reporting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from uscl.evaluation.folds import EXTERNAL
from uscl.evaluation.protocols import MAIN_TITLES, SELECTION
from uscl.evaluation.summary import REPORT
from usdata.console import safe_text

if TYPE_CHECKING:
    from uscl.evaluation import EvaluationResult

TERMINAL_COLUMNS = 80
MOST_CLASSES_ON_TERMINAL = 12
METHODS = {
    "linear": "a linear probe of frozen features",
    "knn": "nearest neighbours of frozen features",
    "finetune": "fine-tuning",
    EXTERNAL: "external validation",
}
HEADS = {"linear": "logistic regression on frozen features", "knn": "nearest neighbours by frozen features", "finetune": "fine-tuned"}
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
WEIGHTS_COLUMNS = 22
LEVEL_NAMES = {"frame": "frame", "video": "video", "video_vote": "video (vote)", "patient": "patient"}


# A protocol on a terminal, below the weights' name: by its key, and whether it is optimistic.
_SHORT = {
    ("honest", True): "seen, so optimistic",
    (EXTERNAL, True): "seen, so optimistic",
    ("published", True): "published, optimistic",
    ("published-last-epoch", False): "same, last epoch",
    ("published-last-epoch", True): "last ep., optimistic",
}


def answer(summary: dict[str, Any]) -> list[str]:
    """The answer in sentences: what was held out, what each of the weights reaches, and whether they differ."""
    main, *others = summary["protocols"]
    sentences = [_reached(summary, main), f"Naming always the same class would give {percent(chance(summary))} %."]
    for each in summary["differences"]:
        if each["level"] == "frame" and each["metric"] == "balanced_accuracy" and each["protocol"] == main["key"]:
            between = f"{called(each['weights'])} less {called(each['reference'])}"
            verdict = "" if each["established"] else ": the interval holds zero, so a difference is not established"
            sentences.append(f"The difference, {between}, is {_points_told(each)}{verdict}.")
    sentences += [_reached(summary, told) for told in others]
    for each in summary["differences"]:
        if each["level"] == "frame" and each["metric"] == "balanced_accuracy" and each["protocol"] == SELECTION:
            whose = called(each["weights"].rpartition(" (")[0])
            sentences.append(f"Choosing the epoch on the test folds alone adds {_points_told(each)} to the figure of {whose}.")
    return sentences


def chance(summary: Mapping[str, Any]) -> float:
    """The balanced accuracy of naming always the same class: one over the classes that occur."""
    return 1 / sum(row["frames"] > 0 for row in summary["classes"])


def _points_told(difference: dict[str, Any]) -> str:
    low, high = difference["interval"]
    return f"{points(difference['difference'])} points [{points(low)}, {points(high)}]"


def _reached(summary: dict[str, Any], told: dict[str, Any]) -> str:
    """What each of the weights reaches by one protocol, in a sentence."""
    folds, seeds = told["folds"], len(told["folds"])
    repeated = f", repeated with {seeds} seeds" if seeds > 1 else ""
    reached = []
    for position, entry in enumerate(entry for entry in summary["weights"] if entry["protocol"] == told["key"]):
        frame = entry["levels"]["frame"]
        low, high = frame["interval"]["balanced_accuracy"]
        value = f"{percent(frame['pooled']['balanced_accuracy'])} % [{percent(low)}, {percent(high)}]"
        name = called(entry["name"] if told["key"] in MAIN_TITLES else entry["weights"])
        verb = "reach" if entry["weights"] in ("random", "imagenet") else "reaches"
        reached.append(f"{name} {verb} {value} balanced accuracy by frame" if position == 0 else f"{name} {value}")
    dataset = summary["dataset"]
    lead = f"By the {told['title']}, {folds[0]['count']} folds{repeated}"
    if told["key"] == "honest":
        lead = f"On {dataset['groups']} independent groups held out in {folds[0]['count']} folds{repeated}"
    elif told["key"] == EXTERNAL:
        known = any(entry["optimistic"] or entry["provenance"]["dataset_digest"] == dataset["digest"] for entry in summary["weights"])
        lead = f"{'As they are,' if known else 'External validation'} on {dataset['groups']} independent groups ({dataset['videos']} clips)"
        lead += f" of '{dataset['name']}'"
    return f"{lead}, {'; '.join(reached)}."


def judged_name(summary: dict[str, Any]) -> str:
    """The last weights of the main protocol: the ones whose confusions and mistakes are shown."""
    main = summary["weights"][0]["protocol"]
    return [entry["name"] for entry in summary["weights"] if entry["protocol"] == main][-1]


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal, without the sign; a dash where it is not defined."""
    return "–" if value is None else f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed."""
    return f"{100 * value:+.1f}"


def called(name: str) -> str:
    """How weights are called in a sentence."""
    word, bracket, rest = name.partition(" (")
    return {"random": "random weights", "imagenet": "ImageNet weights"}.get(word, word) + bracket + rest


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
    settings = summary["settings"]
    where_from = {"made": "made for this evaluation", "data set": "the data set's own", "by frame": "by frame", "by video": "by video"}
    lines = []
    for told in summary["protocols"]:
        if told["key"] == EXTERNAL:
            lines += ["External validation: nothing is fitted, chosen or adapted on these frames.", *_fitted_elsewhere(summary)]
            continue
        origins = " and ".join(where_from[origin] for origin in sorted({division["origin"] for division in told["folds"]}, reverse=True))
        line = f"{told['title'][0].upper()}{told['title'][1:]}: its folds are {origins}"
        if told["folds_by"] == "group":
            line += (
                ": no patient, video, group or known duplicate stands on both sides of any; this was checked before anything was trained"
            )
        else:
            crossing = ", ".join(str(leak["independent_groups"]) for leak in told["leaks"])
            line += f": {crossing} of {summary['dataset']['groups']} independent groups stand on both sides of some"
        chosen = {"test": "the epoch is chosen on each test fold", "validation": "the epoch is chosen on a part of the training folds"}
        lines.append(f"{line}; {chosen.get(told['epoch'], 'nothing is chosen on held-out frames')}.")
    lines += [
        "A video's probabilities are the mean of its frames'. Balanced accuracy (mean recall), macro F1 and AUROC (one against the rest)"
        " are means over the classes that occur among what is judged.",
        f"Brackets are 95 % intervals from {summary['interval']['resamples']} resamples of whole groups, widened for few groups of unequal"
        " size, and for classes in which no resample differs. They say how much the choice of groups matters, not how much another"
        " training would.",
    ]
    if settings["image_size"] is not None:
        lines.append(
            f"Frames are resized to {settings['image_size']} × {settings['image_size']}, and predicted whole, without augmentation."
        )
    if settings["kind"] == "linear":
        lines.append(f"Logistic regression (L2, C = {settings['C']:g}) on features standardised on the training folds.")
    elif settings["kind"] == "knn":
        lines.append(f"{settings['neighbours']} neighbours by cosine, weighted by exp(similarity / {settings['temperature']:g}).")
    elif settings["kind"] == "finetune":
        lines += [_training_told(told) for told in summary["protocols"] if told["key"] != "published-last-epoch"]
    if settings["label_shares"]:
        lines.append("Label efficiency: nested shares of the training groups of each label, at least one a label, on the same test folds.")
    lines += unseen(summary)
    if settings["where"]:
        lines.append("Only frames with " + " and ".join(settings["where"]) + ".")
    if settings["classes"]:
        lines.append("Only the classes " + ", ".join(settings["classes"]) + ".")
    return lines


def _fitted_elsewhere(summary: Mapping[str, Any]) -> list[str]:
    """Of each classifier what it is and what it was fitted on, in a sentence."""
    found = []
    for entry in summary["weights"]:
        about = entry["provenance"]
        data, size = about["fitted_on"], about["image_size"]
        classes = ", ".join(f"{row['class']} {row['frames']:,}" for row in data["classes"])
        what = f"{HEADS[about['head']]}; {about['backbone']}, {about['backbone_weights']}; {size} × {size} pixels"
        found.append(
            f"{entry['name']} ({what}) was fitted on '{about['dataset_name']}': {data['frames']:,} frames of {data['videos']:,} clips in"
            f" {data['groups']:,} groups ({classes})."
        )
    return found


def unseen(summary: Mapping[str, Any]) -> list[str]:
    """Of each of the weights whose clips are known, and none of them stands here, what was looked at."""
    return [
        f"None of the clips stands in what {entry['name']} was trained on ({entry['trained_clips']} clips, compared by digests and pictures"
        f" before anything was judged){_of_patients(entry, summary['overlap']['clips'])}."
        for entry in summary["overlap"]["weights"]
        if entry["level"] == "clips" and not entry["seen"]
    ]


def _of_patients(entry: Mapping[str, Any], clips: int) -> str:
    """What is known of patients that both sides may share: no more than could be compared."""
    how, compared = entry.get("patients"), entry.get("patients_of", 0)
    if how is None:
        return ""
    if how == "not":
        return (
            "; whether they share patients could not be compared, for no clip here names one in a source that is called as one of its own"
        )
    under = " by its pseudonyms, which meet only under one secret" if how == "by pseudonym" else ""
    if compared == clips:
        return f"; none shares a patient or group with them{under}"
    return f"; of {compared} of these {clips} clips the patient or group could be compared, and none is shared{under}"


def _training_told(told: dict[str, Any]) -> str:
    """How one protocol fine-tunes, in a sentence."""
    training = told["training"]
    parts = {
        "head": "a new head",
        "last-block": "the last residual block and a new head",
        "last-stage": "the last residual stage and a new head",
        "all": "all layers and a new head",
    }
    rest = {"frozen": "; the rest stays frozen, BatchNorm statistics too", "moving": "; the rest is frozen but for BatchNorm statistics"}
    views = {"whole": "whole frames", "light": "frames flipped and lightly cropped", "published": "frames flipped and cropped as published"}
    epochs = {
        "fixed": f"{training['epochs']} epochs, fixed beforehand, and the last epoch's weights are judged",
        "validation": f"of {training['epochs']} epochs as many as are best on groups of the training folds set apart, then again on all",
        "test": f"{training['epochs']} epochs, and of each fold the best on its test part is taken",
    }
    return (
        f"{told['title'][0].upper()}{told['title'][1:]}: trained are {parts[training['trained_layers']]}"
        f"{rest[training['batch_norm']] if training['trained_layers'] != 'all' else ''}; {views[training['views']]}; Adam, learning rate"
        f" {training['learning_rate']:g} with cosine decay, weight decay {training['weight_decay']:g}, batches of {training['batch_size']};"
        f" {epochs[told['epoch']]}."
    )


def print_evaluation(result: EvaluationResult, console: Console | None = None) -> None:
    """On stdout, or another console: the answer, a table of all weights, and the last one's confusion matrix; fits 80 columns."""
    console = console or Console()
    summary = result.summary
    for sentence in answer(summary):
        console.print(Text(safe_text(sentence)))
    console.print()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("weights", overflow="fold", max_width=WEIGHTS_COLUMNS)
    table.add_column("by", no_wrap=True)
    for title in ("acc %", "balanced % [95 %]", "macro F1", "AUROC"):
        table.add_column(title, justify="right", no_wrap=True)
    for entry in summary["weights"]:
        for level in ("frame", "video"):
            values = entry["levels"][level]
            low, high = values["interval"]["balanced_accuracy"]
            pooled = values["pooled"]
            table.add_row(
                Text(_in_column(entry) if level == "frame" else ""),
                level,
                percent(pooled["accuracy"]),
                f"{percent(pooled['balanced_accuracy'])} [{percent(low)}, {percent(high)}]",
                percent(pooled["macro_f1"]),
                percent(pooled["auroc"]),
            )
    majority = {level: summary["weights"][0]["levels"][level]["pooled"]["majority_rate"] for level in ("frame", "video")}
    for level in ("frame", "video"):
        name = Text("majority class" if level == "frame" else "", style="dim")
        table.add_row(name, level, percent(majority[level]), percent(chance(summary)), "", "")
    console.print(table)
    for entry in summary["weights"] if summary["settings"]["kind"] != EXTERNAL else []:
        spreads = {level: entry["levels"][level]["over_folds"]["balanced_accuracy"] for level in ("frame", "video")}
        told = ", ".join(f"{percent(s['mean'])} +- {percent(s['std'])} by {level}" for level, s in spreads.items())
        console.print(Text(safe_text(f"{called(entry['name'])}: balanced accuracy of {spreads['frame']['count']} single folds {told}")))
    console.print()
    _print_confusion(summary, console)
    _print_shares(summary, console)
    for note in summary["notes"]:
        console.print(Text(safe_text(f"note: {note}")))


def _in_column(entry: dict[str, Any]) -> str:
    """The weights' name, cut to a line, and how they were judged below it."""
    name = safe_text(str(entry["weights"]))
    name = name if len(name) <= WEIGHTS_COLUMNS else f"{name[: WEIGHTS_COLUMNS - 1]}…"
    judged = _SHORT.get((entry["protocol"], entry["optimistic"]), "")
    return f"{name}\n{judged}" if judged else name


def _print_shares(summary: dict[str, Any], console: Console) -> None:
    """What was learnt from shares of the labels, by frame."""
    held = summary.get("label_efficiency")
    if not held:
        return
    console.print("Balanced accuracy by frame, learnt from a share of the labelled groups of the training folds:")
    for position, share in enumerate(held["shares"]):
        groups = np.mean([fold["groups"] for fold in held["trained_on"][position]["folds"]])
        reached = []
        for entry in held["weights"]:
            told = entry["points"][position]["levels"]["frame"]
            ends = told["interval"]["balanced_accuracy"]
            between = f" [{percent(ends[0])}, {percent(ends[1])}]" if ends else ""
            reached.append(f"{called(entry['name'])} {percent(told['pooled']['balanced_accuracy'])}{between}")
        console.print(Text(safe_text(f"  {share:g} % ({groups:.3g} groups a fold): {'; '.join(reached)}")))


def _print_confusion(summary: dict[str, Any], console: Console) -> None:
    last = next(entry for entry in summary["weights"] if entry["name"] == judged_name(summary))
    classes = summary["dataset"]["classes"]
    seeds = summary["settings"]["seeds"]
    added = f", {seeds} seeds added up" if seeds > 1 else ""
    frames = "Frames judged by" if summary["settings"]["kind"] == EXTERNAL else "Held-out frames of"
    console.print(Text(safe_text(f"{frames} {called(last['name'])}{added}: rows are the truth, columns the prediction")))
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
