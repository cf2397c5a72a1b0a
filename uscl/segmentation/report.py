"""A segmentation in words, and on a terminal.

In: the content of `segmentation.json`. Out: sentences, or tables of at most 80 columns. The page is drawn by `uscl.segmentation.page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from uscl.evaluation.report import called, percent, points, unseen
from usdata.console import safe_text

HEADS = {"unet": "a U-Net", "fpn": "a feature pyramid (FPN)", "mask-rcnn": "a Mask R-CNN"}
LEVEL_NAMES = {"frame": "frame", "video": "clip", "group": "group"}
METRIC_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "dice_where_present": "Dice where present",
    "iou_where_present": "IoU where present",
}
MAIN, PRESENT = "dice", "dice_where_present"
MOST_WEIGHTS_ON_TERMINAL = 3


def answer(summary: Mapping[str, Any]) -> list[str]:
    """The answer in sentences: what each of the weights reaches, what a model without a picture does, and whether they differ."""
    division, seeds = summary["folds"][0], len(summary["folds"])
    repeated = f", repeated with {seeds} seeds" if seeds > 1 else ""
    reached = []
    for entry in summary["weights"]:
        told = figure(entry["levels"]["frame"]["mean"][PRESENT])
        reached.append(f"{called(entry['name'])} {told}")
    head = HEADS[summary["settings"]["head"]] + (" on a frozen backbone" if summary["settings"]["frozen"] else "")
    base = percent(summary["baseline"]["levels"]["frame"]["mean"][PRESENT]["value"])
    sentences = [
        f"On {summary['dataset']['groups']} independent groups held out in {division['count']} folds{repeated}, {head} reaches these Dice"
        f" by frame, in percent, mean over {_classes(summary)} where the class is present: {'; '.join(reached)}.",
        f"What stands at each place most often in the training masks, without looking at the picture, reaches {base} %.",
    ]
    for row in summary["differences"]:
        if row["level"] == "frame" and row["metric"] == PRESENT and row["class"] is None:
            low, high = row["interval"]
            verdict = "" if row["established"] else ": the interval holds zero, so a difference is not established"
            between = f"{called(row['weights'])} less {called(row['reference'])}"
            sentences.append(f"The difference, {between}, is {points(row['difference'])} points [{points(low)}, {points(high)}]{verdict}.")
    for entry in summary["weights"]:
        if "average_precision" in entry:
            found = entry["average_precision"]
            sentences.append(
                f"Average precision of instances, {called(entry['name'])}: {percent(found['ap'])} %, at an IoU of .50"
                f" {percent(found['ap50'])} %."
            )
    return sentences


def _classes(summary: Mapping[str, Any]) -> str:
    count = len(summary["dataset"]["classes"])
    return f"{count} classes" if count > 1 else "1 class"


def figure(values: Mapping[str, Any]) -> str:
    """A figure and its interval: '87.1 [80.3, 91.0]'."""
    if values["interval"] is None:
        return percent(values["value"])
    low, high = values["interval"]
    return f"{percent(values['value'])} [{percent(low)}, {percent(high)}]"


def method(summary: Mapping[str, Any]) -> list[str]:
    """How the figures came about, in sentences."""
    settings = summary["settings"]
    origins = sorted({division["origin"] for division in summary["folds"]})
    told = {"made": "made for this evaluation", "data set": "the data set's own"}
    trained = "The backbone is frozen, BatchNorm statistics too; the head is trained" if settings["frozen"] else "All layers are trained"
    loss = "the sum of Mask R-CNN's five losses" if settings["head"] == "mask-rcnn" else "cross-entropy plus soft Dice"
    lines = [
        f"Folds are {' and '.join(told[origin] for origin in origins)}: no patient, video, group or known duplicate stands on both sides of"
        " any; this was checked before anything was trained.",
        f"{trained}: {settings['epochs']} epochs, fixed beforehand, and the last epoch's network is judged; nothing is chosen on held-out"
        f" frames. Loss: {loss}. Adam, learning rate {settings['learning_rate']:g} with cosine decay, weight decay"
        f" {settings['weight_decay']:g}, batches of {settings['batch_size']}; frames and masks are flipped and cropped alike.",
        f"The network sees {settings['image_size']} × {settings['image_size']} pixels; figures are taken at each frame's own size.",
        "Dice = 2 |A and B| / (|A| + |B|), IoU = |A and B| / |A or B|. Where neither truth nor prediction holds a class, both are 1; 'where"
        " present' is the mean over items whose truth holds it. A clip's or group's figures are those of all its pixels together. Means"
        " over classes weigh each class alike.",
        f"Brackets are 95 % intervals from {summary['interval']['resamples']} resamples of whole groups, widened for few groups of unequal"
        " size. They say how much the choice of held-out groups matters, not how much another training would.",
    ]
    if settings["head"] == "mask-rcnn":
        lines.append(
            "Instances of the truth are the connected components of each class. Average precision is COCO's, by pycocotools, of all"
            " held-out frames together, mean over IoU .50 to .95; it has no interval. Dice is of instances with a score of 50 % and more."
        )
    lines += unseen(summary)
    if settings["where"]:
        lines.append("Only frames with " + " and ".join(settings["where"]) + ".")
    return lines


def print_segmentation(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """On stdout, or another console: the answer, a table of all weights, and one of all classes; fits 80 columns."""
    console = console or Console()
    for sentence in answer(summary):
        console.print(Text(safe_text(sentence)))
    console.print()
    console.print(_weights_table(summary))
    shown = summary["weights"][-MOST_WEIGHTS_ON_TERMINAL:]
    console.print(Text(safe_text(f"Dice % by frame where the class is present{_left_out(summary, shown)}")))
    console.print(_class_table(summary, shown))
    for note in summary["notes"]:
        console.print(Text(safe_text(f"note: {note}")))


def _weights_table(summary: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("weights", overflow="ellipsis", no_wrap=True, max_width=18)
    table.add_column("by", no_wrap=True)
    for title in ("Dice % present", "Dice %", "IoU %"):
        table.add_column(title, justify="right", no_wrap=True)
    for entry in [*summary["weights"], summary["baseline"]]:
        plain = entry is summary["baseline"]
        for level, name in LEVEL_NAMES.items():
            values = entry["levels"][level]["mean"]
            cells = [figure(values[PRESENT]), figure(values[MAIN]), percent(values["iou"]["value"])]
            first = Text(safe_text(entry["name"]) if level == "frame" else "", style="dim" if plain else "")
            table.add_row(first, name, *cells, style="dim" if plain else "")
    return table


def _class_table(summary: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("class", overflow="ellipsis", no_wrap=True, max_width=12)
    table.add_column("groups", justify="right", no_wrap=True)
    for entry in shown:
        table.add_column(Text(safe_text(entry["name"])), justify="right", no_wrap=True, max_width=17, overflow="ellipsis")
    for index, each in enumerate(summary["dataset"]["classes"]):
        cells = [figure(entry["levels"]["frame"]["classes"][index][PRESENT]) for entry in shown]
        table.add_row(Text(safe_text(each["class"])), str(each["groups"]), *cells)
    return table


def _left_out(summary: Mapping[str, Any], shown: Sequence[Any]) -> str:
    count = len(summary["weights"])
    return f" (the last {len(shown)} of {count} weights; all in the report)" if count > len(shown) else ""
