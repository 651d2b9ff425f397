"""A model in memory, and examples in memory, as an evaluation takes them: any module or function, tensors, arrays, loaders."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from s3ta.attacks.freeze_model import module_of
from s3ta.data import array_dataset, read_examples
from s3ta.data.sources import ArrayDataset
from s3ta.errors import UserError
from s3ta.models import Classifier, ModelInfo, PreparationSources, model_info
from s3ta.models.output_detection import num_outputs
from s3ta.workflow.model import OpenedModel

Model = nn.Module | Callable[[Tensor], Tensor]
Numbers = float | Sequence[float]
_SOURCE = "memory"


@dataclass(frozen=True)
class ModelFacts:
    """What a caller says of a model that does not say it itself."""

    mean: Numbers | None = None
    std: Numbers | None = None
    channel_order: Literal["rgb", "bgr"] | None = None
    classes: Sequence[str] | None = None
    name: str | None = None

    def of_known(self, card: ModelInfo) -> None:
        """UserError where the model says these things itself."""
        given = [what for what, value in vars(self).items() if value is not None]
        if given:
            raise UserError(f"{card.name} knows its own {given[0]}: leave that out.")

    def wrapped(self, model: nn.Module, shape: tuple[int, int, int], batch_size: int) -> Classifier:
        """The model with all that an evaluation must know of it. Raises UserError where it gives no logits."""
        channels, height, _ = shape
        name = self.name or type(model).__name__
        mean, std = numbers_of(self.mean), numbers_of(self.std)
        if (mean is None) != (std is None):
            raise UserError(
                "mean and std belong together: give both; std=1 where nothing is divided, mean=0 where "
                "nothing is subtracted."
            )
        classifier = Classifier(
            model,
            name=name,
            num_classes=num_outputs(model, channels, height, name, batch_size),
            image_size=height,
            in_channels=channels,
            mean=mean,
            std=std,
            channel_order=self.channel_order or "rgb",
            classes=self.classes,
        ).train(model.training)
        normalisation = "beside the model's own" if mean is None else "given"
        classifier.card = classifier.card._replace(origins=PreparationSources(normalisation))
        return classifier


class _Called(nn.Module):
    """A function, with the modules behind it, whose weights and device count."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inside, self._function = nn.ModuleList(modules_behind(function)), function

    def forward(self, images: Tensor) -> Tensor:
        return self._function(images)


def modules_behind(model: object) -> list[nn.Module]:
    """The module itself, that of a method or partial call, or those that a function or an object that is called refers to."""
    if (module := module_of(model)) is not None:
        return [module]
    if inspect.isfunction(model):
        seen = inspect.getclosurevars(model)
        referred = [*seen.nonlocals.values(), *seen.globals.values()]
    else:
        referred = list(getattr(model, "__dict__", {}).values())
    return [value for value in referred if isinstance(value, nn.Module)]


def open_in_memory(
    model: Any, images: Any, labels: Any, facts: ModelFacts, batch_size: int
) -> tuple[OpenedModel, ArrayDataset]:
    """Model and examples, fitted to each other.

    Args:
      model: any module or function; one of ours or a `Classifier` says itself what it takes.
      images, labels: as of `s3ta.data.read_examples`.
      facts: what the model does not say itself.
      batch_size: images that it will be asked about at once.
    Raises UserError where it gives no logits, or does not fit the examples."""
    if not callable(model):
        hint = f': open it with s3ta.open_model("{model}")' if isinstance(model, str) else ""
        raise UserError(f"The model is a {type(model).__name__}, not a module or a function of images{hint}.")
    pixels, numbers = read_examples(images, labels)
    shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
    if shape[1] != shape[2]:
        raise UserError(f"The images are {shape[1]} x {shape[2]}: only squares are measured, so cut or resize them.")
    classifier = _known(model, facts, shape) or _wrapped(model, facts, shape, batch_size)
    card = model_info(classifier)
    classes = card.classes or tuple(map(str, range(card.num_classes)))
    dataset = array_dataset(pixels, numbers, classes, _SOURCE)
    return OpenedModel(card.name, classifier, card.classes, None, Path("runs") / card.name), dataset


def _known(model: Any, facts: ModelFacts, shape: tuple[int, int, int]) -> nn.Module | None:
    """The model itself where it says what it takes; None where it does not."""
    if not isinstance(model, nn.Module):
        return None
    try:
        card = model_info(model)
    except UserError:
        return None
    facts.of_known(card)
    expected = (card.in_channels, card.image_size, card.image_size)
    if expected != shape:
        sizes = [" x ".join(map(str, size)) for size in (shape, expected)]
        raise UserError(f"The images are {sizes[0]}, but {card.name} takes {sizes[1]}: resize or convert them.")
    return model


def _wrapped(model: Any, facts: ModelFacts, shape: tuple[int, int, int], batch_size: int) -> Classifier:
    if isinstance(model, nn.Module):
        return facts.wrapped(model, shape, batch_size)
    name = facts.name or str(getattr(model, "__name__", type(model).__name__))
    return replace(facts, name=name).wrapped(_Called(model), shape, batch_size)


def numbers_of(numbers: Numbers | None) -> tuple[float, ...] | None:
    """One number or several, such as a mean; an array or a tensor too. Raises UserError for anything else."""
    try:
        return None if numbers is None else tuple(np.atleast_1d(np.asarray(numbers, dtype=float)).tolist())
    except (TypeError, ValueError):
        raise UserError(f"{numbers!r} is no row of numbers such as (0.485, 0.456, 0.406).") from None
