"""Hold a model still while it is attacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from s3ta.attacks.objectives import OutputsFn
from s3ta.external_code_errors import modes_kept, set_mode


def module_of(function: object) -> nn.Module | None:
    """The module behind a module, one of its methods, or a partial call of either; None where there is none."""
    if isinstance(function, partial):
        return module_of(function.func)
    function = getattr(function, "__self__", function)
    return function if isinstance(function, nn.Module) else None


def unwrapped(function: OutputsFn) -> OutputsFn:
    """The module inside DistributedDataParallel: an attack must not synchronise anything between processes (X39)."""
    return function.module if isinstance(function, DistributedDataParallel) else function


@contextmanager
def frozen_in_eval_mode(model: object) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; everything as it was afterwards, also after an exception (T19, X1).

    BN then uses its moving averages and leaves them alone, and the backward pass spends nothing on weights. A module's
    method (`model.unroll`), also inside `functools.partial`, freezes the module; any other function freezes nothing."""
    module = module_of(model)
    if module is None:
        yield
        return
    # of a result, or of what was made in inference mode, torch lets nobody change this
    trainable = [p for p in module.parameters() if p.requires_grad and p.is_leaf and not p.is_inference()]
    with modes_kept(module):
        try:
            set_mode(module, mode=False)
            for parameter in trainable:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
