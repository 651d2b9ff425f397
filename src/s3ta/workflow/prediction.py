"""Answers for image files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from s3ta.data import DataConfig, has_transparency, load_image, transparency_note
from s3ta.data.dataset import as_images
from s3ta.data.folder_dataset import size_of_files
from s3ta.data.preprocessing import DEFAULT, Preprocessing, described
from s3ta.determinism import exact_arithmetic
from s3ta.models import device_of
from s3ta.progress import console
from s3ta.types import Images
from s3ta.workflow.fit_data_to_model import say
from s3ta.workflow.model import OpenedModel, RuntimeOptions, device_at
from s3ta.workflow.preprocessing import prepared, preprocessing_sentence


class Prediction(NamedTuple):
    """A model's answer to one image, likeliest class first."""

    image: Path
    classes: list[str]
    probabilities: list[float]


def predict(
    subject: OpenedModel,
    images: list[Path],
    top: int,
    runtime: RuntimeOptions,
    preprocessing: Preprocessing | None = None,
) -> list[Prediction]:
    """The `top` likeliest classes of image files, which become pixels by `preprocessing`, or where that is None as
    `evaluate_model` prepares them. Raises UserError for a file that is missing or no image."""
    names = subject.classes or [str(i) for i in range(subject.card.num_classes)]
    say("warning", transparency_note([str(path) for path in images if has_transparency(path)], len(images)))
    model = subject.model.to(device_at(runtime))
    answers = []
    for path, image in zip(images, prepared_images(subject, images, preprocessing), strict=True):
        with torch.no_grad(), exact_arithmetic(os.cpu_count() or 1):
            probabilities = model(image.to(device_of(model)))[0].softmax(dim=0)
        order = probabilities.argsort(descending=True)[:top].tolist()
        answers.append(Prediction(path, [names[i] for i in order], [probabilities[i].item() for i in order]))
    return answers


def prepared_images(
    subject: OpenedModel, images: list[Path], preprocessing: Preprocessing | None = None
) -> Iterator[Images]:
    """Each file as the model takes it, (1, C, H, W) in [0, 1], read when it is asked for; how that is done is told.

    Raises UserError for a file that is missing or no image, and for a preprocessing that does not fit the model."""
    card = subject.card
    config, origins = prepared(subject, DataConfig(source="folder:images", preprocessing=preprocessing), card)
    how = config.preprocessing or DEFAULT
    size = size_of_files(config)
    for number, path in enumerate(images):
        pixels = load_image(path, size, card.in_channels, how)
        if not number:
            console.print(preprocessing_sentence(described(how, size), card.config, origins))
        yield as_images(torch.from_numpy(pixels)[None])
