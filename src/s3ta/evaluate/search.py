"""The model as the attack sees it: perhaps in lower precision or compiled. The verdict is never taken from it."""

from __future__ import annotations

import copy
from functools import partial

from torch import nn

from s3ta.attacks import AutoAttackConfig, OutputsFn, PGDConfig
from s3ta.attacks.config import AdamConfig
from s3ta.models import InManner, Manner
from s3ta.models.manner import not_sequential


def searched(model: nn.Module, manner: Manner) -> nn.Module:
    """The model to compute gradients with: a copy, run in that manner; the model itself where nothing special is asked."""
    return model if manner == Manner() else InManner(copy.deepcopy(model), manner)


def attacked_fn(model: nn.Module, config: PGDConfig | AdamConfig | AutoAttackConfig) -> OutputsFn:
    """What an attack calls: logits, or the Trace of as many glimpses as it wants.

    Raises UserError for an attack on glimpses where the model has none."""
    if isinstance(config, AutoAttackConfig) or not config.needs_trace:
        return model
    if not hasattr(model, "unroll"):
        raise not_sequential()
    return partial(model.unroll, num_glimpses=config.num_glimpses)  # pyright: ignore[reportArgumentType]
