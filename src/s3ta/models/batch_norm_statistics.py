"""What training needs of batch normalisation beside timm's layer: statistics left alone for a while, or shared by processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from s3ta.external_code_errors import modes_kept


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Inside, a forward pass in training mode uses the batch's statistics but leaves the moving averages alone.

    They are still given to the kernel, with momentum 0, so that autograd saves the same tensors as otherwise."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked


@contextmanager
def temporary_statistics(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Inside, a model that was never trained has these images' statistics for moving averages; afterwards its own again.

    With the averages that it begins with (0 and 1) a deep network in eval mode answers with numbers so large that softmax
    and attention saturate: hardly any gradient is left, and the last bits decide. A model that was trained keeps its own."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    fresh = [norm for norm in norms if norm.num_batches_tracked is not None and not norm.num_batches_tracked.item()]
    before = [({key: value.clone() for key, value in norm.named_buffers()}, norm.momentum) for norm in fresh]
    try:
        if fresh:
            for norm in fresh:
                norm.momentum = 1.0
            with modes_kept(model), torch.no_grad():
                model.train()(images)
        yield
    finally:
        for norm, (buffers, momentum) in zip(fresh, before, strict=True):
            norm.momentum = momentum
            for key, value in norm.named_buffers():
                value.copy_(buffers[key])


def synchronize(model: nn.Module, span: int) -> None:
    """From now on the model's BN layers take, in training mode, the statistics of the images of `span` processes together:
    the first so many, the next so many, and so on; `span` must divide their number.

    In eval mode nothing changes, so an attack needs nobody else (X39). Parameters, buffers and their names stay. (torch's
    own `SyncBatchNorm` takes no tensors of the CPU.)"""
    for module in model.modules():
        if type(module) is BatchNormAct2d:
            module.__class__ = SharedBatchNorm
            setattr(module, "span", span)  # noqa: B010 - its class was another when a type checker last looked
    _neighbours(span, distributed.group.WORLD)  # by all processes at once, for all take part in making a group


class SharedBatchNorm(BatchNormAct2d):
    """`BatchNormAct2d` with the statistics of `span` processes; each must bring as many images."""

    span: int
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None
    eps: float
    momentum: float
    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, normalised; gradients flow through the statistics between the processes too."""
        if not self.training:
            return super().forward(x)
        count = x.numel() // x.shape[1] * self.span
        mean = _sum(x.float().sum(dim=(0, 2, 3)), self.span) / count
        centred = x.float() - mean.view(1, -1, 1, 1)
        variance = _sum(centred.square().sum(dim=(0, 2, 3)), self.span) / count
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / max(1, count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return self.act(self.drop(normalised.to(x.dtype)))


class _Sum(torch.autograd.Function):
    """The sum over so many processes. A loss in any of them depends on every term, so gradients are summed in the same way."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, span: int) -> Tensor:
        ctx.span = span
        total = part.clone()
        distributed.all_reduce(total, group=_neighbours(span, distributed.group.WORLD))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _sum(grads[0], ctx.span), None


def _sum(part: Tensor, span: int) -> Tensor:
    return _Sum.apply(part, span)  # pyright: ignore[reportReturnType]


@lru_cache(maxsize=4)
def _neighbours(span: int, world: Any) -> Any:
    """The group of processes that this one shares statistics with; made anew for another world."""
    rank, count = distributed.get_rank(), distributed.get_world_size()
    if span == count:
        return world
    groups = [distributed.new_group(list(range(first, first + span))) for first in range(0, count, span)]
    return groups[rank // span]
