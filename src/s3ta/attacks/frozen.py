"""Hold the world still while a model is attacked: the model itself, and the random state that everybody shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from s3ta.attacks.objectives import OutputsFn
from s3ta.foreign_code import plain_generators, set_mode


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
def frozen(model: object) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; everything as it was afterwards, also after an exception (T19, X1).

    BN then uses its moving averages and leaves them alone, and the backward pass spends nothing on weights. A module's
    method (`model.unroll`), also inside `functools.partial`, freezes the module; any other function freezes nothing."""
    found = module_of(model)
    if found is None:
        yield
        return
    modes = [(module, module.training) for module in found.modules() if hasattr(module, "training")]
    # of a result, or of what was made in inference mode, torch lets nobody change this
    trainable = [p for p in found.parameters() if p.requires_grad and p.is_leaf and not p.is_inference()]
    try:
        set_mode(found, mode=False)
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def random_state(seed: int | None = None) -> Iterator[None]:
    """Torch's, NumPy's and Python's global generators as they were afterwards, whatever a model draws from them; begun from
    `seed` where there is one."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), plain_generators(seed):
        if seed is not None:
            for generator in (torch.default_generator, *(torch.cuda.default_generators[i] for i in devices)):
                generator.manual_seed(seed)
        yield
