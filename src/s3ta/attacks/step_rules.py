"""How an iterate moves along a gradient, before it is projected back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from s3ta.attack_config import AdamConfig, Annealing, PGDConfig
from s3ta.attacks.threat import unit

StepRule: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]
"""(images, gradient of the objective, number of steps done) -> images; ascends. A rule with a memory forgets it at step 0."""
Direction: TypeAlias = Callable[[Tensor], Tensor]


def step_rule(config: PGDConfig | AdamConfig) -> StepRule:
    """The step rule of an attack's settings."""
    if isinstance(config, AdamConfig):
        return adam_step(config.learning_rates, config.beta1, config.beta2, config.epsilon)
    size = annealed_step_size(config.step_size, config.num_attack_steps, config.annealing)
    rule = l2_step(size) if config.norm == "l2" else sign_step(size)
    return with_momentum(rule, config.momentum) if config.momentum else rule


def sign_step(step_size: float | Callable[[int], float]) -> StepRule:
    """Every pixel moves by step_size along the sign of its gradient, and stays where that is zero (T16).

    `step_size` may depend on the number of steps done (`annealed_step_size`)."""
    return _step(step_size, torch.sign)


def l2_step(step_size: float | Callable[[int], float]) -> StepRule:
    """Every image moves by the Euclidean length step_size along its gradient."""
    return _step(step_size, unit)


def annealed_step_size(step_size: float, num_attack_steps: int, annealing: Annealing) -> Callable[[int], float]:
    """The size of each step: constant, or falling to (nearly) nothing along a line or half a cosine."""
    shares: dict[str, Callable[[float], float]] = {
        "constant": lambda done: 1.0,
        "linear": lambda done: 1 - done,
        "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    }
    share = shares[annealing]
    return lambda step: step_size * share(step / num_attack_steps)


def with_momentum(rule: StepRule, decay: float) -> StepRule:
    """The rule along a running sum of gradients, each brought to mean absolute value 1 (MI-FGSM, Dong et al. 2018)."""
    memory: list[Tensor] = []

    def step(images: Tensor, gradient: Tensor, done: int) -> Tensor:
        size = gradient.abs().flatten(1).mean(dim=1).clamp(min=1e-30).view(-1, 1, 1, 1)
        summed = gradient / size + (decay * memory.pop() if done else 0)
        memory[:] = [summed]
        return rule(images, summed, done)

    return step


def adam_step(
    learning_rates: Sequence[tuple[int, float]],
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-9,
) -> StepRule:
    """Adam on the image, raw gradient, moments kept over the whole run and never projected (E10, X12).

    Args:
      learning_rates: (from this number of steps done, so much), rising, the first from 0.
      epsilon: 1e-9, ten times below torch's default: input gradients can be as small as that (X11)."""
    moments: list[Tensor] = []

    def step(images: Tensor, gradient: Tensor, done: int) -> Tensor:
        first, second = moments if done else (torch.zeros_like(gradient), torch.zeros_like(gradient))
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient.square()
        moments[:] = [first, second]
        rate = next(rate for since, rate in reversed(learning_rates) if done >= since)
        unbiased, spread = first / (1 - beta1 ** (done + 1)), (second / (1 - beta2 ** (done + 1))).sqrt()
        return images + rate * unbiased / (spread + epsilon)

    return step


def _step(step_size: float | Callable[[int], float], direction: Direction) -> StepRule:
    size = step_size if callable(step_size) else lambda done: step_size
    return lambda images, gradient, done: images + size(done) * direction(gradient)
