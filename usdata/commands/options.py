"""Options that several verbs share, and how things are told."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key of the recipe; may be given again.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what stands at the target.")]


def counted(number: int, noun: str) -> str:
    """'1 clip', '2 clips'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_json(value: Any) -> None:
    """On stdout, for machines."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))
