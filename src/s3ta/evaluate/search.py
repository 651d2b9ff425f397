"""The model as the attack sees it: perhaps in lower precision or compiled. The verdict is never taken from it."""

from __future__ import annotations

import copy
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from s3ta.attacks import AutoAttackConfig, OutputsFn, PGDConfig
from s3ta.attacks.config import AdamConfig
from s3ta.errors import UserError
from s3ta.trace import Images, Logits, Trace


class Search(NamedTuple):
    """How gradients are computed. The images found are classified again in float32 eager mode, whatever this says."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast; logits and losses stay float32 (X10)."""
    compiled: bool = False
    """torch.compile, once per shape; pays off in long runs (X40)."""
    channels_last: bool = False
    """Weights and images in the memory order that GPUs prefer."""


class Searcher(nn.Module):
    """A copy of the model, run as `Search` says; answers like the model, in float32."""

    def __init__(self, model: nn.Module, search: Search) -> None:
        super().__init__()
        self._search = search
        self.model = copy.deepcopy(model)
        if search.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._forward = torch.compile(self.model) if search.compiled else self.model
        inside = getattr(self.model, "unroll", None)
        self._unroll = torch.compile(inside) if search.compiled and inside else inside

    def forward(self, images: Images) -> Logits:
        with self._autocast(images):
            return self._forward(self._laid_out(images)).float()

    def unroll(self, images: Images, num_glimpses: int | None = None) -> Trace:
        """As of the model. Raises UserError where it is not sequential."""
        if self._unroll is None:
            raise _not_sequential()
        with self._autocast(images):
            trace = self._unroll(self._laid_out(images), num_glimpses)
        return Trace(trace.logits.float(), trace.attention.float())

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self._search.precision == "bfloat16")

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self._search.channels_last else images


def searched(model: nn.Module, search: Search) -> nn.Module:
    """The model to compute gradients with; the model itself where nothing special is asked."""
    return model if search == Search() else Searcher(model, search)


def attacked_fn(model: nn.Module, config: PGDConfig | AdamConfig | AutoAttackConfig) -> OutputsFn:
    """What an attack calls: logits, or the Trace of as many glimpses as it wants.

    Raises UserError for an attack on glimpses where the model has none."""
    if isinstance(config, AutoAttackConfig) or not config.needs_trace:
        return model
    if not hasattr(model, "unroll"):
        raise _not_sequential()
    return partial(model.unroll, num_glimpses=config.num_glimpses)  # pyright: ignore[reportArgumentType]


def _not_sequential() -> UserError:
    return UserError("This attack looks at glimpses, but the model is not a sequential one: choose another attack.")
