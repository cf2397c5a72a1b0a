"""Model cards: README.md beside weights, a YAML head for hubs, then a page for people.

In: facts as they stand in a file's metadata, an evaluation where there is one. Out: Markdown. Guarantees: nothing is said that is not
known; names from the data make neither markup nor HTML; nothing of a patient and no path of a machine is in it.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from uscl.backbones import PIXEL_MEAN, PIXEL_STD
from uscl.recipe_list import list_recipes
from uscl.run_folder import TRAINED_ON
from usdata.errors import UserError

_MARKUP = re.compile(r"([\\`*_\[\]#!|~$<>])")
_CITATION = """```bibtex
@inproceedings{chen2021uscl,
  title     = {{USCL}: Pretraining Deep Ultrasound Image Diagnosis Model through Video Contrastive Representation Learning},
  author    = {Chen, Yixiong and Zhang, Chunhui and Liu, Li and Feng, Cheng and Dong, Changfeng and Luo, Yongfang and Wan, Xiang},
  booktitle = {Medical Image Computing and Computer Assisted Intervention (MICCAI)},
  year      = {2021},
  note      = {arXiv:2011.13066}
}
```"""
_LIMITS = """- **Not a medical device.** For research. It was not tested for diagnosis, triage or any other clinical use, and must not be
  used for it.
- It knows the scanners, probes, settings and patients of its training data. On others it may be worth less: evaluate there first.
- Frames are seen as they were prepared: what the data set's recipe cropped or masked must be cropped or masked here too, or text,
  rulers and logos of a scanner may tell it more than the tissue does.
- Do not judge it on clips or patients of the data above, nor on other files of the same exams: `uscl evaluate` and `uscl validate` refuse
  that.
