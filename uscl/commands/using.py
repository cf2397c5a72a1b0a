"""Verbs that use weights, and hand them on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uscl.commands.options import AsJson, DataSetArgument, ImageSize, Overwrite, TrainedLayers, Weights, Where, names_of, print_json
from uscl.completion import weights as weight_names
from usdata.console import one_line_errors


class Head(StrEnum):
    """What `uscl fit` puts on the features."""

    linear = "linear"
    knn = "knn"
    finetune = "finetune"


class ComputedIn(StrEnum):
    """What `uscl embed` computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class ExportFormat(StrEnum):
    """What `uscl export` writes."""

    safetensors = "safetensors"
    timm = "timm"
    onnx = "onnx"


class InputType(StrEnum):
    """What an ONNX graph takes."""

    uint8 = "uint8"
    float32 = "float32"


@one_line_errors
def embed(
    dataset: DataSetArgument,
    weights: Weights,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Parquet file to write.")],
    image_size: ImageSize = None,
    where: Where = None,
    precision: Annotated[ComputedIn, typer.Option(help="What the network computes in.")] = ComputedIn.float32,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write the features of every frame as one Parquet file, a row a frame, keyed as the manifest.

    \b
    uscl embed demo/set --weights demo/run --out features.parquet
    uscl embed set --weights imagenet --image-size 224 --where split=test --out features.parquet
    """
    from uscl.embedding import embed as run

    result = run(
        dataset, weights=weights, out=out, image_size=image_size, where=where or (), precision=precision.value, overwrite=overwrite
    )
    if as_json:
        print_json({**vars(result), "out": str(result.out)})
    else:
        print(f"{result.frames:,} frames, {result.width} features each at {result.image_size} pixels: {out}")


@one_line_errors
def fit(
    dataset: DataSetArgument,
    weights: Weights,
    out: Annotated[Path, typer.Option(metavar="MODEL", help="Folder to make for the classifier.")],
    head: Annotated[
        Head, typer.Option(help="linear and knn: on frozen features; finetune: the last block or all of the network.")
    ] = Head.linear,
    image_size: ImageSize = None,
    where: Where = None,
    classes: Annotated[str | None, typer.Option(help="Keep these labels only, with commas between.")] = None,
    epochs: Annotated[int, typer.Option(help="finetune: epochs, fixed beforehand.")] = 30,
    trained_layers: Annotated[TrainedLayers, typer.Option(help="finetune: what is trained besides the head.")] = TrainedLayers.last_block,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fit a classifier on all labelled frames of a set, to predict others with; how good it is, 'uscl evaluate' says.

    \b
    uscl fit demo/set --weights demo/run --out demo/model
    uscl fit set --weights run --head finetune --where split=train --out model
    """
    from uscl.fitting import fit as run

    result = run(
        dataset,
        weights=weights,
        out=out,
        head=head.value,
        image_size=image_size,
        where=where or (),
        classes=names_of(classes),
        epochs=epochs,
        trained_layers=trained_layers.value,
        overwrite=overwrite,
    )
    if as_json:
        print_json(result.about)
    else:
        data = result.about["dataset"]
        print(f"{len(result.about['classes'])} classes, fitted on {data['frames']:,} frames of {data['videos']:,} clips: {out}")
        print(f"next: uscl predict SET --model {out} --out PREDICTIONS, or uscl validate OTHER --model {out} --out VALIDATION")


@one_line_errors
def predict(
    dataset: DataSetArgument,
    model: Annotated[Path, typer.Option(metavar="MODEL", help="Folder of a classifier, made by 'uscl fit'.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make for frames.parquet, videos.parquet and predictions.json.")],
    where: Where = None,
    compare: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Look for clips that the classifier or its weights were trained on.")
    ] = True,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Predict the classes of a set's frames and clips; clips that the classifier knows are told of.

    \b
    uscl predict demo/set --model demo/model --out demo/predictions
    uscl predict set --model model --where label= --out predictions
    """
    from uscl.predicting import predict as run

    result = run(dataset, model=model, out=out, where=where or (), compare=compare, overwrite=overwrite)
    if as_json:
        print_json(result.about)
    else:
        told = ", ".join(f"{count:,} {name}" for name, count in result.about["videos_by_class"].items())
        print(f"{result.about['frames']:,} frames of {result.about['videos']:,} clips: {told}; {out}/videos.parquet")


@one_line_errors
def export(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run folder, a file of weights, or a classifier made by 'uscl fit'.", autocompletion=weight_names
        ),
    ],
    format: Annotated[ExportFormat, typer.Option(help="safetensors: torchvision's names; timm: a folder it reads; onnx: a graph.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    image_size: ImageSize = None,
    input_type: Annotated[InputType, typer.Option("--input", help="onnx: type of the gray levels, 0 to 255.")] = InputType.uint8,
    dataset: Annotated[
        Path | None, typer.Option(metavar="SET", help="Frames to check the graph on; counts and licences of what was trained on.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An evaluation of these weights, or of this classifier, for the model card.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Hand weights on: a folder that torchvision, timm or ONNX Runtime reads, with a model card.

    \b
    uscl export demo/run --format timm --out demo/timm
    uscl export run --format onnx --dataset set --evaluation evaluation --out onnx
    """
    from uscl.exporting import export as run

    result = run(
        weights,
        format=format.value,
        out=out,
        image_size=image_size,
        input_type=input_type.value,
        dataset=dataset,
        evaluation=evaluation,
        overwrite=overwrite,
    )
    if as_json:
        print_json({**vars(result), "out": str(result.out)})
        return
    if result.difference is not None:
        real = f"{result.compared} frames of the set and random ones" if result.compared else "random frames"
        print(f"ONNX Runtime and torch differ by {result.difference:.1g} at most, on {real}")
    print(f"{out}: {', '.join(result.files)}")
