"""Tricks on the weights themselves: adversarial perturbation for the length of one gradient, and the moving average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from s3ta.train.optimizer import decayed


@contextmanager
def perturbed(model: nn.Module, gamma: float) -> Iterator[None]:
    """Inside, every kernel and matrix is moved along its gradient, which must be there, by gamma times its own norm
    (adversarial weight perturbation, Wu et al. 2020, equation 9); afterwards each is what it was, bit for bit."""
    names = decayed(model)
    moved = {p: p.detach().clone() for name, p in model.named_parameters() if name in names and p.grad is not None}
    with torch.no_grad():
        for parameter in moved:
            assert parameter.grad is not None
            length = parameter.grad.norm().clamp_min(torch.finfo(parameter.dtype).tiny)
            parameter.add_(parameter.grad / length * (gamma * parameter.norm()))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in moved.items():
                parameter.copy_(before)


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Take into the exponential moving average the weights after this training step, counted from 0: average <- d average +
    (1 - d) weights, with d = min(decay, (1 + step) / (10 + step)), so that the first weights are soon forgotten.

    Its buffers, BN's moving averages among them, are the model's: they are averages already."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    for mine, its in zip(average.parameters(), model.parameters(), strict=True):
        mine.lerp_(its, share)
    for mine, its in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(its)
