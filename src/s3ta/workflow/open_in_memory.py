"""A model in memory, and examples in memory, as an evaluation takes them: any module or function, tensors, arrays, loaders."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from s3ta.attacks.freeze_model import module_of
from s3ta.data import array_dataset, as_arrays
from s3ta.data.sources import ArrayDataset
from s3ta.errors import UserError
from s3ta.models import Classifier, LoadOptions, PreparationSources, model_metadata
from s3ta.models.probe_num_outputs import num_outputs
from s3ta.workflow.model import OpenedModel

Model = nn.Module | Callable[[Tensor], Tensor]
Numbers = float | Sequence[float]


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
    model: Any, images: Any, labels: Any, options: LoadOptions, name: str | None = None
) -> tuple[OpenedModel, ArrayDataset]:
    """Model and examples, fitted to each other.

    Images and labels are as of `s3ta.data.as_arrays`. `options`, `name`: what the model, any module or function, does not
    say itself, as one of ours or a `Classifier` does.
    Raises UserError where it gives no logits, or does not fit the examples."""
    if not callable(model):
        hint = f': open it with s3ta.open_model("{model}")' if isinstance(model, str) else ""
        raise UserError(f"The model is a {type(model).__name__}, not a module or a function of images{hint}.")
    pixels, numbers = as_arrays(images, labels)
    shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
    if shape[1] != shape[2]:
        raise UserError(f"The images are {shape[1]} x {shape[2]}: only squares are measured, so cut or resize them.")
    classifier = _known(model, options, name, shape) or _wrapped(model, options, name, shape)
    card = model_metadata(classifier)
    classes = card.classes or tuple(map(str, range(card.num_classes)))
    dataset = array_dataset(pixels, numbers, classes, "memory")
    return OpenedModel(card.name, classifier, card.classes, None, Path("runs") / card.name), dataset


def _known(model: Any, options: LoadOptions, name: str | None, shape: tuple[int, int, int]) -> nn.Module | None:
    """The model itself where it says what it takes; None where it does not.

    Raises UserError for what is said beside it, and for images of another shape than it takes."""
    if not isinstance(model, nn.Module):
        return None
    try:
        card = model_metadata(model)
    except UserError:
        return None
    facts = {"mean": options.mean, "std": options.std, "channel_order": options.channel_order}
    facts |= {"classes": options.class_names, "name": name}
    if given := [what for what, value in facts.items() if value is not None]:
        raise UserError(f"{card.name} knows its own {given[0]}: leave that out.")
    expected = (card.in_channels, card.image_size, card.image_size)
    if expected != shape:
        sizes = [" x ".join(map(str, size)) for size in (shape, expected)]
        raise UserError(f"The images are {sizes[0]}, but {card.name} takes {sizes[1]}: resize or convert them.")
    return model


def _wrapped(model: Any, options: LoadOptions, name: str | None, shape: tuple[int, int, int]) -> Classifier:
    """The model with all that an evaluation must know of it. Raises UserError where it gives no logits."""
    net, mean, channels, size = model if isinstance(model, nn.Module) else _Called(model), options.mean, *shape[:2]
    name = name or str(getattr(model, "__name__", type(model).__name__))
    if (mean is None) != (options.std is None):
        raise UserError(
            "mean and std belong together: give both; std=1 where nothing is divided, mean=0 where "
            "nothing is subtracted."
        )
    classifier = Classifier(
        net,
        name=name,
        num_classes=num_outputs(net, channels, size, name, options.micro_batch),
        image_size=size,
        in_channels=channels,
        mean=mean,
        std=options.std,
        channel_order=options.channel_order or "rgb",
        classes=options.class_names,
    ).train(net.training)
    normalisation = "beside the model's own" if mean is None else "given"
    classifier.card = classifier.card._replace(origins=PreparationSources(normalisation))
    return classifier


def numbers_of(numbers: Numbers | None) -> tuple[float, ...] | None:
    """One number or several, such as a mean; an array or a tensor too. Raises UserError for anything else."""
    try:
        return None if numbers is None else tuple(np.atleast_1d(np.asarray(numbers, dtype=float)).tolist())
    except (TypeError, ValueError):
        raise UserError(f"{numbers!r} is no row of numbers such as (0.485, 0.456, 0.406).") from None
