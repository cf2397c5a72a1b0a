"""BatchNorm where several processes share a batch: by each process' own part of it, or by the whole.

In comes a network; it keeps its parameters, buffers and names, and its BatchNorm layers are exchanged for ones that know of the other
processes. Running statistics are the same in all processes after each step either way.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from uscl import distributed, processes
from usdata.errors import UserError


class _EitherBatchNorm(_BatchNorm):
    """BatchNorm of pictures (N, C, H, W), as in backbones, or of vectors (N, C), as in projectors."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(input.shape)}")


class OwnPartBatchNorm(_EitherBatchNorm):
    """BatchNorm by the statistics of this process' own rows; of no rows it makes none."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if len(input) or not self.training:
            return super().forward(input)
        # torch refuses to take a mean of nothing. The parameters stay in the graph, so that they have gradients in every process.
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        return input * _along(self.weight, input) + _along(self.bias, input)


class WholeBatchNorm(_EitherBatchNorm):
    """BatchNorm by the statistics of the whole batch, on any device: torch's SyncBatchNorm, which runs on GPUs alone.

    Each process hands in the mean and the sum of squared distances from it; they are joined by the update of Chan, Golub and LeVeque
    (Updating formulae and a pairwise algorithm for computing sample variances, 1979), in float64.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            unbiased = variance * (count / (count - 1).clamp(min=1))
            for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.lerp_(value.to(running.dtype), self.momentum)  # type: ignore[union-attr, arg-type]
        return output


class _Normalise(torch.autograd.Function):
    """y = w * x^ + b with x^ = (x - mean) / sqrt(var + eps), mean and variance over the rows and positions of all processes.

    The gradient is that of BatchNorm (Ioffe and Szegedy: Batch normalization, ICML 2015, section 3), its two means over the whole batch.
    Those of w and b are sums over the process' own rows; their mean over the processes is for `average_gradients`.
    """

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, variance, count = _moments(wide)
        inverse = torch.rsqrt(variance + eps).to(wide.dtype)
        normalised = (wide - _along(mean.to(wide.dtype), wide)) * _along(inverse, wide)
        ctx.save_for_backward(normalised, inverse, weight, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return (normalised * _along(weight, wide) + _along(bias, wide)).to(input.dtype), mean, variance, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, *unused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        normalised, inverse, weight, count = ctx.saved_tensors
        wide = gradient.to(normalised.dtype)
        axes = _but_channels(wide)
        sums = torch.stack([wide.sum(dim=axes), (wide * normalised).sum(dim=axes)])
        for_bias, for_weight = sums.to(weight.dtype, copy=True)
        processes.exchange(dist.all_reduce, sums)
        mean_gradient, mean_product = (sums / count).to(wide.dtype)
        inner = wide - _along(mean_gradient, wide) - normalised * _along(mean_product, wide)
        return (_along(weight * inverse, wide) * inner).to(gradient.dtype), for_weight, for_bias, None


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean (C,) and biased variance (C,) of all processes' rows (N, C, ...), and how many numbers a channel has, all float64."""
    channels = rows.shape[1]
    count = rows.numel() // channels
    own = torch.zeros(3, channels, dtype=torch.float64, device=rows.device)
    if count:
        axes = _but_channels(rows)
        own[0] = rows.mean(dim=axes)
        own[1] = (rows - _along(own[0].to(rows.dtype), rows)).square().sum(dim=axes)
        own[2] = count
    everyone = own.new_empty(processes.world_size(), *own.shape)
    processes.exchange(dist.all_gather, list(everyone.unbind()), own)
    means, squares, counts = everyone.unbind(1)
    total = counts.sum(0)
    mean = (means * counts).sum(0) / total
    variance = (squares + counts * (means - mean).square()).sum(0) / total
    return mean, variance, total[0]


def _but_channels(rows: torch.Tensor) -> tuple[int, ...]:
    return (0, *range(2, rows.ndim))


def _along(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(C,) as it is for rows (N, C), and to (C, 1, 1) for (N, C, H, W)."""
    return values.view(-1, *[1] * (rows.ndim - 2))


def prepare(method: nn.Module, *, whole_batch: bool, device: torch.device) -> None:
    """Exchange the BatchNorm layers of a network, in place, where there are several processes; with one, nothing changes.

    Args:
        method: Any network; parameters and buffers stay the same tensors under the same names.
        whole_batch: Normalise by the whole batch and not by each process' own part of it.
        device: Where the network will run: on a GPU the whole batch is for torch's SyncBatchNorm.
    """
    if processes.world_size() == 1:
        return
    _refuse_what_cannot_be_shared(method)
    if whole_batch and device.type == "cuda":
        followed = {name: layer for name, layer in method.named_modules() if isinstance(layer, nn.BatchNorm2d) and _has_parts(layer)}
        nn.SyncBatchNorm.convert_sync_batchnorm(method)
        for name, layer in followed.items():
            _keep_what_follows(layer, method.get_submodule(name))
        return
    for name, layer in list(method.named_modules()):
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            kind = WholeBatchNorm if whole_batch else OwnPartBatchNorm
            new = kind(layer.num_features, eps=layer.eps, momentum=layer.momentum)
            for key, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
                setattr(new, key, tensor)
            _keep_what_follows(layer, new)
            new.train(layer.training)
            parent, _, last = name.rpartition(".")
            setattr(method.get_submodule(parent), last, new)


def _has_parts(layer: nn.Module) -> bool:
    return next(layer.children(), None) is not None


def _keep_what_follows(old: nn.Module, new: nn.Module) -> None:
    """timm's BatchNorm holds the activation that follows it: that goes along, under its own names."""
    if _has_parts(old):
        new.drop, new.act = old.drop, old.act
        new.register_forward_hook(_activate)


def _activate(layer: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    activated: torch.Tensor = layer.act(layer.drop(output))  # type: ignore[operator]
    return activated


def _refuse_what_cannot_be_shared(method: nn.Module) -> None:
    """Layers with statistics of a batch that are none of torch's BatchNorm would have others in every process.

    Raises:
        UserError: There is one.
    """
    for layer in method.modules():
        own = {name for name, _ in layer.named_buffers(recurse=False)}
        of_timm = set(dict(layer.named_children())) <= {"drop", "act"}
        if own & {"running_mean", "running_var"} and not (isinstance(layer, nn.modules.batchnorm._BatchNorm) and of_timm):
            reason = f"normalises by the batch in a way ({type(layer).__name__}) that several processes cannot share"
            raise UserError("backbone", reason, "train it in one process, or take another network")


def average_statistics(method: nn.Module, videos: int) -> None:
    """Give every process the mean of all processes' running statistics, weighted by their videos; whole-batch layers have no need of it.

    So the saved network says something of all videos, and not of the first process' part alone.

    Args:
        method: After its forward pass.
        videos: Of the whole batch.
    """
    part = distributed.own_part(videos)
    statistics: list[torch.Tensor] = []
    for layer in method.modules():
        if isinstance(layer, OwnPartBatchNorm):
            statistics += [layer.running_mean, layer.running_var]  # type: ignore[list-item]
    distributed.average(statistics, (part.stop - part.start) / videos)
