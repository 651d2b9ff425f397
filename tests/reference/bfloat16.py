"""What bfloat16, with its eight significant bits, may do to a gradient on one processor or another (X10)."""

import torch
from torch import Tensor

UNIT = 2.0**-8
"""Of the last significant bit, beside a number."""


def check_input_gradients(found: Tensor, exact: Tensor) -> None:
    """X10: more than 95 % of the signs are the same, and hardly a pixel more has a gradient of exactly zero.

    A pixel's gradient is a sum. Where a processor without instructions for bfloat16 keeps the sum in bfloat16, terms that
    nearly cancel leave zero: at most where float32 has less than a unit of the last place of the image's typical gradient.
    Where it keeps the sum in float32, none does. Lost gradients (underflow) are zeros at pixels of any size, and many more.

    Args:
      found: gradients in bfloat16's arithmetic, as float32 (images, ...).
      exact: the same in float32."""
    assert found.dtype == torch.float32
    typical = exact.flatten(1).square().mean(dim=1).sqrt().view(-1, *(1 for _ in exact.shape[1:]))
    may_cancel = (exact != 0) & (exact.abs() < UNIT * typical)
    assert ((found == 0) & (exact != 0)).sum() <= may_cancel.sum(), "more zeros than bfloat16 can explain"
    assert (found.sign() == exact.sign()).float().mean() > 0.95
