"""Verbs that judge weights and classifiers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uscl.commands.options import (
    AllowOverlap,
    AsJson,
    DataSetArgument,
    ImageSize,
    Overwrite,
    PretrainingSet,
    TrainedLayers,
    Where,
    WithoutOverlap,
    names_of,
    print_json,
)
from uscl.completion import weights as weight_names
from usdata.console import one_line_errors, safe_text


class Evaluation(StrEnum):
    """What is trained on the features."""

    linear = "linear"
    finetune = "finetune"
    knn = "knn"


class BatchNorm(StrEnum):
    """What becomes of BatchNorm statistics in layers that are not trained."""

    frozen = "frozen"
    moving = "moving"


class Protocol(StrEnum):
    """Whose rules an evaluation keeps."""

    honest = "honest"
    published = "published"
    both = "both"


class FoldsBy(StrEnum):
    """What the folds of the published protocol keep together."""

    group = "group"
    video = "video"
    frame = "frame"
    set = "set"


class SegmentationHead(StrEnum):
    """What `uscl segment` puts on the backbone."""

    unet = "unet"
    fpn = "fpn"
    mask_rcnn = "mask-rcnn"


@one_line_errors
def evaluate(
    kind: Annotated[Evaluation, typer.Argument(help="linear and knn: on frozen features; finetune: the last block or all of the network.")],
    dataset: DataSetArgument,
    weights: Annotated[
        list[str],
        typer.Option(
            help="A run folder, a file of weights, 'random', 'imagenet', 'resnet50' or 'timm/NAME'; may be given again, to compare.",
            autocompletion=weight_names,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make for report.html, evaluation.json and predictions.parquet.")],
    image_size: Annotated[int | None, typer.Option(help="Pixels; by default the run's own, else 224.")] = None,
    folds: Annotated[
        int | None, typer.Option(help="Number of group folds; by default the data set's own folds, else (for a part of it, too) 5.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repeat with so many assignments to folds.")] = 1,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Keep these frames only ('|' between values; '!=' for not).")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Keep these labels only, with commas between.")] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(help="honest; published: the best epoch on each test fold, as papers report it, marked as optimistic; or both."),
    ] = Protocol.honest,
    folds_by: Annotated[
        FoldsBy, typer.Option(help="Folds of the published protocol; set: the data set's own, leaking or not.")
    ] = FoldsBy.group,
    epochs: Annotated[int | None, typer.Option(help="finetune: epochs, fixed beforehand; 30, published 100.")] = None,
    choose_epochs: Annotated[
        bool, typer.Option("--choose-epochs", help="finetune: at most --epochs, by groups set apart from the training folds.")
    ] = False,
    trained_layers: Annotated[
        TrainedLayers | None, typer.Option(help="finetune: what is trained besides the head; last-block by default.")
    ] = None,
    batch_norm: Annotated[
        BatchNorm | None, typer.Option(help="finetune: BatchNorm statistics of layers that are not trained; frozen, published moving.")
    ] = None,
    label_shares: Annotated[
        str | None, typer.Option(metavar="PERCENT,...", help="Learn from these shares of the labelled groups besides: 1,10,100.")
    ] = None,
    allow_overlap: AllowOverlap = None,
    without_overlap: WithoutOverlap = False,
    pretraining_set: PretrainingSet = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate weights on a labelled data set, in folds that no patient or group crosses; refused where weights have seen its clips.

    \b
    uscl evaluate linear demo/set --weights random --weights demo/run --out demo/evaluation
    uscl evaluate finetune set --weights run --out evaluation --seeds 3 --classes regular,covid
    uscl evaluate finetune set --weights run --weights imagenet --out evaluation --protocol both
    uscl evaluate linear set --weights random --weights run --out evaluation --label-shares 1,5,10,25,50,100
    """
    from uscl.evaluation import evaluate as run
    from uscl.evaluation.report import print_evaluation
    from uscl.evaluation.shares import parse_shares

    result = run(
        kind.value,
        dataset,
        weights=weights,
        out=out,
        image_size=image_size,
        seeds=seeds,
        folds=folds,
        where=where or (),
        classes=names_of(classes),
        protocol=protocol.value,
        folds_by=folds_by.value,
        epochs=epochs,
        choose_epochs=choose_epochs,
        trained_layers=trained_layers.value if trained_layers is not None else None,
        batch_norm=batch_norm.value if batch_norm is not None else None,
        label_shares=parse_shares(label_shares) if label_shares is not None else None,
        allow_overlap=allow_overlap or (),
        without_overlap=without_overlap,
        pretraining_sets=pretraining_set or (),
        overwrite=overwrite,
    )
    if as_json:
        print_json(result.summary)
    else:
        print_evaluation(result)
        print(f"report: {out}/report.html")


