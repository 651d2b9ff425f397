"""A model as the lint asks it: a few images at a time, on its device, and everything put back as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from s3ta.data import Batch
from s3ta.external_code_errors import is_request_to_stop, modes_kept, original, reason, where
from s3ta.models import device_of, tensor_as_bytes
from s3ta.process_state import plain_generators

_AT_ONCE = 32
LEAST_DIFFERENCE = 1e-3
"""Of the spread of the logits: kernels for other batch shapes stay well below it in float32."""
_LEAST_SPREAD = 2e-3
"""Of the largest logit: a smaller spread, as beside a large common offset, is not worth the last bits of float32."""

T = TypeVar("T")


class ModelError(Exception):
    """What a model raised, or answered in place of logits; the text is the end of a sentence."""


class SavedTensor(NamedTuple):
    """A parameter or buffer as it was found."""

    name: str
    holder: dict[str, Any]
    key: str
    tensor: Tensor
    value: Tensor

    @property
    def is_changed(self) -> bool:
        is_there = self.key in self.holder and self.holder[self.key] is self.tensor
        return not is_there or not _same(self.tensor, self.value)


class LintContext(NamedTuple):
    """What a model is measured on."""

    num_classes: int
    data_classes: Sequence[str]
    """Names of the data's classes, in the order of the labels."""
    micro_batch: int | None = None
    """How many images are measured at once: no more are asked about at once here, and where the model raises for fewer, exactly
    so many; None: not known."""


class ModelHarness:
    """The model and the examples that it is asked about; images and labels on its device, answers on the CPU."""

    def __init__(self, model: nn.Module, batch: Batch, task: LintContext, for_order: Batch | None = None) -> None:
        self.num_classes, self.data_classes, self.micro_batch = task
        self.model, self.images, self.labels = model, batch.images.to(device_of(model)), batch.labels.cpu()
        self.ids, self.for_order = batch.ids, for_order
        self.at_once = min(_AT_ONCE, self.micro_batch or _AT_ONCE)
        self.only: int | None = None
        """The only number of images that the model answers; None: it need not be looked for."""

    def ask_in_whole_batches(self) -> bool:
        """Fill up what is asked from now on to micro-batches; False where their size is not known, or that was so already."""
        if self.micro_batch is None or self.only is not None:
            return False
        self.only = self.at_once = self.micro_batch
        return True

    def raw(self, images: Tensor) -> Any:
        """Whatever the model answers. Raises ModelError where it raises."""
        return as_model_error(lambda: self.model(images) if self.only is None else self._filled_up(images, self.only))

    def some(self, count: int) -> Tensor:
        """The first so many images, or as many as the model is asked about at once; a whole batch where it answers no other."""
        if self.only is None:
            return self.images[: min(count, self.at_once)]
        return self.images[torch.arange(self.only) % len(self.images)]

    def _filled_up(self, images: Tensor, size: int) -> Any:
        """The answers to these images, in batches of one size that are filled up with copies of the last image."""
        if len(images) == size:
            return self.model(images)
        parts = [(part, part[-1:].expand(size - len(part), *part.shape[1:])) for part in images.split(size)]
        answers = [self.model(torch.cat([part, copies]))[: len(part)] for part, copies in parts]
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def ask(self, images: Tensor) -> Tensor:
        """Logits (n, Y), float32, without a graph. Raises ModelError."""
        answers = []
        with torch.no_grad():
            for part in images.split(self.at_once):
                answer = self.raw(part.to(self.images.device, copy=True))
                if not isinstance(answer, Tensor) or answer.shape != (len(part), self.num_classes):
                    subject = f"{len(part)} images" if len(part) > 1 else "it"
                    raise ModelError(f"answers {subject} with {shape_of(answer)}")
                answers.append(answer.detach().float().cpu().clone())
        return torch.cat(answers)


def as_model_error(call: Callable[[], T]) -> T:
    """What `call` gives; ModelError with the text where it raises anything."""
    try:
        return call()
    except BaseException as caught:  # anybody's model may raise anything
        if is_request_to_stop(caught):
            raise
        error = original(caught)
        raise ModelError(f"raises {reason(error)}{where(error)}") from error


def shape_of(answer: object) -> str:
    """An answer in words."""
    return f"a tensor of shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"


def difference(first: Tensor, second: Tensor) -> float:
    """The largest difference of two answers to the same images, in units of the spread of the logits; 0 to infinity."""
    if first.shape != second.shape or not torch.isfinite(second).all():
        return float("inf")
    spread = max(float(first.std(dim=1).mean()), _LEAST_SPREAD * float(first.abs().max()), 1e-30)
    return float((first - second).abs().max()) / spread


def differ(first: Tensor, second: Tensor) -> bool:
    """Whether two answers to the same images differ by more than rounding."""
    return difference(first, second) > LEAST_DIFFERENCE


def not_finite_rows(values: Tensor) -> list[int]:
    """Which of n rows hold NaN or infinity."""
    return (~torch.isfinite(values)).any(dim=1).nonzero().flatten().tolist()


def number(value: float) -> float | str:
    """For the evidence: six digits; infinity and NaN, which JSON has not, in words."""
    return float(f"{value:.6g}") if np.isfinite(value) else str(value)


@contextmanager
def model_state_restored(model: nn.Module) -> Iterator[list[SavedTensor]]:
    """Gives what the model holds; afterwards it holds that again, in the modes that it had, and Python's and NumPy's
    generators stand where they stood. Parameter gradients and torch's generators are left to `attacks.frozen_in_eval_mode`."""
    held = [
        SavedTensor(f"{prefix}.{key}".lstrip("."), holder, key, tensor, tensor.detach().clone())
        for prefix, module in model.named_modules()
        for holder in (module._parameters, module._buffers)
        for key, tensor in holder.items()
        if tensor is not None and not is_lazy(tensor)
    ]
    with modes_kept(model), plain_generators():
        try:
            yield held
        finally:
            restore(held)


def restore(held: list[SavedTensor]) -> None:
    """The same tensors with the same values, where they are not already."""
    for saved in held:
        if saved.is_changed:
            with torch.no_grad():
                saved.tensor.copy_(saved.value)
            saved.holder[saved.key] = saved.tensor


def _same(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    if first.layout != torch.strided or first.is_quantized:
        return tensor_as_bytes(first) == tensor_as_bytes(second)
    return torch.equal(torch.nan_to_num(first.detach()), torch.nan_to_num(second))
