"""Which examples are measured, and how model and data are brought together: sizes, classes, ids, targets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from torch import nn

from s3ta.data import (
    DataConfig,
    Dataset,
    check_fit,
    count_as_numbers,
    facts_of,
    imagenet_wnids,
    listing_line,
    locate,
    match_classes,
    numbers_as_names,
    open_dataset,
    printable,
    read_ids,
    read_targets,
    select_ids,
    text_order_note,
    transparency_note,
    unreadable,
    unreadable_error,
)
from s3ta.errors import UserError
from s3ta.evaluate import Settings, Suite, choose_examples
from s3ta.models import ModelInfo, model_info, with_outputs
from s3ta.progress import console, progress
from s3ta.workflow.model import OpenedModel, recipe_data
from s3ta.workflow.preprocessing import prepared
from s3ta.workflow.runtime_options import RuntimeOptions


class Examples(NamedTuple):
    """Which examples a person asks for, and how they are prepared."""

    data: DataConfig | Dataset | None = None
    """Where they are; or themselves, as the model takes them. None: the recipe's own (run folders only)."""
    split: str = "test"
    num_examples: int | None = None
    """None: as many as the suite says, else all."""
    ids: Path | Sequence[str] | None = None
    """The ids of the examples to use, in their order, or a file that lists them; instead of a drawn choice."""
    targets: Path | None = None
    """A CSV file with a target for each example; instead of drawn ones."""
    match_classes: Literal["data", "model"] | None = None
    """Match the classes of data and model by name: those of the data alone compete, or all of the model's. None: they must
    be the same, in the same order."""
    skip_unreadable: bool = False
    """Go on without images that cannot be read, instead of stopping."""


class Measured(NamedTuple):
    """Model and data, fitted to each other, and what is chosen of them."""

    model: nn.Module
    dataset: Dataset
    positions: list[int]
    settings: Settings
    unreadable: list[str]
    """Ids of the images that were left out, for they cannot be read."""


def bring_together(
    subject: OpenedModel, suite: Suite, wanted: Examples, settings: Settings, place: RuntimeOptions, model: nn.Module
) -> Measured:
    """Open the data as the model wants them, match classes, choose examples, read targets.

    Raises UserError for everything that does not fit; nothing has been written by then."""
    dataset, origins = _opened(subject, wanted, place, model_info(model))
    settings = settings._replace(origins=origins)
    say("note", listing_line(dataset))
    model, dataset = _matched(subject, model, dataset, wanted.match_classes)
    positions = _chosen(dataset, suite, wanted, settings.seed)
    positions, lost = _readable(dataset, positions, skip=wanted.skip_unreadable)
    transparent = [name for name, seen in facts_of(dataset, positions).items() if seen.has_transparency]
    say("warning", transparency_note(transparent, len(positions)))
    if wanted.targets is not None:
        settings = settings._replace(targets=read_targets(wanted.targets, dataset, lambda note: say("note", note)))
    return Measured(model, dataset, positions, settings, lost)


def say(severity: Literal["note", "warning"], sentence: str) -> None:
    """Tell a person something about the data; nothing where the sentence is empty. Of processes of torchrun one tells it."""
    if sentence and os.environ.get("RANK", "0") == "0":
        console.print(f"{severity}: {sentence}", markup=False, soft_wrap=True)


def _opened(
    subject: OpenedModel, wanted: Examples, place: RuntimeOptions, card: ModelInfo
) -> tuple[Dataset, dict[str, str]]:
    """The data as the model wants them, and where their preparation comes from."""
    if isinstance(wanted.data, Dataset):
        return wanted.data, {"images": "as they are given", "normalisation": card.origins.normalisation}
    config = wanted.data or recipe_data(subject)
    located = locate(config.source, place.data_root)
    config, origins = prepared(subject, config.model_copy(update={"source": located.source}), card)
    return open_dataset(config, wanted.split, located.root, place.download), origins


def _matched(
    subject: OpenedModel, model: nn.Module, dataset: Dataset, answers: Literal["data", "model"] | None
) -> tuple[nn.Module, Dataset]:
    """Model and data with the same classes in the same order."""
    classes, card = _class_names(subject, dataset), model_info(model)
    if answers is None:
        dataset, note = count_as_numbers(dataset, card.num_classes, classes)
        say("note", note or text_order_note(dataset, classes))
        check_fit(dataset, channels=card.in_channels, num_classes=card.num_classes, classes=classes)
        return model, dataset
    if classes is None and (classes := numbers_as_names(dataset, card.num_classes)):
        say(
            "note",
            f"The classes of {dataset.source} are numbers and are taken as those of the model's outputs, from 0.",
        )
    if classes is None:
        raise UserError(f"The names of {card.name}'s classes are not known: give them with --class-names FILE.")
    outputs, dataset = match_classes(classes, dataset, answers)
    if outputs is None:
        return model, dataset
    return with_outputs(model, outputs).eval(), dataset


def _class_names(subject: OpenedModel, dataset: Dataset) -> tuple[str, ...] | None:
    """Class names of the model; for a model of 1,000 classes and data whose classes are ImageNet's numbers: ImageNet's."""
    if subject.classes is not None:
        return tuple(printable(name) for name in subject.classes)
    if subject.card.num_classes != 1000:
        return None
    wnids = imagenet_wnids()
    return tuple(wnids) if set(dataset.classes) <= set(wnids) else None


def _chosen(dataset: Dataset, suite: Suite, wanted: Examples, seed: int) -> list[int]:
    if wanted.ids is not None:
        names = read_ids(wanted.ids) if isinstance(wanted.ids, Path) else wanted.ids
        positions = select_ids(dataset, names)
        if wanted.num_examples is not None and wanted.num_examples > len(positions):
            raise UserError(f"The list names {len(positions)} examples, fewer than {wanted.num_examples}.")
        return positions[: wanted.num_examples]
    usual = min(suite.num_examples or len(dataset.ids), len(dataset.ids))
    return choose_examples(dataset, wanted.num_examples or usual, seed)


def _readable(dataset: Dataset, positions: Sequence[int], *, skip: bool) -> tuple[list[int], list[str]]:
    """The examples whose images can be read, and the ids of the others."""
    if not dataset.reads_files:  # arrays
        return list(positions), []
    with progress("reading the images once", len(positions)) as report:
        lost = unreadable(dataset, positions, report)
    if not lost:
        return list(positions), []
    error = unreadable_error(lost, len(positions))
    if not skip or len(lost) == len(positions):
        raise error
    say(
        "warning",
        f"{len(lost)} of {len(positions)} images cannot be read and are left out: "
        + " ".join(reason for _, reason in lost[:3]),
    )
    gone = {place for place, _ in lost}
    return [place for place in positions if place not in gone], [dataset.ids[place] for place, _ in lost]
