"""The numbers that a foreign network computes with: float32 where it can, its own where it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from s3ta.external_code_errors import guarded
from s3ta.types import dtype_name


def cast_to_float32(net: nn.Module, answers: Callable[[], bool]) -> tuple[str, ...]:
    """Cast a network to float32 in place. Where it does not answer float32 images then (`answers`), and did before (it casts
    its input itself), it gets its own numbers back.

    Returns what was done, for the record: nothing where it is float32 already. Raises ForeignError where it cannot be cast."""
    others = [
        (holder, key, tensor, tensor.data)
        for holder, key, tensor in _slots(net)
        if tensor.is_floating_point() and tensor.dtype != torch.float32
    ]
    if not others:
        return ()
    kinds = " and ".join(sorted({dtype_name(data.dtype) for *_, data in others}))
    with guarded(f"{type(net).__name__}.float()"):
        net.float()
    if not answers():
        for holder, key, tensor, data in others:
            if isinstance(tensor, nn.Parameter):
                tensor.data = data
            holder[key] = tensor
        if answers():
            return (f"Weights stay {kinds}, for the network fails in float32; its answers are taken as float32.",)
        with guarded(f"{type(net).__name__}.float()"):
            net.float()
    return (f"Weights were cast from {kinds} to float32.",)


def leave_inference_mode(net: nn.Module) -> None:
    """Give a network that was made in inference mode ordinary tensors, through which gradients flow."""
    ordinary: dict[int, Tensor] = {}
    for holder, key, tensor in _slots(net):
        if not is_lazy(tensor) and tensor.is_inference():
            copy = tensor.clone()
            made = nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy
            holder[key] = ordinary.setdefault(id(tensor), made)


def _slots(net: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Every parameter and buffer, with where its module keeps it."""
    for module in net.modules():
        for holder in (module._parameters, module._buffers):
            yield from ((holder, key, tensor) for key, tensor in holder.items() if tensor is not None)
