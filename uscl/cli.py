"""The `uscl` command line: parse, call the function of the same name, print. No logic lives here."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from uscl.completion import recipe_names
from uscl.completion import weights as weight_names
from usdata.console import one_line_errors, safe_text

app = typer.Typer(
    name="uscl",
    help="Contrastive pretraining on ultrasound video, and evaluation that holds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DataSetArgument = Annotated[Path, typer.Argument(metavar="SET", help="Data set folder, made by 'usdata build'.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what stands at the target.")]
Weights = Annotated[
    str,
    typer.Option(
        help="A run folder, a file (.safetensors, .pth), 'random' or 'imagenet'; 'NAME:random' is of that backbone.",
        autocompletion=weight_names,
    ),
]
Where = Annotated[list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Keep these frames only ('|' between values; '!=' for not).")]
ImageSize = Annotated[int | None, typer.Option(help="Pixels; by default as trained, else 224.")]
AllowOverlap = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Judge these weights though they were trained on clips evaluated here; may be given again."),
]
WithoutOverlap = Annotated[
    bool, typer.Option("--without-overlap", help="Leave out clips that any weights were trained on, with their groups.")
]
PretrainingSet = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]SET", help="What weights were trained on that do not say it themselves; may be given again."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]


class Evaluation(StrEnum):
    """What is trained on the features."""

    linear = "linear"
    finetune = "finetune"
    knn = "knn"


class Head(StrEnum):
    """What `uscl fit` puts on the features."""

    linear = "linear"
    knn = "knn"
    finetune = "finetune"


class SegmentationHead(StrEnum):
    """What `uscl segment` puts on the backbone."""

    unet = "unet"
    fpn = "fpn"
    mask_rcnn = "mask-rcnn"


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


class TrainedLayers(StrEnum):
    """What `finetune` trains besides the new head."""

    head = "head"
    last_block = "last-block"
    last_stage = "last-stage"
    all = "all"


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


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("usdata-uscl"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Contrastive pretraining on ultrasound video, and evaluation that holds."""


