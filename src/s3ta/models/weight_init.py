"""The one initialisation that torch does not name: Sonnet's truncated normal."""

from __future__ import annotations

import math

from torch import Tensor, nn


def truncated_normal_(weight: Tensor, *, fan_in: int) -> None:
    """Normal with std 1/sqrt(fan_in), cut at two standard deviations (M12)."""
    std = 1 / math.sqrt(fan_in)
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer as Sonnet begins it: weights as above, biases zero (M12)."""
    layer = nn.Linear(inputs, outputs)
    truncated_normal_(layer.weight, fan_in=inputs)
    nn.init.zeros_(layer.bias)
    return layer
