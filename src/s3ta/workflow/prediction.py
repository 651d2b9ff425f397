"""Answers for image files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from s3ta.data import has_transparency, load_image, preprocessing_of_view, transparency_note
from s3ta.models import device_of
from s3ta.workflow.examples import say
from s3ta.workflow.place import Place, device_at
from s3ta.workflow.subject import open_subject


class Answer(NamedTuple):
    """A model's answer to one image, likeliest class first."""

    image: Path
    classes: list[str]
    probabilities: list[float]


def predict(source: str, images: list[Path], top: int, place: Place) -> list[Answer]:
    """The likeliest classes of image files. Raises UserError for a file that is missing or no image."""
    subject = open_subject(source)
    model, card = subject.model.to(device_at(place)), subject.card
    names = subject.classes or [str(i) for i in range(card.num_classes)]
    how = [] if card.view is None else [preprocessing_of_view(*card.view, card.image_size)]
    say("warning", transparency_note([str(path) for path in images if has_transparency(path)], len(images)))
    answers = []
    for path in images:
        pixels = torch.from_numpy(load_image(path, card.image_size, card.in_channels, *how)).float().div(255)
        probabilities = _probabilities(model, pixels.to(device_of(model)))
        order = probabilities.argsort(descending=True)[:top].tolist()
        answers.append(Answer(path, [names[i] for i in order], [probabilities[i].item() for i in order]))
    return answers


@torch.no_grad()
def _probabilities(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    return model(image[None])[0].softmax(dim=0)
