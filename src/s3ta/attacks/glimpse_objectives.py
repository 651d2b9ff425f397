"""Attacks made for a model that looks in sequence: objectives that read a Trace, not only its last logits.

The paper says that PGD may not be the best attack on such a model and leaves it there. Each function here is one more way:
through every read-out, through one of them, or through where the model looks.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from s3ta.attacks.objectives import ModelOutputs, Objective
from s3ta.errors import UserError
from s3ta.types import Trace

_FLOOR = 1e-37
"""The least attention mass that a logarithm sees: about the smallest normal number of float32."""


def all_glimpses_objective(objective: Objective) -> Objective:
    """The objective summed over the read-outs of all glimpses."""
    return lambda outputs: torch.stack([objective(logits) for logits in trace_of(outputs).logits]).sum(dim=0)


def single_glimpse_objective(objective: Objective, glimpse: int) -> Objective:
    """The objective at the read-out of one glimpse, from 0; round again after the last."""

    def chosen(outputs: ModelOutputs) -> Tensor:
        logits = trace_of(outputs).logits
        return objective(logits[glimpse % len(logits)])

    return chosen


def attention_shift_objective(reference: Float[Tensor, "T B N h w"]) -> Objective:
    """Maps elsewhere than on the clean image: the cross-entropy of each map under its clean one, mean over maps, nats.

    Its gradient to the attention logits is the map minus the clean map: nothing on the clean image itself, so begin from
    noise, and weak as long as a very sharp map stays where it was.
    `reference`: the maps of the clean images, each summing to 1; as many glimpses as the attacked model takes."""

    def moved(outputs: ModelOutputs) -> Tensor:
        attention = trace_of(outputs).attention
        return -(reference * attention.clamp(min=_FLOOR).log()).sum(dim=(-2, -1)).mean(dim=(0, 2))

    return moved


def attention_region_objective(region: Float[Tensor, "#B 1 H W"]) -> Objective:
    """Maps onto a region: the logarithm of the attention mass on it, mean over glimpses and heads, nats, at most 0.
    `region`: 1 for the pixels that belong to it, 0 for the others, at any size; averaged to that of the attention map."""

    def gathered(outputs: ModelOutputs) -> Tensor:
        attention = trace_of(outputs).attention
        share = adaptive_avg_pool2d(region, (attention.shape[-2], attention.shape[-1]))
        mass = (attention * share).sum(dim=(-2, -1))
        return mass.clamp(min=_FLOOR).log().mean(dim=(0, 2))

    return gathered


def weighted_sum(classification: Objective, steering: Objective, weight: float) -> Objective:
    """(1 - weight) x classification + weight x steering; both in nats."""
    return lambda outputs: (1 - weight) * classification(outputs) + weight * steering(outputs)


def trace_of(outputs: ModelOutputs) -> Trace:
    """The outputs, where they are a Trace; else UserError."""
    if not isinstance(outputs, Trace):
        raise UserError(
            "This attack looks at glimpses, but the model answers with logits alone: choose another attack."
        )
    return outputs