- Weights can remember. Whether the licences of the data reach weights made of it is for you to find out before you hand them on."""


def backbone_card(facts: Mapping[str, Any], usage: str, files: Mapping[str, str], evaluation: str | None = None) -> str:
    """The card of a pretrained backbone.

    Args:
        facts: `backbone` and `width`, and of a file's metadata what is known: `kind` (where the weights come from), `method`, `recipe`,
            `image_size`, `steps`, `epochs`, `dataset_name`, `dataset_digest`, `splits`, `config_digest`, `uscl_version`, and as JSON
            `training_data` and `settings`.
        usage: Markdown: how the files beside the card are used.
        files: Their names and sha256.
        evaluation: Markdown, of `evaluation_section`.
    """
    trained = facts.get("dataset_name")
    backbone = _text(str(facts["backbone"]))
    title = (
        f"{backbone} pretrained on ultrasound video" if trained else f"{backbone}, {_text(str(facts.get('kind', 'from a file')))} weights"
    )
    sections = [
        _head(),
        f"# {title}",
        f"A network that turns a gray frame of ultrasound into {facts['width']} features.",
        f"## Use\n\n{usage}",
        "## Training data\n\n" + _data(facts),
        "## Training\n\n" + _training(facts),
        "## Evaluation\n\n"
        + (evaluation or "None is given here. `uscl evaluate` makes one, on patients that these weights have not seen."),
        "## Intended use and limits\n\nFeatures for search, for classifiers of one's own, and as a start for fine-tuning.\n\n" + _LIMITS,
        "## Citation\n\n" + _cited(facts),
        "## Files\n\n" + _table(("file", "sha256"), [(f"`{name}`", f"`{digest}`") for name, digest in files.items()]),
    ]
    return "\n\n".join(sections) + "\n"


def classifier_card(
    about: Mapping[str, Any], usage: str | None = None, files: Mapping[str, str] | None = None, evaluation: str | None = None
) -> str:
    """The card of a fitted classifier, from its `model.json`; `evaluation` is of `evaluation_section`, on another set."""
    data, weights = about["dataset"], about["weights"]
    rows = [(_text(row["class"]), f"{row['frames']:,}", f"{row['videos']:,}", f"{row['groups']:,}") for row in data["classes"]]
    where = f", where {_text(', '.join(data['where']))}" if data["where"] else ""
    told = {"linear": "logistic regression on frozen features", "knn": "nearest neighbours by frozen features", "finetune": "fine-tuned"}
    settings = ", ".join(f"{key} {value}" for key, value in about["settings"].items())
    kept = "\n\nIt keeps the features of every frame that it was fitted on, and votes by them." if about["head"] == "knn" else ""
    from_set = f", pretrained on {_text(str(weights['dataset_name']))}" if weights.get("dataset_name") else ""
    weights_told = f"{_text(str(weights['kind']))} weights{from_set}"
    private = "" if files else f"\n\n`{TRAINED_ON}` beside it holds small pictures of patients: leave it behind where the data may not go."
    usage = usage or f"```sh\nuscl predict SET --model MODEL --out PREDICTIONS\n```\n\n{frames_told(about)}"
    files = files or {about["file"]: about["sha256"]}
    sections = [
        _head("image-classification"),
        f"# {len(about['classes'])} classes of {_text(data['name'])}: a classifier of ultrasound frames",
        f"{told[about['head']].capitalize()}: {_text(about['backbone'])}, {weights_told}; {settings}.{kept}",
        f"## Use\n\n{usage}",
        f"## Training data\n\n{data['frames']:,} frames of {data['videos']:,} clips in {data['groups']:,} groups of {_text(data['name'])}"
        f"{where}; digest `{_hexadecimal(data['digest'])}`.\n\n"
        + _table(("class", "frames", "clips", "groups"), rows)
        + "\n\n"
        + _licence_table(data["licences"]),
        "## Evaluation\n\n"
        + (
            evaluation
            or "It was fitted on all of these frames, so nothing here says how good it is. `uscl evaluate` on the same weights and labels "
            "does, and `uscl validate` on a set of other patients."
        ),
        "## Intended use and limits\n\nWhat it says of a frame is a guess at one of its classes, whatever the frame shows.\n\n" + _LIMITS,
        "## Citation\n\n" + _cited(weights),
        "## Files\n\n" + _table(("file", "sha256"), [(f"`{name}`", f"`{digest}`") for name, digest in files.items()]) + private,
    ]
    return "\n\n".join(sections) + "\n"


def evaluation_section(folder: Path, weights_sha256: str) -> str:
    """What an evaluation found of these weights, and of random ones where it has them too.

    Args:
        folder: Made by `uscl evaluate` or `uscl validate`, or its evaluation.json.
        weights_sha256: Of `weights_digest`; of a classifier, of its tensors' file.

    Raises:
        UserError: It is no evaluation, or not of these weights.
    """
    path = folder / "evaluation.json" if folder.is_dir() else folder
    if not path.is_file():
        raise UserError(f"--evaluation {folder}", "holds no evaluation.json", "give a folder made by 'uscl evaluate'")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        entries = {entry["name"]: entry for entry in summary["weights"]}
        # What other protocols say of the same weights is named, but is no figure of theirs.
        judged = [name for name, entry in entries.items() if entry["provenance"]["weights_sha256"] == weights_sha256]
        name = next((each for each in judged if entries[each].get("protocol", "honest") in ("honest", "external")), None)
        if name is None and judged:
            raise UserError(
                f"--evaluation {folder}", f"has optimistic figures of them alone ({judged[0]})", "evaluate by the honest protocol"
            )
        if name is None:
            told = ", ".join(entries)
            advice = "evaluate these ('uscl validate' judges a fitted classifier), or leave the option out"
            raise UserError(f"--evaluation {folder}", f"is of other weights ({told})", advice)
        data, settings = summary["dataset"], summary["settings"]
        external = settings["kind"] == "external"
        warned = name.removeprefix(entries[name].get("weights", name))
        shown = dict.fromkeys([name, *(other for other in ("random", "imagenet") if other in entries)])
        rows = [
            (
                f"{'this classifier' if external else 'these weights'}{warned}" if each == name else each,
                level,
                *(_with_interval(figures, metric) for metric in ("balanced_accuracy", "macro_f1", "accuracy")),
            )
            for each in shown
            for level, figures in entries[each]["levels"].items()
        ]
        command = "uscl validate" if external else f"uscl evaluate {settings['kind']}"
        how = (
            f"as it is; {_known_to(summary, entries[name])}"
            if external
            else f"held-out groups, {settings['seeds']} seed{'s' if settings['seeds'] != 1 else ''}, {settings['image_size']} pixels"
        )
        sentence = (
            f"`{command}` on {_text(data['name'])} (digest `{_hexadecimal(data['digest'])}`): {data['frames']:,} "
            f"frames of {data['videos']:,} clips in {data['groups']:,} independent groups, classes {_text(', '.join(data['classes']))}; "
            f"{how}. In brackets the 95 % interval over resampled groups."
        )
        notes = [f"- {_text(note)}" for note in summary["notes"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        reason = f"is no evaluation that this version reads ({type(error).__name__}: {' '.join(str(error).split())})"
        raise UserError(path, reason, "evaluate again with 'uscl evaluate'") from None
    table = _table(("weights", "by", "balanced accuracy", "macro F1", "accuracy"), rows)
    return "\n\n".join([sentence, table, *(["\n".join(notes)] if notes else [])])


def _known_to(summary: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """What is known of the clips of an external validation to the classifier: no more than the guard found out."""
    overlap = next(each for each in summary["overlap"]["weights"] if each["name"] == entry["weights"])
    if entry.get("optimistic"):
        return "it had seen clips of it"
    if overlap["level"] == "clips" and overlap["whole"]:
        return "none of these clips stands in what it was trained on"
    return "which of these clips it was trained on is not known"


def _with_interval(figures: Mapping[str, Any], metric: str) -> str:
    value, interval = figures["pooled"].get(metric), figures["interval"].get(metric)
    if value is None or not math.isfinite(value):
        return "-"
    known = isinstance(interval, list) and len(interval) == 2 and all(end is not None and math.isfinite(end) for end in interval)
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if known else f"{value:.3f}"


def _head(task: str = "image-feature-extraction") -> str:
    head = {
        "license": "other",  # nobody has given these weights one
        "license_name": "see-card",
        "license_link": "README.md",
        "pipeline_tag": task,
        "tags": ["medical", "ultrasound", "self-supervised"],
    }
    return "---\n" + yaml.safe_dump(head, sort_keys=False) + "---"


def frames_told(facts: Mapping[str, Any]) -> str:
    """Markdown: how frames are prepared for a network, by its `image_size`."""
    size = facts.get("image_size")
    resized = f" resized to {size} x {size} ({resizing_told(size)})" if size else ""
    return (
        f"Frames: gray{resized}, gray level / 255, minus {PIXEL_MEAN}, over {PIXEL_STD}; one channel, repeated three times where a "
        "network asks for three."
    )


def resizing_told(size: object) -> str:
    """How frames are brought to the network's size, in words and as a call."""
    return (
        f"aspect ignored, areas averaged: `cv2.resize(gray, ({size}, {size}), interpolation=cv2.INTER_AREA)`; linear along an axis that "
        "grows. Other ways of resizing give other features"
    )


