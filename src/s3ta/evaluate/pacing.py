"""How long a pass takes here: for the estimate before an evaluation starts."""

from __future__ import annotations

import time

import torch
from torch import nn

from s3ta.attacks import autograd_gradient, frozen, untargeted
from s3ta.data import Dataset, fetch
from s3ta.errors import UserError
from s3ta.evaluate.flight import padded
from s3ta.evaluate.lint import as_found
from s3ta.evaluate.plan import Settings
from s3ta.evaluate.search import searched
from s3ta.exact import exact_arithmetic
from s3ta.guard import ForeignError
from s3ta.models import device_of


def pace(model: nn.Module, dataset: Dataset, place: int, settings: Settings, *, gradients: bool) -> tuple[float, float]:
    """Seconds that a gradient (0 where none is used) and a forward pass of a whole micro-batch take here, for the estimate
    before the start. Raises UserError where a gradient is needed and the model has none."""
    batch = padded(fetch(dataset, [place]), settings.micro_batch)
    device = device_of(model)
    images, labels = batch.images.to(device), batch.labels.to(device)

    plain = settings.search._replace(compiled=False)  # compiling takes longer than it would show
    searcher = searched(model, plain)

    def gradient() -> None:
        try:
            autograd_gradient(searcher, untargeted(labels), images).gradient.sum().item()
        except ForeignError as error:
            if "does not require grad" not in str(error):
                raise
            raise UserError(
                "The model's logits have no gradient to the image: remove `no_grad` or `detach` from it, or choose attacks "
                "without gradients, such as --attack square."
            ) from None

    def forward() -> None:
        with torch.no_grad():
            model(images).sum().item()

    with exact_arithmetic(settings.num_threads), as_found(model), frozen(model), frozen(searcher):
        times = []
        for work in (gradient, forward):
            if work is gradient and not gradients:
                times.append(0.0)
                continue
            tried = []
            for _ in range(3):  # the first warms up; the faster of the others, for the machine may be busy
                began = time.perf_counter()
                work()
                tried.append(time.perf_counter() - began)
            times.append(min(tried[1:]))
    return times[0], times[1]
