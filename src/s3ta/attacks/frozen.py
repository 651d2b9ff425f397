"""Hold a model still while it is attacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn


def module_of(function: object) -> nn.Module | None:
    """The module behind a module, one of its methods, or a partial call of either; None where there is none."""
    if isinstance(function, partial):
        return module_of(function.func)
    function = getattr(function, "__self__", function)
    return function if isinstance(function, nn.Module) else None


@contextmanager
def frozen(model: object) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; everything as it was afterwards, also after an exception (T19, X1).

    BN then uses its moving averages and leaves them alone, and the backward pass spends nothing on weights. A module's
    method (`model.unroll`), also inside `functools.partial`, freezes the module; any other function freezes nothing."""
    found = module_of(model)
    if found is None:
        yield
        return
    modes = [(module, module.training) for module in found.modules()]
    trainable = [parameter for parameter in found.parameters() if parameter.requires_grad]
    try:
        found.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trainable:
            parameter.requires_grad_(True)
