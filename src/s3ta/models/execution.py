"""A model run in another way than plain float32: lower precision, compiled, another memory layout; the same weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import torch
import torch._dynamo
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.external_code_errors import guarded
from s3ta.types import Images, Logits, Trace


class ExecutionMode(NamedTuple):
    """How a model's arithmetic is done. The defaults are plain float32."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast; weights, logits and losses stay float32 (X10)."""
    compiled: bool = False
    """torch.compile, once per shape and mode; pays off in long runs (X40)."""
    channels_last: bool = False
    """Weights and images in the memory order that GPUs prefer."""


def many_compilations() -> AbstractContextManager[object]:
    """Inside, torch compiles a function for each of many modes, shapes and numbers of glimpses; by default it goes over to
    eager mode, without a word, after eight."""
    return torch._dynamo.config.patch(recompile_limit=64)


class ExecutedModel(nn.Module):
    """A model, run as `ExecutionMode` says; shares its weights, and answers like it, in float32.

    `is_lower` may be set to False for a while: then precision is float32 whatever the mode says."""

    def __init__(self, model: nn.Module, mode: ExecutionMode) -> None:
        super().__init__()
        self._mode, self.is_lower = mode, True
        self.model = model
        if mode.channels_last:
            self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._forward = torch.compile(self.model) if mode.compiled else self.model
        inside = getattr(self.model, "unroll", None)
        self._unroll = torch.compile(inside) if mode.compiled and inside else inside

    def forward(self, images: Images) -> Logits:
        with self._guard(), self._autocast(images):
            return self._forward(self._laid_out(images)).float()

    def unroll(self, images: Images, num_glimpses: int | None = None) -> Trace:
        """As of the model. Raises UserError where it is not sequential."""
        if self._unroll is None:
            raise not_sequential()
        with self._guard(), self._autocast(images):
            trace = self._unroll(self._laid_out(images), num_glimpses)
        return Trace(trace.logits.float(), trace.attention.float())

    @property
    def computes_lower(self) -> bool:
        """Whether it is run in bfloat16 now."""
        return self.is_lower and self._mode.precision == "bfloat16"

    def _guard(self) -> AbstractContextManager[None]:
        settings = [self._mode.precision] if self.computes_lower else []
        settings += [name for name in ("compiled", "channels_last") if getattr(self._mode, name)]
        if not settings:
            return nullcontext()
        return guarded(
            f"The model, computed otherwise than in plain float32 ({', '.join(settings)}),", "leave that setting out"
        )

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.computes_lower)

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self._mode.channels_last else images


def not_sequential() -> UserError:
    """What is said of an attack on glimpses where there are none."""
    return UserError("This attack looks at glimpses, but the model is not a sequential one: choose another attack.")
