"""Training methods: each turns two views into a loss, and the training loop knows none of them.

A method is a module made as `Method(config, classes)`, with an attribute `backbone`, an `embed(view_a, view_b)` for what of a video does
not depend on the others, a `compare(*embedded, labels, same_group=None)` that returns an `Outcome`, and a `forward` that is both. To add
one, write its module here and its name into `METHODS`. Where several processes train, views are those of a process' own part of the batch
and labels those of the whole: a method gathers what its loss compares (`uscl.distributed.gather`), and every process computes the loss of
the whole batch.
"""

from __future__ import annotations

from typing import Protocol, TypedDict

import torch
from torch import nn

from uscl.config import Config
from uscl.methods.uscl import USCL
from uscl.models import Backbone
from usdata.errors import RecipeError, nearest


class Outcome(TypedDict):
    """What a method returns.

    Keys:
        loss: Scalar with a gradient, of the whole batch.
        terms: Its parts by name, without their weights.
        features: (2n, width) of the backbone, view a before view b, of this process' n videos.
        projections: (2N, D) of the projector, in the same order, of the whole batch.
    """

    loss: torch.Tensor
    terms: dict[str, torch.Tensor]
    features: torch.Tensor
    projections: torch.Tensor


class Method(Protocol):
    """How a method is made."""

    def __call__(self, config: Config, classes: int) -> nn.Module:
        """A method for this configuration; `classes` is 0 where labels are not used."""
        ...


METHODS: dict[str, Method] = {"uscl": USCL}


def make_method(config: Config, classes: int) -> tuple[nn.Module, Backbone]:
    """The configured method with weights from the run's seed, and its backbone; torch's global generator is left as it was.

    Raises:
        RecipeError: There is no such method.
    """
    if config.method not in METHODS:
        raise RecipeError("method", f"is '{config.method}', which is not known", nearest(config.method, METHODS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = METHODS[config.method](config, classes)
    backbone = method.backbone
    if not isinstance(backbone, Backbone):
        raise TypeError(f"method '{config.method}' has no backbone")
    return method, backbone