def _data(facts: Mapping[str, Any]) -> str:
    if facts.get("kind") == "random":
        return "None: the weights are random."
    if facts.get("kind") == "imagenet":
        return "Photographs: the weights are those that the network's library publishes, with their normalisation folded in."
    name = facts.get("dataset_name")
    if not name:
        return "Not known: the file does not say."
    found = json.loads(facts["training_data"]) if facts.get("training_data") else None
    rows = [("data set", _text(str(name))), ("splits", _text(str(facts.get("splits"))))]
    rows.append(("digest of its manifest", f"`{_hexadecimal(facts.get('dataset_digest'))}`"))
    if found:
        rows += [(key, f"{found[key]:,}") for key in ("frames", "videos", "groups")]
    whole = "" if facts.get("clips_whole", "yes") == "yes" else "\n\nThe training started from weights of which the data are not all known."
    told = _licence_table(found["licences"]) if found else "Its licences were not recorded with these weights: see the data set."
    return f"{_table(('', ''), rows)}\n\n{told}{whole}"


def _licence_table(counts: Mapping[str, int]) -> str:
    if set(counts) <= {""}:
        return "No licence is named for its clips."
    return _table(("licence", "clips"), [(_text(name) or "none is named", f"{count:,}") for name, count in counts.items()])


def _training(facts: Mapping[str, Any]) -> str:
    if not facts.get("dataset_name"):
        return "Not by this program."
    recipe = _recipe(facts)
    rows = [("method", _text(str(facts.get("method") or "not known"))), ("recipe", _text(str(facts.get("recipe") or "not known")))]
    rows += [("published as", _text(f"{recipe.title} ({recipe.paper})"))] if recipe and recipe.paper else []
    rows += [(key, _text(str(facts[key]))) for key in ("steps", "epochs") if facts.get(key)]
    found = json.loads(facts["settings"]) if facts.get("settings") else {}
    rows += [(_text(key), _text(str(value))) for key, value in found.items() if key not in ("method", "epochs") and value is not None]
    rows += [("digest of the configuration", f"`{_hexadecimal(facts['config_digest'])}`")] if facts.get("config_digest") else []
    rows += [("uscl", _text(str(facts["uscl_version"])))] if facts.get("uscl_version") else []
    return _table(("", ""), rows)


def _recipe(facts: Mapping[str, Any]) -> Any:
    return next((row for row in list_recipes() if row.name == facts.get("recipe")), None)


def _cited(facts: Mapping[str, Any]) -> str:
    recipe = _recipe(facts)
    own = f"The method: {_text(recipe.title)} ({_text(recipe.paper)}). " if recipe and recipe.paper and recipe.method != "uscl" else ""
    return f"{own}Pretraining on ultrasound video:\n\n{_CITATION}\n\nName the sources of the data as well, as their licences ask for it."


def _text(text: str) -> str:
    """Text from outside on one line of Markdown, where it makes neither markup nor HTML."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _hexadecimal(digest: Any) -> str:
    return re.sub(r"[^0-9a-f]", "", str(digest))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
