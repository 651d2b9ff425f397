"""How an iterate moves along a gradient, before it is projected back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

StepRule: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(images, gradient of the objective) -> images; ascends."""


def sign_step(step_size: float) -> StepRule:
    """Every pixel moves by step_size along the sign of its gradient, and stays where that is zero (T16)."""
    return lambda images, gradient: images + step_size * gradient.sign()
