"""Training methods: each turns the views of a batch into a loss, and the training loop knows none of them.

A method is a class made as `Class(config, classes)`, a subclass of `Method`. To add one here, write its module in this folder and its name
into `METHODS`; one of a user's own is named in the recipe as `module:Class` and needs neither.
"""

from __future__ import annotations

import importlib
import os
import sys

import torch

from uscl.backbones import Backbone
from uscl.config import Config
from uscl.methods.method import Facts, Method, Outcome
from usdata.errors import RecipeError, nearest

__all__ = ["METHODS", "Facts", "Method", "Outcome", "find_method", "make_method"]

METHODS: dict[str, str] = {
    "uscl": "uscl.methods.uscl:USCL",
}


def find_method(name: str) -> type[Method]:
    """The class of a method.

    Args:
        name: One of `METHODS`, or `module:Class`, with the module found from the working directory or where Python looks.

    Raises:
        RecipeError: There is none, or it is no method.
    """
    where = METHODS.get(name, name)
    module_name, colon, class_name = where.partition(":")
    if not colon:
        raise RecipeError("method", f"is '{name}', which is not known", f"{nearest(name, METHODS)} (or a class of your own: module:Class)")
    own = name not in METHODS
    before = list(sys.path)
    try:
        if own:
            sys.path.insert(0, os.getcwd())
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0]:
            raise
        raise RecipeError(
            "method", f"is '{name}', and there is no module '{module_name}'", f"is {module_name}.py in this folder?"
        ) from None
    finally:
        sys.path[:] = before
    if not (isinstance(found, type) and issubclass(found, Method)):
        what = "has no such class" if found is None else "is no subclass of uscl.methods.Method"
        raise RecipeError("method", f"is '{name}', and {module_name} {what}" if found is None else f"is '{name}', which {what}")
    return found


def make_method(config: Config, classes: int, class_weights: torch.Tensor | None = None) -> tuple[Method, Backbone]:
    """The configured method with weights from the run's seed, and its backbone; torch's global generator is left as it was.

    Args:
        config: Of the run.
        classes: How many classes the labels have; 0 where they are not used.
        class_weights: (classes,) of the cross-entropy; None: all equal.

    Raises:
        RecipeError: There is no such method, or it does not use what the pairs bring.
    """
    kind = find_method(config.method)
    check_uses(config, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = kind(config, classes)
    method.class_weights = class_weights
    return method, method.backbone


def check_uses(config: Config, kind: type[Method]) -> None:
    """Refuse pairs whose weights, keys or hard negatives a method would not look at.

    Raises:
        RecipeError: It would not.
    """
    brought = {
        "hard_negatives": (config.pairs.policy == "hard-negatives", "pairs.policy=hard-negatives", "choose another policy"),
        "pair_weights": (config.pairs.weights, "pairs.weights=true", "use --set pairs.weights=false"),
    }
    for use, (there, key, advice) in brought.items():
        if there and use not in kind.uses:
            raise RecipeError(key, f"is not used by method '{config.method}'", f"{advice}, or another method")
