"""What is to be judged: how weights are called in results, of which architecture they are, and where they come from.

In: the words of `--weights`. Out: names, architectures, provenance. A word is a path where there is one; else 'random', 'imagenet', or the
name of an architecture, alone (its published weights) or before a colon and weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uscl.config import BACKBONES, TIMM
from uscl.evaluation.features import weights_digest
from uscl.evaluation.finetune import TrainedLayers, trained_part
from uscl.models import load_backbone
from usdata.errors import UserError

RANDOM, IMAGENET = "random", "imagenet"
DEFAULT_IMAGE_SIZE = 224


def result_names(weights: Sequence[str], option: str = "--weights") -> list[str]:
    """How each of the weights is called in results: the word itself, or the shortest end of its path that no other one has.

    Args:
        weights: Words.
        option: Where they come from, for messages.

    Raises:
        UserError: Two of them are the same.
    """
    parts = [Path(word).resolve().parts[1:] if word not in (RANDOM, IMAGENET) and Path(word).exists() else (word,) for word in weights]
    names = []
    for place, (word, own) in enumerate(zip(weights, parts, strict=True)):
        others = parts[:place] + parts[place + 1 :]
        if own in others:
            raise UserError(option, f"names the same twice ({word})", "name each once")
        # A word that is no path, and a path that is the end of another one, are called by all they have.
        length = next((size for size in range(1, len(own)) if all(own[-size:] != other[-size:] for other in others)), len(own))
        names.append("/".join(own[-length:]))
    return names


def architectures(weights: Sequence[str]) -> list[tuple[str, str]]:
    """Of each of the weights the backbone that is asked for, and the weights without it; a file that says what it is wins in the end."""
    named = [_parted(word) for word in weights]
    first = next((word for name, word in named if not name and word not in (RANDOM, IMAGENET)), None)
    usual = BACKBONES[0] if first is None else load_backbone(first)[0].name
    return [(name or (usual if word in (RANDOM, IMAGENET) else BACKBONES[0]), word) for name, word in named]


def _parted(word: str) -> tuple[str, str]:
    name, colon, rest = word.partition(":")
    if not (name in BACKBONES or name.startswith(TIMM)) or Path(word).exists():
        return "", word
    return (name, rest) if colon else (name, IMAGENET)


def provenance(architecture: str, word: str) -> dict[str, Any]:
    """Where weights come from, with the digest of what was loaded."""
    backbone, found = load_backbone(word, name=architecture)
    return {**found, "weights_sha256": weights_digest(backbone)}


def refuse_untrainable(weights: Mapping[str, tuple[str, str]], layers: TrainedLayers) -> None:
    """Refuse weights of an architecture that lacks the part to be trained, before anything else is done.

    Args:
        weights: Name in results to architecture and word.
        layers: What is to be trained besides the head.

    Raises:
        UserError: One of them has no last residual block.
    """
    for name, (architecture, word) in weights.items():
        trained_part(load_backbone(word, name=architecture)[0], layers, name=name)


def trained_size(provenances: Mapping[str, Mapping[str, Any]]) -> int:
    """The image size that weights were trained at, else 224.

    Raises:
        UserError: They were trained at several.
    """
    sizes = {entry["image_size"]: name for name, entry in provenances.items() if entry["image_size"]}
    if len(sizes) > 1:
        told = ", ".join(f"{name} at {size}" for size, name in sorted(sizes.items()))
        raise UserError("--weights", f"were trained at different image sizes ({told})", "say at which to compare them with --image-size")
    return next(iter(sizes), DEFAULT_IMAGE_SIZE)
