"""Training methods: each turns the views of a batch into a loss, and the training loop knows none of them.

A method is a class made as `Class(config, classes)`, a subclass of `Method`. To add one here, write its module in this folder and its name
into `METHODS`; one of a user's own is named in the recipe as `module:Class` and needs neither.
"""

from __future__ import annotations

import importlib

import torch
import yaml

from uscl.backbones import Backbone
from uscl.config import Config
from uscl.methods.method import Facts, Method, Outcome
from uscl.methods.own import find_own, one_line, own_settings
from uscl.processes import world_size
from uscl.sections import Section
from usdata.errors import RecipeError, nearest

__all__ = ["METHODS", "Facts", "Method", "Outcome", "find_method", "make_method", "own_settings"]

METHODS: dict[str, str] = {
    "moco": "uscl.methods.moco:MoCo",
    "supervised": "uscl.methods.supervised:Supervised",
    "supervised-contrast": "uscl.methods.supervised_contrast:SupervisedContrast",
    "uscl": "uscl.methods.uscl:USCL",
    "barlow-twins": "uscl.methods.barlow_twins:BarlowTwins",
    "vicreg": "uscl.methods.vicreg:VICReg",
    "hico": "uscl.methods.hico:HiCo",
    "dino": "uscl.methods.dino:DINO",
    "meta-uscl": "uscl.methods.meta_uscl:MetaUSCL",
}


# The section of a recipe that belongs to a method alone.
SECTIONS: dict[str, str] = {
    "moco": "moco",
    "barlow-twins": "barlow_twins",
    "vicreg": "vicreg",
    "meta-uscl": "meta",
    "hico": "hico",
    "dino": "dino",
}


def find_method(name: str) -> type[Method]:
    """The class of a method.

    Args:
        name: One of `METHODS`, or `module:Class`, with the module found from the working directory or where Python looks.

    Raises:
        RecipeError: There is none, it is no method, or importing it fails.
    """
    if name not in METHODS:
        if ":" not in name:
            raise RecipeError(
                "method", f"is '{name}', which is not known", f"{nearest(name, METHODS)} (or a class of your own: module:Class)"
            )
        found = find_own(name)
        if not (isinstance(found, type) and issubclass(found, Method)):
            raise RecipeError("method", f"is '{name}', which is no subclass of uscl.methods.Method", "write: class ...(Method)")
        if (found.loss, found.compare, found.forward) == (Method.loss, Method.compare, Method.forward):
            raise RecipeError("method", f"is '{name}', which gives no loss", "write: def loss(self, projections, facts)")
        return found
    module_name, _, class_name = METHODS[name].partition(":")
    kind: type[Method] = getattr(importlib.import_module(module_name), class_name)
    return kind


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
        with one_line(config.method, f"making {kind.__name__}"):
            method = kind(config, classes)
    method.class_weights = class_weights
    return method, method.backbone


def _check_ignored(config: Config, kind: type[Method]) -> None:
    """Refuse values, other than the default, of keys that a method of this package does not look at: those of other methods, too."""
    usual = Config()
    read = SECTIONS.get(config.method)
    ignored = {section for section in SECTIONS.values() if section != read}
    for key in sorted(ignored | kind.ignores):
        value, default = config, usual
        for part in key.split("."):
            value, default = getattr(value, part), getattr(default, part)
        if value != default:
            name = key
            if key in ignored:
                field = next(field for field, own in value if own != getattr(default, field))
                name, default = f"{key}.{field}", getattr(default, field)
            usual_value = default.model_dump() if isinstance(default, Section) else default
            text = yaml.safe_dump(usual_value, default_flow_style=True).removesuffix("\n...\n").strip()
            # The recipe may have set it, for its own method.
            raise RecipeError(name, f"changes nothing in method '{config.method}'", f"use --set {name}={text}, or choose another method")


def check_uses(config: Config, kind: type[Method]) -> None:
    """Refuse what a method would not look at: weights or hard negatives of pairs, settings of a method of one's own; and ways of stepping
    that it cannot go.

    Raises:
        RecipeError: It would not.
    """
    if kind.learns_first:
        # Forward-mode derivatives pass neither compiled code nor BatchNorm over several processes, and a graph would keep the rates it saw.
        impossible = {
            "compile": (config.compile != "off", config.compile, "off"),
            "cuda_graph": (config.cuda_graph, "true", "null"),
            "sync_batchnorm": (config.sync_batchnorm and world_size() > 1, "true", "false"),
        }
        for key, (there, value, instead) in impossible.items():
            if there:
                reason = f"is {value}, which method '{config.method}' cannot take the derivatives of its first step through"
                raise RecipeError(key, reason, f"use --set {key}={instead}")
    brought = {
        "hard_negatives": (config.pairs.policy == "hard-negatives", "pairs.policy=hard-negatives", "choose another policy"),
        "pair_weights": (config.pairs.weights, "pairs.weights=true", "use --set pairs.weights=false"),
        "keys": (
            config.pairs.column is not None and config.pairs.policy != "same-column",
            f"pairs.column={config.pairs.column}",
            "use --set pairs.column=null, or --set pairs.policy=same-column",
        ),
    }
    for use, (there, key, advice) in brought.items():
        if there and use not in kind.uses:
            raise RecipeError(key, f"is not used by method '{config.method}'", f"{advice}, or another method")
    if config.method in METHODS:
        _check_ignored(config, kind)
    if config.own and config.method in METHODS:
        raise RecipeError(f"own.{min(config.own)}", f"is not used by method '{config.method}'", "it is for a method of your own")
