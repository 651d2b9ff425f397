"""Somebody's published weights as a model folder of ours."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from s3ta.errors import UserError
from s3ta.files import check_space, sha256, write_atomic
from s3ta.models import PooledClassifier, num_parameters, save_pretrained
from s3ta.models.tensorpack_weights import LICENCE, feature_denoising_model, read_tensorpack

CARD = "README.md"
LICENCE_NOTE = (
    "The weights of Feature Denoising are published under CC BY-NC 4.0 (github.com/facebookresearch/"
    "ImageNet-Adversarial-Training): name their authors (Xie et al. 2019), and use neither them nor what is made of them "
    "commercially. s3ta's own licence does not cover them."
)
UNCHECKED = (
    "That conversion reproduces the published clean accuracies (62.3% for ResNet-152, 65.3% with denoising blocks) is "
    "unchecked: the published files could not be had where s3ta was written. It was checked on files of the same layout with "
    "made-up weights."
)


class ConvertedModel(NamedTuple):
    """A model folder that was written, and what a person must know of it."""

    folder: Path
    name: str
    num_parameters: int
    notes: tuple[str, str]
    """The licence, and what is unchecked."""


def convert(file: Path, out: Path) -> ConvertedModel:
    """Write Feature Denoising's weights (tensorpack's npz) as a model folder: config, weights, and a card with the licence.

    Raises UserError for a file that is none of these, and where the folder holds something; nothing is written then."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not an empty folder: choose another with --out.")
    model = feature_denoising_model(read_tensorpack(file), str(file))
    check_space(out, 4 * num_parameters(model))
    write_atomic(out / CARD, _card(model, file).encode())
    save_pretrained(model, out)
    return ConvertedModel(out, model.config.name, num_parameters(model), (LICENCE_NOTE, UNCHECKED))


def _card(model: PooledClassifier, file: Path) -> str:
    """A model card as the Hub reads it."""
    name = model.config.name
    return f"""---
license: {LICENCE.lower()}
tags:
- image-classification
- adversarial-robustness
---

# {name} of Feature Denoising

Converted by `s3ta convert` from `{file.name}` (sha256 begins with {sha256(file.read_bytes())}): {num_parameters(model):,}
parameters, {model.config.num_classes} classes, RGB images in [0, 1].

{LICENCE_NOTE}

{UNCHECKED}

Measured as its authors did: `s3ta evaluate FOLDER --data folder:imagenet --preprocessing fd --suite table1`
"""
