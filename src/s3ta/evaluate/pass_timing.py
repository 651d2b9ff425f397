"""How long a pass takes here: for the estimate before an evaluation starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from s3ta.attacks import autograd_gradient, frozen, untargeted
from s3ta.data import fetch_batch
from s3ta.determinism import exact_arithmetic
from s3ta.errors import UserError
from s3ta.evaluate.attack_precision import attack_copy
from s3ta.evaluate.lint import as_found
from s3ta.evaluate.micro_batches import pad_batch
from s3ta.evaluate.task import EvaluationTask
from s3ta.external_code_errors import ForeignError

_ENOUGH = 1.5
"""Seconds of measuring after which one try more is not worth the wait."""


class PassTimes(NamedTuple):
    """Seconds for one micro-batch."""

    gradient: float
    """A pass forward and back, in the arithmetic of the search; 0 where no gradient is used."""
    forward: float
    plain_gradient: float
    """In float32, as all other gradients are taken; the same number where the search is in float32."""


def measure_pass_times(task: EvaluationTask, *, gradients: bool) -> PassTimes:
    """Seconds that a gradient (0 where none is used) and a forward pass of a whole micro-batch take here, for the estimate
    before the start; compiling is not counted. Raises UserError where a gradient is needed and the model has none."""
    model, settings, device = task.model, task.settings, task.device
    batch = pad_batch(fetch_batch(task.dataset, task.positions[:1]), settings.micro_batch)
    images, labels = batch.images.to(device), batch.labels.to(device)

    plain = settings.search._replace(compiled=False)  # compiling takes longer than it would show
    attack_model = attack_copy(model, plain)

    def gradient(classifier: nn.Module) -> Callable[[], None]:
        return lambda: _gradient(classifier, images, labels)

    def forward() -> None:
        with torch.no_grad():
            model(images).sum().item()

    with exact_arithmetic(settings.num_threads), as_found(model), frozen(model), frozen(attack_model):
        searching = _seconds(gradient(attack_model)) if gradients else 0.0
        lower = gradients and plain.precision != "float32"
        return PassTimes(searching, _seconds(forward), _seconds(gradient(model)) if lower else searching)


def _gradient(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    try:
        autograd_gradient(model, untargeted(labels), images).gradient.sum().item()
    except ForeignError as error:
        if "does not require grad" not in str(error):
            raise
        raise UserError(
            "The model's logits have no gradient to the image: remove `no_grad` or `detach` from it, or choose attacks "
            "without gradients, such as --attack square."
        ) from None


def _seconds(work: Callable[[], None]) -> float:
    """Of the faster of two tries after a first one that warms up, for the machine may be busy; of fewer where that is long."""
    tried: list[float] = []
    while len(tried) < 3 and sum(tried) < _ENOUGH:
        began = time.perf_counter()
        work()
        tried.append(time.perf_counter() - began)
    return min(tried[1:] or tried)
