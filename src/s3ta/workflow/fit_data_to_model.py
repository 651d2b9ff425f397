"""Which examples are measured, and how model and data are brought together: sizes, classes, ids, targets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import nn

from s3ta.data import (
    Dataset,
    check_model_fits_data,
    class_names_from_numbers,
    class_order_note,
    file_facts,
    find_unreadable,
    folder_summary,
    imagenet_wnids,
    match_classes,
    normalize_name,
    open_dataset,
    order_classes_as_numbers,
    positions_of_ids,
    read_ids,
    read_targets,
    resolve_source,
    transparency_note,
    unreadable_error,
)
from s3ta.errors import UserError
from s3ta.evaluate import EvaluationTask, Suite, choose_examples
from s3ta.models import ModelMetadata, model_metadata, select_outputs
from s3ta.progress import console, progress
from s3ta.workflow.model import OpenedModel, RuntimeOptions, recipe_data
from s3ta.workflow.preprocessing import prepared
from s3ta.workflow.request import EvaluationRequest, ExampleSelection


def bring_together(subject: OpenedModel, request: EvaluationRequest, model: nn.Module) -> EvaluationTask:
    """Open the data as the model wants them, match classes, choose examples, read targets. Raises UserError for everything that
    does not fit; nothing has been written by then."""
    examples, suite = request.examples, request.suite
    dataset, origins = _opened(subject, examples, request.runtime, model_metadata(model))
    settings = request.settings._replace(origins=origins)
    say("note", folder_summary(dataset))
    model, dataset = _matched(subject, model, dataset, examples.match_classes)
    positions = _chosen(dataset, suite, examples, settings.seed)
    positions, unreadable_ids = _readable(dataset, positions, skip=examples.skip_unreadable)
    transparent = [name for name, facts in file_facts(dataset, positions).items() if facts.has_transparency]
    say("warning", transparency_note(transparent, len(positions)))
    if examples.targets is not None:
        settings = settings._replace(targets=read_targets(examples.targets, dataset, lambda note: say("note", note)))
    return EvaluationTask(model, dataset, suite, positions, settings, request.images, unreadable_ids)


def say(severity: Literal["note", "warning"], sentence: str) -> None:
    """Tell a person something about the data; nothing where the sentence is empty. Of processes of torchrun one tells it."""
    if sentence and os.environ.get("RANK", "0") == "0":
        console.print(f"{severity}: {sentence}")


def _opened(
    subject: OpenedModel, examples: ExampleSelection, runtime: RuntimeOptions, info: ModelMetadata
) -> tuple[Dataset, dict[str, str]]:
    """The data as the model wants them, and where their preparation comes from."""
    if isinstance(examples.data, Dataset):
        return examples.data, {"images": "as they are given", "normalisation": info.origins.normalisation}
    config = examples.data or recipe_data(subject)
    located = resolve_source(config.source, runtime.data_root)
    config, origins = prepared(subject, config.model_copy(update={"source": located.source}), info)
    return open_dataset(config, examples.split, located.root, runtime.download), origins


def _matched(
    subject: OpenedModel, model: nn.Module, dataset: Dataset, answers: Literal["data", "model"] | None
) -> tuple[nn.Module, Dataset]:
    """Model and data with the same classes in the same order."""
    classes, info = _class_names(subject, dataset), model_metadata(model)
    if answers is None:
        dataset, note = order_classes_as_numbers(dataset, info.num_classes, classes)
        say("note", note or class_order_note(dataset, classes))
        check_model_fits_data(dataset, channels=info.in_channels, num_classes=info.num_classes, classes=classes)
        return model, dataset
    if classes is None and (classes := class_names_from_numbers(dataset, info.num_classes)):
        say(
            "note",
            f"The classes of {dataset.source} are numbers and are taken as those of the model's outputs, from 0.",
        )
    if classes is None:
        raise UserError(f"The names of {info.name}'s classes are not known: give them with --class-names FILE.")
    outputs, dataset = match_classes(classes, dataset, answers)
    return model if outputs is None else select_outputs(model, outputs).eval(), dataset


def _class_names(subject: OpenedModel, dataset: Dataset) -> tuple[str, ...] | None:
    """Class names of the model; for a model of 1,000 classes and data whose classes are ImageNet's numbers: ImageNet's."""
    if subject.classes is not None:
        return tuple(normalize_name(name) for name in subject.classes)
    if subject.card.num_classes != 1000:
        return None
    wnids = imagenet_wnids()
    return tuple(wnids) if set(dataset.classes) <= set(wnids) else None


def _chosen(dataset: Dataset, suite: Suite, examples: ExampleSelection, seed: int) -> list[int]:
    if examples.ids is not None:
        names = read_ids(examples.ids) if isinstance(examples.ids, Path) else examples.ids
        positions = positions_of_ids(dataset, names)
        if examples.num_examples is not None and examples.num_examples > len(positions):
            raise UserError(f"The list names {len(positions)} examples, fewer than {examples.num_examples}.")
        return positions[: examples.num_examples]
    usual = min(suite.num_examples or len(dataset.ids), len(dataset.ids))
    return choose_examples(dataset, examples.num_examples or usual, seed)


def _readable(dataset: Dataset, positions: Sequence[int], *, skip: bool) -> tuple[list[int], list[str]]:
    """The examples whose images can be read, and the ids of the others."""
    if not dataset.reads_files:  # arrays
        return list(positions), []
    with progress("reading the images once", len(positions)) as report:
        failures = find_unreadable(dataset, positions, report)
    if not failures:
        return list(positions), []
    if not skip or len(failures) == len(positions):
        raise unreadable_error(failures, len(positions))
    reasons = " ".join(reason for _, reason in failures[:3])
    say("warning", f"{len(failures)} of {len(positions)} images cannot be read and are left out: {reasons}")
    gone = {position for position, _ in failures}
    return [position for position in positions if position not in gone], [dataset.ids[index] for index, _ in failures]
