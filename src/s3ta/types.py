"""What a sequential model did, glimpse by glimpse, and the names of shapes and types that the whole package uses.

Letters: `B` batch, `C` image channels, `H W` image size, `h w` feature map, `K` key channels, `V` value channels,
`S` basis channels, `N` heads, `T` glimpses, `Y` classes, `R` read-outs.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

Images: TypeAlias = Float[Tensor, "B C H W"]
"""RGB (or any channels), float, in [0, 1]."""
Labels: TypeAlias = Int[Tensor, " B"]
Logits: TypeAlias = Float[Tensor, "B Y"]


class Trace(NamedTuple):
    """Everything S3TA shows of one forward pass; gradients flow through all of it."""

    logits: Float[Tensor, "T B Y"]
    """The read-out after each glimpse; the last one is the model's answer."""
    attention: Float[Tensor, "T B N h w"]
    """Where each head looked: non-negative, sums to one over h and w."""


def dtype_name(dtype: torch.dtype) -> str:
    """Such as `float32`."""
    return str(dtype).removeprefix("torch.")
