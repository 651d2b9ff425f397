"""A model and data whose classes have the same names in other places: ImageNet-A's 200 for a model of 1,000, and the like."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from s3ta.data.dataset import Dataset, View
from s3ta.data.folder_listing import quoted
from s3ta.errors import UserError
from s3ta.files import sha256


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1,000 WordNet ids in the order of ImageNet-1k's class numbers, which is that of the alphabet (from timm)."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def order_classes_as_numbers(dataset: Dataset, num_classes: int, names: Sequence[str] | None) -> tuple[Dataset, str]:
    """Number class folders as the model does where their names are all numbers, which as text lie in another order.

    Where the model has the same names for its outputs, their order there counts. Where it names none, 0..n-1, or 1..n, are the
    outputs of a model of n classes in turn. Other data come back as they are: arrays say the order of their classes themselves.

    Returns the data, and what to say of them; empty where nothing had to be decided."""
    if not dataset.source.startswith("folder:") or not _are_numbers(dataset.classes):
        return dataset, ""
    if names is not None:
        order = list(names) if set(names) == set(dataset.classes) else list(dataset.classes)
        why = "in the order that the model has them in"
    else:
        order = sorted(dataset.classes, key=int)
        first = int(order[0])
        if first not in (0, 1) or [int(name) for name in order] != list(range(first, first + num_classes)):
            return dataset, ""
        why = (
            f"as numbers: folder {order[-1]} is the model's last output, {num_classes - 1} (a model that counts them as text, "
            "as after training on torchvision's ImageFolder, needs --class-names FILE, with the names in that order)"
        )
    if order == list(dataset.classes):
        return dataset, ""
    labels = {name: label for label, name in enumerate(order)}
    counted = RelabelledDataset(dataset, order, [labels[name] for name in dataset.classes])
    return counted, f"The class folders of {dataset.source} are numbers and are counted {why}."


def _are_numbers(names: Sequence[str]) -> bool:
    return len(names) > 0 and all(re.fullmatch(r"[0-9]{1,9}", name) for name in names)


def class_order_note(dataset: Dataset, names: Sequence[str] | None) -> str:
    """What to say where a model names no classes and folders that hold numbers are counted as text: class0, class1, class10,
    class2; empty where both orders are one, or nothing has to be decided."""
    if names is not None or not dataset.source.startswith("folder:"):
        return ""
    pairs = itertools.pairwise(dataset.classes)
    first = next((pair for pair in pairs if _is_against_numbers(*pair)), None)
    if first is None:
        return ""
    return (
        f"The class folders of {dataset.source} hold numbers and are counted as text, so that {quoted(first[:1])} comes before "
        f"{quoted(first[1:])}. A model that counts them by number needs --class-names FILE, with the names in its order."
    )


def _is_against_numbers(first: str, second: str) -> bool:
    """Whether the first number in which two names differ is larger in the first, with the same text before it."""
    if all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", name) for name in (first, second)):
        return float(first) > float(second)
    parts = [re.split(r"([0-9]+)", name) for name in (first, second)]
    for a, b in zip(*parts, strict=False):
        if a.isdecimal() and b.isdecimal() and int(a) != int(b):
            return int(a) > int(b)
        if a != b and not (a.isdecimal() and b.isdecimal()):
            return False
    return False


def class_names_from_numbers(dataset: Dataset, num_classes: int) -> tuple[str, ...] | None:
    """Names for the outputs of a model that names none, where the data's classes are some of their numbers; else None."""
    if not _are_numbers(dataset.classes) or max(map(int, dataset.classes)) >= num_classes:
        return None
    spelled = {int(name): name for name in dataset.classes}
    return tuple(spelled.get(number, str(number)) for number in range(num_classes))


class ClassMatch(NamedTuple):
    """What makes a model's answers and the data's labels count alike."""

    outputs: tuple[int, ...] | None
    """Which of the model's outputs compete, in the order of the data's classes; None: all, as they are."""
    dataset: Dataset
    """The data; its labels count as those outputs do."""


class RelabelledDataset(View):
    """The same examples with labels that count in a model's classes; `numbers` has for each class of the data its own there."""

    def __init__(self, whole: Dataset, classes: Sequence[str], numbers: Sequence[int]) -> None:
        super().__init__(whole, range(len(whole.ids)))
        self.classes = tuple(classes)
        self.labels = np.asarray(numbers, np.int64)[whole.labels]
        self.fingerprint = sha256(whole.fingerprint.encode(), "\n".join(classes).encode())
        self.content = whole.content


def match_classes(model_classes: Sequence[str], dataset: Dataset, answers: Literal["data", "model"]) -> ClassMatch:
    """Match the classes of the data to a model's outputs by name.

    Args:
      model_classes: name of every output, in order; may hold more than the data has.
      answers: data: only the outputs of the data's classes compete, in the data's order (ImageNet-A's 200-way accuracy;
        outputs are chosen before any softmax, X32); model: all compete, and labels count in the model's classes.
    Raises:
      UserError: classes of the data that the model has not, or has twice."""
    if list(model_classes) == list(dataset.classes):
        return ClassMatch(None, dataset)
    outputs: dict[str, list[int]] = {}
    for number, name in enumerate(model_classes):
        outputs.setdefault(name, []).append(number)
    missing = [name for name in dataset.classes if name not in outputs]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(dataset.classes)} classes of {dataset.source} are not among the model's "
            f"{len(model_classes)}, which are named like {quoted(model_classes[:1])}: {quoted(missing)}."
        )
    double = [name for name in dataset.classes if len(outputs[name]) > 1]
    if double:
        raise UserError(
            f"The model has {len(double)} of the classes of {dataset.source} under one name twice, so that the name does "
            f"not tell which is meant: {quoted(double)}."
        )
    numbers = tuple(outputs[name][0] for name in dataset.classes)
    if answers == "data":
        return ClassMatch(numbers, dataset)
    return ClassMatch(None, RelabelledDataset(dataset, model_classes, numbers))
