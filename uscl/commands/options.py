"""Options that several verbs share, and how JSON is printed."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from uscl.completion import weights as weight_names

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


class TrainedLayers(StrEnum):
    """What `finetune` trains besides the new head."""

    head = "head"
    last_block = "last-block"
    last_stage = "last-stage"
    all = "all"


def names_of(text: str | None) -> list[str] | None:
    """Names with commas between; None where nothing was given."""
    return [name.strip() for name in text.split(",")] if text else None


def print_json(value: Any) -> None:
    """On stdout, for machines."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))