@one_line_errors
def segment(
    dataset: DataSetArgument,
    weights: Annotated[
        list[str], typer.Option(help="A run folder, a file of weights, 'random', 'imagenet' or a backbone's name; may be given again.")
    ],
    masks: Annotated[
        str,
        typer.Option(metavar="FOLDER|COLUMN", help="PNGs by the frames' paths or frame_ids, or a column with paths; 0 is background."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make for report.html, segmentation.json and scores.parquet.")],
    head: Annotated[SegmentationHead, typer.Option(help="mask-rcnn: instances, by ResNets alone (extra 'coco').")] = SegmentationHead.unet,
    epochs: Annotated[int, typer.Option(help="Epochs, fixed beforehand.")] = 30,
    folds: Annotated[int | None, typer.Option(help="Number of group folds; by default the data set's own, else 5.")] = None,
    seeds: Annotated[int, typer.Option(help="Repeat with so many assignments to folds.")] = 1,
    image_size: ImageSize = None,
    frozen: Annotated[bool, typer.Option("--frozen", help="Train the head alone.")] = False,
    where: Where = None,
    save_masks: Annotated[bool, typer.Option("--save-masks", help="Write the predicted masks to DIR/masks.")] = False,
    allow_overlap: AllowOverlap = None,
    without_overlap: WithoutOverlap = False,
    pretraining_set: PretrainingSet = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Judge weights by segmentation: Dice and IoU on held-out groups, with intervals; instances with --head mask-rcnn.

    \b
    uscl segment set --weights random --weights run --masks masks --out segmentation
    uscl segment set --weights run --masks overlay_path --out segmentation --head fpn --frozen --save-masks
    """
    from uscl.segmentation import segment as run
    from uscl.segmentation.report import print_segmentation

    result = run(
        dataset,
        weights=weights,
        masks=masks,
        out=out,
        head=head.value,
        epochs=epochs,
        folds=folds,
        seeds=seeds,
        image_size=image_size,
        frozen=frozen,
        where=where or (),
        save_masks=save_masks,
        allow_overlap=allow_overlap or (),
        without_overlap=without_overlap,
        pretraining_sets=pretraining_set or (),
        overwrite=overwrite,
    )
    if as_json:
        print_json(result.summary)
    else:
        print_segmentation(result.summary)
        print(f"report: {out}/report.html")


@one_line_errors
def validate(
    dataset: DataSetArgument,
    model: Annotated[
        list[str],
        typer.Option(metavar="MODEL", help="Folder of a classifier, made by 'uscl fit'; may be given again, to compare."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make for report.html, evaluation.json and predictions.parquet.")],
    where: Where = None,
    classes: Annotated[str | None, typer.Option(help="Keep frames with these labels only, with commas between.")] = None,
    allow_overlap: AllowOverlap = None,
    without_overlap: WithoutOverlap = False,
    pretraining_set: PretrainingSet = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Judge fitted classifiers, as they are, on a labelled set of other patients; refused where they have seen its clips.

    \b
    uscl validate other-hospital --model model --out validation
    uscl validate other-hospital --model model --model model-2 --out validation --without-overlap
    """
    from uscl.evaluation.external import validate as run
    from uscl.evaluation.report import print_evaluation

    result = run(
        dataset,
        models=model,
        out=out,
        where=where or (),
        classes=names_of(classes),
        allow_overlap=allow_overlap or (),
        without_overlap=without_overlap,
        pretraining_sets=pretraining_set or (),
        overwrite=overwrite,
    )
    if as_json:
        print_json(result.summary)
    else:
        print_evaluation(result)
        print(f"report: {out}/report.html")


@one_line_errors
def report(
    evaluations: Annotated[list[Path], typer.Argument(metavar="EVAL...", help="Folders made by 'uscl evaluate'.")],
    out: Annotated[Path, typer.Option(help="Folder to make for report.html, report.json and report.tex.")],
    pictures: Annotated[
        list[Path] | None,
        typer.Option(metavar="SET", help="Draw evidence, neighbours and maps from this set, which was evaluated; may be given again."),
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="pictures: a run folder or file that was evaluated; may be given again. 'random' needs none.")
    ] = None,
    colour: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="pictures: colour maps by this column, too; may be given again.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Put evaluations on one page, with what was compared with what, and as JSON and a LaTeX table.

    \b
    uscl report evaluation --out report
    uscl report linear knn finetune --out report --pictures set --weights run --colour manufacturer
    """
    from uscl.evaluation.reporting import report as make

    result = make(evaluations, out=out, pictures=pictures or (), weights=weights or (), colours=colour or (), overwrite=overwrite)
    if as_json:
        print_json(result.content)
    else:
        for sentence in result.content["answer"]:
            print(safe_text(sentence))
        for entry in result.content["evaluations"]:
            for sentence in entry["findings"]:
                print(safe_text(f"{entry['name']}: {sentence}"))
        print(f"report: {out}/report.html; as a table: {out}/report.tex")