@app.command()
@one_line_errors
def pretrain(
    dataset: DataSetArgument,
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="A shipped recipe's name ('uscl recipes' lists them) or a YAML file; uscl by default; may be given again.",
            autocompletion=recipe_names,
        ),
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key; may be given again.")] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(metavar="A.B=C,D", help="A run for each of these values, below --out; may be given again.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="A run for each of the seeds 0 to N-1, below --out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Start from: a run folder, a file (.safetensors, .pth), 'imagenet', or 'random'.",
            autocompletion=weight_names,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and the arithmetic, and stop.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Pretrain a backbone on a data set's clips; a run that was stopped goes on with --resume, a sweep of runs by the same command.

    \b
    uscl pretrain demo/set --out demo/run --recipe demo
    uscl pretrain set --out run --set epochs=100 --set image_size=112
    uscl pretrain set --out runs --sweep temperature=0.1,0.5 --seeds 3
    uscl pretrain set --out runs --recipe uscl --recipe simclr --sweep "augment.scale=[0.2,1.0],[0.8,1.0]" --dry-run
    torchrun --standalone --nproc-per-node 4 -m uscl pretrain set --out run
    """
    recipes = recipe or ["uscl"]
    if sweep or seeds is not None or len(recipes) > 1:
        _sweep(dataset, out, recipes, overrides or [], sweep or [], seeds, init_from, dry_run, overwrite, as_json)
        return
    from uscl.processes import is_first
    from uscl.train import pretrain as train

    result = train(
        dataset,
        out=out,
        recipe=recipes[0],
        overrides=overrides or (),
        resume=resume,
        overwrite=overwrite,
        init_from=init_from,
        dry_run=dry_run,
    )
    if not is_first():  # of the processes of torchrun
        return
    if as_json:
        _print_json({**vars(result), "out": str(result.out)})
    elif not dry_run:
        print(f"weights: {result.out}/export/backbone.safetensors; report: {result.out}/report.html")
        if len(result.classes) > 1:
            print(f"next: uscl evaluate linear SET --weights random --weights {result.out} --out EVALUATION")
        else:
            print(f"next: uscl embed {dataset} --weights {result.out} --out features.parquet; uscl evaluate needs a set with labels")


def _sweep(
    dataset: Path,
    out: Path,
    recipes: list[str],
    overrides: list[str],
    values: list[str],
    seeds: int | None,
    init_from: str | None,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    from uscl.sweeping import print_sweep, sweep
    from usdata.errors import EXIT_USER_ERROR, UserError

    if overwrite:
        raise UserError("--overwrite", "is not for a sweep", "delete the folders of those runs that are to be made anew")
    result = sweep(dataset, out=out, sweep=values, seeds=seeds, recipe=recipes, overrides=overrides, init_from=init_from, dry_run=dry_run)
    if as_json:
        _print_json(result.to_json())
    else:
        print_sweep(result, dry_run=dry_run)
    if result.failed:
        raise typer.Exit(EXIT_USER_ERROR)


@app.command()
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
        classes=_names(classes),
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
        _print_json(result.summary)
    else:
        print_evaluation(result)
        print(f"report: {out}/report.html")


@app.command()
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
        _print_json(result.summary)
    else:
        print_segmentation(result.summary)
        print(f"report: {out}/report.html")


@app.command()
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
        _print_json({**vars(result), "out": str(result.out)})
    else:
        print(f"{result.frames:,} frames, {result.width} features each at {result.image_size} pixels: {out}")


@app.command()
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
        classes=_names(classes),
        epochs=epochs,
        trained_layers=trained_layers.value,
        overwrite=overwrite,
    )
    if as_json:
        _print_json(result.about)
    else:
        data = result.about["dataset"]
        print(f"{len(result.about['classes'])} classes, fitted on {data['frames']:,} frames of {data['videos']:,} clips: {out}")
        print(f"next: uscl predict SET --model {out} --out PREDICTIONS")


@app.command()
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
        _print_json(result.about)
    else:
        told = ", ".join(f"{count:,} {name}" for name, count in result.about["videos_by_class"].items())
        print(f"{result.about['frames']:,} frames of {result.about['videos']:,} clips: {told}; {out}/videos.parquet")


@app.command()
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
        classes=_names(classes),
        allow_overlap=allow_overlap or (),
        without_overlap=without_overlap,
        pretraining_sets=pretraining_set or (),
        overwrite=overwrite,
    )
    if as_json:
        _print_json(result.summary)
    else:
        print_evaluation(result)
        print(f"report: {out}/report.html")


@app.command()
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
        _print_json({**vars(result), "out": str(result.out)})
        return
    if result.difference is not None:
        real = f"{result.compared} frames of the set and random ones" if result.compared else "random frames"
        print(f"ONNX Runtime and torch differ by {result.difference:.1g} at most, on {real}")
    print(f"{out}: {', '.join(result.files)}")


@app.command()
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
        _print_json(result.content)
    else:
        for sentence in result.content["answer"]:
            print(safe_text(sentence))
        for entry in result.content["evaluations"]:
            for sentence in entry["findings"]:
                print(safe_text(f"{entry['name']}: {sentence}"))
        print(f"report: {out}/report.html; as a table: {out}/report.tex")


@app.command()
@one_line_errors
def bench(
    dataset: Annotated[Path | None, typer.Argument(metavar="[SET]", help="Data set folder; without one, frames are made up.")] = None,
    recipe: Annotated[str, typer.Option(help="A shipped recipe's name or a YAML file.", autocompletion=recipe_names)] = "uscl",
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key; may be given again.")] = None,
    seconds: Annotated[float, typer.Option(help="About how long to measure.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Measure how fast this machine trains: views a second by stage, from the store to the optimiser.

    \b
    uscl bench
    uscl bench set --set image_size=112 --set precision=bfloat16 --json
    """
    from uscl.benchmark import bench as measure
    from uscl.benchmark import print_bench

    result = measure(dataset, recipe=recipe, overrides=overrides or (), seconds=seconds)
    if as_json:
        _print_json(result.to_json())
    else:
        print_bench(result)


@app.command()
@one_line_errors
def doctor(as_json: AsJson = False) -> None:
    """Tell what this machine can train with, what each extra gives, and what to install for the rest.

    \b
    uscl doctor
    uscl doctor --json
    """
    from uscl.doctor import examine, print_examination

    examined = examine()
    if as_json:
        _print_json(examined.to_json())
    else:
        print_examination(examined)


@app.command()
@one_line_errors
def runs(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder with runs in it or below it.")] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Show runs side by side: how far each came, its last figures, and the settings in which they differ.

    \b
    uscl runs
    uscl runs experiments --json
    """
    from uscl.run_list import print_runs
    from uscl.run_list import runs as read

    rows = read(folder)
    if as_json:
        _print_json([vars(row) for row in rows])
    else:
        print_runs(rows)


@app.command()
@one_line_errors
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one, to copy.", autocompletion=recipe_names)] = None,
    as_json: AsJson = False,
) -> None:
    """List the training recipes that come with the package, or print one.

    \b
    uscl recipes
    uscl recipes uscl > mine.yaml
    """
    from uscl.config import load_config, recipe_text
    from uscl.recipe_list import list_recipes, print_recipes

    if name is not None:
        text = recipe_text(name)
        if as_json:
            _print_json(load_config(name).model_dump(mode="json"))
        else:
            print(text, end="")
    elif as_json:
        _print_json([vars(row) for row in list_recipes()])
    else:
        print_recipes(list_recipes())


def _names(text: str | None) -> list[str] | None:
    """Names with commas between; None where nothing was given."""
    return [name.strip() for name in text.split(",")] if text else None


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))
