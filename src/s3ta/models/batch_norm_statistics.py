"""What training needs of batch normalisation beside timm's layer: statistics left alone for a while, or shared by processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from s3ta.errors import UserError
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


BatchStatistics: TypeAlias = dict[_BatchNorm, tuple[Tensor, Tensor]]
"""Of each BN layer the mean and the variance (not corrected by one) of a batch."""


@contextmanager
def statistics_recorded(model: nn.Module) -> Iterator[BatchStatistics]:
    """Yields what a forward pass inside normalises with; no gradient attached."""
    statistics: BatchStatistics = {}

    def note(norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(norm, _BatchNorm)
        if not norm.training and norm.running_mean is not None and norm.running_var is not None:
            statistics[norm] = norm.running_mean, norm.running_var
        elif isinstance(norm, SharedBatchNorm):
            statistics[norm] = norm.batch_statistics
        else:
            variance, mean = torch.var_mean(inputs[0].detach().float(), dim=(0, 2, 3), correction=0)
            statistics[norm] = mean, variance

    handles = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, _BatchNorm)]
    try:
        yield statistics
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def statistics_fixed(statistics: BatchStatistics) -> Iterator[None]:
    """Inside, BN layers normalise with these constants in place of a batch's statistics; no average moves."""
    before = [(norm, norm.training, norm.running_mean, norm.running_var) for norm in statistics]
    try:
        for norm, (mean, variance) in statistics.items():
            norm.training, norm.running_mean, norm.running_var = False, mean, variance
        yield
    finally:
        for norm, training, mean, variance in before:
            norm.training, norm.running_mean, norm.running_var = training, mean, variance


def synchronize(model: nn.Module, span: int) -> None:
    """From now on the model's BN layers take, in training mode, the statistics of the images of `span` processes together:
    the first so many, the next so many, and so on; `span` must divide their number.

    In eval mode nothing changes, so an attack needs nobody else (X39). Parameters, buffers and their names stay. (torch's
    own `SyncBatchNorm` takes no tensors of the CPU.)"""
    shared: dict[type, type] = {BatchNormAct2d: SharedBatchNormAct, nn.BatchNorm2d: SharedBatchNorm}
    for module in model.modules():
        if type(module) in shared:
            module.__class__ = shared[type(module)]
            setattr(module, "span", span)  # noqa: B010 - its class was another when a type checker last looked
        elif isinstance(module, _BatchNorm):
            raise UserError(
                f"The model's BN layers are of the kind {type(module).__name__}, whose statistics processes cannot share: let "
                "every process have whole BN groups (batch_norm.sync=false)."
            )
    _neighbours(span, distributed.group.WORLD)  # by all processes at once, for all take part in making a group


class SharedBatchNorm(nn.BatchNorm2d):
    """`BatchNorm2d` with the statistics of `span` processes; each must bring as many images."""

    span: int
    batch_statistics: tuple[Tensor, Tensor]
    """Mean and variance of the last batch in training mode."""
    weight: Tensor
    bias: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, normalised; gradients flow through the statistics between the processes too."""
        if not self.training:
            return super().forward(input)
        count = input.numel() // input.shape[1] * self.span
        mean = _sum(input.float().sum(dim=(0, 2, 3)), self.span) / count
        centred = input.float() - mean.view(1, -1, 1, 1)
        variance = _sum(centred.square().sum(dim=(0, 2, 3)), self.span) / count
        self.batch_statistics = mean.detach(), variance.detach()
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            for average, value in ((self.running_mean, mean), (self.running_var, variance * count / max(1, count - 1))):
                if average is not None:
                    average.lerp_(value, self.momentum or 0.0)
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalised.to(input.dtype)


class SharedBatchNormAct(SharedBatchNorm):
    """`BatchNormAct2d` with the statistics of `span` processes: what follows it in timm's layer follows here too."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


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
