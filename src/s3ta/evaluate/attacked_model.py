"""The model as the attack sees it: perhaps in lower precision or compiled. The verdict is never taken from it."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import nn

from s3ta.attack_config import AdamConfig
from s3ta.attacks import AutoAttackComponentConfig, OutputsFn, PGDConfig
from s3ta.external_code_errors import guarded
from s3ta.models import ExecutedModel, ExecutionMode
from s3ta.models.execution import not_sequential


def attack_copy(model: nn.Module, manner: ExecutionMode) -> nn.Module:
    """The model to compute gradients with: run in that manner, its weights shared; the model itself where nothing special is
    asked. Another memory order is the weights' own, so that alone takes a copy. Raises UserError where none can be made."""
    if manner == ExecutionMode():
        return model
    return ExecutedModel(_copied(model) if manner.channels_last else model, manner)


def _copied(model: nn.Module) -> nn.Module:
    """A deep copy, which shares with the model what it keeps beside its weights and cannot be copied: locks, iterators, results
    that hang on a graph."""
    shared: dict[int, Any] = {}
    for module in reversed(list(model.modules())):  # what holds others comes after them
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                try:
                    copy.deepcopy(value, {**shared})
                except Exception:  # noqa: BLE001 - anybody's object may raise anything
                    shared[id(value)] = value
    call = f"The copy of {type(model).__name__} for another memory order"
    with guarded(call, "leave --channels-last out"), torch.no_grad():  # a copied script's weights would have a history
        return copy.deepcopy(model, shared)


def attacked_fn(model: nn.Module, config: PGDConfig | AdamConfig | AutoAttackComponentConfig) -> OutputsFn:
    """What an attack calls: logits, or the Trace of as many glimpses as it wants. Raises UserError where the model has none."""
    if isinstance(config, AutoAttackComponentConfig) or not config.needs_trace:
        return model
    if not hasattr(model, "unroll"):
        raise not_sequential()
    return partial(model.unroll, num_glimpses=config.num_glimpses)  # pyright: ignore[reportArgumentType]
