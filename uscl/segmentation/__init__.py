"""`uscl segment`: pretrained backbones under a segmentation head, judged by Dice, IoU and average precision on held-out groups.

In: a data set, masks of its frames, one or more sets of weights. Out: a folder with `segmentation.json`, `scores.parquet`, `report.html`,
and on request the predicted masks; and the same as a value. All weights are judged in the same folds, which no group crosses; epochs are
fixed beforehand; weights that were trained on what is evaluated are refused. Equal input gives equal files on one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from uscl.evaluation.folds import Folds
from uscl.evaluation.guard import guard
from uscl.evaluation.selection import ROW, listed, matching_frames
from uscl.evaluation.weights import architectures, provenance, result_names, trained_size
from uscl.frames import open_store
from uscl.models import load_backbone
from uscl.segmentation.division import mask_folds
from uscl.segmentation.held_out import HeldOut, hold_out, position_alone
from uscl.segmentation.instances import find_pycocotools, refuse_other_than_resnets
from uscl.segmentation.masks import Masks, find_masks, shrunk_masks
from uscl.segmentation.networks import map_widths
from uscl.segmentation.page import render
from uscl.segmentation.pictures import contact_sheet
from uscl.segmentation.summary import MASKS, POSITION, REPORT, SCORES, SEGMENTATION, frame_table, notes, summarise
from uscl.segmentation.training import LEARNING_RATE, Head, Labelled, Training
from uscl.whole_folder import check_folder, whole_folder
from usdata.console import progress
from usdata.errors import UserError, nearest
from usdata.files import write_json, write_text
from usdata.manifest import DataSet, is_inside, open_dataset

PARTS = (SEGMENTATION, SCORES, REPORT, MASKS)
DEFAULT_EPOCHS = 30
RANDOM = "random"


@dataclass(frozen=True)
class SegmentResult:
    """What was found.

    Attributes:
        out: Where the files lie.
        summary: The content of `segmentation.json`.
    """

    out: Path
    summary: dict[str, Any]


def segment(
    dataset: str | Path,
    *,
    weights: str | Sequence[str],
    masks: str | Path,
    out: str | Path,
    head: Head = "unet",
    epochs: int = DEFAULT_EPOCHS,
    folds: int | None = None,
    seeds: int = 1,
    image_size: int | None = None,
    frozen: bool = False,
    where: str | Sequence[str] = (),
    save_masks: bool = False,
    allow_overlap: Sequence[str] = (),
    without_overlap: bool = False,
    pretraining_sets: Sequence[str] = (),
    overwrite: bool = False,
) -> SegmentResult:
    """Judge weights by what a segmentation head makes of them on held-out groups.

    Args:
        dataset: Data set folder; labels are not needed.
        weights: As for `uscl.evaluate`; differences are taken to 'random' where it is among them, else to the first.
        masks: A folder of PNGs under the frames' relative paths or frame_ids, or a column with paths inside the data set; 0 is background,
            further gray levels are classes, called as `classes.json` in the folder says. Frames without a mask are left out.
        out: Folder for the results.
        head: "unet", "fpn" or "mask-rcnn" (torchvision's ResNets alone; needs the extra coco).
        epochs: Of training, fixed.
        folds: Number of folds; by default the set's own, else 5.
        seeds: Number of repetitions, each with its own folds, random weights and order of training.
        image_size: Height and width that the network sees; by default as the weights were trained, else 224. Figures are taken at each
            frame's own size.
        frozen: Train the head alone.
        where: Filters, see `uscl.evaluation.selection.select_frames`.
        save_masks: Write the predicted masks of the first seed to `out`/masks/<weights>/<frame_id>.png.
        allow_overlap: As for `uscl.evaluate`.
        without_overlap: As for `uscl.evaluate`.
        pretraining_sets: As for `uscl.evaluate`.
        overwrite: Replace earlier results at `out`.

    Raises:
        UserError: Masks do not fit the frames, there are too few groups, folds would leak, weights were trained on what is evaluated and no
            word was given on it, a backbone has no stages, settings are out of range, or `out` is taken.
    """
    weights, where = listed(weights), listed(where)
    _check_settings(weights, head, epochs, folds, seeds, image_size)
    out = Path(out)
    check_folder(out, parts=PARTS, overwrite=overwrite)
    if head == "mask-rcnn":
        find_pycocotools()
    opened = open_dataset(dataset)
    names = result_names(weights)
    if POSITION in names:
        raise UserError(f"--weights {POSITION}", "is what the control without a picture is called", "rename the weights")
    asked = dict(zip(names, architectures(weights), strict=True))
    provenances = {name: provenance(*each) for name, each in asked.items()}
    size = image_size if image_size is not None else trained_size(provenances)
    for name, (architecture, word) in asked.items():
        backbone, _ = load_backbone(word, name=architecture, image_size=size)
        if head == "mask-rcnn":
            refuse_other_than_resnets(name, backbone)
        else:
            map_widths(backbone, size)
    selected = matching_frames(opened, where=where)
    has, found_masks = find_masks(opened, selected, str(masks))
    frames = selected[has].reset_index(drop=True)
    guarded = guard(
        opened,
        frames,
        {name: word for name, (_, word) in asked.items()},
        provenances,
        allow_overlap=allow_overlap,
        without_overlap=without_overlap,
        pretraining_sets=pretraining_sets,
    )
    groups = guarded.groups
    if guarded.left_out.any():
        kept = np.flatnonzero(~guarded.left_out)
        if not len(kept):
            raise UserError(opened.folder, "no frame with a mask is left without the overlap", "evaluate on another set")
        frames, groups, found_masks = frames.iloc[kept].reset_index(drop=True), groups[kept], found_masks.take(kept)
    labelled = _labelled(opened, frames, found_masks, size)
    holds = np.stack([(labelled.masks == 1 + index).any(axis=(1, 2)) for index in range(labelled.class_count)], axis=1)
    divisions = [
        mask_folds(
            frames,
            groups,
            opened.duplicates,
            holds,
            found_masks.names,
            seed=seed,
            count=folds,
            whole=len(frames) == len(opened.frames),
            subject=opened.name,
        )
        for seed in range(seeds)
    ]
    training = Training(head=head, epochs=epochs, frozen=frozen, learning_rate=LEARNING_RATE[head])
    kept_pictures = names if save_masks else names[-1:]
    held = _hold_out_all(asked, labelled, found_masks, divisions, training, kept_pictures, size)
    held[POSITION] = [position_alone(labelled, found_masks, division) for division in divisions]
    reference = (RANDOM if RANDOM in names else names[0]) if len(names) > 1 else None
    summary = summarise(frames, groups, found_masks, divisions, held, reference, with_instances=head == "mask-rcnn")
    for entry in summary["weights"]:
        entry["provenance"] = provenances[entry["name"]]
    summary["dataset"] |= {"name": opened.name, "digest": opened.digest, "frames_without_mask": int((~has).sum())}
    summary["settings"] = {
        **asdict(training),
        "image_size": size,
        "seeds": seeds,
        "folds_asked_for": folds,
        "where": list(where),
        "masks": str(masks),
        "allow_overlap": list(allow_overlap),
        "without_overlap": without_overlap,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    summary["overlap"] = guarded.to_json()
    summary["notes"] = [*guarded.notes(), *notes(summary)]
    judged = names[-1]
    shown = contact_sheet(opened, frames, found_masks, held[judged][0])
    with whole_folder(out, parts=PARTS, overwrite=overwrite) as folder:
        table = frame_table(frames, groups, found_masks, divisions, {name: held[name] for name in names})
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), folder / SCORES, compression="zstd")
        if save_masks:
            _write_masks(folder / MASKS, frames, {name: held[name][0] for name in names})
        write_text(folder / REPORT, render(summary, judged, shown))
        write_json(folder / SEGMENTATION, summary)
    return SegmentResult(out, summary)


def _check_settings(weights: Sequence[str], head: str, epochs: int, folds: int | None, seeds: int, image_size: int | None) -> None:
    if head not in get_args(Head):
        raise UserError(f"--head {head}", "is not known", nearest(head, get_args(Head)))
    if not weights:
        raise UserError("--weights", "names nothing to evaluate", "give a run folder, a .safetensors file or 'random'")
    for option, value, least in (("--seeds", seeds, 1), ("--epochs", epochs, 1), ("--folds", folds, 2), ("--image-size", image_size, 32)):
        if value is not None and value < least:
            raise UserError(f"{option} {value}", "is too small", f"give {least} or more")


def _labelled(dataset: DataSet, frames: pd.DataFrame, masks: Masks, size: int) -> Labelled:
    """Frames and masks at the network's size."""
    store = open_store(dataset, size=size)
    shrunk = shrunk_masks(masks, size)
    for index, name in enumerate(masks.names):
        if not (shrunk == 1 + index).any():
            reason = f"class '{name}' has no pixel left in any mask at {size}x{size}"
            raise UserError(f"--image-size {size}", reason, "give a larger one, or leave the class out of the masks")
    pixels = store.pixels[frames[ROW].to_numpy(dtype=np.int64)]
    return Labelled(pixels, shrunk, masks.sizes, len(masks.values))


def _hold_out_all(
    asked: dict[str, tuple[str, str]],
    labelled: Labelled,
    masks: Masks,
    divisions: Sequence[Folds],
    training: Training,
    kept_pictures: Sequence[str],
    size: int,
) -> dict[str, list[HeldOut]]:
    """All fits, by weights and seed; predicted masks of the first seed are kept where asked."""
    total = len(asked) * training.epochs * sum(division.count for division in divisions)
    found: dict[str, list[HeldOut]] = {name: [] for name in asked}
    with progress(f"segmenting ({training.head})", total, "epochs") as advance:
        for name, (architecture, word) in asked.items():
            for number, division in enumerate(divisions):
                backbone, _ = load_backbone(word, name=architecture, seed=division.seed, image_size=size)
                keep = number == 0 and name in kept_pictures
                found[name].append(hold_out(backbone, labelled, masks, division, training, keep_pictures=keep, advance=advance))
    return found


def _write_masks(folder: Path, frames: pd.DataFrame, held: dict[str, HeldOut]) -> None:
    for name, own in zip(_folder_names(list(held)), held.values(), strict=True):
        for frame_id, picture in zip(frames["frame_id"], own.pictures, strict=True):
            if picture is None:
                continue
            if not is_inside(frame_id):
                raise UserError(frame_id, "this frame_id leads out of a folder", "do not use this data set")
            path = folder / name / f"{frame_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)


def _folder_names(names: Sequence[str]) -> list[str]:
    """A folder's name for each of the weights: a path's or backbone's parts joined, numbered where two would be one."""
    flat = ["-".join(part for part in name.replace(":", "/").split("/") if part not in ("", ".", "..")) or "weights" for name in names]
    return [name if flat.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(flat)]


__all__ = ["SegmentResult", "segment"]
